// Recipes that were made to exhaust the stack, the memory or the patience of the program.
#include <catch2/catch_test_macros.hpp>
#include <ctime>
#include <random>

#include "catalog.h"
#include "sdk/error.h"

using namespace espalier;

namespace {

std::string repeated(const std::string& text, int count) {
  std::string result;
  for (int i = 0; i < count; ++i) result += text;
  return result;
}

/// The codes of a text's diagnostics; it must not take long.
std::vector<std::string> verdict(const std::string& text) {
  const TemporaryRecipe recipe(text);
  const auto begin = std::clock();
  const auto result = recipe.load();
  CHECK(std::clock() - begin < 10 * CLOCKS_PER_SEC);
  std::vector<std::string> codes;
  for (const auto& d : result.diagnostics) codes.push_back(d.code);
  CHECK(result.plan.has_value() == codes.empty());
  return codes;
}

}  // namespace

TEST_CASE("a file that cannot be read is an Error, not a diagnostic") {
  CHECK_THROWS_AS(load_recipe("/nowhere/recipe.toml", described_catalog()), Error);
  CHECK_THROWS_AS(load_recipe(recipe_tests(), described_catalog()), Error);
}

TEST_CASE("a recipe of 100 MB, or without an end, is one diagnostic") {
  const TemporaryRecipe recipe("");
  std::filesystem::resize_file(recipe.file, 100'000'000);
  CHECK(places(recipe.load()) == std::vector<std::string>{"too-large 0:0"});
  CHECK(places(load_recipe("/dev/zero", described_catalog())) == std::vector<std::string>{"too-large 0:0"});
}

TEST_CASE("nesting cannot exhaust the stack") {
  using Codes = std::vector<std::string>;
  CHECK(verdict("a = " + repeated("[", 1000000)) == Codes{"too-deep"});
  CHECK(verdict("a = " + repeated("{a=", 1000000)) == Codes{"too-deep"});
  CHECK(verdict("[" + repeated("a.", 1000000) + "a]\n") == Codes{"too-deep"});
  CHECK(verdict(repeated("a.", 1000000) + "a = 1\n") == Codes{"too-deep"});
  CHECK(verdict(repeated("a . ", 1000000) + "a = 1\n") == Codes{"too-deep"});
  CHECK(verdict(repeated("\"a\".", 1000000) + "a = 1\n") == Codes{"too-deep"});
  CHECK(verdict("a = {" + repeated("b.", 1000000) + "b = 1}\n") == Codes{"too-deep"});
  // Dots in strings, comments and numbers are none of it.
  CHECK(verdict("# " + repeated(".", 100) + "\n[recipe]\nname = '" + repeated(".", 100) + "'\ndescription = \"\"\"\n" +
                repeated("a.", 100) + "\n\"\"\"\n") == Codes{"missing-stages"});
}

TEST_CASE("very many stages, references and mistakes take little time") {
  std::string many = "[stages.s0]\nuse = 'source/gguf'\npath = 'a.txt'\n", wrong = many;
  for (int i = 1; i < 20000; ++i) {
    const auto n = std::to_string(i);
    many += "[stages.s" + n + "]\nuse = 'pruner/channels'\nmodel = '@s" + std::to_string(i - 1) + "'\n";
    wrong += "[stages.s" + n + "]\nuse = 'pruner/chanels'\nmodel = '@t" + n + "'\nspars = 1\n";
  }
  CHECK(verdict(many).empty());
  const auto codes = verdict(wrong);
  CHECK(codes.size() == 201);
  CHECK(codes.back() == "too-many");
}

TEST_CASE("a huge list is checked like a small one") {
  std::string text =
      "[stages.a]\nuse = 'source/gguf'\npath = 'a.txt'\n[stages.p]\nuse = 'pruner/channels'\nmodel = '@a'\nscope = [";
  text += repeated("'*',", 500000) + "]\n";
  CHECK(verdict(text).empty());
}

TEST_CASE("damaged recipes are refused or valid, never more") {
  const auto sound = read_text(recipe_tests() / "good" / "whole.toml");
  std::mt19937 random(11);
  for (int i = 0; i < 3000; ++i) {
    auto text = sound;
    for (int k = 0; k < 3; ++k) {
      const auto place = random() % text.size();
      switch (random() % 4) {
        case 0:
          text[place] = static_cast<char>(random() % 256);
          break;
        case 1:
          text.erase(place, random() % 20);
          break;
        case 2:
          text.insert(place, 1, "[]{}=\"'.,@$#\n"[random() % 13]);
          break;
        default:
          text.insert(place, text.substr(random() % text.size(), random() % 40));
      }
    }
    const TemporaryRecipe recipe(text);
    const auto result = recipe.load();
    bool failed = false;
    for (const auto& d : result.diagnostics) {
      failed = failed || d.severity == "error";
      CHECK_FALSE(render(d, result.source, true).empty());
    }
    CHECK(failed == !result.plan.has_value());
  }
}

TEST_CASE("text that runs into the parser's own assertions has a place") {
  const TemporaryRecipe recipe("[recipe]\nname = \"x\"\n\n[=stages.base]\nuse = 3\n");
  const auto found = places(recipe.load());
  REQUIRE(found.size() == 1);
  CHECK(found[0] == "syntax 4:1");
}
