// Properties of the choice of units, on groups made by hand: no operator takes part.
#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <cmath>
#include <random>
#include <set>

#include "run/pruning.h"
#include "sdk/error.h"

using namespace espalier;
using Catch::Matchers::ContainsSubstring;
using Ranking = SelectionOptions::Ranking;

namespace {

struct Layers {
  Graph graph;
  std::vector<CoupledGroup> groups;
  Scores scores;

  /// A layer as up [hidden, width] and down [width, hidden], coupled by its width.
  void add(int number, std::int64_t hidden, std::int64_t width, std::vector<double> unit_scores) {
    const auto path = "model.layers." + std::to_string(number) + ".mlp.";
    graph.initializers[path + "up.weight"] =
        Tensor::of(DType::f32, {hidden, width}, std::vector<float>(std::size_t(hidden * width)));
    graph.initializers[path + "down.weight"] =
        Tensor::of(DType::f32, {width, hidden}, std::vector<float>(std::size_t(hidden * width)));
    CoupledGroup group;
    group.id = path + "up.weight:1:0";
    group.members = {{path + "up.weight", 1, 1, true}, {path + "down.weight", 0, 1, false}};
    for (std::int64_t u = 0; u < width; ++u) group.units.push_back({{0, {u}}, {1, {u}}});
    group.parameters_per_unit = 2 * hidden;
    scores[group.id] = std::move(unit_scores);
    groups.push_back(std::move(group));
  }
  Selection select(const SelectionOptions& options) const { return select_units(graph, groups, scores, options); }
  std::int64_t removed(const Selection& s, std::size_t g) const {
    const auto found = s.removal.find(groups[g].id);
    return found == s.removal.end() ? 0 : static_cast<std::int64_t>(found->second.size());
  }
};

std::vector<double> random_scores(std::mt19937_64& random, std::int64_t n, double scale) {
  std::vector<double> scores;
  for (std::int64_t i = 0; i < n; ++i) scores.push_back(scale * static_cast<double>(random() >> 11) * 0x1p-53);
  return scores;
}

Layers random_layers(std::mt19937_64& random) {
  Layers layers;
  const int count = 1 + int(random() % 6);
  for (int i = 0; i < count; ++i) {
    const auto width = std::int64_t(2 + random() % 60);
    layers.add(i, std::int64_t(1 + random() % 9), width, random_scores(random, width, 1.0 + double(random() % 5)));
  }
  return layers;
}

std::string error_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const Error& error) {
    CHECK(error.code() == ErrorCode::invalid_input);
    return error.what();
  }
  return "no error";
}

}  // namespace

TEST_CASE("no selection exceeds its budget, goes below a minimum or misses a multiple") {
  std::mt19937_64 random(11);
  for (int trial = 0; trial < 300; ++trial) {
    const Layers layers = random_layers(random);
    SelectionOptions options;
    options.sparsity = static_cast<double>(random() % 101) / 100;
    options.ranking = random() % 2 ? Ranking::global : Ranking::layer;
    options.minimum = static_cast<double>(random() % 60) / 100;
    options.multiple = std::int64_t(1 + random() % 8);
    CAPTURE(trial, options.sparsity, options.minimum, options.multiple, int(options.ranking));
    const auto selection = layers.select(options);
    std::int64_t total = 0, removed = 0;
    for (std::size_t g = 0; g < layers.groups.size(); ++g) {
      const auto units = std::int64_t(layers.groups[g].units.size());
      const auto gone = layers.removed(selection, g), left = units - gone;
      total += units * layers.groups[g].parameters_per_unit;
      removed += gone * layers.groups[g].parameters_per_unit;
      CHECK(left >= std::max<std::int64_t>(1, std::int64_t(std::ceil(options.minimum * double(units) - 1e-9))));
      CHECK((gone == 0 || left % options.multiple == 0));
      if (gone == 0) continue;
      // Those that went are the least important of their group, listed in ascending order.
      const auto& units_gone = selection.removal.at(layers.groups[g].id);
      CHECK(std::is_sorted(units_gone.begin(), units_gone.end()));
      const std::set<std::int64_t> set(units_gone.begin(), units_gone.end());
      double worst_gone = 0, best_kept = INFINITY;
      const auto& scores = layers.scores.at(layers.groups[g].id);
      for (std::int64_t u = 0; u < units; ++u) {
        if (set.contains(u))
          worst_gone = std::max(worst_gone, scores[std::size_t(u)]);
        else
          best_kept = std::min(best_kept, scores[std::size_t(u)]);
      }
      CHECK(worst_gone <= best_kept);
    }
    CHECK(selection.total == total);
    CHECK(selection.removed == removed);
    CHECK(double(removed) <= options.sparsity * double(total) + 1e-6);
  }
}

TEST_CASE("the budget is spent as far as whole units allow") {
  std::mt19937_64 random(12);
  for (int trial = 0; trial < 100; ++trial) {
    const Layers layers = random_layers(random);
    SelectionOptions options;
    options.sparsity = static_cast<double>(5 + random() % 60) / 100;
    options.minimum = 0.0;
    options.ranking = Ranking::global;
    const auto selection = layers.select(options);
    const auto budget = options.sparsity * double(selection.total);
    for (std::size_t g = 0; g < layers.groups.size(); ++g) {
      const auto left = std::int64_t(layers.groups[g].units.size()) - layers.removed(selection, g);
      if (left > 1) CHECK(double(selection.removed + layers.groups[g].parameters_per_unit) > budget - 1e-6);
    }
  }
}

TEST_CASE("global ranking takes the least important wherever they are, layer ranking the same share of all") {
  Layers layers;
  layers.add(0, 4, 10, {1, 2, 3, 4, 5, 6, 7, 8, 9, 10});
  layers.add(1, 4, 10, {100, 200, 300, 400, 500, 600, 700, 800, 900, 1000});
  SelectionOptions options;
  options.sparsity = 0.3;
  options.ranking = Ranking::layer;
  auto selection = layers.select(options);
  CHECK(layers.removed(selection, 0) == 3);
  CHECK(layers.removed(selection, 1) == 3);
  options.ranking = Ranking::global;
  selection = layers.select(options);
  CHECK(layers.removed(selection, 0) == 6);
  CHECK(layers.removed(selection, 1) == 0);
  CHECK(selection.removal.at(layers.groups[0].id) == std::vector<std::int64_t>{0, 1, 2, 3, 4, 5});
  SECTION("normalising makes groups of different scale compare") {
    options.normalise = SelectionOptions::Normalise::mean;
    selection = layers.select(options);
    CHECK(layers.removed(selection, 0) == 3);
    CHECK(layers.removed(selection, 1) == 3);
  }
  SECTION("the minimum sends the rest elsewhere") {
    options.minimum = 0.5;
    selection = layers.select(options);
    CHECK(layers.removed(selection, 0) == 5);
    CHECK(layers.removed(selection, 1) == 1);
  }
  SECTION("scores count per parameter") {
    Layers unequal;
    unequal.add(0, 1, 4, {1, 1, 1, 1});
    unequal.add(1, 10, 4, {2, 2, 2, 2});  // ten times the parameters for twice the importance
    options.sparsity = 0.25;
    selection = unequal.select(options);
    CHECK(unequal.removed(selection, 0) == 1);  // what the budget leaves over
    CHECK(unequal.removed(selection, 1) == 1);
  }
}

TEST_CASE("per_scope gives layers budgets of their own") {
  Layers layers;
  for (int i = 0; i < 12; ++i) layers.add(i, 3, 20, std::vector<double>(20, double(i)));
  SelectionOptions options;
  options.sparsity = 0.2;
  options.ranking = Ranking::global;
  options.per_scope = {{"*.layers.1", 0.5}, {"*.layers.1*", 0.1}, {"*.layers.2", 0.0}};
  const auto selection = layers.select(options);
  CHECK(layers.removed(selection, 2) == 0);
  CHECK(layers.removed(selection, 10) + layers.removed(selection, 11) + layers.removed(selection, 1) ==
        6);  // the longer pattern wins
  std::int64_t rest = 0;
  for (std::size_t g : {0, 3, 4, 5, 6, 7, 8, 9}) rest += layers.removed(selection, g);
  CHECK(rest == 32);
  options.per_scope = {{"*.layer.1", 0.5}};
  CHECK_THAT(error_of([&] { layers.select(options); }), ContainsSubstring("per_scope") && ContainsSubstring("model.layers.*"));
  options.per_scope = {{"*", 1.5}};
  CHECK_THAT(error_of([&] { layers.select(options); }), ContainsSubstring("1.5"));
}

TEST_CASE("a convolution cut on both sides is counted once") {
  // One tensor [8, 6], its two axes in two groups.
  Graph graph;
  graph.initializers["w.weight"] = Tensor::of(DType::f32, {8, 6}, std::vector<float>(48));
  std::vector<CoupledGroup> groups(2);
  Scores scores;
  for (std::size_t axis = 0; axis < 2; ++axis) {
    groups[axis].id = "w.weight:" + std::to_string(axis) + ":0";
    groups[axis].members = {{"w.weight", axis, 1, true}};
    const std::int64_t n = axis == 0 ? 8 : 6;
    for (std::int64_t u = 0; u < n; ++u) groups[axis].units.push_back({{0, {u}}});
    groups[axis].parameters_per_unit = axis == 0 ? 6 : 8;
    scores[groups[axis].id] = std::vector<double>(std::size_t(n), 1.0);
  }
  SelectionOptions options;
  options.sparsity = 0.75;
  const auto selection = select_units(graph, groups, scores, options);
  CHECK(selection.total == 48);
  CHECK(selection.removal.at("w.weight:0:0").size() == 4);
  CHECK(selection.removal.at("w.weight:1:0").size() == 3);
  CHECK(selection.removed == 48 - 4 * 3);
}

TEST_CASE("what cannot be reached is said") {
  Layers layers;
  layers.add(0, 4, 3, {1, 2, 3});
  SelectionOptions options;
  options.sparsity = 0.2;
  auto selection = layers.select(options);
  CHECK(selection.removed == 0);
  REQUIRE(selection.warnings.size() == 1);
  CHECK_THAT(selection.warnings[0], ContainsSubstring("0.2") && ContainsSubstring("0.0000"));
  options.sparsity = 0.34;
  selection = layers.select(options);
  CHECK(selection.warnings.empty());
  CHECK(layers.removed(selection, 0) == 1);
}

TEST_CASE("scores that do not fit are refused") {
  Layers layers;
  layers.add(0, 4, 3, {1, 2});
  SelectionOptions options;
  options.sparsity = 0.5;
  CHECK_THAT(error_of([&] { layers.select(options); }), ContainsSubstring("3 units") && ContainsSubstring("2 scores"));
  layers.scores.begin()->second = {1, NAN, 2};
  CHECK_THAT(error_of([&] { layers.select(options); }), ContainsSubstring("not finite"));
  layers.scores.clear();
  CHECK_THAT(error_of([&] { layers.select(options); }), ContainsSubstring("model.layers.0.mlp.up.weight:1:0"));
}

TEST_CASE("scopes choose groups by what makes their channels") {
  Layers layers;
  for (int i = 0; i < 3; ++i) layers.add(i, 2, 4, {1, 2, 3, 4});
  const auto kind = CoupledGroup::Kind::channels;
  SelectionOptions options;
  std::vector<std::string> warnings;
  const auto count = [&] { return groups_in_scope(layers.graph, layers.groups, kind, options, warnings).size(); };
  CHECK(count() == 3);
  options.scope.include = {"*.layers.1", "model.layers.2.mlp.up"};
  CHECK(count() == 2);
  options.scope.exclude = {"*.layers.2"};
  CHECK(count() == 1);
  CHECK(warnings.empty());
  options.scope.exclude = {"*.layers.7"};
  CHECK(count() == 2);
  CHECK(warnings.size() == 1);
  options.scope = {{"*.mpl"}, {}};
  CHECK_THAT(error_of([&] { count(); }), ContainsSubstring("*.mpl") && ContainsSubstring("model.layers.*.mlp"));
  options.scope = {{"*"}, {"*.mlp"}};
  CHECK_THAT(error_of([&] { count(); }), ContainsSubstring("excluded"));
  options.scope = {{"*.layers.*.mlp.down"}, {}};  // its channels are made elsewhere
  CHECK_THAT(error_of([&] { count(); }), ContainsSubstring("no channels"));
  options.scope = {};
  CHECK_THAT(error_of([&] { groups_in_scope(layers.graph, layers.groups, CoupledGroup::Kind::heads, options, warnings); }),
             ContainsSubstring("no attention heads"));
}

TEST_CASE("inexact and pinned groups are left whole, and named") {
  Layers layers;
  for (int i = 0; i < 3; ++i) layers.add(i, 2, 4, {1, 2, 3, 4});
  layers.groups[0].exact = false;
  layers.groups[0].reason = "its layer norm sees the whole axis";
  layers.groups[1].pinned = true;
  layers.groups[1].reason = "reaches an output";
  SelectionOptions options;
  std::vector<std::string> warnings;
  CHECK(groups_in_scope(layers.graph, layers.groups, CoupledGroup::Kind::channels, options, warnings).size() == 1);
  REQUIRE(warnings.size() == 1);
  CHECK_THAT(warnings[0], ContainsSubstring("layer norm"));
  options.allow_inexact = true;
  CHECK(groups_in_scope(layers.graph, layers.groups, CoupledGroup::Kind::channels, options, warnings).size() == 2);
  options.scope.include = {"*.layers.1"};
  CHECK_THAT(error_of([&] { groups_in_scope(layers.graph, layers.groups, CoupledGroup::Kind::channels, options, warnings); }),
             ContainsSubstring("reaches an output"));
}
