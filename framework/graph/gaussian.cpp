#include "graph/gaussian.h"

#include <cmath>
#include <cstring>
#include <functional>
#include <numbers>
#include <numeric>

namespace espalier {
namespace {

std::uint64_t splitmix(std::uint64_t& state) {
  std::uint64_t z = state += 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

/// In (0, 1].
double uniform(std::uint64_t& state) { return (static_cast<double>(splitmix(state) >> 11) + 1) * 0x1.0p-53; }

}  // namespace

Tensor gaussian(std::vector<std::int64_t> shape, double deviation, std::uint64_t seed) {
  const auto count = std::accumulate(shape.begin(), shape.end(), std::int64_t{1}, std::multiplies<>());
  std::vector<float> values(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < values.size(); i += 2) {
    const double radius = deviation * std::sqrt(-2 * std::log(uniform(seed))), angle = 2 * std::numbers::pi * uniform(seed);
    values[i] = static_cast<float>(radius * std::cos(angle));
    if (i + 1 < values.size()) values[i + 1] = static_cast<float>(radius * std::sin(angle));
  }
  return Tensor::of<float>(DType::f32, std::move(shape), values);
}

std::uint64_t seed_for(std::uint64_t seed, std::string_view name) {
  const Digest digest = sha256(name);
  std::uint64_t bits = 0;
  std::memcpy(&bits, digest.bytes.data(), sizeof bits);
  return seed ^ bits;
}

}  // namespace espalier
