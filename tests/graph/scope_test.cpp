#include "graph/scope.h"

#include <catch2/catch_test_macros.hpp>

using namespace espalier;

TEST_CASE("a pattern matches a name or a leading part of it") {
  CHECK(scope_matches("*", "model.norm.weight"));
  CHECK(scope_matches("*.mlp", "model.layers.3.mlp.down_proj.weight"));
  CHECK(scope_matches("model.layers.3", "model.layers.3.mlp.down_proj.weight"));
  CHECK(scope_matches("*.layers.*.mlp.up_proj", "model.layers.11.mlp.up_proj.weight"));
  CHECK_FALSE(scope_matches("model.layers.3", "model.layers.31.mlp.up_proj.weight"));
  CHECK_FALSE(scope_matches("*.mlp", "model.layers.3.mlp_norm.weight"));
  CHECK_FALSE(scope_matches("mlp", "model.layers.3.mlp.up_proj"));
  CHECK_FALSE(scope_matches("", "model"));
  CHECK(scope_matches("a*b*c", "a--b--b--c"));
  // Many stars cost no more than the product of the lengths.
  CHECK_FALSE(scope_matches(std::string(60, '*') + "x", std::string(2000, 'a')));
}

TEST_CASE("node names are scopes too") {
  CHECK(dotted("/model/layers.3/mlp/down_proj/MatMul") == "model.layers.3.mlp.down_proj.MatMul");
  Graph graph;
  graph.initializers["onnx::MatMul_7"] = Tensor::of<float>(DType::f32, {1, 1}, {1});
  graph.nodes.push_back({"MatMul", "", "/encoder/proj/MatMul", {"x", "onnx::MatMul_7"}, {"y"}, {}});
  const auto names = scope_names(Uses(graph), graph, "onnx::MatMul_7");
  CHECK(Scope{{"encoder.proj"}, {}}.covers(names));
  CHECK_FALSE(Scope{{"decoder"}, {}}.covers(names));
  CHECK_FALSE(Scope{{"*"}, {"encoder"}}.covers(names));
}

TEST_CASE("hints name the nearest scopes with layer numbers folded") {
  const std::vector<std::string> names{"model.layers.0.mlp.up_proj.weight", "model.layers.1.mlp.up_proj.weight",
                                       "model.layers.0.self_attn.q_proj.weight"};
  const auto near = near_scopes("*.mpl", names, 2);
  REQUIRE(near.size() == 2);
  CHECK(near[0] == "model.layers.*.mlp");
}
