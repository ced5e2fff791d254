#include "sdk/statistics.h"

#include <catch2/catch_approx.hpp>
#include <catch2/catch_test_macros.hpp>
#include <cmath>
#include <random>

#include "sdk/error.h"

using namespace espalier;
using Catch::Approx;

namespace {

/// Sums of standard normal numbers around `centre` (Box and Muller, so that every library draws the same).
Pieces drawn(std::size_t count, double centre, std::uint64_t seed) {
  std::mt19937_64 generator(seed);
  const auto uniform = [&] { return (static_cast<double>(generator() >> 11) + 0.5) * 0x1.0p-53; };
  Pieces pieces;
  for (std::size_t i = 0; i < count; ++i) {
    pieces.sums.push_back(centre + std::sqrt(-2 * std::log(uniform())) * std::cos(6.283185307179586 * uniform()));
    pieces.counts.push_back(1);
  }
  return pieces;
}

}  // namespace

TEST_CASE("the mean weighs pieces by their counts") {
  CHECK(Pieces{{10, 2}, {4, 2}}.mean() == 2);
  CHECK(bootstrap({{6}, {3}}).low == 2);
  CHECK(bootstrap({{6}, {3}}).high == 2);
}

TEST_CASE("the bootstrap's interval is the one that theory knows") {
  // Of the mean of n standard normals: ± 1.96 / sqrt(n).
  int covered = 0;
  double width = 0;
  for (std::uint64_t trial = 0; trial < 200; ++trial) {
    const Interval interval = bootstrap(drawn(40, 3, 100 + trial));
    covered += interval.low <= 3 && 3 <= interval.high;
    width += (interval.high - interval.low) / 200;
  }
  CHECK(covered >= 180);  // 190 expected; the percentile bootstrap is a little narrow at 40
  CHECK(covered <= 199);
  CHECK(width == Approx(2 * 1.96 / std::sqrt(40.0)).epsilon(0.06));
}

TEST_CASE("equal samples give equal intervals") {
  const Interval a = bootstrap(drawn(25, 0, 1)), b = bootstrap(drawn(25, 0, 1));
  CHECK(a.low == b.low);
  CHECK(a.high == b.high);
}

TEST_CASE("a paired difference sees what windows share") {
  Pieces a = drawn(40, 3, 7), b = a;
  for (double& sum : b.sums) sum -= 0.05;  // far less than the windows differ among themselves
  b.sums[0] += 0.1;
  const Difference difference = paired_difference(a, b);
  CHECK(difference.mean == Approx(0.05 - 0.1 / 40));
  CHECK(difference.significant());
  CHECK(difference.p == Approx(0.001));
  CHECK(difference.interval.low > 0);
  CHECK_FALSE(paired_difference(a, a).significant());
  CHECK(paired_difference(a, a).p == 1);
  const Difference noise = paired_difference(drawn(40, 3, 8), drawn(40, 3, 9));
  CHECK(noise.interval.low < 0);
  CHECK(noise.interval.high > 0);
  CHECK_FALSE(noise.significant());
  CHECK_THROWS_AS(paired_difference(a, drawn(39, 3, 7)), Error);
}
