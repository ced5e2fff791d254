#include <algorithm>
#include <optional>

#include "formats/model_artifact.h"
#include "formats/model_file.h"
#include "formats/package.h"
#include "formats/safetensors.h"
#include "graph/op.h"
#include "sdk/plugin.h"

namespace espalier {
namespace {

/// What a quantized tensor's zero is: the zero point of the DequantizeLinear that reads it, when that is one number; 0 without one.
/// Nothing when every channel has another.
std::optional<std::int64_t> zero_of(const Graph& graph, const Uses& uses, const std::string& name) {
  for (const Uses::Reader& reader : uses.readers_of(name)) {
    const Node& node = graph.nodes[reader.node];
    if (node.op != "DequantizeLinear" || reader.input != 0 || node.input(2).empty()) continue;
    const Tensor* point = graph.initializer(node.input(2));
    if (!point || point->bytes.empty()) return std::nullopt;
    if (bits(point->dtype) != 8) {
      const bool none = std::all_of(point->bytes.begin(), point->bytes.end(), [](std::byte b) { return b == std::byte{0}; });
      return none ? std::optional<std::int64_t>(0) : std::nullopt;
    }
    if (std::any_of(point->bytes.begin(), point->bytes.end(), [&](std::byte b) { return b != point->bytes[0]; }))
      return std::nullopt;
    return std::to_integer<std::int64_t>(point->bytes[0]);
  }
  return 0;
}

/// Elements of `tensor` that stand for zero; -0.0 counts as zero.
std::int64_t zeros(const Tensor& tensor, std::int64_t zero) {
  const auto bytes = tensor.bytes;
  const int width = bits(tensor.dtype);
  std::int64_t found = 0;
  if (width == 4) {
    for (std::int64_t i = 0; i < tensor.count() && static_cast<std::size_t>(i / 2) < bytes.size(); ++i) {
      const auto pair = std::to_integer<unsigned>(bytes[static_cast<std::size_t>(i / 2)]);
      found += ((i % 2 ? pair >> 4 : pair) & 15u) == static_cast<unsigned>(zero);
    }
    return found;
  }
  const auto size = static_cast<std::size_t>(width / 8);
  for (std::size_t at = 0; at + size <= bytes.size(); at += size) {
    if (!is_floating(tensor.dtype)) {
      found += std::to_integer<std::int64_t>(bytes[at]) == zero;
      continue;
    }
    bool none = (std::to_integer<unsigned>(bytes[at + size - 1]) & 0x7fu) == 0;  // all but the sign
    for (std::size_t k = 0; none && k + 1 < size; ++k) none = bytes[at + k] == std::byte{0};
    found += none;
  }
  return found;
}

/// Parameters as parameter_count() sees them: floating initializers and the integers under a DequantizeLinear, but not the scales
/// and zero points beside those, and not the tables of rotary embeddings.
bool is_parameter(const Graph& graph, const Uses& uses, const std::string& name, const Tensor& tensor) {
  bool weight = false, dequantized = false;
  for (const Uses::Reader& reader : uses.readers_of(name)) {
    const std::string& op = graph.nodes[reader.node].op;
    const bool beside = reader.input > 0 && (op == "DequantizeLinear" || op == "QuantizeLinear" || op == "RotaryEmbedding");
    weight = weight || !beside;
    dequantized = dequantized || (op == "DequantizeLinear" && reader.input == 0);
  }
  return weight && tensor.count() > 1 && (is_floating(tensor.dtype) || dequantized);
}

/// Share of the parameters that are zero.
double zero_share(const Graph& graph, Context& context) {
  const Uses uses(graph);
  std::int64_t zero = 0, all = 0;
  for (const auto& [name, tensor] : graph.initializers) {
    if (!is_parameter(graph, uses, name, tensor)) continue;
    context.check_cancelled();
    all += tensor.count();
    if (is_floating(tensor.dtype)) {
      zero += zeros(tensor, 0);
    } else if (const auto mark = bits(tensor.dtype) <= 8 ? zero_of(graph, uses, name) : std::nullopt) {
      zero += zeros(tensor, *mark);
    }
  }
  return all > 0 ? static_cast<double>(zero) / static_cast<double>(all) : 0.0;
}

/// Weights as a file has them; its graph holds them wider.
std::uint64_t stored_bytes(const Context& context, const std::string& name, const BlobRef& blob) {
  const MappedFile file = context.map(blob);
  std::uint64_t bytes = 0;
  for (const auto& [tensor, value] : parse_safetensors(file.bytes(), file.owner(), name)) bytes += value.bytes.size();
  return bytes;
}

/// Size and work of a model or a package: nothing is run.
class Size final : public Component {
 public:
  void run(Context& context) override {
    const bool model = context.has_input("model");
    if (model == context.has_input("package"))
      throw_invalid("give exactly one of model and package", "evaluator/size", "model = \"@stage\" or package = \"@stage\"");
    const Artifact& artifact = context.input(model ? "model" : "package");
    std::uint64_t bytes = 0, weights = 0;
    Json files = Json::array();
    for (const auto& [name, blob] : artifact.blobs) {
      bytes += blob.size;
      if (!model) files.push_back({name, blob.size});
      if (!model && name.ends_with(".safetensors")) weights += stored_bytes(context, name, blob);
    }
    const Graph graph = model ? load_model(context, artifact) : read_model_file(unpack(context, artifact));

    // One token without a past, or one input: every free dimension is 1, the past is 0.
    const Cost cost = total_cost(graph, infer(graph), {{"past", 0}});
    context.figure("size_bytes", static_cast<double>(bytes));
    context.figure("parameters", static_cast<double>(graph.parameter_count()));
    context.figure("weight_bytes", static_cast<double>(weights > 0 ? weights : graph.weight_bytes()));
    context.figure("macs", cost.macs);
    context.figure("sparsity", zero_share(graph, context));
    if (!model) context.detail("files", {{"columns", {"file", "bytes"}}, {"rows", files}});
  }
};

}  // namespace

ESPALIER_PLUGIN(R"json({
  "name": "size", "version": "0.1.0", "author": "The Espalier authors", "licence": "Apache-2.0",
  "description": "Size and work of models and packages",
  "components": [ {
    "name": "evaluator/size", "version": "0.1.0",
    "summary": "bytes, parameters, multiply-accumulates a token and the share of zero weights",
    "inputs": [
      {"name": "model", "type": "model", "required": false, "many": false, "help": "a model; exactly one of model and package"},
      {"name": "package", "type": "package", "required": false, "many": false, "help": "a package"} ],
    "outputs": [],
    "parameters": [],
    "depends": {"seed": false, "threads": false, "runtimes": []},
    "byte_exact": true, "exclusive": false,
    "estimate": {"memory": "7.4e7 + model.bytes + package.bytes",
                 "seconds": "0.1 + (model.bytes + package.bytes) / 5e8",
                 "memory_base": 1e8, "memory_per_byte": 1.1, "output_per_byte": 0}
  } ] })json",
                ESPALIER_COMPONENT("evaluator/size", Size));

}  // namespace espalier
