#pragma once
/// Which units of coupled groups go: under a budget of parameters, or by a threshold on their scores.
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "graph/scope.h"
#include "graph/surgery.h"
#include "prune/scores.h"

namespace espalier {

struct SelectionOptions {
  double sparsity = 0;  ///< removed / all parameters in scope
  Scope scope;
  std::map<std::string, double> per_scope;  ///< pattern → sparsity of its own; the longest matching pattern wins
  enum class Ranking {
    layer,   ///< every group loses the same share of its units
    global,  ///< the least important units per parameter go first, wherever they are
  } ranking = Ranking::layer;
  enum class Normalise { none, mean, max, sum } normalise = Normalise::none;  ///< of a group's scores, before global ranking
  double minimum = 0.1;                           ///< share of its units that a group keeps; never below one unit
  std::map<std::string, std::int64_t> full = {};  ///< group id → units before earlier cuts: what minimum is a share of
  std::int64_t multiple = 1;                      ///< units left in a group that is cut are rounded up to this
  bool allow_inexact = false;
};

/// What goes. Shares are counted in elements of initializers, an element that two groups reach (a convolution cut on both sides)
/// once: total = elements that some unit in scope reaches, removed = those of them that the cut takes.
struct Selection {
  Removal removal;
  std::int64_t total = 0, removed = 0;
  std::vector<std::string> warnings;  ///< what was asked and could not be done
  double sparsity() const { return total == 0 ? 0.0 : static_cast<double>(removed) / static_cast<double>(total); }
};

/// Chooses units of `groups` (all of which are in scope): never more than `sparsity` of the parameters, as near to it as minimum,
/// multiples and whole units allow. Deterministic: ties go to the lower unit of the earlier group. Throws Error(invalid_input) for
/// scores that do not fit the groups or are not finite, and for a pattern of per_scope that means none of them.
Selection select_units(const Graph& graph, const std::vector<CoupledGroup>& groups, const Scores& scores,
                       const SelectionOptions& options);

struct ThresholdOptions {
  double threshold = 0;
  enum class Relative {
    none,  ///< the scores themselves are compared
    mean,  ///< the bound is threshold × the mean of the scores
    max,   ///< the bound is threshold × the largest score
  } relative_to = Relative::mean;
  enum class Across { group, all } across = Across::group;  ///< whose mean or largest score
  double maximum = 1;                                       ///< removed / all parameters in scope, at most
};

/// One group under a threshold.
struct BelowThreshold {
  std::string group;
  std::int64_t units = 0, below = 0, removed = 0;  ///< all, those whose score is below the bound, those that go
  double smallest = 0, bound = 0;                  ///< the smallest score; what scores are compared with
};

/// Throws Error(invalid_input) naming the parameter: a threshold that is not finite, or negative although relative; shares that are
/// none; a multiple below 1.
void check_threshold(const SelectionOptions& options, const ThresholdOptions& threshold);

/// Chooses the units of `groups` whose scores are below the threshold, as far as minimum, multiple and maximum allow: where a group
/// keeps some of them, the least important go; where `maximum` does, the least important per parameter, each group's scores divided
/// by what its threshold is relative to. Of `options` it reads minimum, full and multiple. One row a group goes into `report`.
/// Deterministic: ties go to the lower unit of the earlier group. Throws Error(invalid_input) for what check_threshold() refuses
/// and for scores that do not fit the groups, are not finite, or have a negative mean or maximum where the threshold is a share of
/// it.
Selection select_below(const Graph& graph, const std::vector<CoupledGroup>& groups, const Scores& scores,
                       const SelectionOptions& options, const ThresholdOptions& threshold, std::vector<BelowThreshold>& report);

/// The scores of one group. Throws Error(invalid_input) when there are none, too many or too few, or some that are not finite.
const std::vector<double>& scores_of(const Scores& scores, const CoupledGroup& group);

}  // namespace espalier
