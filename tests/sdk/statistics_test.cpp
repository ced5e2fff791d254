#include "sdk/statistics.h"

#include <catch2/catch_approx.hpp>
#include <catch2/catch_test_macros.hpp>
#include <cmath>
#include <random>

#include "sdk/error.h"

using namespace espalier;
using Catch::Approx;

namespace {

/// Normal numbers by Box and Muller: the standard library's distribution differs between libraries.
std::vector<double> normal(std::size_t count, double mean, double deviation, std::mt19937_64& bits) {
  std::vector<double> values;
  const auto uniform = [&] { return (static_cast<double>(bits() >> 11) + 0.5) * 0x1.0p-53; };
  while (values.size() < count)
    values.push_back(mean + deviation * std::sqrt(-2 * std::log(uniform())) * std::cos(2 * M_PI * uniform()));
  return values;
}

}  // namespace

TEST_CASE("means, percentiles and medians of known numbers") {
  CHECK(Samples{{1, 2, 6}, {}}.mean() == 3);
  CHECK(Samples{{1, 2, 6}, {2, 1, 1}}.mean() == 2.5);
  CHECK(percentile({5, 1, 4, 2, 3}, 0.5) == 3);
  CHECK(percentile({5, 1, 4, 2, 3}, 0.95) == 5);
  CHECK(percentile({7}, 0.01) == 7);
  CHECK(median({4, 1, 3, 2}) == 2.5);
  CHECK(median({9, 1, 3}) == 3);
  CHECK_THROWS_AS(percentile({}, 0.5), Error);
}

TEST_CASE("a median's interval lies between the order statistics of the binomial table") {
  CHECK_FALSE(median_interval({1, 2, 3, 4, 5}));  // 1 - 2/32 is less than 95 %
  const auto six = median_interval({6, 5, 4, 3, 2, 1});
  CHECK(six->low == 1);
  CHECK(six->high == 6);
  std::vector<double> twenty;
  for (int i = 1; i <= 20; ++i) twenty.push_back(i);
  const auto wide = median_interval(twenty);  // the table says the 6th and the 15th
  CHECK(wide->value == 10.5);
  CHECK(wide->low == 6);
  CHECK(wide->high == 15);
}

TEST_CASE("an interval of a mean agrees with the normal theory, and is a function of the samples alone") {
  std::mt19937_64 bits(11);
  const Samples samples{normal(400, 5, 2, bits), {}};
  double squares = 0;
  for (const double v : samples.values) squares += (v - samples.mean()) * (v - samples.mean());
  const double error = std::sqrt(squares / 400) / std::sqrt(400.0);
  const auto interval = bootstrap_mean(samples);
  REQUIRE(interval);
  CHECK(interval->value == Approx(samples.mean()));
  CHECK(interval->low == Approx(samples.mean() - 1.96 * error).margin(0.12 * error));
  CHECK(interval->high == Approx(samples.mean() + 1.96 * error).margin(0.12 * error));
  const auto again = bootstrap_mean(samples);
  CHECK(again->low == interval->low);
  CHECK(again->high == interval->high);
  BootstrapOptions wider;
  wider.confidence = 0.99;
  CHECK(bootstrap_mean(samples, wider)->low < interval->low);
}

TEST_CASE("95 % intervals hold the true mean in about 95 % of experiments") {
  std::mt19937_64 bits(5);
  BootstrapOptions options;
  options.resamples = 600;
  int held = 0, held_skewed = 0;
  constexpr int experiments = 400;
  for (int e = 0; e < experiments; ++e) {
    held += bootstrap_mean({normal(40, 3, 1, bits), {}}, options)->holds(3);
    std::vector<double> skewed = normal(40, 0, 1, bits);
    for (double& v : skewed) v = v * v;  // chi-squared with one degree of freedom: its mean is 1
    held_skewed += bootstrap_mean({skewed, {}}, options)->holds(1);
  }
  // Of 400 experiments 95 % ± 1.1 % (one standard deviation); with 40 units the bootstrap is known to fall short by 1 to 4 points.
  CHECK(held > 0.91 * experiments);
  CHECK(held < 0.98 * experiments);
  CHECK(held_skewed > 0.88 * experiments);
}

TEST_CASE("a paired comparison sees a difference that separate intervals hide") {
  std::mt19937_64 bits(3);
  Samples a{normal(50, 3, 1, bits), {}}, b = a;
  const std::vector<double> noise = normal(50, 0.05, 0.02, bits);
  for (std::size_t i = 0; i < 50; ++i) b.values[i] += noise[i];
  CHECK(bootstrap_mean(a)->high > bootstrap_mean(b)->low);
  const std::vector<Samples> both{a, b};
  const auto difference = bootstrap(both, [](std::span<const double> m) { return m[1] - m[0]; });
  CHECK(difference->low > 0.03);
  CHECK(difference->high < 0.07);
  const auto ratio = bootstrap(both, [](std::span<const double> m) { return std::exp(m[1] - m[0]); });
  CHECK(std::log(ratio->low) == Approx(difference->low).epsilon(1e-3));
  CHECK(std::log(ratio->high) == Approx(difference->high).epsilon(1e-3));
}

TEST_CASE("what has no interval, or cannot be compared") {
  CHECK_FALSE(bootstrap_mean({{1.5}, {}}));
  const auto flat = bootstrap_mean({{2, 2, 2}, {1, 5, 1}});
  CHECK(flat->low == Approx(2));
  CHECK(flat->high == Approx(2));
  const std::vector<Samples> uneven{{{1, 2, 3}, {}}, {{1, 2}, {}}};
  CHECK_THROWS_AS(bootstrap(uneven, [](std::span<const double> m) { return m[0]; }), Error);
  CHECK_THROWS_AS(bootstrap_mean({{1, NAN}, {}}), Error);
  CHECK_THROWS_AS(bootstrap_mean({{1, 2}, {1, 0}}), Error);
}
