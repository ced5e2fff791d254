#include "graph/causal.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "graph/op.h"
#include "graph/passes.h"
#include "sdk/error.h"

namespace espalier {
namespace {

bool is_attention(const Node& node) { return node.op == "Attention" && node.domain.empty(); }
bool has_past(const Node& node) { return !node.input(4).empty(); }
bool is_causal(const Node& node) { return is_attention(node) && (node.integer("is_causal", 0) != 0 || has_past(node)); }

const ValueInfo& info_of(const ValueMap& values, const std::string& name, const Node& node) {
  const auto found = values.find(name);
  if (found == values.end() || !found->second.rank_known)
    throw_invalid(fmt::format("the shape of {} is not known", name), node.name);
  return found->second;
}

/// Heads and their size of a key or value of an Attention node, [batch, heads, s, size] or [batch, s, heads * size].
CacheShape heads_of(const Node& node, const ValueInfo& info) {
  if (info.shape.size() == 4 && info.shape[1].known() && info.shape[3].known())
    return {info.shape[1].value(), info.shape[3].value()};
  const auto heads = node.integer("kv_num_heads", 0);
  if (info.shape.size() != 3 || heads <= 0 || !info.shape[2].known() || info.shape[2].value() % heads != 0)
    throw_invalid(fmt::format("keys of shape {} do not divide into {} heads", text(info.shape), heads), node.name);
  return {heads, info.shape[2].value() / heads};
}

/// Appends nodes under one scope.
class Builder {
 public:
  Builder(Graph& graph, std::string scope) : graph_(graph), scope_(std::move(scope)) {}

  std::string add(const std::string& op, std::vector<std::string> inputs, std::map<std::string, Attribute> attributes = {}) {
    Node node;
    node.op = op;
    node.name = fmt::format("{}/{}_{}", scope_, op, count_++);
    node.inputs = std::move(inputs);
    node.outputs = {graph_.fresh(node.name + "_output")};
    node.attributes = std::move(attributes);
    graph_.nodes.push_back(std::move(node));
    return graph_.nodes.back().outputs[0];
  }
  std::string constant(const std::string& name, Tensor tensor) {
    const auto full = graph_.fresh(scope_.substr(1) + "." + name);
    graph_.initializers[full] = std::move(tensor);
    return full;
  }
  std::string number(const std::string& name, std::int64_t value) {
    return constant(name, Tensor::of<std::int64_t>(DType::i64, {}, {value}));
  }
  std::string numbers(const std::string& name, std::vector<std::int64_t> values) {
    const auto count = static_cast<std::int64_t>(values.size());
    return constant(name, Tensor::of<std::int64_t>(DType::i64, {count}, values));
  }

 private:
  Graph& graph_;
  std::string scope_;
  int count_ = 0;
};

Value& input_named(Graph& graph, const std::string& name) {
  for (auto& value : graph.inputs)
    if (value.name == name) {
      if (value.shape.size() != 2)
        throw_invalid(fmt::format("the input has shape {}, not [batch, sequence]", text(value.shape)), name);
      return value;
    }
  throw_invalid("a causal language model needs this input", name);
}

/// The causal masks of a graph: key k is seen by query q when k <= past + q, and when the model's own mask says so. Runtimes and
/// versions of the operator differ in where `is_causal` puts the diagonal when there is a past, so the graph says it itself
/// (docs/decisions/attention-with-a-past.md).
class Masks {
 public:
  Masks(Graph& graph, const ValueMap& values, std::string first_past)
      : values_(values), build_(graph, "/causal_mask"), first_past_(std::move(first_past)) {}

  std::string of(const Node& node) {
    const auto& own = node.input(3);
    if (auto found = combined_.find(own); found != combined_.end()) return found->second;
    const auto& causal = triangle();
    std::string result = causal;
    if (!own.empty()) {
      const auto& info = info_of(values_, own, node);
      if (info.dtype == DType::boolean) {
        result = build_.add("And", {causal, own});
      } else if (info.dtype == DType::f32) {
        const auto never = build_.constant("never", Tensor::of<float>(DType::f32, {}, {-std::numeric_limits<float>::infinity()}));
        result = build_.add("Where", {causal, own, never});
      } else {
        throw_unsupported(fmt::format("an attention mask of type {}", to_string(info.dtype)), node.name,
                          "make it boolean or float32");
      }
    }
    return combined_[own] = result;
  }

 private:
  /// [1, 1, sequence, past + sequence].
  const std::string& triangle() {
    if (!triangle_.empty()) return triangle_;
    const auto zero = build_.number("zero", 0), one = build_.number("one", 1), two = build_.number("two", 2);
    const auto past = build_.add("Gather", {build_.add("Shape", {first_past_}), two}, {{"axis", std::int64_t{0}}});
    const auto sequence = build_.add("Gather", {build_.add("Shape", {"input_ids"}), one}, {{"axis", std::int64_t{0}}});
    const auto total = build_.add("Add", {past, sequence});
    const auto queries = build_.add("Unsqueeze", {build_.add("Range", {past, total, one}), build_.numbers("column", {1})});
    const auto keys = build_.add("Range", {zero, total, one});
    const auto seen = build_.add("LessOrEqual", {keys, queries});
    return triangle_ = build_.add("Unsqueeze", {seen, build_.numbers("batch_and_heads", {0, 1})});
  }

  const ValueMap& values_;
  Builder build_;
  std::string first_past_, triangle_;
  std::map<std::string, std::string> combined_;
};

}  // namespace

bool is_causal_lm(const Graph& graph) {
  const auto task = graph.metadata.find("espalier.task");
  return task != graph.metadata.end() && task->second == "causal-lm";
}

bool has_past_inputs(const Graph& graph) {
  return std::any_of(graph.inputs.begin(), graph.inputs.end(),
                     [](const Value& value) { return value.name.starts_with("past_key_values."); });
}

std::int64_t position_limit(const Graph& graph) {
  std::int64_t limit = 0;
  std::map<std::string_view, std::int64_t> rows{{"position_ids", 0}};  // values that are positions, and the row of position 0
  const auto cover = [&](const Tensor* table, std::int64_t first) {
    if (table && table->shape.size() == 2 && (limit == 0 || table->shape[0] - first < limit)) limit = table->shape[0] - first;
  };
  for (const Node& node : graph.nodes) {
    if (node.op == "RotaryEmbedding") cover(graph.initializer(node.input(1)), 0);
    if (!rows.contains(node.input(node.op == "Gather" ? 1 : 0))) continue;
    if (node.op == "Gather") cover(graph.initializer(node.input(0)), rows.at(node.input(1)));
    const Tensor* more = node.op == "Add" ? graph.initializer(node.input(1)) : nullptr;
    if (more && more->count() == 1 && more->dtype == DType::i64)
      rows[node.output(0)] = rows.at(node.input(0)) + more->integers().front();
  }
  return limit;
}

std::vector<CacheShape> cache_shapes(const Graph& graph) {
  const auto values = infer(graph);
  std::vector<CacheShape> shapes;
  for (const auto& node : graph.nodes)
    if (is_causal(node)) shapes.push_back(heads_of(node, info_of(values, node.input(1), node)));
  return shapes;
}

Graph with_kv_cache(const Graph& graph) {
  const auto values = infer(graph);
  Graph result = graph;
  const auto ids = input_named(result, "input_ids").shape;
  const Dim past = Dim::symbol("past"), total = past + ids[1];
  if (std::any_of(result.inputs.begin(), result.inputs.end(), [](const Value& v) { return v.name == "attention_mask"; }))
    input_named(result, "attention_mask").shape[1] = total;
  Masks masks(result, values, "past_key_values.0.key");
  const auto count = result.nodes.size();
  std::size_t layer = 0;
  for (std::size_t i = 0; i < count; ++i) {
    if (!is_causal(graph.nodes[i])) continue;
    if (has_past(graph.nodes[i])) throw_invalid("the attention has a past already", graph.nodes[i].name);
    if (!graph.nodes[i].input(6).empty())
      throw_unsupported("the attention reads nonpad_kv_seqlen, which does not go with a cache of its own", graph.nodes[i].name);
    const auto mask = masks.of(graph.nodes[i]);  // appends nodes: take the reference afterwards
    auto& node = result.nodes[i];
    node.inputs.resize(6);
    node.inputs[3] = mask;
    node.outputs.resize(std::max<std::size_t>(node.outputs.size(), 3));
    node.attributes.erase("is_causal");
    for (std::size_t part = 0; part < 2; ++part) {
      const auto& info = info_of(values, node.inputs[1 + part], node);
      const auto shape = heads_of(node, info);
      const auto name = [&](const char* stem) { return fmt::format("{}.{}.{}", stem, layer, part == 0 ? "key" : "value"); };
      result.inputs.push_back({name("past_key_values"), info.dtype, {ids[0], shape.kv_heads, past, shape.head_size}});
      node.inputs[4 + part] = name("past_key_values");
      const auto present = name("present");
      if (values.contains(present)) throw_invalid("the graph has a value of this name already", present);
      if (const auto& own = node.outputs[1 + part]; !own.empty()) {
        // The keys were asked for already, under another name.
        const auto old = own;
        node.outputs[1 + part] = present;
        replace_uses(result, old, present);
      }
      result.nodes[i].outputs[1 + part] = present;
      result.outputs.push_back({present, info.dtype, {ids[0], shape.kv_heads, total, shape.head_size}});
    }
    ++layer;
  }
  if (layer == 0) throw_invalid("the graph has no causal Attention node, so there is nothing to cache", graph.name);
  result.sort();
  infer(result);
  result.validate();
  return result;
}

namespace {

/// Input slot through which position p of the output depends on position p alone, when the node works position by position on
/// [batch, sequence, channels].
std::optional<std::size_t> positionwise_input(const Graph& graph, const ValueMap& values, const Node& node) {
  static const std::vector<std::string> unary{"Cast",     "Identity",    "Tanh",      "Relu",      "Sigmoid", "Neg",
                                              "Softplus", "Gelu",        "Erf",       "Abs",       "Clip",    "Exp",
                                              "Sqrt",     "HardSigmoid", "HardSwish", "LeakyRelu", "Elu",     "Swish"};
  static const std::vector<std::string> binary{"Add", "Sub", "Mul", "Div", "Pow", "Min", "Max"};
  const auto listed = [&](const auto& names) { return std::find(names.begin(), names.end(), node.op) != names.end(); };
  const auto rank = [&](std::size_t i) -> std::size_t {
    const auto found = values.find(node.input(i));
    return found == values.end() || !found->second.rank_known ? 99 : found->second.shape.size();
  };
  if (!node.domain.empty() || node.outputs.size() != 1) return std::nullopt;
  if (node.op == "MatMul") return rank(0) == 3 && rank(1) == 2 ? std::optional<std::size_t>(0) : std::nullopt;
  if (node.op == "RMSNormalization" || node.op == "LayerNormalization" || node.op == "Softmax" || node.op == "LogSoftmax") {
    const auto axis = node.integer("axis", -1);
    return rank(0) == 3 && (axis == -1 || axis == 2) ? std::optional<std::size_t>(0) : std::nullopt;
  }
  if (listed(unary)) return rank(0) == 3 ? std::optional<std::size_t>(0) : std::nullopt;
  if (listed(binary)) {
    for (std::size_t i = 0; i < 2; ++i)
      if (rank(i) == 3 && rank(1 - i) <= 1 && graph.initializer(node.input(1 - i))) return i;
  }
  return std::nullopt;
}

}  // namespace

Graph last_position_only(const Graph& graph) {
  const auto values = infer(graph);
  const Uses uses(graph);
  Graph result = graph;
  const auto output = std::find_if(result.outputs.begin(), result.outputs.end(), [](const Value& v) { return v.name == "logits"; });
  if (output == result.outputs.end()) throw_invalid("a causal language model needs this output", "logits");
  const auto producer = uses.producer_of("logits");
  if (producer < 0) throw_invalid("no node makes it", "logits");

  // As far up as every position goes its own way: the head, its softcap, the final norm.
  auto node = static_cast<std::size_t>(producer);
  auto slot = positionwise_input(graph, values, graph.nodes[node]);
  if (!slot) throw_unsupported("the head does not work position by position", graph.nodes[node].name);
  for (;;) {
    const auto& value = graph.nodes[node].input(*slot);
    const auto above = uses.producer_of(value);
    const bool border = std::any_of(graph.outputs.begin(), graph.outputs.end(), [&](const Value& v) { return v.name == value; });
    if (above < 0 || border || uses.readers_of(value).size() != 1) break;
    const auto next = positionwise_input(graph, values, graph.nodes[static_cast<std::size_t>(above)]);
    if (!next) break;
    node = static_cast<std::size_t>(above);
    slot = next;
  }
  const auto hidden = graph.nodes[node].input(*slot);
  Builder build(result, "/last_position");
  const auto last = build.add("Gather", {hidden, build.numbers("index", {-1})}, {{"axis", std::int64_t{1}}});
  result.nodes[node].inputs[*slot] = last;
  if (output->shape.size() == 3) output->shape[1] = Dim(1);
  result.sort();
  infer(result);
  result.validate();
  return result;
}

}  // namespace espalier
