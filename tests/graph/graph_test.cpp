#include "graph/graph.h"

#include <catch2/catch_test_macros.hpp>
#include <chrono>

#include "graph/ops/floats.h"
#include "single_node.h"

using namespace espalier;

namespace {

Node make(std::string op, std::string name, std::vector<std::string> in, std::vector<std::string> out) {
  Node n;
  n.op = std::move(op);
  n.name = std::move(name);
  n.inputs = std::move(in);
  n.outputs = std::move(out);
  return n;
}

template <class F>
std::string what(F&& f) {
  try {
    f();
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

bool names(const std::string& text, const std::string& thing) { return text.find(thing) != std::string::npos; }

}  // namespace

TEST_CASE("element types know their names and sizes") {
  CHECK(to_string(DType::bf16) == "bfloat16");
  CHECK(dtype_from("int4") == DType::i4);
  CHECK_FALSE(dtype_from("undefined"));
  CHECK(to_string(static_cast<DType>(99)) == "undefined");
  CHECK(byte_size(DType::i4, 3) == 2);
  CHECK(byte_size(DType::f64, 0) == 0);
  CHECK_THROWS_AS(byte_size(DType::f32, -1), Error);
  CHECK(byte_size(DType::f32, std::int64_t{1} << 60) == std::uint64_t{1} << 62);
  CHECK_THROWS_AS(byte_size(DType::c128, std::int64_t{1} << 62), Error);
  CHECK_THROWS_AS(byte_size(DType::string, 1), Error);
}

TEST_CASE("a tensor's bytes are read only as what they are") {
  const Tensor t = Tensor::of(DType::f32, {2, 2}, std::vector<float>{1, 2, 3, 4});
  CHECK(t.as<float>()[3] == 4);
  CHECK_THROWS_AS(t.as<double>(), Error);
  CHECK_THROWS_AS(t.integers(), Error);
  CHECK(t.numbers() == std::vector<double>{1, 2, 3, 4});
  CHECK(t.digest() == sha256(t.bytes));
  CHECK_THROWS_AS(Tensor::own(DType::f32, {3}, std::vector<std::byte>(4)), Error);
  const Tensor half = Tensor::of(DType::f16, {5}, std::vector<std::uint16_t>{0x3c00, 0xc000, 0x0001, 0x7bff, 0x7c00});
  CHECK(half.numbers() == std::vector<double>{1, -2, 0x1p-24, 65504, std::numeric_limits<double>::infinity()});
  const auto back = ops::scaled(half, 1);
  CHECK(std::equal(back.bytes.begin(), back.bytes.end(), half.bytes.begin()));
  CHECK(ops::scaled(Tensor::of(DType::bf16, {1}, std::vector<std::uint16_t>{0x3f80}), 3).numbers() == std::vector<double>{3});
}

TEST_CASE("every half-precision number survives scaling by one") {
  std::vector<std::uint16_t> all;
  for (std::uint32_t i = 0; i < 0x10000; ++i)
    if ((i & 0x7c00) != 0x7c00) all.push_back(static_cast<std::uint16_t>(i));
  for (DType type : {DType::f16, DType::bf16}) {
    const Tensor t = Tensor::of(type, {static_cast<std::int64_t>(all.size())}, all);
    const auto same = ops::scaled(t, 1);
    CHECK(std::equal(same.bytes.begin(), same.bytes.end(), t.bytes.begin()));
  }
}

TEST_CASE("nodes are sorted, and cycles and missing inputs named") {
  Graph g;
  g.inputs = {{"x", DType::f32, {2}}};
  g.nodes = {make("Relu", "last", {"b"}, {"c"}), make("Relu", "first", {"x"}, {"a"}), make("Relu", "middle", {"a"}, {"b"})};
  g.outputs = {{"c", DType::f32, {2}}};
  CHECK(names(what([&] { g.validate(); }), "last"));
  CHECK(names(what([&] { infer(g); }), "last"));
  g.sort();
  CHECK(g.nodes[0].name == "first");
  CHECK(g.nodes[2].name == "last");
  g.validate();
  CHECK(text(infer(g).find("c")->second.shape) == "[2]");

  Graph cycle = g;
  cycle.nodes[0].inputs = {"c"};
  CHECK(names(what([&] { cycle.sort(); }), "cycle"));
  Graph lost = g;
  lost.nodes[0].inputs = {"nothing"};
  CHECK(names(what([&] { lost.sort(); }), "'nothing'"));
  CHECK(names(what([&] { lost.sort(); }), "first"));
}

TEST_CASE("a name is defined once") {
  Graph g;
  g.inputs = {{"x", DType::f32, {2}}};
  g.nodes = {make("Relu", "one", {"x"}, {"y"}), make("Relu", "two", {"x"}, {"y"})};
  g.outputs = {{"y", DType::f32, {2}}};
  CHECK(names(what([&] { g.validate(); }), "two"));
  CHECK(names(what([&] { infer(g); }), "two"));
  CHECK(names(what([&] { g.sort(); }), "two"));
  g.nodes[1].outputs = {"z"};
  g.nodes[1].name = "one";
  CHECK(names(what([&] { g.validate(); }), "same name"));
  g.nodes[1].name = "two";
  g.initializers["x"] = Tensor::of(DType::f32, {1}, std::vector<float>{1});
  CHECK(names(what([&] { g.validate(); }), "'x'"));
  g.initializers.clear();
  g.outputs = {{"w", DType::f32, {2}}};
  CHECK(names(what([&] { g.validate(); }), "'w'"));
  Tensor wrong = Tensor::of(DType::f32, {2}, std::vector<float>{1, 2});
  wrong.shape = {3};
  g.initializers["bad"] = wrong;
  CHECK(names(what([&] { g.validate(); }), "bad"));
  CHECK(g.fresh("x") == "x_1");
  CHECK(g.fresh("new") == "new");
}

TEST_CASE("what subgraphs capture counts as read") {
  auto body = std::make_shared<Graph>();
  body->nodes = {make("Relu", "inner", {"outside"}, {"local"}), make("Add", "sum", {"local", "late"}, {"result"})};
  body->outputs = {{"result", DType::f32, {}}};
  Graph g;
  g.inputs = {{"c", DType::boolean, {}}, {"outside", DType::f32, {2}}};
  Node branch = make("If", "branch", {"c"}, {"y"});
  branch.attributes["then_branch"] = branch.attributes["else_branch"] = body;
  CHECK(captures(branch) == std::vector<std::string>{"late", "outside"});
  g.nodes = {branch, make("Relu", "late", {"outside"}, {"late"})};
  g.outputs = {{"y", DType::f32, {2}}};
  g.sort();
  CHECK(g.nodes[0].name == "late");
  g.validate();
  const ValueMap values = infer(g);
  CHECK(text(values.find("y")->second.shape) == "[2]");
}

TEST_CASE("hostile sizes end in an error that names the node") {
  const Dim huge = std::int64_t{1} << 40;
  CHECK(SingleNode("MatMul").input({huge, huge}).input({huge, huge}).refusal() != "");
  CHECK(SingleNode("Expand").input({1}).list({std::int64_t{1} << 40, std::int64_t{1} << 40}).refusal() != "");
  CHECK(SingleNode("Reshape").input({huge, 4}).list({-1, 0}).shape() == "[1099511627776, 4]");
  CHECK(SingleNode("Mul").list({std::int64_t{1} << 40}).list({std::int64_t{1} << 40}).refusal() != "");
  CHECK(SingleNode("Relu").input({-3}).refusal() != "");
  CHECK(SingleNode("Relu").refusal() == "input 0 is absent");
  SingleNode outputs("Relu");
  outputs.input({3}).outputs(2);
  CHECK(outputs.refusal() == "the node has 2 outputs, the operator 1");
  SingleNode type("Transpose");
  type.input({2, 3}).set("perm", std::string("ab"));
  CHECK(type.refusal() == "attribute perm is not a list of integers");
  SingleNode rank("Unsqueeze");
  std::vector<std::int64_t> axes;
  for (std::int64_t i = 0; i < 200; ++i) axes.push_back(i);
  rank.input({2}).list(axes);
  CHECK(rank.refusal() == "output 0 has rank 201");
}

TEST_CASE("an unknown operator is carried with every axis pinned") {
  SingleNode n("Mystery");
  n.input({2, 3});
  CHECK_FALSE(n.out().rank_known);
  CHECK(n.links().empty());
  CHECK(n.marks() == Texts{"pin i0.0", "pin i0.1"});
  CHECK(n.macs() == 0);
}

TEST_CASE("operators are found by domain, name and opset") {
  CHECK(find_operator("ai.onnx", "Squeeze", 11)->since == 1);
  CHECK(find_operator("", "Squeeze", 23)->since == 13);
  CHECK(find_operator("", "RMSNormalization", 22) == nullptr);
  CHECK(find_operator("com.example", "Relu", 23) == nullptr);
  for (const Operator* op : all_operators()) {
    INFO(op->name);
    CHECK(op->infer);  // without `axes` all that it touches is pinned
  }
}

TEST_CASE("parameters are counted once, without scales, tables and scalars") {
  Graph g;
  auto f32 = [](std::vector<std::int64_t> shape) {
    std::int64_t n = 1;
    for (auto d : shape) n *= d;
    return Tensor::own(DType::f32, shape, std::vector<std::byte>(static_cast<std::size_t>(4 * n)));
  };
  g.inputs = {{"x", DType::f32, {1, 1, 8}}, {"p", DType::i64, {1, 1}}};
  g.initializers["w"] = f32({8, 4});
  g.initializers["cos"] = f32({5, 4});
  g.initializers["eps"] = f32({});
  g.initializers["q"] = Tensor::own(DType::i8, {8, 4}, std::vector<std::byte>(32));
  g.initializers["s"] = f32({4});
  g.initializers["axes"] = Tensor::of(DType::i64, {2}, std::vector<std::int64_t>{0, 1});
  Node rotary = make("RotaryEmbedding", "r", {"x", "cos", "cos", "p"}, {"r"});
  rotary.attributes["num_heads"] = std::int64_t{1};
  g.nodes = {rotary, make("DequantizeLinear", "d", {"q", "s"}, {"dq"}), make("MatMul", "a", {"r", "w"}, {"a"}),
             make("MatMul", "b", {"r", "w"}, {"b"}), make("Add", "c", {"a", "eps"}, {"c"})};
  CHECK(g.parameter_count() == 64);
  CHECK(g.weight_bytes() == 4 * (32 + 20 + 1 + 4) + 32 + 16);
  const Cost total = total_cost(g, infer(g), {});
  CHECK(total.macs == 2 * 8 * 4);
  CHECK(total.bytes_read > 0);
}

TEST_CASE("a thirty-layer model is inferred in milliseconds") {
  Graph g;
  g.inputs = {{"x", DType::f32, {sym("batch"), sym("sequence"), 64}}};
  g.initializers["w"] = Tensor::of(DType::f32, {64, 64}, std::vector<float>(4096));
  g.initializers["g"] = Tensor::of(DType::f32, {64}, std::vector<float>(64));
  std::string last = "x";
  for (int i = 0; i < 150; ++i) {
    const std::string n = std::to_string(i);
    g.nodes.push_back(make("RMSNormalization", "norm" + n, {last, "g"}, {"n" + n}));
    g.nodes.push_back(make("MatMul", "mul" + n, {"n" + n, "w"}, {"m" + n}));
    g.nodes.push_back(make("Add", "add" + n, {"m" + n, last}, {"a" + n}));
    last = "a" + n;
  }
  g.outputs = {{last, DType::f32, {}}};
  const auto begin = std::chrono::steady_clock::now();
  const ValueMap values = infer(g);
  const auto spent = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin).count();
  CHECK(text(values.find(last)->second.shape) == "[batch, sequence, 64]");
  INFO(spent << " ms");
  CHECK(spent < 200);  // about 1 ms on an idle machine
}
