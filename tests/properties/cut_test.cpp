// A mask and a cut compute the same: on random legal cuts of several groups at once.
#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <cmath>
#include <random>
#include <set>

#include "../graph/models.h"
#include "graph/op.h"
#include "graph/surgery.h"
#include "running.h"

using namespace espalier;
using namespace espalier::test;

namespace {

/// Several groups at once, each losing 5 to 60 % of its units.
Removal random_cut(const std::vector<CoupledGroup>& groups, std::mt19937_64& random) {
  std::uniform_real_distribution<double> share(0.05, 0.60);
  std::bernoulli_distribution takes_part(0.6);
  Removal removal;
  while (removal.size() < 2) {
    for (const auto& group : groups) {
      if (group.pinned || !group.exact || removal.contains(group.id) || !takes_part(random)) continue;
      const auto count = static_cast<std::int64_t>(group.units.size());
      auto gone = static_cast<std::int64_t>(std::llround(share(random) * static_cast<double>(count)));
      gone = std::min(gone, static_cast<std::int64_t>(0.6 * static_cast<double>(count)));
      if (gone < 1) continue;
      std::vector<std::int64_t> units;
      for (std::int64_t u = 0; u < count; ++u) units.push_back(u);
      std::shuffle(units.begin(), units.end(), random);
      units.resize(static_cast<std::size_t>(gone));
      std::sort(units.begin(), units.end());
      removal[group.id] = units;
    }
  }
  return removal;
}

void check_cuts(const Graph& graph, const TensorMap& inputs, int cuts, std::uint64_t seed) {
  const auto groups = coupled_groups(graph, infer(graph));
  std::mt19937_64 random(seed);
  std::set<std::string> used;
  const auto whole = Session(graph).run(inputs);
  for (int i = 0; i < cuts; ++i) {
    const auto removal = random_cut(groups, random);
    for (const auto& [id, units] : removal) used.insert(id);
    CutReport report;
    const auto small = cut(graph, groups, removal, false, &report);
    const auto masked = mask(graph, groups, removal);
    INFO("cut " << i << " of " << removal.size() << " groups, first " << removal.begin()->first);
    CHECK(report.parameters_after < report.parameters_before);
    CHECK(difference(masked, small, inputs) < 1e-4);
    // The cut does something: it is not the mask that changes nothing.
    CHECK(difference(Session(small).run(inputs).begin()->second, whole.begin()->second) > 1e-3);
  }
  for (const auto& group : groups)
    if (!group.pinned && group.exact) CHECK(used.contains(group.id));
}

}  // namespace

TEST_CASE("a language model under 100 random cuts equals its mask") {
  check_cuts(language_model(1), language_inputs(2, 9, 50, 1), 100, 11);
}

TEST_CASE("a residual CNN under 100 random cuts equals its mask") { check_cuts(residual_cnn(2), image_inputs(2, 2), 100, 12); }

namespace {

/// Every matrix becomes int8 with a scale and a zero point a column, as DequantizeLinear nodes.
Graph quantized(const Graph& graph) {
  Graph result = graph;
  std::vector<Node> nodes;
  for (const auto& [name, tensor] : graph.initializers) {
    if (tensor.shape.size() != 2 || !name.ends_with(".weight")) continue;
    const auto rows = tensor.shape[0], columns = tensor.shape[1];
    const auto numbers = tensor.numbers();
    std::vector<float> scales(static_cast<std::size_t>(columns), 1e-6F);
    std::vector<std::int8_t> zeros, values;
    for (std::size_t i = 0; i < numbers.size(); ++i) {
      auto& scale = scales[i % scales.size()];
      scale = std::max(scale, static_cast<float>(std::abs(numbers[i])) / 100.0F);
    }
    for (std::int64_t c = 0; c < columns; ++c) zeros.push_back(static_cast<std::int8_t>(c % 9 - 4));
    for (std::size_t i = 0; i < numbers.size(); ++i)
      values.push_back(static_cast<std::int8_t>(std::lround(numbers[i] / scales[i % scales.size()]) + zeros[i % scales.size()]));
    result.initializers.erase(name);
    result.initializers[name + ".q"] = Tensor::of<std::int8_t>(DType::i8, {rows, columns}, values);
    result.initializers[name + ".scale"] = Tensor::of<float>(DType::f32, {columns}, scales);
    result.initializers[name + ".zero_point"] = Tensor::of<std::int8_t>(DType::i8, {columns}, zeros);
    Node node;
    node.op = "DequantizeLinear";
    node.name = "/" + name + "/DequantizeLinear";
    node.inputs = {name + ".q", name + ".scale", name + ".zero_point"};
    node.outputs = {name};
    node.attributes["axis"] = std::int64_t{1};
    nodes.push_back(node);
  }
  result.nodes.insert(result.nodes.begin(), nodes.begin(), nodes.end());
  return result;
}

}  // namespace

TEST_CASE("a quantized language model under 20 random cuts equals its mask") {
  check_cuts(quantized(language_model(5)), language_inputs(2, 9, 50, 1), 20, 13);
}

TEST_CASE("cutting is deterministic and leaves what is untouched shared") {
  const auto graph = language_model(3);
  const auto groups = coupled_groups(graph, infer(graph));
  std::mt19937_64 random(3);
  const auto removal = random_cut(groups, random);
  const auto a = cut(graph, groups, removal), b = cut(graph, coupled_groups(graph, infer(graph)), removal);
  REQUIRE(a.initializers.size() == b.initializers.size());
  for (const auto& [name, tensor] : a.initializers) {
    CHECK(tensor.digest() == b.initializers.at(name).digest());
    const auto* before = graph.initializer(name);
    if (before && before->shape == tensor.shape && before->digest() == tensor.digest())
      CHECK(tensor.bytes.data() == before->bytes.data());
  }
}

TEST_CASE("two cuts one after the other equal both at once") {
  const auto graph = residual_cnn(4);
  const auto groups = coupled_groups(graph, infer(graph));
  Removal first, second;
  first[groups[0].id] = {1, 3};
  second[groups[1].id] = {0, 2, 5};
  Removal both = first;
  both.insert(second.begin(), second.end());
  const auto once = cut(graph, groups, both);
  const auto step = cut(graph, groups, first);
  const auto twice = cut(step, coupled_groups(step, infer(step)), second);
  CHECK(difference(once, twice, image_inputs(2, 5)) < 1e-6);
}
