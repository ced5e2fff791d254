#pragma once
#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "sdk/artifact.h"

namespace espalier {

/// Checked parameters with defaults filled in: what the manifest declares is there and has its type; asking for anything else is
/// Error(internal). Values are JSON; paths are absolute.
class Params {
 public:
  Params() = default;
  explicit Params(Json values) : values_(std::move(values)) {}

  std::int64_t integer(std::string_view name) const;
  double number(std::string_view name) const;
  bool flag(std::string_view name) const;
  std::string text(std::string_view name) const;
  std::filesystem::path path(std::string_view name) const;
  std::vector<std::string> texts(std::string_view name) const;
  std::vector<std::filesystem::path> paths(std::string_view name) const;
  std::map<std::string, double> numbers(std::string_view name) const;  ///< type "map<number>"
  /// False for parameters without a default that the recipe left out (null).
  bool has(std::string_view name) const;
  const Json& json() const { return values_; }

 private:
  const Json& at(std::string_view name) const;
  Json values_ = Json::object();
};

}  // namespace espalier
