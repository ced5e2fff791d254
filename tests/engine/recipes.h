#pragma once
#include <algorithm>
#include <cstdlib>
#include <set>

#include "../store/folder.h"
#include "engine/engine.h"
#include "recipe/plan.h"
#include "sdk/error.h"

/// Where the build put the plugins that only tests load.
inline std::filesystem::path test_plugins() {
  if (const char* build = std::getenv("ESPALIER_BUILD")) return std::filesystem::path(build) / "tests/plugins";
  return std::filesystem::read_symlink("/proc/self/exe").parent_path() / "plugins";
}

/// One head for all: the seed stands in keys.
inline std::string recipe_text(const std::string& stages) { return "[recipe]\nname = \"test\"\nseed = 7\n" + stages; }

/// A recipe of text, with the catalog it was checked against.
struct Recipe {
  espalier::Catalog catalog = espalier::Catalog::scan({test_plugins()});
  espalier::Plan plan;

  Recipe(const std::filesystem::path& file, const std::string& stages) {
    write_file(file, recipe_text(stages));
    espalier::RecipeResult result = espalier::load_recipe(file, catalog);
    std::string text;
    for (const auto& diagnostic : result.diagnostics) text += espalier::render(diagnostic, result.source, false);
    if (!result.plan) throw std::runtime_error("the test's recipe is wrong:\n" + text);
    plan = std::move(*result.plan);
  }
};

/// Keeps what it hears.
struct Listener final : espalier::Observer {
  std::set<std::string> started_stages;
  std::vector<std::string> warnings, order;
  int reports = 0;
  void started(const espalier::Stage& stage) override { started_stages.insert(stage.name); }
  void progress(const espalier::Stage&, const espalier::Json&) override { ++reports; }
  void log(const espalier::Stage&, int level, const std::string& text) override {
    if (level >= 2) warnings.push_back(text);
  }
  void finished(const espalier::Stage& stage, const espalier::StageResult&) override { order.push_back(stage.name); }
};

inline const espalier::StageResult& named(const std::vector<espalier::StageResult>& results, const std::string& name) {
  for (const auto& result : results)
    if (result.name == name) return result;
  throw std::runtime_error("no result of " + name);
}

inline int lines_in(const std::filesystem::path& file) {
  const std::string text = read_file(file);
  return static_cast<int>(std::count(text.begin(), text.end(), '\n'));
}
