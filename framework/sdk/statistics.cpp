#include "sdk/statistics.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "sdk/error.h"

namespace espalier {
namespace {

constexpr std::size_t kResamples = 2000;
constexpr std::uint64_t kSeed = 0x657370616c696572u;

/// splitmix64 (Steele, Lea, Flood, 2014).
std::uint64_t next(std::uint64_t& state) {
  std::uint64_t z = state += 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

/// Means of all resamples of Σ sums / Σ counts, ascending.
std::vector<double> resampled(const std::vector<double>& sums, const std::vector<double>& counts) {
  std::vector<double> means;
  std::uint64_t state = kSeed;
  const std::size_t n = sums.size();
  for (std::size_t round = 0; round < kResamples; ++round) {
    double sum = 0, count = 0;
    for (std::size_t i = 0; i < n; ++i) {
      const auto pick = static_cast<std::size_t>((static_cast<unsigned __int128>(next(state)) * n) >> 64);
      sum += sums[pick];
      count += counts[pick];
    }
    means.push_back(sum / count);
  }
  std::sort(means.begin(), means.end());
  return means;
}

Interval middle(const std::vector<double>& sorted) {
  const auto at = [&](double share) {
    const double place = share * static_cast<double>(sorted.size() - 1);
    const auto below = static_cast<std::size_t>(place);
    const double rest = place - static_cast<double>(below);
    return below + 1 < sorted.size() ? sorted[below] * (1 - rest) + sorted[below + 1] * rest : sorted[below];
  };
  return {at(0.025), at(0.975)};
}

}  // namespace

double Pieces::mean() const {
  return std::accumulate(sums.begin(), sums.end(), 0.0) / std::accumulate(counts.begin(), counts.end(), 0.0);
}

Interval bootstrap(const Pieces& pieces) {
  if (pieces.sums.size() < 2) return {pieces.mean(), pieces.mean()};
  return middle(resampled(pieces.sums, pieces.counts));
}

Difference paired_difference(const Pieces& a, const Pieces& b) {
  if (a.counts != b.counts || a.sums.size() != b.sums.size() || a.sums.empty())
    throw_invalid("the two results were not measured on the same pieces");
  std::vector<double> sums(a.sums.size());
  for (std::size_t i = 0; i < sums.size(); ++i) sums[i] = a.sums[i] - b.sums[i];
  Difference difference;
  difference.mean = Pieces{sums, a.counts}.mean();
  difference.interval = {difference.mean, difference.mean};
  if (sums.size() < 2) return difference;
  const std::vector<double> means = resampled(sums, a.counts);
  difference.interval = middle(means);
  const auto not_above = static_cast<double>(std::upper_bound(means.begin(), means.end(), 0.0) - means.begin());
  const auto not_below = static_cast<double>(means.end() - std::lower_bound(means.begin(), means.end(), 0.0));
  const double share = std::min(not_above, not_below) / static_cast<double>(means.size());
  difference.p = std::clamp(2 * share, 2.0 / static_cast<double>(kResamples), 1.0);
  return difference;
}

}  // namespace espalier
