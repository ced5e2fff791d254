#include "graph/unit_cost.h"

#include <set>
#include <unordered_map>

#include "graph/infer_node.h"
#include "graph/slicing.h"
#include "sdk/error.h"

namespace espalier {
namespace {

using Element = ChannelClasses::Element;

struct ValueAxis {
  const std::string* value;
  std::size_t axis;
};

bool same(const ValueInfo& a, const ValueInfo& b) {
  return a.dtype == b.dtype && a.rank_known == b.rank_known && a.shape == b.shape && a.content == b.content;
}

/// Which group's first units a class is; -1: none's.
std::vector<std::int32_t> owners(const ChannelClasses& classes, const std::vector<CoupledGroup>& groups) {
  std::vector<std::int32_t> owner(classes.count(), -1);
  for (std::size_t g = 0; g < groups.size(); ++g) {
    const CoupledGroup& group = groups[g];
    if (group.pinned || static_cast<std::int64_t>(group.units.size()) <= group.multiple) continue;
    for (std::size_t unit = 0; unit < static_cast<std::size_t>(group.multiple); ++unit) {
      for (const Slice& slice : group.units[unit]) {
        const Member& member = group.members[slice.member];
        const auto axis = classes.axis(member.tensor, member.axis);
        for (auto index : slice.indices)
          owner[classes.find(axis.first + static_cast<Element>(index))] = static_cast<std::int32_t>(g);
      }
    }
  }
  return owner;
}

/// A graph from which one group's units are taken at a time, as far as they reach.
class Trial {
 public:
  Trial(const ChannelClasses& classes, const std::vector<CoupledGroup>& groups)
      : classes_(classes),
        owner_(owners(classes, groups)),
        reached_(groups.size()),
        uses_(classes.graph()),
        graph_(classes.graph()),
        values_(classes.values()) {
    for (const auto& [name, info] : classes.values()) {
      for (std::size_t axis = 0; axis < info.shape.size(); ++axis) {
        const auto where = classes.axis(name, axis);
        std::set<std::int32_t> seen;
        for (std::int64_t i = 0; i < where.length; ++i)
          if (const auto g = owner_[classes.find(where.first + static_cast<Element>(i))]; g >= 0 && seen.insert(g).second)
            reached_[static_cast<std::size_t>(g)].push_back({&name, axis});
      }
    }
  }

  /// Multiply-accumulates that go with the first units of the group; nothing when they cannot go alone.
  std::optional<double> saved(std::size_t group) {
    if (reached_[group].empty()) return std::nullopt;
    group_ = static_cast<std::int32_t>(group);
    std::optional<double> total = 0;
    try {
      for (const ValueAxis& reached : reached_[group]) reach(*reached.value);
      while (!waiting_.empty()) *total += recut(waiting_.extract(waiting_.begin()).value());
    } catch (const Error&) {
      total.reset();
    }
    restore();
    return total;
  }

 private:
  void reach(const std::string& value) {
    if (const auto producer = uses_.producer_of(value); producer >= 0) waiting_.insert(static_cast<std::size_t>(producer));
    for (const auto& reader : uses_.readers_of(value)) waiting_.insert(reader.node);
  }

  const std::vector<std::int64_t>* kept(const std::string& value, std::size_t axis) {
    const auto where = classes_.axis(value, axis);
    if (where.length == 0) return nullptr;
    const auto [at, fresh] = kept_.try_emplace(where.first);
    if (fresh) {
      for (std::int64_t i = 0; i < where.length; ++i)
        if (owner_[classes_.find(where.first + static_cast<Element>(i))] != group_) at->second.push_back(i);
    }
    return static_cast<std::int64_t>(at->second.size()) == where.length ? nullptr : &at->second;
  }

  void slice_inputs(const Node& node) {
    for (const auto& name : node.inputs) {
      const Tensor* tensor = graph_.initializer(name);
      if (!tensor || changed_.contains(name)) continue;
      bool touched = false;
      for (std::size_t axis = 0; axis < tensor->shape.size(); ++axis) touched = touched || kept(name, axis);
      if (!touched) continue;
      graph_.initializers[name] = sliced_outline(*tensor, name, [&](std::size_t axis) { return kept(name, axis); });
      changed_.insert(name);
    }
  }

  /// What a node saves; its outputs are those of the smaller graph from here on.
  double recut(std::size_t index) {
    const Graph& whole = classes_.graph();
    Node& node = graph_.nodes[index];
    nodes_.insert(index);
    slice_inputs(node);
    const auto* op = find_operator(graph_, node);
    if (op && op->adjust) {
      Adjust adjust{graph_, node, classes_.values(), [&](const std::string& value, std::size_t axis) { return kept(value, axis); }};
      op->adjust(adjust);
    }
    for (const auto& name : node.inputs) {
      if (const Tensor* tensor = graph_.initializer(name)) {
        values_[name] = info_of(*tensor);
        changed_.insert(name);
      }
    }
    const auto outputs = infer_node(graph_, values_, node);
    for (std::size_t slot = 0; slot < node.outputs.size(); ++slot) {
      const auto& name = node.outputs[slot];
      if (name.empty()) continue;
      values_[name] = outputs[slot];
      changed_.insert(name);
      if (!same(outputs[slot], classes_.values().find(name)->second))
        for (const auto& reader : uses_.readers_of(name)) waiting_.insert(reader.node);
    }
    return cost(whole, classes_.values(), whole.nodes[index], {}).macs - cost(graph_, values_, node, {}).macs;
  }

  void restore() {
    const Graph& whole = classes_.graph();
    for (auto index : nodes_) graph_.nodes[index] = whole.nodes[index];
    for (const auto& name : changed_) {
      const auto info = classes_.values().find(name);
      if (info == classes_.values().end()) {
        values_.erase(name);
      } else {
        values_[name] = info->second;
      }
      const Tensor* tensor = whole.initializer(name);
      if (tensor) {
        graph_.initializers[name] = *tensor;
      } else {
        graph_.initializers.erase(name);
      }
    }
    nodes_.clear(), changed_.clear(), waiting_.clear(), kept_.clear();
  }

  const ChannelClasses& classes_;
  std::vector<std::int32_t> owner_;
  std::vector<std::vector<ValueAxis>> reached_;  ///< by group
  Uses uses_;
  Graph graph_;
  ValueMap values_;
  std::int32_t group_ = -1;
  std::set<std::size_t> waiting_, nodes_;  ///< nodes in topological order: to be looked at, and changed
  std::set<std::string> changed_;          ///< initializers and values
  std::unordered_map<Element, std::vector<std::int64_t>> kept_;
};

}  // namespace

std::vector<std::optional<double>> macs_per_unit(const ChannelClasses& classes, const std::vector<CoupledGroup>& groups) {
  std::vector<std::optional<double>> result;
  Trial trial(classes, groups);
  for (std::size_t g = 0; g < groups.size(); ++g) {
    result.push_back(trial.saved(g));
    if (result.back()) *result.back() /= static_cast<double>(groups[g].multiple);
  }
  return result;
}

}  // namespace espalier
