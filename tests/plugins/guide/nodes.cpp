#include "formats/model_artifact.h"
#include "graph/graph.h"
#include "sdk/plugin.h"

namespace {

class CountNodes final : public espalier::Component {
  void run(espalier::Context& context) override {
    const espalier::Graph graph = espalier::load_model(context, context.input("model"));
    context.figure("nodes", static_cast<double>(graph.nodes.size()));
  }
};

}  // namespace

ESPALIER_PLUGIN(R"json({
  "name": "nodes", "version": "0.1.0", "author": "You", "licence": "Apache-2.0", "description": "Counts nodes",
  "components": [{
    "name": "evaluator/nodes", "version": "0.1.0", "summary": "number of nodes of a model",
    "inputs": [{"name": "model", "type": "model", "help": "the model to count"}],
    "outputs": [], "parameters": [], "byte_exact": true }]
})json",
                ESPALIER_COMPONENT("evaluator/nodes", CountNodes));
