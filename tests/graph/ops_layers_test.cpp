#include <catch2/catch_test_macros.hpp>

#include "graph/causal.h"
#include "models.h"
#include "single_node.h"

using namespace espalier;

namespace {

SingleNode layer(const char* op, std::int64_t gates, std::int64_t directions = 1) {
  SingleNode n(op);
  n.input({sym("steps"), sym("batch"), 6}).weight({directions, gates * 8, 6}).weight({directions, gates * 8, 8});
  n.set("hidden_size", std::int64_t{8});
  if (directions == 2) n.set("direction", std::string("bidirectional"));
  return n;
}

using Names = std::vector<std::string>;
using Values = std::vector<double>;

}  // namespace

TEST_CASE("recurrent layers tell their shapes") {
  SingleNode lstm = layer("LSTM", 4, 2);
  lstm.outputs(3);
  CHECK(lstm.shape() == "[steps, 2, batch, 8]");
  CHECK(lstm.shape(1) == "[2, batch, 8]");
  CHECK(lstm.shape(2) == "[2, batch, 8]");
  CHECK(lstm.macs({{"steps", 5}, {"batch", 3}}) == 5.0 * 3 * 2 * 32 * 14);
  SingleNode gru("GRU");
  gru.input({sym("batch"), sym("steps"), 6}).weight({1, 24, 6}).weight({1, 24, 8}).outputs(2).set("layout", std::int64_t{1});
  CHECK(gru.shape() == "[batch, steps, 1, 8]");
  CHECK(gru.shape(1) == "[batch, 1, 8]");
}

TEST_CASE("a unit of a recurrent layer is one index of each gate") {
  SingleNode n = layer("GRU", 3);
  const auto links = n.links();
  for (const char* link : {"i2.2[0]=i1.1[0]x8", "i2.2[0]=i1.1[8]x8", "i2.2[0]=i1.1[16]x8", "i2.2[0]=i2.1[16]x8",
                           "i1.1[16]=o0.3[0]x8", "i2.2=o0.3", "i0.2=i1.2", "i0.1=o0.2"})
    CHECK(std::find(links.begin(), links.end(), link) != links.end());
  CHECK(n.marks() == Texts{"pin i0.0", "pin o0.0", "rewrite i2.2"});
  CHECK(layer("GRU", 3, 2).marks() == Texts{"pin i0.0", "pin i1.0", "pin i2.0", "pin o0.0", "pin o0.1", "rewrite i2.2"});
  n.cut({{{"x2", 2}, {0, 3, 4}}});
  CHECK(n.node.integer("hidden_size", 0) == 3);
}

TEST_CASE("a layer whose activation is not zero at zero is cut inexactly") {
  SingleNode n = layer("LSTM", 4);
  n.set("activations", Names{"Sigmoid", "Sigmoid", "Tanh"});
  CHECK(n.marks() == Texts{"inexact i2.2", "pin i0.0", "pin o0.0"});
  n.set("activations", Names{"Softplus", "Relu", "Affine"}).set("activation_alpha", Values{2}).set("activation_beta", Values{0});
  CHECK(n.marks() == Texts{"pin i0.0", "pin o0.0", "rewrite i2.2"});
  n.set("activation_beta", Values{1});
  CHECK(n.marks() == Texts{"inexact i2.2", "pin i0.0", "pin o0.0"});
}

TEST_CASE("recurrent layers refuse what does not fit, naming the node") {
  CHECK(SingleNode("LSTM").input({5, 2}).weight({1, 32, 6}).weight({1, 32, 8}).refusal() != "");
  CHECK(SingleNode("LSTM").input({5, 2, 6}).weight({1, 32, 7}).weight({1, 32, 8}).refusal() == "axis 2 of W: 7 does not fit 6");
  CHECK(SingleNode("LSTM").input({5, 2, 6}).weight({1, 24, 6}).weight({1, 24, 8}).refusal() == "axis 1 of W: 24 does not fit 32");
  const auto with = [](const char* attribute, Attribute value) {
    SingleNode n = layer("LSTM", 4);
    return n.set(attribute, std::move(value)).refusal();
  };
  CHECK(with("hidden_size", std::int64_t{7}) == "R against hidden_size: 8 does not fit 7");
  CHECK(with("hidden_size", std::int64_t{-1}) == "hidden_size is -1");
  CHECK(with("direction", std::string("sideways")) == "direction is 'sideways'");
  CHECK(with("direction", std::string("bidirectional")) == "axis 0 of W: 1 does not fit 2");
  CHECK(with("layout", std::int64_t{2}) == "layout is 2");
  CHECK(with("clip", -1.0) == "clip is not positive");
  CHECK(with("activations", Names{"Sigmoid", "Tanh"}) == "2 activations where 3 are needed");
  CHECK(with("activations", Names{"Sigmoid", "Tanh", "Cosine"}) == "there is no activation 'Cosine'");
  CHECK(with("activations", std::int64_t{3}) == "activations is no list of names");
  CHECK(with("activations", Names{"Sigmoid", "Affine", "Tanh"}) == "activation 1 has no default for its alpha and beta");
  CHECK(with("activation_alpha", Values{1}) == "activation_alpha has more values than functions that take one");
  CHECK(with("activation_alpha", std::string("1")) == "activation_alpha is no list of numbers");
  SingleNode two_ways = layer("LSTM", 4);
  two_ways.set("activations", Names{"Sigmoid", "LeakyRelu", "Elu"}).set("activation_alpha", Values{0.5, 0.25, 0.125});
  CHECK(two_ways.refusal() == "activation_alpha can be read by order and by place, which differ");
  two_ways.set("activation_alpha", Values{0.5, 0.5, 0.5});
  CHECK(two_ways.refusal().empty());
  SingleNode lengths = layer("RNN", 1);
  lengths.graph.inputs[0].shape = {5, 2, 6};
  lengths.absent().input({3}, DType::i32);
  CHECK(lengths.refusal() == "axis 0 of sequence_lens: 3 does not fit 2");
  CHECK(SingleNode("RNN")
            .input({5, 2, 6})
            .weight({1, 8, 6})
            .weight({1, 8, 8})
            .set("activations", Names{"Relu", "Tanh"})
            .refusal()
            .empty());
}

TEST_CASE("LinearAttention moves whole heads and counts them after a cut") {
  const auto node = [] {
    SingleNode n("LinearAttention", 27);
    n.input({2, 4, 12}).input({2, 4, 6}).input({2, 4, 9}).absent().input({2, 4, 3}).input({2, 4, 1});
    n.set("q_num_heads", std::int64_t{6}).set("kv_num_heads", std::int64_t{3}).outputs(2);
    return n;
  };
  SingleNode n = node();
  CHECK(n.shape() == "[2, 4, 18]");
  CHECK(n.shape(1) == "[2, 3, 2, 3]");
  CHECK(n.links() == Texts{"i1.2*2=i0.2*4", "i1.2*2=i2.2*3", "i1.2*2=i4.2*1", "i1.2*2=o0.2*6", "i1.2*2=o1.1*1", "i2.2*3=o0.2*6"});
  CHECK(n.macs() == 2.0 * 4 * 6 * (6 + 2 * 3));
  n.cut({{{"x0", 2}, {0, 1, 2, 3}}, {{"x1", 2}, {0, 1}}});
  CHECK(n.node.integer("q_num_heads", 0) == 2);
  CHECK(n.node.integer("kv_num_heads", 0) == 1);
  CHECK_THROWS_AS(node().cut({{{"x1", 2}, {0, 1, 2}}}), Error);
  const auto with = [&](const char* attribute, Attribute value) {
    SingleNode other = node();
    return other.set(attribute, std::move(value)).refusal();
  };
  CHECK(with("q_num_heads", std::int64_t{5}) != "");
  CHECK(with("kv_num_heads", std::int64_t{0}) == "q_num_heads and kv_num_heads are needed");
  CHECK(with("update_rule", std::string("quadratic")) == "update_rule is 'quadratic'");
  CHECK(with("update_rule", std::string("gated")) == "beta does not go with update_rule 'gated'");
  SingleNode flat = node();
  flat.graph.inputs[1].shape = {2, 24};
  CHECK(flat.refusal() != "");
  SingleNode gate = node();
  gate.graph.inputs[4].shape = {2, 4, 2};
  CHECK(gate.refusal() == "the width of beta: 2 does not fit 3");
}

TEST_CASE("CausalConvWithState keeps its channels together") {
  SingleNode n("CausalConvWithState", 27);
  n.input({2, 6, sym("length")}).weight({6, 1, 4}).weight({6}).input({2, 6, 3}).outputs(2);
  CHECK(n.shape() == "[2, 6, length]");
  CHECK(n.shape(1) == "[2, 6, 3]");
  CHECK(n.macs({{"length", 5}}) == 2.0 * 6 * 5 * 4);
  n.set("activation", std::string("relu"));
  CHECK(n.refusal() == "activation is 'relu'");
  SingleNode wide("CausalConvWithState", 27);
  CHECK(wide.input({2, 6, 5}).weight({6, 2, 4}).refusal() == "the weight's second axis: 2 does not fit 1");
  SingleNode state("CausalConvWithState", 27);
  CHECK(state.input({2, 6, 5}).weight({6, 1, 4}).absent().input({2, 6, 4}).refusal() == "axis 2 of past_state: 4 does not fit 3");
  CHECK(SingleNode("CausalConvWithState", 27).input({2, 6}).weight({6, 1, 4}).refusal() != "");
}

TEST_CASE("losses reduce what is asked, over labels of the right shape") {
  SingleNode n("SoftmaxCrossEntropyLoss");
  n.input({4, 3, 2}).input({4, 2}, DType::i64).outputs(2);
  CHECK(n.shape() == "[]");
  CHECK(n.shape(1) == "[4, 3, 2]");
  n.set("reduction", std::string("none"));
  CHECK(n.shape() == "[4, 2]");
  n.set("reduction", std::string("product"));
  CHECK(n.refusal() == "reduction is 'product'");
  CHECK(SingleNode("NegativeLogLikelihoodLoss").input({4, 3}).input({5}, DType::i64).refusal() ==
        "axis 0 of the labels: 5 does not fit 4");
  CHECK(SingleNode("NegativeLogLikelihoodLoss").input({4}).input({4}, DType::i64).refusal() != "");
  CHECK(SingleNode("NegativeLogLikelihoodLoss").input({4, 3}).input({4}, DType::i64).weight({4}).refusal() ==
        "weights against classes: 4 does not fit 3");
}

TEST_CASE("Attention checks windows and the lengths of an outside cache") {
  SingleNode n("Attention", 25);
  n.input({2, 4, 5, 8}).input({2, 4, 6, 8}).input({2, 4, 6, 8}).absent().absent().absent().input({2}, DType::i64);
  n.set("left_window_size", std::int64_t{2});
  CHECK(n.shape() == "[2, 4, 5, 8]");
  n.set("right_window_size", std::int64_t{-2});
  CHECK(n.refusal() == "right_window_size is -2");
  n.set("right_window_size", std::int64_t{-1});
  n.graph.inputs[3].shape = {3};
  CHECK(n.refusal() == "nonpad_kv_seqlen against the batch: 3 does not fit 2");
  SingleNode past("Attention");
  past.input({2, 4, 5, 8}).input({2, 4, 6, 8}).input({2, 4, 6, 8}).absent().input({1, 4, 3, 8}).input({2, 4, 3, 8}).outputs(3);
  CHECK(past.refusal() == "the batch of the past: 1 does not fit 2");
}

TEST_CASE("an attention over an outside cache gets none of its own") {
  auto graph = test::language_model(1);
  graph.inputs.push_back({"lengths", DType::i64, {Dim::symbol("batch")}});
  for (auto& node : graph.nodes)
    if (node.op == "Attention") {
      node.inputs.resize(7);
      node.inputs[6] = "lengths";
    }
  try {
    with_kv_cache(graph);
    FAIL("it was accepted");
  } catch (const Error& error) {
    CHECK(error.code() == ErrorCode::unsupported);
    CHECK(error.message().find("nonpad_kv_seqlen") != std::string::npos);
  }
}
