#include "recipe/matrix.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>

#include "host/parameter.h"
#include "recipe/values.h"

namespace espalier {
namespace {

constexpr std::size_t kMostVariants = 1000;  // of one stage
constexpr std::size_t kMostStages = 100000;  // of a recipe
constexpr std::size_t kLongestLabel = 40;

struct Axis {
  std::size_t origin;  ///< index of the stage whose matrix it stands in
  std::string key;
  Position at;
  std::vector<Node> values;
  std::vector<std::string> labels;
};

/// What stands for a value in the name of a stage; empty where it has no short text.
std::string label_of(const Node& value) {
  const auto plain = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           std::string_view("_-+.").find(c) != std::string_view::npos;
  };
  std::string text;
  if (value.kind == Node::Kind::table) {
    if (const Member* use = value.find("use"); use && use->value.is_text()) text = use->value.scalar.get<std::string>();
    text = text.substr(text.find('/') + 1);  // "metric/taylor" → "taylor": names of stages become names of folders
  } else if (value.is_text()) {
    text = value.scalar.get<std::string>();
  } else if (value.kind == Node::Kind::scalar) {
    text = value.scalar.dump();
  }
  return text.size() <= kLongestLabel && std::all_of(text.begin(), text.end(), plain) ? text : std::string();
}

/// Which value of each axis.
using Choice = std::map<std::size_t, std::size_t>;

class Expansion {
 public:
  Expansion(Node& stages, Findings& findings) : stages_(stages), findings_(findings) {
    for (std::size_t i = 0; i < stages.members.size(); ++i) index_.emplace(stages.members[i].key, i);
    of_stage_.resize(stages.members.size());
  }

  void run() {
    for (std::size_t i = 0; i < stages_.members.size(); ++i) take_matrix(i);
    if (axes_.empty()) return check_stars();
    inherit();
    if (!affordable()) return;
    std::vector<Member> expanded;
    for (std::size_t i = 0; i < stages_.members.size(); ++i) {
      for (const Choice& choice : combinations(of_stage_[i])) {
        Member stage = stages_.members[i];
        for (const auto& [axis, value] : choice)
          if (axes_[axis].origin == i) stage.value.members.push_back({axes_[axis].key, axes_[axis].at, axes_[axis].values[value]});
        rewrite(stage.value, choice);
        stage.key = name_of(i, choice);
        expanded.push_back(std::move(stage));
      }
    }
    stages_.members = std::move(expanded);
  }

 private:
  /// Reads a stage's matrix and takes it out of the stage.
  void take_matrix(std::size_t index) {
    Member& stage = stages_.members[index];
    if (stage.key.find('[') != std::string::npos) {
      findings_.error("name", stage.key_at, fmt::format("{} cannot name a stage", describe_value(stage.key)),
                      "brackets stand for the values of a matrix");
      stage.key = std::string(stage_base(stage.key));
    }
    auto& members = stage.value.members;
    const auto found = std::find_if(members.begin(), members.end(), [](const Member& m) { return m.key == "matrix"; });
    if (found == members.end()) return;
    const Member matrix = std::move(*found);
    members.erase(found);
    if (matrix.value.reported()) return;
    if (matrix.value.kind != Node::Kind::table || matrix.value.members.empty())
      return findings_.error("type", matrix.value.at, "\"matrix\" must be a table of lists",
                             "for example matrix = { sparsity = [0.1, 0.2] }");
    for (const Member& row : matrix.value.members) add_axis(index, row);
  }

  void add_axis(std::size_t index, const Member& row) {
    const Member& stage = stages_.members[index];
    if (row.value.reported()) return;
    if (row.key == "use" || row.key == "matrix" || row.key == "require")
      return findings_.error("unknown-key", row.key_at, fmt::format("\"{}\" cannot stand in a matrix", row.key),
                             "parameters, inputs, seed and threads can");
    if (stage.value.find(row.key))
      return findings_.error("duplicate", row.key_at, fmt::format("\"{}\" stands in the matrix and in the stage", row.key),
                             "leave it out of one of them");
    if (row.value.kind != Node::Kind::list || row.value.items.empty())
      return findings_.error("type", row.value.at,
                             fmt::format("\"{}\" in a matrix must be a list with a value for each stage", row.key),
                             fmt::format("for example {} = [0.1, 0.2]", row.key));
    Axis axis{index, row.key, row.key_at, row.value.items, {}};
    std::map<std::string, int> seen;
    for (const Node& value : axis.values) {
      const bool again = std::count_if(axis.values.begin(), axis.values.end(),
                                       [&](const Node& other) { return to_json(other) == to_json(value); }) > 1;
      if (again)
        return findings_.error("duplicate", value.at, fmt::format("\"{}\" has a value twice in this matrix", row.key),
                               "leave one out");
      axis.labels.push_back(label_of(value));
      ++seen[axis.labels.back()];
    }
    for (std::size_t i = 0; i < axis.labels.size(); ++i)  // no text, or not its alone: its place in the list
      if (axis.labels[i].empty() || seen[axis.labels[i]] > 1)
        axis.labels[i] += fmt::format("{}{}", axis.labels[i].empty() ? "" : "-", i + 1);
    of_stage_[index].insert(axes_.size());
    axes_.push_back(std::move(axis));
  }

  /// "@name…" → the stage meant, and what follows its name.
  struct Reference {
    std::optional<std::size_t> stage;
    std::string rest;
    bool star() const { return rest.starts_with("[*]"); }
    bool one() const { return rest.starts_with("[") && !star(); }
  };
  Reference read(const Node& node) const {
    const std::string text = node.scalar.get<std::string>().substr(1);
    const auto end = std::min(text.find_first_of(".["), text.size());
    const auto found = index_.find(text.substr(0, end));
    return {found == index_.end() ? std::nullopt : std::optional(found->second), text.substr(end)};
  }

  template <class Visit>
  static void each_reference(const Node& node, const Visit& visit) {
    if (is_reference(node)) visit(node);
    for (const Node& item : node.items) each_reference(item, visit);
    for (const Member& member : node.members) each_reference(member.value, visit);
  }

  /// Values travel along references until nothing changes; the axes are few, and each goes to a stage once.
  void inherit() {
    std::vector<std::vector<std::size_t>> readers(stages_.members.size());
    for (std::size_t i = 0; i < stages_.members.size(); ++i)
      each_reference(stages_.members[i].value, [&](const Node& node) {
        const Reference reference = read(node);
        if (reference.stage && !reference.star() && !reference.one()) readers[*reference.stage].push_back(i);
      });
    for (const Axis& axis : axes_)  // an input may be what varies
      for (const Node& value : axis.values)
        each_reference(value, [&](const Node& node) {
          const Reference reference = read(node);
          if (reference.stage && !reference.star() && !reference.one()) readers[*reference.stage].push_back(axis.origin);
        });
    std::vector<std::size_t> waiting;
    for (std::size_t i = 0; i < of_stage_.size(); ++i)
      if (!of_stage_[i].empty()) waiting.push_back(i);
    while (!waiting.empty()) {
      const std::size_t from = waiting.back();
      waiting.pop_back();
      for (const std::size_t to : readers[from]) {
        const std::size_t before = of_stage_[to].size();
        of_stage_[to].insert(of_stage_[from].begin(), of_stage_[from].end());
        if (of_stage_[to].size() != before) waiting.push_back(to);
      }
    }
  }

  bool affordable() {
    std::size_t all = 0;
    for (std::size_t i = 0; i < of_stage_.size(); ++i) {
      std::size_t count = 1;
      for (const std::size_t axis : of_stage_[i]) count = std::min(count * axes_[axis].values.size(), kMostVariants + 1);
      if (count > kMostVariants) {
        findings_.error("range", stages_.members[i].key_at,
                        fmt::format("stage \"{}\" would become more than {} stages", stages_.members[i].key, kMostVariants),
                        "shorten the lists of its matrix, or of those that it reads");
        return false;
      }
      all += count;
    }
    if (all <= kMostStages) return true;
    findings_.error("range", stages_.at, fmt::format("the recipe would have more than {} stages", kMostStages),
                    "shorten the matrices");
    return false;
  }

  std::vector<Choice> combinations(const std::set<std::size_t>& axes) const {
    std::vector<Choice> all{{}};
    for (const std::size_t axis : axes) {
      std::vector<Choice> longer;
      for (const Choice& choice : all)
        for (std::size_t value = 0; value < axes_[axis].values.size(); ++value) {
          longer.push_back(choice);
          longer.back()[axis] = value;
        }
      all = std::move(longer);
    }
    return all;
  }

  /// The variant of a stage under a choice that may say more than it needs.
  std::string name_of(std::size_t stage, const Choice& choice) const {
    const std::string& base = stages_.members[stage].key;
    const auto& own = of_stage_[stage];
    if (own.empty()) return base;
    std::string text;
    for (const std::size_t axis : own) {
      const bool shared = std::any_of(own.begin(), own.end(),
                                      [&](std::size_t other) { return other != axis && axes_[other].key == axes_[axis].key; });
      text += fmt::format("{}{}{}={}", text.empty() ? "" : ",", shared ? stages_.members[axes_[axis].origin].key + "." : "",
                          axes_[axis].key, axes_[axis].labels[choice.at(axis)]);
    }
    return fmt::format("{}[{}]", base, text);
  }

  Node reference_to(const Node& like, const std::string& stage, std::string_view rest) const {
    Node node = like;
    node.scalar = fmt::format("@{}{}", stage, rest);
    return node;
  }

  /// All variants behind "@name[*]"; after a finding one value of which everything has been said.
  std::vector<Node> all_of(const Node& node, const Reference& reference) {
    std::vector<Node> list;
    if (!reference.stage || of_stage_[*reference.stage].empty()) {
      findings_.error("unknown-stage", node.at, fmt::format("{} names no stage with a matrix", describe_value(node.scalar)),
                      reference.stage ? "write the reference without [*]" : "");
      Node said = node;
      said.kind = Node::Kind::foreign;
      said.scalar = nullptr;
      return {std::move(said)};
    }
    for (const Choice& choice : combinations(of_stage_[*reference.stage]))
      list.push_back(reference_to(node, name_of(*reference.stage, choice), reference.rest.substr(3)));
    return list;
  }

  void rewrite(Node& node, const Choice& choice) {
    if (is_reference(node)) {
      const Reference reference = read(node);
      if (reference.star()) {
        Node list;
        list.kind = Node::Kind::list;
        list.at = node.at;
        list.items = all_of(node, reference);
        const bool said = list.items.size() == 1 && list.items.front().reported();
        node = said ? Node(list.items.front()) : std::move(list);
      } else if (reference.stage && !reference.one()) {
        node = reference_to(node, name_of(*reference.stage, choice), reference.rest);
      }
      return;
    }
    std::vector<Node> items;
    for (Node& item : node.items) {
      if (is_reference(item) && read(item).star()) {  // in a list they stand side by side
        for (Node& each : all_of(item, read(item))) items.push_back(std::move(each));
        continue;
      }
      rewrite(item, choice);
      items.push_back(std::move(item));
    }
    node.items = std::move(items);
    for (Member& member : node.members) rewrite(member.value, choice);
  }

  void check_stars() {
    for (Member& stage : stages_.members) rewrite(stage.value, {});
  }

  Node& stages_;
  Findings& findings_;
  std::map<std::string, std::size_t> index_;
  std::vector<Axis> axes_;
  std::vector<std::set<std::size_t>> of_stage_;  ///< axes by stage
};

}  // namespace

void expand_matrix(Node& stages, Findings& findings) { Expansion(stages, findings).run(); }

std::string_view stage_base(std::string_view name) { return name.substr(0, std::min(name.find('['), name.size())); }

StagePort split_reference(std::string_view text) {
  const auto bracket = text.find('[');
  const auto from = bracket == std::string_view::npos ? 0 : std::min(text.find(']', bracket), text.size());  // values may hold dots
  const auto dot = text.find('.', from);
  return {std::string(text.substr(0, dot)), dot == std::string_view::npos ? std::string() : std::string(text.substr(dot + 1))};
}

}  // namespace espalier
