#include "cli/table.h"

#include <catch2/catch_test_macros.hpp>
#include <limits>

using namespace espalier;

TEST_CASE("columns are aligned by code points, colours count nothing") {
  Table table({{"name", Table::Align::left}, {"size", Table::Align::right}, {"why", Table::Align::left}});
  table.row({"größe", "1", "x"});
  table.row({coloured("ab", "green", true), "1000", ""});
  table.row({"", "22", "y"});
  CHECK(table.text(false) ==
        "name   size  why\n"
        "größe     1  x\n"
        "\x1b[32mab\x1b[0m     1000\n"
        "         22  y\n");
  CHECK_THROWS(table.row({"1", "2", "3", "4"}));
}

TEST_CASE("bytes for people") {
  CHECK(human_bytes(0) == "0 B");
  CHECK(human_bytes(1023) == "1023 B");
  CHECK(human_bytes(1024) == "1.00 KiB");
  CHECK(human_bytes(1536 * 1024) == "1.50 MiB");
  CHECK(human_bytes(123u << 20) == "123 MiB");
  CHECK(human_bytes((1u << 30) - 1) == "1.00 GiB");
  CHECK(human_bytes(std::numeric_limits<std::uint64_t>::max()) == "16.0 EiB");
}

TEST_CASE("seconds for people") {
  CHECK(human_seconds(0) == "0 ms");
  CHECK(human_seconds(0.0123) == "12 ms");
  CHECK(human_seconds(12.34) == "12.3 s");
  CHECK(human_seconds(303) == "5 min 03 s");
  CHECK(human_seconds(3600 * 2 + 14 * 60) == "2 h 14 min");
  CHECK(human_seconds(-1) == "?");
  CHECK(human_seconds(std::numeric_limits<double>::quiet_NaN()) == "?");
}

TEST_CASE("numbers keep their significant digits") {
  CHECK(significant(0.000412, 3) == "0.000412");
  CHECK(significant(1.2345, 3) == "1.23");
  CHECK(significant(-0.05, 2) == "-0.050");
  CHECK(significant(12345.6, 3) == "12346");
  CHECK(significant(0, 3) == "0");
  CHECK(significant(std::numeric_limits<double>::infinity(), 3) == "inf");
}

TEST_CASE("foreign text cannot drive the terminal") { CHECK(printable("a\x1b[2J\nb\tc") == "a?[2J b c"); }
