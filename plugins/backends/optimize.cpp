#include <fmt/format.h>

#include "formats/model_artifact.h"
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

class Optimize final : public Component {
 public:
  void run(Context& context) override {
    const std::vector<std::string> wanted = context.params().texts("passes");
    check_names(wanted);
    Graph graph = load_model(context, context.input("model"));
    const auto before = graph.nodes.size();
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
      {"name": "rounds", "type": "integer", "default": 8, "min": 1, "max": 64, "help": "the passes are repeated until none changes anything, at most so often"}
    ],
    "depends": {"seed": false, "threads": false, "runtimes": []},
    "byte_exact": true, "exclusive": false,
    "estimate": {"memory_base": 1e8, "memory_per_byte": 1.2, "output_per_byte": 1}
  } ] })json",
                ESPALIER_COMPONENT("backend/optimize", Optimize));

}  // namespace espalier
