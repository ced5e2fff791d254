#include "recipe/units.h"

#include <catch2/catch_test_macros.hpp>

using namespace espalier;

TEST_CASE("durations") {
  CHECK(parse_duration("10m") == 600.0);
  CHECK(parse_duration("90s") == 90.0);
  CHECK(parse_duration("1h30m") == 5400.0);
  CHECK(parse_duration(" 1.5 h ") == 5400.0);
  CHECK(parse_duration("500ms") == 0.5);
  CHECK(parse_duration("2d") == 172800.0);
  for (const char* wrong : {"", "10", "m", "10x", "10 minutes", "-5s", "0s", "1e3s", "inf s", "nan s", "10000000d", "10m 5",
                            "99999999999999999999999999d"}) {
    INFO(wrong);
    CHECK_FALSE(parse_duration(wrong));
  }
}

TEST_CASE("amounts of memory") {
  CHECK(parse_bytes("4GiB") == 4294967296u);
  CHECK(parse_bytes("512 MiB") == 536870912u);
  CHECK(parse_bytes("1.5GB") == 1500000000u);
  CHECK(parse_bytes("4096") == 4096u);
  CHECK(parse_bytes("1kB") == 1000u);
  for (const char* wrong : {"", "GiB", "4 gib", "4G", "-1B", "0", "0.1", "4GiB extra", "2000000TiB", "0x10", "inf"}) {
    INFO(wrong);
    CHECK_FALSE(parse_bytes(wrong));
  }
}

TEST_CASE("requirements") {
  const auto check = [](const char* text, const char* op, double bound) {
    const auto found = parse_requirement(text);
    REQUIRE(found);
    CHECK(found->op == op);
    CHECK(found->bound == bound);
    CHECK(found->text == text);
  };
  check(">1.0", ">", 1);
  check(">= 0.5", ">=", 0.5);
  check(" <-3 ", "<", -3);
  check("<=1e9", "<=", 1e9);
  check("==4", "==", 4);
  for (const char* wrong : {"", "1.0", ">", "=1", "!=1", "> 1 2", ">x", ">nan", "><1", "=>1"}) {
    INFO(wrong);
    CHECK_FALSE(parse_requirement(wrong));
  }
}
