#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>

#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/matchers/catch_matchers_floating_point.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <cmath>

#include "formats/model_artifact.h"
#include "run/dataset.h"
#include "run/session.h"
#include "run/training.h"
#include "scoring.h"

using namespace espalier;
using namespace espalier::test;
using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::WithinRel;

namespace {

/// The slope of an example's loss along a mask on some channels at one position of a value [1, positions, channels], by central
/// differences in f64.
double slope(const Graph& graph, const TensorMap& example, const std::string& value, std::int64_t position,
             const std::vector<std::int64_t>& channels) {
  constexpr double kStep = 1e-4;
  const auto loss = [&](double mask) {
    Session session(graph, {.compute = DType::f64});
    session.hook(value, [&](const std::string&, const at::Tensor& x) {
      at::Tensor masked = x.clone();
      for (const auto channel : channels) masked.select(2, channel).select(1, position).mul_(mask);
      return masked;
    });
    return causal_cross_entropy(session.run(example, {"logits"}).at("logits"), example.at("input_ids")).item<double>();
  };
  return (loss(1 + kStep) - loss(1 - kStep)) / (2 * kStep);
}

}  // namespace

TEST_CASE("fisher squares the slope of the loss along a mask for each position, or for each example") {
  const TemporaryFolder folder;
  TestContext context(folder);
  const Graph graph = toy_language_model();
  const auto model = save_model(context, graph);
  const auto data = toy_dataset(context, 2, 8, 5);
  const auto groups = groups_of(graph);
  const std::string masks = GENERATE("position", "pass");
  const std::string weight = GENERATE("model.layers.0.mlp.down_proj.weight", "model.layers.1.self_attn.o_proj.weight");
  CAPTURE(masks, weight);
  const auto scores = score(context, "metric/fisher", {{"samples", 2}, {"masks", masks}}, model, &data);

  const auto& group = group_with(groups, weight);
  std::string value;
  for (const Node& node : graph.nodes)
    if (node.input(1) == weight) value = node.input(0);
  REQUIRE(!value.empty());
  const TokenDataset windows(context, data);
  for (std::size_t u = 0; u < group.units.size(); u += 3) {
    std::vector<std::int64_t> channels;
    for (const auto& slice : group.units[u])
      if (group.members[slice.member].tensor == weight) channels.assign(slice.indices.begin(), slice.indices.end());
    double expected = 0;
    for (const std::int64_t number : {0, 1}) {
      const TensorMap example = windows.batch({number});
      double sum = 0;
      for (std::int64_t t = 0; t < 8; ++t) {
        const double each = slope(graph, example, value, t, channels);
        if (masks == "position") expected += each * each / 2 / 2;
        sum += each;
      }
      if (masks == "pass") expected += sum * sum / 2 / 2;
    }
    CHECK_THAT(scores.at(group.id)[u], WithinRel(expected, 2e-3));
  }
}

TEST_CASE("fisher scores a quantized model, and says what it lacks") {
  const TemporaryFolder folder;
  TestContext context(folder);
  const auto model = save_model(context, toy_language_model());
  const auto data = toy_dataset(context, 4, 12, 6);
  const auto wide = score(context, "metric/fisher", {{"samples", 4}}, model, &data);
  context.run("quantizer/rtn", {{"bits", 8}}, {{"model", model}});
  const auto quantized = context.outputs.at("model");
  const auto coded = score(context, "metric/fisher", {{"samples", 4}}, quantized, &data);
  CHECK(coded != wide);
  REQUIRE(coded.size() == wide.size());
  for (const std::string layer : {"0", "1"}) {  // quantizing calls a weight's codes by another name
    const auto &expected = wide.at("model.layers." + layer + ".mlp.gate_proj.weight:1:0"),
               &scores = coded.at("model.layers." + layer + ".mlp.gate_proj.weight.q:1:0");
    const double largest = *std::max_element(expected.begin(), expected.end());
    for (std::size_t u = 0; u < scores.size(); ++u) CHECK(std::abs(scores[u] - expected[u]) < 0.1 * largest);
  }
  CHECK_THROWS_WITH(score(context, "metric/fisher", {}, model), ContainsSubstring("metric/fisher needs data"));
  Graph alone;
  alone.inputs = {{"input_ids", DType::i64, {Dim::symbol("batch"), Dim::symbol("sequence")}}};
  alone.outputs = {{"logits", DType::f32, {}}};
  alone.initializers["table"] = Tensor::of(DType::f32, {9, 4}, std::vector<float>(36, 0.5f));
  Node look;
  look.op = "Gather";
  look.name = "look";
  look.inputs = {"table", "input_ids"};
  look.outputs = {"logits"};
  alone.nodes = {look};
  CHECK_THROWS_AS(score(context, "metric/fisher", {{"samples", 3}}, save_model(context, alone), &data), Error);
}
