// Control flow and sequences: what the node cases of ONNX do not ask.
#include <ATen/TensorOperators.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/scalar_tensor.h>
#include <ATen/ops/tensor.h>

#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

#include "graph/groups.h"
#include "graph/op.h"
#include "models.h"
#include "run/session.h"
#include "sdk/error.h"

using namespace espalier;
using Catch::Matchers::ContainsSubstring;

namespace {

Value tensor(const std::string& name, DType type, Shape shape) { return {name, type, std::move(shape)}; }

std::shared_ptr<Graph> body(std::vector<Value> inputs, std::vector<Node> nodes, std::vector<Value> outputs) {
  auto graph = std::make_shared<Graph>();
  graph->name = "body";
  graph->inputs = std::move(inputs);
  graph->nodes = std::move(nodes);
  graph->outputs = std::move(outputs);
  return graph;
}

/// h ← h · w for `trips` rounds, and Σ of each round's h: the weight is read from around the loop.
Graph powers() {
  Graph graph;
  graph.inputs = {tensor("trips", DType::i64, {}), tensor("x", DType::f32, {Dim(2), Dim(2)})};
  graph.initializers["w"] = Tensor::of<float>(DType::f32, {2, 2}, {0.5F, 0.25F, -0.5F, 1.0F});
  const auto step =
      body({tensor("round", DType::i64, {}), tensor("going", DType::boolean, {}), tensor("h", DType::f32, {Dim(2), Dim(2)})},
           {{"MatMul", "", "product", {"h", "w"}, {"next"}, {}},
            {"ReduceSum", "", "sum", {"next"}, {"total"}, {{"keepdims", std::int64_t{0}}}}},
           {tensor("going", DType::boolean, {}), tensor("next", DType::f32, {}), tensor("total", DType::f32, {})});
  graph.nodes = {{"Loop", "", "loop", {"trips", "", "x"}, {"y", "sums"}, {{"body", step}}}};
  graph.outputs = {tensor("y", DType::f32, {Dim(2), Dim(2)}), tensor("sums", DType::f32, {Dim::symbol("rounds")})};
  return graph;
}

at::Tensor trips(std::int64_t count) { return at::scalar_tensor(count, at::kLong); }

}  // namespace

TEST_CASE("a loop carries values, stacks what each round gives, and gradients reach what it captures") {
  Session session(powers());
  const at::Tensor w = session.parameter("w").clone(), x = at::ones({2, 2});
  const TensorMap out = session.run({{"trips", trips(3)}, {"x", x}});
  const at::Tensor expected = x.matmul(w).matmul(w).matmul(w);
  CHECK(out.at("y").allclose(expected));
  CHECK(out.at("sums").sizes() == at::IntArrayRef{3});
  CHECK(out.at("sums")[0].allclose(x.matmul(w).sum()));
  CHECK(session.run({{"trips", trips(0)}, {"x", x}}, {"y"}).at("y").equal(x));

  session.train({"w"});
  session.run({{"trips", trips(3)}, {"x", x}}, {"y"}).at("y").sum().backward();
  at::Tensor leaf = w.clone().set_requires_grad(true);
  x.matmul(leaf).matmul(leaf).matmul(leaf).sum().backward();
  CHECK(session.parameter("w").grad().allclose(leaf.grad()));
}

TEST_CASE("infer follows a loop: what does not change stays known, rounds do not") {
  const ValueMap values = infer(powers());
  CHECK(text(values.at("y").shape) == "[2, 2]");
  CHECK(values.at("sums").shape.size() == 1);
  CHECK(!values.at("sums").shape[0].known());

  Graph growing = powers();  // h ← [h; h]
  growing.nodes[0].attributes["body"] =
      body({tensor("round", DType::i64, {}), tensor("going", DType::boolean, {}), tensor("h", DType::f32, {})},
           {{"Concat", "", "twice", {"h", "h"}, {"next"}, {{"axis", std::int64_t{0}}}},
            {"ReduceSum", "", "sum", {"next"}, {"total"}, {{"keepdims", std::int64_t{0}}}}},
           {tensor("going", DType::boolean, {}), tensor("next", DType::f32, {}), tensor("total", DType::f32, {})});
  const ValueMap grown = infer(growing);
  CHECK(!grown.at("y").shape[0].known());
  CHECK(text(grown.at("y").shape[1] == Dim(2) ? Shape{Dim(2)} : Shape{}) == "[2]");
  CHECK(Session(growing).run({{"trips", trips(3)}, {"x", at::ones({2, 2})}}, {"y"}).at("y").size(0) == 16);
}

TEST_CASE("what a body reads keeps its channels, though they were free without it") {
  Graph graph;
  graph.inputs = {tensor("x", DType::f32, {Dim(3), Dim(2)}), tensor("flag", DType::boolean, {})};
  graph.initializers["a"] = Tensor::of<float>(DType::f32, {2, 4}, std::vector<float>(8, 1.0F));
  graph.initializers["b"] = Tensor::of<float>(DType::f32, {4, 2}, std::vector<float>(8, 1.0F));
  graph.nodes = {{"MatMul", "", "up", {"x", "a"}, {"h"}, {}}, {"MatMul", "", "down", {"h", "b"}, {"y"}, {}}};
  graph.outputs = {tensor("y", DType::f32, {Dim(3), Dim(2)})};
  CHECK(coupled_groups(graph, infer(graph)).size() == 1);
  const auto branch = [](const char* op) {
    return body({}, {{op, "", op, {"h"}, {std::string(op) + "_out"}, {}}}, {tensor(std::string(op) + "_out", DType::f32, {})});
  };
  graph.nodes.push_back({"If", "", "if", {"flag"}, {"z"}, {{"then_branch", branch("Neg")}, {"else_branch", branch("Relu")}}});
  graph.outputs.push_back(tensor("z", DType::f32, {Dim(3), Dim(4)}));
  CHECK(coupled_groups(graph, infer(graph)).empty());
}

TEST_CASE("a branch may give what lies outside of it, and only the branch that is taken runs") {
  Graph graph;
  graph.inputs = {tensor("flag", DType::boolean, {}), tensor("x", DType::f32, {Dim::symbol("n")})};
  graph.initializers["axes"] = Tensor::of<std::int64_t>(DType::i64, {1}, {0});
  graph.nodes = {{"If",
                  "",
                  "if",
                  {"flag"},
                  {"y"},
                  {{"then_branch", body({}, {{"Neg", "", "neg", {"x"}, {"negative"}, {}}}, {tensor("negative", DType::f32, {})})},
                   {"else_branch", body({}, {{"Identity", "", "same", {"x"}, {"kept"}, {}}}, {tensor("kept", DType::f32, {})})}}}};
  graph.outputs = {tensor("y", DType::f32, {Dim::symbol("n")})};
  Session session(graph);
  const at::Tensor x = at::full({3}, 2.0F);
  CHECK(session.run({{"flag", at::scalar_tensor(true, at::kBool)}, {"x", x}}).at("y").equal(-x));
  CHECK(session.run({{"flag", at::scalar_tensor(false, at::kBool)}, {"x", x}}).at("y").equal(x));
  CHECK(text(infer(graph).at("y").shape) == "[n]");
  CHECK_THROWS_WITH(session.run({{"flag", at::ones({2}, at::kBool)}, {"x", x}}),
                    ContainsSubstring("node if") && ContainsSubstring("one boolean"));
}

TEST_CASE("sequences are made, changed and joined, and errors name the node") {
  Graph graph;
  graph.inputs = {tensor("a", DType::f32, {Dim(1), Dim(2)}), tensor("b", DType::f32, {Dim(3), Dim(2)}),
                  tensor("where", DType::i64, {})};
  graph.nodes = {{"SequenceConstruct", "", "make", {"a", "b"}, {"s"}, {}},
                 {"SequenceInsert", "", "more", {"s", "a", "where"}, {"t"}, {}},
                 {"SequenceLength", "", "length", {"t"}, {"n"}, {}},
                 {"SequenceAt", "", "pick", {"t", "where"}, {"p"}, {}},
                 {"ConcatFromSequence", "", "join", {"t"}, {"y"}, {{"axis", std::int64_t{0}}}}};
  graph.outputs = {tensor("y", DType::f32, {Dim::symbol("rows"), Dim(2)}), tensor("n", DType::i64, {})};
  Session session(graph);
  const TensorMap feeds{{"a", at::ones({1, 2})}, {"b", at::full({3, 2}, 2.0F)}, {"where", trips(1)}};
  const TensorMap out = session.run(feeds, {"y", "n", "p"});
  CHECK(out.at("y").sizes() == at::IntArrayRef({5, 2}));
  CHECK(out.at("n").item<std::int64_t>() == 3);
  CHECK(out.at("p").equal(at::ones({1, 2})));
  const ValueMap values = infer(graph);
  CHECK(values.at("s").sequence);
  CHECK(values.at("y").shape[1] == Dim(2));
  CHECK_THROWS_WITH(session.run(feeds, {"s"}), ContainsSubstring("is a sequence"));
  TensorMap far = feeds;
  far["where"] = trips(7);
  CHECK_THROWS_WITH(session.run(far, {"y"}), ContainsSubstring("node more") && ContainsSubstring("position 7"));

  graph.nodes.push_back({"Relu", "", "relu", {"s"}, {"z"}, {}});
  graph.outputs = {tensor("z", DType::f32, {})};
  CHECK_THROWS_WITH(infer(graph), ContainsSubstring("relu") && ContainsSubstring("sequence"));
  CHECK_THROWS_WITH(Session(graph).run(feeds), ContainsSubstring("relu") && ContainsSubstring("sequence"));
}

TEST_CASE("a body with other inputs than the node gives is an error that names the node") {
  Graph graph = powers();
  graph.nodes[0].inputs.push_back("x");
  CHECK_THROWS_WITH(infer(graph), ContainsSubstring("'loop'") && ContainsSubstring("3 inputs"));
  graph = powers();
  graph.nodes[0].attributes.erase("body");
  CHECK_THROWS_WITH(infer(graph), ContainsSubstring("'loop'") && ContainsSubstring("body"));
}

TEST_CASE("rounds and what only the body knows are two lengths, and bodies end at a depth") {
  Graph graph = powers();  // each round gives its own rows of x that are not zero
  graph.nodes[0].attributes["body"] =
      body({tensor("round", DType::i64, {}), tensor("going", DType::boolean, {}), tensor("h", DType::f32, {Dim(2), Dim(2)})},
           {{"NonZero", "", "places", {"h"}, {"found"}, {}}, {"Transpose", "", "turn", {"found"}, {"rows"}, {}}},
           {tensor("going", DType::boolean, {}), tensor("h", DType::f32, {}), tensor("rows", DType::i64, {})});
  const Shape stacked = infer(graph).at("sums").shape;
  REQUIRE(stacked.size() == 3);
  CHECK(!stacked[0].known());
  CHECK(!stacked[1].known());
  CHECK(stacked[0] != stacked[1]);
  CHECK(stacked[2] == Dim(2));

  Graph nested;
  nested.inputs = {tensor("flag", DType::boolean, {}), tensor("x", DType::f32, {Dim(1)})};
  auto inner = body({}, {{"Neg", "", "neg", {"x"}, {"y0"}, {}}}, {tensor("y0", DType::f32, {})});
  for (int depth = 1; depth <= 9; ++depth) {
    const std::string out = "y" + std::to_string(depth);
    const Node node{"If", "", "if_" + std::to_string(depth), {"flag"}, {out}, {{"then_branch", inner}, {"else_branch", inner}}};
    inner = body({}, {node}, {tensor(out, DType::f32, {})});
  }
  nested.nodes = {inner->nodes[0]};
  nested.outputs = {tensor("y9", DType::f32, {Dim(1)})};
  CHECK_THROWS_WITH(infer(nested), ContainsSubstring("if_1'") && ContainsSubstring("8 deep"));
}
