#include "sdk/statistics.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "sdk/error.h"

namespace espalier {
namespace {

/// splitmix64 (Steele, Lea, Flood, 2014).
std::uint64_t next(std::uint64_t& state) {
  std::uint64_t z = state += 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

double normal_below(double z) { return 0.5 * std::erfc(-z / std::sqrt(2.0)); }

/// The inverse of normal_below(), by bisection: 60 halvings of [-9, 9] are exact to a double's last digits.
double normal_quantile(double p) {
  double low = -9, high = 9;
  for (int i = 0; i < 60; ++i) {
    const double middle = (low + high) / 2;
    (normal_below(middle) < p ? low : high) = middle;
  }
  return (low + high) / 2;
}

double weight(const Samples& samples, std::size_t unit) { return samples.weights.empty() ? 1.0 : samples.weights[unit]; }

void check(std::span<const Samples> series) {
  if (series.empty()) throw_invalid("a bootstrap needs at least one series", "statistics");
  const std::size_t units = series[0].values.size();
  for (const Samples& samples : series) {
    if (samples.values.size() != units)
      throw_invalid("the series have " + std::to_string(units) + " and " + std::to_string(samples.values.size()) + " units",
                    "statistics", "compare figures over the same windows or examples");
    if (!samples.weights.empty() && samples.weights.size() != units)
      throw_invalid(std::to_string(units) + " values have " + std::to_string(samples.weights.size()) + " weights", "statistics");
    for (std::size_t u = 0; u < units; ++u)
      if (!std::isfinite(samples.values[u]) || !(weight(samples, u) > 0))
        throw_invalid("unit " + std::to_string(u) + " has a value that is not finite, or a weight that is not positive",
                      "statistics");
  }
}

/// Sums over units, kept so that a resample and a leave-one-out mean are both cheap.
class Sums {
 public:
  explicit Sums(std::span<const Samples> series) : series_(series), sum_(series.size()), weight_(series.size()) {}
  void clear() {
    std::fill(sum_.begin(), sum_.end(), 0.0);
    std::fill(weight_.begin(), weight_.end(), 0.0);
  }
  void add(std::size_t unit, double times = 1) {
    for (std::size_t s = 0; s < series_.size(); ++s) {
      const double w = times * weight(series_[s], unit);
      sum_[s] += w * series_[s].values[unit];
      weight_[s] += w;
    }
  }
  double statistic(const Statistic& of) {
    means_.clear();
    for (std::size_t s = 0; s < series_.size(); ++s) means_.push_back(sum_[s] / weight_[s]);
    return of(means_);
  }

 private:
  std::span<const Samples> series_;
  std::vector<double> sum_, weight_, means_;
};

/// A quantile of sorted values, linear between neighbours.
double quantile(const std::vector<double>& sorted, double share) {
  const double at = std::clamp(share, 0.0, 1.0) * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<std::size_t>(at);
  if (below + 1 >= sorted.size()) return sorted.back();
  return sorted[below] + (at - static_cast<double>(below)) * (sorted[below + 1] - sorted[below]);
}

}  // namespace

double Samples::mean() const {
  double sum = 0, total = 0;
  for (std::size_t u = 0; u < values.size(); ++u) {
    const double w = weights.empty() ? 1.0 : weights[u];
    sum += w * values[u];
    total += w;
  }
  return sum / total;
}

std::optional<Interval> bootstrap(std::span<const Samples> series, const Statistic& statistic, const BootstrapOptions& options) {
  check(series);
  const std::size_t units = series[0].values.size();
  if (units < 2) return std::nullopt;
  Sums sums(series);
  sums.clear();
  for (std::size_t u = 0; u < units; ++u) sums.add(u);
  Interval result;
  result.value = sums.statistic(statistic);

  std::vector<double> drawn;
  std::uint64_t state = options.seed;
  for (int r = 0; r < options.resamples; ++r) {
    sums.clear();
    for (std::size_t i = 0; i < units; ++i)
      sums.add(static_cast<std::size_t>((static_cast<unsigned __int128>(next(state)) * units) >> 64));
    drawn.push_back(sums.statistic(statistic));
  }
  std::sort(drawn.begin(), drawn.end());
  if (drawn.front() == drawn.back()) {  // units that are all alike: nothing varies
    result.low = std::min(drawn.front(), result.value);
    result.high = std::max(drawn.back(), result.value);
    return result;
  }

  // Bias: how far the data's own statistic lies from the middle of what was drawn; ties count half.
  const auto [from, to] = std::equal_range(drawn.begin(), drawn.end(), result.value);
  const double below =
      (static_cast<double>(from - drawn.begin()) + 0.5 * static_cast<double>(to - from)) / static_cast<double>(options.resamples);
  const double bias = normal_quantile(std::clamp(below, 1.0 / options.resamples, 1 - 1.0 / options.resamples));
  // Acceleration: the skewness of the leave-one-out values.
  std::vector<double> without;
  sums.clear();
  for (std::size_t u = 0; u < units; ++u) sums.add(u);
  for (std::size_t u = 0; u < units; ++u) {
    sums.add(u, -1);
    without.push_back(sums.statistic(statistic));
    sums.add(u);
  }
  double mean = 0, cubes = 0, squares = 0;
  for (const double value : without) mean += value / static_cast<double>(units);
  for (const double value : without) {
    squares += (mean - value) * (mean - value);
    cubes += (mean - value) * (mean - value) * (mean - value);
  }
  const double acceleration = squares > 0 ? cubes / (6 * std::pow(squares, 1.5)) : 0;
  const auto share = [&](double p) {
    const double z = bias + normal_quantile(p);
    return normal_below(bias + z / (1 - acceleration * z));
  };
  const double tail = (1 - options.confidence) / 2;
  result.low = quantile(drawn, share(tail));
  result.high = quantile(drawn, share(1 - tail));
  return result;
}

std::optional<Interval> bootstrap_mean(const Samples& samples, const BootstrapOptions& options) {
  return bootstrap(
      {&samples, 1}, [](std::span<const double> means) { return means[0]; }, options);
}

std::optional<Interval> median_interval(std::vector<double> values, double confidence) {
  // The median lies below the k-th smallest value with the probability that fewer than k of n fair coins show heads.
  const auto n = static_cast<double>(values.size());
  double probability = 0;
  std::size_t k = 0;
  while (k < values.size() / 2) {
    const auto heads = static_cast<double>(k);
    probability += std::exp(std::lgamma(n + 1) - std::lgamma(heads + 1) - std::lgamma(n - heads + 1) - n * std::log(2.0));
    if (2 * probability > 1 - confidence) break;
    ++k;
  }
  if (k == 0) return std::nullopt;
  std::sort(values.begin(), values.end());
  return Interval{median(values), values[k - 1], values[values.size() - k]};
}

double percentile(std::vector<double> values, double share) {
  if (values.empty()) throw Error(ErrorCode::internal, "a percentile of nothing", "statistics");
  std::sort(values.begin(), values.end());
  const auto rank = static_cast<std::size_t>(std::ceil(share * static_cast<double>(values.size())));
  return values[std::clamp<std::size_t>(rank, 1, values.size()) - 1];
}

double median(std::vector<double> values) {
  if (values.empty()) throw Error(ErrorCode::internal, "a median of nothing", "statistics");
  std::sort(values.begin(), values.end());
  const std::size_t n = values.size();
  return n % 2 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}

}  // namespace espalier
