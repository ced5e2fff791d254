#include "host/parameter.h"

#include <catch2/catch_test_macros.hpp>
#include <limits>

using namespace espalier;

namespace {

ParameterInfo parameter(const std::string& type) {
  ParameterInfo p;
  p.name.assign(1, 'x');
  p.type = type;
  return p;
}

std::string code(const ParameterInfo& p, Json value) {
  const auto problem = check_scalar(p, value);
  if (!problem) return {};
  return problem->code;
}

}  // namespace

TEST_CASE("values take the schema's type") {
  Json value = 1.0;
  CHECK_FALSE(check_scalar(parameter("integer"), value));
  CHECK(value.is_number_integer());
  value = 1;
  CHECK_FALSE(check_scalar(parameter("number"), value));
  CHECK(value.dump() == "1.0");
  value = 3;
  CHECK_FALSE(check_scalar(parameter("list<number>"), value));  // an element of the list
  CHECK(value.is_number_float());
}

TEST_CASE("wrong types, ranges and choices have codes") {
  CHECK(code(parameter("integer"), 1.5) == "type");
  CHECK(code(parameter("integer"), "1") == "type");
  CHECK(code(parameter("integer"), 1e300) == "type");
  CHECK(code(parameter("integer"), std::numeric_limits<double>::quiet_NaN()) == "type");
  CHECK(code(parameter("number"), std::numeric_limits<double>::infinity()) == "range");
  CHECK(code(parameter("number"), true) == "type");
  CHECK(code(parameter("boolean"), 1) == "type");
  CHECK(code(parameter("string"), 1) == "type");
  CHECK(code(parameter("path"), "") == "type");
  CHECK(code(parameter("path"), std::string("a\0b", 3)) == "type");
  auto bits = parameter("integer");
  bits.min = 2;
  bits.max = 8;
  CHECK(code(bits, 8).empty());
  CHECK(code(bits, 9) == "range");
  CHECK(code(bits, 1) == "range");
  bits.choices = {"4", "8"};
  CHECK(code(bits, 4).empty());
  CHECK(code(bits, 5) == "choice");
  auto order = parameter("string");
  order.choices = {"local", "global"};
  Json slip = "golbal";
  CHECK(check_scalar(order, slip)->hint.find("did you mean \"global\"?") != std::string::npos);
}

TEST_CASE("parameter types are a closed list") {
  for (const char* type : {"integer", "number", "boolean", "string", "path", "component", "list<integer>", "list<number>",
                           "list<string>", "list<path>", "list<component>", "map<number>"})
    CHECK(is_parameter_type(type));
  for (const char* type : {"", "float", "list<>", "map<component>", "map<string>", "list<list<integer>>", "list<boolean>"})
    CHECK_FALSE(is_parameter_type(type));
}
