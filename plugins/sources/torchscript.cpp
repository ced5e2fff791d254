// A model from a TorchScript archive: what torch.jit.trace or torch.jit.script made and torch.jit.save wrote.
#include "run/torchscript.h"
#include "formats/model_artifact.h"
#include "formats/source_outputs.h"
#include "sdk/plugin.h"

namespace espalier {
namespace {

class TorchScriptSource final : public Component {
 public:
  void run(Context& context) override {
    const auto& params = context.params();
    Graph graph = read_torchscript(params.path("path"), params.texts("inputs"));
    context.check_cancelled();
    bring_to_normal_form(context, graph);
    if (params.has("task")) graph.metadata["espalier.task"] = params.text("task");
    put_named_tokenizer(context, graph);
    context.output("model", save_model(context, graph));
    context.figure("parameters", static_cast<double>(graph.parameter_count()));
  }
};

}  // namespace

ESPALIER_PLUGIN(R"json({
  "name": "torchscript", "version": "0.1.0", "author": "The Espalier authors", "licence": "Apache-2.0",
  "description": "Reads TorchScript models",
  "components": [{
    "name": "source/torchscript", "version": "0.1.0",
    "summary": "A model from a TorchScript archive (.pt), traced or scripted",
    "inputs": [],
    "outputs": [
      {"name": "model", "type": "model", "help": "the model as a graph, in normal form"},
      {"name": "tokenizer", "type": "tokenizer", "help": "from tokenizer_file; empty when that is not given"}
    ],
    "parameters": [
      {"name": "path", "type": "path", "required": true, "help": "the .pt file that torch.jit.save wrote"},
      {"name": "inputs", "type": "list<string>", "default": [], "help": "types and shapes of the model's inputs, \"x: f32[batch,3,32,32]\" each; a traced model brings them along"},
      {"name": "task", "type": "string", "help": "what the model does, for later stages: causal-lm, image-classification, …"},
      {"name": "tokenizer_file", "type": "path", "help": "the model's tokenizer.json"}
    ],
    "depends": {"seed": false, "threads": false, "runtimes": ["torch"]},
    "byte_exact": true,
    "estimate": {"memory": "1.5e8 + 3 * path.bytes",
                 "seconds": "0.5 + path.bytes / 3e8",
                 "memory_base": 2e8, "memory_per_byte": 3, "output_per_byte": 1.05}
  }]
})json",
                ESPALIER_COMPONENT("source/torchscript", TorchScriptSource));

}  // namespace espalier
