#include "engine/estimate.h"

#include <catch2/catch_approx.hpp>
#include <catch2/catch_test_macros.hpp>

#include "recipes.h"

using namespace espalier;
using Catch::Approx;

namespace {

ParameterInfo parameter(const std::string& name, const std::string& type, Json fallback = nullptr) {
  ParameterInfo info;
  info.name = name;
  info.type = type;
  info.default_value = std::move(fallback);
  return info;
}
PortInfo port(const std::string& name, ArtifactType type, bool required = true) {
  PortInfo info;
  info.name = name;
  info.type = type;
  info.required = required;
  return info;
}

/// A source, a metric, and a pruner whose estimates speak of everything that estimates may speak of.
Catalog catalog() {
  ComponentInfo source, metric, pruner, packer;
  source.name = "source/s";
  source.outputs = {port("model", ArtifactType::model)};
  metric.name = "metric/m";
  metric.inputs = {port("model", ArtifactType::model), port("data", ArtifactType::dataset, false)};
  metric.parameters = {parameter("samples", "integer", 16)};
  metric.estimate.memory = Expression("model.parameters * 12");
  metric.estimate.seconds = Expression("2 * model.macs * samples * data.sequence / machine.flops");
  pruner.name = "pruner/p";
  pruner.inputs = {port("model", ArtifactType::model), port("data", ArtifactType::dataset, false)};
  pruner.outputs = {port("model", ArtifactType::model), port("masks", ArtifactType::masks)};
  pruner.parameters = {parameter("sparsity", "number", 0.5), parameter("metric", "component"),
                       parameter("losses", "map<number>", Json::object()), parameter("scope", "list<string>", Json::array())};
  pruner.estimate.memory = Expression("1e6 + max(metric.memory, 8 * model.parameters) + losses.soft + scope.count");
  pruner.estimate.seconds = Expression("metric.seconds + model.bytes / machine.bandwidth / threads");
  pruner.estimate.outputs["model"].emplace("parameters", Expression("model.parameters * (1 - sparsity)"));
  packer.name = "backend/b";
  packer.inputs = {port("model", ArtifactType::model)};
  packer.outputs = {port("package", ArtifactType::package)};
  packer.estimate.memory = Expression("model.parameters");
  PluginInfo plugin;
  plugin.file = "plugin.so";
  plugin.usable = true;
  plugin.components = {source, metric, pruner, packer};
  return Catalog::from({plugin});
}

struct Setting {
  Catalog components = catalog();
  Plan plan;
  std::optional<MachineSpeed> speed = MachineSpeed{1e9, 1e8};

  Setting() {
    add("base", "source/s", {});
    add("pruned", "pruner/p", {{"model", {{"base", "model"}}}});
    add("package", "backend/b", {{"model", {{"pruned", "model"}}}});
    plan.stages[1].params = {{"sparsity", 0.25},
                             {"metric", {{"use", "metric/m"}, {"samples", 4}}},
                             {"losses", {{"soft", 2.0}}},
                             {"scope", {"a", "b", "c"}}};
  }
  void add(const std::string& name, const std::string& use, std::map<std::string, std::vector<StageInput>> inputs) {
    Stage stage;
    stage.name = name;
    stage.use = use;
    stage.component = components.find(use);
    stage.inputs = std::move(inputs);
    plan.stages.push_back(std::move(stage));
  }
  std::map<std::string, StageEstimate> estimates(Facts base) const {
    return estimate_plan(
        plan, components,
        [&](const Stage& stage, const std::string&) { return stage.name == "base" ? std::optional<Facts>(base) : std::nullopt; },
        [&](int) { return speed; });
  }
};

const Facts kModel{{"bytes", 400.0}, {"parameters", 100.0}, {"macs", 1000.0}};

}  // namespace

TEST_CASE("estimates follow facts and parameters through a plan") {
  const auto estimates = Setting().estimates(kModel);
  const StageEstimate& pruned = estimates.at("pruned");
  CHECK(*pruned.memory == Approx(1e6 + 1200 + 2 + 3));
  // The data port is left out: what it would hold counts nothing.
  CHECK(*pruned.seconds == Approx(400 / 1e8 / 2));
  CHECK(pruned.outputs.at("model").at("parameters") == 75);
  CHECK(pruned.outputs.at("model").at("macs") == 1000);
  CHECK_FALSE(pruned.outputs.at("masks").contains("bytes"));
  CHECK(estimates.at("package").memory == 75);
  CHECK_FALSE(estimates.at("package").seconds);
}

TEST_CASE("a component given as parameter is estimated with its own parameters and the stage's inputs") {
  Setting s;
  s.plan.stages[1].inputs["data"] = {{"base", "model"}};
  Facts base = kModel;
  base["sequence"] = 64;
  CHECK(*s.estimates(base).at("pruned").seconds == Approx(2.0 * 1000 * 4 * 64 / 1e9 + 400 / 1e8 / 2));
  // Without "sequence" but with "count": an example is one position.
  base.erase("sequence");
  base["count"] = 9;
  CHECK(*s.estimates(base).at("pruned").seconds == Approx(2.0 * 1000 * 4 / 1e9 + 400 / 1e8 / 2));
}

TEST_CASE("a component that is left out costs nothing, and an estimate can ask whether it is there") {
  Setting s;
  s.plan.stages[1].params["metric"] = nullptr;
  CHECK(*s.estimates(kModel).at("pruned").memory == Approx(1e6 + 800 + 2 + 3));
  CHECK(*s.estimates(kModel).at("pruned").seconds == Approx(400 / 1e8 / 2));
  ComponentInfo asks = *s.components.find("pruner/p");
  asks.estimate.seconds = Expression("if(metric.use == \"\", 1, 2)");
  s.plan.stages[1].component = &asks;
  CHECK(*s.estimates(kModel).at("pruned").seconds == 1);
  s.plan.stages[1].params["metric"] = {{"use", "metric/m"}, {"samples", 4}};
  CHECK(*s.estimates(kModel).at("pruned").seconds == 2);
}

TEST_CASE("what is not known has no estimate, and nothing is made up") {
  Setting s;
  CHECK_FALSE(s.estimates({{"bytes", 400.0}}).at("pruned").memory);
  CHECK_FALSE(s.estimates({{"bytes", 400.0}}).at("package").memory);
  s.speed.reset();
  CHECK(s.estimates(kModel).at("pruned").memory);
  CHECK_FALSE(s.estimates(kModel).at("pruned").seconds);
}

TEST_CASE("an artifact's facts are its bytes, each blob once, and the numbers of its meta") {
  Artifact artifact;
  artifact.meta = {{"parameters", 7}, {"task", "causal-lm"}, {"macs", 2.5}};
  artifact.blobs = {{"a", {sha256("x"), 10}}, {"b", {sha256("x"), 10}}, {"c", {sha256("y"), 5}}};
  CHECK(facts_of(artifact) == Facts{{"bytes", 15.0}, {"parameters", 7.0}, {"macs", 2.5}});
}

TEST_CASE("the machine is measured once") {
  Folder folder;
  Store store = Store::open(folder / "store");
  CHECK_FALSE(known_speed(store, 1));
  const MachineSpeed measured = measure_speed(store, 1);
  CHECK(measured.flops > 1e8);
  CHECK(measured.bandwidth > 1e8);
  CHECK(known_speed(store, 1)->flops == measured.flops);
  CHECK_FALSE(known_speed(store, 2));
}
