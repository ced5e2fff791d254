#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "formats/pattern.h"
#include "sdk/artifact.h"

namespace espalier {

inline constexpr const char* kDamagedTokenizer = "the tokenizer is damaged";

/// The member `key` of an object; null where there is none, or no object.
const Json& json_member(const Json& json, const char* key);

/// One part of a tokenizer.json (a normalizer, a pre-tokenizer, a decoder …), asked so that every error names it. A view: the JSON
/// outlives it. What is asked for throws Error(invalid_input) when it has the wrong type.
class TokenizerPart {
 public:
  /// `kind` is its name in errors ("normalizer"). Throws Error(invalid_input) when `json` has no "type".
  TokenizerPart(const Json& json, std::string kind, std::string where);

  const std::string& type() const { return type_; }
  const std::string& where() const { return where_; }
  const Json& at(const char* key) const { return json_member(*json_, key); }  ///< null when absent
  bool has(const char* key) const { return !at(key).is_null(); }
  bool flag(const char* key, bool fallback) const;
  std::string text(const char* key) const;
  std::string text(const char* key, const std::string& fallback) const { return has(key) ? text(key) : fallback; }
  /// A text of exactly one character.
  char32_t character(const char* key) const;
  /// A whole number from zero up; what goes beyond 2^31 is that.
  std::int64_t count(const char* key) const;
  /// "pattern": {"String": …} or {"Regex": …}.
  Pattern pattern() const;
  /// The parts that a Sequence lists under `key`.
  std::vector<TokenizerPart> parts(const char* key) const;

  [[noreturn]] void damaged(const std::string& what) const;
  /// For a type that is not read; `known` lists those that are.
  [[noreturn]] void refuse(const std::string& known) const;
  /// The entry of a table for this part's type; refuse() with the names of the table where it has none.
  template <class Maker>
  Maker chosen(const std::map<std::string, Maker>& makers) const {
    if (const auto found = makers.find(type_); found != makers.end()) return found->second;
    std::string known;
    for (const auto& [name, maker] : makers) known += (known.empty() ? "" : ", ") + name;
    refuse(known);
  }

 private:
  const Json* json_;
  std::string kind_, where_, type_;
};

}  // namespace espalier
