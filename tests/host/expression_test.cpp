#include "host/expression.h"

#include <catch2/catch_approx.hpp>
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <map>

#include "sdk/error.h"

using namespace espalier;
using Catch::Matchers::ContainsSubstring;

namespace {

std::optional<double> value(const std::string& text, const std::map<std::string, Expression::Value>& names = {}) {
  return Expression(text).value([&](const std::string& name) -> std::optional<Expression::Value> {
    const auto found = names.find(name);
    if (found == names.end()) return std::nullopt;
    return found->second;
  });
}

}  // namespace

TEST_CASE("expressions are arithmetic as everyone reads it") {
  CHECK(value("1 + 2 * 3 - 4 / 2") == 5.0);
  CHECK(value("(1 + 2) * -3") == -9.0);
  CHECK(value("8 / 2 / 2") == 2.0);
  CHECK(value("1.5e3") == 1500.0);
  CHECK(value("min(3, 1 + 1, 9) + max(4) + ceil(1.2) + sqrt(9)") == 11.0);
  CHECK(value("1e9 + 16 * model.parameters", {{"model.parameters", 2.0}}) == 1e9 + 32);
}

TEST_CASE("texts are compared, conditions choose") {
  const std::map<std::string, Expression::Value> names{{"precision", "bf16"}, {"steps", 4.0}};
  CHECK(value("if(precision == \"bf16\", 2, 4) * steps", names) == 8.0);
  CHECK(value("if(precision == \"f32\", 2, 4) * steps", names) == 16.0);
  CHECK(value("steps == 4", names) == 1.0);
  CHECK(value("steps == \"4\"", names) == 0.0);
  CHECK_FALSE(value("precision + 1", names));
  // What the branch that is not taken needs may be unknown.
  CHECK(value("if(steps == 4, steps, heldout.count)", names) == 4.0);
}

TEST_CASE("what cannot be known has no value") {
  CHECK_FALSE(value("model.parameters * 2"));
  CHECK_FALSE(value("1 / 0"));
  CHECK_FALSE(value("sqrt(0 - 1)"));
  CHECK(Expression("a.b + min(c, a.b)").names() == std::vector<std::string>{"a.b", "c"});
}

TEST_CASE("what is no expression is refused with its column") {
  const auto refused = [](const std::string& text, const std::string& what) {
    CAPTURE(text);
    CHECK_THROWS_WITH(Expression(text), ContainsSubstring(what) && ContainsSubstring("column"));
  };
  refused("", "ends too early");
  refused("1 +", "ends too early");
  refused("1 2", "operator");
  refused("(1", "\")\"");
  refused("pow(1, 2)", "\"pow\"");
  refused("if(1, 2)", "instead of 3");
  refused("\"a", "quotation");
  refused("a $ b", "operator");
  refused("#", "does not belong");
  refused(std::string(200, '('), "too deeply");
  refused(std::string(200, '-') + "1", "too deeply");
  refused(std::string(5000, '1'), "4,000");
}
