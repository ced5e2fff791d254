#include "graph/passes.h"

#include <algorithm>
#include <set>
#include <string_view>
#include <unordered_set>

#include "sdk/error.h"

namespace espalier {
namespace {

struct Registry {
  std::vector<std::pair<int, Pass>> entries;
  std::vector<Pass> ordered;
};

Registry& registry() {
  static Registry r;
  return r;
}

// A body is shared between copies of a graph: it is copied before it changes.
void rename_inside(Graph& graph, const std::string& from, const std::string& to);

void rename_reads(Node& node, const std::string& from, const std::string& to) {
  for (auto& input : node.inputs)
    if (input == from) input = to;
  if (node.attributes.empty()) return;
  const auto inner = captures(node);
  if (!std::binary_search(inner.begin(), inner.end(), from)) return;
  const auto rewrite = [&](std::shared_ptr<Graph>& body) {
    if (!body) return;
    auto copy = std::make_shared<Graph>(*body);
    rename_inside(*copy, from, to);
    body = std::move(copy);
  };
  for (auto& [key, attribute] : node.attributes) {
    if (auto one = std::get_if<std::shared_ptr<Graph>>(&attribute)) rewrite(*one);
    if (auto many = std::get_if<std::vector<std::shared_ptr<Graph>>>(&attribute))
      for (auto& body : *many) rewrite(body);
  }
}

void rename_inside(Graph& graph, const std::string& from, const std::string& to) {
  const bool shadowed = std::any_of(graph.inputs.begin(), graph.inputs.end(), [&](const Value& v) { return v.name == from; }) ||
                        graph.initializers.contains(from);
  if (shadowed) return;
  for (const auto& node : graph.nodes)
    if (std::find(node.outputs.begin(), node.outputs.end(), from) != node.outputs.end()) return;
  for (auto& node : graph.nodes) rename_reads(node, from, to);
  for (auto& value : graph.outputs)
    if (value.name == from) value.name = to;
}

bool is_output(const Graph& graph, const std::string& name) {
  return std::any_of(graph.outputs.begin(), graph.outputs.end(), [&](const Value& v) { return v.name == name; });
}

void rename_definition(Graph& graph, const std::string& from, const std::string& to) {
  for (auto& node : graph.nodes)
    for (auto& output : node.outputs)
      if (output == from) {
        output = to;
        return;
      }
}

bool is_defined_by_node(const Graph& graph, const std::string& name) {
  return std::any_of(graph.nodes.begin(), graph.nodes.end(), [&](const Node& node) {
    return std::find(node.outputs.begin(), node.outputs.end(), name) != node.outputs.end();
  });
}

}  // namespace

RegisterPass::RegisterPass(int order, Pass pass) { registry().entries.emplace_back(order, std::move(pass)); }

const std::vector<Pass>& all_passes() {
  auto& r = registry();
  if (r.ordered.size() != r.entries.size()) {
    std::stable_sort(r.entries.begin(), r.entries.end(), [](const auto& a, const auto& b) {
      return std::pair(a.first, std::string_view(a.second.name)) < std::pair(b.first, std::string_view(b.second.name));
    });
    r.ordered.clear();
    for (const auto& [order, pass] : r.entries) r.ordered.push_back(pass);
  }
  return r.ordered;
}

std::vector<PassReport> optimize(Graph& graph, const std::vector<std::string>& names, int rounds) {
  std::vector<const Pass*> chosen;
  for (const auto& pass : all_passes())
    if (names.empty() || std::find(names.begin(), names.end(), pass.name) != names.end()) chosen.push_back(&pass);
  for (const auto& name : names) {
    if (std::any_of(chosen.begin(), chosen.end(), [&](const Pass* pass) { return pass->name == name; })) continue;
    std::string known;
    for (const auto& pass : all_passes()) known += (known.empty() ? "" : ", ") + pass.name;
    throw_invalid("there is no such pass", name, "passes: " + known);
  }
  std::vector<PassReport> reports(chosen.size());
  for (int round = 0; round < rounds; ++round) {
    std::int64_t changes = 0;
    for (std::size_t i = 0; i < chosen.size(); ++i) {
      auto& report = reports[i];
      const auto nodes = static_cast<std::int64_t>(graph.nodes.size());
      if (round == 0) report.pass = chosen[i]->name, report.nodes_before = report.nodes_after = nodes;
      const auto done = chosen[i]->run(graph, report.notes);
      // Between rounds other passes remove nodes too: a pass answers only for its own.
      report.nodes_after += static_cast<std::int64_t>(graph.nodes.size()) - nodes;
      report.changes += done;
      changes += done;
    }
    if (changes == 0) break;
  }
  graph.validate();
  return reports;
}

std::vector<PassReport> normal_form(Graph& graph) {
  static const std::set<std::string, std::less<>> later{"batch-norm", "gemm", "layout"};
  std::vector<std::string> names;
  for (const auto& pass : all_passes())
    if (!later.contains(pass.name)) names.push_back(pass.name);
  return optimize(graph, names);
}

void replace_uses(Graph& graph, const std::string& from, const std::string& to) {
  if (from == to) return;
  for (auto& node : graph.nodes) rename_reads(node, from, to);
  if (!is_output(graph, from)) return;
  // The name at the graph's border stays: what computed it gives the name up to the value that takes its place.
  rename_definition(graph, from, graph.fresh(from + ".replaced"));
  if (is_defined_by_node(graph, to) && !is_output(graph, to)) {
    for (auto& node : graph.nodes) rename_reads(node, to, from);
    rename_definition(graph, to, from);
    return;
  }
  Node copy;
  copy.op = "Identity";
  copy.name = "/" + from + "/Identity";
  for (int i = 1; std::any_of(graph.nodes.begin(), graph.nodes.end(), [&](const Node& n) { return n.name == copy.name; }); ++i)
    copy.name = "/" + from + "/Identity_" + std::to_string(i);
  copy.inputs = {to};
  copy.outputs = {from};
  graph.nodes.push_back(std::move(copy));
}

std::int64_t remove_dead(Graph& graph) {
  std::unordered_set<std::string> needed;
  for (const auto& value : graph.outputs) needed.insert(value.name);
  std::vector<char> live(graph.nodes.size(), 0);
  for (std::size_t i = graph.nodes.size(); i-- > 0;) {
    const auto& node = graph.nodes[i];
    if (std::none_of(node.outputs.begin(), node.outputs.end(), [&](const auto& output) { return needed.contains(output); }))
      continue;
    live[i] = 1;
    needed.insert(node.inputs.begin(), node.inputs.end());
    for (auto& name : captures(node)) needed.insert(std::move(name));
  }
  std::int64_t removed = 0;
  std::size_t kept = 0;
  for (std::size_t i = 0; i < graph.nodes.size(); ++i) {
    if (!live[i]) {
      ++removed;
      continue;
    }
    if (kept != i) graph.nodes[kept] = std::move(graph.nodes[i]);
    ++kept;
  }
  graph.nodes.resize(kept);
  removed += static_cast<std::int64_t>(
      std::erase_if(graph.initializers, [&](const auto& entry) { return !needed.contains(entry.first); }));
  return removed;
}

}  // namespace espalier
