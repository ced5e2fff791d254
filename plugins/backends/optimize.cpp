#include <fmt/format.h>

#include <algorithm>

#include "formats/model_artifact.h"
#include "graph/memory_plan.h"
#include "graph/passes.h"
#include "sdk/plugin.h"

namespace espalier {
namespace {

/// Names of `wanted` that are no pass stop the stage before anything runs.
void check_names(const std::vector<std::string>& wanted) {
  std::string known;
  for (const Pass& pass : all_passes()) known += (known.empty() ? "" : ", ") + pass.name;
  for (const std::string& name : wanted) {
    bool found = false;
    for (const Pass& pass : all_passes()) found = found || pass.name == name;
    if (!found) throw_invalid("there is no pass \"" + name + "\"", "backend/optimize, passes", "known passes: " + known);
  }
}

/// Plans the buffers of a run, tells what that gives, and puts the nodes into the planned order.
void arrange(Context& context, Graph& graph) {
  const ValueMap values = infer(graph);
  Bindings lengths;
  for (const auto& [symbol, length] : context.params().numbers("lengths")) {
    if (length < 0 || length > 1e9 || length != static_cast<double>(static_cast<std::int64_t>(length)))
      throw_invalid(fmt::format("the length of \"{}\" is {}", symbol, length), "backend/optimize, lengths",
                    "lengths are whole numbers from 0");
    lengths[symbol] = static_cast<std::int64_t>(length);
  }
  std::string assumed;
  for (const auto& [name, info] : values)
    for (const Dim& dim : info.shape)
      for (const auto& [symbol, factor] : dim.terms())
        if (lengths.emplace(symbol, 1).second) assumed += (assumed.empty() ? "" : ", ") + symbol;
  const MemoryPlan plan = plan_memory(graph, values, lengths);
  if (!assumed.empty()) context.log(LogLevel::info, "memory is planned with length 1 for: " + assumed);
  if (!plan.unknown.empty())
    context.log(LogLevel::warning, fmt::format("{} values have no known size and are not planned, {} among them",
                                               plan.unknown.size(), plan.unknown[0]));
  context.figure("peak_bytes_before", static_cast<double>(plan.peak_before));
  context.figure("peak_bytes_after", static_cast<double>(plan.peak_after));
  Json rows = Json::array();
  for (const PlannedBuffer& buffer : plan.buffers)
    rows.push_back({buffer.value, buffer.bytes, buffer.offset, buffer.first, buffer.last});
  context.detail("memory_plan", {{"columns", {"value", "bytes", "offset", "first step", "last step"}}, {"rows", rows}});
  context.detail(
      "plot.live_bytes",
      {{"x", "node"},
       {"y", "bytes alive"},
       {"series", {{{"name", "before"}, {"values", plan.live_before}}, {{"name", "after"}, {"values", plan.live_after}}}}});
  if (plan.reordered) apply_order(graph, plan);
}

class Optimize final : public Component {
 public:
  void run(Context& context) override {
    const std::vector<std::string> wanted = context.params().texts("passes");
    check_names(wanted);
    Graph graph = load_model(context, context.input("model"));
    const auto before = graph.nodes.size();
    const auto transposes = [&] {
      return std::count_if(graph.nodes.begin(), graph.nodes.end(),
                           [](const Node& node) { return node.op == "Transpose" && node.domain.empty(); });
    };
    context.figure("transposes_before", static_cast<double>(transposes()));
    context.progress({0, 1, "rewriting the graph", {}});
    const std::vector<PassReport> reports = optimize(graph, wanted, static_cast<int>(context.params().integer("rounds")));
    graph.validate();

    Json rows = Json::array();
    for (const PassReport& report : reports) {
      std::string notes;
      for (const std::string& note : report.notes) notes += (notes.empty() ? "" : "; ") + note;
      rows.push_back({report.pass, report.changes, report.nodes_before, report.nodes_after, notes});
      if (report.changes > 0)
        context.log(LogLevel::info,
                    fmt::format("{}: {} changes{}{}", report.pass, report.changes, notes.empty() ? "" : ", ", notes));
    }
    context.detail("passes", {{"columns", {"pass", "changes", "nodes before", "nodes after", "notes"}}, {"rows", rows}});
    context.figure("nodes_before", static_cast<double>(before));
    context.figure("nodes_after", static_cast<double>(graph.nodes.size()));
    context.figure("transposes_after", static_cast<double>(transposes()));
    if (context.params().flag("plan_memory")) arrange(context, graph);
    context.output("model", save_model(context, graph));
    context.progress({1, 1, "rewriting the graph", {}});
  }
};

}  // namespace

ESPALIER_PLUGIN(R"json({
  "name": "optimize", "version": "0.1.0", "author": "The Espalier authors", "licence": "Apache-2.0",
  "description": "Graph rewrites that keep what a model computes",
  "components": [ {
    "name": "backend/optimize", "version": "0.1.0",
    "summary": "fold constants, drop dead and repeated nodes, fuse into the operators of opset 23",
    "inputs": [ {"name": "model", "type": "model", "required": true, "many": false, "help": "the model to rewrite"} ],
    "outputs": [ {"name": "model", "type": "model", "help": "a model that computes the same"} ],
    "parameters": [
      {"name": "passes", "type": "list<string>", "default": [], "help": "passes to run, by name; all when empty"},
      {"name": "rounds", "type": "integer", "default": 8, "min": 1, "max": 64, "help": "the passes are repeated until none changes anything, at most so often"},
      {"name": "plan_memory", "type": "boolean", "default": true, "help": "plan the buffers of a run (figures, plot) and write the nodes in the order with the lowest peak"},
      {"name": "lengths", "type": "map<number>", "default": {"batch": 1, "sequence": 512, "past": 0}, "help": "lengths of the model's symbolic dimensions that memory is planned for; others count as 1"}
    ],
    "depends": {"seed": false, "threads": false, "runtimes": []},
    "byte_exact": true, "exclusive": false,
    "estimate": {"memory": "7.4e7 + if(model.language, 4e7 + 1.25 * model.largest_bytes, 0.1 * model.bytes)",
                 "seconds": "0.03 + if(model.language, 0.1, 0)",
                 "memory_base": 1e8, "memory_per_byte": 1.2, "output_per_byte": 1}
  } ] })json",
                ESPALIER_COMPONENT("backend/optimize", Optimize));

}  // namespace espalier
