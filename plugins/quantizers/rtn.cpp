// Round to nearest: weights as INT8 with a scale per output channel (or per tensor), symmetric, as standard ONNX QDQ. Needs no
// data.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <limits>
#include <map>
#include <optional>
#include <set>

#include "formats/model_artifact.h"
#include "run/scope.h"
#include "run/tensor.h"
#include "sdk/plugin.h"

using namespace espalier;

namespace {

/// How a weight is read, and along which of its axes outputs lie.
struct Use {
  std::size_t axis = 0;
  bool embedding = false;  ///< rows are looked up
  bool head = false;       ///< its product is an output of the model
};

/// Values from which a graph output follows by nothing but element-wise steps: the product of the head is one.
std::set<std::string> near_output(const Graph& graph) {
  static const std::set<std::string> passing{"Add",        "Cast", "Identity", "Mul",   "Div",   "Softmax",
                                             "LogSoftmax", "Tanh", "Reshape",  "Slice", "Gather"};
  const Uses uses(graph);
  std::set<std::string> values;
  std::vector<std::string> open;
  for (const auto& output : graph.outputs) open.push_back(output.name);
  while (!open.empty()) {
    auto value = std::move(open.back());
    open.pop_back();
    if (!values.insert(value).second) continue;
    const auto producer = uses.producer_of(value);
    if (producer < 0) continue;
    const Node& node = graph.nodes[static_cast<std::size_t>(producer)];
    // A residual sum is element-wise, too, but its addends are no outputs: only a constant (a bias, a scale) may stand beside.
    std::vector<std::string> inputs;
    for (const auto& input : node.inputs) {
      if (!input.empty() && !graph.initializer(input)) inputs.push_back(input);
    }
    if (passing.count(node.op) && inputs.size() == 1) open.push_back(inputs.front());
  }
  return values;
}

/// The axis of an input of `node` along which its outputs lie, when the input is a weight that can be quantized.
std::optional<Use> use_at(const Node& node, std::size_t input, std::size_t rank) {
  if (!node.domain.empty() || rank < 2) return std::nullopt;
  if (node.op == "MatMul" && input == 1) return Use{rank - 1};
  if (node.op == "MatMul" && input == 0) return Use{rank - 2};
  if (node.op == "Gemm" && input == 1) return Use{node.integer("transB", 0) != 0 ? 0u : 1u};
  if (node.op == "Conv" && input == 1) return Use{0};
  if (node.op == "Gather" && input == 0) {
    const auto axis = node.integer("axis", 0);
    return Use{static_cast<std::size_t>(axis < 0 ? axis + static_cast<std::int64_t>(rank) : axis), true};
  }
  return std::nullopt;
}

/// All uses of an initializer, through transpositions; nothing when any reader is not one that multiplies or looks up, because that
/// reader would meet rounded values where exactness may matter (shapes, gains, tables).
std::vector<Use> uses_of(const Graph& graph, const Uses& uses, const std::set<std::string>& outputs, const std::string& value,
                         std::size_t rank) {
  std::vector<Use> found;
  for (const auto& reader : uses.readers_of(value)) {
    const Node& node = graph.nodes[reader.node];
    if (node.op == "Transpose" && node.domain.empty()) {
      std::vector<std::int64_t> reversed;
      for (std::size_t d = rank; d-- > 0;) reversed.push_back(static_cast<std::int64_t>(d));
      const auto perm = node.integers("perm", reversed);
      auto behind = uses_of(graph, uses, outputs, node.output(0), rank);
      if (behind.empty()) return {};
      for (auto& use : behind) {
        use.axis = static_cast<std::size_t>(perm.at(use.axis));
        found.push_back(use);
      }
      continue;
    }
    auto use = use_at(node, reader.input, rank);
    if (!use) return {};
    use->head = !use->embedding && outputs.count(node.output(0)) > 0;
    found.push_back(*use);
  }
  return found;
}

struct Quantized {
  Tensor codes, scale;
  double squared_error = 0, squared = 0;
};

/// Symmetric, scale = max|w| / 127 of each index of `axis` (of everything without one), half to even. A scale is rounded to the
/// weight's own type first, so that what readers compute is what was measured; channels of zeros get scale 1.
Quantized quantize(const std::string& name, const Tensor& weight, std::optional<std::size_t> axis) {
  const auto numbers = weight.dtype == DType::f32 ? std::vector<double>() : weight.numbers();
  const auto floats = weight.dtype == DType::f32 ? weight.as<float>() : std::span<const float>();
  const auto at = [&](std::size_t i) { return floats.empty() ? numbers[i] : static_cast<double>(floats[i]); };
  std::size_t outer = 1, inner = 1, channels = 1;
  for (std::size_t d = 0; d < weight.shape.size(); ++d) {
    const auto length = static_cast<std::size_t>(weight.shape[d]);
    if (!axis || d > *axis)
      inner *= length;
    else if (d == *axis)
      channels = length;
    else
      outer *= length;
  }
  const auto each = [&](auto&& visit) {
    std::size_t i = 0;
    for (std::size_t o = 0; o < outer; ++o) {
      for (std::size_t c = 0; c < channels; ++c) {
        for (std::size_t k = 0; k < inner; ++k, ++i) visit(c, i);
      }
    }
  };
  std::vector<double> largest(channels, 0.0);
  bool finite = true;
  each([&](std::size_t c, std::size_t i) {
    const double w = std::abs(at(i));
    finite = finite && std::isfinite(w);
    largest[c] = std::max(largest[c], w);
  });
  if (!finite)
    throw_invalid("a weight is not finite, so it has no scale", name, "exclude the tensor, or look at how the model was trained");

  Quantized out;
  const std::vector<std::int64_t> scale_shape =
      axis ? std::vector{static_cast<std::int64_t>(channels)} : std::vector<std::int64_t>{};
  const auto in_own_type = [&](const std::vector<float>& scales) {
    auto scale = Tensor::of(DType::f32, scale_shape, scales);
    return weight.dtype == DType::f32 ? scale : from_aten(to_aten(scale).to(scalar_type(weight.dtype)));
  };
  std::vector<float> scales;
  for (double m : largest) scales.push_back(static_cast<float>(m / 127));
  auto rounded = in_own_type(scales).numbers();
  const double smallest = weight.dtype == DType::f16 ? 0x1p-24 : std::numeric_limits<float>::min();
  for (std::size_t c = 0; c < channels; ++c) {
    // Nothing but zeros, or so small that runtimes, which flush subnormal numbers, would not see the scale.
    if (rounded[c] < smallest) scales[c] = 1.0f;
  }
  out.scale = in_own_type(scales);
  rounded = out.scale.numbers();
  std::vector<std::byte> codes(static_cast<std::size_t>(weight.count()));
  each([&](std::size_t c, std::size_t i) {
    const double w = at(i), s = rounded[c];
    const double q = std::clamp(std::nearbyint(w / s), -127.0, 127.0);
    codes[i] = static_cast<std::byte>(static_cast<std::int8_t>(q));
    out.squared_error += (q * s - w) * (q * s - w);
    out.squared += w * w;
  });
  out.codes = Tensor::own(DType::i8, weight.shape, std::move(codes));
  return out;
}

/// "model.layers.3.mlp.down_proj.weight" → "model.layers.*.mlp.down_proj.weight".
std::string kind_of(const std::string& name) {
  std::string out;
  for (std::size_t i = 0; i < name.size();) {
    const bool starts = i == 0 || name[i - 1] == '.';
    std::size_t end = i;
    while (starts && end < name.size() && std::isdigit(static_cast<unsigned char>(name[end]))) ++end;
    if (end > i && (end == name.size() || name[end] == '.')) {
      out += '*';
      i = end;
    } else {
      out += name[i++];
    }
  }
  return out;
}

/// Mean squared errors by kind of tensor, for the report.
class ErrorTable {
 public:
  void add(const std::string& name, const Quantized& q) {
    auto& row = rows_[kind_of(name)];
    row.tensors += 1;
    row.elements += q.codes.count();
    row.error += q.squared_error;
    row.square += q.squared;
  }
  Json json() const {
    Json rows = Json::array();
    for (const auto& [kind, r] : rows_) {
      rows.push_back(
          {kind, r.tensors, r.elements, r.error / static_cast<double>(r.elements), r.square > 0 ? r.error / r.square : 0.0});
    }
    return {{"columns", {"tensors", "count", "elements", "mean squared error", "relative to the mean square"}},
            {"rows", std::move(rows)}};
  }

 private:
  struct Row {
    std::int64_t tensors = 0, elements = 0;
    double error = 0, square = 0;
  };
  std::map<std::string, Row> rows_;
};

class RoundToNearest final : public Component {
 public:
  void run(Context& context) override {
    const auto& params = context.params();
    Graph graph = load_model(context, context.input("model"));
    if (graph.opset() < 13) {
      throw_unsupported(fmt::format("the model is of opset {}; scales per channel need 13", graph.opset()), "port model",
                        "export the model with a newer opset");
    }
    const auto chosen = choose(context, graph, params);
    ErrorTable table;
    std::vector<Node> dequantizers;
    for (const auto& [name, use] : chosen) {
      context.check_cancelled();
      context.progress({dequantizers.size(), chosen.size(), "rounding " + name, {}});
      const bool per_channel = params.text("per") == "channel";
      auto q = quantize(name, *graph.initializer(name), per_channel ? std::optional(use.axis) : std::nullopt);
      table.add(name, q);
      dequantizers.push_back(replace(graph, name, std::move(q), per_channel ? std::optional(use.axis) : std::nullopt));
    }
    graph.nodes.insert(graph.nodes.begin(), std::make_move_iterator(dequantizers.begin()),
                       std::make_move_iterator(dequantizers.end()));
    graph.sort();
    graph.validate();
    context.output("model", save_model(context, graph));
    context.detail("rounding", table.json());
    context.figure("size_bytes", static_cast<double>(graph.weight_bytes()));
    context.figure("parameters", static_cast<double>(graph.parameter_count()));
    context.log(LogLevel::info,
                fmt::format("{} tensors rounded to INT8, weights are {} bytes", chosen.size(), graph.weight_bytes()));
  }

 private:
  static std::map<std::string, Use> choose(Context& context, const Graph& graph, const Params& params) {
    const Uses uses(graph);
    const auto outputs = near_output(graph);
    const Scope scope{params.texts("scope"), params.texts("exclude")};
    std::map<std::string, Use> chosen;
    std::vector<std::string> names;
    for (const auto& [name, tensor] : graph.initializers) {
      if (!is_floating(tensor.dtype) || bits(tensor.dtype) > 32 || bits(tensor.dtype) < 16 || tensor.count() == 0) continue;
      const auto found = uses_of(graph, uses, outputs, name, tensor.shape.size());
      if (found.empty()) continue;
      const auto answers = scope_names(uses, graph, name);
      names.insert(names.end(), answers.begin(), answers.end());
      if (!scope.covers(answers)) continue;
      const auto is = [&](bool Use::*what) {
        return std::any_of(found.begin(), found.end(), [&](const Use& u) { return u.*what; });
      };
      if ((is(&Use::embedding) && !params.flag("embeddings")) || (is(&Use::head) && !params.flag("head"))) continue;
      // Where uses differ, rows that are looked up decide: a reader of them sees no other axis.
      auto use = std::find_if(found.begin(), found.end(), [](const Use& u) { return u.embedding; });
      chosen[name] = use == found.end() ? found.front() : *use;
    }
    if (chosen.empty()) {
      const auto& pattern = scope.include.empty() ? std::string() : scope.include.front();
      throw_invalid(
          fmt::format("nothing to quantize: \"{}\" means no floating-point weight of a MatMul, Gemm, Conv or Gather", pattern),
          "parameter scope",
          names.empty() ? "the model has none, or is quantized already"
                        : fmt::format("weights are in: {}", fmt::join(near_scopes(pattern, names), ", ")));
    }
    context.log(LogLevel::debug, fmt::format("{} weights chosen", chosen.size()));
    return chosen;
  }

  /// The initializer gives way to codes and scale; a DequantizeLinear makes its value again, so readers stay as they are.
  static Node replace(Graph& graph, const std::string& name, Quantized q, std::optional<std::size_t> axis) {
    const auto codes = graph.fresh(name + ".q"), scale = graph.fresh(name + ".scale");
    graph.initializers.erase(name);
    graph.initializers.emplace(codes, std::move(q.codes));
    graph.initializers.emplace(scale, std::move(q.scale));
    Node node;
    node.op = "DequantizeLinear";
    node.name = name + "/DequantizeLinear";
    node.inputs = {codes, scale};
    node.outputs = {name};
    if (axis) node.attributes["axis"] = static_cast<std::int64_t>(*axis);
    return node;
  }
};

}  // namespace

ESPALIER_PLUGIN(R"json({
  "name": "rtn", "version": "0.1.0", "author": "The Espalier authors", "licence": "Apache-2.0",
  "description": "Quantization by rounding",
  "components": [{
    "name": "quantizer/rtn", "version": "0.1.0",
    "summary": "Rounds weights to INT8 with a scale per output channel, symmetric; embeddings and head too; the result is a standard QDQ model",
    "inputs": [
      {"name": "model", "type": "model", "help": "the model to quantize"}
    ],
    "outputs": [
      {"name": "model", "type": "model", "help": "the same model with INT8 weights behind DequantizeLinear"}
    ],
    "parameters": [
      {"name": "bits", "type": "integer", "default": 8, "min": 8, "max": 8, "unit": "bits", "help": "width of a weight"},
      {"name": "per", "type": "string", "default": "channel", "choices": ["channel", "tensor"], "help": "one scale for each output channel, or one for the whole tensor"},
      {"name": "scope", "type": "list<string>", "default": ["*"], "help": "patterns of the weights to quantize, such as *.mlp"},
      {"name": "exclude", "type": "list<string>", "default": [], "help": "patterns of the weights that stay as they are"},
      {"name": "embeddings", "type": "boolean", "default": true, "help": "quantize tables whose rows are looked up, one scale a row (a tied head with them)"},
      {"name": "head", "type": "boolean", "default": true, "help": "quantize the weight whose product is the model's output (a tied embedding with it)"}
    ],
    "depends": {"seed": false, "threads": false, "runtimes": []},
    "byte_exact": true,
    "estimate": {"memory_base": 1e8, "memory_per_byte": 0.6, "output_per_byte": 0.3}
  }]
})json",
                ESPALIER_COMPONENT("quantizer/rtn", RoundToNearest));
