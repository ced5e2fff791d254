#include <catch2/catch_test_macros.hpp>
#include <limits>

#include "single_node.h"

using namespace espalier;

namespace {
constexpr std::int64_t kEnd = std::numeric_limits<std::int64_t>::max();
}

TEST_CASE("Reshape copies, infers and refuses") {
  CHECK(SingleNode("Reshape").input({sym("b"), sym("s"), 576}).list({0, 0, 9, 64}).shape() == "[b, s, 9, 64]");
  CHECK(SingleNode("Reshape").input({sym("b"), sym("s"), 9, 64}).list({0, -1, 576}).shape() == "[b, s, 576]");
  CHECK(SingleNode("Reshape").input({sym("b"), sym("s"), 576}).list({-1, 64}).shape() == "[9*b*s, 64]");
  CHECK(SingleNode("Reshape").input({sym("b"), 10}).list({-1, 4}).shape() == "[floor((10*b)/(4)), 4]");
  CHECK(SingleNode("Reshape").input({2, 3}).list({-1, -1}).refusal() == "the shape has two entries of -1");
  CHECK(SingleNode("Reshape").input({2, 3}).list({-1, 4}).refusal() == "6 elements do not divide into rows of 4");
  CHECK(SingleNode("Reshape").input({2, 3}).list({7}).refusal() == "shape [2, 3] cannot become [7]");
  CHECK(SingleNode("Reshape").input({2, 3}).list({-2, 3}).refusal() == "the shape has the entry -2");
  CHECK(SingleNode("Reshape").input({2}).list({2, 0}).refusal() != "");
  CHECK(SingleNode("Reshape").input({0, 3}).list({3, 0}).set("allowzero", std::int64_t{1}).shape() == "[3, 0]");
  CHECK(SingleNode("Reshape").input({sym("n")}).input({2}, DType::i64).out().shape.size() == 2);
  CHECK_FALSE(SingleNode("Reshape").input({sym("n")}).input({sym("k")}, DType::i64).out().rank_known);
}

TEST_CASE("Reshape links the outer axis of a merged or split run by blocks") {
  SingleNode split("Reshape");
  split.input({sym("b"), sym("s"), 576}).list({0, 0, 9, 64});
  CHECK(split.links() == Texts{"i0.0=o0.0", "i0.1=o0.1", "i0.2*64=o0.2*1"});
  CHECK(split.marks() == Texts{"pin i1.0", "pin o0.3"});
  SingleNode merge("Reshape");
  merge.input({sym("b"), 8, 3, 3}).list({0, -1});
  CHECK(merge.links() == Texts{"i0.0=o0.0", "o0.1*9=i0.1*1"});
  CHECK(merge.marks() == Texts{"pin i0.2", "pin i0.3", "pin i1.0"});
  SingleNode ones("Reshape");
  ones.input({1, 8, 1}).list({8});
  CHECK(ones.links() == Texts{"i0.1=o0.0"});
  CHECK(SingleNode("Reshape").input({4, 6}).list({8, 3}).marks() ==
        Texts{"pin i0.0", "pin i0.1", "pin i1.0", "pin o0.0", "pin o0.1"});
  SingleNode rows("Reshape");
  rows.input({sym("b"), sym("s"), 8}).list({-1, 8});
  CHECK(rows.links() == Texts{"i0.2=o0.1"});
  CHECK(rows.marks() == Texts{"pin i0.0", "pin i0.1", "pin i1.0", "pin o0.0"});
  SingleNode flatten("Flatten");
  flatten.input({sym("b"), 8, 3, 3});
  CHECK(flatten.shape() == "[b, 72]");
  CHECK(flatten.links() == Texts{"i0.0=o0.0", "o0.1*9=i0.1*1"});
  CHECK(SingleNode("Flatten").input({2, 3}).set("axis", std::int64_t{0}).shape() == "[1, 6]");
  CHECK(SingleNode("Flatten").input({2, 3}).set("axis", std::int64_t{3}).refusal() != "");
}

TEST_CASE("a cut rewrites the constant shape of a Reshape") {
  SingleNode n("Reshape");
  n.input({sym("b"), sym("s"), 576}).list({0, 0, 9, 64});
  std::vector<std::int64_t> channels;
  for (std::int64_t i = 128; i < 576; ++i) channels.push_back(i);
  n.cut({{{"x0", 2}, channels}, {{"y", 2}, {2, 3, 4, 5, 6, 7, 8}}});
  CHECK(n.constant_ints(1) == std::vector<std::int64_t>{0, 0, 7, 64});
  SingleNode m("Reshape");
  m.input({sym("b"), 8, 3, 3}).list({-1, 72});
  m.cut({{{"x0", 1}, {0, 1}}, {{"y", 1}, std::vector<std::int64_t>(18)}});
  CHECK(m.constant_ints(1) == std::vector<std::int64_t>{0, 18});
}

TEST_CASE("Squeeze and Unsqueeze take axes as attribute or input") {
  CHECK(SingleNode("Unsqueeze", 11).input({3, 4}).ints("axes", {0, -1}).shape() == "[1, 3, 4, 1]");
  SingleNode n("Unsqueeze");
  n.input({sym("b"), sym("s")}).list({1, 2});
  CHECK(n.shape() == "[b, 1, 1, s]");
  CHECK(n.links() == Texts{"i0.0=o0.0", "i0.1=o0.3"});
  SingleNode q("Squeeze");
  q.input({1, 3, 1, 4}).list({0, 2});
  CHECK(q.shape() == "[3, 4]");
  CHECK(q.links() == Texts{"i0.1=o0.0", "i0.3=o0.1"});
  CHECK(SingleNode("Squeeze", 11).input({1, 3, 1}).shape() == "[3]");
  CHECK(SingleNode("Squeeze").input({2, 3}).list({0}).refusal() == "axis 0 of shape [2, 3] is not of length 1");
  CHECK(SingleNode("Unsqueeze").input({2}).list({5}).refusal() != "");
  CHECK(SingleNode("Unsqueeze").input({2}).refusal() == "axes are missing");
  CHECK(SingleNode("Unsqueeze").input({2}).input({1}, DType::i64).shape() == "[length(y.0), length(y.1)]");
}

TEST_CASE("Shape, Size, ConstantOfShape, Range and Expand carry their integers") {
  SingleNode shape("Shape");
  shape.input({sym("b"), 3, 4}).set("start", std::int64_t{-2});
  CHECK(shape.out().content == std::vector<Dim>{3, 4});
  CHECK(SingleNode("Size").input({sym("b"), 3, 4}).out().content == std::vector<Dim>{Dim(12) * sym("b")});
  CHECK(SingleNode("ConstantOfShape").list({2, 3}).shape() == "[2, 3]");
  SingleNode ones("ConstantOfShape");
  ones.list({3}).set("value", Tensor::of(DType::i64, {1}, std::vector<std::int64_t>{1}));
  CHECK(ones.out().content == std::vector<Dim>{1, 1, 1});
  CHECK(SingleNode("ConstantOfShape").list({-1}).refusal() != "");
  CHECK(SingleNode("Range").scalar(1).scalar(10).scalar(3).out().content == std::vector<Dim>{1, 4, 7});
  CHECK(SingleNode("Range").scalar(10).scalar(0).scalar(-3).out().content == std::vector<Dim>{10, 7, 4, 1});
  CHECK(SingleNode("Range").scalar(5).scalar(0).scalar(1).shape() == "[0]");
  CHECK(SingleNode("Range").scalar(5).scalar(0).scalar(0).refusal() == "a range with step 0");
  CHECK(SingleNode("Expand").input({3, 1}).list({2, 1, 6}).shape() == "[2, 3, 6]");
  CHECK(SingleNode("Expand").input({3, 1}).list({2, 1, 6}).links() == Texts{"i0.0=o0.1"});
  CHECK(SingleNode("Expand").input({3}).list({2}).refusal() == "shapes [3] and [2] do not broadcast");
  SingleNode e("Expand");
  e.input({1, 8}).list({4, 8});
  e.cut({{{"x0", 1}, {0, 3}}, {{"y", 1}, {0, 3}}});
  CHECK(e.constant_ints(1) == std::vector<std::int64_t>{4, 1});
}

TEST_CASE("only the lengths that somebody uses keep a Shape's axes from being cut") {
  SingleNode n("Shape");
  n.input({sym("b"), 8});
  CHECK(n.marks() == Texts{"pin o0.0"});  // nobody reads it
  Node gather;
  gather.op = "Gather";
  gather.name = "pick";
  gather.inputs = {"y", "index"};
  gather.outputs = {"length"};
  n.graph.initializers["index"] = Tensor::of(DType::i64, {}, std::vector<std::int64_t>{0});
  Graph g = n.graph;
  g.nodes.push_back(gather);
  const auto marks = axis_maps(g, infer(g), g.nodes[0]).marks;
  REQUIRE(marks.size() == 2);
  CHECK(marks[1].port.axis == 0);
}

TEST_CASE("Slice by NumPy's rules, with symbols") {
  auto sliced = [](Shape x, std::int64_t start, std::int64_t end, std::int64_t axis, std::int64_t step = 1) {
    return SingleNode("Slice").input(std::move(x)).list({start}).list({end}).list({axis}).list({step}).shape();
  };
  CHECK(sliced({10}, 2, 7, 0) == "[5]");
  CHECK(sliced({10}, -3, kEnd, 0) == "[3]");
  CHECK(sliced({10}, 0, 10, 0, 3) == "[4]");
  CHECK(sliced({10}, -1, std::numeric_limits<std::int64_t>::min(), -1, -1) == "[10]");
  CHECK(sliced({10}, 8, 2, 0, -2) == "[3]");
  CHECK(sliced({10}, 20, 30, 0) == "[0]");
  CHECK(sliced({4, sym("s")}, -1, kEnd, 1) == "[4, 1]");
  CHECK(sliced({4, sym("s")}, 1, kEnd, 1) == "[4, s - 1]");
  CHECK(sliced({4, sym("s")}, 0, -1, 1) == "[4, s - 1]");
  CHECK(sliced({4, sym("s")}, 0, kEnd, 1) == "[4, s]");
  CHECK(sliced({4, sym("s")}, 0, 5, 1) == "[4, length(y.1)]");
  CHECK(SingleNode("Slice", 9).input({10, 4}).ints("starts", {1}).ints("ends", {3}).shape() == "[2, 4]");
  CHECK(SingleNode("Slice").list({4, 5, 6, 7}).list({1}).list({3}).out().content == std::vector<Dim>{5, 6});
  CHECK(SingleNode("Slice").input({4}).list({0}).list({1}).list({0}).list({0}).refusal() == "a step of 0");
  CHECK(SingleNode("Slice").input({4}).list({0}).list({1, 2}).refusal() != "");
  CHECK(SingleNode("Slice").input({4}).list({0}).list({1}).list({3}).refusal() != "");
}

TEST_CASE("Slice links what it keeps and follows a cut") {
  SingleNode n("Slice");
  n.input({2, 10}).list({4}).list({8}).list({1});
  CHECK(n.links() == Texts{"i0.0=o0.0", "i0.1[4]=o0.1[0]x4"});
  n.cut({{{"x0", 1}, {0, 1, 5, 6, 9}}, {{"y", 1}, {1, 2}}});
  CHECK(n.constant_ints(1) == std::vector<std::int64_t>{2});
  CHECK(n.constant_ints(2) == std::vector<std::int64_t>{4});
  CHECK(SingleNode("Slice").input({2, 10}).list({0}).list({10}).list({1}).list({2}).marks() ==
        Texts{"pin i0.1", "pin i1.0", "pin i2.0", "pin i3.0", "pin i4.0", "pin o0.1"});
}

TEST_CASE("Concat and Split link by ranges") {
  SingleNode n("Concat");
  n.input({sym("b"), 3, 5}).input({sym("b"), 4, 5}).set("axis", std::int64_t{1});
  CHECK(n.shape() == "[b, 7, 5]");
  CHECK(n.links() == Texts{"i0.0=o0.0", "i0.1[0]=o0.1[0]x3", "i0.2=o0.2", "i1.0=o0.0", "i1.1[0]=o0.1[3]x4", "i1.2=o0.2"});
  CHECK(SingleNode("Concat").input({1, sym("past")}).input({1, sym("s")}).set("axis", std::int64_t{1}).shape() == "[1, past + s]");
  CHECK(SingleNode("Concat").input({2, 3}).input({3, 3}).set("axis", std::int64_t{1}).refusal() != "");
  CHECK(SingleNode("Concat").input({2, 3}).input({2}).set("axis", std::int64_t{1}).refusal() != "");

  SingleNode s("Split");
  s.input({2, 10}).list({4, 6}).set("axis", std::int64_t{1}).outputs(2);
  CHECK(s.shape(1) == "[2, 6]");
  CHECK(s.links() == Texts{"i0.0=o0.0", "i0.0=o1.0", "i0.1[0]=o0.1[0]x4", "i0.1[4]=o1.1[0]x6"});
  s.cut({{{"x0", 1}, {0, 1, 2, 5, 9}}});
  CHECK(s.constant_ints(1) == std::vector<std::int64_t>{3, 2});
  SingleNode even("Split");
  even.input({2, 7}).set("axis", std::int64_t{1}).set("num_outputs", std::int64_t{2}).outputs(2);
  CHECK(even.shape(0) == "[2, 4]");
  CHECK(even.shape(1) == "[2, 3]");
  even.cut({{{"x0", 1}, {0, 5}}});
  CHECK(even.constant_ints(1) == std::vector<std::int64_t>{1, 1});
  CHECK_FALSE(even.node.has("num_outputs"));
  CHECK(SingleNode("Split", 11).input({2, 6}).ints("split", {2, 4}).set("axis", std::int64_t{1}).outputs(2).shape(1) == "[2, 4]");
  CHECK(SingleNode("Split", 13).input({2, 7}).set("axis", std::int64_t{1}).outputs(2).refusal() != "");
  CHECK(SingleNode("Split").input({2, 6}).list({2, 5}).set("axis", std::int64_t{1}).outputs(2).refusal() != "");
  CHECK(SingleNode("Split").input({2, 6}).list({-1, 7}).set("axis", std::int64_t{1}).outputs(2).refusal() == "a part of length -1");
}

TEST_CASE("reductions take axes as attribute or input") {
  CHECK(SingleNode("ReduceMean", 13).input({2, 3, 4}).ints("axes", {-1}).shape() == "[2, 3, 1]");
  CHECK(SingleNode("ReduceSum", 13).input({2, 3, 4}).list({0, 2}).set("keepdims", std::int64_t{0}).shape() == "[3]");
  CHECK(SingleNode("ReduceMax").input({2, 3}).shape() == "[1, 1]");
  CHECK(SingleNode("ReduceMin").input({2, 3}).set("noop_with_empty_axes", std::int64_t{1}).shape() == "[2, 3]");
  SingleNode mean("ReduceMean");
  mean.input({2, 3, 4}).list({1}).set("keepdims", std::int64_t{0});
  CHECK(mean.links() == Texts{"i0.0=o0.0", "i0.2=o0.1"});
  CHECK(mean.marks() == Texts{"inexact i0.1", "pin i1.0"});
  CHECK(SingleNode("ReduceSum").input({2, 3}).list({1}).marks() == Texts{"inexact i0.1", "pin i1.0"});
  CHECK(SingleNode("ReduceSum").input({2, 3}).list({1}).links() == Texts{"i0.0=o0.0"});
  CHECK(SingleNode("ReduceSum").input({2, 3}).list({1, -1}).refusal() == "an axis is named twice");
  CHECK(SingleNode("ReduceMean").input({2, 3}).list({2}).refusal() != "");
}
