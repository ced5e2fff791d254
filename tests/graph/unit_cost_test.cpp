#include "graph/unit_cost.h"

#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_floating_point.hpp>

#include "graph/surgery.h"
#include "models.h"

using namespace espalier;
using namespace espalier::test;

namespace {

/// What a cut of the whole graph saves, unit by unit of each group.
void check_against_cuts(const Graph& graph) {
  const ValueMap values = infer(graph);
  const ChannelClasses classes(graph, values);
  const auto groups = coupled_groups(classes, true);
  const auto macs = macs_per_unit(classes, groups);
  REQUIRE(macs.size() == groups.size());
  const double all = total_cost(graph, values, {}).macs;
  std::size_t told = 0;
  for (std::size_t g = 0; g < groups.size(); ++g) {
    const CoupledGroup& group = groups[g];
    INFO(group.id);
    if (group.pinned || static_cast<std::int64_t>(group.units.size()) <= group.multiple) {
      CHECK_FALSE(macs[g].has_value());
      continue;
    }
    std::vector<std::int64_t> units;
    for (std::int64_t unit = 0; unit < group.multiple; ++unit) units.push_back(unit);
    CutReport report;
    const Graph smaller = cut(graph, groups, {{group.id, units}}, true, &report);
    REQUIRE(macs[g].has_value());
    CHECK_THAT(*macs[g] * static_cast<double>(group.multiple),
               Catch::Matchers::WithinAbs(all - total_cost(smaller, report.values, {}).macs, 1e-9 * all));
    told += *macs[g] > 0;
  }
  CHECK(told > 1);
}

}  // namespace

TEST_CASE("the MACs of a unit are those that its cut saves: a language model") { check_against_cuts(language_model(1)); }

TEST_CASE("the MACs of a unit are those that its cut saves: a residual CNN") { check_against_cuts(residual_cnn(2)); }

TEST_CASE("the MACs of a unit, where constants name lengths and a convolution is grouped") {
  ModelBuilder b("grouped", 3);
  b.graph.inputs.push_back({"x", DType::f32, {Dim::symbol("batch"), 3, 8, 8}});
  b.weight("a", {8, 3, 3, 3}, 0.5);
  b.weight("g", {8, 4, 3, 3}, 0.5);
  b.weight("c", {6, 8, 1, 1}, 0.5);
  b.weight("d", {384, 5}, 0.5);
  const auto x = b.add("/a/Conv", "Conv", {"x", "a"}, {{"pads", std::vector<std::int64_t>{1, 1, 1, 1}}});
  const auto y = b.add("/g/Conv", "Conv", {x, "g"}, {{"pads", std::vector<std::int64_t>{1, 1, 1, 1}}, {"group", std::int64_t{2}}});
  const auto z = b.add("/c/Conv", "Conv", {y, "c"});
  b.graph.initializers["flat"] = Tensor::of<std::int64_t>(DType::i64, {2}, {-1, 384});
  const auto flat = b.add("/Reshape", "Reshape", {z, "flat"});
  const auto out = b.add("/d/MatMul", "MatMul", {flat, "d"});
  b.graph.outputs.push_back({out, DType::f32, {Dim::symbol("batch"), 5}});
  check_against_cuts(b.graph);
}
