// Sees LibTorch's graphs of TorchScript, whose headers cost more than all others together.
#include "run/torchscript_program.h"

#include <caffe2/serialize/inline_container.h>
#include <torch/csrc/jit/api/module.h>
#include <torch/csrc/jit/ir/constants.h>
#include <torch/csrc/jit/ir/ir.h>
#include <torch/csrc/jit/passes/constant_propagation.h>
#include <torch/csrc/jit/passes/dead_code_elimination.h>
#include <torch/csrc/jit/passes/freeze_module.h>
#include <torch/csrc/jit/passes/inliner.h>
#include <torch/csrc/jit/passes/lower_tuples.h>
#include <torch/csrc/jit/passes/remove_mutation.h>
#include <torch/csrc/jit/serialization/import.h>
#include <torch/csrc/jit/serialization/import_read.h>

#include <map>
#include <sstream>
#include <unordered_map>

#include "run/tensor.h"
#include "sdk/artifact.h"
#include "sdk/error.h"

namespace espalier {
namespace {

namespace jit = torch::jit;
using torchscript::Argument;
using torchscript::Literal;
using torchscript::Literals;
using torchscript::Operation;
using torchscript::Program;

constexpr std::size_t kMostOperations = 1 << 20;
constexpr int kDeepest = 16;  // of constants in lists in lists

/// First line of what LibTorch says; the rest is its stack.
std::string brief(const char* said) {
  std::string text(said);
  return text.substr(0, text.find('\n'));
}

Literal literal(const c10::IValue& value, int depth = 0) {
  if (depth > kDeepest) throw_unsupported("a constant is nested too deeply");
  if (value.isNone()) return {};
  if (value.isBool()) return {value.toBool()};
  if (value.isInt()) return {value.toInt()};
  if (value.isDouble()) return {value.toDouble()};
  if (value.isString()) return {value.toStringRef()};
  if (value.isDevice()) return {value.toDevice().str()};
  if (value.isTensor()) {
    const at::Tensor& tensor = value.toTensor();
    if (!tensor.defined()) return {};
    if (tensor.layout() != c10::kStrided || tensor.is_quantized())
      throw_unsupported("a constant is no plain tensor: quantized and sparse ones are not read");
    return {from_aten(tensor)};
  }
  Literals items;
  if (value.isList()) {
    for (const c10::IValue& each : value.toList()) items.push_back(literal(each, depth + 1));
    return {std::move(items)};
  }
  if (value.isTuple()) {
    for (const c10::IValue& each : value.toTupleRef().elements()) items.push_back(literal(each, depth + 1));
    return {std::move(items)};
  }
  throw_unsupported("a constant of type " + value.tagKind());
}

/// Parameters by where their elements lie, to find them again among the constants of the frozen module.
class Weights {
 public:
  explicit Weights(const jit::Module& module) {
    for (const auto& each : module.named_parameters()) add(each.name, each.value);
    for (const auto& each : module.named_buffers()) add(each.name, each.value);
  }
  std::string name(const at::Tensor& tensor) const {
    if (!tensor.defined() || !tensor.has_storage() || tensor.numel() == 0) return {};
    const auto found = names_.find(tensor.const_data_ptr());
    if (found == names_.end() || found->second.second.numel() != tensor.numel()) return {};
    // The same elements in another order are another constant.
    return tensor.sizes() == found->second.second.sizes() ? found->second.first : found->second.first + ".t";
  }

 private:
  void add(const std::string& name, const at::Tensor& tensor) {
    if (tensor.defined() && tensor.has_storage() && tensor.numel() > 0) names_.try_emplace(tensor.const_data_ptr(), name, tensor);
  }
  std::unordered_map<const void*, std::pair<std::string, at::Tensor>> names_;
};

class Reader {
 public:
  Reader(const jit::Module& module, const jit::Graph& graph) : weights_(module), graph_(graph) {}

  /// `traced`: what the method was traced with; nothing where that is not known.
  Program program(const std::vector<c10::IValue>& traced) {
    arguments(traced);
    for (const jit::Node* node : graph_.nodes()) {
      if (program_.operations.size() >= kMostOperations) throw_unsupported("the method has more than a million operations");
      program_.operations.push_back(operation(*node));
    }
    for (const jit::Value* value : graph_.outputs()) program_.results.push_back(number(value));
    program_.values = numbers_.size();
    return std::move(program_);
  }

 private:
  std::size_t number(const jit::Value* value) { return numbers_.try_emplace(value, numbers_.size()).first->second; }

  void arguments(const std::vector<c10::IValue>& traced) {
    const auto inputs = graph_.inputs();
    for (std::size_t i = 1; i < inputs.size(); ++i) {  // the first is the module
      Argument argument;
      argument.value = number(inputs[i]);
      argument.name = inputs[i]->hasDebugName() ? inputs[i]->debugNameBase() : "input." + std::to_string(i);
      argument.tensor = inputs[i]->type()->isSubtypeOf(*c10::TensorType::get());
      argument.type = inputs[i]->type()->str();
      if (traced.size() + 1 == inputs.size() && traced[i - 1].isTensor())
        argument.example = described(argument.name, traced[i - 1].toTensor());
      program_.arguments.push_back(std::move(argument));
    }
  }

  static Value described(const std::string& name, const at::Tensor& tensor) {
    Value value{name, dtype_of(tensor.scalar_type()), {}};
    for (const std::int64_t length : tensor.sizes()) value.shape.emplace_back(length);
    return value;
  }

  Operation operation(const jit::Node& node) {
    Operation operation;
    operation.kind = node.kind().toQualString();
    place(node, operation);
    for (const jit::Value* input : node.inputs()) operation.inputs.push_back(number(input));
    for (const jit::Value* output : node.outputs()) operation.outputs.push_back(number(output));
    if (node.kind() == c10::prim::Constant) {
      const auto value = jit::toIValue(node.output());
      operation.constant = value ? literal(*value) : Literal{};
      if (value && value->isTensor()) operation.weight = weights_.name(value->toTensor());
    } else if (const c10::FunctionSchema* schema = node.maybeSchema()) {
      describe(*schema, operation);
    }
    return operation;
  }

  static void place(const jit::Node& node, Operation& operation) {
    if (const auto where = node.sourceRange().file_line_col()) {
      const auto& [file, line, column] = *where;
      operation.place = file.substr(file.find_last_of('/') + 1) + ":" + std::to_string(line);
    }
    const auto stack = node.callstack();
    if (!stack) return;
    for (const auto& [function, range, instance] : (*stack)->vec()) {
      const std::string name = instance ? instance->instance_name() : std::string();
      if (!name.empty() && name != "SELF" && name.find("UNKNOWN") == std::string::npos)
        operation.scope += (operation.scope.empty() ? "" : ".") + name;
    }
  }

  /// Names of the inputs, and which of them an output may be a view of.
  static void describe(const c10::FunctionSchema& schema, Operation& operation) {
    for (const auto& argument : schema.arguments()) operation.parameters.push_back(argument.name());
    operation.in_place =
        !schema.arguments().empty() && schema.arguments()[0].alias_info() && schema.arguments()[0].alias_info()->isWrite();
    for (const auto& result : schema.returns()) {
      std::optional<std::size_t> shared;
      const c10::AliasInfo* of = result.alias_info();
      if (of && of->beforeSets().empty() && !of->containedTypes().empty()) of = &of->containedTypes()[0];
      for (std::size_t i = 0; of && i < schema.arguments().size(); ++i) {
        const c10::AliasInfo* with = schema.arguments()[i].alias_info();
        if (!with) continue;
        for (const auto& set : with->beforeSets())
          if (of->beforeSets().count(set) || of->afterSets().count(set)) shared = i;
      }
      // A list of views of a tensor: Tensor(a -> *) self, Tensor(a)[].
      if (!shared && of && !schema.arguments().empty() && schema.arguments()[0].alias_info()) shared = 0;
      operation.shares.push_back(shared);
    }
  }

  const Weights weights_;
  const jit::Graph& graph_;
  Program program_;
  std::unordered_map<const jit::Value*, std::size_t> numbers_;
};

/// What torch.jit.trace kept of its example: types and sizes. The archive leaves the elements out, so nobody may read them.
/// import_ir_module() could restore shapes itself, but then walks the whole graph with them, which is not needed and not safe: its
/// propagation of shapes frees memory that it does not own on some graphs (LibTorch 2.13).
std::vector<c10::IValue> traced_inputs(const std::string& file) {
  caffe2::serialize::PyTorchStreamReader archive(file);
  if (!archive.hasRecord("traced_inputs.pkl")) return {};
  try {
    const c10::IValue kept = jit::readArchiveAndTensors("traced_inputs", "", "traced_inputs/", std::nullopt, std::nullopt,
                                                        c10::Device(c10::kCPU), archive);
    std::vector<c10::IValue> inputs;
    for (const auto& entry : kept.toGenericDict())
      if (entry.key().toStringRef() == "forward")
        for (const c10::IValue& each : entry.value().toListRef()) inputs.push_back(each);
    return inputs;
  } catch (const std::exception&) {
    return {};  // of use, not of need: the user may say them
  }
}

std::map<std::string, std::string> metadata(const std::string& text, const std::string& file) {
  try {
    return Json::parse(text).get<std::map<std::string, std::string>>();
  } catch (const Json::exception&) {
    throw_invalid("espalier.metadata within the archive is no JSON of texts", file);
  }
}

Program parsed(const std::string& file) {
  jit::ExtraFilesMap extra{{"espalier.inputs", ""}, {"espalier.outputs", ""}, {"espalier.metadata", ""}};
  jit::Module module = jit::load(file, c10::Device(c10::kCPU), extra);
  if (!module.find_method("forward")) throw_unsupported("the module has no method forward", file);
  module.eval();
  const jit::Module frozen = jit::freeze_module(module);
  std::shared_ptr<jit::Graph> graph = frozen.get_method("forward").graph()->copy();
  jit::Inline(*graph);
  jit::RemoveListMutation(graph);
  jit::LowerSimpleTuples(graph);
  jit::ConstantPropagation(graph);
  jit::EliminateDeadCode(graph);
  Program program = Reader(module, *graph).program(traced_inputs(file));
  program.declared = extra["espalier.inputs"];
  std::istringstream names(extra["espalier.outputs"]);
  for (std::string name; std::getline(names, name);) program.names.push_back(name);
  if (!extra["espalier.metadata"].empty()) program.metadata = metadata(extra["espalier.metadata"], file);
  return program;
}

}  // namespace

Program parse_torchscript(const std::string& file) {
  try {
    return parsed(file);
  } catch (const Error& error) {
    if (!error.where().empty()) throw;
    throw Error(error.code(), error.message(), file, error.hint());
  } catch (const c10::Error& error) {
    throw_invalid("LibTorch does not read this archive: " + brief(error.what_without_backtrace()), file,
                  "write it again with torch.jit.save, by LibTorch 2.13 or older");
  } catch (const std::exception& error) {
    throw_invalid("LibTorch does not read this archive: " + brief(error.what()), file,
                  "write it again with torch.jit.save, by LibTorch 2.13 or older");
  }
}

}  // namespace espalier
