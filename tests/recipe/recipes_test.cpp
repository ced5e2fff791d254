// Recipes as data. good/NAME.toml: must be valid; NAME.expected holds JSON of which every leaf must be found in the plan.
// bad/NAME.toml: NAME.expected holds one line per diagnostic, in order: `SEVERITY[CODE] LINE:COLUMN part of the message | part of
// the hint`. A recipe's comment lines `# set: KEY=VALUE` are --set arguments; its working directory is tests/recipe/good/files.
#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <sstream>

#include "catalog.h"

using namespace espalier;
namespace fs = std::filesystem;

namespace {

std::vector<fs::path> recipes(const char* folder) {
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(recipe_tests() / folder))
    if (entry.path().extension() == ".toml") files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  return files;
}

RecipeResult load(const fs::path& file) {
  RecipeOptions options;
  options.working_directory = recipe_tests() / "good" / "files";
  std::istringstream text(read_text(file));
  const std::string mark = "# set: ";
  for (std::string line; std::getline(text, line);) {
    if (!line.starts_with(mark)) continue;
    const auto equals = line.find('=');
    options.set.emplace_back(line.substr(mark.size(), equals - mark.size()), line.substr(equals + 1));
  }
  return load_recipe(file, described_catalog(), options);
}

/// Absolute paths below tests/recipe become relative to it: expectations hold on every machine.
Json without_place(Json value) {
  const std::string root = recipe_tests().string() + "/";
  if (value.is_string() && value.get<std::string>().starts_with(root)) return value.get<std::string>().substr(root.size());
  if (value.is_structured())
    for (auto& item : value) item = without_place(item);
  return value;
}

Json as_json(const Plan& plan) {
  Json stages = Json::object(), order = Json::array(), params = Json::object();
  for (const auto& [name, value] : plan.params) params[name] = value;
  for (const auto& stage : plan.stages) {
    Json inputs = Json::object(), require = Json::array(), files = Json::array();
    for (const auto& [port, producers] : stage.inputs)
      for (const auto& producer : producers) inputs[port].push_back(producer.stage + "." + producer.port);
    for (const auto& each : stage.require)
      require.push_back({{"figure", each.figure}, {"op", each.op}, {"bound", each.bound}, {"line", each.line}});
    for (const auto& file : stage.files) files.push_back(file.string());
    order.push_back(stage.name);
    stages[stage.name] = {{"use", stage.use},
                          {"params", stage.params},
                          {"inputs", inputs},
                          {"threads", stage.threads},
                          {"seed", stage.seed},
                          {"require", require},
                          {"files", files},
                          {"line", stage.line},
                          {"device", stage.device},
                          {"timeout", stage.timeout_seconds ? Json(*stage.timeout_seconds) : Json()},
                          {"memory", stage.memory_bytes ? Json(*stage.memory_bytes) : Json()}};
  }
  return without_place(
      {{"name", plan.name},
       {"description", plan.description},
       {"seed", plan.seed},
       {"order", order},
       {"params", params},
       {"report", plan.report ? Json::array({plan.report->candidate, plan.report->control, plan.report->original}) : Json()},
       {"stages", stages}});
}

/// Types count too: 1 is not 1.0.
void check_leaves(const Json& expected, const Json& found, const std::string& place) {
  INFO(place);
  if (expected.is_object()) {
    REQUIRE(found.is_object());
    for (const auto& [key, value] : expected.items()) {
      INFO(key);
      REQUIRE(found.contains(key));
      check_leaves(value, found[key], place + "/" + key);
    }
  } else {
    CHECK(found.dump() == expected.dump());
  }
}

struct Expected {
  std::string head, message, hint;
};

std::vector<Expected> expected_diagnostics(fs::path file) {
  std::vector<Expected> all;
  std::istringstream text(read_text(file.replace_extension(".expected")));
  for (std::string line; std::getline(text, line);) {
    if (line.empty()) continue;
    const auto first = line.find(' '), second = line.find(' ', first + 1), bar = line.find(" | ");
    all.push_back({line.substr(0, second), line.substr(second + 1, bar == std::string::npos ? bar : bar - second - 1),
                   bar == std::string::npos ? "" : line.substr(bar + 3)});
  }
  return all;
}

}  // namespace

TEST_CASE("good recipes give the plan that is expected") {
  const auto files = recipes("good");
  REQUIRE(files.size() >= 5);
  for (const auto& file : files) {
    INFO(file);
    const auto result = load(file);
    for (const auto& d : result.diagnostics) UNSCOPED_INFO(render(d, result.source, false));
    CHECK(result.diagnostics.empty());
    REQUIRE(result.plan);
    auto expected = file;
    check_leaves(Json::parse(read_text(expected.replace_extension(".expected"))), as_json(*result.plan), "");
  }
}

TEST_CASE("bad recipes give all the diagnostics that are expected, in order") {
  const auto files = recipes("bad");
  REQUIRE(files.size() >= 20);
  for (const auto& file : files) {
    INFO(file);
    const auto result = load(file);
    std::string all;
    bool failed = false;
    for (const auto& d : result.diagnostics) {
      all += render(d, result.source, false);
      failed = failed || d.severity == "error";
    }
    INFO(all);
    const auto expected = expected_diagnostics(file);
    CHECK(failed == !result.plan.has_value());
    CHECK(expected.size() == result.diagnostics.size());
    for (std::size_t i = 0; i < std::min(expected.size(), result.diagnostics.size()); ++i) {
      const auto& d = result.diagnostics[i];
      CHECK(expected[i].head == d.severity + "[" + d.code + "] " + std::to_string(d.line) + ":" + std::to_string(d.column));
      if (d.message.find(expected[i].message) == std::string::npos) CHECK(d.message == expected[i].message);
      if (d.hint.find(expected[i].hint) == std::string::npos) CHECK(d.hint == expected[i].hint);
      CHECK(d.file == file.string());
    }
  }
}
