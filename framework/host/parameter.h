#pragma once
#include <optional>
#include <string>
#include <string_view>

#include "host/catalog.h"

namespace espalier {

/// What is wrong with a value: a diagnostic's code ("type", "range", "choice"), message and hint.
struct ValueProblem {
  std::string code, message, hint;
};

/// The type of the elements: "integer" for "list<integer>", "number" for "map<number>", the type itself otherwise.
std::string_view element_type(std::string_view type);
bool is_list(std::string_view type);
bool is_map(std::string_view type);
/// Whether a manifest may declare this type.
bool is_parameter_type(std::string_view type);

/// The components in a checked value: itself for "component", its elements for "list<component>"; none for other types and null.
std::vector<Json> components_in(const ParameterInfo& parameter, const Json& value);

/// Checks one scalar against a parameter (or one element of a list or map of it): type, range, choices. Brings it to the schema's
/// type: 1.0 becomes 1 for an integer, 1 becomes 1.0 for a number, so that equal values are equal bytes. Components are not
/// scalars.
std::optional<ValueProblem> check_scalar(const ParameterInfo& parameter, Json& value);

/// "an integer", "a list of paths", …: for messages.
std::string describe_type(std::string_view type);
/// "the string \"a\"", "the number 1.5", "a table": what a value is, shortened, for messages.
std::string describe_value(const Json& value);

}  // namespace espalier
