// Passes for what exporters write around an operator: each changes a graph that it is for, leaves alone one that only looks like
// it, and keeps what both compute.
#include "sketch.h"

using namespace espalier;
using namespace espalier::test;

TEST_CASE("opset moves attributes to inputs and keeps what they mean") {
  Sketch s;
  const auto x = s.input("x", {2, 3, 8});
  const auto mean = s.op("ReduceMean", {x}, {{"axes", Ints{-1}}});
  const auto all = s.op("ReduceMax", {x}, {{"keepdims", std::int64_t{0}}});
  const auto flat = s.op("Squeeze", {mean}, {{"axes", Ints{2}}});
  const auto softmax = s.op("Softmax", {x}, {{"axis", std::int64_t{2}}});
  const auto parts = s.add_many("/split", "Split", {softmax}, 2, {{"axis", std::int64_t{2}}, {"split", Ints{3, 5}}});
  s.graph.opsets[""] = 11;
  auto graph = s.done({flat, all, parts[0], parts[1]});
  CHECK(apply("opset", graph) == 1);
  CHECK(graph.opset() == 23);
  for (const auto& node : graph.nodes) {
    CHECK_FALSE(node.has("axes"));
    CHECK_FALSE(node.has("split"));
  }
  CHECK(apply("opset", graph) == 0);
}

TEST_CASE("opset counts the parts of a Split that has no lengths") {
  Sketch s;
  const auto parts = s.add_many("/split", "Split", {s.input("x", {2, 6})}, 3, {{"axis", std::int64_t{1}}});
  s.graph.opsets[""] = 13;
  auto graph = s.done({parts[0], parts[2]});
  CHECK(apply("opset", graph) == 1);
  CHECK(graph.nodes[0].integer("num_outputs", 0) == 3);
}

TEST_CASE("opset gives every channel its group's scale") {
  Sketch s;
  const auto y = s.op("GroupNormalization", {s.input("x", {2, 6, 4}), s.row(3, 1), s.row(3)}, {{"num_groups", std::int64_t{3}}});
  s.graph.opsets[""] = 18;
  auto graph = s.done({y});
  CHECK(apply("opset", graph) == 1);
  CHECK(graph.initializers.at(graph.nodes[0].inputs[1]).shape == Ints{6});
}

TEST_CASE("opset leaves a model where it is when one node would mean something else") {
  {
    Sketch s;  // all axes from 1 on are one here
    s.graph.opsets[""] = 11;
    auto graph = s.done({s.op("Softmax", {s.input("x", {2, 3, 8})}, {{"axis", std::int64_t{1}}})});
    CHECK(apply("opset", graph) == 0);
    CHECK(graph.opset() == 11);
  }
  {
    Sketch s;  // a foreign domain's operators may be anything, and are not touched
    s.graph.opsets[""] = 17;
    s.graph.opsets["example"] = 1;
    const auto x = s.input("x", {2, 3});
    s.graph.nodes.push_back({"Twist", "example", "/twist", {x}, {"twisted"}, {}});
    s.graph.outputs.push_back({"twisted", DType::f32, {2, 3}});
    optimize(s.graph, {"opset"});
    CHECK(s.graph.opset() == 23);
    CHECK(s.graph.opset("example") == 1);
  }
  {
    Sketch s;  // unknown even here
    s.graph.opsets[""] = 17;
    const auto x = s.input("x", {2, 3});
    s.graph.nodes.push_back({"Bernoulli", "", "/bernoulli", {x}, {"drawn"}, {}});
    s.graph.outputs.push_back({"drawn", DType::f32, {2, 3}});
    optimize(s.graph, {"opset"});
    CHECK(s.graph.opset() == 17);
  }
}

TEST_CASE("opset reaches into bodies") {
  Sketch s;
  auto body = std::make_shared<Graph>();
  body->opsets[""] = 13;
  body->nodes.push_back({"ReduceMean", "", "/inside", {"x"}, {"inside"}, {{"axes", Ints{1}}}});
  body->outputs.push_back({"inside", DType::f32, {}});
  s.input("x", {2, 3});
  s.graph.initializers["yes"] = Tensor::own(DType::boolean, {}, {std::byte{1}});
  const auto y = s.op("If", {"yes"}, {{"then_branch", body}, {"else_branch", body}});
  s.graph.opsets[""] = 13;
  auto graph = s.done({y});
  CHECK(apply("opset", graph) == 1);
  const auto& changed = *std::get<std::shared_ptr<Graph>>(graph.nodes[0].attributes.at("then_branch"));
  CHECK(changed.nodes[0].inputs.size() == 2);
  CHECK(body->nodes[0].inputs.size() == 1);
}

TEST_CASE("flattened-gemm multiplies what was flattened") {
  for (const bool turned : {false, true}) {
    Sketch s;
    const auto x = s.input("x", {2, 3, 8});
    const auto flat = s.op("Reshape", {x, s.list({-1, 8})});
    const auto product =
        s.op("Gemm", {flat, s.weight("w", turned ? Ints{5, 8} : Ints{8, 5}, 0.3), s.row(5)}, {{"transB", std::int64_t{turned}}});
    auto graph = s.done({s.op("Reshape", {product, s.list({2, 3, 5})})});
    CHECK(apply("flattened-gemm", graph) == 1);
    CHECK(count(graph, "MatMul") == 1);
    CHECK(count(graph, "Gemm") == 0);
    CHECK(count(graph, "Reshape") == 0);
  }
  {
    Sketch s;  // given back under other axes
    const auto flat = s.op("Reshape", {s.input("x", {2, 3, 8}), s.list({-1, 8})});
    const auto product = s.op("Gemm", {flat, s.weight("w", {8, 5}, 0.3), s.row(5)});
    auto graph = s.done({s.op("Reshape", {product, s.list({3, 2, 5})})});
    CHECK(apply("flattened-gemm", graph) == 0);
  }
  {
    Sketch s;  // a factor
    const auto flat = s.op("Reshape", {s.input("x", {2, 3, 8}), s.list({-1, 8})});
    const auto product = s.op("Gemm", {flat, s.weight("w", {8, 5}, 0.3)}, {{"alpha", 0.5}});
    auto graph = s.done({s.op("Reshape", {product, s.list({2, 3, 5})})});
    CHECK(apply("flattened-gemm", graph) == 0);
  }
}

namespace {

/// Attention over [batch · heads, positions, size]; `kept`: somebody reads the merged scores, too.
Graph merged_attention(bool kept) {
  Sketch s;
  const auto merged = [&](const std::string& x) { return s.op("Reshape", {x, s.list({6, 5, 4})}); };
  const auto q = merged(s.input("q", {2, 3, 5, 4})), k = merged(s.input("k", {2, 3, 5, 4})), v = merged(s.input("v", {2, 3, 5, 4}));
  const auto scores = s.op("Mul", {s.op("MatMul", {q, s.transposed(k, {0, 2, 1})}), s.scalar(0.5F)});
  const auto bias = s.op("Reshape", {s.input("bias", {2, 3, 5}), s.list({6, 1, 5})});  // makes an axis, too
  const auto weights = s.op("Softmax", {s.op("Add", {scores, bias})}, {{"axis", std::int64_t{2}}});
  const auto y = s.op("Reshape", {s.op("MatMul", {weights, v}), s.list({2, 3, 5, 4})});
  return s.done(kept ? std::vector<std::string>{y, scores} : std::vector<std::string>{y});
}

}  // namespace

TEST_CASE("merged-batch lets attention keep batch and heads apart") {
  auto graph = merged_attention(false);
  CHECK(apply("merged-batch", graph) == 6);
  CHECK(count(graph, "Reshape") == 0);
  CHECK(count(graph, "Unsqueeze") == 1);
  optimize(graph);
  CHECK(count(graph, "MatMul") == 2);
  auto open = merged_attention(true);  // the merged scores are an output
  apply("merged-batch", open);
  const auto& out = open.outputs[1];
  CHECK(text(infer(open).at(out.name).shape) == text(out.shape));
  CHECK(infer(open).at(out.name).shape.size() == 3);
}

TEST_CASE("merged-transposes makes one Transpose of one between two Reshapes") {
  {
    Sketch s;
    const auto merged = s.op("Reshape", {s.input("x", {2, 3, 5, 4}), s.list({-1, 5, 4})});
    auto graph = s.done({s.op("Reshape", {s.transposed(merged, {0, 2, 1}), s.list({2, 3, 4, 5})})});
    CHECK(apply("merged-transposes", graph) == 1);
    REQUIRE(graph.nodes.size() == 1);
    CHECK(graph.nodes[0].integers("perm", {}) == (Ints{0, 1, 3, 2}));
  }
  {
    Sketch s;  // split in another way
    const auto merged = s.op("Reshape", {s.input("x", {2, 3, 5, 4}), s.list({6, 5, 4})});
    auto graph = s.done({s.op("Reshape", {s.transposed(merged, {0, 2, 1}), s.list({3, 2, 4, 5})})});
    CHECK(apply("merged-transposes", graph) == 0);
  }
}

TEST_CASE("expand goes where what reads it broadcasts") {
  {
    Sketch s;
    const auto wide = s.op("Expand", {s.input("bias", {1, 3, 1, 5}), s.list({2, 3, 4, 5})});
    auto graph = s.done({s.op("Add", {s.input("x", {2, 3, 4, 5}), wide})});
    CHECK(apply("expand", graph) == 1);
    CHECK(graph.nodes.size() == 1);
  }
  {
    Sketch s;  // the Expand makes the shape
    const auto wide = s.op("Expand", {s.input("bias", {1, 3, 1, 5}), s.list({2, 3, 4, 5})});
    auto graph = s.done({s.op("Add", {s.input("x", {1, 3, 4, 5}), wide})});
    CHECK(apply("expand", graph) == 0);
  }
  {
    Sketch s;  // each of two makes half of the shape: one after the other
    const auto a = s.op("Expand", {s.input("x", {1, 5}), s.list({4, 5})}),
               b = s.op("Expand", {s.input("y", {4, 1}), s.list({4, 5})});
    auto graph = s.done({s.op("Add", {a, b})});
    CHECK(apply("expand", graph) == 2);
    CHECK(graph.nodes.size() == 1);
  }
}
