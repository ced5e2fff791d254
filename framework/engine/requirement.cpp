#include "engine/requirement.h"

#include <cstdio>

#include "sdk/error.h"

namespace espalier {
namespace {

bool holds(double figure, const std::string& op, double bound) {
  if (op == ">") return figure > bound;
  if (op == ">=") return figure >= bound;
  if (op == "<") return figure < bound;
  if (op == "<=") return figure <= bound;
  if (op == "==" || op == "=") return figure == bound;
  if (op == "!=") return figure != bound;
  throw Error(ErrorCode::internal, "no such comparison in a requirement: \"" + op + "\"");
}

std::string number(double value) {
  char text[40];
  std::snprintf(text, sizeof text, "%.6g", value);
  return text;
}

}  // namespace

std::optional<StageResult::Failure> unmet(const Stage& stage, const std::map<std::string, double>& figures) {
  const std::string code(to_string(ErrorCode::requirement));
  for (const Requirement& requirement : stage.require) {
    const std::string wanted = requirement.figure + " " + requirement.op + " " + number(requirement.bound);
    const auto figure = figures.find(requirement.figure);
    if (figure == figures.end()) {
      std::string given;
      for (const auto& [name, value] : figures) given += (given.empty() ? "" : ", ") + name;
      return StageResult::Failure{code,
                                  "requires " + wanted + ", but gives no figure \"" + requirement.figure + "\"",
                                  {},
                                  given.empty() ? "it gives no figures" : "it gives " + given,
                                  {}};
    }
    if (!holds(figure->second, requirement.op, requirement.bound))
      return StageResult::Failure{code,
                                  "requires " + wanted + ", but " + requirement.figure + " is " + number(figure->second),
                                  {},
                                  "the stage's result is kept; change the recipe or the requirement",
                                  {}};
  }
  return std::nullopt;
}

}  // namespace espalier
