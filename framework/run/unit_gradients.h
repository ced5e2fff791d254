#pragma once
/// What metrics by gradients share: backward passes over data, and a term of every weight and its gradient summed over the slices
/// of each unit.
#include <ATen/core/Tensor.h>

#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "run/metric.h"
#include "run/metric_examples.h"
#include "run/objective.h"

namespace espalier {

/// The parameters `members` and `precision` of metrics by gradients.
// clang-format off
#define ESPALIER_GRADIENT_PARAMETERS \
  R"json({"name": "members", "type": "string", "default": "readers", "choices": ["readers", "producers", "all"], "help": "slices that count: those that read the unit's channel (a down projection's), those that make it, or both"},)json" \
  R"json({"name": "precision", "type": "string", "default": "f32", "choices": ["f32", "bf16"], "help": "type of matrix products, convolutions and attention in the passes; bf16 takes half the time where the processor has instructions for it and ranks nearly the same"})json"
// clang-format on

class UnitGradients {
 public:
  /// `members` says which slices count; a group that has none of the kind counts all of its own. Throws Error(invalid_input) when
  /// no group has a floating-point weight. `graph` and `groups` must outlive the object.
  UnitGradients(const Graph& graph, const std::vector<CoupledGroup>& groups, const Params& params);

  /// Elementwise, of a weight and the gradient of a pass's mean loss.
  using Term = at::Tensor (*)(const at::Tensor& weight, const at::Tensor& gradient);
  /// What a pass over `examples` of `all` counts in the sum. Where data tells counted tokens apart (Dataset::weight), an example is
  /// worth its share of them: `examples` is no whole number then.
  using Share = double (*)(double examples, double all);
  /// A forward and a backward pass for each batch; `after` is called when a pass's terms have been added.
  void walk(Context& context, const MetricExamples& examples, std::string_view label, Term term, Share share,
            const std::function<void()>& after);

  /// Per group and unit the terms added since the last call; 0 for a group that no gradient reaches.
  Scores take();

 private:
  double backward(Session& session, const MetricExamples& examples, const Objective& objective,
                  const std::vector<std::int64_t>& numbers) const;
  void add(Session& session, Term term, double share);

  const Graph& graph_;
  const std::vector<CoupledGroup>& groups_;
  const SessionOptions options_;
  std::vector<std::vector<bool>> counted_;  ///< by group and member
  /// By tensor and axis: terms summed over all other axes, for each index; empty where gradients do not reach.
  std::map<std::pair<std::string, std::size_t>, std::vector<double>> along_;
};

}  // namespace espalier
