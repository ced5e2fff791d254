// Heads whose attention is known in closed form: positions come in as one-hot vectors, keys say which position they are, and
// queries ask for nothing (uniform attention) or for one position, so loudly that nothing else is heard.
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/matchers/catch_matchers_floating_point.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <functional>

#include "formats/model_artifact.h"
#include "run/arrays.h"
#include "scoring.h"

using namespace espalier;
using namespace espalier::test;
using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::WithinAbs;

namespace {

constexpr std::int64_t heads = 4;

struct Shape4 {
  std::int64_t length = 6;  ///< queries
  std::int64_t keys = 6;    ///< other than length: from a second input
  std::int64_t pairs = 4;   ///< key-value heads
  bool causal = true;
  bool additive = false;  ///< the order comes as -10000 on what comes later, as exporters write it
};

/// Query heads: 0 asks for nothing, 1 for the position before, 2 for the first, 3 for its own.
Graph known_heads(const Shape4& z) {
  const std::int64_t size = std::max(z.length, z.keys), cross = z.length != z.keys;
  Graph graph;
  const Dim batch = Dim::symbol("batch");
  graph.inputs = {{"x", DType::f32, {batch, z.length, size}}, {"attention_mask", DType::i64, {batch, z.keys}}};
  if (cross) graph.inputs.push_back({"y", DType::f32, {batch, z.keys, size}});
  graph.outputs = {{"out", DType::f32, {batch, z.length, 3}}};
  std::vector<float> q(static_cast<std::size_t>(size * heads * size), 0.0F),
      k(static_cast<std::size_t>(size * z.pairs * size), 0.0F);
  const auto ask = [&](std::int64_t head, std::int64_t position, std::int64_t wanted) {
    q[static_cast<std::size_t>((position * heads + head) * size + wanted)] = 1000;
  };
  for (std::int64_t p = 0; p < size; ++p) {
    ask(1, p, p > 0 ? p - 1 : 0);
    ask(2, p, 0);
    ask(3, p, p);
    for (std::int64_t h = 0; h < z.pairs; ++h) k[static_cast<std::size_t>((p * z.pairs + h) * size + p)] = 1;
  }
  graph.initializers = {
      {"wq", Tensor::of(DType::f32, {size, heads * size}, q)},
      {"wk", Tensor::of(DType::f32, {size, z.pairs * size}, k)},
      {"wv", Tensor::of(DType::f32, {size, z.pairs * 2}, std::vector<float>(std::size_t(size * z.pairs * 2), 0.25F))},
      {"wo", Tensor::of(DType::f32, {heads * 2, 3}, std::vector<float>(std::size_t(heads * 6), 0.5F))},
      {"axes", Tensor::of(DType::i64, {2}, std::vector<std::int64_t>{1, 2})}};
  const std::string from = cross ? "y" : "x";
  graph.nodes = {{"Cast", "", "/mask/Cast", {"attention_mask"}, {"open"}, {{"to", std::int64_t{9}}}},
                 {"Unsqueeze", "", "/mask/Unsqueeze", {"open", "axes"}, {"mask"}, {}},
                 {"MatMul", "", "/q", {"x", "wq"}, {"q"}, {}},
                 {"MatMul", "", "/k", {from, "wk"}, {"k"}, {}},
                 {"MatMul", "", "/v", {from, "wv"}, {"v"}, {}},
                 {"Attention",
                  "",
                  "/attention",
                  {"q", "k", "v", "mask"},
                  {"a"},
                  {{"q_num_heads", heads}, {"kv_num_heads", z.pairs}, {"is_causal", std::int64_t{z.causal}}}},
                 {"MatMul", "", "/o", {"a", "wo"}, {"out"}, {}}};
  if (z.additive) {
    std::vector<float> later;
    for (std::int64_t i = 0; i < z.length * z.keys; ++i) later.push_back(i % z.keys > i / z.keys ? -10000.0F : 0.0F);
    graph.nodes.erase(graph.nodes.begin(), graph.nodes.begin() + 2);
    graph.initializers.erase("axes");
    graph.initializers.emplace("mask", Tensor::of(DType::f32, {z.length, z.keys}, later));
    graph.inputs.erase(graph.inputs.begin() + 1);
  }
  graph.validate();
  return graph;
}

/// Positions as one-hot vectors, of which those in [begin, end) may be attended to.
Artifact positions(TestContext& context, const Shape4& z, std::int64_t count, std::int64_t begin, std::int64_t end) {
  const std::int64_t size = std::max(z.length, z.keys);
  const auto one_hot = [&](std::int64_t length) {
    std::vector<float> values(static_cast<std::size_t>(count * length * size), 0.0F);
    for (std::int64_t i = 0; i < count * length; ++i) values[static_cast<std::size_t>(i * size + i % length)] = 1;
    return Tensor::of(DType::f32, {count, length, size}, values);
  };
  std::vector<std::int64_t> mask;
  for (std::int64_t i = 0; i < count * z.keys; ++i) mask.push_back(i % z.keys >= begin && i % z.keys < end);
  std::map<std::string, Tensor> arrays{{"x", one_hot(z.length)}, {"attention_mask", Tensor::of(DType::i64, {count, z.keys}, mask)}};
  if (z.length != z.keys) arrays.emplace("y", one_hot(z.keys));
  return save_arrays(context, arrays, {});
}

double mean_of(std::int64_t from, std::int64_t to, const std::function<double(double)>& row) {
  double sum = 0;
  for (std::int64_t i = from; i < to; ++i) sum += row(double(i));
  return sum / double(to - from);
}

}  // namespace

TEST_CASE("entropy, mass and distance of known attention") {
  const TemporaryFolder folder;
  TestContext context(folder);
  const bool additive = GENERATE(false, true);
  const Shape4 z{.pairs = GENERATE(4, 2), .causal = !additive, .additive = additive};
  const auto model = save_model(context, known_heads(z));
  const auto data = positions(context, z, 3, 0, 6);
  const std::string measure = GENERATE("entropy", "mass", "distance");
  const std::string keep = GENERATE("high", "low");
  const int batch = GENERATE(1, 2);
  CAPTURE(measure, keep, batch, z.pairs, additive);
  const auto scores =
      score(context, "metric/attention", {{"measure", measure}, {"keep", keep}, {"samples", 3}, {"batch", batch}}, model, &data);
  REQUIRE(scores.size() == 1);
  const auto& own = scores.begin()->second;
  // By query head, over rows i = 1 … 5 (mass: 2 … 5).
  std::vector<double> expected;
  if (measure == "entropy") expected = {1, 0, 0, 0};
  if (measure == "mass") expected = {mean_of(2, 6, [](double i) { return (i - 1) / (i + 1); }), 1, 0, 0};
  if (measure == "distance") expected = {0.5, mean_of(1, 6, [](double i) { return 1 / i; }), 1, 0};
  if (measure == "mass") expected[1] = 1;
  const auto& rows = context.details.at("heads").at("rows");
  REQUIRE(rows.size() == 4);
  for (std::size_t h = 0; h < 4; ++h) {
    CHECK(rows[h][1] == h);
    CHECK_THAT(rows[h][4].get<double>(), WithinAbs(expected[h], 1e-6));
    if (keep == "low") expected[h] = 1 - expected[h];
  }
  if (z.pairs == 2) expected = {(expected[0] + expected[1]) / 2, (expected[2] + expected[3]) / 2};
  REQUIRE(own.size() == expected.size());
  for (std::size_t u = 0; u < own.size(); ++u) CHECK_THAT(own[u], WithinAbs(expected[u], 1e-6));
}

TEST_CASE("attention's padding counts on neither side") {
  const TemporaryFolder folder;
  TestContext context(folder);
  const Shape4 z{};
  const auto model = save_model(context, known_heads(z));
  const std::int64_t begin = GENERATE(0, 2);
  const auto data = positions(context, z, 2, begin, begin + 4);
  const auto own = [&](const std::string& measure) {
    return score(context, "metric/attention", {{"measure", measure}, {"samples", 2}}, model, &data).begin()->second;
  };
  CHECK_THAT(own("entropy")[0], WithinAbs(1, 1e-6));
  CHECK_THAT(own("mass")[0], WithinAbs(mean_of(2, 4, [](double i) { return (i - 1) / (i + 1); }), 1e-6));
  CHECK_THAT(own("distance")[0], WithinAbs(0.5, 1e-6));
  CHECK_THAT(own("distance")[1], WithinAbs(mean_of(1, 4, [](double i) { return 1 / i; }), 1e-6));
}

TEST_CASE("attention in both directions, and between two sequences") {
  const TemporaryFolder folder;
  TestContext context(folder);
  const Shape4 both{.causal = false};
  const auto encoder = save_model(context, known_heads(both));
  const auto data = positions(context, both, 2, 0, 6);
  const auto distance =
      score(context, "metric/attention", {{"measure", "distance"}, {"samples", 2}}, encoder, &data).begin()->second;
  CHECK_THAT(distance[0], WithinAbs(mean_of(0, 6,
                                            [](double i) {
                                              double sum = 0;
                                              for (int j = 0; j < 6; ++j) sum += std::abs(i - j);
                                              return sum / 6 / std::max(i, 5 - i);
                                            }),
                                    1e-6));
  CHECK_THAT(distance[3], WithinAbs(0, 1e-6));

  const Shape4 cross{.keys = 8, .causal = false};
  const auto model = save_model(context, known_heads(cross));
  const auto two = positions(context, cross, 2, 0, 8);
  CHECK_THAT(score(context, "metric/attention", {{"samples", 2}}, model, &two).begin()->second[0], WithinAbs(1, 1e-6));
  CHECK_THROWS_WITH(score(context, "metric/attention", {{"measure", "distance"}, {"samples", 2}}, model, &two),
                    ContainsSubstring("different sequences"));
}

TEST_CASE("attention scores heads and nothing else") {
  const TemporaryFolder folder;
  TestContext context(folder);
  const Graph graph = toy_language_model();
  const auto model = save_model(context, graph);
  const auto data = toy_dataset(context, 3, 16, 6);
  const auto scores = score(context, "metric/attention", {{"samples", 3}}, model, &data);
  CHECK(scores.size() == 2);
  for (const auto& group : groups_of(graph)) CHECK(scores.contains(group.id) == (group.kind == CoupledGroup::Kind::heads));

  const Json metric{{"use", "metric/attention"}, {"samples", 3}, {"measure", "mass"}};
  CHECK_THROWS_WITH(context.run("pruner/channels", {{"sparsity", 0.3}, {"scope", {"*.mlp"}}, {"metric", metric}},
                                {{"model", model}, {"data", data}}),
                    ContainsSubstring("none of the 2 groups is made of heads"));
  CHECK_THROWS_WITH(score(context, "metric/ensemble", {{"metrics", Json::array({metric})}}, model, &data),
                    ContainsSubstring("metric/attention gives no score"));
  CHECK_THROWS_WITH(score(context, "metric/attention", {}, model), ContainsSubstring("metric/attention needs data"));
  const auto images = toy_images(context, 2, 1);
  CHECK_THROWS_WITH(score(context, "metric/attention", {}, save_model(context, toy_residual_network()), &images),
                    ContainsSubstring("none of the"));
  const auto narrow = toy_dataset(context, 3, 2, 6);
  CHECK_THROWS_WITH(score(context, "metric/attention", {{"samples", 3}, {"measure", "mass"}}, model, &narrow),
                    ContainsSubstring("no position has a choice"));
  Graph taken = graph;
  for (auto& node : taken.nodes)
    if (node.op == "Attention") {
      node.outputs.resize(4);
      node.outputs[3] = node.name + "_raw";
    }
  CHECK_THROWS_WITH(score(context, "metric/attention", {{"samples", 3}}, save_model(context, taken), &data),
                    ContainsSubstring("to another reader"));
}
