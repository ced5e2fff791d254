#pragma once
#include <filesystem>
#include <string>

#include "recipe/plan.h"
#include "store/store.h"

namespace espalier {

using StageInputs = std::map<std::string, std::vector<Digest>>;  ///< port → artifacts

/// What a worker is told about a stage (worker/stage_context.h lists the fields), less the folders of the job.
Json stage_request(const Stage& stage, const StageInputs& inputs, const Store& store, const Catalog& catalog);

}  // namespace espalier
