#include "toy_model.h"

#include <ATen/core/Tensor.h>
#include <c10/core/GradMode.h>

#include <cmath>
#include <numeric>
#include <random>

#include "run/dataset.h"
#include "run/session.h"
#include "run/training.h"

namespace espalier::test {
namespace {

/// Adds nodes and random weights to a graph.
class Builder {
 public:
  Builder(Graph& graph, std::uint64_t seed) : graph_(graph), random_(seed) {}

  std::string weight(const std::string& name, std::vector<std::int64_t> shape, double deviation, double mean = 0) {
    std::int64_t count = std::accumulate(shape.begin(), shape.end(), std::int64_t{1}, std::multiplies<>());
    std::vector<float> values;
    for (std::int64_t i = 0; i < count; ++i)
      values.push_back(float(mean + deviation * (uniform() + uniform() + uniform() - 1.5) * 2));
    return constant(name, Tensor::of(DType::f32, std::move(shape), values));
  }
  std::string constant(const std::string& name, Tensor tensor) {
    graph_.initializers.emplace(name, std::move(tensor));
    return name;
  }
  std::string integers(const std::string& name, std::vector<std::int64_t> values) {
    const auto n = static_cast<std::int64_t>(values.size());
    return constant(name, Tensor::of(DType::i64, {n}, values));
  }
  std::string node(const std::string& op, const std::string& name, std::vector<std::string> inputs,
                   std::map<std::string, Attribute> attributes = {}, std::string output = {}) {
    if (output.empty()) output = name + "_output";
    graph_.nodes.push_back({op, "", name, std::move(inputs), {output}, std::move(attributes)});
    return output;
  }
  std::vector<std::string> nodes(const std::string& op, const std::string& name, std::vector<std::string> inputs,
                                 std::int64_t count, std::map<std::string, Attribute> attributes) {
    std::vector<std::string> outputs;
    for (std::int64_t i = 0; i < count; ++i) outputs.push_back(name + "_output_" + std::to_string(i));
    graph_.nodes.push_back({op, "", name, std::move(inputs), outputs, std::move(attributes)});
    return outputs;
  }

 private:
  double uniform() { return static_cast<double>(random_() >> 11) * 0x1p-53; }  // the same everywhere, unlike a distribution
  Graph& graph_;
  std::mt19937_64 random_;
};

using Ints = std::vector<std::int64_t>;

/// Each expert's gate: the chances of the best ones, over their sum.
std::vector<std::string> add_gates(Builder& b, const ToySize& z, const std::string& at, const std::string& logits) {
  const std::map<std::string, Attribute> last{{"axis", std::int64_t{-1}}};
  const auto chances = b.node("Softmax", at + "/Softmax", {logits}, last);
  const auto best = b.nodes("TopK", at + "/TopK", {chances, b.integers(at + "/used", {z.used})}, 2, last);
  const auto sum = b.node("ReduceSum", at + "/ReduceSum", {best[0], b.integers(at + "/axes", {-1})});
  const auto shares = b.node("Div", at + "/Div", {best[0], sum});
  const auto none =
      b.node("Mul", at + "/Mul", {chances, b.constant(at + "/zero", Tensor::of(DType::f32, {}, std::vector<float>{0}))});
  const auto gates = b.node("ScatterElements", at + "/ScatterElements", {none, best[1], shares}, last);
  return b.nodes("Split", at + "/Split", {gates}, z.experts, {{"axis", std::int64_t{-1}}, {"num_outputs", z.experts}});
}

void add_layer(Builder& b, const ToySize& z, std::int64_t layer, std::string& x, const std::string& mask) {
  const auto path = "model.layers." + std::to_string(layer), scope = "/model/layers." + std::to_string(layer);
  const double spread = 1 / std::sqrt(double(z.hidden));
  const auto norm = [&](const std::string& name) {
    const auto gain = b.weight(path + "." + name + ".weight", {z.hidden}, 0.1, 1);
    return b.node("RMSNormalization", scope + "/" + name + "/RMSNormalization", {x, gain},
                  {{"axis", std::int64_t{-1}}, {"epsilon", 1e-5}});
  };
  const auto linear = [&](const std::string& part, const std::string& name, const std::string& in, std::int64_t from,
                          std::int64_t to) {
    const auto w = b.weight(path + "." + part + "." + name + ".weight", {from, to}, spread);
    return b.node("MatMul", scope + "/" + part + "/" + name + "/MatMul", {in, w});
  };
  const auto rotate = [&](const std::string& in, const std::string& name, std::int64_t heads) {
    return b.node("RotaryEmbedding", scope + "/self_attn/" + name + "_rotary", {in, "rotary.cos", "rotary.sin", "position_ids"},
                  {{"num_heads", heads}});
  };
  auto h = norm("input_layernorm");
  const auto q = rotate(linear("self_attn", "q_proj", h, z.hidden, z.heads * z.head), "q", z.heads);
  const auto k = rotate(linear("self_attn", "k_proj", h, z.hidden, z.kv_heads * z.head), "k", z.kv_heads);
  const auto v = linear("self_attn", "v_proj", h, z.hidden, z.kv_heads * z.head);
  const auto a = b.node("Attention", scope + "/self_attn/Attention", {q, k, v, mask},
                        {{"q_num_heads", z.heads}, {"kv_num_heads", z.kv_heads}, {"is_causal", std::int64_t{1}}});
  x = b.node("Add", scope + "/Add", {x, linear("self_attn", "o_proj", a, z.heads * z.head, z.hidden)});
  h = norm("post_attention_layernorm");
  const auto feed_forward = [&](const std::string& part) {
    const auto gate = linear(part, "gate_proj", h, z.hidden, z.ffn);
    const auto up = linear(part, "up_proj", h, z.hidden, z.ffn);
    const auto silu =
        b.node("Mul", scope + "/" + part + "/act/Mul", {gate, b.node("Sigmoid", scope + "/" + part + "/act/Sigmoid", {gate})});
    const auto product = b.node("Mul", scope + "/" + part + "/Mul", {silu, up});
    return linear(part, "down_proj", product, z.ffn, z.hidden);
  };
  if (z.experts == 0) {
    x = b.node("Add", scope + "/Add_1", {x, feed_forward("mlp")});
    return;
  }
  const auto logits = linear("moe", "gate", h, z.hidden, z.experts);
  const auto gates = add_gates(b, z, scope + "/moe/gate", logits);
  std::string sum;
  for (std::int64_t e = 0; e < z.experts; ++e) {
    const auto expert = "moe/experts." + std::to_string(e);
    const auto share = b.node("Mul", scope + "/" + expert + "/share", {feed_forward(expert), gates[static_cast<std::size_t>(e)]});
    sum = sum.empty() ? share : b.node("Add", scope + "/" + expert + "/sum", {sum, share});
  }
  x = b.node("Add", scope + "/Add_1", {x, sum});
}

}  // namespace

std::string toy_tokenizer_digest() { return sha256("the toy tokenizer").hex(); }

Graph toy_language_model(const ToySize& z, std::uint64_t seed) {
  Graph graph;
  graph.metadata = {{"espalier.task", "causal-lm"}, {"espalier.tokenizer", toy_tokenizer_digest()}};
  const Shape tokens{Dim::symbol("batch"), Dim::symbol("sequence")};
  for (const auto* name : {"input_ids", "attention_mask", "position_ids"}) graph.inputs.push_back({name, DType::i64, tokens});
  graph.outputs.push_back({"logits", DType::f32, {tokens[0], tokens[1], z.vocabulary}});
  Builder b(graph, seed);
  std::vector<float> cos, sin;
  for (std::int64_t p = 0; p < z.positions; ++p) {
    for (std::int64_t i = 0; i < z.head / 2; ++i) {
      const double angle = double(p) * std::pow(10000.0, -2.0 * double(i) / double(z.head));
      cos.push_back(float(std::cos(angle)));
      sin.push_back(float(std::sin(angle)));
    }
  }
  b.constant("rotary.cos", Tensor::of(DType::f32, {z.positions, z.head / 2}, cos));
  b.constant("rotary.sin", Tensor::of(DType::f32, {z.positions, z.head / 2}, sin));
  const auto embedding = b.weight("model.embed_tokens.weight", {z.vocabulary, z.hidden}, 0.5);
  const auto keep = b.node("Cast", "/mask/Cast", {"attention_mask"}, {{"to", std::int64_t{9}}});
  const auto mask = b.node("Unsqueeze", "/mask/Unsqueeze", {keep, b.integers("mask_axes", {1, 2})});
  auto x = b.node("Gather", "/model/embed_tokens/Gather", {embedding, "input_ids"});
  for (std::int64_t layer = 0; layer < z.layers; ++layer) add_layer(b, z, layer, x, mask);
  x = b.node("RMSNormalization", "/model/norm/RMSNormalization", {x, b.weight("model.norm.weight", {z.hidden}, 0.1, 1)},
             {{"axis", std::int64_t{-1}}, {"epsilon", 1e-5}});
  const auto head = b.node("Transpose", "/lm_head/Transpose", {embedding}, {{"perm", Ints{1, 0}}});
  b.node("MatMul", "/lm_head/MatMul", {x, head}, {}, "logits");
  graph.validate();
  return graph;
}

Graph toy_residual_network(std::uint64_t seed) {
  Graph graph;
  graph.metadata = {{"espalier.task", "image-classification"}};
  graph.inputs.push_back({"image", DType::f32, {Dim::symbol("batch"), 3, 8, 8}});
  graph.outputs.push_back({"scores", DType::f32, {Dim::symbol("batch"), 10}});
  Builder b(graph, seed);
  const auto conv = [&](const std::string& name, const std::string& x, std::int64_t from, std::int64_t to) {
    const auto w = b.weight(name + ".weight", {to, from, 3, 3}, 1 / std::sqrt(9.0 * double(from)));
    const auto y = b.node("Conv", "/" + name + "/Conv", {x, w}, {{"kernel_shape", Ints{3, 3}}, {"pads", Ints{1, 1, 1, 1}}});
    const auto n = name + "_bn";
    return b.node("BatchNormalization", "/" + n + "/BatchNormalization",
                  {y, b.weight(n + ".weight", {to}, 0.1, 1), b.weight(n + ".bias", {to}, 0.1), b.weight(n + ".mean", {to}, 0.1),
                   b.weight(n + ".var", {to}, 0.05, 1)});
  };
  const auto relu = [&](const std::string& name, const std::string& x) { return b.node("Relu", name, {x}); };
  auto x = relu("/stem/Relu", conv("stem", "image", 3, 16));
  for (int block = 0; block < 2; ++block) {
    const auto name = "block." + std::to_string(block);
    const auto inner = relu("/" + name + "/Relu", conv(name + ".conv1", x, 16, 24));
    const auto sum = b.node("Add", "/" + name + "/Add", {conv(name + ".conv2", inner, 24, 16), x});
    x = relu("/" + name + "/Relu_1", sum);
  }
  x = b.node("Flatten", "/Flatten", {b.node("GlobalAveragePool", "/GlobalAveragePool", {x})});
  b.node("Gemm", "/head/Gemm", {x, b.weight("head.weight", {10, 16}, 0.25), b.weight("head.bias", {10}, 0.1)},
         {{"transB", std::int64_t{1}}}, "scores");
  graph.validate();
  return graph;
}

std::vector<std::int32_t> toy_tokens(std::int64_t count, std::int64_t vocabulary, double noise, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<std::int32_t> tokens;
  std::int64_t last = 1;
  for (std::int64_t i = 0; i < count; ++i) {
    const bool free = static_cast<double>(random() >> 11) * 0x1p-53 < noise;
    last = free ? static_cast<std::int64_t>(random() % std::uint64_t(vocabulary)) : (last * 5 + 3) % vocabulary;
    tokens.push_back(static_cast<std::int32_t>(last));
  }
  return tokens;
}

Artifact toy_dataset(TestContext& context, const std::vector<std::int32_t>& tokens, std::int64_t sequence) {
  Artifact data;
  data.type = ArtifactType::dataset;
  data.meta = {{"kind", "tokens"},
               {"sequence", sequence},
               {"count", static_cast<std::int64_t>(tokens.size()) / sequence},
               {"tokens", tokens.size()},
               {"tokenizer", toy_tokenizer_digest()}};
  data.blobs["tokens.i32"] = context.put(std::as_bytes(std::span(tokens)));
  return data;
}

Artifact toy_dataset(TestContext& context, std::int64_t windows, std::int64_t sequence, std::uint64_t seed) {
  return toy_dataset(context, toy_tokens(windows * sequence, ToySize{}.vocabulary, 0.15, seed), sequence);
}

double loss_of(const Graph& graph, const TestContext& context, const Artifact& data, bool exact) {
  c10::NoGradGuard no_gradients;
  Session session(graph, {exact ? DType::f64 : DType::f32});
  const TokenDataset windows(context, data);
  std::vector<std::int64_t> all(static_cast<std::size_t>(windows.count()));
  std::iota(all.begin(), all.end(), 0);
  const auto batch = windows.batch(all);
  return causal_cross_entropy(session.run(batch, {"logits"}).at("logits"), batch.at("input_ids")).item<double>();
}

}  // namespace espalier::test
