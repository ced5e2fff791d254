#pragma once
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

namespace espalier {

/// A 95 % interval.
struct Interval {
  double low = 0, high = 0;
};

/// What was measured piece by piece: the mean over all is Σ sums / Σ counts.
struct Pieces {
  std::vector<double> sums, counts;
  double mean() const;
};

/// Percentile bootstrap (Efron, 1979) of the mean over resampled pieces, 2,000 resamples by a generator with a fixed seed, so that
/// equal samples have equal intervals. Pieces (windows of a text, examples) are drawn whole: tokens of one window are not
/// independent. Fewer than two pieces give an interval without width.
Interval bootstrap(const Pieces& pieces);

/// Two results on the same pieces, drawn together: the difference of their means (a - b), its interval, and the share of resamples
/// whose difference has the other sign or none, doubled (a two-sided p-value, at least 1/1,000).
struct Difference {
  double mean = 0;
  Interval interval;
  double p = 1;
  bool significant() const { return p < 0.05; }
};
/// Throws Error(invalid_input) when the two do not have the same counts.
Difference paired_difference(const Pieces& a, const Pieces& b);

}  // namespace espalier
