#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "run/dataset.h"
#include "run/session.h"

namespace espalier {

/// The examples that a metric looks at: parameter `samples` of them, spread evenly over the data, parameter `batch` at a time.
class MetricExamples {
 public:
  /// Opens the data and warns where it has fewer examples than `samples`. Throws Error(invalid_input) naming `metric` where there
  /// is no data or it holds nothing, and where model and data name different tokenizers.
  MetricExamples(Context& context, const Params& params, const Artifact* data, std::string_view metric);

  const Dataset& dataset() const { return *dataset_; }
  std::int64_t count() const { return count_; }
  /// Numbers of the examples of each pass.
  const std::vector<std::vector<std::int64_t>>& batches() const { return batches_; }

  /// Calls `pass` with the numbers of each batch's examples and what they are worth: as much as they add to the mean loss over all
  /// of them, that is their counted tokens' share of count(); all examples are worth 1 where data tells no counted tokens apart. It
  /// returns the pass's loss, which the progress shows; a pass worth nothing is left out. Throws Error(invalid_input) where no
  /// token counts.
  void walk(Context& context, std::string_view label,
            const std::function<double(const std::vector<std::int64_t>& numbers, double worth)>& pass) const;
  /// Runs all of them, without gradients, as far as `values` need it: a language model's head does not run for what lies before it.
  /// The values themselves go to the hooks that the caller has set. `before` is called with each batch before it runs.
  void observe(Context& context, Session& session, const Graph& graph, const std::vector<std::string>& values,
               std::string_view label, const std::function<void(const TensorMap& batch)>& before = {}) const;

 private:
  std::unique_ptr<Dataset> dataset_;
  std::int64_t count_ = 0;
  std::vector<std::vector<std::int64_t>> batches_;
};

}  // namespace espalier
