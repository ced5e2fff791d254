#include "formats/huggingface/config.h"

#include <fmt/format.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "formats/bounds.h"
#include "sdk/error.h"

namespace espalier {

namespace fs = std::filesystem;

std::string HfConfig::text() const { return json_.dump(-1, ' ', false, Json::error_handler_t::replace); }

std::string HfConfig::name(const char* key) const {
  const auto other = keys_.find(key);
  return other == keys_.end() || json_.contains(key) ? key : other->second;
}

bool HfConfig::has(const char* key) const {
  const auto found = json_.find(name(key));
  return found != json_.end() && !found->is_null();
}

const Json& HfConfig::at(const char* key) const { return json_.at(name(key)); }

std::int64_t HfConfig::positive(const char* key, std::int64_t fallback) const {
  if (!has(key) && fallback > 0) return fallback;
  if (!has(key)) fail(key, "is missing");
  const Json& value = at(key);
  if (!value.is_number_integer() || value.get<std::int64_t>() <= 0 || value.get<std::int64_t>() > INT32_MAX)
    fail(key, "is no positive number of 32 bits");
  return value.get<std::int64_t>();
}

std::int64_t HfConfig::size(const char* key, std::int64_t fallback) const {
  const std::int64_t value = positive(key, fallback);
  if (value > 1 << 24) fail(key, "is more than 16,777,216");
  return value;
}

std::int64_t HfConfig::natural(const char* key, std::int64_t fallback) const {
  if (!has(key)) return fallback;
  const Json& value = at(key);
  if (!value.is_number_integer() || value.get<std::int64_t>() < 0 || value.get<std::int64_t>() > INT32_MAX)
    fail(key, "is no natural number of 32 bits");
  return value.get<std::int64_t>();
}

double HfConfig::number(const char* key, double fallback) const {
  if (!has(key)) return fallback;
  if (!at(key).is_number() || !std::isfinite(at(key).get<double>())) fail(key, "is no number");
  return at(key).get<double>();
}

bool HfConfig::flag(const char* key, bool fallback) const {
  if (!has(key)) return fallback;
  if (!at(key).is_boolean()) fail(key, "is neither true nor false");
  return at(key).get<bool>();
}

std::string HfConfig::text(const char* key, const std::string& fallback) const {
  if (!has(key)) return fallback;
  if (!at(key).is_string()) fail(key, "is no string");
  return at(key).get<std::string>();
}

HfConfig HfConfig::part(const char* key) const {
  if (!has(key)) return {Json::object(), where_};
  if (!at(key).is_object()) fail(key, "is no object");
  return {at(key), where_};
}

void HfConfig::refuse(const char* key, bool unwanted) const {
  if (flag(key, !unwanted) == unwanted)
    throw_unsupported(fmt::format("\"{}\" is {}", name(key), unwanted), where_, "models with this option are not read");
}

void HfConfig::fail(const char* key, const std::string& what) const {
  throw_invalid(fmt::format("\"{}\" {}", name(key), what), where_, "the file is damaged, or of a model that is not read");
}

Json read_json_value(const fs::path& file) {
  constexpr std::uintmax_t most = 64 << 20;
  std::error_code error;
  const auto size = fs::file_size(file, error);
  if (error) throw_invalid("the file cannot be read: " + error.message(), file.string(), "name a folder that holds a whole model");
  if (size > most) throw_unsupported(fmt::format("a JSON file of {} bytes", size), file.string());
  const MappedFile mapped(file);
  return parse_json({reinterpret_cast<const char*>(mapped.bytes().data()), mapped.bytes().size()}, file.string());
}

Json read_json_object(const fs::path& file) {
  Json json = read_json_value(file);
  if (!json.is_object()) throw_invalid("this is no JSON object", file.string(), "the file is damaged");
  return json;
}

}  // namespace espalier
