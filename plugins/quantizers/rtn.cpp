// Round to nearest: weights as INT8 or INT4 with a scale per output channel, per group of inputs or per tensor, as standard ONNX
// QDQ; on request with activations quantized as they come. Needs no data. Weights may stay float32 under their rounding, to be
// trained with it, and are stored as integers afterwards.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <map>
#include <optional>
#include <set>

#include "formats/model_artifact.h"
#include "graph/passes.h"
#include "graph/rounded_weights.h"
#include "graph/scope.h"
#include "run/rounding.h"
#include "run/rounding_table.h"
#include "sdk/plugin.h"

using namespace espalier;

namespace {

/// How a weight is read: where its outputs lie, and where the inputs that are summed over.
struct Use {
  std::size_t axis = 0, inputs = 0;
  bool embedding = false;           ///< rows are looked up
  bool head = false;                ///< its product is an output of the model
  std::size_t node = 0, other = 0;  ///< the reader, and its input that the weight meets
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

/// How an input of `node` is used, when it is a weight that can be quantized.
std::optional<Use> use_at(const Node& node, std::size_t input, std::size_t rank) {
  if (!node.domain.empty() || rank < 2) return std::nullopt;
  if (node.op == "MatMul" && input == 1) return Use{.axis = rank - 1, .inputs = rank - 2, .other = 0};
  if (node.op == "MatMul" && input == 0) return Use{.axis = rank - 2, .inputs = rank - 1, .other = 1};
  if (node.op == "Gemm" && input == 1) {
    const bool rows = node.integer("transB", 0) != 0;
    return Use{.axis = rows ? 0u : 1u, .inputs = rows ? 1u : 0u, .other = 0};
  }
  if (node.op == "Conv" && input == 1) return Use{.axis = 0, .inputs = 1, .other = 0};
  if (node.op == "Gather" && input == 0) {
    const auto axis = node.integer("axis", 0);
    const auto at = static_cast<std::size_t>(axis < 0 ? axis + static_cast<std::int64_t>(rank) : axis);
    return Use{.axis = at, .inputs = at + 1 == rank ? rank - 2 : rank - 1, .embedding = true};
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
        use.inputs = static_cast<std::size_t>(perm.at(use.inputs));
        found.push_back(use);
      }
      continue;
    }
    auto use = use_at(node, reader.input, rank);
    if (!use) return {};
    use->node = reader.node;
    use->head = !use->embedding && outputs.count(node.output(0)) > 0;
    found.push_back(*use);
  }
  return found;
}

/// Which bits a weight gets: those of the longest pattern of per_scope that means it, else the stage's own.
class Widths {
 public:
  explicit Widths(const Params& params)
      : bits_(params.integer("bits")), tables_(params.integer("embedding_bits")), patterns_(params.numbers("per_scope")) {
    for (const auto& [pattern, bits] : patterns_) {
      if (bits != 4 && bits != 8 && bits != 16)
        throw_invalid(fmt::format("per_scope gives \"{}\" {} bits", pattern, bits), "parameter per_scope",
                      "weights take 4 or 8 bits; 16 leaves them as they are");
    }
  }
  std::int64_t of(const std::vector<std::string>& answers, bool table) {
    std::string best;
    for (const auto& [pattern, bits] : patterns_) {
      if (!Scope{{pattern}, {}}.covers(answers)) continue;
      met_.insert(pattern);
      if (pattern.size() > best.size()) best = pattern;
    }
    if (best.empty()) return table ? tables_ : bits_;
    return static_cast<std::int64_t>(patterns_.at(best));
  }
  void check_met(const std::vector<std::string>& names) const {
    for (const auto& [pattern, bits] : patterns_) {
      if (!met_.contains(pattern))
        throw_invalid(fmt::format("the pattern \"{}\" of per_scope means no weight that is in scope", pattern),
                      "parameter per_scope", fmt::format("in scope are: {}", fmt::join(near_scopes(pattern, names), ", ")));
    }
  }

 private:
  std::int64_t bits_, tables_;
  std::map<std::string, double> patterns_;
  std::set<std::string> met_;
};

struct Choice {
  Grid grid;
  Sharing sharing;
  std::vector<Use> uses;
};

class RoundToNearest final : public Component {
 public:
  void run(Context& context) override {
    const auto& params = context.params();
    Graph graph = load_model(context, context.input("model"));
    const bool trainable = params.flag("trainable"), dynamic = params.text("activations") == "dynamic";
    if (trainable && dynamic)
      throw_invalid("weights that are to be trained cannot have dynamic activations", "parameters trainable, activations",
                    "train first, then give activations = \"dynamic\" to the stage that rounds the other weights");
    const auto chosen = choose(graph, params);
    RoundingTable table;
    const auto frozen = trainable ? 0 : freeze(context, graph, dynamic, table);
    check_opset(graph, chosen, trainable);
    if (dynamic) quantize_activations(graph, chosen);
    std::vector<Node> dequantizers;
    for (const auto& [name, choice] : chosen) {
      context.check_cancelled();
      context.progress({dequantizers.size(), chosen.size(), "rounding " + name, {}});
      auto q = round_to_grid(name, *graph.initializer(name), choice.grid, choice.sharing);
      const auto bytes = q.codes.bytes.size() + q.scale.bytes.size() + (q.zero ? q.zero->bytes.size() : 0);
      table.add(name, {choice.grid.bits, choice.sharing.block, q.codes.count(), bytes, q.squared_error, q.squared});
      if (trainable)
        round_on_the_way(graph, name, std::move(q), choice.sharing);
      else
        dequantizers.push_back(replace(graph, name, std::move(q), choice.sharing));
    }
    graph.nodes.insert(graph.nodes.begin(), std::make_move_iterator(dequantizers.begin()),
                       std::make_move_iterator(dequantizers.end()));
    graph.sort();
    graph.validate();
    context.output("model", save_model(context, graph));
    context.detail("rounding", table.json());
    context.figure("size_bytes", static_cast<double>(graph.weight_bytes()));
    context.figure("parameters", static_cast<double>(graph.parameter_count()));
    context.figure("bits", table.bits());
    context.figure("squared_error", table.squared_error());
    context.log(LogLevel::info,
                fmt::format("{} tensors rounded to {:.2f} bits a weight{}, weights are {} bytes", frozen + chosen.size(),
                            table.bits(), trainable ? " and kept in float32 for training" : "", graph.weight_bytes()));
  }

 private:
  /// What an earlier stage left trainable is stored as integers, with the scales that it was trained under.
  static std::size_t freeze(Context& context, Graph& graph, bool dynamic, RoundingTable& table) {
    const auto frozen = freeze_rounded_weights(graph);
    if (frozen.empty()) return 0;
    if (dynamic)
      throw_invalid("the weight was trained under scales for 8 whole bits; dynamic activations need others", frozen.front().weight,
                    "leave activations as they are in this stage");
    for (const auto& each : frozen)
      table.add(each.weight, {each.bits, each.block, each.count, each.bytes, each.squared_error, each.squared});
    context.figure("frozen", static_cast<double>(frozen.size()));
    return frozen.size();
  }

  static std::map<std::string, Choice> choose(const Graph& graph, const Params& params) {
    const Uses uses(graph);
    const auto outputs = near_output(graph);
    const Scope scope{params.texts("scope"), params.texts("exclude")};
    Widths widths(params);
    std::map<std::string, Choice> chosen;
    std::vector<std::string> names, covered;
    const bool trainable = params.flag("trainable");
    const auto rounded = rounded_weights(graph);
    for (const auto& each : rounded) {  // they keep the grid that they have
      const auto answers = scope_names(uses, graph, each.weight);
      covered.insert(covered.end(), answers.begin(), answers.end());
      widths.of(answers, false);
    }
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
      covered.insert(covered.end(), answers.begin(), answers.end());
      const bool table = is(&Use::embedding) || is(&Use::head);
      const auto width = widths.of(answers, table);
      if (width == 16) continue;
      if (trainable && tensor.dtype != DType::f32)
        throw_unsupported(fmt::format("a weight of {} cannot be trained under its rounding", to_string(tensor.dtype)), name,
                          "quantize the float32 model");
      chosen[name] = choice_for(name, tensor, found, static_cast<int>(width), table, params);
    }
    if (chosen.empty() && (trainable || rounded.empty())) {
      const auto& pattern = scope.include.empty() ? std::string() : scope.include.front();
      throw_invalid(
          fmt::format("nothing to quantize: \"{}\" means no floating-point weight of a MatMul, Gemm, Conv or Gather", pattern),
          "parameter scope",
          names.empty() ? "the model has none, or is quantized already" + cast_weights(graph)
                        : fmt::format("weights are in: {}", fmt::join(near_scopes(pattern, names), ", ")));
    }
    widths.check_met(covered);
    return chosen;
  }

  /// What a hint adds where weights lie in 16 bits.
  static std::string cast_weights(const Graph& graph) {
    for (const auto& node : graph.nodes) {
      const Tensor* tensor = node.op == "Cast" ? graph.initializer(node.input(0)) : nullptr;
      if (tensor && (tensor->dtype == DType::f16 || tensor->dtype == DType::bf16) && tensor->shape.size() > 1)
        return fmt::format("; \"{}\" is stored as {} behind a Cast: quantize before that", node.input(0), to_string(tensor->dtype));
    }
    return {};
  }

  static Choice choice_for(const std::string& name, const Tensor& tensor, const std::vector<Use>& found, int width, bool table,
                           const Params& params) {
    // Where uses differ, rows that are looked up decide: a reader of them sees no other axis.
    auto use = std::find_if(found.begin(), found.end(), [](const Use& u) { return u.embedding; });
    if (use == found.end()) use = found.begin();
    Choice choice;
    choice.uses = found;
    choice.grid = {.bits = width,
                   .symmetric = params.flag("symmetric"),
                   .search = params.text("scale") == "mse",
                   .reduced = params.text("activations") == "dynamic" && params.flag("reduce_range")};
    const auto group = params.integer("group");
    // A group that takes in all inputs is a scale for each output.
    if (group > 0 && !table && tensor.shape[use->inputs] > group) {
      const auto whole = whole_group(tensor.shape[use->inputs], group);
      if (!whole)
        throw_invalid(fmt::format("{} inputs do not divide into groups of {} or a little less", tensor.shape[use->inputs], group),
                      name, "give a group that divides them, or exclude the tensor");
      choice.sharing = {use->inputs, *whole};
    } else if (params.text("per") == "channel" || (group > 0 && !table)) {
      choice.sharing = {use->axis, 0};
    }
    return choice;
  }

  static void check_opset(const Graph& graph, const std::map<std::string, Choice>& chosen, bool trainable) {
    const bool newer = std::any_of(chosen.begin(), chosen.end(),
                                   [](const auto& each) { return each.second.grid.bits == 4 || each.second.sharing.block > 0; });
    const std::int64_t needed = chosen.empty() ? 0 : newer || trainable ? 21 : 13;
    if (graph.opset() < needed) {
      throw_unsupported(fmt::format("the model is of opset {}; {} need {}", graph.opset(),
                                    newer ? "4 bits and groups" : (trainable ? "trainable weights" : "scales per channel"), needed),
                        "port model", "export the model with a newer opset");
    }
  }

  /// What meets a rounded weight in a product is rounded to 8 bits as it comes: DynamicQuantizeLinear takes range and zero point
  /// from the whole tensor at run time. As QDQ, not MatMulInteger: readers stay MatMul, Gemm and Conv, which every pass knows.
  static void quantize_activations(Graph& graph, const std::map<std::string, Choice>& chosen) {
    std::map<std::string, std::string> done;
    std::vector<Node> made;
    for (const auto& [name, choice] : chosen) {
      if (graph.initializer(name)->dtype != DType::f32)
        throw_unsupported(fmt::format("a weight of {} has no dynamic activations: DynamicQuantizeLinear takes float32 only",
                                      to_string(graph.initializer(name)->dtype)),
                          name, "quantize the float32 model");
      for (const auto& use : choice.uses) {
        if (use.embedding) continue;
        auto& value = graph.nodes[use.node].inputs[use.other];
        if (graph.initializer(value)) continue;
        auto [at, fresh] = done.try_emplace(value);
        if (fresh) {
          const auto codes = graph.fresh(value + ".q"), scale = graph.fresh(value + ".scale"), zero = graph.fresh(value + ".zero");
          at->second = graph.fresh(value + ".rounded");
          made.push_back({"DynamicQuantizeLinear", "", value + "/DynamicQuantizeLinear", {value}, {codes, scale, zero}, {}});
          made.push_back({"DequantizeLinear", "", value + "/DequantizeLinear", {codes, scale, zero}, {at->second}, {}});
        }
        value = at->second;
      }
    }
    graph.nodes.insert(graph.nodes.end(), std::make_move_iterator(made.begin()), std::make_move_iterator(made.end()));
  }

  /// The weight stays; readers meet it rounded. The pair stands before its first reader, so that a block that is run twice rounds
  /// its own weights, and no others wait in memory.
  static void round_on_the_way(Graph& graph, const std::string& name, Rounded q, const Sharing& sharing) {
    const auto codes = graph.fresh(name + ".codes"), value = graph.fresh(name + ".rounded");
    const auto reads = [&](const Node& node) {
      return std::find(node.inputs.begin(), node.inputs.end(), name) != node.inputs.end();
    };
    const auto first = std::find_if(graph.nodes.begin(), graph.nodes.end(), reads) - graph.nodes.begin();
    replace_uses(graph, name, value);
    Node quantize{"QuantizeLinear", "", name + "/QuantizeLinear", {name}, {codes}, {}};
    if (sharing.axis) quantize.attributes["axis"] = static_cast<std::int64_t>(*sharing.axis);
    if (sharing.block > 0) quantize.attributes["block_size"] = sharing.block;
    Node dequantize{"DequantizeLinear", "", name + "/DequantizeLinear", {codes}, {value}, quantize.attributes};
    const auto add = [&](const char* what, Tensor tensor) {
      const auto full = graph.fresh(name + what);
      graph.initializers.emplace(full, std::move(tensor));
      quantize.inputs.push_back(full);
      dequantize.inputs.push_back(full);
    };
    if (!q.zero) quantize.attributes["output_dtype"] = static_cast<std::int64_t>(q.codes.dtype);
    add(".scale", std::move(q.scale));
    if (q.zero) add(".zero", std::move(*q.zero));
    const auto at = graph.nodes.insert(graph.nodes.begin() + first, std::move(quantize));
    graph.nodes.insert(at + 1, std::move(dequantize));
  }

  /// The initializer gives way to codes and scale; a DequantizeLinear makes its value again, so readers stay as they are.
  static Node replace(Graph& graph, const std::string& name, Rounded q, const Sharing& sharing) {
    Node node;
    node.op = "DequantizeLinear";
    node.name = name + "/DequantizeLinear";
    const auto add = [&](const char* what, Tensor tensor) {
      node.inputs.push_back(graph.fresh(name + what));
      graph.initializers.emplace(node.inputs.back(), std::move(tensor));
    };
    graph.initializers.erase(name);
    add(".q", std::move(q.codes));
    add(".scale", std::move(q.scale));
    if (q.zero) add(".zero", std::move(*q.zero));
    node.outputs = {name};
    if (sharing.axis) node.attributes["axis"] = static_cast<std::int64_t>(*sharing.axis);
    if (sharing.block > 0) node.attributes["block_size"] = sharing.block;
    return node;
  }
};

}  // namespace

ESPALIER_PLUGIN(R"json({
  "name": "rtn", "version": "0.1.0", "author": "The Espalier authors", "licence": "Apache-2.0",
  "description": "Quantization by rounding",
  "components": [{
    "name": "quantizer/rtn", "version": "0.1.0",
    "summary": "Rounds weights to INT8 or INT4 by channel or group, activations too on request, or leaves them float for training under their rounding; the result is a standard QDQ model",
    "inputs": [
      {"name": "model", "type": "model", "help": "the model to quantize"}
    ],
    "outputs": [
      {"name": "model", "type": "model", "help": "the same model with integer weights behind DequantizeLinear, or (trainable) float weights behind QuantizeLinear and DequantizeLinear"}
    ],
    "parameters": [
      {"name": "bits", "type": "integer", "default": 8, "choices": [4, 8], "unit": "bits", "help": "width of a weight"},
      {"name": "embedding_bits", "type": "integer", "default": 8, "choices": [4, 8, 16], "unit": "bits", "help": "width of tables whose rows are looked up and of the head, which are never grouped; 16 leaves them as they are"},
      {"name": "per_scope", "type": "map<number>", "default": {}, "help": "widths of their own: pattern = 4, 8 or 16 (left as it is); the longest matching pattern wins"},
      {"name": "group", "type": "integer", "default": 0, "min": 0, "help": "so many inputs of an output share a scale (a width that it does not divide takes its largest divisor below); 0: one scale by per"},
      {"name": "symmetric", "type": "boolean", "default": true, "help": "signed codes around zero; false: unsigned ones with a zero point for each scale"},
      {"name": "scale", "type": "string", "default": "max", "choices": ["max", "mse"], "help": "a scale from the largest value, or searched for the least squared error"},
      {"name": "activations", "type": "string", "default": "none", "choices": ["none", "dynamic"], "help": "leave what weights are multiplied with, or round it to 8 bits with the range found at run time"},
      {"name": "reduce_range", "type": "boolean", "default": true, "help": "with dynamic activations, 8-bit codes use 7 bits: processors without VNNI saturate sums of two full products"},
      {"name": "per", "type": "string", "default": "channel", "choices": ["channel", "tensor"], "help": "one scale for each output channel, or one for the whole tensor"},
      {"name": "trainable", "type": "boolean", "default": false, "help": "weights stay float32 and the graph rounds them under fixed scales, so that a distiller trains them for it; the same stage without it then stores them as integers, whatever its bits and scope"},
      {"name": "scope", "type": "list<string>", "default": ["*"], "help": "patterns of the weights to quantize, such as *.mlp"},
      {"name": "exclude", "type": "list<string>", "default": [], "help": "patterns of the weights that stay as they are"},
      {"name": "embeddings", "type": "boolean", "default": true, "help": "quantize tables whose rows are looked up, one scale a row (a tied head with them)"},
      {"name": "head", "type": "boolean", "default": true, "help": "quantize the weight whose product is the model's output (a tied embedding with it)"}
    ],
    "depends": {"seed": false, "threads": false, "runtimes": []},
    "byte_exact": true,
    "estimate": {"memory": "7.4e7 + if(trainable, 1.1 * model.bytes, max(1.5 * model.largest_bytes, 1.02 * model.bytes * bits / 32))",
                 "seconds": "0.03 + model.bytes / if(scale == \"mse\", 1.2e8, 2.8e8)",
                 "outputs": {"model": {"bytes": "if(trainable, 1.1 * model.bytes, (model.bytes - model.language * model.largest_bytes) * (bits / 32 + if(group, 1 / group, 0)) + model.language * model.largest_bytes * if(embedding_bits == 16, 1, embedding_bits / 32))", "largest_bytes": "model.largest_bytes * if(trainable, 1, bits / 32)"}},
                 "memory_base": 1e8, "memory_per_byte": 0.6, "output_per_byte": 0.3}
  }]
})json",
                ESPALIER_COMPONENT("quantizer/rtn", RoundToNearest));
