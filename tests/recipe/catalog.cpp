#include "catalog.h"

#include <cstdlib>
#include <fstream>
#include <sstream>
#include <stdexcept>

#include "host/manifest.h"
#include "sdk/fingerprint.h"

namespace espalier {

std::filesystem::path recipe_tests() { return std::filesystem::path(std::getenv("ESPALIER_SOURCE")) / "tests" / "recipe"; }

std::string read_text(const std::filesystem::path& file) {
  std::ifstream in(file, std::ios::binary);
  if (!in) throw std::runtime_error("cannot read " + file.string());
  std::ostringstream text;
  text << in.rdbuf();
  return text.str();
}

const Catalog& described_catalog() {
  static const Catalog catalog = [] {
    const auto plugin = Json::parse(read_text(recipe_tests() / "manifests" / "plugin.json"));
    auto info = parse_manifest(Json{{"format", 1}, {"fingerprint", ESPALIER_FINGERPRINT}, {"plugin", plugin}}.dump(), "test.so");
    auto older = parse_manifest(
        R"({"format":1,"fingerprint":"sdk=0;torch=1;abi=x","plugin":{"name":"o","version":"1","components":[{"name":"quantizer/old"}]}})",
        "old.so");
    if (!info.usable) throw std::runtime_error(info.problem);
    return Catalog::from({std::move(info), std::move(older)});
  }();
  return catalog;
}

TemporaryRecipe::TemporaryRecipe(const std::string& text) {
  std::string pattern = (std::filesystem::temp_directory_path() / "espalier-recipe-XXXXXX").string();
  if (!mkdtemp(pattern.data())) throw std::runtime_error("no temporary folder");
  folder = pattern;
  file = folder / "recipe.toml";
  std::ofstream(file, std::ios::binary) << text;
  std::ofstream(folder / "a.txt") << "text\n";
}

TemporaryRecipe::~TemporaryRecipe() { std::filesystem::remove_all(folder); }

std::vector<std::string> places(const RecipeResult& result) {
  std::vector<std::string> all;
  for (const auto& d : result.diagnostics) all.push_back(d.code + " " + std::to_string(d.line) + ":" + std::to_string(d.column));
  return all;
}

}  // namespace espalier
