#include "recipe/order.h"

#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <random>

using namespace espalier;

namespace {

std::vector<std::string> names(std::size_t count) {
  std::vector<std::string> result;
  for (std::size_t i = 0; i < count; ++i) result.push_back("s" + std::to_string(i));
  return result;
}

}  // namespace

TEST_CASE("producers come first, ties by the recipe's order") {
  Findings findings("r");
  // 3 → 0, 1 → 2
  CHECK(topological_order(names(4), {{3, 0, {}}, {1, 2, {}}}, findings) == std::vector<std::size_t>{1, 2, 3, 0});
  CHECK(topological_order(names(3), {}, findings) == std::vector<std::size_t>{0, 1, 2});
  CHECK_FALSE(findings.failed());
}

TEST_CASE("random graphs without circles are ordered so that every edge points forward") {
  std::mt19937 random(3);
  for (int round = 0; round < 50; ++round) {
    const std::size_t count = 2 + random() % 60;
    std::vector<std::size_t> secret(count);
    for (std::size_t i = 0; i < count; ++i) secret[i] = i;
    std::shuffle(secret.begin(), secret.end(), random);
    std::vector<Edge> edges;
    for (std::size_t e = 0; e < count * 2; ++e) {
      const std::size_t a = random() % count, b = random() % count;
      if (a < b) edges.push_back({secret[a], secret[b], {}});
    }
    Findings findings("r");
    const auto order = topological_order(names(count), edges, findings);
    REQUIRE(order.size() == count);
    std::vector<std::size_t> place(count);
    for (std::size_t i = 0; i < count; ++i) place[order[i]] = i;
    for (const auto& edge : edges) CHECK(place[edge.from] < place[edge.to]);
  }
}

TEST_CASE("every circle is told once, with its stages") {
  Findings findings("r");
  // 0 needs 1 needs 2 needs 0; 3 needs itself; 4 only waits for 0.
  const auto order =
      topological_order(names(5), {{1, 0, {1, 1}}, {2, 1, {2, 1}}, {0, 2, {3, 1}}, {3, 3, {4, 1}}, {0, 4, {5, 1}}}, findings);
  CHECK(order.empty());
  const auto found = findings.take();
  REQUIRE(found.size() == 2);
  CHECK(found[0].message == "stages need each other in a circle: s0 → s1 → s2 → s0");
  CHECK(found[1].message == "stages need each other in a circle: s3 → s3");
}

TEST_CASE("a very long chain and a very long circle need no stack") {
  const std::size_t count = 200000;
  std::vector<Edge> edges;
  for (std::size_t i = 1; i < count; ++i) edges.push_back({i, i - 1, {}});
  Findings fine("r");
  CHECK(topological_order(names(count), edges, fine).front() == count - 1);
  edges.push_back({0, count - 1, {}});
  Findings circle("r");
  CHECK(topological_order(names(count), edges, circle).empty());
  CHECK(circle.take().size() == 1);
}
