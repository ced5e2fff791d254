#include "formats/rotary_table.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <vector>

namespace espalier {
namespace {

/// Frequencies of the pairs, stretched as the table says.
std::vector<double> frequencies(const RotaryTable& table, std::int64_t size) {
  using Kind = RotaryScaling::Kind;
  const RotaryScaling& s = table.scaling;
  const double tau = 2 * std::numbers::pi;
  const auto half = static_cast<std::size_t>(size / 2);
  std::vector<double> out;
  // yarn: the pair whose wave turns so often within the original context.
  const auto pair_of = [&](double turns) {
    return static_cast<double>(size) * std::log(s.original / (turns * tau)) / (2 * std::log(table.base));
  };
  const double low = std::max(std::floor(pair_of(s.beta_fast)), 0.0);
  double high = std::min(std::ceil(pair_of(s.beta_slow)), static_cast<double>(size) - 1);
  if (low == high) high += 0.001;
  for (std::size_t i = 0; i < half; ++i) {
    double frequency = std::pow(table.base, -2.0 * static_cast<double>(i) / static_cast<double>(size));
    if (s.kind == Kind::linear) frequency /= s.factor;
    if (s.kind == Kind::llama3) {
      const double wave = tau / frequency;
      if (wave > s.original / s.low) {
        frequency /= s.factor;
      } else if (wave >= s.original / s.high) {
        const double smooth = (s.original / wave - s.low) / (s.high - s.low);
        frequency = (1 - smooth) * frequency / s.factor + smooth * frequency;
      }
    }
    if (s.kind == Kind::yarn) {
      const double ramp = std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0);
      frequency = frequency / s.factor * ramp + frequency * (1 - ramp);
    }
    out.push_back(frequency);
  }
  return out;
}

}  // namespace

void add_rotary_tables(Graph& graph, const std::string& name, const RotaryTable& table, std::int64_t positions, std::int64_t size) {
  const std::int64_t half = size / 2;
  std::vector<float> cosines(static_cast<std::size_t>(positions * half)), sines(cosines.size());
  const std::vector<double> by_pair = frequencies(table, size);
  for (std::int64_t i = 0; i < half; ++i) {
    for (std::int64_t p = 0; p < positions; ++p) {
      const double angle = static_cast<double>(p) * by_pair[static_cast<std::size_t>(i)];
      cosines[static_cast<std::size_t>(p * half + i)] = static_cast<float>(std::cos(angle) * table.scaling.gain);
      sines[static_cast<std::size_t>(p * half + i)] = static_cast<float>(std::sin(angle) * table.scaling.gain);
    }
  }
  graph.initializers[name + ".cos"] = Tensor::of<float>(DType::f32, {positions, half}, cosines);
  graph.initializers[name + ".sin"] = Tensor::of<float>(DType::f32, {positions, half}, sines);
  graph.doc[""] = "Rotary tables are computed in double precision and rounded to single.";
}

}  // namespace espalier
