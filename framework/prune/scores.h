#pragma once
#include <map>
#include <string>
#include <vector>

namespace espalier {

/// Importance of units: group id → one score for every unit; higher is more important. A group that a metric has no meaning for is
/// left out, never given a number: pruners and ensembles refuse a group without scores by its name.
using Scores = std::map<std::string, std::vector<double>>;

}  // namespace espalier
