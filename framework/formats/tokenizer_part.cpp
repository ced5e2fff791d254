#include "formats/tokenizer_part.h"

#include <fmt/format.h>

#include <algorithm>

#include "formats/utf8.h"
#include "sdk/error.h"

namespace espalier {

const Json& json_member(const Json& json, const char* key) {
  static const Json none;
  const auto found = json.is_object() ? json.find(key) : json.end();
  return found == json.end() ? none : *found;
}

TokenizerPart::TokenizerPart(const Json& json, std::string kind, std::string where)
    : json_(&json), kind_(std::move(kind)), where_(std::move(where)) {
  const Json& type = json_member(json, "type");
  if (!type.is_string()) throw_invalid(fmt::format("the tokenizer has a {} without a type", kind_), where_, kDamagedTokenizer);
  type_ = type.get<std::string>();
}

bool TokenizerPart::flag(const char* key, bool fallback) const {
  if (!has(key)) return fallback;
  if (!at(key).is_boolean()) damaged(fmt::format("\"{}\" is neither true nor false", key));
  return at(key).get<bool>();
}

std::string TokenizerPart::text(const char* key) const {
  if (!at(key).is_string()) damaged(fmt::format("\"{}\" is no text", key));
  return at(key).get<std::string>();
}

char32_t TokenizerPart::character(const char* key) const {
  const std::string one = text(key);
  std::size_t at = 0;
  const char32_t point = one.empty() ? 0 : next_code_point(one, at);
  if (one.empty() || at != one.size()) damaged(fmt::format("\"{}\" is not one character", key));
  return point;
}

std::int64_t TokenizerPart::count(const char* key) const {
  const Json& value = at(key);
  if (!value.is_number_unsigned()) damaged(fmt::format("\"{}\" is no number from zero up", key));
  return static_cast<std::int64_t>(std::min<std::uint64_t>(value.get<std::uint64_t>(), std::uint64_t{1} << 31));
}

Pattern TokenizerPart::pattern() const {
  const Json& literal = json_member(at("pattern"), "String");
  const Json& regex = json_member(at("pattern"), "Regex");
  if (literal.is_string()) return Pattern::literal(literal.get<std::string>(), where_);
  if (!regex.is_string()) damaged("the pattern is neither a Regex nor a String");
  return Pattern(regex.get<std::string>(), where_);
}

std::vector<TokenizerPart> TokenizerPart::parts(const char* key) const {
  if (!at(key).is_array()) damaged(fmt::format("\"{}\" is no list", key));
  std::vector<TokenizerPart> list;
  for (const Json& item : at(key)) list.emplace_back(item, kind_, where_);
  return list;
}

void TokenizerPart::damaged(const std::string& what) const {
  throw_invalid(fmt::format("{} '{}': {}", kind_, type_, what), where_, kDamagedTokenizer);
}

void TokenizerPart::refuse(const std::string& known) const {
  throw_unsupported(fmt::format("the {} '{}'", kind_, type_), where_, "read are: " + known);
}

}  // namespace espalier
