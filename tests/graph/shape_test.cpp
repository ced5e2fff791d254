#include "graph/shape.h"

#include <catch2/catch_test_macros.hpp>

#include "sdk/error.h"

using espalier::Dim;

TEST_CASE("dimensions are linear forms over symbols") {
  const Dim batch = Dim::symbol("batch"), past = Dim::symbol("past"), sequence = Dim::symbol("sequence");
  CHECK((past + sequence).text() == "past + sequence");
  CHECK(past + sequence == sequence + past);
  CHECK(past + sequence - past == sequence);
  CHECK((Dim(2) * past - 3).text() == "2*past - 3");
  CHECK(Dim::symbol("past + sequence") == past + sequence);
  CHECK(Dim::symbol("2*past - 3") == Dim(2) * past - 3);
  CHECK((batch - batch) == Dim(0));
  CHECK_FALSE(batch.known());
  CHECK(batch.value_or(7) == 7);
  CHECK_THROWS_AS(batch.value(), espalier::Error);
  CHECK_THROWS_AS(Dim::symbol(""), espalier::Error);
}

TEST_CASE("products and quotients of dimensions compare by meaning") {
  const Dim a = Dim::symbol("a"), b = Dim::symbol("b");
  CHECK(a * b == b * a);
  CHECK(floor_div(a * b * 576, b * 64) == a * 9);
  CHECK(floor_div((a + b) * 4, 4) == a + b);
  CHECK(floor_div(a * 4 + 3, 4) == a);
  CHECK(floor_div(Dim(-7), Dim(2)) == Dim(-4));
  const Dim half = floor_div(a, 2);
  CHECK(half == floor_div(a, 2));
  CHECK(half != floor_div(b, 2));
  CHECK(Dim::symbol(half.text()) == half);
  CHECK(Dim::symbol((half * b + 1).text()) == half * b + 1);
  CHECK_THROWS_AS(floor_div(a, Dim(0)), espalier::Error);
}

TEST_CASE("dimensions are evaluated under bindings, unbound symbols as one") {
  const Dim a = Dim::symbol("a"), b = Dim::symbol("b");
  CHECK(evaluate(a * b * 3 + 1, {{"a", 5}, {"b", 7}}) == 106);
  CHECK(evaluate(a + b, {{"a", 5}}) == 6);
  CHECK(evaluate(floor_div(a + 1, 2) * b, {{"a", 5}, {"b", 2}}) == 6);
}

TEST_CASE("hostile dimensions end in an error or in a name, never in an overflow") {
  const std::int64_t huge = std::int64_t{1} << 40;
  CHECK_THROWS_AS(Dim(huge) * Dim(huge), espalier::Error);
  CHECK_THROWS_AS(espalier::element_count({huge, huge}), espalier::Error);
  CHECK(espalier::element_count({huge, 0, huge}) == 0);
  CHECK_FALSE(espalier::element_count({2, Dim::symbol("s")}));
  Dim grows = Dim::symbol("x") + Dim::symbol("y");
  for (int i = 0; i < 100; ++i) grows = grows * (grows + 1);
  CHECK(grows.text().size() < 10000);
  for (auto name : {"a b", "((((", "a*", "*", "1a", "-", "floor(a/0)", "99999999999999999999", "f(x, y) + 1", "a-b"})
    CHECK(Dim::symbol(name) == Dim::symbol(Dim::symbol(name).text()));
}
