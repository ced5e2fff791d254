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
  // A result that is there replaces what was expected of it, and only what it states.
  Setting s;
  const auto packed = estimate_plan(
      s.plan, s.components,
      [](const Stage& stage, const std::string&) {
        return stage.name == "base"     ? std::optional<Facts>(kModel)
               : stage.name == "pruned" ? std::optional<Facts>({{"parameters", 70.0}})
                                        : std::nullopt;
      },
      [&](int) { return s.speed; });
  CHECK(packed.at("package").memory == 70);
  CHECK(packed.at("package").outputs.at("package").at("macs") == 1000);
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

TEST_CASE("components in a list take the memory of the largest and the time of all; what is left out counts nothing") {
  ComponentInfo many;
  many.name = "metric/many";
  many.inputs = {port("model", ArtifactType::model), port("data", ArtifactType::dataset, false)};
  many.parameters = {parameter("metrics", "list<component>"), parameter("window", "integer")};
  many.estimate.memory = Expression("metrics.memory + if(window, window, 3)");
  many.estimate.seconds = Expression("metrics.seconds");
  PluginInfo plugin;
  plugin.file = "many.so";
  plugin.usable = true;
  plugin.components = {many, *catalog().find("metric/m"), *catalog().find("source/s")};
  Setting s;
  s.components = Catalog::from({plugin});
  s.plan.stages.clear();
  s.add("base", "source/s", {});
  s.add("many", "metric/many", {{"model", {{"base", "model"}}}, {"data", {{"base", "model"}}}});
  Json& params = s.plan.stages[1].params;
  params = {{"metrics", {{{"use", "metric/m"}, {"samples", 4}}, {{"use", "metric/m"}}}}};
  Facts base = kModel;
  base["sequence"] = 2;
  CHECK(*s.estimates(base).at("many").memory == Approx(1203));
  CHECK(*s.estimates(base).at("many").seconds == Approx(2.0 * 1000 * (4 + 16) * 2 / 1e9));
  params["window"] = 40;
  CHECK(*s.estimates(base).at("many").memory == Approx(1240));
  params["metrics"][1]["use"] = "metric/absent";
  CHECK_FALSE(s.estimates(base).at("many").memory);
}

TEST_CASE("arrays count their numbers, whatever their width; a package that says nothing counts twice") {
  const Folder folder;
  const auto npy = [&](const char* name, const std::string& descr, std::size_t bytes) {
    std::string head = "\x93NUMPY\x01";
    head += std::string("\0v\0", 3) + "{'descr': '" + descr + "', 'fortran_order': False, 'shape': (4,), }";
    head.resize(128, ' ');
    write_file(folder / name, head + std::string(bytes - 128, 'x'));
    return (folder / name).string();
  };
  ComponentInfo reader;
  reader.name = "source/reader";
  reader.inputs = {port("package", ArtifactType::package, false)};
  reader.parameters = {parameter("files", "list<path>"), parameter("other", "path")};
  reader.estimate.memory = Expression("files.elements + if(other.elements, 1e6, 0) + package.open_bytes");
  Stage stage;
  stage.name = "r";
  stage.component = &reader;
  stage.params = {{"files", {npy("a.npy", "<f4", 4000), npy("b.npy", "|u1", 600), npy("c.npy", "<i8", 800)}}};
  const auto none = [](int) { return std::optional<MachineSpeed>(); };
  const Catalog components = catalog();
  CHECK(estimate_stage(stage, components, {}, none).memory == 1000 + 600 + 100);
  write_file(folder / "d.png", std::string(50, 'x'));
  stage.params["files"] = {(folder / "d.png").string()};
  CHECK(estimate_stage(stage, components, {}, none).memory == 50);
  CHECK(estimate_stage(stage, components, {{"package", {Facts{{"bytes", 300.0}}}}}, none).memory == 650);
  CHECK(estimate_stage(stage, components, {{"package", {Facts{{"bytes", 300.0}, {"open_bytes", 7.0}}}}}, none).memory == 57);
}

TEST_CASE("without an expression memory is the manifest's line through the bytes read, and only where they are known") {
  Setting s;
  ComponentInfo linear;
  linear.name = "evaluator/l";
  linear.inputs = {port("model", ArtifactType::model)};
  linear.memory_base = 1000;
  linear.memory_per_byte = 2;
  Stage stage;
  stage.name = "l";
  stage.component = &linear;
  const auto none = [](int) { return std::optional<MachineSpeed>(); };
  CHECK(estimate_stage(stage, s.components, {{"model", {kModel}}}, none).memory == 1800);
  CHECK_FALSE(estimate_stage(stage, s.components, {{"model", {Facts{{"parameters", 3.0}}}}}, none).memory);
}

TEST_CASE("an artifact's facts are its bytes, each blob once, and the numbers of its meta") {
  Artifact artifact;
  artifact.type = ArtifactType::model;
  artifact.meta = {{"parameters", 7}, {"task", "causal-lm"}, {"macs", 2.5}};
  artifact.blobs = {{"a", {sha256("x"), 10}}, {"b", {sha256("x"), 10}}, {"c", {sha256("y"), 5}}};
  CHECK(facts_of(artifact) == Facts{{"bytes", 15.0},
                                    {"parameters", 7.0},
                                    {"macs", 2.5},
                                    {"language", 1.0},
                                    {"largest_bytes", 10.0},
                                    {"output_elements", 0.0}});
  // Free dimensions count once.
  artifact.meta["outputs"] = {{{"name", "logits"}, {"shape", {"batch", "sequence", 300}}},
                              {{"name", "best"}, {"shape", {"batch"}}}};
  artifact.meta.erase("task");
  CHECK(facts_of(artifact).at("output_elements") == 301);
  CHECK(facts_of(artifact).at("language") == 0);
  artifact.type = ArtifactType::dataset;
  CHECK_FALSE(facts_of(artifact).contains("language"));
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
