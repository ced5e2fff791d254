#include <catch2/catch_test_macros.hpp>
#include <limits>
#include <memory>

#include "single_node.h"

using namespace espalier;

namespace {

using Ints = std::vector<std::int64_t>;
constexpr std::int64_t kEnd = std::numeric_limits<std::int64_t>::max();
constexpr std::int64_t one = 1;

/// A node is referred to by its own graph: it stays where it was made.
template <class F>
std::unique_ptr<SingleNode> made(const char* op, F&& fill, std::int64_t opset = 23) {
  auto n = std::make_unique<SingleNode>(op, opset);
  fill(*n);
  return n;
}

Tensor floats(std::vector<float> values) {
  const auto n = static_cast<std::int64_t>(values.size());
  return Tensor::of(DType::f32, {n}, values);
}

}  // namespace

TEST_CASE("lists that only running tells leave the rank that their length gives") {
  const Shape x{2, 3, 4};
  const auto asked = [&](const char* op, const Shape& list) {
    return made(op, [&](SingleNode& n) { n.input(x).input(list, DType::i64); });
  };
  CHECK(asked("ReduceSum", {1})->shape() == "[length(y.0), length(y.1), length(y.2)]");
  CHECK(asked("ReduceProd", {3})->shape() == "[1, 1, 1]");
  CHECK(asked("ReduceMax", {1})->set("keepdims", std::int64_t{0}).shape() == "[length(y.0), length(y.1)]");
  CHECK(asked("ReduceMax", {0})->shape() == "[1, 1, 1]");
  CHECK_FALSE(asked("ReduceMax", {sym("n")})->set("keepdims", std::int64_t{0}).out().rank_known);
  CHECK(asked("ReduceMax", {4})->set("keepdims", std::int64_t{0}).refusal() == "4 axes of a value of rank 3");
  CHECK(asked("ReduceMax", {1})->marks() ==
        Texts{"pin i0.0", "pin i0.1", "pin i0.2", "pin i1.0", "pin o0.0", "pin o0.1", "pin o0.2"});
  CHECK(asked("ReduceMax", {1, 1})->refusal() == "input 1 (axes) has shape [1, 1], a list is needed");
  CHECK(asked("Squeeze", {1})->shape() == "[length(y.0), length(y.1)]");
  CHECK(asked("Squeeze", {4})->refusal() != "");
  CHECK(asked("Unsqueeze", {2})->out().shape.size() == 5);
  CHECK(asked("Unsqueeze", {62})->refusal() == "an output of rank 65");
  CHECK(asked("Unsqueeze", {1})->marks().size() == 8);
  CHECK(asked("Pad", {6})->out().shape.size() == 3);
  CHECK(asked("Pad", {4})->refusal() == "4 pads for 3 axes");
  CHECK(asked("Tile", {3})->shape() == "[length(y.0), length(y.1), length(y.2)]");
  CHECK(asked("Tile", {2})->refusal() != "");
  CHECK(asked("CenterCropPad", {1})->set("axes", Ints{-2}).shape() == "[2, length(y.1), 4]");
  CHECK(asked("Split", {2})->outputs(2).shape(1) == "[length(y1.0), 3, 4]");
  CHECK(asked("Split", {3})->outputs(2).refusal() != "");
  CHECK(asked("Split", {2})->outputs(2).marks() == Texts{"pin i0.0", "pin i1.0", "pin o0.0", "pin o1.0"});
  SingleNode slice("Slice");
  slice.input(x).input({1}, DType::i64).input({1}, DType::i64);
  CHECK(slice.shape() == "[length(y.0), 3, 4]");
  slice.input({1}, DType::i64);
  CHECK(slice.shape() == "[length(y.0), length(y.1), length(y.2)]");
  CHECK(slice.marks().size() == 9);
  SingleNode steps("Slice");
  steps.input(x).list({0}).list({2}).list({2}).input({1}, DType::i64);
  CHECK(steps.shape() == "[2, 3, length(y.2)]");
  steps.node.inputs[1] = "";
  CHECK(steps.refusal() == "starts or ends are missing");
}

TEST_CASE("reductions fold lengths and check their axes") {
  CHECK(SingleNode("ReduceProd").list({2, 3, 4}).out().content == std::vector<Dim>{24});
  CHECK(SingleNode("ReduceSum").list({2, 3, 4}).set("keepdims", std::int64_t{0}).out().content == std::vector<Dim>{9});
  CHECK_FALSE(SingleNode("ReduceMax").list({2, 3, 4}).out().content);
  CHECK(SingleNode("ReduceL2").input({2, 3}).list({2}).refusal() != "");
  CHECK(SingleNode("ReduceLogSumExp", 11).input({2, 3}).ints("axes", {-3}).refusal() != "");
  CHECK(SingleNode("ReduceLogSum").input({2, 3}).list({1}).marks() == Texts{"inexact i0.1", "pin i0.0", "pin i1.0", "pin o0.0"});
  CHECK(SingleNode("ReduceL1").input({2, 3}).list({1}).marks() == Texts{"inexact i0.1", "pin i1.0"});
}

TEST_CASE("ArgMax, TopK and the running sums") {
  CHECK(SingleNode("ArgMax").input({2, sym("n"), 4}).set("axis", one).shape() == "[2, 1, 4]");
  SingleNode arg("ArgMin");
  arg.input({2, 3, 4}).set("axis", one).set("keepdims", std::int64_t{0});
  CHECK(arg.shape() == "[2, 4]");
  CHECK(arg.out().dtype == DType::i64);
  CHECK(arg.links() == Texts{"i0.0=o0.0", "i0.2=o0.1"});
  CHECK(arg.marks() == Texts{"pin i0.1"});
  CHECK(SingleNode("ArgMax").input({2, 0}).set("axis", one).refusal() != "");
  CHECK(SingleNode("ArgMax").input({2}).set("axis", one).refusal() != "");
  SingleNode top("TopK");
  top.input({2, 8}).list({3}).outputs(2);
  CHECK(top.shape(1) == "[2, 3]");
  CHECK(top.links() == Texts{"i0.0=o0.0", "i0.0=o1.0"});
  CHECK(top.marks() == Texts{"pin i0.1", "pin i1.0", "pin o0.1", "pin o1.1"});
  CHECK(SingleNode("TopK").input({2, 8}).list({9}).outputs(2).refusal() == "k is 9 for an axis of length 8");
  CHECK(SingleNode("TopK").input({2, 8}).list({-1}).outputs(2).refusal() != "");
  CHECK(SingleNode("TopK").input({2, 8}).list({1, 2}).outputs(2).refusal() != "");
  CHECK(SingleNode("TopK", 9).input({2, 8}).outputs(2).refusal() == "attribute k is missing");
  CHECK(SingleNode("TopK", 9).input({2, 8}).set("k", one).outputs(2).shape() == "[2, 1]");
  CHECK(SingleNode("TopK").input({2, 8}).input({1}, DType::i64).outputs(2).shape() == "[2, length(y.1)]");
  SingleNode sum("CumSum");
  sum.input({2, 3, 4}).scalar(1);
  CHECK(sum.links() == Texts{"i0.0=o0.0", "i0.2=o0.2"});
  CHECK(sum.marks() == Texts{"pin i0.1", "pin o0.1"});
  CHECK(SingleNode("CumSum").input({2, 3}).scalar(2).refusal() != "");
  CHECK(SingleNode("CumSum").input({2, 3}).list({0, 1}).refusal() != "");
  CHECK(SingleNode("CumProd", 26).input({}).scalar(0).refusal() == "a scalar has no axis");
}

TEST_CASE("what is picked by its values has lengths of its own") {
  CHECK(SingleNode("NonZero").input({2, 3, 4}).shape() == "[3, length(y.1)]");
  CHECK(SingleNode("Compress").input({2, 3}).input({3}, DType::boolean).shape() == "[length(y.0)]");
  SingleNode compress("Compress");
  compress.input({2, 3}).input({3}, DType::boolean).set("axis", one);
  CHECK(compress.shape() == "[2, length(y.1)]");
  CHECK(compress.links() == Texts{"i0.0=o0.0"});
  CHECK(SingleNode("Compress").input({2, 3}).input({3}).refusal() != "");
  CHECK(SingleNode("Compress").input({2}).input({1, 1}, DType::boolean).refusal() != "");
  SingleNode unique("Unique");
  unique.input({2, 3}).outputs(4);
  CHECK(unique.shape(1) == "[length(y.0)]");
  CHECK(unique.shape(2) == "[6]");
  unique.set("axis", std::int64_t{-1});
  CHECK(unique.shape(0) == "[2, length(y.1)]");
  CHECK(unique.shape(3) == "[length(y.1)]");
  CHECK(SingleNode("Unique").input({2, 3}).set("axis", std::int64_t{2}).refusal() != "");
  CHECK(SingleNode("NonMaxSuppression").input({1, 6, 4}).input({1, 2, 6}).shape() == "[length(y.0), 3]");
  CHECK(SingleNode("NonMaxSuppression").input({1, 6, 5}).input({1, 2, 6}).refusal() != "");
  CHECK(SingleNode("NonMaxSuppression").input({1, 6, 4}).input({1, 2, 7}).refusal() != "");
  CHECK(SingleNode("NonMaxSuppression").input({1, 6, 4}).input({6}).refusal() != "");
}

TEST_CASE("GatherND and the scatters") {
  const auto gather = [](const Shape& data, const Shape& indices) {
    return made("GatherND", [&](SingleNode& n) { n.input(data).input(indices, DType::i64); });
  };
  CHECK(gather({2, 3, 4}, {5, 2})->shape() == "[5, 4]");
  CHECK(gather({2, 3, 4}, {5, 2})->links() == Texts{"i0.2=o0.1", "i1.0=o0.0"});
  CHECK(gather({2, 3, 4}, {2, 1})->set("batch_dims", one).shape() == "[2, 4]");
  CHECK(gather({2, 3, 4}, {2, 1})->set("batch_dims", one).links() == Texts{"i0.0=o0.0", "i0.2=o0.1", "i1.0=o0.0"});
  CHECK(gather({2, 3, 4}, {3, 1})->set("batch_dims", one).refusal() != "");
  CHECK(gather({2, 3, 4}, {5, 4})->refusal() != "");
  CHECK(gather({2, 3, 4}, {})->refusal() != "");
  CHECK(gather({2, 3, 4}, {5, 0})->refusal() != "");
  CHECK(gather({2, 3, 4}, {5, 2})->set("batch_dims", std::int64_t{2}).refusal() != "");
  CHECK_FALSE(gather({2, 3, 4}, {5, sym("k")})->out().rank_known);

  const auto scatter = [](const char* op, const Shape& data, const Shape& indices, const Shape& updates) {
    return made(op, [&](SingleNode& n) { n.input(data).input(indices, DType::i64).input(updates); });
  };
  CHECK(scatter("ScatterElements", {2, 3}, {2, 2}, {2, 2})->set("axis", one).links() ==
        Texts{"i0.0=o0.0", "i1.0=o0.0", "i2.0=o0.0"});
  CHECK(scatter("ScatterElements", {2, 3}, {1, 2}, {1, 2})->links() == Texts{});
  CHECK(scatter("ScatterElements", {2, 3}, {2, 2}, {2, 3})->refusal() != "");
  CHECK(scatter("ScatterElements", {2, 3}, {2, 4}, {2, 4})->refusal() != "");
  CHECK(scatter("ScatterElements", {2, 3}, {2}, {2})->refusal() != "");
  CHECK(scatter("ScatterElements", {2, 3}, {2, 3}, {2, 3})->set("reduction", std::string("avg")).refusal() == "reduction is 'avg'");
  CHECK(scatter("ScatterND", {4, 3}, {2, 1}, {2, 3})->links() == Texts{"i0.1=o0.1", "i2.1=o0.1"});
  CHECK(scatter("ScatterND", {4, 3}, {2, 1}, {2, 3})->marks() == Texts{"pin i0.0", "pin i1.0", "pin i1.1", "pin i2.0", "pin o0.0"});
  CHECK(scatter("ScatterND", {4, 3}, {2, 1}, {2, 4})->refusal() != "");
  CHECK(scatter("ScatterND", {4, 3}, {2, 3}, {2})->refusal() != "");
  CHECK(scatter("ScatterND", {4, 3}, {2, 2}, {2, 1})->refusal() != "");

  const auto cache = [](const Shape& update) {
    return made(
        "TensorScatter",
        [&](SingleNode& n) {
          n.input({2, 6, 8, 4}).input(update);
        },
        24);
  };
  CHECK(cache({2, 6, 1, 4})->links() == Texts{"i0.0=o0.0", "i0.1=o0.1", "i0.3=o0.3", "i1.0=o0.0", "i1.1=o0.1", "i1.3=o0.3"});
  CHECK(cache({2, 6, 9, 4})->refusal() == "an update of length 9 for a cache of length 8");
  CHECK(cache({2, 5, 1, 4})->refusal() != "");
  CHECK(cache({2, 6, 1, 4})->set("axis", std::int64_t{0}).refusal() == "axis 0 is the batch");
  CHECK(cache({2, 6, 1, 4})->set("mode", std::string("ring")).refusal() == "mode is 'ring'");
  CHECK(cache({2, 6, 1, 4})->input({3}, DType::i64).refusal() != "");
}

TEST_CASE("OneHot and ReverseSequence") {
  const auto hot = [](std::int64_t depth) {
    return made("OneHot", [&](SingleNode& n) { n.input({2, 3}, DType::i64).scalar(depth).constant(floats({0, 1})); });
  };
  CHECK(hot(5)->shape() == "[2, 3, 5]");
  CHECK(hot(5)->set("axis", std::int64_t{0}).links() == Texts{"i0.0=o0.1", "i0.1=o0.2"});
  CHECK(hot(0)->refusal() == "depth is 0");
  CHECK(hot(5)->set("axis", std::int64_t{3}).refusal() != "");
  CHECK(SingleNode("OneHot").input({2}, DType::i64).scalar(5).constant(floats({0, 1, 2})).refusal() != "");
  SingleNode reverse("ReverseSequence");
  reverse.input({4, 2, 3}).input({2}, DType::i64);
  CHECK(reverse.links() == Texts{"i0.1=o0.1", "i0.2=o0.2", "i1.0=o0.1"});
  CHECK(reverse.marks() == Texts{"pin i0.0", "pin o0.0"});
  CHECK(SingleNode("ReverseSequence").input({4, 2}).input({3}, DType::i64).refusal() != "");
  CHECK(SingleNode("ReverseSequence").input({4, 2}).input({2}, DType::i64).set("time_axis", one).refusal() != "");
  CHECK(SingleNode("ReverseSequence").input({4}).input({4}, DType::i64).refusal() != "");
}

TEST_CASE("Tile links every copy") {
  SingleNode tile("Tile");
  tile.input({2, 3}).list({1, 2});
  CHECK(tile.shape() == "[2, 6]");
  CHECK(tile.links() == Texts{"i0.0=o0.0", "i0.1[0]=o0.1[0]x3", "i0.1[0]=o0.1[3]x3"});
  CHECK(SingleNode("Tile").input({sym("b")}).list({3}).shape() == "[3*b]");
  CHECK(SingleNode("Tile").input({2}).list({-1}).refusal() == "-1 copies");
  CHECK(SingleNode("Tile").input({2}).list({1, 1}).refusal() != "");
  CHECK(SingleNode("Tile").input({4}).list({kEnd}).refusal() != "");
  CHECK(SingleNode("Tile", 5).input({2, 3}).list({2}).list({1}).shape() == "[2, 6]");
  CHECK(SingleNode("Tile", 5).input({2, 3}).list({2}).list({2}).refusal() != "");
}

TEST_CASE("a border of zeros follows a cut, other borders are pinned") {
  SingleNode pad("Pad");
  pad.input({2, 6}).list({0, 2, 0, 3});
  CHECK(pad.shape() == "[2, 11]");
  CHECK(pad.links() == Texts{"i0.0=o0.0", "i0.1[0]=o0.1[2]x6"});
  pad.cut({{{"x0", 1}, {0, 5}}, {{"y", 1}, {1, 2, 7, 8, 9, 10}}});
  CHECK(pad.constant_ints(1) == Ints{0, 1, 0, 3});
  SingleNode less("Pad", 2);
  less.input({2, 6}).ints("pads", {0, -2, 0, 1});
  CHECK(less.links() == Texts{"i0.0=o0.0", "i0.1[2]=o0.1[0]x4"});
  less.cut({{{"x0", 1}, {1, 2, 5}}, {{"y", 1}, {0, 3}}});
  CHECK(less.node.integers("pads", {}) == Ints{0, -1, 0, 0});
  SingleNode axes("Pad");
  axes.input({2, 6}).list({1, 1}).absent().list({-1});
  CHECK(axes.shape() == "[2, 8]");
  axes.cut({{{"x0", 1}, {0, 5}}, {{"y", 1}, {1, 6}}});
  CHECK(axes.constant_ints(1) == Ints{0, 0});
  const auto marks = [](SingleNode& n) { return n.input({2, 6}).list({0, 1, 0, 0}).marks(); };
  SingleNode edge("Pad");
  edge.set("mode", std::string("edge"));
  CHECK(marks(edge) == Texts{"pin i0.1", "pin i1.0", "pin o0.1"});
  CHECK(SingleNode("Pad", 2).input({6}).ints("pads", {1, 0}).set("value", 2.0).links() == Texts{});
  CHECK(SingleNode("Pad").input({6}).list({1, 0}).constant(floats({1})).links() == Texts{});
  CHECK(SingleNode("Pad").input({6}).list({1, 0}).constant(floats({1, 2})).refusal() != "");
  CHECK(SingleNode("Pad").input({6}).list({-4, -3}).refusal() == "pads take more than all of axis 0");
  CHECK(SingleNode("Pad").input({6}).list({kEnd, 0}).refusal() != "");
  CHECK(SingleNode("Pad").input({6}).list({1}).refusal() == "1 pads for 1 axes");
  CHECK(SingleNode("Pad").input({6}).list({1, 1}).set("mode", std::string("mirror")).refusal() == "mode is 'mirror'");
  CHECK(SingleNode("Pad", 2).input({6}).refusal() == "pads are missing");
  CHECK(SingleNode("CenterCropPad").input({6, 7}).list({4, 9}).shape() == "[4, 9]");
  CHECK(SingleNode("CenterCropPad").input({6}).list({-4}).refusal() != "");
  CHECK(SingleNode("CenterCropPad").input({6}).list({4, 4}).refusal() != "");
  CHECK(SingleNode("CenterCropPad").input({6}).list({4}).set("axes", Ints{1}).refusal() != "");
}

TEST_CASE("Einsum reads its equation") {
  const auto einsum = [](const char* equation, const std::vector<Shape>& shapes) {
    return made("Einsum", [&](SingleNode& n) {
      for (const auto& shape : shapes) n.input(shape);
      n.set("equation", std::string(equation));
    });
  };
  CHECK(einsum("bij, bjk -> bik", {{sym("b"), 2, 3}, {sym("b"), 3, 4}})->shape() == "[b, 2, 4]");
  CHECK(einsum("bij, bjk -> bik", {{sym("b"), 2, 3}, {sym("b"), 3, 4}})->macs({{"b", 5}}) == 5 * 2 * 3 * 4);
  CHECK(einsum("bij,bjk->bik", {{5, 2, 3}, {5, 3, 4}})->links() ==
        Texts{"i0.0=o0.0", "i0.1=o0.1", "i0.2=i1.1", "i1.0=o0.0", "i1.2=o0.2"});
  CHECK(einsum("...ii->...i", {{2, 5, 5}})->shape() == "[2, 5]");
  CHECK(einsum("...ii->...i", {{2, 5, 5}})->marks() == Texts{"pin i0.1", "pin i0.2", "pin o0.1"});
  CHECK(einsum("ba", {{2, 3}})->shape() == "[3, 2]");
  CHECK(einsum("ij->i", {{2, 3}})->marks() == Texts{"inexact i0.1"});
  CHECK(einsum("...a,...a->...", {{4, 1, 3}, {5, 3}})->shape() == "[4, 5]");
  CHECK(einsum("...a,...a->...", {{4, 1, 3}, {5, 3}})->links() == Texts{"i0.0=o0.0", "i0.2=i1.1", "i1.0=o0.1"});
  CHECK(einsum("", {{}})->shape() == "[]");
  for (const char* wrong : {"ij,jk->ik,", "ij->k", "ij->ii", "i1->i", "i....j->i", "...ij->i", "ij->...i", "ij-i", "ij->i->j"})
    CHECK(einsum(wrong, {{2, 3}})->refusal() != "");
  CHECK(einsum("ijk->i", {{2, 3}})->refusal() == "input 0 has shape [2, 3], the equation gives it 3 axes");
  CHECK(einsum("ij,jk->ik", {{2, 3}, {4, 5}})->refusal() != "");
}

TEST_CASE("blocks of channels and space, columns, determinants, norms, n-grams") {
  SingleNode space("DepthToSpace");
  space.input({sym("b"), 12, 2, 3}).set("blocksize", std::int64_t{2});
  CHECK(space.shape() == "[b, 3, 4, 6]");
  CHECK(space.links() == Texts{"i0.0=o0.0", "i0.1[0]=o0.1[0]x3", "i0.1[3]=o0.1[0]x3", "i0.1[6]=o0.1[0]x3", "i0.1[9]=o0.1[0]x3",
                               "i0.2*1=o0.2*2", "i0.3*1=o0.3*2"});
  space.set("mode", std::string("CRD"));
  CHECK(space.links() == Texts{"i0.0=o0.0", "i0.1*4=o0.1*1", "i0.2*1=o0.2*2", "i0.3*1=o0.3*2"});
  CHECK(space.set("mode", std::string("X")).refusal() == "mode is 'X'");
  CHECK(SingleNode("DepthToSpace").input({1, 6, 2, 2}).set("blocksize", std::int64_t{2}).refusal() != "");
  CHECK(SingleNode("DepthToSpace").input({1, 6, 2, 2}).refusal() == "blocksize is 0");
  CHECK(SingleNode("DepthToSpace").input({6, 2, 2}).set("blocksize", one).refusal() != "");
  CHECK(SingleNode("SpaceToDepth").input({1, 3, 4, 6}).set("blocksize", std::int64_t{2}).shape() == "[1, 12, 2, 3]");
  CHECK(SingleNode("SpaceToDepth").input({1, 3, 4, 5}).set("blocksize", std::int64_t{2}).refusal() != "");
  SingleNode columns("Col2Im");
  columns.input({1, 12, 6}).list({3, 4}).list({2, 2});
  CHECK(columns.shape() == "[1, 3, 3, 4]");
  CHECK(columns.links() == Texts{"i0.0=o0.0", "i0.1*4=o0.1*1"});
  CHECK(SingleNode("Col2Im").input({1, 12, 6}).input({2}, DType::i64).list({2, 2}).shape() == "[1, 3, length(y.2), length(y.3)]");
  CHECK(SingleNode("Col2Im").input({1, 13, 6}).list({3, 4}).list({2, 2}).refusal() != "");
  CHECK(SingleNode("Col2Im").input({1, 12, 6}).list({3, 4}).list({0, 2}).refusal() != "");
  CHECK(SingleNode("Col2Im").input({1, 12, 6}).list({3, 4}).list({2}).refusal() != "");
  CHECK(SingleNode("Col2Im").input({12, 6}).list({3, 4}).list({2, 2}).refusal() != "");
  CHECK(SingleNode("Det").input({2, 3, 3}).shape() == "[2]");
  CHECK(SingleNode("Det").input({2, 3, 4}).refusal() != "");
  CHECK(SingleNode("Det").input({3}).refusal() != "");
  CHECK(SingleNode("LpNormalization").input({2, 3}).marks() == Texts{"inexact i0.1"});
  CHECK(SingleNode("LpNormalization").input({2, 3}).set("p", std::int64_t{3}).refusal() == "p is 3, 1 or 2 is needed");
  CHECK(SingleNode("LpNormalization").input({2, 3}).set("axis", std::int64_t{2}).refusal() != "");
  const auto grams = [](const Ints& indexes) {
    return made("TfIdfVectorizer", [&](SingleNode& n) { n.input({2, 7}, DType::i64).ints("ngram_indexes", indexes); });
  };
  CHECK(grams({0, 4, 2})->shape() == "[2, 5]");
  CHECK(grams({})->refusal() != "");
  CHECK(grams({-1})->refusal() != "");
  CHECK(grams({kEnd})->refusal() != "");
  CHECK(grams({1})->set("pool_strings", std::vector<std::string>{"a"}).refusal() == "n-grams of strings are not supported");
}
