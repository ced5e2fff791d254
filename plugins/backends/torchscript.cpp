// Packages for whoever loads models with torch.jit.load, in C++ or Python, without this project.
#include <ATen/Parallel.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/tensor.h>
#include <fmt/format.h>
#include <torch/headeronly/version.h>

#include <algorithm>

#include "formats/model_artifact.h"
#include "formats/package.h"
#include "run/runtime.h"
#include "run/torchscript_module.h"
#include "sdk/plugin.h"

namespace espalier {
namespace {

class Module final : public DeployedModel {
 public:
  Module(const std::filesystem::path& package, const OpenOptions& options) : model_(package / "model.pt") {
    at::set_num_threads(std::max(options.threads, 1));
    const Json description = read_package(package, false);
    for (const Json& input : description.at("options").at("inputs")) inputs_.push_back(input.get<std::string>());
    if (inputs_.size() != model_.inputs().size() || model_.outputs().empty())
      throw_invalid("model.pt is not the one that package.json describes", package.string());
  }
  std::vector<std::string> inputs() const override { return inputs_; }
  std::vector<std::string> outputs() const override { return model_.outputs(); }
  TensorMap run(const TensorMap& inputs) override {
    std::vector<at::Tensor> given;
    for (const std::string& name : inputs_) {
      const auto found = inputs.find(name);
      if (found == inputs.end()) throw_invalid(fmt::format("input \"{}\" is missing", name));
      given.push_back(found->second);
    }
    const std::vector<at::Tensor> answers = model_.run(given);
    if (answers.size() != model_.outputs().size()) throw_invalid("the module gives another number of outputs than it says");
    TensorMap out;
    for (std::size_t i = 0; i < answers.size(); ++i)
      out[model_.outputs()[i]] = answers[i].is_floating_point() ? answers[i].to(at::kFloat) : answers[i];
    return out;
  }

 private:
  TorchScriptModel model_;
  std::vector<std::string> inputs_;
};

/// Without a cache: `forward` has no place for one, so every step reads the whole text again.
class Text final : public LanguageModel {
 public:
  explicit Text(std::unique_ptr<Module> module) : module_(std::move(module)) {}
  void reset() override { read_.clear(); }
  std::int64_t position() const override { return static_cast<std::int64_t>(read_.size()); }
  at::Tensor feed(std::span<const std::int64_t> tokens, bool all) override {
    if (tokens.empty()) throw_invalid("no tokens to feed");
    read_.insert(read_.end(), tokens.begin(), tokens.end());
    const std::int64_t total = position();
    const auto options = at::TensorOptions().dtype(at::kLong);
    const TensorMap known{{"input_ids", at::tensor(read_, options).unsqueeze(0)},
                          {"attention_mask", at::ones({1, total}, options)},
                          {"position_ids", at::arange(total, options).unsqueeze(0)}};
    TensorMap inputs;
    for (const std::string& name : module_->inputs()) {
      const auto found = known.find(name);
      if (found == known.end()) throw_unsupported(fmt::format("input \"{}\" is none that a text gives", name));
      inputs.insert(*found);
    }
    const at::Tensor logits = module_->run(inputs).at("logits").squeeze(0);
    const std::int64_t wanted = all ? static_cast<std::int64_t>(tokens.size()) : 1;
    return logits.narrow(0, total - wanted, wanted);
  }

 private:
  std::unique_ptr<Module> module_;
  std::vector<std::int64_t> read_;
};

class TorchScript final : public Component, public Runtime {
 public:
  void run(Context& context) override {
    const Artifact& source = context.input("model");
    const Graph graph = load_model(context, source);
    const std::filesystem::path folder = context.scratch();
    write_torchscript(graph, folder / "model.pt", {[&context](std::uint64_t done, std::uint64_t all) {
                        context.check_cancelled();
                        context.progress({done >> 20, all >> 20, "MiB of weights", {}});
                      }});
    PackageSpec spec;
    spec.backend = "backend/torchscript";
    spec.runtime = fmt::format("libtorch {}.{}.{}", TORCH_VERSION_MAJOR, TORCH_VERSION_MINOR, TORCH_VERSION_PATCH);
    spec.files["model.pt"] = folder / "model.pt";
    Json names = Json::array();
    for (const Value& input : graph.inputs) names.push_back(input.name);
    spec.options = {{"inputs", std::move(names)}};
    const Artifact package = save_package(context, graph, source, spec);
    context.figure("size_bytes", package.meta.at("size_bytes").get<double>());
    context.output("package", package);
  }

  std::unique_ptr<LanguageModel> open_language_model(const std::filesystem::path& package, const OpenOptions& options) override {
    auto module = std::make_unique<Module>(package, options);
    const auto names = module->outputs();
    if (std::find(names.begin(), names.end(), "logits") == names.end())
      throw_unsupported("this package holds no causal language model", package.string(), "its task is written in package.json");
    return std::make_unique<Text>(std::move(module));
  }
  std::unique_ptr<DeployedModel> open_model(const std::filesystem::path& package, const OpenOptions& options) override {
    return std::make_unique<Module>(package, options);
  }

  void* interface(std::string_view id) override { return id == Runtime::interface_id ? static_cast<Runtime*>(this) : nullptr; }
};

}  // namespace

ESPALIER_PLUGIN(R"json({
  "name": "torchscript-package", "version": "0.1.0", "author": "The Espalier authors", "licence": "Apache-2.0",
  "description": "Packages that torch.jit.load reads",
  "components": [ {
    "name": "backend/torchscript", "version": "0.1.0",
    "summary": "package a model as a TorchScript archive for torch.jit.load, in C++ or Python",
    "inputs": [ {"name": "model", "type": "model", "required": true, "many": false, "help": "the model to package"} ],
    "outputs": [ {"name": "package", "type": "package", "help": "model.pt, tokenizer.json, package.json"} ],
    "parameters": [],
    "depends": {"seed": false, "threads": false, "runtimes": ["torch"]},
    "byte_exact": false, "exclusive": false,
    "estimate": {"memory": "3e8 + 2 * model.bytes",
                 "seconds": "0.5 + model.bytes / 3e8",
                 "outputs": {"package": {"open_bytes": "2 * model.bytes"}},
                 "memory_base": 4e8, "memory_per_byte": 2.5, "output_per_byte": 1.1}
  } ] })json",
                ESPALIER_COMPONENT("backend/torchscript", TorchScript));

}  // namespace espalier
