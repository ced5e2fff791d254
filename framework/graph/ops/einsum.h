#pragma once
/// Einsum's equation, which both sides of the operator read.
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace espalier::ops {

/// Terms are letters, one for each axis, and at most one '.' that stands for the axes of an ellipsis.
struct Equation {
  std::vector<std::string> inputs;
  std::string output;  ///< made where the equation leaves it out
  /// "bij,bjk->bik", with "..." for an ellipsis.
  std::string text() const;
};
/// Nothing when the text is no equation of so many inputs; `problem` says why.
std::optional<Equation> parse_equation(std::string_view text, std::size_t inputs, std::string& problem);

}  // namespace espalier::ops
