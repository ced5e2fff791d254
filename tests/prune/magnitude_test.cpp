#include "prune/magnitude.h"

#include <bit>
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_floating_point.hpp>
#include <cmath>
#include <random>

#include "formats/float_values.h"

using namespace espalier;

namespace {

using Catch::Matchers::WithinRel;

Tensor random_tensor(DType type, const std::vector<std::int64_t>& shape) {
  std::int64_t count = 1;
  for (auto length : shape) count *= length;
  std::mt19937 random(7);
  std::normal_distribution<float> normal;
  std::vector<float> values(static_cast<std::size_t>(count));
  for (auto& value : values) value = normal(random);
  if (type == DType::f64) return Tensor::of(type, shape, std::vector<double>(values.begin(), values.end()));
  std::vector<std::byte> bytes(byte_size(type, count));
  write_floats(values, type, bytes.data(), "w");
  return Tensor::own(type, shape, std::move(bytes));
}

/// One group whose unit is an index of one axis of `w`.
CoupledGroup along(std::size_t axis, std::int64_t length) {
  CoupledGroup group;
  group.id = std::string(1, 'w');
  group.members = {{"w", axis, 1, true}};
  for (std::int64_t i = 0; i < length; ++i) group.units.push_back({{0, {i}}});
  return group;
}

double term(double w, int p) { return p == 1 ? std::abs(w) : w * w; }

}  // namespace

TEST_CASE("the magnitude of an axis's indices, for every floating type and axis, by any number of threads") {
  const std::vector<std::int64_t> shape = {37, 130, 53};  // no multiple of a lane, and enough for several threads
  for (const auto type : {DType::f32, DType::f16, DType::bf16, DType::f64}) {
    Graph graph;
    graph.initializers["w"] = random_tensor(type, shape);
    const auto numbers = graph.initializers["w"].numbers();
    for (std::size_t axis = 0; axis < shape.size(); ++axis) {
      const std::vector<CoupledGroup> groups = {along(axis, shape[axis])};
      for (const int p : {1, 2}) {
        INFO(to_string(type) << ", axis " << axis << ", p " << p);
        std::vector<double> expected(static_cast<std::size_t>(shape[axis]), 0.0);
        const std::int64_t inner = axis == 0 ? shape[1] * shape[2] : axis == 1 ? shape[2] : 1;
        for (std::size_t i = 0; i < numbers.size(); ++i)
          expected[static_cast<std::size_t>(static_cast<std::int64_t>(i) / inner % shape[axis])] += term(numbers[i], p);
        MagnitudeOptions options;
        options.p = p;
        const Scores one = magnitude(graph, groups, options);
        REQUIRE(one.at("w").size() == expected.size());
        for (std::size_t i = 0; i < expected.size(); ++i)
          CHECK_THAT(one.at("w")[i], WithinRel(p == 1 ? expected[i] : std::sqrt(expected[i]), 1e-12));
        for (const int threads : {2, 3, 64}) {
          options.threads = threads;
          CHECK(magnitude(graph, groups, options) == one);  // to the last bit
        }
      }
    }
  }
}

TEST_CASE("an axis of no length has no magnitude") {
  Graph graph;
  graph.initializers["w"] = Tensor::of(DType::f32, {0, 4}, std::vector<float>{});
  CHECK(magnitude(graph, {along(0, 0)}).at("w").empty());
  CHECK(magnitude(graph, {along(1, 4)}).at("w") == std::vector<double>(4, 0.0));
}
