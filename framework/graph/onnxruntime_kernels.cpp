#include "graph/onnxruntime_kernels.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "graph/passes/pattern.h"
#include "sdk/error.h"

namespace espalier {
namespace {

constexpr const char* kDomain = "com.microsoft";
constexpr std::int64_t kBlock = 64;  // one scale per output channel, repeated for each block

/// Only the causal triangle and the model's own attention_mask stand behind a mask: exactly one comparison, and nothing but steps
/// that move booleans.
bool plainly_causal(const Pattern& p, const std::string& mask) {
  static const std::set<std::string> moving{"And",   "Unsqueeze", "Cast",   "Expand", "LessOrEqual", "Range",
                                            "Shape", "Gather",    "Concat", "Add",    "Squeeze",     "Reshape"};
  std::set<const Node*> seen;
  std::vector<const Node*> open;
  int comparisons = 0;
  if (const Node* first = p.made_by(mask)) open.push_back(first);
  if (open.empty()) return false;
  while (!open.empty()) {
    const Node* node = open.back();
    open.pop_back();
    if (!seen.insert(node).second) continue;
    if (!moving.contains(node->op)) return false;
    comparisons += node->op == "LessOrEqual" ? 1 : 0;
    if (node->op == "Shape") continue;
    for (const auto& input : node->inputs)
      if (const Node* above = p.made_by(input)) open.push_back(above);
  }
  return comparisons == 1;
}

bool fits_grouped(const Pattern& p, const Node& node) {
  const auto heads = node.integer("q_num_heads", 0), shared = node.integer("kv_num_heads", 0);
  if (heads > 0 && shared > 0 && heads % shared != 0)
    throw_unsupported(fmt::format("ONNX Runtime has no attention with {} query heads over {} KV heads", heads, shared), node.name,
                      "prune heads in whole groups, or choose another backend");
  return heads > 0 && shared > 0 && !node.input(4).empty() && !node.input(5).empty() && node.outputs.size() == 3 &&
         node.input(6).empty() && node.number("softcap", 0) == 0 && node.integer("left_window_size", -1) < 0 &&
         node.integer("right_window_size", -1) < 0 && plainly_causal(p, node.input(3));
}

Node plain(const std::string& op, const std::string& name, std::vector<std::string> inputs, std::vector<std::string> outputs,
           std::map<std::string, Attribute> attributes = {}) {
  return {op, "", name, std::move(inputs), std::move(outputs), std::move(attributes)};
}

/// seqlens_k and total_sequence_length, from attention_mask [1, total].
std::pair<std::string, std::string> lengths(Graph& graph, std::vector<Node>& added) {
  const auto name = [&](const char* stem) { return graph.fresh(std::string("/lengths/") + stem); };
  const auto axis = graph.fresh("lengths.axis"), one = graph.fresh("lengths.one");
  graph.initializers[axis] = Tensor::of<std::int64_t>(DType::i64, {1}, {1});
  graph.initializers[one] = Tensor::of<std::int64_t>(DType::i64, {}, {1});
  const auto sum = name("sum"), before = name("before"), last = name("last"), shape = name("shape"), total = name("total"),
             total32 = name("total32");
  constexpr std::int64_t i32 = 6;
  added.push_back(plain("ReduceSum", "/lengths/ReduceSum", {"attention_mask", axis}, {sum}, {{"keepdims", std::int64_t{0}}}));
  added.push_back(plain("Sub", "/lengths/Sub", {sum, one}, {before}));
  added.push_back(plain("Cast", "/lengths/Cast", {before}, {last}, {{"to", i32}}));
  added.push_back(
      plain("Shape", "/lengths/Shape", {"attention_mask"}, {shape}, {{"start", std::int64_t{1}}, {"end", std::int64_t{2}}}));
  added.push_back(plain("Squeeze", "/lengths/Squeeze", {shape}, {total}));
  added.push_back(plain("Cast", "/lengths/Cast_1", {total}, {total32}, {{"to", i32}}));
  return {last, total32};
}

void rewrite_attention(Graph& graph, OnnxRuntimeRewrite& done) {
  std::vector<std::size_t> found;
  std::size_t cached = 0;
  {
    const Pattern p(graph);
    for (std::size_t i = 0; i < graph.nodes.size(); ++i) {
      const Node& node = graph.nodes[i];
      if (node.op != "Attention" || !node.domain.empty()) continue;
      cached += node.input(4).empty() ? 0 : 1;
      if (fits_grouped(p, node)) found.push_back(i);
    }
  }
  // A cache is either one buffer everywhere or handed over everywhere.
  if (found.empty() || found.size() != cached) return;
  std::vector<Node> added;
  const auto [last, total] = lengths(graph, added);
  for (const auto i : found) {
    Node& node = graph.nodes[i];
    std::map<std::string, Attribute> attributes{{"num_heads", node.integer("q_num_heads", 0)},
                                                {"kv_num_heads", node.integer("kv_num_heads", 0)}};
    if (node.has("scale")) attributes["scale"] = node.number("scale", 0);
    const auto inputs = node.inputs;
    become(node, "GroupQueryAttention", {inputs[0], inputs[1], inputs[2], inputs[4], inputs[5], last, total},
           std::move(attributes));
    node.domain = kDomain;
    ++done.attention;
  }
  graph.nodes.insert(graph.nodes.end(), added.begin(), added.end());
  graph.sort();
  done.shared_cache = true;
}

void rewrite_elementwise(Graph& graph, OnnxRuntimeRewrite& done) {
  std::set<std::string> taken;  // sums that a norm makes now
  {
    const Pattern p(graph);
    for (auto& node : graph.nodes) {
      if (!node.domain.empty()) continue;
      if (node.op == "RMSNormalization") {
        const Node* sum = p.made_by(node.input(0), "Add");
        const Tensor* gain = graph.initializer(node.input(1));
        const bool output =
            std::any_of(graph.outputs.begin(), graph.outputs.end(), [&](const Value& v) { return v.name == node.input(0); });
        if (!sum || output || taken.contains(sum->outputs[0]) || !gain || gain->shape.size() != 1 ||
            !p.is_last_axis(node.integer("axis", -1), node.input(0)))
          continue;
        const Shape *a = p.shape(sum->input(0)), *b = p.shape(sum->input(1));
        if (!a || !b || a->size() != 3 || *a != *b || p.dtype(node.input(0)) != DType::f32) continue;
        const auto name = sum->outputs[0];
        const auto x = sum->inputs[0], y = sum->inputs[1], weight = node.inputs[1];
        taken.insert(name);
        become(node, "SkipSimplifiedLayerNormalization", {x, y, weight}, {{"epsilon", node.number("epsilon", 1e-5)}});
        node.domain = kDomain;
        node.outputs = {node.outputs[0], "", "", name};
        ++done.norms;
      } else if (node.op == "Mul" && node.inputs.size() == 2 && p.dtype(node.inputs[0]) == DType::f32) {
        for (std::size_t i = 0; i < 2; ++i) {
          const Node* gate = p.made_by(node.inputs[i], "Sigmoid");
          if (!gate || gate->inputs[0] != node.inputs[1 - i]) continue;
          const auto x = gate->inputs[0];
          become(node, "QuickGelu", {x}, {{"alpha", 1.0}});
          node.domain = kDomain;
          ++done.silu;
          break;
        }
      }
    }
  }
  std::erase_if(graph.nodes,
                [&](const Node& node) { return node.op == "Add" && node.domain.empty() && taken.contains(node.outputs[0]); });
  graph.sort();
}

/// An 8-bit weight in the form that the kernels read.
class Blocked {
 public:
  explicit Blocked(Graph& graph) : graph_(graph) {}

  struct Names {
    std::string codes, scales, column;  ///< [n, blocks, 64] u8, [n * blocks], [n, blocks, 1]
    std::int64_t outputs = 0, inputs = 0;
  };

  /// The symmetric i8 weight behind a DequantizeLinear with one scale per output; `rows` says that outputs are its first axis.
  const Names* of(const Node& dequantize, bool rows) {
    const Tensor* codes = graph_.initializer(dequantize.input(0));
    const Tensor* scale = graph_.initializer(dequantize.input(1));
    if (!codes || !scale || !dequantize.input(2).empty() || codes->dtype != DType::i8 || scale->dtype != DType::f32) return nullptr;
    if (codes->shape.size() != 2 || scale->shape.size() != 1 || dequantize.integer("block_size", 0) != 0) return nullptr;
    const auto axis = dequantize.integer("axis", 1);
    if ((axis < 0 ? axis + 2 : axis) != (rows ? 0 : 1)) return nullptr;
    const auto key = std::pair(dequantize.input(0), rows);
    const auto found = made_.find(key);
    return found != made_.end() ? &found->second : &(made_[key] = make(dequantize.input(0), *codes, *scale, rows));
  }

 private:
  Names make(const std::string& name, const Tensor& codes, const Tensor& scale, bool rows) {
    const auto n = codes.shape[rows ? 0 : 1], k = codes.shape[rows ? 1 : 0], blocks = (k + kBlock - 1) / kBlock;
    const auto from = codes.as<std::int8_t>();
    const auto scales = scale.as<float>();
    std::vector<std::uint8_t> to(static_cast<std::size_t>(n * blocks * kBlock), 128);  // 128 stands for zero
    std::vector<float> wide(static_cast<std::size_t>(n * blocks));
    for (std::int64_t i = 0; i < n; ++i) {
      for (std::int64_t j = 0; j < k; ++j)
        to[static_cast<std::size_t>(i * blocks * kBlock + j)] =
            static_cast<std::uint8_t>(from[static_cast<std::size_t>(rows ? i * k + j : j * n + i)] + 128);
      std::fill_n(wide.begin() + i * blocks, blocks, scales[static_cast<std::size_t>(i)]);
    }
    Names names{graph_.fresh(name + ".blocks"), graph_.fresh(name + ".scales"), graph_.fresh(name + ".column"), n, k};
    graph_.initializers[names.codes] = Tensor::of<std::uint8_t>(DType::u8, {n, blocks, kBlock}, to);
    graph_.initializers[names.scales] = Tensor::of<float>(DType::f32, {n * blocks}, wide);
    graph_.initializers[names.column] = Tensor::of<float>(DType::f32, {n, blocks, 1}, wide);
    return names;
  }

  Graph& graph_;
  std::map<std::pair<std::string, bool>, Names> made_;
};

void rewrite_products(Graph& graph, bool int8_activations, OnnxRuntimeRewrite& done) {
  std::vector<Node> added;
  {
    const Pattern p(graph);
    Blocked blocked(graph);
    for (auto& node : graph.nodes) {
      if (!node.domain.empty()) continue;
      if (node.op == "MatMul") {
        const Node* weight = p.made_by(node.input(1));
        const bool turned = weight && weight->op == "Transpose" && p.permutation(*weight) == std::vector<std::int64_t>{1, 0};
        if (turned) weight = p.made_by(weight->input(0));
        if (!weight || weight->op != "DequantizeLinear") continue;
        const auto* names = blocked.of(*weight, turned);
        if (!names) continue;
        const auto x = node.inputs[0];
        become(node, "MatMulNBits", {x, names->codes, names->scales},
               {{"K", names->inputs},
                {"N", names->outputs},
                {"bits", std::int64_t{8}},
                {"block_size", kBlock},
                {"accuracy_level", std::int64_t{int8_activations ? 4 : 1}}});
        node.domain = kDomain;
        ++done.products;
      } else if (node.op == "Gather" && node.integer("axis", 0) == 0) {
        const Node* weight = p.made_by(node.input(0), "DequantizeLinear");
        const Shape* ids = p.shape(node.input(1));
        const auto* names = weight && ids ? blocked.of(*weight, true) : nullptr;
        if (!names || names->inputs % kBlock != 0) continue;  // a rest would come out as well
        const auto pieces = graph.fresh(node.outputs[0] + ".blocks"), shape = graph.fresh(node.outputs[0] + ".shape");
        std::vector<std::int64_t> target(ids->size(), 0);
        target.push_back(-1);
        graph.initializers[shape] = Tensor::of<std::int64_t>(DType::i64, {static_cast<std::int64_t>(target.size())}, target);
        Node lookup = node;
        become(lookup, "GatherBlockQuantized", {names->codes, node.inputs[1], names->column},
               {{"gather_axis", std::int64_t{0}},
                {"quantize_axis", std::int64_t{2}},
                {"block_size", kBlock},
                {"bits", std::int64_t{8}}});
        lookup.domain = kDomain;
        lookup.name += "/blocks";
        lookup.outputs = {pieces};
        become(node, "Reshape", {pieces, shape}, {});
        added.push_back(std::move(lookup));
        ++done.embeddings;
      }
    }
  }
  graph.nodes.insert(graph.nodes.end(), added.begin(), added.end());
  graph.sort();
}

}  // namespace

OnnxRuntimeRewrite use_onnxruntime_kernels(Graph& graph, bool int8_activations) {
  OnnxRuntimeRewrite done;
  // Shapes are not inferred through what is no standard operator: what needs them goes first.
  rewrite_elementwise(graph, done);
  rewrite_products(graph, int8_activations, done);
  rewrite_attention(graph, done);
  remove_dead(graph);
  graph.opsets[kDomain] = 1;
  graph.validate();
  return done;
}

}  // namespace espalier
