#include "sdk/params.h"

#include "sdk/error.h"

namespace espalier {
namespace {

[[noreturn]] void mismatch(std::string_view name, std::string_view wanted) {
  throw Error(ErrorCode::internal,
              "parameter '" + std::string(name) + "' is not declared as " + std::string(wanted) + " in the plugin's manifest", {},
              "declare it there with a default, or ask has() first");
}

}  // namespace

const Json& Params::at(std::string_view name) const {
  const auto found = values_.find(std::string(name));
  if (found == values_.end()) mismatch(name, "a parameter");
  return *found;
}

bool Params::has(std::string_view name) const {
  const auto found = values_.find(std::string(name));
  return found != values_.end() && !found->is_null();
}

std::int64_t Params::integer(std::string_view name) const {
  const Json& value = at(name);
  if (!value.is_number_integer()) mismatch(name, "integer");
  return value.get<std::int64_t>();
}

double Params::number(std::string_view name) const {
  const Json& value = at(name);
  if (!value.is_number()) mismatch(name, "number");
  return value.get<double>();
}

bool Params::flag(std::string_view name) const {
  const Json& value = at(name);
  if (!value.is_boolean()) mismatch(name, "boolean");
  return value.get<bool>();
}

std::string Params::text(std::string_view name) const {
  const Json& value = at(name);
  if (!value.is_string()) mismatch(name, "string");
  return value.get<std::string>();
}

std::filesystem::path Params::path(std::string_view name) const { return text(name); }

std::vector<std::string> Params::texts(std::string_view name) const {
  const Json& value = at(name);
  if (!value.is_array()) mismatch(name, "list<string>");
  std::vector<std::string> list;
  for (const Json& item : value) {
    if (!item.is_string()) mismatch(name, "list<string>");
    list.push_back(item.get<std::string>());
  }
  return list;
}

std::vector<std::filesystem::path> Params::paths(std::string_view name) const {
  const auto list = texts(name);
  return {list.begin(), list.end()};
}

std::map<std::string, double> Params::numbers(std::string_view name) const {
  const Json& value = at(name);
  if (!value.is_object()) mismatch(name, "map<number>");
  std::map<std::string, double> map;
  for (const auto& [key, item] : value.items()) {
    if (!item.is_number()) mismatch(name, "map<number>");
    map[key] = item.get<double>();
  }
  return map;
}

}  // namespace espalier
