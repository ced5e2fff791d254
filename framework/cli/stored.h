#pragma once
#include <optional>

#include "cli/command.h"
#include "store/store.h"

namespace espalier {

/// What the store holds of a stage, under the key that the recipe gives it now.
struct StoredStage {
  Digest key;
  ActionEntry entry;
};
std::optional<StoredStage> stored_stage(const LoadedRecipe& recipe, Store& store, const std::string& stage);
/// The same; throws Error(invalid_input) when there is none.
StoredStage require_stored(const LoadedRecipe& recipe, Store& store, const std::string& stage);

}  // namespace espalier
