#include <ATen/TensorOperators.h>
#include <ATen/ops/allclose.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/ones.h>

#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_floating_point.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <set>

#include "formats/model_artifact.h"
#include "formats/safetensors.h"
#include "graph/block_surgery.h"
#include "run/session.h"
#include "toy_model.h"

using namespace espalier;
using namespace espalier::test;
using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::WithinAbs;

namespace {

Graph layers(std::int64_t count) { return toy_language_model({.layers = count}, 3); }

void scale(Graph& graph, const std::string& name, double factor) {
  const at::Tensor values = to_aten(*graph.initializer(name));
  graph.initializers[name] = from_aten(values * factor);
}

/// A layer that hardly adds anything to the residual stream.
void quieten(Graph& graph, int layer) {
  for (const char* part : {"self_attn.o_proj", "mlp.down_proj"})
    scale(graph, "model.layers." + std::to_string(layer) + "." + part + ".weight", 1e-3);
}

TensorMap tokens(std::int64_t length = 11) {
  return {{"input_ids", (at::arange(2 * length, at::kLong) * 7 % 61).reshape({2, length})},
          {"attention_mask", at::ones({2, length}, at::kLong)},
          {"position_ids", at::arange(length, at::kLong).expand({2, length})}};
}

/// The graph's outputs when each of `gone` hands on what entered it.
TensorMap skipping(const Graph& graph, const std::vector<std::size_t>& gone) {
  const auto blocks = find_blocks(graph);
  Session session(graph);
  TensorMap entered;
  for (const std::size_t b : gone) {
    session.hook(blocks[b].input, [&](const std::string& name, const at::Tensor& value) {
      const auto before = std::find_if(gone.begin(), gone.end(), [&](std::size_t g) { return blocks[g].output == name; });
      // The input of this block may be the output of another one that is skipped.
      return entered[name] = before == gone.end() ? value : entered.at(blocks[*before].input);
    });
  }
  for (const std::size_t b : gone)
    session.hook(blocks[b].output,
                 [&, b](const std::string& name, const at::Tensor&) { return entered[name] = entered.at(blocks[b].input); });
  return session.run(tokens());
}

std::vector<int> left(const Graph& graph) {
  std::set<int> numbers;
  for (const auto& [name, tensor] : graph.initializers)
    if (name.starts_with("model.layers.")) numbers.insert(std::stoi(name.substr(13)));
  return {numbers.begin(), numbers.end()};
}

struct Pruned {
  TemporaryFolder folder;
  TestContext context{folder};
  Graph graph, smaller;

  Pruned(Graph model, const Json& parameters) : graph(std::move(model)) {
    context.run("pruner/blocks", parameters, {{"model", save_model(context, graph)}, {"data", toy_dataset(context, 6, 24, 5)}});
    smaller = load_model(context, context.outputs.at("model"));
  }
};

}  // namespace

TEST_CASE("named blocks leave and the others compute what they did with those skipped") {
  const Pruned pruned(layers(5), {{"blocks", {"1", "model.layers.2", "4"}}});
  CHECK(left(pruned.smaller) == std::vector<int>{0, 3});
  const auto expected = skipping(pruned.graph, {1, 2, 4});
  const auto got = Session(pruned.smaller).run(tokens());
  CHECK(at::allclose(got.at("logits"), expected.at("logits"), 1e-6, 1e-6));
  CHECK_FALSE(at::allclose(got.at("logits"), Session(pruned.graph).run(tokens()).at("logits"), 1e-2, 1e-2));
  CHECK(pruned.context.figures.at("blocks") == 2);
  const auto per_layer = double(pruned.graph.parameter_count() - pruned.smaller.parameter_count());
  CHECK_THAT(pruned.context.figures.at("sparsity"), WithinAbs(per_layer / double(pruned.graph.parameter_count()), 1e-12));

  const auto file = pruned.context.map(pruned.context.outputs.at("masks").blobs.at("masks.safetensors"));
  const auto masks = parse_safetensors(file.bytes(), file.owner(), "masks");
  const auto kept = masks.at("blocks:0").as<std::uint8_t>();
  CHECK(std::vector<int>(kept.begin(), kept.end()) == std::vector<int>{1, 0, 0, 1, 0});
}

TEST_CASE("the block that does least goes, by influence and by loss") {
  for (const char* choose : {"influence", "loss"}) {
    Graph graph = layers(4);
    quieten(graph, 2);
    const Pruned pruned(graph, {{"count", 1}, {"choose", choose}, {"samples", 3}});
    CAPTURE(choose);
    CHECK(left(pruned.smaller) == std::vector<int>{0, 1, 3});
    const auto& rows = pruned.context.details.at("blocks").at("rows");
    REQUIRE(rows.size() == 4);
    CHECK(rows[2][3] == "removed");
    if (std::string(choose) == "loss") {
      CHECK_THAT(pruned.context.figures.at("loss_after"), WithinAbs(pruned.context.figures.at("loss_before"), 1e-2));
      continue;
    }
    CHECK(rows[2][2].get<double>() < 0.01);
    CHECK(rows[1][2].get<double>() > 0.02);
  }
}

TEST_CASE("removal by loss takes the block again that costs least once others are gone") {
  Graph graph = layers(4);
  quieten(graph, 0);
  quieten(graph, 3);
  const Pruned pruned(graph, {{"count", 2}, {"choose", "loss"}, {"samples", 2}});
  CHECK(left(pruned.smaller) == std::vector<int>{1, 2});
}

TEST_CASE("neighbours that together do least go as a run") {
  Graph graph = layers(6);
  quieten(graph, 0);  // the least of all, with a loud neighbour
  scale(graph, "model.layers.0.mlp.down_proj.weight", 0);
  quieten(graph, 3);
  quieten(graph, 4);
  const Pruned pruned(graph, {{"count", 2}, {"choose", "run"}, {"samples", 3}});
  CHECK(left(pruned.smaller) == std::vector<int>{0, 1, 2, 5});
  const Pruned kept(graph, {{"count", 2}, {"choose", "run"}, {"samples", 3}, {"keep", {"3"}}});
  CHECK(left(kept.smaller) != std::vector<int>{0, 1, 2, 5});
  CHECK(kept.context.details.at("blocks").at("rows")[3][4] == "kept");
}

TEST_CASE("weights of blocks that leave go into the block before them") {
  const std::string part = ".mlp.up_proj.weight";
  const auto of = [&](const Graph& graph, int layer) {
    return to_aten(*graph.initializer("model.layers." + std::to_string(layer) + part)).to(at::kDouble);
  };
  const Pruned sum(layers(4), {{"blocks", {"1", "2"}}, {"merge", "difference"}});
  CHECK(at::allclose(of(sum.smaller, 0), of(sum.graph, 1) + of(sum.graph, 2) - of(sum.graph, 0), 1e-6, 1e-6));
  CHECK(at::allclose(of(sum.smaller, 3), of(sum.graph, 3), 0, 0));
  const Pruned mean(layers(4), {{"blocks", {"1", "2"}}, {"merge", "mean"}});
  CHECK(at::allclose(of(mean.smaller, 0), (of(mean.graph, 0) + of(mean.graph, 1) + of(mean.graph, 2)) / 3, 1e-6, 1e-6));
  // At the beginning of the run there is none before: the one after takes them.
  const Pruned first(layers(3), {{"blocks", {"0"}}, {"merge", "mean"}});
  CHECK(at::allclose(of(first.smaller, 1), (of(first.graph, 0) + of(first.graph, 1)) / 2, 1e-6, 1e-6));
  // The tied embedding and the rotary tables are no block's own.
  CHECK(first.smaller.initializer("model.embed_tokens.weight")->digest() ==
        first.graph.initializer("model.embed_tokens.weight")->digest());
}

TEST_CASE("a value at the border keeps its name when its block leaves") {
  Graph graph = layers(4);
  auto blocks = find_blocks(graph);
  const ValueMap values = infer(graph);
  for (const std::size_t b : {1U, 2U}) graph.outputs.push_back({blocks[b].output, DType::f32, values.at(blocks[b].output).shape});
  blocks = find_blocks(graph);
  const Graph smaller = without_blocks(graph, blocks, {1, 2});
  REQUIRE(smaller.outputs.size() == 3);
  CHECK(smaller.outputs[1].name == blocks[1].output);
  const auto got = Session(smaller).run(tokens());
  const auto before = Session(graph).run(tokens(), {blocks[0].output}).at(blocks[0].output);
  CHECK(at::allclose(got.at(blocks[1].output), before, 1e-6, 1e-6));
  CHECK(at::allclose(got.at(blocks[2].output), before, 1e-6, 1e-6));
}

TEST_CASE("a block that something outside looks into stays, and says why") {
  Graph graph = layers(3);
  const auto blocks = find_blocks(graph);
  const ValueMap values = infer(graph);
  const std::string inner = graph.nodes[blocks[1].nodes[0]].outputs[0] == blocks[1].output
                                ? graph.nodes[blocks[1].nodes[1]].outputs[0]
                                : graph.nodes[blocks[1].nodes[0]].outputs[0];
  graph.outputs.push_back({inner, values.at(inner).dtype, values.at(inner).shape});
  const auto again = find_blocks(graph);
  REQUIRE(again.size() == 3);
  CHECK_THROWS_WITH(without_blocks(graph, again, {1}), ContainsSubstring("is an output of the model") && ContainsSubstring(inner));
  CHECK_THROWS_WITH(without_blocks(graph, again, {7}), ContainsSubstring("there is no block 7"));
}

TEST_CASE("pruning blocks refuses what makes no sense") {
  const auto refuses = [](const Json& parameters, const std::string& words, bool with_data = true) {
    const TemporaryFolder folder;
    TestContext context(folder);
    std::map<std::string, Artifact> inputs{{"model", save_model(context, layers(3))}};
    if (with_data) inputs["data"] = toy_dataset(context, 2, 24, 5);
    CHECK_THROWS_WITH(context.run("pruner/blocks", parameters, inputs), ContainsSubstring(words));
  };
  refuses(Json::object(), "give either count or blocks");
  refuses({{"count", 1}, {"blocks", {"0"}}}, "give either count or blocks");
  refuses({{"count", 4}}, "4 blocks are to go, and 3 of 3 can");
  refuses({{"count", 3}, {"keep", {"1"}}}, "3 blocks are to go, and 2 of 3 can");
  refuses({{"count", 2}, {"choose", "run"}, {"keep", {"1"}}}, "no 2 blocks in a row");
  refuses({{"blocks", {"9"}}}, "has no block 9");
  refuses({{"blocks", {"model.layers.9"}}}, "model.layers.2");
  refuses({{"blocks", {"1"}}, {"keep", {"model.layers.1"}}}, "stands in blocks and in keep");
  refuses({{"blocks", {"0", "1", "2"}}, {"merge", "mean"}}, "there is none to merge it into");
  refuses({{"count", 1}}, "needs data", false);
}
