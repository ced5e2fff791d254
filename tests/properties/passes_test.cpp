// Every pass changes a graph that it is for, leaves alone one that only looks like it, and keeps what both compute.
#include <ATen/ops/randn.h>

#include <algorithm>
#include <catch2/catch_test_macros.hpp>

#include "../graph/models.h"
#include "graph/op.h"
#include "graph/passes.h"
#include "running.h"
#include "sketch.h"

using namespace espalier;
using namespace espalier::test;

TEST_CASE("rms-norm fuses the chain in its spellings and no other chain") {
  for (const bool reciprocal : {false, true}) {
    Sketch s;
    const auto x = s.input("x", {2, 3, 8});
    const auto root = s.mean_of_squares_root(x);
    const auto normal = reciprocal ? s.op("Mul", {x, s.op("Reciprocal", {root})}) : s.op("Div", {x, root});
    auto graph = s.done({s.op("Mul", {normal, s.row(8, 1)})});
    CHECK(apply("rms-norm", graph) == 1);
    CHECK(graph.nodes.size() == 1);
    CHECK(count(graph, "RMSNormalization") == 1);
  }
  {
    Sketch s;  // over another axis
    const auto x = s.input("x", {2, 3, 8});
    auto graph = s.done({s.op("Mul", {s.op("Div", {x, s.mean_of_squares_root(x, 1)}), s.row(8, 1)})});
    CHECK(apply("rms-norm", graph) == 0);
  }
  {
    Sketch s;  // another value is divided
    const auto x = s.input("x", {2, 3, 8}), y = s.input("y", {2, 3, 8});
    auto graph = s.done({s.op("Mul", {s.op("Div", {y, s.mean_of_squares_root(x)}), s.row(8, 1)})});
    CHECK(apply("rms-norm", graph) == 0);
  }
}

TEST_CASE("layer-norm fuses the chain with and without bias") {
  for (const bool bias : {true, false}) {
    Sketch s;
    const auto c = s.centred(s.input("x", {2, 3, 8}));
    const auto scaled = s.op("Mul", {s.op("Div", {c, s.mean_of_squares_root(c)}), s.row(8, 1)});
    auto graph = s.done({bias ? s.op("Add", {scaled, s.row(8)}) : scaled});
    CHECK(apply("layer-norm", graph) == 1);
    CHECK(graph.nodes.size() == 1);
    CHECK(graph.nodes[0].inputs.size() == (bias ? 3 : 2));
  }
  Sketch s;  // not centred: that is an RMS norm
  const auto x = s.input("x", {2, 3, 8});
  auto graph = s.done({s.op("Add", {s.op("Mul", {s.op("Div", {x, s.mean_of_squares_root(x)}), s.row(8, 1)}), s.row(8)})});
  CHECK(apply("layer-norm", graph) == 0);
}

namespace {

Graph rotary(bool same_halves) {
  Sketch s;
  const auto x = s.input("x", {2, 3, 5, 8}), angles = s.input("angles", {2, 5, 4}), others = s.input("others", {2, 5, 4});
  const auto both = s.op("Concat", {angles, same_halves ? angles : others}, {{"axis", std::int64_t{-1}}});
  const auto cos = s.op("Unsqueeze", {s.op("Cos", {both}), s.list({1})}),
             sin = s.op("Unsqueeze", {s.op("Sin", {both}), s.list({1})});
  return s.done({s.op("Add", {s.op("Mul", {x, cos}), s.op("Mul", {s.rotate_half(x, 8), sin})})});
}

/// Grouped queries spelt out: keys and values repeated, scores scaled, masked.
Graph attention(bool softmax_over_keys, bool with_mask) {
  Sketch s;
  const auto q = s.input("q", {2, 5, 24}), k = s.input("k", {2, 5, 8}), v = s.input("v", {2, 5, 8});
  const auto heads = [&](const std::string& x, std::int64_t n) {
    return s.transposed(s.op("Reshape", {x, s.list({2, 5, n, 4})}), {0, 2, 1, 3});
  };
  const auto repeated = [&](const std::string& x) {
    const auto wide = s.op("Expand", {s.op("Unsqueeze", {x, s.list({2})}), s.list({2, 2, 3, 5, 4})});
    return s.op("Reshape", {wide, s.list({2, 6, 5, 4})});
  };
  const auto keys = s.transposed(repeated(heads(k, 2)), {0, 1, 3, 2});
  auto scores = s.op("Div", {s.op("MatMul", {heads(q, 6), keys}), s.scalar(2)});
  if (with_mask) scores = s.op("Add", {scores, s.input("mask", {2, 1, 5, 5})});
  const auto weights = s.op("Softmax", {scores}, {{"axis", std::int64_t{softmax_over_keys ? -1 : 1}}});
  const auto y = s.transposed(s.op("MatMul", {weights, repeated(heads(v, 2))}), {0, 2, 1, 3});
  return s.done({s.op("Reshape", {y, s.list({2, 5, 24})})});
}

}  // namespace

TEST_CASE("rotary-embedding fuses rotate-half only where both halves turn by the same angles") {
  auto graph = rotary(true);
  CHECK(apply("rotary-embedding", graph) == 1);
  CHECK(count(graph, "RotaryEmbedding") == 1);
  CHECK(count(graph, "Neg") == 0);
  auto other = rotary(false);
  CHECK(apply("rotary-embedding", other) == 0);
}

TEST_CASE("attention is fused with its groups, scale and mask") {
  for (const bool mask : {false, true}) {
    auto graph = attention(true, mask);
    CHECK(apply("attention", graph) == 1);
    CHECK(count(graph, "Attention") == 1);
    CHECK(count(graph, "Softmax") == 0);
    CHECK(count(graph, "Expand") == 0);
    auto other = attention(false, mask);
    CHECK(apply("attention", other) == 0);
  }
}

namespace {

/// Attention on [batch, heads, positions, size], split and joined around it; rotary embeddings on the way.
Graph split_attention(bool plain_join) {
  Sketch s;
  const auto q = s.input("q", {2, 5, 24}), k = s.input("k", {2, 5, 8}), v = s.input("v", {2, 5, 8});
  const auto cos = s.input("cos", {2, 5, 2}), sin = s.input("sin", {2, 5, 2});
  const auto heads = [&](const std::string& x, std::int64_t n) {
    return s.transposed(s.op("Reshape", {x, s.list({2, 5, n, 4})}), {0, 2, 1, 3});
  };
  const auto turn = [&](const std::string& x) { return s.op("RotaryEmbedding", {x, cos, sin}); };
  const auto y = s.op("Attention", {turn(heads(q, 6)), turn(heads(k, 2)), heads(v, 2)}, {{"is_causal", std::int64_t{1}}});
  return s.done({s.op("Reshape", {plain_join ? s.transposed(y, {0, 2, 1, 3}) : y, s.list({2, 5, 24})})});
}

}  // namespace

TEST_CASE("attention-layout takes in the nodes that split and join heads, not what only looks so") {
  auto graph = split_attention(true);
  CHECK(apply("attention-layout", graph) == 1);
  CHECK(graph.nodes.size() == 3);
  CHECK(count(graph, "RotaryEmbedding") == 2);
  auto other = split_attention(false);  // heads and positions are mixed up
  CHECK(apply("attention-layout", other) == 0);
}

TEST_CASE("batch-norm folds into the convolution before it, unless somebody else reads that") {
  for (const bool shared : {false, true}) {
    Sketch s;
    const auto y = s.op("Conv", {s.input("x", {2, 3, 8, 8}), s.weight("w", {4, 3, 3, 3}, 0.3), s.row(4)});
    std::vector<float> variance{0.5F, 1.0F, 1.5F, 2.0F};
    const auto z = s.op("BatchNormalization", {y, s.row(4, 1), s.row(4), s.row(4), s.numbers("variance", {4}, variance)});
    auto graph = s.done(shared ? std::vector<std::string>{z, s.op("Relu", {y})} : std::vector<std::string>{z});
    CHECK(apply("batch-norm", graph) == (shared ? 0 : 1));
    CHECK(count(graph, "BatchNormalization") == (shared ? 1 : 0));
  }
}

TEST_CASE("gemm takes matrix products of rank 2 only") {
  for (const bool matrix : {true, false}) {
    Sketch s;
    const auto x = s.input("x", matrix ? Ints{3, 4} : Ints{2, 3, 4});
    auto graph = s.done({s.op("Add", {s.row(5), s.op("MatMul", {x, s.weight("w", {4, 5}, 0.5)})})});
    CHECK(apply("gemm", graph) == (matrix ? 1 : 0));
    CHECK(count(graph, "Gemm") == (matrix ? 1 : 0));
  }
}

TEST_CASE("transposes are merged with their neighbours") {
  Sketch s;
  const auto x = s.input("x", {2, 3, 4});
  auto graph = s.done({s.transposed(s.transposed(s.transposed(x, {1, 2, 0}), {1, 2, 0}), {0, 2, 1})});
  CHECK(apply("transposes", graph) > 0);
  CHECK(graph.nodes.size() == 1);
  Sketch t;
  auto other = t.done({t.transposed(t.op("Relu", {t.transposed(t.input("x", {2, 3, 4}), {1, 2, 0})}), {1, 2, 0})});
  CHECK(apply("transposes", other) == 0);
}

TEST_CASE("layout lets nodes between transposes work in the layout around them") {
  {
    Sketch s;  // as exporters of channels-last networks write it, with a branch, a softmax, a mean and constants of lower rank
    const auto x = s.input("x", {2, 6, 5, 4}), y = s.input("y", {2, 6, 5, 4});
    const auto a = s.transposed(x, {0, 2, 3, 1}), b = s.transposed(y, {0, 2, 3, 1});
    const auto sum = s.op("Add", {s.op("Relu", {a}), s.op("Mul", {b, s.row(6)})});
    const auto likely = s.op("Softmax", {sum}, {{"axis", std::int64_t{-1}}});
    const auto centred = s.op("Sub", {sum, s.op("ReduceMean", {sum, s.list({1, -1})})});
    const auto both = s.op("Concat", {likely, centred}, {{"axis", std::int64_t{3}}});
    const auto scaled = s.op("Clip", {s.op("Mul", {both, s.weight("field", {5, 1, 12}, 0.5)}), s.scalar(-1), s.scalar(1)});
    auto graph = s.done({s.transposed(scaled, {0, 3, 1, 2})});
    CHECK(apply("layout", graph) == 3);
    CHECK(count(graph, "Transpose") == 0);
    CHECK(graph.initializers.size() == 5);
  }
  {
    Sketch s;  // one that stays: somebody else reads the middle, yet two go
    const auto x = s.input("x", {2, 6, 5});
    const auto middle = s.op("Sigmoid", {s.op("Relu", {s.transposed(x, {0, 2, 1})})});
    auto graph = s.done({s.transposed(s.op("Exp", {middle}), {0, 2, 1}), s.op("MatMul", {middle, s.weight("w", {6, 4}, 0.5)})});
    CHECK(apply("layout", graph) == 1);
    CHECK(count(graph, "Transpose") == 1);
  }
  {
    Sketch s;  // nothing to win: the result is wanted in the new order, or a second order comes in
    const auto x = s.input("x", {2, 3, 4}), y = s.input("y", {4, 2, 3});
    auto graph = s.done({s.op("Relu", {s.transposed(x, {2, 0, 1})}), s.op("Add", {s.transposed(x, {2, 0, 1}), y})});
    CHECK(apply("layout", graph) == 0);
    Sketch t;  // Flatten cares for the order of axes
    auto other = t.done({t.transposed(t.op("Flatten", {t.transposed(t.input("x", {4, 3}), {1, 0})}), {1, 0})});
    CHECK(apply("layout", other) == 0);
  }
}

TEST_CASE("no-ops go, and what changes something stays") {
  Sketch s;
  auto x = s.op("Identity", {s.input("x", {2, 3, 4})});
  x = s.op("Dropout", {x});
  x = s.op("Cast", {x}, {{"to", std::int64_t{1}}});
  x = s.op("Reshape", {x, s.list({2, 3, 4})});
  x = s.op("Transpose", {x}, {{"perm", Ints{0, 1, 2}}});
  x = s.op("Add", {x, s.scalar(0)});
  x = s.op("Div", {s.op("Mul", {s.scalar(1), x}), s.scalar(1)});
  x = s.op("Relu", {x});
  auto graph = s.done({s.op("Identity", {x})});
  // Dropout is not in the operator table yet; it is put through without its random half.
  std::erase_if(graph.nodes, [](const Node& node) { return node.op == "Dropout"; });
  for (auto& node : graph.nodes)
    for (auto& input : node.inputs)
      if (input.starts_with("/Dropout")) input = "/Identity_0_output_0";
  CHECK(apply("no-ops", graph) >= 8);
  CHECK(graph.nodes.size() == 1);
  CHECK(graph.outputs[0].name == graph.nodes[0].outputs[0]);

  Sketch t;
  const auto y = t.input("x", {2, 3, 4});
  auto other =
      t.done({t.op("Sub", {t.scalar(0), y}), t.op("Div", {t.scalar(1), y}), t.op("Reshape", {y, t.list({3, 2, 4})}),
              t.op("Add", {t.input("narrow", {4}), t.numbers("zeros", {3, 4}, std::vector<float>(12, 0))}), t.op("Identity", {y})});
  CHECK(apply("no-ops", other) == 0);
}

TEST_CASE("common subexpressions are computed once, different ones twice") {
  Sketch s;
  const auto x = s.input("x", {2, 4});
  std::vector<float> values(4 * 1024);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i % 13) / 13.0F;
  const auto a = s.op("MatMul", {x, s.numbers("w1", {4, 1024}, values)}),
             b = s.op("MatMul", {x, s.numbers("w2", {4, 1024}, values)});
  auto graph = s.done({s.op("Add", {s.op("Relu", {a}), s.op("Relu", {b})})});
  CHECK(apply("common-subexpressions", graph) >= 2);
  CHECK(count(graph, "MatMul") == 1);
  CHECK(count(graph, "Relu") == 1);
  CHECK(graph.initializers.size() == 1);

  Sketch t;  // other attributes; gains that happen to be equal are different parameters
  const auto y = t.input("x", {2, 4});
  const std::vector<float> ones(4, 1.0F);
  auto other = t.done({t.op("Softmax", {y}, {{"axis", std::int64_t{0}}}), t.op("Softmax", {y}, {{"axis", std::int64_t{1}}}),
                       t.op("Mul", {y, t.numbers("gain1", {4}, ones)}), t.op("Mul", {y, t.numbers("gain2", {4}, ones)})});
  CHECK(apply("common-subexpressions", other) == 0);
}

TEST_CASE("constants are folded, weights are not") {
  Sketch s;
  const auto x = s.input("x", {2, 3, 4});
  const auto shape =
      s.op("Concat", {s.op("Slice", {s.op("Shape", {x}), s.list({0}), s.list({1})}), s.list({12})}, {{"axis", std::int64_t{0}}});
  const auto c = s.weight("c", {3, 4}, 1.0);
  auto folded = s.op("Mul", {s.op("Sqrt", {s.op("Abs", {c})}), s.op("Add", {s.scalar(2), s.row(4)})});
  folded = s.op("Reshape", {s.transposed(folded, {1, 0}), s.list({1, 12})});
  folded =
      s.op("Gather", {s.op("Concat", {folded, s.op("Neg", {folded})}, {{"axis", std::int64_t{0}}}), s.numbers("unused", {}, {0})});
  s.graph.nodes.back().inputs[1] = s.list({1, 0});
  folded = s.op("Slice", {folded, s.list({-1}), s.list({-100}), s.list({1}), s.list({-1})});
  auto graph = s.done({s.op("Add", {s.op("Reshape", {x, shape}), s.op("Unsqueeze", {folded, s.list({0})})})});
  CHECK(apply("constant-folding", graph) > 5);
  CHECK(graph.nodes.size() == 2);

  Sketch t;
  const auto table = t.weight("table", {6, 4}, 1.0);
  t.graph.initializers["w.q"] = Tensor::of<std::int8_t>(DType::i8, {4, 2}, {1, -2, 3, 4, 5, -6, 7, 8});
  const auto w = t.op("DequantizeLinear", {"w.q", t.numbers("w.scale", {2}, {0.5F, 0.25F})}, {{"axis", std::int64_t{1}}});
  auto other = t.done({t.op("MatMul", {t.op("MatMul", {t.input("y", {3, 6}), table}), w}),
                       t.op("MatMul", {t.input("z", {3, 4}), t.transposed(table, {1, 0})})});  // a tied table stays one
  CHECK(apply("constant-folding", other) == 0);
}

TEST_CASE("dead code goes, live code stays") {
  Sketch s;
  const auto x = s.input("x", {2, 4});
  s.op("MatMul", {x, s.weight("unread", {4, 4}, 1.0)});
  auto graph = s.done({s.op("Relu", {x})});
  CHECK(apply("dead-code", graph) == 2);
  CHECK(graph.nodes.size() == 1);
  CHECK(graph.initializers.empty());
  CHECK(apply("dead-code", graph) == 0);
}

TEST_CASE("all passes together keep what models compute") {
  auto cnn = residual_cnn(41);
  const auto cnn_before = cnn;
  optimize(cnn);
  CHECK(count(cnn, "BatchNormalization") == 0);
  CHECK(difference(cnn_before, cnn, image_inputs(2, 1)) < 1e-5);

  auto model = language_model(42);
  const auto before = model;
  const auto digests = model.parameter_count();
  optimize(model);
  CHECK(model.parameter_count() == digests);  // the tied table is still one
  CHECK(difference(before, model, language_inputs(2, 6, 50, 1)) < 1e-5);
  auto again = model;
  for (const auto& report : optimize(again)) CHECK(report.changes == 0);

  auto exploded = attention(true, true);
  const auto exploded_before = exploded;
  const auto inputs = random_inputs(exploded);
  optimize(exploded);
  CHECK(count(exploded, "Attention") == 1);
  CHECK(count(exploded, "Transpose") == 0);
  CHECK(difference(exploded_before, exploded, inputs) < 1e-5);
}
