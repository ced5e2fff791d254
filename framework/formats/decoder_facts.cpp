#include "formats/decoder_facts.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numbers>

#include "graph/causal.h"
#include "graph/op.h"
#include "sdk/error.h"

namespace espalier {
namespace {

constexpr const char* kElsewhere = "write it as ONNX: a name that ends in .onnx";

/// Walks from values to what made them.
class Walk {
 public:
  explicit Walk(const Graph& graph) : graph_(graph), uses_(graph), values_(infer(graph)) {}

  /// nullptr for inputs and initializers.
  const Node* producer(const std::string& value) const {
    const auto node = uses_.producer_of(value);
    return node < 0 ? nullptr : &graph_.nodes[static_cast<std::size_t>(node)];
  }
  const Node* producer(const Node* node, std::size_t input) const { return node ? producer(node->input(input)) : nullptr; }
  static bool is(const Node* node, std::string_view op) { return node && node->domain.empty() && node->op == op; }
  bool stored(const std::string& value) const {
    const Node* node = producer(value);
    return graph_.initializer(value) || (is(node, "Cast") && graph_.initializer(node->input(0)));
  }
  const Node* only_reader(const std::string& value) const {
    const auto& readers = uses_.readers_of(value);
    return readers.size() == 1 ? &graph_.nodes[readers[0].node] : nullptr;
  }
  bool read_by(const std::string& value, std::string_view op) const {
    const auto& readers = uses_.readers_of(value);
    return std::any_of(readers.begin(), readers.end(),
                       [&](const Uses::Reader& reader) { return is(&graph_.nodes[reader.node], op); });
  }
  /// A length that is known; 0 when it is not.
  std::int64_t length(const std::string& value, std::size_t axis) const {
    const auto found = values_.find(value);
    return found == values_.end() || axis >= found->second.shape.size() ? 0 : found->second.shape[axis].value_or(0);
  }
  std::int64_t width(const std::string& value) const {
    const auto found = values_.find(value);
    return found == values_.end() || found->second.shape.empty() ? 0 : length(value, found->second.shape.size() - 1);
  }
  /// A scalar constant.
  double number(const std::string& value) const {
    const Tensor* tensor = graph_.initializer(value);
    return tensor && tensor->count() == 1 && is_floating(tensor->dtype) ? tensor->numbers()[0] : 0;
  }
  std::int64_t integer(const std::string& value) const {
    const Tensor* tensor = graph_.initializer(value);
    return tensor && tensor->count() == 1 && tensor->dtype == DType::i64 ? tensor->integers()[0] : 0;
  }
  const Graph& graph() const { return graph_; }

 private:
  const Graph& graph_;
  Uses uses_;
  ValueMap values_;
};

/// One layer's attention, from its node back to what it projects.
class AttentionFacts {
 public:
  AttentionFacts(const Walk& walk, const Node& node, DecoderFacts& facts) : walk_(walk), node_(node), facts_(facts) {}

  /// Returns the table of cosines that queries are turned by; empty: none.
  std::string read() {
    const std::int64_t heads = node_.integer("q_num_heads", 0), kv_heads = node_.integer("kv_num_heads", 0);
    if (heads < 1 || kv_heads < 1 || walk_.width(node_.input(0)) < heads)
      throw_unsupported("its heads are not told by q_num_heads and kv_num_heads", node_.name, kElsewhere);
    const std::int64_t size = walk_.width(node_.input(0)) / heads;
    if (walk_.width(node_.input(2)) != kv_heads * size)
      throw_unsupported("its value heads are of another size than its key heads", node_.name, kElsewhere);
    facts_.heads.push_back(heads);
    facts_.kv_heads.push_back(kv_heads);
    facts_.head_size.push_back(size);
    facts_.windows.push_back(window());
    facts_.attention_scale = node_.number("scale", 0);
    facts_.attention_softcap = node_.number("softcap", 0);
    const Node* values = walk_.producer(node_.input(2));
    facts_.qkv_bias = Walk::is(values, "Add") && walk_.stored(values->input(1));
    const Node* product = walk_.only_reader(node_.output(0));
    const Node* sum = product ? walk_.only_reader(product->output(0)) : nullptr;
    facts_.out_bias = Walk::is(sum, "Add") && walk_.stored(sum->input(1));
    return queries(size);
  }

 private:
  /// And(mask, Less(distance, window)).
  std::int64_t window() const {
    const Node* both = walk_.producer(node_.input(3));
    const Node* less = Walk::is(both, "And") ? walk_.producer(both, 1) : nullptr;
    return Walk::is(less, "Less") ? walk_.integer(less->input(1)) : 0;
  }

  std::string queries(std::int64_t size) {
    using Q = DecoderFacts::QueryNorm;
    const Node* node = walk_.producer(node_.input(0));
    std::string table;
    if (Walk::is(node, "RotaryEmbedding")) {
      table = node->input(1);
      const std::int64_t turned = node->integer("rotary_embedding_dim", 0);
      facts_.rotary_size = turned > 0 ? turned : size;
      node = walk_.producer(node, 0);
    }
    const bool apart = Walk::is(node, "Reshape");
    if (apart) node = walk_.producer(node, 0);
    facts_.query_norm = !Walk::is(node, "RMSNormalization") ? Q::none : apart ? Q::head : Q::width;
    return table;
  }

  const Walk& walk_;
  const Node& node_;
  DecoderFacts& facts_;
};

/// From the logits back to the last layer's feed-forward part.
void read_end(const Walk& walk, DecoderFacts& facts) {
  const Node* node = walk.producer("logits");
  if (Walk::is(node, "Mul")) {
    facts.final_softcap = walk.number(node->input(1));
    node = walk.producer(walk.producer(walk.producer(node, 0), 0), 0);  // Tanh, Div
  }
  if (!Walk::is(node, "MatMul")) return;
  facts.tied = Walk::is(walk.producer(node, 1), "Transpose");
  const Node* norm = walk.producer(node, 0);
  if (!norm) return;
  facts.layer_norm = Walk::is(norm, "LayerNormalization");
  facts.epsilon = norm->number("epsilon", 1e-5);
  const Node* out = walk.producer(walk.producer(norm, 0), 1);  // the residual sum's second summand
  if (Walk::is(out, "RMSNormalization")) out = walk.producer(out, 0);
  if (Walk::is(out, "Add") && walk.stored(out->input(1))) {
    facts.mlp_bias = true;
    out = walk.producer(out, 0);
  }
  if (!Walk::is(out, "MatMul")) return;
  const Node* inner = walk.producer(out, 0);
  if (Walk::is(inner, "Mul") && !Walk::is(walk.producer(inner, 1), "Sigmoid")) inner = walk.producer(inner, 0);  // gated
  if (Walk::is(inner, "Relu")) facts.activation = "relu";
  if (Walk::is(inner, "Gelu")) facts.activation = inner->text("approximate", "none") == "tanh" ? "gelu_pytorch_tanh" : "gelu";
}

void read_experts(const Walk& walk, DecoderFacts& facts) {
  for (const Node& node : walk.graph().nodes) {
    if (!Walk::is(&node, "TopK")) continue;
    facts.mixtures.push_back(walk.width(node.input(0)));
    facts.mixtures_used.push_back(walk.integer(node.input(1)));
  }
  if (facts.mixtures.empty()) return;
  facts.experts = facts.mixtures.front();
  facts.experts_used = facts.mixtures_used.front();
}

std::optional<RotaryRule> rule_of(const Walk& walk, const std::string& cosines) {
  const auto& nodes = walk.graph().nodes;
  const auto turned = std::find_if(
      nodes.begin(), nodes.end(), [&](const Node& node) { return Walk::is(&node, "RotaryEmbedding") && node.input(1) == cosines; });
  if (turned == nodes.end()) return std::nullopt;
  const Tensor *cos = walk.graph().initializer(cosines), *sin = walk.graph().initializer(turned->input(2));
  return cos && sin ? rotary_rule(*cos, *sin) : std::nullopt;
}

/// The frequency of one pair, from its angles at positions 1, 2, 4, …: each tells the last one's whole turns apart.
double frequency(std::span<const float> cosines, std::span<const float> sines, std::int64_t positions, std::int64_t half,
                 std::int64_t pair) {
  const auto angle = [&](std::int64_t position) {
    const auto at = static_cast<std::size_t>(position * half + pair);
    return std::atan2(static_cast<double>(sines[at]), static_cast<double>(cosines[at]));
  };
  double found = angle(1);
  for (std::int64_t position = 2; position < positions; position *= 2) {
    const double turns = std::round((found * static_cast<double>(position) - angle(position)) / (2 * std::numbers::pi));
    found = (angle(position) + 2 * std::numbers::pi * turns) / static_cast<double>(position);
  }
  return found;
}

/// A number that was meant to be whole.
double snapped(double value) { return std::abs(value - std::round(value)) <= 1e-5 * std::abs(value) ? std::round(value) : value; }

}  // namespace

std::optional<RotaryRule> rotary_rule(const Tensor& cosines, const Tensor& sines) {
  if (cosines.dtype != DType::f32 || sines.dtype != DType::f32 || cosines.shape.size() != 2 || cosines.shape != sines.shape)
    return std::nullopt;
  const std::int64_t positions = cosines.shape[0], half = cosines.shape[1];
  RotaryRule rule;
  if (positions < 2 || half < 1) return rule;
  const auto cos = cosines.as<float>(), sin = sines.as<float>();
  const auto of = [&](std::int64_t pair) { return frequency(cos, sin, positions, half, pair); };
  rule.factor = snapped(1 / of(0));
  if (half > 1) rule.base = snapped(std::pow(of(1) * rule.factor, -static_cast<double>(half)));
  if (!(rule.base > 1) || !(rule.factor >= 1) || !std::isfinite(rule.base) || !std::isfinite(rule.factor)) return std::nullopt;
  for (std::int64_t pair = 0; pair < half; ++pair) {
    const double expected = std::pow(rule.base, -static_cast<double>(pair) / static_cast<double>(half)) / rule.factor;
    const auto at = static_cast<std::size_t>(half + pair);
    if (std::abs(cos[at] - std::cos(expected)) > 1e-5 || std::abs(sin[at] - std::sin(expected)) > 1e-5) return std::nullopt;
  }
  return rule;
}

DecoderFacts decoder_facts(const Graph& graph) {
  if (has_past_inputs(graph))
    throw_unsupported("the model takes past keys and values: it was prepared for a runtime", graph.name,
                      "convert the model that the package was made of (`espalier export` writes a stage's model)");
  for (const char* name : {"input_ids", "attention_mask", "position_ids"})
    if (std::none_of(graph.inputs.begin(), graph.inputs.end(), [&](const Value& input) { return input.name == name; }))
      throw_unsupported(fmt::format("the model has no input {}: it is no decoder-only language model", name), graph.name,
                        kElsewhere);
  const Walk walk(graph);
  DecoderFacts facts;
  std::string global, local;
  for (const Node& node : graph.nodes) {
    if (!Walk::is(&node, "Attention")) continue;
    const std::string table = AttentionFacts(walk, node, facts).read();
    (facts.windows.back() > 0 ? local : global) = table;
  }
  if (facts.heads.empty())
    throw_unsupported("the model has no Attention: it is no decoder-only language model", graph.name, kElsewhere);
  for (const Node& node : graph.nodes) {
    if (!Walk::is(&node, "Gather") || node.input(1) != "input_ids") continue;
    facts.vocabulary = walk.length(node.input(0), 0);
    facts.hidden = walk.length(node.input(0), 1);
    facts.scaled_embedding = walk.read_by(node.output(0), "Mul");
  }
  if (facts.vocabulary < 1 || facts.hidden < 1)
    throw_unsupported("nothing looks input_ids up in a table of known size: it is no decoder-only language model", graph.name,
                      kElsewhere);
  if (global.empty()) std::swap(global, local);  // all layers have a window
  facts.positions = walk.length(global, 0);
  facts.rotary = rule_of(walk, global);
  if (!local.empty() && local != global) facts.local = rule_of(walk, local);
  read_end(walk, facts);
  read_experts(walk, facts);
  return facts;
}

}  // namespace espalier
