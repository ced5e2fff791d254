#include "models.h"

#include <fmt/format.h>

#include <cmath>
#include <numbers>

namespace espalier::test {
namespace {

double uniform(std::uint64_t& state) {
  std::uint64_t z = state += 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return (static_cast<double>((z ^ (z >> 31)) >> 11) + 0.5) * 0x1.0p-53;
}

/// Adds nodes one after the other; each returns the name of its output.
struct Builder {
  Graph graph;
  std::uint64_t seed;

  std::string add(const std::string& op, std::vector<std::string> inputs, const std::string& name,
                  std::map<std::string, Attribute> attributes = {}) {
    graph.nodes.push_back({op, "", "/" + name, std::move(inputs), {name + ".out"}, std::move(attributes)});
    return name + ".out";
  }
  std::string weight(const std::string& name, std::vector<std::int64_t> shape, double deviation) {
    graph.initializers[name] = normal(std::move(shape), deviation, seed);
    return name;
  }
  std::string filled(const std::string& name, std::int64_t count, float value) {
    graph.initializers[name] = Tensor::of<float>(DType::f32, {count}, std::vector<float>(static_cast<std::size_t>(count), value));
    return name;
  }
  std::string linear(const std::string& x, const std::string& scope, std::int64_t in, std::int64_t out) {
    return add("MatMul", {x, weight(scope + ".weight", {in, out}, 1 / std::sqrt(static_cast<double>(in)))}, scope);
  }
  std::string norm(const std::string& x, const std::string& scope, std::int64_t width) {
    return add("RMSNormalization", {x, filled(scope + ".weight", width, 1)}, scope,
               {{"axis", std::int64_t{-1}}, {"epsilon", 1e-5}});
  }
};

void rotary(Graph& graph, std::int64_t positions, std::int64_t half) {
  std::vector<float> cos, sin;
  for (std::int64_t p = 0; p < positions; ++p)
    for (std::int64_t i = 0; i < half; ++i) {
      const double angle = static_cast<double>(p) * std::pow(10000.0, -static_cast<double>(i) / static_cast<double>(half));
      cos.push_back(static_cast<float>(std::cos(angle)));
      sin.push_back(static_cast<float>(std::sin(angle)));
    }
  graph.initializers["rotary.cos"] = Tensor::of(DType::f32, {positions, half}, cos);
  graph.initializers["rotary.sin"] = Tensor::of(DType::f32, {positions, half}, sin);
}

}  // namespace

Tensor normal(std::vector<std::int64_t> shape, double deviation, std::uint64_t& seed) {
  std::int64_t count = 1;
  for (std::int64_t length : shape) count *= length;
  std::vector<float> values(static_cast<std::size_t>(count));
  for (float& value : values)  // Box and Muller, 1958
    value =
        static_cast<float>(deviation * std::sqrt(-2 * std::log(uniform(seed))) * std::cos(2 * std::numbers::pi * uniform(seed)));
  return Tensor::of(DType::f32, std::move(shape), values);
}

Graph tiny_language_model(const LanguageModelShape& s, std::uint64_t seed) {
  Builder b{{}, seed};
  Graph& g = b.graph;
  g.metadata["espalier.task"] = "causal-lm";
  const Dim batch = Dim::symbol("batch"), sequence = Dim::symbol("sequence");
  for (const char* name : {"input_ids", "attention_mask", "position_ids"})
    g.inputs.push_back({name, DType::i64, {batch, sequence}});
  const std::int64_t size = s.width / s.heads;
  rotary(g, s.positions, size / 2);
  g.initializers["mask.axes"] = Tensor::of<std::int64_t>(DType::i64, {2}, {1, 2});
  const std::string embed = b.weight("model.embed_tokens.weight", {s.vocabulary, s.width}, 0.5);
  const std::string flags = b.add("Cast", {"attention_mask"}, "mask.cast", {{"to", std::int64_t{9}}});
  const std::string mask = b.add("Unsqueeze", {flags, "mask.axes"}, "mask");
  std::string x = b.add("Gather", {embed, "input_ids"}, "model.embed_tokens");
  for (std::int64_t layer = 0; layer < s.layers; ++layer) {
    const std::string scope = fmt::format("model.layers.{}.", layer), attention = scope + "self_attn.", mlp = scope + "mlp.";
    const std::string n = b.norm(x, scope + "input_layernorm", s.width);
    const auto turn = [&](const std::string& value, const char* name, std::int64_t heads) {
      return b.add("RotaryEmbedding", {value, "rotary.cos", "rotary.sin", "position_ids"}, attention + name,
                   {{"num_heads", heads}});
    };
    const std::string q = turn(b.linear(n, attention + "q_proj", s.width, s.heads * size), "q_rotary", s.heads);
    const std::string k = turn(b.linear(n, attention + "k_proj", s.width, s.kv_heads * size), "k_rotary", s.kv_heads);
    const std::string v = b.linear(n, attention + "v_proj", s.width, s.kv_heads * size);
    const std::string a = b.add("Attention", {q, k, v, mask}, attention + "attention",
                                {{"q_num_heads", s.heads}, {"kv_num_heads", s.kv_heads}, {"is_causal", std::int64_t{1}}});
    x = b.add("Add", {x, b.linear(a, attention + "o_proj", s.heads * size, s.width)}, scope + "add_1");
    const std::string m = b.norm(x, scope + "post_attention_layernorm", s.width);
    const std::string gate = b.linear(m, mlp + "gate_proj", s.width, s.hidden),
                      up = b.linear(m, mlp + "up_proj", s.width, s.hidden);
    const std::string silu = b.add("Mul", {gate, b.add("Sigmoid", {gate}, mlp + "sigmoid")}, mlp + "silu");
    x = b.add("Add", {x, b.linear(b.add("Mul", {silu, up}, mlp + "product"), mlp + "down_proj", s.hidden, s.width)},
              scope + "add_2");
  }
  x = b.norm(x, "model.norm", s.width);
  const std::string head = b.add("Transpose", {embed}, "lm_head.transpose", {{"perm", std::vector<std::int64_t>{1, 0}}});
  g.nodes.push_back({"MatMul", "", "/lm_head", {x, head}, {"logits"}, {}});
  g.outputs = {{"logits", DType::f32, {batch, sequence, s.vocabulary}}};
  g.validate();
  return g;
}

Graph residual_network(std::int64_t channels, std::uint64_t seed) {
  Builder b{{}, seed};
  Graph& g = b.graph;
  g.inputs = {{"image", DType::f32, {Dim::symbol("n"), 1, 12, 12}}};
  using List = std::vector<std::int64_t>;
  const auto conv = [&](const std::string& x, const std::string& name, std::int64_t in, std::int64_t out, std::int64_t kernel,
                        std::int64_t group) {
    const double deviation = std::sqrt(2.0 / static_cast<double>(in / group * kernel * kernel));
    const std::string y = b.add("Conv", {x, b.weight(name + ".weight", {out, in / group, kernel, kernel}, deviation)}, name,
                                {{"pads", List(4, kernel / 2)}, {"group", group}});
    const std::string n = name + ".norm";
    return b.add("BatchNormalization",
                 {y, b.filled(n + ".scale", out, 1), b.filled(n + ".bias", out, 0), b.filled(n + ".mean", out, 0),
                  b.filled(n + ".var", out, 1)},
                 n);
  };
  const std::string stem = b.add("Relu", {conv("image", "stem", 1, channels, 3, 1)}, "stem.relu");
  const std::string wide = b.add("Relu", {conv(stem, "block.expand", channels, channels, 1, 1)}, "block.relu");
  const std::string deep = conv(wide, "block.depthwise", channels, channels, 3, channels);
  const std::string sum = b.add("Relu", {b.add("Add", {stem, deep}, "block.add")}, "block.out");
  const std::string pooled = b.add("MaxPool", {sum}, "pool", {{"kernel_shape", List{2, 2}}, {"strides", List{2, 2}}});
  const std::string side = b.add("Relu", {conv(pooled, "side", channels, channels, 3, 1)}, "side.relu");
  const std::string both = b.add("Concat", {pooled, side}, "concat", {{"axis", std::int64_t{1}}});
  const std::string flat = b.add("Flatten", {b.add("GlobalAveragePool", {both}, "gap")}, "flatten");
  b.weight("classifier.weight", {2 * channels, 4}, 0.2);
  g.nodes.push_back({"Gemm", "", "/classifier", {flat, "classifier.weight", b.filled("classifier.bias", 4, 0)}, {"scores"}, {}});
  g.outputs = {{"scores", DType::f32, {Dim::symbol("n"), 4}}};
  g.validate();
  return g;
}

}  // namespace espalier::test
