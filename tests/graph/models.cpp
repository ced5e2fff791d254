#include "models.h"

#include <cmath>

namespace espalier::test {

std::string ModelBuilder::add(const std::string& name, const std::string& op, std::vector<std::string> inputs,
                              std::map<std::string, Attribute> attributes) {
  return add_many(name, op, std::move(inputs), 1, std::move(attributes))[0];
}

std::vector<std::string> ModelBuilder::add_many(const std::string& name, const std::string& op, std::vector<std::string> inputs,
                                                std::size_t outputs, std::map<std::string, Attribute> attributes) {
  Node node;
  node.op = op;
  node.name = name;
  node.inputs = std::move(inputs);
  node.attributes = std::move(attributes);
  for (std::size_t i = 0; i < outputs; ++i) node.outputs.push_back(name + "_output_" + std::to_string(i));
  graph.nodes.push_back(node);
  return node.outputs;
}

std::string ModelBuilder::weight(const std::string& name, std::vector<std::int64_t> shape, double deviation, double mean) {
  std::int64_t count = 1;
  for (auto length : shape) count *= length;
  std::normal_distribution<double> normal(mean, deviation);
  std::vector<float> values;
  for (std::int64_t i = 0; i < count; ++i) values.push_back(static_cast<float>(normal(random_)));
  return numbers(name, std::move(shape), std::move(values));
}

std::string ModelBuilder::numbers(const std::string& name, std::vector<std::int64_t> shape, std::vector<float> values) {
  graph.initializers[name] = Tensor::of<float>(DType::f32, std::move(shape), values);
  return name;
}

std::string ModelBuilder::integers(const std::string& name, std::vector<std::int64_t> values) {
  const auto count = static_cast<std::int64_t>(values.size());
  graph.initializers[name] = Tensor::of<std::int64_t>(DType::i64, {count}, values);
  return name;
}

namespace {

void rotary_tables(ModelBuilder& b, const LanguageModelShape& s) {
  std::vector<float> cos, sin;
  const auto half = s.head_size / 2;
  for (std::int64_t p = 0; p < s.positions; ++p)
    for (std::int64_t i = 0; i < half; ++i) {
      const double angle = static_cast<double>(p) * std::pow(10000.0, -static_cast<double>(i) / static_cast<double>(half));
      cos.push_back(static_cast<float>(std::cos(angle)));
      sin.push_back(static_cast<float>(std::sin(angle)));
    }
  b.numbers("rotary.cos", {s.positions, half}, cos);
  b.numbers("rotary.sin", {s.positions, half}, sin);
}

/// attention_mask [batch, sequence] → [batch, 1, sequence, sequence]; not every runtime broadcasts over queries.
std::string attention_mask(ModelBuilder& b) {
  const auto flags = b.add("/mask/Cast", "Cast", {"attention_mask"}, {{"to", std::int64_t{9}}});
  const auto keys = b.add("/mask/Unsqueeze", "Unsqueeze", {flags, b.integers("mask.axes", {1, 2})});
  const auto length = b.add("/mask/Shape", "Shape", {"input_ids"}, {{"start", std::int64_t{1}}, {"end", std::int64_t{2}}});
  const auto one = b.integers("mask.one", {1});
  const auto shape = b.add("/mask/Concat", "Concat", {one, one, length, one}, {{"axis", std::int64_t{0}}});
  return b.add("/mask/Expand", "Expand", {keys, shape});
}

std::string linear(ModelBuilder& b, const std::string& scope, const std::string& x, std::int64_t in, std::int64_t out) {
  std::string name = scope.substr(1);
  for (auto& c : name)
    if (c == '/') c = '.';
  return b.add(scope + "/MatMul", "MatMul", {x, b.weight(name + ".weight", {in, out}, 1.0 / std::sqrt(static_cast<double>(in)))});
}

std::string norm(ModelBuilder& b, const std::string& scope, const std::string& x, std::int64_t hidden) {
  std::string name = scope.substr(1);
  for (auto& c : name)
    if (c == '/') c = '.';
  return b.add(scope, "RMSNormalization", {x, b.weight(name + ".weight", {hidden}, 0.2, 1.0)},
               {{"axis", std::int64_t{-1}}, {"epsilon", 1e-5}});
}

}  // namespace

Graph language_model(std::uint64_t seed, const LanguageModelShape& s) {
  ModelBuilder b("language_model", seed);
  const Dim batch = Dim::symbol("batch"), sequence = Dim::symbol("sequence");
  for (const auto* name : {"input_ids", "attention_mask", "position_ids"})
    b.graph.inputs.push_back({name, DType::i64, {batch, sequence}});
  b.graph.metadata["espalier.task"] = "causal-lm";
  b.weight("model.embed_tokens.weight", {s.vocabulary, s.hidden}, 1.0);
  rotary_tables(b, s);
  const auto mask = attention_mask(b);
  auto x = b.add("/model/embed_tokens/Gather", "Gather", {"model.embed_tokens.weight", "input_ids"});
  for (std::size_t n = 0; n < s.widths.size(); ++n) {
    const auto layer = "/model/layers." + std::to_string(n);
    const auto kv = s.kv_heads[n];
    const auto rotate = [&](const std::string& part, const std::string& value, std::int64_t heads) {
      return b.add(layer + "/self_attn/" + part + "_rotary", "RotaryEmbedding", {value, "rotary.cos", "rotary.sin", "position_ids"},
                   {{"num_heads", heads}});
    };
    const auto h = norm(b, layer + "/input_layernorm", x, s.hidden);
    const auto q = rotate("q", linear(b, layer + "/self_attn/q_proj", h, s.hidden, s.heads * s.head_size), s.heads);
    const auto k = rotate("k", linear(b, layer + "/self_attn/k_proj", h, s.hidden, kv * s.head_size), kv);
    const auto v = linear(b, layer + "/self_attn/v_proj", h, s.hidden, kv * s.head_size);
    const auto attention = b.add(layer + "/self_attn/Attention", "Attention", {q, k, v, mask},
                                 {{"q_num_heads", s.heads}, {"kv_num_heads", kv}, {"is_causal", std::int64_t{1}}});
    x = b.add(layer + "/self_attn/Add", "Add",
              {x, linear(b, layer + "/self_attn/o_proj", attention, s.heads * s.head_size, s.hidden)});
    const auto f = norm(b, layer + "/post_attention_layernorm", x, s.hidden);
    const auto gate = linear(b, layer + "/mlp/gate_proj", f, s.hidden, s.widths[n]);
    const auto up = linear(b, layer + "/mlp/up_proj", f, s.hidden, s.widths[n]);
    const auto silu = b.add(layer + "/mlp/act/Mul", "Mul", {gate, b.add(layer + "/mlp/act/Sigmoid", "Sigmoid", {gate})});
    const auto product = b.add(layer + "/mlp/Mul", "Mul", {silu, up});
    x = b.add(layer + "/mlp/Add", "Add", {x, linear(b, layer + "/mlp/down_proj", product, s.widths[n], s.hidden)});
  }
  x = norm(b, "/model/norm", x, s.hidden);
  const auto head =
      b.add("/lm_head/Transpose", "Transpose", {"model.embed_tokens.weight"}, {{"perm", std::vector<std::int64_t>{1, 0}}});
  b.add("/lm_head/MatMul", "MatMul", {x, head});
  b.graph.nodes.back().outputs[0] = "logits";
  b.graph.outputs.push_back({"logits", DType::f32, {batch, sequence, s.vocabulary}});
  return b.graph;
}

namespace {

/// Conv, BatchNormalization and, if asked, Relu.
class CnnBuilder : public ModelBuilder {
 public:
  using ModelBuilder::ModelBuilder;

  std::string conv(const std::string& name, const std::string& x, std::int64_t in, std::int64_t out, std::int64_t kernel,
                   std::int64_t group = 1, bool relu = true) {
    const double fan_in = static_cast<double>(in / group * kernel * kernel);
    const auto pad = kernel / 2;
    const auto y =
        add(name + "/Conv", "Conv", {x, weight(name + ".weight", {out, in / group, kernel, kernel}, std::sqrt(2.0 / fan_in))},
            {{"kernel_shape", std::vector<std::int64_t>{kernel, kernel}},
             {"pads", std::vector<std::int64_t>{pad, pad, pad, pad}},
             {"group", group}});
    const auto row = [&](const char* what, double deviation, double mean) {
      return weight(name + ".norm." + what, {out}, deviation, mean);
    };
    std::vector<float> variance;
    std::uniform_real_distribution<float> positive(0.5F, 1.5F);
    for (std::int64_t i = 0; i < out; ++i) variance.push_back(positive(random()));
    const auto z = add(name + "/BatchNormalization", "BatchNormalization",
                       {y, row("weight", 0.2, 1.0), row("bias", 0.2, 0.0), row("mean", 0.2, 0.0),
                        numbers(name + ".norm.variance", {out}, variance)},
                       {{"epsilon", 1e-5}});
    return relu ? add(name + "/Relu", "Relu", {z}) : z;
  }

  std::string gemm(const std::string& name, const std::string& x, std::int64_t in, std::int64_t out) {
    return add(
        name + "/Gemm", "Gemm",
        {x, weight(name + ".weight", {out, in}, 1.0 / std::sqrt(static_cast<double>(in))), weight(name + ".bias", {out}, 0.2)},
        {{"transB", std::int64_t{1}}});
  }
};

}  // namespace

Graph residual_cnn(std::uint64_t seed) {
  CnnBuilder b("residual_cnn", seed);
  const Dim batch = Dim::symbol("batch");
  b.graph.inputs.push_back({"image", DType::f32, {batch, 3, 16, 16}});
  b.graph.metadata["espalier.task"] = "image-classification";
  auto x = b.conv("stem", "image", 3, 16, 3);

  auto y = b.conv("block1.conv2", b.conv("block1.conv1", x, 16, 24, 3), 24, 16, 3, 1, false);
  x = b.add("block1/Relu", "Relu", {b.add("block1/Add", "Add", {x, y})});
  x = b.add("pool/MaxPool", "MaxPool", {x},
            {{"kernel_shape", std::vector<std::int64_t>{2, 2}}, {"strides", std::vector<std::int64_t>{2, 2}}});

  y = b.conv("block2.expand", x, 16, 32, 1);
  y = b.conv("block2.depthwise", y, 32, 32, 3, 32);
  y = b.conv("block2.project", y, 32, 16, 1, 1, false);
  x = b.add("block2/Add", "Add", {x, y});

  y = b.conv("block3.grouped", b.conv("block3.reduce", x, 16, 24, 1), 24, 32, 3, 4);
  x = b.add("block3/Add", "Add", {x, b.conv("block3.project", y, 32, 16, 1, 1, false)});

  const auto left = b.conv("branch.left", x, 16, 8, 1), right = b.conv("branch.right", x, 16, 12, 3);
  const auto smooth = b.add("branch/AveragePool", "AveragePool", {right},
                            {{"kernel_shape", std::vector<std::int64_t>{3, 3}}, {"pads", std::vector<std::int64_t>{1, 1, 1, 1}}});
  x = b.conv("branch.join", b.add("branch/Concat", "Concat", {left, smooth}, {{"axis", std::int64_t{1}}}), 20, 24, 3);

  const auto parts = b.add_many("gate/Split", "Split", {x}, 2, {{"axis", std::int64_t{1}}, {"num_outputs", std::int64_t{2}}});
  const auto gated = b.add("gate/Mul", "Mul", {parts[0], b.add("gate/HardSigmoid", "HardSigmoid", {parts[1]})});
  x = b.conv("gate.out", gated, 12, 20, 1);

  x = b.add("head/Flatten", "Flatten", {b.add("head/GlobalAveragePool", "GlobalAveragePool", {x})});
  x = b.add("head/Relu", "Relu", {b.gemm("head.hidden", x, 20, 32)});
  b.gemm("head.out", x, 32, 10);
  b.graph.nodes.back().outputs[0] = "logits";
  b.graph.outputs.push_back({"logits", DType::f32, {batch, 10}});
  return b.graph;
}

}  // namespace espalier::test
