#pragma once
#include <map>
#include <optional>
#include <string>

#include "engine/engine.h"

namespace espalier {

/// The first of a stage's `require` that its figures do not meet, as a failure that shows the figure.
std::optional<StageResult::Failure> unmet(const Stage& stage, const std::map<std::string, double>& figures);

}  // namespace espalier
