#include "cli/stored.h"

#include "engine/engine.h"
#include "sdk/error.h"

namespace espalier {

std::optional<StoredStage> stored_stage(const LoadedRecipe& recipe, Store& store, const std::string& stage) {
  EngineOptions options;
  options.wanted = {stage};
  for (const PlannedStage& planned : preflight(recipe.plan, store, recipe.catalog, options).stages) {
    if (planned.name != stage || !planned.hit) continue;
    if (auto entry = store.find(*planned.key)) return StoredStage{*planned.key, std::move(*entry)};
  }
  return std::nullopt;
}

StoredStage require_stored(const LoadedRecipe& recipe, Store& store, const std::string& stage) {
  require_stage(recipe.plan, stage);
  if (auto stored = stored_stage(recipe, store, stage)) return std::move(*stored);
  throw_invalid("stage \"" + stage + "\" has no result as the recipe stands", recipe.plan.file.string(),
                "espalier run " + recipe.plan.file.string() + " " + stage);
}

}  // namespace espalier
