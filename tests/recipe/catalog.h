#pragma once
#include <filesystem>

#include "host/catalog.h"
#include "recipe/plan.h"

namespace espalier {

/// tests/recipe
std::filesystem::path recipe_tests();
/// The components that manifests/plugin.json describes; nothing of them exists.
const Catalog& described_catalog();
std::string read_text(const std::filesystem::path& file);

/// A recipe in a temporary folder that goes with the object.
class TemporaryRecipe {
 public:
  explicit TemporaryRecipe(const std::string& text);
  ~TemporaryRecipe();
  RecipeResult load(const RecipeOptions& options = {}) const { return load_recipe(file, described_catalog(), options); }
  std::filesystem::path folder, file;
};

/// "code line:column" of every diagnostic, for comparisons.
std::vector<std::string> places(const RecipeResult& result);

}  // namespace espalier
