#include <catch2/catch_test_macros.hpp>

#include "catalog.h"

using namespace espalier;

namespace {

Diagnostic at(int line, int column) {
  return {"range", "error", "\"x\" is 2, out of range", "r.toml", "allowed: 0 to 1", line, column};
}

}  // namespace

TEST_CASE("a diagnostic has its place, the line, a caret and the hint") {
  CHECK(render(at(2, 5), "a = 1\nx = 2\n", false) ==
        "r.toml:2:5: error[range]: \"x\" is 2, out of range\n"
        "    2 | x = 2\n"
        "      |     ^\n"
        "      = allowed: 0 to 1\n");
}

TEST_CASE("without a line only the file is named") {
  auto d = at(0, 0);
  d.hint.clear();
  CHECK(render(d, "x = 2\n", false) == "r.toml: error[range]: \"x\" is 2, out of range\n");
}

TEST_CASE("the caret stands under the code point, tabs and control characters are tamed") {
  CHECK(render(at(1, 7), "\"é\"\t= \x1b[31m2\r\n", false).find("    1 | \"é\" = ?[31m2\n      |       ^\n") != std::string::npos);
}

TEST_CASE("a very long line is cut around the caret") {
  const auto text = render(at(1, 5000), std::string(100000, 'x'), false);
  CHECK(text.size() < 400);
  CHECK(text.find("^") != std::string::npos);
}

TEST_CASE("colour changes nothing but the colour") {
  std::string text = render(at(2, 5), "a = 1\nx = 2\n", true), plain;
  CHECK(text.find("\x1b[31m") != std::string::npos);
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\x1b')
      i = text.find('m', i);
    else
      plain += text[i];
  }
  CHECK(plain == render(at(2, 5), "a = 1\nx = 2\n", false));
}

TEST_CASE("the JSON of a diagnostic has the pinned keys") {
  CHECK(
      to_json(at(2, 5)) ==
      Json::parse(
          R"({"code":"range","severity":"error","message":"\"x\" is 2, out of range","file":"r.toml","line":2,"column":5,"hint":"allowed: 0 to 1"})"));
}
