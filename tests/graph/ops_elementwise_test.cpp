#include <catch2/catch_test_macros.hpp>

#include "single_node.h"

using namespace espalier;

TEST_CASE("element-wise functions keep shape and type and link every axis") {
  for (const char* op :
       {"Relu",      "Sigmoid", "Tanh",     "Neg",      "Abs",   "Sqrt", "Exp",   "Erf", "Gelu", "HardSigmoid", "HardSwish",
        "LeakyRelu", "Elu",     "Softplus", "Identity", "Floor", "Ceil", "Round", "Sin", "Cos",  "Reciprocal",  "Log"}) {
    SingleNode n(op);
    n.input({sym("batch"), 8}, DType::f16);
    INFO(op);
    CHECK(n.shape() == "[batch, 8]");
    CHECK(n.out().dtype == DType::f16);
    CHECK(n.links() == Texts{"i0.0=o0.0", "i0.1=o0.1"});
  }
  CHECK(SingleNode("Log").input({2, 8}).marks() == Texts{"inexact i0.0", "inexact i0.1"});
  CHECK(SingleNode("Relu").input({2, 8}).marks().empty());
  CHECK(find_operator("", "Swish", 23) == nullptr);
  CHECK(find_operator("", "Swish", 24) != nullptr);
}

TEST_CASE("Cast changes the type and keeps integers known") {
  SingleNode n("Cast");
  n.list({0, 3}).set("to", std::int64_t{9});
  CHECK(n.out().dtype == DType::boolean);
  CHECK(n.out().content == std::vector<Dim>{0, 1});
  CHECK(SingleNode("Cast").input({1}).set("to", std::int64_t{99}).refusal() == "cannot cast to element type 99");
  CHECK(SingleNode("Cast").input({1}).refusal() != "");
}

TEST_CASE("Clip takes bounds as attributes or as inputs") {
  CHECK(SingleNode("Clip", 7).input({4}).set("min", 0.0).set("max", 6.0).shape() == "[4]");
  SingleNode n("Clip", 13);
  n.input({sym("b"), 4}).weight({}).absent();
  CHECK(n.shape() == "[b, 4]");
  CHECK(n.links() == Texts{"i0.0=o0.0", "i0.1=o0.1"});
  CHECK(SingleNode("Clip", 13).input({4}).weight({2}).refusal() != "");
}

TEST_CASE("binary functions broadcast; an axis of length 1 is not linked") {
  SingleNode n("Add");
  n.input({sym("batch"), sym("sequence"), 64}).input({64});
  CHECK(n.shape() == "[batch, sequence, 64]");
  CHECK(n.links() == Texts{"i0.0=o0.0", "i0.1=o0.1", "i0.2=o0.2", "i1.0=o0.2"});

  SingleNode gate("Mul");
  gate.input({2, 8, 5, 5}).input({2, 8, 1, 1});
  CHECK(gate.shape() == "[2, 8, 5, 5]");
  CHECK(gate.links() == Texts{"i0.0=o0.0", "i0.1=o0.1", "i0.2=o0.2", "i0.3=o0.3", "i1.0=o0.0", "i1.1=o0.1"});

  CHECK(SingleNode("Add").input({3}).input({4}).refusal() == "shapes [3] and [4] do not broadcast");
  CHECK(SingleNode("Add").input({3}).input({3}, DType::i64).refusal() != "");
  CHECK(SingleNode("Add").input({3}).refusal() == "the node has 1 inputs");
  CHECK(SingleNode("Pow").input({3}).input({}, DType::i64).shape() == "[3]");
  CHECK(SingleNode("Less").input({3}).input({3}).out().dtype == DType::boolean);
  CHECK(SingleNode("Max", 8).input({3, 1}).input({4}).input({}).shape() == "[3, 4]");
  CHECK(SingleNode("Div").input({2, 8}).input({8}).marks() == Texts{"inexact i1.0"});
}

TEST_CASE("two different symbols that meet are not linked") {
  SingleNode n("Add");
  n.input({sym("a"), 4}).input({sym("b"), 4});
  CHECK(n.shape() == "[broadcast(a, b), 4]");
  CHECK(n.marks() == Texts{"pin i0.0", "pin i1.0", "pin o0.0"});
}

TEST_CASE("integers of shape arithmetic flow through binary functions") {
  auto content = [](const char* op, std::vector<std::int64_t> a, std::vector<std::int64_t> b) {
    return SingleNode(op).list(std::move(a)).list(std::move(b)).out().content;
  };
  CHECK(content("Add", {1, 2}, {10}) == std::vector<Dim>{11, 12});
  CHECK(content("Div", {-7, 7}, {2}) == std::vector<Dim>{-3, 3});  // truncated
  CHECK(content("Equal", {1, 2}, {1, 3}) == std::vector<Dim>{1, 0});
  CHECK(content("Max", {1, 9}, {5, 5}) == std::vector<Dim>{5, 9});
  CHECK_FALSE(content("Div", {1}, {0}));

  SingleNode where("Where");
  where.constant(Tensor::of(DType::boolean, {2}, std::vector<std::uint8_t>{1, 0})).list({1, 2}).list({7, 8});
  CHECK(where.out().content == std::vector<Dim>{1, 8});
  CHECK(SingleNode("Where").input({2}).input({2}).input({2}).refusal() == "the condition is no boolean");
}

TEST_CASE("integers stay known as forms over symbols") {
  Graph g;
  g.inputs = {{"x", DType::f32, {sym("batch"), sym("sequence"), 576}}};
  auto add = [&](std::string op, std::vector<std::string> in, std::string out) -> Node& {
    Node& n = g.nodes.emplace_back();
    n.op = std::move(op);
    n.name = out;
    n.inputs = std::move(in);
    n.outputs = {out};
    return n;
  };
  auto constant = [&](std::string name, std::vector<std::int64_t> v) {
    g.initializers[name] = Tensor::of(DType::i64, {static_cast<std::int64_t>(v.size())}, v);
  };
  constant("one", {1});
  constant("two", {2});
  constant("eight", {8});
  constant("minus", {-1});
  add("Shape", {"x"}, "shape");
  add("Gather", {"shape", "one"}, "length");
  add("Add", {"length", "length"}, "twice");
  add("Mul", {"twice", "eight"}, "sixteen");
  add("Div", {"sixteen", "eight"}, "back");
  add("Concat", {"back", "minus"}, "target").attributes["axis"] = std::int64_t{0};
  add("Cast", {"target"}, "cast").attributes["to"] = std::int64_t{7};
  add("Reshape", {"x", "cast"}, "y");
  g.outputs = {{"y", DType::f32, {}}};
  const ValueMap values = infer(g);
  CHECK(text(*values.find("target")->second.content) == "[2*sequence, -1]");
  CHECK(text(values.find("y")->second.shape) == "[2*sequence, 288*batch]");
}
