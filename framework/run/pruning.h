#pragma once
/// What all pruners of coupled channels share: the stage around a choice of units.
#include <functional>
#include <string>
#include <vector>

#include "prune/group_scope.h"
#include "prune/selection.h"
#include "run/compensation.h"

namespace espalier {

/// The parameters scope, exclude, ranking, normalise, minimum, multiple and allow_inexact; all but the last with `prefix` before
/// their names where a stage cuts several kinds ("heads_").
SelectionOptions selection_options(const Params& params, const std::string& prefix = {});

/// Chooses units of groups in scope by their scores.
using Choose = std::function<Selection(const Graph& graph, const std::vector<CoupledGroup>& groups, const Scores& scores)>;

/// A pruner as a stage. Ports: model, data (optional, for the metric), scores (optional, instead of the metric). Parameters:
/// metric, those of selection_options() and of compensation. Outputs: model, masks (u8 per unit and group, 1 = kept). Figures:
/// parameters, sparsity, groups. Details: widths, compensation.
void run_pruner(Context& context, CoupledGroup::Kind kind, const SelectionOptions& options, const Choose& choose);
/// The same with select_units(), which reads the parameters sparsity and per_scope, too.
void run_pruner(Context& context, CoupledGroup::Kind kind);

/// The weights that read what is cut, refitted as the stage's parameters ask for; from port `data`.
Graph compensated(Context& context, const Params& params, const Graph& graph, const std::vector<CoupledGroup>& groups,
                  const Removal& removal, std::vector<Compensated>& report);
Artifact save_masks(Context& context, const std::vector<CoupledGroup>& groups, const Removal& removal);
/// Units of each group before and after, as the report's table.
Json widths_table(const std::vector<CoupledGroup>& groups, const Removal& removal);

}  // namespace espalier
