// Packages for transformers and what reads its directories: the weights go back under the family's own names, and config.json says
// what was cut.
#include <fmt/format.h>

#include "formats/float_values.h"
#include "formats/huggingface_write.h"
#include "formats/model_artifact.h"
#include "formats/package.h"
#include "run/runtime.h"
#include "sdk/plugin.h"

namespace espalier {
namespace {

class HuggingfaceBackend final : public Component, public Runtime {
 public:
  void run(Context& context) override {
    const Artifact& source = context.input("model");
    const Graph graph = load_model(context, source);
    std::shared_ptr<Tokenizer> tokenizer;
    if (source.blobs.contains("tokenizer.json")) tokenizer = load_tokenizer(context, source);
    HuggingfaceOptions options;
    options.dtype = stored_type(context.params().text("dtype"));
    options.max_shard = static_cast<std::uint64_t>(context.params().integer("max_shard_bytes"));
    options.progress = [&context](std::uint64_t done, std::uint64_t all) {
      context.check_cancelled();
      context.progress({done >> 20, all >> 20, "MiB of weights", {}});
    };
    const std::filesystem::path folder = context.scratch();
    const HuggingfaceFiles files = write_huggingface(graph, tokenizer.get(), folder, options);

    PackageSpec spec;
    spec.backend = "backend/huggingface";
    spec.runtime = "none: any reader of Hugging Face directories";
    spec.options = {{"model_type", files.family}, {"dtype", files.dtype}};
    for (const auto& [name, bytes] : files.written)
      if (name != "tokenizer.json") spec.files[name] = folder / name;  // packages take the model's own along
    const Artifact package = save_package(context, graph, source, spec);
    context.figure("size_bytes", package.meta.at("size_bytes").get<double>());
    context.output("package", package);
    context.log(LogLevel::info, fmt::format("a model of the family {}, weights {}", files.family, files.dtype));
  }

  std::unique_ptr<LanguageModel> open_language_model(const std::filesystem::path& package, const OpenOptions&) override {
    refuse(package);
  }
  std::unique_ptr<DeployedModel> open_model(const std::filesystem::path& package, const OpenOptions&) override { refuse(package); }

  void* interface(std::string_view id) override { return id == Runtime::interface_id ? static_cast<Runtime*>(this) : nullptr; }

 private:
  [[noreturn]] static void refuse(const std::filesystem::path& package) {
    throw_unsupported("backend/huggingface writes packages for other programs and runs none", package.string(),
                      "measure and run a package of backend/libtorch, backend/openvino or backend/onnxruntime of the same model");
  }
};

}  // namespace

ESPALIER_PLUGIN(R"json({
  "name": "huggingface_package", "version": "0.1.0", "author": "The Espalier authors", "licence": "Apache-2.0",
  "description": "Packages as Hugging Face directories",
  "components": [ {
    "name": "backend/huggingface", "version": "0.1.0",
    "summary": "package a causal language model as a Hugging Face directory, for transformers and what reads its files",
    "inputs": [ {"name": "model", "type": "model", "required": true, "many": false, "help": "the model to package: float weights, adapters merged, all layers cut alike"} ],
    "outputs": [ {"name": "package", "type": "package", "help": "config.json, model.safetensors or its shards, tokenizer.json, package.json"} ],
    "parameters": [
      {"name": "dtype", "type": "string", "default": "stored", "choices": ["stored", "f32", "f16", "bf16"], "help": "type of the weights in the file; stored: as the model has them"},
      {"name": "max_shard_bytes", "type": "integer", "default": 5000000000, "min": 1000, "max": 1000000000000, "unit": "bytes", "help": "most bytes of weights in one file"}
    ],
    "depends": {"seed": false, "threads": false, "runtimes": []},
    "byte_exact": true, "exclusive": false,
    "estimate": {"memory": "1.1e8",
                 "seconds": "0.1 + model.bytes / 2e8",
                 "outputs": {"package": {"open_bytes": "model.bytes"}},
                 "memory_base": 4e8, "memory_per_byte": 1.5, "output_per_byte": 1.1}
  } ] })json",
                ESPALIER_COMPONENT("backend/huggingface", HuggingfaceBackend));

}  // namespace espalier
