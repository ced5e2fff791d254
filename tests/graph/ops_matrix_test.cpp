#include <catch2/catch_test_macros.hpp>

#include "single_node.h"

using namespace espalier;

TEST_CASE("MatMul follows NumPy's ranks, sums over K and links batch, M and N") {
  SingleNode n("MatMul");
  n.input({sym("batch"), sym("sequence"), 64}).weight({64, 128});
  CHECK(n.shape() == "[batch, sequence, 128]");
  CHECK(n.links() == Texts{"i0.0=o0.0", "i0.1=o0.1", "i0.2=i1.0", "i1.1=o0.2"});
  CHECK(n.macs({{"batch", 2}, {"sequence", 5}}) == 2 * 5 * 64 * 128);

  SingleNode batched("MatMul");
  batched.input({sym("b"), 1, 5, 7}).input({4, 7, 3});
  CHECK(batched.shape() == "[b, 4, 5, 3]");
  CHECK(batched.links() == Texts{"i0.0=o0.0", "i0.2=o0.2", "i0.3=i1.1", "i1.0=o0.1", "i1.2=o0.3"});

  CHECK(SingleNode("MatMul").input({7}).input({7, 3}).shape() == "[3]");
  CHECK(SingleNode("MatMul").input({5, 7}).input({7}).shape() == "[5]");
  CHECK(SingleNode("MatMul").input({7}).input({7}).shape() == "[]");
  CHECK(SingleNode("MatMul").input({5, 7}).input({7}).links() == Texts{"i0.0=o0.0", "i0.1=i1.0"});
  // A batch that may turn out to be one leaves nothing free that it meets.
  CHECK(SingleNode("MatMul").input({sym("n"), 5, 7}).input({8, 7, 3}).marks() == Texts{"pin i0.0", "pin o0.0"});
  CHECK(SingleNode("MatMul").input({5, 7}).input({8, 3}).refusal() == "the matrices do not fit: 7 does not fit 8");
  CHECK(SingleNode("MatMul").input({}).input({8, 3}).refusal() == "a scalar has no matrix product");
  CHECK(SingleNode("MatMul").input({2, 5, 7}).input({3, 7, 3}).refusal() != "");
}

TEST_CASE("Gemm honours its transpositions and broadcasts C") {
  SingleNode n("Gemm");
  n.input({sym("batch"), 64}).weight({10, 64}).weight({10}).set("transB", std::int64_t{1});
  CHECK(n.shape() == "[batch, 10]");
  CHECK(n.links() == Texts{"i0.0=o0.0", "i0.1=i1.1", "i1.0=o0.1", "i2.0=o0.1"});
  CHECK(n.macs({{"batch", 3}}) == 3 * 64 * 10);

  SingleNode t("Gemm", 7);
  t.input({64, 3}).weight({64, 10}).weight({1, 10}).set("transA", std::int64_t{1});
  CHECK(t.shape() == "[3, 10]");
  CHECK(t.links() == Texts{"i0.0=i1.0", "i0.1=o0.0", "i1.1=o0.1", "i2.1=o0.1"});
  CHECK(SingleNode("Gemm").input({3, 64}).weight({10, 64}).refusal() != "");
  CHECK(SingleNode("Gemm").input({3, 4}).weight({4, 5}).weight({7}).refusal() != "");
  CHECK(SingleNode("Gemm").input({3, 4, 5}).weight({4, 5}).refusal() != "");
}

TEST_CASE("Gather: rows are looked up by number, the other axes travel") {
  SingleNode n("Gather");
  n.weight({100, 16}).input({sym("batch"), sym("sequence")}, DType::i64);
  CHECK(n.shape() == "[batch, sequence, 16]");
  CHECK(n.links() == Texts{"i0.1=o0.2", "i1.0=o0.0", "i1.1=o0.1"});
  CHECK(n.marks() == Texts{"pin i0.0"});
  CHECK(SingleNode("Gather").input({5, 6, 7}).scalar(2).set("axis", std::int64_t{1}).shape() == "[5, 7]");
  CHECK(SingleNode("Gather").list({4, 5, 6}).scalar(-1).out().content == std::vector<Dim>{6});
  CHECK(SingleNode("Gather").list({4, 5, 6}).scalar(3).refusal() == "index 3 is outside an axis of length 3");
  CHECK(SingleNode("Gather").input({4, 5}).scalar(0).set("axis", std::int64_t{2}).refusal() ==
        "axis 2 is outside a value of rank 2");
  CHECK(SingleNode("Gather").input({4, 5}).input({2}).refusal() == "the indices are of type float32");

  SingleNode e("GatherElements");
  e.input({4, 5}).input({4, 2}, DType::i64).set("axis", std::int64_t{1});
  CHECK(e.shape() == "[4, 2]");
  CHECK(e.links() == Texts{"i0.0=o0.0", "i1.0=o0.0", "i1.1=o0.1"});
  CHECK(e.marks() == Texts{"pin i0.1"});
}

TEST_CASE("Transpose permutes") {
  SingleNode n("Transpose");
  n.input({2, sym("s"), 4}).ints("perm", {2, 0, 1});
  CHECK(n.shape() == "[4, 2, s]");
  CHECK(n.links() == Texts{"i0.0=o0.1", "i0.1=o0.2", "i0.2=o0.0"});
  CHECK(SingleNode("Transpose").input({2, 3}).shape() == "[3, 2]");
  CHECK(SingleNode("Transpose").input({2, 3}).ints("perm", {0, 0}).refusal() == "an axis is named twice");
  CHECK(SingleNode("Transpose").input({2, 3}).ints("perm", {0}).refusal() != "");
}

TEST_CASE("Softmax's own axis is inexact; before opset 13 all axes behind it are") {
  SingleNode n("Softmax");
  n.input({2, 3, 4});
  CHECK(n.links().size() == 3);
  CHECK(n.marks() == Texts{"inexact i0.2"});
  CHECK(SingleNode("Softmax", 11).input({2, 3, 4}).marks() == Texts{"inexact i0.1", "inexact i0.2"});
  CHECK(SingleNode("LogSoftmax").input({2, 3}).set("axis", std::int64_t{5}).refusal() != "");
}

TEST_CASE("LayerNormalization's axis is inexact, RMSNormalization's is rewritten") {
  SingleNode layer("LayerNormalization");
  layer.input({sym("b"), 8}).weight({8}).weight({8}).outputs(3);
  CHECK(layer.shape() == "[b, 8]");
  CHECK(layer.shape(1) == "[b, 1]");
  CHECK(layer.marks() == Texts{"inexact i0.1"});
  CHECK(layer.links() == Texts{"i0.0=o0.0", "i0.0=o1.0", "i0.0=o2.0", "i0.1=o0.1", "i1.0=o0.1", "i2.0=o0.1"});

  SingleNode rms("RMSNormalization");
  rms.input({sym("b"), 8}).weight({8});
  CHECK(rms.links() == Texts{"i0.0=o0.0", "i0.1=o0.1", "i1.0=o0.1"});
  CHECK(rms.marks() == Texts{"rewrite i0.1"});
  CHECK(SingleNode("RMSNormalization").input({2, 8}).input({8}).marks() == Texts{"inexact i0.1"});
  CHECK(SingleNode("RMSNormalization").input({2, 8}).weight({7}).refusal() != "");
  CHECK(SingleNode("RMSNormalization").input({2, 8}).refusal() == "the gain is missing");
}
