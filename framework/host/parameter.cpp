#include "host/parameter.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>

namespace espalier {
namespace {

constexpr std::string_view scalars[] = {"integer", "number", "boolean", "string", "path"};

std::string unit_of(const ParameterInfo& parameter) { return parameter.unit.empty() ? "" : " " + parameter.unit; }

std::string range_text(const ParameterInfo& p) {
  if (p.min && p.max) return fmt::format("{} to {}{}", *p.min, *p.max, unit_of(p));
  if (p.min) return fmt::format("at least {}{}", *p.min, unit_of(p));
  return fmt::format("at most {}{}", *p.max, unit_of(p));
}

std::optional<ValueProblem> check_range(const ParameterInfo& p, const Json& value, const Json& as_written) {
  const double number = value.get<double>();
  if (!std::isfinite(number)) return ValueProblem{"range", fmt::format("\"{}\" must be a finite number", p.name), {}};
  if ((p.min && number < *p.min) || (p.max && number > *p.max))
    return ValueProblem{"range", fmt::format("\"{}\" is {}, out of range", p.name, as_written.dump()), "allowed: " + range_text(p)};
  return std::nullopt;
}

std::optional<ValueProblem> check_choice(const ParameterInfo& p, const Json& value) {
  const std::string text = value.is_string() ? value.get<std::string>() : value.dump();
  if (p.choices.empty() || std::find(p.choices.begin(), p.choices.end(), text) != p.choices.end()) return std::nullopt;
  std::string all;
  for (const auto& choice : p.choices) all += (all.empty() ? "" : ", ") + choice;
  const auto near = nearest(text, p.choices);
  return ValueProblem{"choice", fmt::format("\"{}\" cannot be {}", p.name, describe_value(value)),
                      near ? fmt::format("did you mean \"{}\"? allowed: {}", *near, all) : "allowed: " + all};
}

/// Whether the text of a string would be a value of the type.
bool means(std::string_view type, std::string_view text) {
  if (type == "boolean") return text == "true" || text == "false";
  if (type != "integer" && type != "number") return false;
  double number = 0;
  const auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), number);
  return problem == std::errc() && end == text.data() + text.size();
}

/// The integer that a whole float stands for.
bool to_integer(Json& value) {
  const double number = value.get<double>();
  if (!(std::fabs(number) <= 9007199254740992.0) || number != std::floor(number))
    return false;  // 2^53: beyond it floats skip integers
  value = static_cast<std::int64_t>(number);
  return true;
}

bool fits_type(std::string_view type, Json& value) {
  if (type == "integer") {
    if (value.is_number_unsigned()) return value.get<std::uint64_t>() <= INT64_MAX;
    return value.is_number_integer() || (value.is_number_float() && to_integer(value));
  }
  if (type == "number") {
    if (!value.is_number()) return false;
    value = value.get<double>();
    return true;
  }
  if (type == "boolean") return value.is_boolean();
  return value.is_string();
}

}  // namespace

std::string_view element_type(std::string_view type) {
  if (is_list(type)) return type.substr(5, type.size() - 6);
  if (is_map(type)) return type.substr(4, type.size() - 5);
  return type;
}

bool is_list(std::string_view type) { return type.starts_with("list<") && type.ends_with(">"); }
bool is_map(std::string_view type) { return type.starts_with("map<") && type.ends_with(">"); }

bool is_parameter_type(std::string_view type) {
  if (type == "map<number>") return true;
  if (is_map(type)) return false;
  const auto element = element_type(type);
  if (is_list(type) && element == "boolean") return false;
  if (element == "component") return true;
  return std::find(std::begin(scalars), std::end(scalars), element) != std::end(scalars);
}

std::vector<Json> components_in(const ParameterInfo& parameter, const Json& value) {
  std::vector<Json> found;
  if (element_type(parameter.type) != "component") return found;
  const auto add = [&](const Json& one) {
    if (one.is_object() && one.contains("use") && one["use"].is_string()) found.push_back(one);
  };
  if (is_list(parameter.type) && value.is_array())
    for (const Json& one : value) add(one);
  else
    add(value);
  return found;
}

std::optional<ValueProblem> check_scalar(const ParameterInfo& parameter, Json& value) {
  const auto type = element_type(parameter.type);
  const Json given = value;
  if (!fits_type(type, value)) {
    const std::string hint = given.is_string() && means(type, given.get_ref<const std::string&>()) ? "write it without quotes" : "";
    return ValueProblem{"type",
                        fmt::format("\"{}\" must be {}, not {}", parameter.name, describe_type(type), describe_value(given)), hint};
  }
  if (type == "integer" || type == "number") {
    if (auto problem = check_range(parameter, value, given)) return problem;
    return check_choice(parameter, value);
  }
  if (type == "string") return check_choice(parameter, value);
  if (type == "path") {
    const auto& text = value.get_ref<const std::string&>();
    if (text.empty() || text.find('\0') != std::string::npos)
      return ValueProblem{"type", fmt::format("\"{}\" must be a path, not {}", parameter.name, describe_value(value)), {}};
  }
  return std::nullopt;
}

std::string describe_type(std::string_view type) {
  static constexpr std::pair<std::string_view, std::string_view> one[] = {
      {"integer", "an integer"}, {"number", "a number"}, {"boolean", "true or false"},
      {"string", "a string"},    {"path", "a path"},     {"component", "a component, { use = \"…\" }"}};
  if (type == "list<component>") return "a list of components, [{ use = \"…\" }, …]";
  if (is_list(type)) return fmt::format("a list of {}s", element_type(type));
  if (is_map(type)) return "a table of numbers";
  for (const auto& [name, text] : one)
    if (name == type) return std::string(text);
  return std::string(type);
}

std::string describe_value(const Json& value) {
  switch (value.type()) {
    case Json::value_t::string: {
      std::string text = value.get<std::string>();
      if (text.size() > 60) {
        std::size_t end = 60;
        while (end && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) --end;
        text = text.substr(0, end) + "…";
      }
      return "\"" + text + "\"";
    }
    case Json::value_t::boolean:
      return value.get<bool>() ? "true" : "false";
    case Json::value_t::array:
      return "a list";
    case Json::value_t::object:
      return "a table";
    case Json::value_t::null:
      return "nothing";
    default:
      return "the number " + value.dump();
  }
}

}  // namespace espalier
