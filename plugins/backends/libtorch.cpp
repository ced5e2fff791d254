#include <fmt/format.h>
#include <torch/headeronly/version.h>

#include <algorithm>
#include <limits>

#include "formats/model_artifact.h"
#include "formats/onnx.h"
#include "formats/package.h"
#include "graph/causal.h"
#include "run/runtime.h"
#include "sdk/plugin.h"

namespace espalier {
namespace {

bool causal(const Graph& graph) {
  const auto task = graph.metadata.find("espalier.task");
  return task != graph.metadata.end() && task->second == "causal-lm";
}

/// A model that came with a past already stays as it is.
bool has_past(const Graph& graph) {
  return std::any_of(graph.inputs.begin(), graph.inputs.end(),
                     [](const Value& v) { return v.name.starts_with("past_key_values."); });
}

/// Refuses tokens that the model does not know and texts that it has no positions for, before they reach a table.
class Checked final : public LanguageModel {
 public:
  Checked(const Graph& graph, const OpenOptions& options, std::string where) : where_(std::move(where)) {
    for (const Node& node : graph.nodes) {
      const Tensor* table = node.op == "RotaryEmbedding" ? graph.initializer(node.input(1)) : nullptr;
      if (table && table->shape.size() == 2) positions_ = std::min(positions_, table->shape[0]);
    }
    for (const Value& output : graph.outputs) {
      if (output.name == "logits" && output.shape.size() == 3) vocabulary_ = output.shape[2].value_or(0);
    }
    if (vocabulary_ <= 0) throw_invalid("logits is not [batch, sequence, vocabulary]", where_);
    model_ = language_model(graph, options);
  }
  void reset() override { model_->reset(); }
  std::int64_t position() const override { return model_->position(); }
  at::Tensor feed(std::span<const std::int64_t> tokens, bool all) override {
    for (const std::int64_t token : tokens) {
      if (token < 0 || token >= vocabulary_)
        throw_invalid(fmt::format("token {} is outside the vocabulary of {}", token, vocabulary_), where_,
                      "use the package's own tokenizer");
    }
    const std::int64_t total = position() + static_cast<std::int64_t>(tokens.size());
    if (total > positions_)
      throw_invalid(fmt::format("{} tokens do not fit: the model knows {} positions", total, positions_), where_,
                    "shorten the prompt");
    return model_->feed(tokens, all);
  }

 private:
  std::string where_;
  std::unique_ptr<LanguageModel> model_;
  std::int64_t vocabulary_ = 0, positions_ = std::numeric_limits<std::int64_t>::max();
};

/// The embedded default: the graph as it is (with a past, for causal language models), opened by the project's own runner.
class LibTorch final : public Component, public Runtime {
 public:
  void run(Context& context) override {
    const Artifact& source = context.input("model");
    Graph graph = load_model(context, source);
    if (causal(graph) && !has_past(graph)) graph = with_kv_cache(graph);
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
    if (!causal(graph))
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
    "estimate": {"memory_base": 400000000, "memory_per_byte": 1.5, "output_per_byte": 1.1}
  } ] })json",
                ESPALIER_COMPONENT("backend/libtorch", LibTorch));

}  // namespace espalier
