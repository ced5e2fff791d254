#include "graph/causal.h"

#include <algorithm>
#include <catch2/catch_test_macros.hpp>

#include "graph/op.h"
#include "models.h"
#include "sdk/error.h"

using namespace espalier;
using namespace espalier::test;

namespace {

const Value* find(const std::vector<Value>& values, const std::string& name) {
  const auto found = std::find_if(values.begin(), values.end(), [&](const Value& v) { return v.name == name; });
  return found == values.end() ? nullptr : &*found;
}

}  // namespace

TEST_CASE("a cache adds its inputs and outputs in order") {
  const auto graph = language_model(1);
  const auto cached = with_kv_cache(graph);
  CHECK(cached.inputs.size() == 3 + 8);
  CHECK(cached.outputs.size() == 1 + 8);
  const Dim batch = Dim::symbol("batch"), past = Dim::symbol("past"), sequence = Dim::symbol("sequence");
  REQUIRE(find(cached.inputs, "past_key_values.1.value"));
  CHECK(find(cached.inputs, "past_key_values.1.value")->shape == Shape{batch, 2, past, 8});
  CHECK(find(cached.inputs, "attention_mask")->shape == Shape{batch, past + sequence});
  CHECK(find(cached.outputs, "present.0.key")->shape == Shape{batch, 3, past + sequence, 8});
  CHECK(find(cached.outputs, "logits")->shape == Shape{batch, sequence, 50});
  const auto values = infer(cached);
  CHECK(values.find("present.0.key")->second.shape == Shape{batch, 3, past + sequence, 8});
  for (const auto& node : cached.nodes) {
    if (node.op != "Attention") continue;
    CHECK(!node.has("is_causal"));
    CHECK(values.find(node.inputs[3])->second.shape == Shape{batch, 1, sequence, past + sequence});
  }
  CHECK(cached.metadata == graph.metadata);
  const auto shapes = cache_shapes(cached);
  REQUIRE(shapes.size() == 4);
  CHECK(shapes[1].kv_heads == 2);
  CHECK(shapes[1].head_size == 8);
}

TEST_CASE("what has no causal attention, or has a past, is refused") {
  CHECK_THROWS_AS(with_kv_cache(residual_cnn(1)), Error);
  CHECK_THROWS_AS(with_kv_cache(with_kv_cache(language_model(1))), Error);
  auto plain = language_model(1);
  for (auto& node : plain.nodes) node.attributes.erase("is_causal");
  CHECK_THROWS_AS(with_kv_cache(plain), Error);
}

TEST_CASE("the last position is taken before the final norm") {
  const auto last = last_position_only(language_model(1));
  const auto values = infer(last);
  CHECK(values.find("logits")->second.shape == Shape{Dim::symbol("batch"), 1, 50});
  CHECK(find(last.outputs, "logits")->shape == Shape{Dim::symbol("batch"), 1, 50});
  const auto norm = std::find_if(last.nodes.begin(), last.nodes.end(), [](const Node& n) { return n.name == "/model/norm"; });
  CHECK(norm->inputs[0].starts_with("/last_position"));
  CHECK_THROWS_AS(last_position_only(residual_cnn(1)), Error);  // its logits are no [batch, sequence, vocabulary]
}
