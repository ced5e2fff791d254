// Pruning by threshold: scores made by hand with an outcome that can be counted, and neurons that are dead by construction.
#include <ATen/core/Tensor.h>
#include <ATen/ops/allclose.h>
#include <ATen/ops/linspace.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/generators/catch_generators_range.hpp>
#include <catch2/matchers/catch_matchers_floating_point.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <cmath>
#include <functional>
#include <limits>

#include "formats/model_artifact.h"
#include "formats/safetensors.h"
#include "graph/surgery.h"
#include "run/arrays.h"
#include "run/session.h"
#include "scoring.h"

using namespace espalier;
using namespace espalier::test;
using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::WithinAbs;
using Catch::Matchers::WithinRel;

namespace {

using Units = std::vector<std::int64_t>;

/// y = out(relu(fc2(relu(fc1(x))))) with 6, 8, 10 and 4 channels: a unit of fc1 has 6 + 1 + 10 parameters, one of fc2 8 + 1 + 4.
/// Every neuron is alive for |x| <= 1: its bias is larger than what its weights can take away.
Graph perceptron() {
  Graph graph;
  graph.inputs = {{"x", DType::f32, {Dim::symbol("batch"), 6}}};
  graph.outputs = {{"y", DType::f32, {Dim::symbol("batch"), 4}}};
  std::string x = "x";
  const auto layer = [&](const std::string& name, std::int64_t from, std::int64_t to, bool last) {
    std::vector<float> weights;
    for (std::int64_t i = 0; i < from * to; ++i) weights.push_back(0.1F * std::sin(1.7F * float(i) + float(to)));
    graph.initializers.emplace("net." + name + ".weight", Tensor::of(DType::f32, {to, from}, weights));
    graph.initializers.emplace("net." + name + ".bias", Tensor::of(DType::f32, {to}, std::vector<float>(std::size_t(to), 3)));
    graph.nodes.push_back({"Gemm",
                           "",
                           "/net/" + name + "/Gemm",
                           {x, "net." + name + ".weight", "net." + name + ".bias"},
                           {last ? "y" : name + "_sum"},
                           {{"transB", std::int64_t{1}}}});
    if (last) return;
    graph.nodes.push_back({"Relu", "", "/net/" + name + "/Relu", {name + "_sum"}, {name + "_out"}, {}});
    x = name + "_out";
  };
  layer("fc1", 6, 8, false);
  layer("fc2", 8, 10, false);
  layer("out", 10, 4, true);
  graph.validate();
  return graph;
}

constexpr const char* fc1 = "net.fc1.weight:0:0";
constexpr const char* fc2 = "net.fc2.weight:0:0";

/// fc1: mean 2.25, largest 6. fc2: mean 45.1, largest 90. Both: mean 26.06.
Scores by_hand() { return {{fc1, {0.1, 1, 2, 3, 0.4, 5, 6, 0.5}}, {fc2, {10, 20, 30, 40, 50, 60, 70, 80, 90, 1}}}; }

/// A stage over the perceptron, and which units it took.
class Stage {
 public:
  Stage() : context(folder_), model(save_model(context, perceptron())) {}

  std::map<std::string, Units> run(Json parameters, const Scores& scores = by_hand()) {
    if (!parameters.contains("minimum")) parameters["minimum"] = 0;
    context.run("pruner/neurons", parameters, {{"model", model}, {"scores", save_scores(context, scores)}});
    const auto file = context.map(context.outputs.at("masks").blobs.at("masks.safetensors"));
    std::map<std::string, Units> gone;
    for (const auto& [group, mask] : parse_safetensors(file.bytes(), file.owner(), "masks")) {
      const auto kept = mask.as<std::uint8_t>();
      for (std::size_t u = 0; u < kept.size(); ++u)
        if (!kept[u]) gone[group].push_back(std::int64_t(u));
    }
    return gone;
  }

 private:
  TemporaryFolder folder_;

 public:
  TestContext context;
  Artifact model;
};

using Gone = std::map<std::string, Units>;

/// `count` rows of x in [-1, 1].
Artifact rows(TestContext& context, std::int64_t count) {
  std::vector<float> values;
  for (std::int64_t i = 0; i < 6 * count; ++i) values.push_back(std::sin(float(i)));
  return save_arrays(context, {{"x", Tensor::of(DType::f32, {count, 6}, values)}}, {});
}

void change(Graph& graph, const std::string& name, const std::function<void(std::vector<float>&)>& how) {
  const Tensor& old = *graph.initializer(name);
  const auto view = old.as<float>();
  std::vector<float> values(view.begin(), view.end());
  how(values);
  graph.initializers.at(name) = Tensor::of(DType::f32, old.shape, values);
}

}  // namespace

TEST_CASE("neurons: what is below the threshold goes, whatever it is relative to") {
  struct Case {
    const char *relative_to, *across;
    double threshold;
    Gone gone;
    std::vector<double> bounds;  ///< fc1, fc2
  };
  const double mean = (18.0 + 451.0) / 18;
  const auto one = GENERATE_COPY(from_range(std::vector<Case>{
      {"none", "group", 0.45, {{fc1, {0, 4}}}, {0.45, 0.45}},
      {"none", "all", 1, {{fc1, {0, 4, 7}}}, {1, 1}},  // scores of 1 are not below it
      {"mean", "group", 0.3, {{fc1, {0, 4, 7}}, {fc2, {0, 9}}}, {0.3 * 2.25, 0.3 * 45.1}},
      {"max", "group", 0.3, {{fc1, {0, 1, 4, 7}}, {fc2, {0, 1, 9}}}, {1.8, 27}},
      {"mean", "all", 0.05, {{fc1, {0, 1, 4, 7}}, {fc2, {9}}}, {0.05 * mean, 0.05 * mean}},
      {"max", "all", 0.05, {{fc1, {0, 1, 2, 3, 4, 7}}, {fc2, {9}}}, {4.5, 4.5}},
  }));
  CAPTURE(one.relative_to, one.across);
  Stage stage;
  const auto gone = stage.run({{"threshold", one.threshold}, {"relative_to", one.relative_to}, {"across", one.across}});
  CHECK(gone == one.gone);
  CHECK(stage.context.warnings.empty());

  const auto taken = [&](const char* group) {
    const auto found = one.gone.find(group);
    return found == one.gone.end() ? std::int64_t{0} : std::int64_t(found->second.size());
  };
  const std::int64_t a = 8 - taken(fc1), b = 10 - taken(fc2), left = a * (6 + 1) + b * (a + 1) + 4 * b;
  const auto& figures = stage.context.figures;
  CHECK(figures.at("below_threshold") == double(taken(fc1) + taken(fc2)));
  CHECK(figures.at("parameters") == double(left + 4));
  CHECK_THAT(figures.at("sparsity"), WithinAbs(double(186 - left) / 186, 1e-12));
  CHECK(figures.at("groups") == 2);
  CHECK(stage.context.details.at("widths").at("rows") == Json{{fc1, 8, a}, {fc2, 10, b}});
  const Json& table = stage.context.details.at("thresholds").at("rows");
  REQUIRE(table.size() == 2);
  for (std::size_t g = 0; g < 2; ++g) {
    const char* group = g == 0 ? fc1 : fc2;
    CHECK(table[g][0] == group);
    CHECK(table[g][1] == (g == 0 ? 8 : 10));
    CHECK(table[g][2] == taken(group));
    CHECK(table[g][3] == taken(group));
    CHECK_THAT(table[g][4].get<double>(), WithinRel(one.bounds[g], 1e-6));
    CHECK_THAT(table[g][5].get<double>(), WithinRel(g == 0 ? 0.1 : 1.0, 1e-6));
  }
  const Graph smaller = load_model(stage.context, stage.context.outputs.at("model"));
  CHECK(smaller.initializer("net.fc2.weight")->shape == std::vector<std::int64_t>{b, a});

  // The same again gives the same bytes.
  const auto digest = stage.context.outputs.at("model").digest();
  stage.run({{"threshold", one.threshold}, {"relative_to", one.relative_to}, {"across", one.across}});
  CHECK(stage.context.outputs.at("model").digest() == digest);
}

TEST_CASE("neurons: across all means all in scope") {
  Stage stage;
  const Json parameters{{"threshold", 0.3}, {"across", "all"}, {"scope", {"net.fc2"}}};
  CHECK(stage.run(parameters) == Gone{{fc2, {0, 9}}});  // of 45.1; of both it would be 7.8
  CHECK(stage.run({{"threshold", 0.3}, {"across", "all"}, {"exclude", {"net.fc1"}}}) == Gone{{fc2, {0, 9}}});
}

TEST_CASE("neurons: minimum, maximum and multiple hold what the threshold would take, and say so") {
  Stage stage;
  auto& context = stage.context;
  SECTION("a group keeps its minimum, one unit at least") {
    CHECK(stage.run({{"threshold", 15}, {"relative_to", "none"}}) == Gone{{fc1, {0, 1, 2, 3, 4, 5, 7}}, {fc2, {0, 9}}});
    CHECK(context.figures.at("below_threshold") == 10);
    REQUIRE(context.warnings.size() == 1);
    CHECK_THAT(context.warnings[0],
               ContainsSubstring("1 of 10 units") && ContainsSubstring("minimum = 0") && ContainsSubstring(fc1));
    CHECK(stage.run({{"threshold", 15}, {"relative_to", "none"}, {"minimum", 0.5}}) == Gone{{fc1, {0, 1, 4, 7}}, {fc2, {0, 9}}});
    REQUIRE(context.warnings.size() == 1);
    CHECK_THAT(context.warnings[0], ContainsSubstring("4 of 10 units") && ContainsSubstring("minimum = 0.5"));
    CHECK(context.details.at("thresholds").at("rows")[0][2] == 8);
    CHECK(context.details.at("thresholds").at("rows")[0][3] == 4);
  }
  SECTION("everything is below it") {
    CHECK(stage.run({{"threshold", 2}, {"relative_to", "max"}, {"minimum", 0.2}}) ==
          Gone{{fc1, {0, 1, 2, 3, 4, 7}}, {fc2, {0, 1, 2, 3, 4, 5, 6, 9}}});
    CHECK(context.figures.at("below_threshold") == 18);
    REQUIRE(context.warnings.size() == 1);
    CHECK_THAT(context.warnings[0], ContainsSubstring("4 of 18 units") && ContainsSubstring("2 groups"));
  }
  SECTION("maximum takes the least important per parameter") {
    // 65 of 186: three units of fc1 at 17, then one of fc2, which costs 5 + 1 + 4 by then.
    CHECK(stage.run({{"threshold", 15}, {"relative_to", "none"}, {"maximum", 0.35}}) == Gone{{fc1, {0, 4, 7}}, {fc2, {9}}});
    CHECK_THAT(context.figures.at("sparsity"), WithinAbs(61.0 / 186, 1e-12));
    CHECK_THAT(context.warnings.back(), ContainsSubstring("maximum = 0.35") && ContainsSubstring("5 of 10 units"));
    // Relative to each group's mean: 37 of 186 are the least unit of each. By the scores alone both would be of fc1.
    CHECK(stage.run({{"threshold", 0.3}, {"maximum", 0.2}}) == Gone{{fc1, {0}}, {fc2, {9}}});
    CHECK_THAT(context.figures.at("sparsity"), WithinAbs(29.0 / 186, 1e-12));
    CHECK(stage.run({{"threshold", 0.3}, {"across", "all"}, {"relative_to", "max"}, {"maximum", 0}}).empty());
  }
  SECTION("what is left is rounded up to the multiple") {
    CHECK(stage.run({{"threshold", 0.3}, {"multiple", 4}}) == Gone{{fc2, {0, 9}}});
    CHECK(context.warnings.empty());
    CHECK(stage.run({{"threshold", 0.3}, {"multiple", 4}, {"scope", {"net.fc1"}}}).empty());
    REQUIRE(context.warnings.size() == 1);
    CHECK_THAT(context.warnings[0], ContainsSubstring("3 units") && ContainsSubstring("multiple = 4"));
  }
}

TEST_CASE("neurons: a threshold that takes nothing is no error, and the smallest score is named") {
  Stage stage;
  auto& context = stage.context;
  CHECK(stage.run({{"threshold", 0.05}, {"relative_to", "none"}}).empty());
  REQUIRE(context.warnings.size() == 1);
  CHECK_THAT(context.warnings[0],
             ContainsSubstring("takes nothing") && ContainsSubstring("smallest score is 0.1") && ContainsSubstring(fc1));
  CHECK(context.figures.at("sparsity") == 0);
  CHECK(context.figures.at("parameters") == double(perceptron().parameter_count()));
  CHECK(context.figures.at("below_threshold") == 0);
  // Relative to each group, the unit of fc2 is nearer to going: 1/45.1.
  CHECK(stage.run({{"threshold", 0.02}}).empty());
  REQUIRE(context.warnings.size() == 1);
  CHECK_THAT(context.warnings[0], ContainsSubstring("smallest score is 1 ") && ContainsSubstring(fc2) &&
                                      ContainsSubstring("0.02217 times the mean score of its group"));

  // A group that scores nothing but 0 has no share to be below.
  Scores scores = by_hand();
  scores[fc1].assign(8, 0.0);
  CHECK(stage.run({{"threshold", 0.3}}, scores) == Gone{{fc2, {0, 9}}});
  REQUIRE(context.warnings.size() == 1);
  CHECK_THAT(context.warnings[0], ContainsSubstring(fc1) && ContainsSubstring("across = \"all\""));
  CHECK(stage.run({{"threshold", 0.3}, {"across", "all"}}, scores) == Gone{{fc1, {0, 1, 2, 3, 4, 5, 6}}, {fc2, {9}}});
}

TEST_CASE("neurons: what makes no sense is refused, with what would") {
  Stage stage;
  const auto refuses = [&](const Json& parameters, const auto& matcher) { CHECK_THROWS_WITH(stage.run(parameters), matcher); };
  refuses({{"threshold", -0.1}}, ContainsSubstring("parameter threshold") && ContainsSubstring("relative_to = \"none\""));
  refuses({{"threshold", std::nan("")}}, ContainsSubstring("parameter threshold"));
  refuses({{"threshold", std::numeric_limits<double>::infinity()}, {"relative_to", "none"}}, ContainsSubstring("finite"));
  refuses({{"threshold", 1}, {"relative_to", "median"}}, ContainsSubstring("\"median\"") && ContainsSubstring("max, mean, none"));
  refuses({{"threshold", 1}, {"across", "layer"}}, ContainsSubstring("\"layer\"") && ContainsSubstring("all, group"));
  refuses({{"threshold", 1}, {"maximum", 1.5}}, ContainsSubstring("parameter maximum"));
  refuses({{"threshold", 1}, {"minimum", -0.5}}, ContainsSubstring("parameter minimum"));
  refuses({{"threshold", 1}, {"multiple", 0}}, ContainsSubstring("parameter multiple"));
  refuses({{"threshold", 1}, {"scope", {"net.fc3"}}}, ContainsSubstring("net.fc1"));

  Scores scores = by_hand();
  scores[fc1][2] = std::nan("");
  CHECK_THROWS_WITH(stage.run({{"threshold", 0.1}}, scores), ContainsSubstring(fc1) && ContainsSubstring("not finite"));
  scores.erase(fc1);
  CHECK_THROWS_WITH(stage.run({{"threshold", 0.1}}, scores), ContainsSubstring(fc1));
  // Negative scores have no meaning relative to their mean, and a plain one against a number.
  scores = by_hand();
  scores[fc1] = {-1, -2, -3, -4, 1, 1, 1, 1};
  CHECK_THROWS_WITH(stage.run({{"threshold", 0.1}}, scores), ContainsSubstring(fc1) && ContainsSubstring("negative"));
  CHECK(stage.run({{"threshold", -2.5}, {"relative_to", "none"}}, scores) == Gone{{fc1, {2, 3}}});
  CHECK_THROWS_WITH(stage.context.run("pruner/neurons", {{"threshold", 0.1}}, {{"model", stage.model}}),
                    ContainsSubstring("metric/activation") && ContainsSubstring("data"));
}

TEST_CASE("neurons: dead neurons go, and outputs stay what they were") {
  const TemporaryFolder folder;
  TestContext context(folder);
  c10::NoGradGuard no_gradients;
  Graph graph = perceptron();
  change(graph, "net.fc1.bias", [](auto& bias) { bias[2] = bias[5] = -3; });
  change(graph, "net.fc2.bias", [](auto& bias) { bias[3] = -100; });
  const auto model = save_model(context, graph);
  const auto data = rows(context, 12);
  // A plain number, small against all that is alive, and a share of the mean.
  const Json parameters = GENERATE(Json{{"threshold", 1e-6}, {"relative_to", "none"}}, Json{{"threshold", 0.001}},
                                   Json{{"threshold", 0.001}, {"relative_to", "max"}, {"across", "all"}});
  context.run("pruner/neurons", parameters, {{"model", model}, {"data", data}});
  CHECK(context.figures.at("below_threshold") == 3);
  CHECK(context.details.at("widths").at("rows") == Json{{fc1, 8, 6}, {fc2, 10, 9}});
  const Graph smaller = load_model(context, context.outputs.at("model"));
  CHECK(smaller.initializer("net.fc2.weight")->shape == std::vector<std::int64_t>{9, 6});
  const TensorMap x{{"x", at::linspace(-1, 1, 180).reshape({30, 6})}};  // none of the data
  const auto before = Session(graph).run(x).at("y"), after = Session(smaller).run(x).at("y");
  CHECK(at::allclose(after, before, 1e-6, 1e-6));
  // The biases that are left are those of the living.
  for (const float bias : smaller.initializer("net.fc1.bias")->as<float>()) CHECK(bias == 3);
  for (const float bias : smaller.initializer("net.fc2.bias")->as<float>()) CHECK(bias == 3);
}

TEST_CASE("neurons: dead channels of convolutions go with their norms") {
  const TemporaryFolder folder;
  TestContext context(folder);
  c10::NoGradGuard no_gradients;
  Graph graph = toy_residual_network();
  change(graph, "block.0.conv1_bn.bias", [](auto& bias) {
    std::fill(bias.begin(), bias.end(), 5.0F);  // some of the random channels are dead by themselves
    bias[7] = bias[0] = bias[23] = -1000;
  });
  const auto model = save_model(context, graph);
  const auto data = toy_images(context, 6, 4);
  context.run("pruner/neurons", {{"threshold", 1e-4}, {"scope", {"block.0.conv1"}}}, {{"model", model}, {"data", data}});
  const Graph smaller = load_model(context, context.outputs.at("model"));
  CHECK(smaller.initializer("block.0.conv1.weight")->shape.at(0) == 21);
  CHECK(smaller.initializer("block.0.conv1_bn.bias")->shape.at(0) == 21);
  CHECK(smaller.initializer("block.0.conv2.weight")->shape.at(1) == 21);
  CHECK(smaller.initializer("block.1.conv1.weight")->shape.at(0) == 24);
  const TensorMap image{{"image", at::linspace(-1, 1, 2 * 3 * 64).reshape({2, 3, 8, 8})}};
  CHECK(at::allclose(Session(smaller).run(image).at("scores"), Session(graph).run(image).at("scores"), 1e-5, 1e-5));
}

TEST_CASE("neurons: a gated feed-forward layer is cut as its mask says, and compensated") {
  const TemporaryFolder folder;
  TestContext context(folder);
  const Graph graph = toy_language_model();
  const auto model = save_model(context, graph);
  const auto data = toy_dataset(context, 12, 24, 5);
  Json parameters{{"threshold", 0.7}, {"scope", {"*.mlp"}}, {"multiple", 4}};
  context.run("pruner/neurons", parameters, {{"model", model}, {"data", data}});
  const auto digest = context.outputs.at("model").digest();
  const Graph smaller = load_model(context, context.outputs.at("model"));
  Removal removal;
  const auto file = context.map(context.outputs.at("masks").blobs.at("masks.safetensors"));
  for (const auto& [group, mask] : parse_safetensors(file.bytes(), file.owner(), "masks")) {
    const auto kept = mask.as<std::uint8_t>();
    for (std::size_t u = 0; u < kept.size(); ++u)
      if (!kept[u]) removal[group].push_back(std::int64_t(u));
  }
  REQUIRE(removal.size() == 2);
  const Graph masked = mask(graph, groups_of(graph), removal);
  CHECK_THAT(loss_of(smaller, context, data), WithinRel(loss_of(masked, context, data), 1e-5));
  CHECK(smaller.initializer("model.layers.0.mlp.down_proj.weight")->shape.at(0) % 4 == 0);
  context.run("pruner/neurons", parameters, {{"model", model}, {"data", data}});
  CHECK(context.outputs.at("model").digest() == digest);
  parameters.update({{"compensate", true}, {"compensation_samples", 12}});
  context.run("pruner/neurons", parameters, {{"model", model}, {"data", data}});
  CHECK(context.details.at("compensation").at("rows").size() == 2);
  CHECK(context.outputs.at("model").digest() != digest);
}
