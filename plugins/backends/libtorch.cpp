#include <fmt/format.h>
#include <torch/headeronly/version.h>

#include "formats/model_artifact.h"
#include "formats/onnx.h"
#include "formats/package.h"
#include "graph/causal.h"
#include "run/runtime.h"
#include "run/token_limits.h"
#include "sdk/plugin.h"

namespace espalier {
namespace {

/// Refuses tokens that the model does not know and texts that it has no positions for, before they reach a table.
class Checked final : public LanguageModel {
 public:
  Checked(const Graph& graph, const OpenOptions& options, std::string where)
      : limits_{std::move(where), 0, position_limit(graph), options.last_only} {
    for (const Value& output : graph.outputs)
      if (output.name == "logits" && output.shape.size() == 3) limits_.vocabulary = output.shape[2].value_or(0);
    if (limits_.vocabulary <= 0) throw_invalid("logits is not [batch, sequence, vocabulary]", limits_.where);
    model_ = language_model(graph, options);
  }
  void reset() override { model_->reset(); }
  std::int64_t position() const override { return model_->position(); }
  at::Tensor feed(std::span<const std::int64_t> tokens, bool all) override {
    limits_.check(tokens, all, position());
    return model_->feed(tokens, all);
  }

 private:
  TokenLimits limits_;
  std::unique_ptr<LanguageModel> model_;
};

/// The embedded default: the graph as it is (with a past, for causal language models), opened by the project's own runner.
class LibTorch final : public Component, public Runtime {
 public:
  void run(Context& context) override {
    const Artifact& source = context.input("model");
    Graph graph = load_model(context, source);
    if (is_causal_lm(graph) && !has_past_inputs(graph)) graph = with_kv_cache(graph);
    const std::filesystem::path folder = context.scratch();
    write_onnx(graph, folder / "model.onnx");

    PackageSpec spec;
    spec.backend = "backend/libtorch";
    spec.runtime = fmt::format("libtorch {}.{}.{}", TORCH_VERSION_MAJOR, TORCH_VERSION_MINOR, TORCH_VERSION_PATCH);
    spec.files["model.onnx"] = folder / "model.onnx";
    if (std::filesystem::exists(folder / "model.data")) spec.files["model.data"] = folder / "model.data";
    const Artifact package = save_package(context, graph, source, spec);
    context.figure("size_bytes", package.meta.at("size_bytes").get<double>());
    context.output("package", package);
  }

  std::unique_ptr<LanguageModel> open_language_model(const std::filesystem::path& package, const OpenOptions& options) override {
    const Json description = read_package(package, false);
    const Graph graph = read_onnx(package / "model.onnx");
    if (!is_causal_lm(graph))
      throw_unsupported("this package holds no causal language model", package.string(), "its task is written in package.json");
    return std::make_unique<Checked>(graph, options, package.string());
  }

  std::unique_ptr<DeployedModel> open_model(const std::filesystem::path& package, const OpenOptions& options) override {
    read_package(package, false);
    return deployed_model(read_onnx(package / "model.onnx"), options);
  }

  void* interface(std::string_view id) override { return id == Runtime::interface_id ? static_cast<Runtime*>(this) : nullptr; }
};

}  // namespace

ESPALIER_PLUGIN(R"json({
  "name": "libtorch", "version": "0.1.0", "author": "The Espalier authors", "licence": "Apache-2.0",
  "description": "Packages that the project's own runner opens",
  "components": [ {
    "name": "backend/libtorch", "version": "0.1.0",
    "summary": "package a model for the project's own runner on LibTorch, with a KV cache for causal language models",
    "inputs": [ {"name": "model", "type": "model", "required": true, "many": false, "help": "the model to package"} ],
    "outputs": [ {"name": "package", "type": "package", "help": "model.onnx, model.data, tokenizer.json, package.json"} ],
    "parameters": [],
    "depends": {"seed": false, "threads": false, "runtimes": ["torch"]},
    "byte_exact": true, "exclusive": false,
    "estimate": {"memory": "7.45e7 + model.bytes",
                 "seconds": "0.05 + model.bytes / 5.5e8",
                 "outputs": {"package": {"open_bytes": "if(model.language, 2, 1) * model.bytes"}},
                 "memory_base": 4e8, "memory_per_byte": 1.5, "output_per_byte": 1.1}
  } ] })json",
                ESPALIER_COMPONENT("backend/libtorch", LibTorch));

}  // namespace espalier
