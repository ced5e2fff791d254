#pragma once
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <vector>

namespace espalier {

/// Figures of the units that a quality figure is a mean over: windows of a text, examples of a data set. A unit's value is the mean
/// of its own elements (tokens, say), its weight their number.
struct Samples {
  std::vector<double> values;
  std::vector<double> weights;  ///< as many as values; empty: 1 each

  /// Σ weight·value / Σ weight.
  double mean() const;
};

struct Interval {
  double value = 0;  ///< the statistic of the data itself
  double low = 0, high = 0;
  bool holds(double x) const { return low <= x && x <= high; }
};

struct BootstrapOptions {
  int resamples = 2000;
  double confidence = 0.95;
  std::uint64_t seed = 0x45535041;  ///< fixed: an interval is a function of the samples alone
};

/// What is estimated, as a function of the means of one or more series over the same units.
using Statistic = std::function<double(std::span<const double> means)>;

/// The bias-corrected and accelerated bootstrap (BCa; Efron, JASA 1987): units are drawn with replacement, the same ones for every
/// series, so that a difference of two models is compared window by window. Nothing for fewer than two units. Throws
/// Error(invalid_input) when the series do not have the same units or hold a value that is not finite.
std::optional<Interval> bootstrap(std::span<const Samples> series, const Statistic& statistic,
                                  const BootstrapOptions& options = {});

/// The same for one mean.
std::optional<Interval> bootstrap_mean(const Samples& samples, const BootstrapOptions& options = {});

/// The median with its distribution-free interval between two order statistics, at least as sure as asked for: nothing for too few
/// values (95 % wants six).
std::optional<Interval> median_interval(std::vector<double> values, double confidence = 0.95);

/// Percentile by the nearest rank; `share` in (0, 1]. The median of an even number is the mean of the middle two. Not of nothing.
double percentile(std::vector<double> values, double share);
double median(std::vector<double> values);

}  // namespace espalier
