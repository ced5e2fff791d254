// A model from a TorchScript archive: what torch.jit.trace or torch.jit.script made and torch.jit.save wrote.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "formats/model_artifact.h"
#include "formats/tokenizer.h"
#include "graph/passes.h"
#include "run/torchscript.h"
#include "sdk/plugin.h"

namespace espalier {
namespace {

std::string read_text(const std::filesystem::path& path) {
  const MappedFile file(path);
  return {reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()};
}

void normalise(Context& context, Graph& graph) {
  const std::size_t nodes = graph.nodes.size();
  Json rows = Json::array();
  for (const PassReport& report : normal_form(graph))
    if (report.changes > 0) rows.push_back({report.pass, report.changes, fmt::format("{}", fmt::join(report.notes, "; "))});
  context.detail("normal_form", {{"columns", {"pass", "changes", "what it did"}}, {"rows", std::move(rows)}});
  context.log(LogLevel::info, fmt::format("{} nodes, {} in normal form", nodes, graph.nodes.size()));
}

class TorchScriptSource final : public Component {
 public:
  void run(Context& context) override {
    const auto& params = context.params();
    Graph graph = read_torchscript(params.path("path"), params.texts("inputs"));
    context.check_cancelled();
    normalise(context, graph);
    if (params.has("task")) graph.metadata["espalier.task"] = params.text("task");
    put_tokenizer(context, graph);
    context.output("model", save_model(context, graph));
    context.figure("parameters", static_cast<double>(graph.parameter_count()));
  }

 private:
  static void put_tokenizer(Context& context, Graph& graph) {
    if (!context.params().has("tokenizer_file")) {
      Artifact absent;
      absent.type = ArtifactType::tokenizer;
      absent.meta["absent"] = "the stage names no tokenizer_file";
      context.output("tokenizer", std::move(absent));
      return;
    }
    const auto where = context.params().path("tokenizer_file");
    auto tokenizer = save_tokenizer(context, *Tokenizer::from_json(read_text(where), where.string()));
    graph.metadata["espalier.tokenizer"] = tokenizer.digest().hex();
    context.output("tokenizer", std::move(tokenizer));
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
