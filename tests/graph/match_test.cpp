#include "graph/match.h"

#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

using namespace espalier;
using Catch::Matchers::ContainsSubstring;

namespace {

/// y = Relu(x · w + b) · 2 by a constant. Weights are left out where they are expected.
Graph layer(bool weights) {
  Graph graph;
  graph.inputs = {{"x", DType::f32, {Dim::symbol("n"), 2}}};
  graph.outputs = {{"y", DType::f32, {Dim::symbol("n"), 2}}};
  graph.nodes = {{"MatMul", "", "product", {"x", "w"}, {"p"}, {}},
                 {"Add", "", "sum", {"p", "b"}, {"s"}, {}},
                 {"LeakyRelu", "", "act", {"s"}, {"r"}, {{"alpha", 0.1}}},
                 {"Mul", "", "first", {"r", "two"}, {"m"}, {}},
                 {"Mul", "", "second", {"m", "two"}, {"y"}, {}}};
  graph.initializers["two"] = Tensor::of<float>(DType::f32, {}, {2});
  if (!weights) return graph;
  graph.initializers["w"] = Tensor::of<float>(DType::f32, {2, 2}, {1, 2, 3, 4});
  graph.initializers["b"] = Tensor::of<float>(DType::f32, {2}, {5, 6});
  return graph;
}

std::string difference(const Graph& given) {
  const GraphMatch match = match_graphs(given, layer(false));
  CHECK(!match);
  return match.at + ": " + match.difference;
}

}  // namespace

TEST_CASE("a graph matches under other names, through Identity, with copies of constants and weights in 16 bits") {
  Graph given = layer(true);
  CHECK(match_graphs(given, layer(false)).weights == std::map<std::string, std::string>{{"b", "b"}, {"w", "w"}});
  given.initializers["../held"] = Tensor::of<std::uint16_t>(DType::bf16, {2, 2}, {1, 2, 3, 4});
  given.initializers.erase("w");
  given.initializers["again"] = given.initializers["two"];
  given.nodes[0].inputs[1] = "cast";
  given.nodes[1].outputs[0] = given.nodes[2].inputs[0] = "other";
  given.nodes[2].inputs[0] = "same";
  given.nodes[4].inputs[1] = "again";
  given.nodes.push_back({"Identity", "", "id", {"other"}, {"same"}, {}});
  given.nodes.push_back({"Cast", "", "to", {"../held"}, {"cast"}, {{"to", std::int64_t{1}}}});
  const GraphMatch match = match_graphs(given, layer(false));
  INFO(match.at << ": " << match.difference);
  REQUIRE(match);
  CHECK(match.weights.at("w") == "../held");
}

TEST_CASE("where a graph parts from what is expected is told by node") {
  Graph given = layer(true);
  given.nodes[2].attributes["alpha"] = 0.25;
  CHECK_THAT(difference(given), ContainsSubstring("act: alpha of 'LeakyRelu' is 0.25 where 0.1 is expected"));
  given = layer(true);
  given.nodes[1].op = "Sub";
  CHECK_THAT(difference(given), ContainsSubstring("sum: 'Sub' stands where 'Add'"));
  given = layer(true);
  given.initializers["two"] = Tensor::of<float>(DType::f32, {}, {2.1F});
  CHECK_THAT(difference(given), ContainsSubstring("other values than 'two'"));
  given = layer(true);
  given.initializers["two"] = Tensor::of<float>(DType::f32, {1}, {2});
  CHECK_THAT(difference(given), ContainsSubstring("'two'"));
  given = layer(true);
  given.nodes[0].inputs[0] = "z";
  given.inputs[0].name = "z";
  CHECK_THAT(difference(given), ContainsSubstring("the input 'x' is expected"));
  given = layer(true);
  given.outputs.push_back({"s", DType::f32, {}});
  CHECK_THAT(difference(given), ContainsSubstring("an output more"));
  given = layer(true);
  given.nodes.push_back({"Neg", "", "minus", {"b"}, {"-b"}, {}});
  given.nodes[1].inputs[1] = "-b";
  CHECK_THAT(difference(given), ContainsSubstring("minus: 'Neg' makes what should be the stored weight 'b'"));
  given = layer(true);
  given.initializers["w"] = Tensor::of<std::int32_t>(DType::i32, {2, 2}, {1, 2, 3, 4});
  CHECK_THAT(difference(given), ContainsSubstring("int32"));
  // One expected weight cannot be two.
  Graph tied = layer(false);
  tied.nodes[1].inputs[1] = "w";
  CHECK_THAT(match_graphs(layer(true), tied).difference, ContainsSubstring("another value than"));
}
