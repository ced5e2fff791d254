#include "graph/passes.h"

#include <algorithm>
#include <catch2/catch_test_macros.hpp>

#include "graph/op.h"
#include "models.h"
#include "sdk/error.h"

using namespace espalier;
using namespace espalier::test;

namespace {

/// x → Relu → Sigmoid, both outputs.
ModelBuilder chain() {
  ModelBuilder b("chain", 1);
  b.graph.inputs.push_back({"x", DType::f32, {4}});
  const auto h = b.add("/relu", "Relu", {"x"});
  const auto y = b.add("/sigmoid", "Sigmoid", {h});
  b.graph.outputs.push_back({y, DType::f32, {4}});
  return b;
}

}  // namespace

TEST_CASE("passes have names, summaries and an order that does not depend on the build") {
  const auto& passes = all_passes();
  REQUIRE(passes.size() >= 11);
  CHECK(passes.front().name == "opset");
  CHECK(passes.back().name == "dead-code");
  for (const auto& pass : passes) CHECK(!pass.summary.empty());
}

TEST_CASE("an unknown pass is refused with the known ones") {
  auto b = chain();
  try {
    optimize(b.graph, {"dead-code", "magic"});
    FAIL("no error");
  } catch (const Error& error) {
    CHECK(error.where() == "magic");
    CHECK(error.hint().find("constant-folding") != std::string::npos);
  }
}

TEST_CASE("the names at the border stay when a value is replaced") {
  auto b = chain();
  const auto output = b.graph.outputs[0].name;
  SECTION("by what a node makes") {
    replace_uses(b.graph, output, "/relu_output_0");
    CHECK(b.graph.nodes[0].outputs[0] == output);
    CHECK(remove_dead(b.graph) == 1);
  }
  SECTION("by an input") {
    replace_uses(b.graph, output, "x");
    CHECK(b.graph.nodes.back().op == "Identity");
    CHECK(remove_dead(b.graph) == 2);
  }
  CHECK(b.graph.outputs[0].name == output);
  b.graph.validate();
  infer(b.graph);
}

TEST_CASE("bodies keep what they read from outside, under its new name") {
  auto b = chain();
  auto body = std::make_shared<Graph>();
  Node inside;
  inside.op = "Identity";
  inside.name = "inside";
  inside.inputs = {"/relu_output_0"};
  inside.outputs = {"inside_y"};
  body->nodes = {inside};
  body->outputs = {{"inside_y", DType::f32, {4}}};
  b.graph.inputs.push_back({"flag", DType::boolean, {}});
  b.add("/if", "If", {"flag"}, {{"then_branch", body}, {"else_branch", body}});
  b.graph.outputs.push_back({"/if_output_0", DType::f32, {4}});
  b.graph.outputs.erase(b.graph.outputs.begin());
  CHECK(remove_dead(b.graph) == 1);  // the sigmoid; the body still reads the relu
  REQUIRE(b.graph.nodes.size() == 2);
  replace_uses(b.graph, "/relu_output_0", "x");
  CHECK(captures(b.graph.nodes[1]) == std::vector<std::string>{"x"});
  CHECK(body->nodes[0].inputs[0] == "/relu_output_0");  // the body of the caller's copy is untouched
  CHECK(remove_dead(b.graph) == 1);
}

TEST_CASE("unknown operators are carried through all passes") {
  auto b = chain();
  b.graph.nodes[0].domain = "somewhere";
  b.graph.nodes[0].op = "Strange";
  const auto before = b.graph.nodes.size();
  optimize(b.graph);
  CHECK(b.graph.nodes.size() == before);
  CHECK(b.graph.nodes[0].op == "Strange");
}
