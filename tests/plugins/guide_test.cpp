// The plugin guide: its code is the file that is compiled here, what it says of manifests holds for every plugin of the project.
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_floating_point.hpp>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <set>

#include "formats/model_artifact.h"
#include "host/catalog.h"
#include "run/metric.h"
#include "toy_model.h"

using namespace espalier;
using namespace espalier::test;
namespace fs = std::filesystem;

namespace {

std::string text_of(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  REQUIRE(in);
  return {std::istreambuf_iterator<char>(in), {}};
}

fs::path source_folder() {
  const char* source = std::getenv("ESPALIER_SOURCE");
  if (!source) SKIP("ESPALIER_SOURCE is not set (ctest sets it)");
  return source;
}

}  // namespace

TEST_CASE("guide and README show the plugins that are compiled") {
  const auto shown = [](const std::string& page) {
    const auto text = text_of(source_folder() / page);
    const auto begin = text.find("```cpp\n") + 7;
    return text.substr(begin, text.find("```", begin) - begin);
  };
  CHECK(shown("docs/plugins.md") == text_of(source_folder() / "tests/plugins/guide/largest.cpp"));
  CHECK(shown("README.md") == text_of(source_folder() / "tests/plugins/guide/nodes.cpp"));
}

TEST_CASE("the README's plugin counts the nodes of a model") {
  const TemporaryFolder folder;
  TestContext context(folder);
  const Graph graph = toy_language_model();
  context.run("evaluator/nodes", Json::object(), {{"model", save_model(context, graph)}});
  CHECK(context.figures.at("nodes") == static_cast<double>(graph.nodes.size()));
}

TEST_CASE("the guide's plugin works as a stage and as a parameter") {
  const TemporaryFolder folder;
  TestContext context(folder);
  const Graph graph = toy_language_model();
  const auto model = save_model(context, graph);
  context.run("metric/largest", Json::object(), {{"model", model}});
  const auto scores = load_scores(context, context.outputs.at("scores"));
  double largest = 0, over_all = 0;
  for (const auto* part : {"gate_proj", "up_proj", "down_proj"}) {
    for (float w : graph.initializer(std::string("model.layers.0.mlp.") + part + ".weight")->as<float>()) {
      over_all = std::max(over_all, double(std::abs(w)));
    }
  }
  for (const auto& [id, own] : scores) {
    if (id.find("layers.0.mlp") == std::string::npos) continue;
    for (double s : own) largest = std::max(largest, s);
  }
  CHECK(largest == over_all);
  context.run("pruner/channels", {{"sparsity", 0.25}, {"scope", {"*.mlp"}}, {"metric", {{"use", "metric/largest"}}}},
              {{"model", model}});
  CHECK(context.figures.at("sparsity") == 0.25);
}

TEST_CASE("every plugin of the project is described for those who use it") {
  const auto catalog = Catalog::scan({plugin_folder()});
  std::set<std::string> names;
  for (const auto& plugin : catalog.plugins()) {
    CAPTURE(plugin.file.string(), plugin.problem);
    CHECK(plugin.usable);
    CHECK(plugin.licence == "Apache-2.0");
    for (const auto& component : plugin.components) {
      CAPTURE(component.name);
      names.insert(component.name);
      CHECK_FALSE(component.summary.empty());
      if (component.kind() != "evaluator") CHECK_FALSE(component.outputs.empty());
      for (const auto& port : component.inputs) CHECK_FALSE(port.help.empty());
      for (const auto& port : component.outputs) CHECK_FALSE(port.help.empty());
      for (const auto& parameter : component.parameters) {
        CAPTURE(parameter.name);
        CHECK_FALSE(parameter.help.empty());
      }
    }
  }
  for (const auto* name : {"source/gguf", "source/onnx", "source/text", "metric/magnitude", "metric/taylor", "pruner/channels",
                           "pruner/heads", "distiller/finetune", "distiller/distill", "quantizer/rtn"}) {
    CHECK(names.contains(name));
  }
}
