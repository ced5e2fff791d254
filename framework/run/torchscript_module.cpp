#include "run/torchscript_module.h"

#include <c10/core/InferenceMode.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <torch/csrc/jit/api/module.h>
#include <torch/csrc/jit/serialization/export.h>
#include <torch/csrc/jit/serialization/import.h>

#include <exception>
#include <map>

#include "formats/file_aside.h"
#include "formats/torchscript/inputs.h"
#include "formats/torchscript/script.h"
#include "graph/learnable.h"
#include "run/session.h"
#include "run/tensor.h"
#include "run/torchscript_program.h"
#include "sdk/artifact.h"
#include "sdk/error.h"

namespace espalier {
namespace {

namespace jit = torch::jit;
using torchscript::Script;

/// Modules in modules, made as tensors ask for them.
class Tree {
 public:
  Tree() : unit_(std::make_shared<jit::CompilationUnit>()), root_(made("__torch__.Model")) {}

  void add(const Script::Stored& entry) {
    at::Tensor tensor = to_aten(entry.tensor);
    if (entry.turned) tensor = tensor.t().contiguous();
    if (entry.parameter) tensor = tensor.detach().set_requires_grad(true);
    parent(entry.path).register_parameter(entry.path.back(), tensor, !entry.parameter);
  }
  jit::Module& root() {
    // From the innermost out: a module's type is whole before another one has it.
    for (auto child = children_.rbegin(); child != children_.rend(); ++child) {
      const auto& [path, module] = *child;
      const std::vector<std::string> above(path.begin(), path.end() - 1);
      (above.empty() ? root_ : children_.at(above)).register_module(path.back(), module);
    }
    return root_;
  }

 private:
  jit::Module made(const std::string& name) {
    jit::Module module(c10::QualifiedName(name), unit_, true);
    module.register_attribute("training", c10::BoolType::get(), false);
    return module;
  }
  jit::Module& parent(const std::vector<std::string>& path) {
    jit::Module* at = &root_;
    std::vector<std::string> so_far;
    for (std::size_t i = 0; i + 1 < path.size(); ++i) {
      so_far.push_back(path[i]);
      auto found = children_.find(so_far);
      if (found == children_.end()) found = children_.emplace(so_far, made("__torch__.Part")).first;
      at = &found->second;
    }
    return *at;
  }

  std::shared_ptr<jit::CompilationUnit> unit_;
  jit::Module root_;
  std::map<std::vector<std::string>, jit::Module> children_;  // sorted: those within a module come after it
};

std::uint64_t bytes_of(const Script& script) {
  std::uint64_t bytes = 0;
  for (const auto& entry : script.tensors) bytes += entry.tensor.bytes.size();
  return bytes;
}

std::string lines(const std::vector<Value>& values) {
  std::string text;
  for (const Value& value : values) text += (text.empty() ? "" : "\n") + value.name;
  return text;
}

std::vector<std::string> split_lines(const std::string& text) {
  std::vector<std::string> out;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = std::min(text.find('\n', at), text.size());
    out.push_back(text.substr(at, end - at));
    at = end + 1;
  }
  return out;
}

}  // namespace

void write_torchscript(const Graph& graph, const std::filesystem::path& file, const TorchScriptOptions& options) {
  const std::vector<std::string> names = learnable(graph);
  const Script script = torchscript::write_script(graph, {names.begin(), names.end()});
  Tree tree;
  for (const auto& entry : script.tensors) tree.add(entry);
  jit::Module& module = tree.root();
  try {
    module.define(script.source);
  } catch (const std::exception& error) {
    throw Error(ErrorCode::internal, fmt::format("LibTorch does not take the source that was written: {}", error.what()),
                file.string(), "please report this model");
  }
  std::vector<Value> inputs = graph.inputs;
  for (std::size_t i = 0; i < inputs.size(); ++i)
    inputs[i].name = module.get_method("forward").function().getSchema().arguments().at(i + 1).name();
  const jit::ExtraFilesMap extra{{"espalier.inputs", torchscript::write_inputs(inputs)},
                                 {"espalier.outputs", lines(graph.outputs)},
                                 {"espalier.metadata", Json(graph.metadata).dump(-1, ' ', true, Json::error_handler_t::replace)}};

  FileAside aside(file);
  std::exception_ptr stopped;  // LibTorch's writer would only say that writing failed
  const std::uint64_t all = bytes_of(script);
  const auto write = [&](const void* data, std::size_t count) -> std::size_t {
    if (stopped) return count;
    try {
      if (options.progress) options.progress(std::min<std::uint64_t>(aside.size(), all), all);
      aside.write({static_cast<const std::byte*>(data), count});
    } catch (...) {
      stopped = std::current_exception();
    }
    return count;
  };
  jit::ExportModule(module, write, extra);
  if (stopped) std::rethrow_exception(stopped);
  aside.finish();
  aside.commit();
}

struct TorchScriptModel::Opened {
  jit::Module module;
  std::vector<std::string> inputs, outputs;
};

TorchScriptModel::TorchScriptModel(const std::filesystem::path& file) : opened_(std::make_unique<Opened>()) {
  jit::ExtraFilesMap extra{{"espalier.outputs", ""}};
  try {
    opened_->module = jit::load(file.string(), c10::Device(c10::kCPU), extra);
    opened_->module.eval();
    for (const auto& argument : opened_->module.get_method("forward").function().getSchema().arguments())
      opened_->inputs.push_back(argument.name());
  } catch (const std::exception& error) {
    const std::string said(error.what());
    throw_invalid("LibTorch does not open this archive: " + said.substr(0, said.find('\n')), file.string());
  }
  opened_->inputs.erase(opened_->inputs.begin());  // the module itself
  opened_->outputs = split_lines(extra["espalier.outputs"]);
}

TorchScriptModel::~TorchScriptModel() = default;
const std::vector<std::string>& TorchScriptModel::inputs() const { return opened_->inputs; }
const std::vector<std::string>& TorchScriptModel::outputs() const { return opened_->outputs; }

std::vector<at::Tensor> TorchScriptModel::run(const std::vector<at::Tensor>& inputs) {
  const c10::InferenceMode inference;
  std::vector<c10::IValue> given(inputs.begin(), inputs.end());
  c10::IValue answer;
  try {
    answer = opened_->module.forward(std::move(given));
  } catch (const std::exception& error) {
    throw_invalid(fmt::format("the module fails on these inputs: {}", error.what()));
  }
  if (answer.isTensor()) return {answer.toTensor()};
  if (!answer.isTuple()) throw_unsupported("the module returns neither a tensor nor a tuple of tensors");
  std::vector<at::Tensor> out;
  for (const c10::IValue& each : answer.toTupleRef().elements()) {
    if (!each.isTensor()) throw_unsupported("the module returns something else beside tensors");
    out.push_back(each.toTensor());
  }
  return out;
}

}  // namespace espalier
