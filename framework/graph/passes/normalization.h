#pragma once
#include <optional>
#include <string>

#include "graph/passes/pattern.h"

namespace espalier {

/// The chain that both norms end their statistics with: x / sqrt(mean(x²) + epsilon) over the last axis, before any gain.
struct RootMeanSquare {
  std::string x;        ///< what is normalised; an input Cast to a wider type is looked through
  std::string centred;  ///< the value that is squared and divided, behind that Cast
  double epsilon = 0;
};
/// Matches a Div, or a Mul with a Reciprocal, that makes `value` (a Cast back is looked through).
std::optional<RootMeanSquare> match_root_mean_square(const Pattern& p, const std::string& value);

/// A gain or bias: a constant row as long as the last axis of `x`.
bool is_row_for(const Pattern& p, const std::string& row, const std::string& x);

}  // namespace espalier
