#include <catch2/catch_test_macros.hpp>
#include <cmath>

#include "single_node.h"

using namespace espalier;

namespace {

SingleNode packed() {
  SingleNode n("Attention");
  n.input({sym("batch"), sym("sequence"), 9 * 64})
      .input({sym("batch"), sym("sequence"), 3 * 64})
      .input({sym("batch"), sym("sequence"), 3 * 64});
  n.input({sym("batch"), 1, 1, sym("sequence")}, DType::boolean);
  n.set("q_num_heads", std::int64_t{9}).set("kv_num_heads", std::int64_t{3}).set("is_causal", std::int64_t{1});
  return n;
}

}  // namespace

TEST_CASE("Attention on packed heads: a KV head goes with its query heads and their outputs") {
  const SingleNode n = packed();
  CHECK(n.shape() == "[batch, sequence, 576]");
  CHECK(n.links() == Texts{"i1.2*64=i0.2*192", "i1.2*64=i2.2*64", "i1.2*64=o0.2*192"});
  CHECK(n.macs({{"batch", 1}, {"sequence", 10}}) == 9.0 * 10 * 10 * 128);
  SingleNode refused = packed();
  refused.set("q_num_heads", std::int64_t{8});
  CHECK(refused.refusal() == "the heads of Q and K differ in size");
  refused.set("q_num_heads", std::int64_t{0});
  CHECK(refused.refusal() != "");
  refused.set("q_num_heads", std::int64_t{7});
  CHECK(refused.refusal() == "the width of Q 576 does not divide into 7 heads");
}

TEST_CASE("Attention after a cut counts the heads that are left") {
  SingleNode n = packed();
  std::vector<std::int64_t> q, kv;
  for (std::int64_t i = 192; i < 576; ++i) q.push_back(i);
  for (std::int64_t i = 64; i < 192; ++i) kv.push_back(i);
  n.cut({{{"x0", 2}, q}, {{"x1", 2}, kv}, {{"x2", 2}, kv}});
  CHECK(n.node.integer("q_num_heads", 0) == 6);
  CHECK(n.node.integer("kv_num_heads", 0) == 2);
  CHECK_FALSE(n.node.has("scale"));
  q.pop_back();
  SingleNode broken = packed();
  CHECK_THROWS_AS(broken.cut({{{"x0", 2}, q}}), Error);
}

TEST_CASE("Attention with a past grows its keys") {
  SingleNode n = packed();
  n.graph.inputs[3].shape = {sym("batch"), 1, 1, sym("past") + sym("sequence")};
  n.input({sym("batch"), 3, sym("past"), 64}).input({sym("batch"), 3, sym("past"), 64}).outputs(3);
  CHECK(n.shape(1) == "[batch, 3, past + sequence, 64]");
  const auto links = n.links();
  CHECK(std::find(links.begin(), links.end(), "i1.2*64=i4.1*1") != links.end());
  CHECK(std::find(links.begin(), links.end(), "i1.2*64=o2.1*1") != links.end());
  n.graph.inputs[4].shape[1] = 4;
  CHECK(n.refusal() == "heads of the past: 4 does not fit 3");
}

TEST_CASE("Attention on separate heads may lose channels of a head, with its scale written down") {
  SingleNode n("Attention");
  n.input({2, 4, 5, 8}).input({2, 2, 6, 8}).input({2, 2, 6, 10});
  CHECK(n.shape() == "[2, 4, 5, 10]");
  CHECK(n.links() == Texts{"i0.3=i1.3", "i1.1*1=i0.1*2", "i1.1*1=o0.1*2", "i1.1=i2.1", "i2.3=o0.3"});
  n.cut({{{"x0", 3}, {0, 1, 2, 3}}, {{"x1", 3}, {0, 1, 2, 3}}});
  CHECK(std::abs(n.node.number("scale", 0) - 1 / std::sqrt(8.0)) < 1e-12);
  CHECK(SingleNode("Attention").input({2, 4, 5, 8}).input({2, 3, 6, 8}).input({2, 3, 6, 8}).refusal() != "");
  CHECK(SingleNode("Attention").input({2, 4}).input({2, 3}).input({2, 3}).refusal() != "");
}

TEST_CASE("RotaryEmbedding bundles each head and counts them after a cut") {
  SingleNode n("RotaryEmbedding");
  n.input({sym("b"), sym("s"), 192})
      .weight({100, 32})
      .weight({100, 32})
      .input({sym("b"), sym("s")}, DType::i64)
      .set("num_heads", std::int64_t{3});
  CHECK(n.shape() == "[b, s, 192]");
  CHECK(n.links() == Texts{"i0.0=o0.0", "i0.1=o0.1", "i0.2*64=i0.2*64", "i0.2=o0.2"});
  std::vector<std::int64_t> kept(64);
  for (std::int64_t i = 0; i < 64; ++i) kept[static_cast<std::size_t>(i)] = 64 + i;
  n.cut({{{"x0", 2}, kept}});
  CHECK(n.node.integer("num_heads", 0) == 1);
  n.set("num_heads", std::int64_t{5});
  CHECK(n.refusal() != "");
  SingleNode four("RotaryEmbedding");
  four.input({2, 4, 5, 16}).weight({2, 5, 8}).weight({2, 5, 8});
  CHECK(four.shape() == "[2, 4, 5, 16]");
  four.set("rotary_embedding_dim", std::int64_t{18});
  CHECK(four.refusal() != "");
}

TEST_CASE("RMSNormalization computes the same after a cut as with zeroed channels") {
  const std::vector<double> x{0.5, -1.25, 2, 0.75, -0.5, 3}, gain{1, 2, 0.5, -1, 1.5, 0.25};
  const std::vector<std::int64_t> kept{0, 2, 3};
  auto norm = [](std::vector<double> v, const std::vector<double>& g, double epsilon) {
    double squares = 0;
    for (double e : v) squares += e * e;
    const double scale = 1 / std::sqrt(squares / static_cast<double>(v.size()) + epsilon);
    for (std::size_t i = 0; i < v.size(); ++i) v[i] *= scale * g[i];
    return v;
  };
  std::vector<double> masked(6, 0), cut_x;
  for (auto i : kept) {
    masked[static_cast<std::size_t>(i)] = x[static_cast<std::size_t>(i)];
    cut_x.push_back(x[static_cast<std::size_t>(i)]);
  }
  const double epsilon = 0.125;
  SingleNode n("RMSNormalization");
  n.input({1, 6}, DType::f64).constant(Tensor::of(DType::f64, {6}, gain)).set("epsilon", epsilon);
  // A second reader of the gain keeps the old one.
  n.graph.outputs = {{"x1", DType::f64, {6}}};
  n.cut({{{"x0", 1}, kept}, {{"y", 1}, kept}});
  REQUIRE(n.node.inputs[1] != "x1");
  CHECK(n.graph.initializers.at("x1").numbers() == gain);
  const auto rescaled = n.graph.initializers.at(n.node.inputs[1]).numbers();
  std::vector<double> cut_gain;
  for (auto i : kept) cut_gain.push_back(rescaled[static_cast<std::size_t>(i)]);
  const auto expected = norm(masked, gain, epsilon), got = norm(cut_x, cut_gain, n.node.number("epsilon", 0));
  for (std::size_t i = 0; i < kept.size(); ++i) CHECK(std::abs(got[i] - expected[static_cast<std::size_t>(kept[i])]) < 1e-12);
}
