#pragma once
#include <vector>

#include "recipe/node.h"

namespace espalier {

/// [report] of a recipe: `candidate`, and `control` or `original` or both, each the name of a stage that gives a model or a package
/// ("package" and "@package" are the same). What is wrong becomes findings; nothing is returned then.
std::optional<ReportRoles> read_report_roles(const Member& report, const std::vector<Stage>& stages, Findings& findings);

}  // namespace espalier
