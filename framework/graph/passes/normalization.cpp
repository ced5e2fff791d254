#include "graph/passes/normalization.h"

#include <cmath>

namespace espalier {
namespace {

/// sqrt(mean(x²) + epsilon) → (x, epsilon).
std::optional<std::pair<std::string, double>> match_root(const Pattern& p, const std::string& value) {
  std::string inner;
  if (const auto* root = p.made_by(value, "Sqrt")) {
    inner = root->inputs[0];
  } else if (const auto* power = p.made_by(value, "Pow"); power && p.number(power->input(1)) == 0.5) {
    inner = power->inputs[0];
  } else {
    return std::nullopt;
  }
  const auto* add = p.made_by(inner, "Add");
  if (!add) return std::nullopt;
  const auto sum = p.with_number(*add);
  if (!sum || sum->second < 0) return std::nullopt;
  const auto* mean = p.made_by(sum->first, "ReduceMean");
  if (!mean || !p.is_last_mean(*mean)) return std::nullopt;
  if (const auto* square = p.made_by(mean->inputs[0], "Pow"); square && p.number(square->input(1)) == 2.0)
    return std::pair(square->inputs[0], sum->second);
  if (const auto* square = p.made_by(mean->inputs[0], "Mul"); square && square->input(0) == square->input(1))
    return std::pair(square->inputs[0], sum->second);
  return std::nullopt;
}

}  // namespace

std::optional<RootMeanSquare> match_root_mean_square(const Pattern& p, const std::string& value) {
  const auto& inner = p.past_casts(value);
  std::optional<std::pair<std::string, double>> root;
  if (const auto* div = p.made_by(inner, "Div")) {
    root = match_root(p, div->input(1));
    if (!root || div->input(0) != root->first) return std::nullopt;
  } else if (const auto* mul = p.made_by(inner, "Mul")) {
    for (std::size_t i = 0; i < 2 && !root; ++i) {
      std::string below;
      if (const auto* reciprocal = p.made_by(mul->input(i), "Reciprocal"))
        below = reciprocal->inputs[0];
      else if (const auto* one = p.made_by(mul->input(i), "Div"); one && p.number(one->input(0)) == 1.0)
        below = one->input(1);
      else
        continue;
      root = match_root(p, below);
      if (root && mul->input(1 - i) != root->first) root.reset();
    }
  }
  if (!root) return std::nullopt;
  // The operators compute in f32 and round back: a Cast to f32 in front and one to the old type behind are part of them.
  const auto& x = p.past_casts(root->first);
  const bool widened =
      x == root->first || (p.dtype(root->first) == DType::f32 && bits(p.dtype(x)) == 16 && is_floating(p.dtype(x)));
  const bool back = p.dtype(value) == p.dtype(x);
  if (!widened || !back || p.dtype(root->first) != DType::f32) return std::nullopt;
  return RootMeanSquare{x, root->first, root->second};
}

bool is_row_for(const Pattern& p, const std::string& row, const std::string& x) {
  const auto* tensor = p.graph.initializer(row);
  const auto* shape = p.shape(x);
  return tensor && shape && !shape->empty() && tensor->shape.size() == 1 && shape->back() == Dim(tensor->shape[0]) &&
         tensor->dtype == p.dtype(x);
}

}  // namespace espalier
