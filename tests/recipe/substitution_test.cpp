#include "recipe/substitute.h"

#include <catch2/catch_test_macros.hpp>

#include "catalog.h"
#include "recipe/source.h"

using namespace espalier;

namespace {

struct Result {
  Json value;
  std::vector<Diagnostic> found;
};

/// The table [t] of a text after its [params] were put in.
Result replaced(const std::string& text, const RecipeOptions& options = {}) {
  Findings findings("r");
  auto root = parse_toml(text, findings);
  REQUIRE(root);
  const Member* params = root->find("params");
  Substitution substitution(params ? &params->value : nullptr, options, findings);
  Json value;
  for (auto& member : root->members) {
    if (member.key != "t") continue;
    substitution.apply(member.value);
    value = to_json(member.value);
  }
  return {value, findings.take()};
}

}  // namespace

TEST_CASE("alone in its string a value keeps its type, inside it becomes text") {
  const auto result = replaced(
      "[params]\ni = 3\nf = 0.5\nb = true\ns = \"text\"\nl = [1, 2]\n"
      "[t]\ni = \"${i}\"\nf = \"${f}\"\nb = \"${b}\"\ns = \"${s}\"\nl = \"${l}\"\nall = \"${i}-${f}-${b}-${s}\"\nnested = "
      "[[\"${i}\"], { x = \"<${s}>\" }]\n");
  CHECK(result.found.empty());
  CHECK(result.value ==
        Json::parse(R"({"i":3,"f":0.5,"b":true,"s":"text","l":[1,2],"all":"3-0.5-true-text","nested":[[3],{"x":"<text>"}]})"));
}

TEST_CASE("escapes") {
  const auto result = replaced("[params]\na = 1\n[t]\na = \"$${a}\"\nb = \"$$${a}\"\nc = \"$a {a} $\"\nd = \"${a}$${a}${a}\"\n");
  CHECK(result.found.empty());
  CHECK(result.value == Json::parse(R"({"a":"${a}","b":"$${a}","c":"$a {a} $","d":"1${a}1"})"));
}

TEST_CASE("the last --set of a key wins, and is found by name") {
  RecipeOptions options;
  options.set = {{"a", "2"}, {"a", "3"}, {"b", "[\"x\"]"}, {"c", "no toml value"}, {"d", "2024-01-01"}, {"e", ""}};
  const auto result = replaced(
      "[params]\na = 1\nb = 1\nc = 1\nd = 1\ne = 1\n[t]\nv = [\"${a}\", \"${b}\", \"${c}\", \"${d}\", \"${e}\"]\n", options);
  CHECK(result.found.empty());
  CHECK(result.value["v"] == Json::parse(R"([3,["x"],"no toml value","2024-01-01",""])"));
}

TEST_CASE("a value of --set cannot bring more keys with it") {
  RecipeOptions options;
  options.set = {{"a", "1\nb = 2"}};
  CHECK(replaced("[params]\na = 1\n[t]\nv = \"${a}\"\n", options).value["v"] == "1\nb = 2");
}

TEST_CASE("doublings of doublings are stopped") {
  std::string text = "[params]\na = \"" + std::string(1 << 20, 'x') + "\"\n";
  for (char c = 'b'; c < 'h'; ++c)
    text += std::string(1, c) + " = \"" + std::string("${") + char(c - 1) + "}${" + char(c - 1) + "}${" + char(c - 1) + "}\"\n";
  text += "[t]\nv = \"${g}\"\n";
  const auto result = replaced(text);
  REQUIRE_FALSE(result.found.empty());
  CHECK(result.found[0].code == "too-large");
}

TEST_CASE("chains of parameters are bounded") {
  std::string text = "[params]\np0 = 1\n";
  for (int i = 1; i < 5000; ++i) text += "p" + std::to_string(i) + " = \"${p" + std::to_string(i - 1) + "}\"\n";
  const auto result = replaced(text + "[t]\nv = \"${p4999}\"\n");
  REQUIRE(result.found.size() == 1);
  CHECK(result.found[0].code == "too-deep");
}
