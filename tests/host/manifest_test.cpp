#include "host/manifest.h"

#include <catch2/catch_test_macros.hpp>

#include "sdk/fingerprint.h"

using namespace espalier;

namespace {

Json sound() {
  return Json::parse(R"({"name": "p", "version": "1", "components": [{"name": "pruner/x",
    "inputs": [{"name": "model", "type": "model"}], "outputs": [{"name": "model", "type": "model"}],
    "parameters": [{"name": "sparsity", "type": "number", "default": 0.5, "min": 0, "max": 1}]}]})");
}

PluginInfo parse(const Json& plugin) {
  return parse_manifest(Json{{"format", 1}, {"fingerprint", ESPALIER_FINGERPRINT}, {"plugin", plugin}}.dump(), "p.so");
}

/// The problem after one change of the sound manifest.
std::string problem(const char* pointer, Json value) {
  Json plugin = sound();
  plugin[Json::json_pointer(pointer)] = std::move(value);
  const auto info = parse(plugin);
  CHECK_FALSE(info.usable);
  return info.problem;
}

bool has(const std::string& text, std::string_view part) {
  const bool found = text.find(part) != std::string::npos;
  if (!found) UNSCOPED_INFO("\"" << text << "\" lacks \"" << part << "\"");
  return found;
}

}  // namespace

TEST_CASE("a sound manifest is usable, with defaults") {
  const auto info = parse(sound());
  INFO(info.problem);
  REQUIRE(info.usable);
  const auto& component = info.components.at(0);
  CHECK(component.version == "1");
  CHECK_FALSE(component.uses_seed);
  CHECK(component.uses_threads);
  CHECK_FALSE(component.byte_exact);
  CHECK(component.parameters.at(0).min == 0.0);
}

TEST_CASE("problems name file and key") {
  CHECK(has(problem("/components/0/parameters/0/defualt", 1),
            "p.so: wrong manifest: key plugin.components[0].parameters[0].defualt is unknown (did you mean \"default\"?)"));
  CHECK(has(problem("/components/0/parameters/0/default", 2), "parameters[0].default is wrong"));
  CHECK(has(problem("/components/0/parameters/0/default", "a"), "parameters[0].default is wrong"));
  CHECK(has(problem("/components/0/parameters/0/required", true), "contradicts"));
  CHECK(has(problem("/components/0/parameters/0/type", "float"), "names no parameter type: \"float\""));
  CHECK(has(problem("/components/0/parameters/0/min", 3), "above"));
  CHECK(has(problem("/components/0/parameters/0/choices", Json::array({"a"})), "only for strings"));
  CHECK(has(problem("/components/0/parameters/0/name", "threads"), "reserved"));
  CHECK(has(problem("/components/0/parameters/0/name", "model"), "stands there twice"));
  CHECK(has(problem("/components/0/inputs/0/type", "modell"), "names no artifact type"));
  CHECK(has(problem("/components/0/inputs/0/required", "yes"), "inputs[0].required must be true or false"));
  CHECK(has(problem("/components/0/inputs", 3), "inputs must be a list"));
  CHECK(has(problem("/components/0/inputs/0", 3), "inputs[0] must be an object"));
  CHECK(has(problem("/components/0/name", "channels"), "KIND/NAME"));
  CHECK(has(problem("/components/0/estimate", Json{{"memory_base", -1}}), "estimate.memory_base"));
  CHECK(has(problem("/components", Json::array()), "names no component"));
  CHECK(has(problem("/name", ""), "plugin.name"));
}

TEST_CASE("a path has no default, a component's default names a component") {
  Json plugin = sound();
  auto& parameter = plugin["components"][0]["parameters"][0];
  parameter = {{"name", "file"}, {"type", "path"}, {"default", "/etc/passwd"}};
  CHECK(has(parse(plugin).problem, "cannot be a path"));
  parameter = {{"name", "metric"}, {"type", "component"}, {"kind", "metric"}, {"default", "metric/taylor"}};
  CHECK(has(parse(plugin).problem, "must be an object with \"use\""));
  parameter["default"] = {{"use", "metric/taylor"}};
  CHECK(parse(plugin).usable);
}

TEST_CASE("a list of components has a kind, and keys of its owner's beside theirs") {
  Json plugin = sound();
  auto& parameter = plugin["components"][0]["parameters"][0];
  parameter = {{"name", "metrics"}, {"type", "list<component>"}};
  CHECK(has(parse(plugin).problem, "which kind of component?"));
  parameter["kind"] = "metric";
  parameter["default"] = {{"use", "metric/taylor"}};
  CHECK(has(parse(plugin).problem, "must be a list of objects with \"use\""));
  parameter["default"] = Json::array({{{"use", "metric/taylor"}}});
  parameter["fields"] = Json::array({{{"name", "weight"}, {"type", "number"}, {"default", 1}, {"min", 0}}});
  const auto info = parse(plugin);
  INFO(info.problem);
  REQUIRE(info.usable);
  CHECK(info.components[0].parameters[0].fields.at(0).default_value == Json(1.0));
  parameter["fields"][0]["type"] = "path";
  CHECK(has(parse(plugin).problem, "fields[0].type must be integer, number, boolean or string"));
  parameter["fields"][0] = {{"name", "use"}, {"type", "string"}};
  CHECK(has(parse(plugin).problem, "is reserved for recipes"));
  parameter = {{"name", "rate"}, {"type", "number"}, {"fields", Json::array({{{"name", "weight"}, {"type", "number"}}})}};
  CHECK(has(parse(plugin).problem, "is only for components"));
}

TEST_CASE("text that is no manifest") {
  const auto say = [](std::string_view text) { return parse_manifest(text, "p.so").problem; };
  CHECK(has(say(""), "not JSON"));
  CHECK(has(say("{\"format\":1"), "not JSON"));
  CHECK(has(say("[]"), "(whole manifest) must be an object"));
  CHECK(has(say(R"({"format":2})"), "format is 2"));
  CHECK(has(say(R"({"format":1,"format":1})"), "\"format\" stands there twice"));
  CHECK(has(say("{\"format\":1,\"fingerprint\":\"\xff\"}"), "not JSON"));
  CHECK(has(say(std::string(100000, '[')), "not JSON"));
  CHECK(has(say("{\"a\":" + std::string(1000, '[') + std::string(1000, ']') + "}"), "too deeply"));
}

TEST_CASE("a fingerprint of another build says which side to rebuild") {
  const auto with = [](const std::string& fingerprint) {
    return parse_manifest(Json{{"format", 1}, {"fingerprint", fingerprint}, {"plugin", {{"strange", 1}}}}.dump(), "p.so").problem;
  };
  CHECK(has(with("sdk=1;torch=1.0;abi=cxx98"), "rebuild the plugin against this installation"));
  CHECK(has(with("sdk=99;torch=3.0;abi=cxx11-gnu"), "update Espalier"));
  CHECK(has(with("nonsense"), ESPALIER_FINGERPRINT));
}

TEST_CASE("estimates are expressions over what the component declares") {
  Json plugin = sound();
  plugin["components"][0]["estimate"] = {{"memory", "1e9 + 4 * model.parameters * (1 - sparsity)"},
                                         {"seconds", "2 * model.macs / machine.flops * threads"},
                                         {"outputs", {{"model", {{"parameters", "model.parameters * (1 - sparsity)"}}}}}};
  const auto info = parse(plugin);
  INFO(info.problem);
  REQUIRE(info.usable);
  CHECK(info.components[0].estimate.memory->names() == std::vector<std::string>{"model.parameters", "sparsity"});
  CHECK(info.components[0].estimate.outputs.at("model").contains("parameters"));
  CHECK(has(problem("/components/0/estimate/memory", "1 +"), "estimate.memory is wrong: the expression \"1 +\" ends too early"));
  CHECK(has(problem("/components/0/estimate/seconds", "sparsty * 2"), "did you mean \"sparsity\"?"));
  CHECK(has(problem("/components/0/estimate/seconds", 3), "must be a string"));
  CHECK(has(problem("/components/0/estimate/outputs", Json{{"modle", Json::object()}}), "did you mean \"model\"?"));
}
