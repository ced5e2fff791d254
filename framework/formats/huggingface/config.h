#pragma once
#include <cstdint>
#include <filesystem>
#include <map>
#include <string>

#include "sdk/artifact.h"

namespace espalier {

/// A configuration in a Hugging Face directory, asked with the key's name in every error.
class HfConfig {
 public:
  /// What a family calls a key that most call otherwise ("hidden_size" → "n_embd"); both are read.
  using Keys = std::map<std::string, std::string, std::less<>>;

  HfConfig(Json json, std::string where, Keys keys = {})
      : json_(std::move(json)), where_(std::move(where)), keys_(std::move(keys)) {}

  const std::string& where() const { return where_; }
  std::string text() const;  ///< the JSON
  /// The same, asked by a family.
  HfConfig with(Keys keys) const { return {json_, where_, std::move(keys)}; }

  std::string name(const char* key) const;  ///< of the key, as the file has it
  bool has(const char* key) const;          ///< and it is not null
  const Json& at(const char* key) const;
  /// A whole number from 1 to 2³¹ - 1; a fallback above 0 stands for a key that is missing.
  std::int64_t positive(const char* key, std::int64_t fallback = 0) const;
  /// The same, up to 16,777,216: what is multiplied with others of its kind.
  std::int64_t size(const char* key, std::int64_t fallback = 0) const;
  /// A whole number from 0 to 2³¹ - 1.
  std::int64_t natural(const char* key, std::int64_t fallback) const;
  double number(const char* key, double fallback) const;
  bool flag(const char* key, bool fallback) const;
  std::string text(const char* key, const std::string& fallback) const;
  /// An object; empty where the key is missing.
  HfConfig part(const char* key) const;

  /// Throws Error(unsupported) naming the key where a flag is set that no graph here has a place for.
  void refuse(const char* key, bool unwanted = true) const;
  [[noreturn]] void fail(const char* key, const std::string& what) const;

 private:
  Json json_;
  std::string where_;
  Keys keys_;
};

/// A JSON object from a file of at most 64 MiB. Throws Error(invalid_input).
Json read_json_object(const std::filesystem::path& file);
/// The same for any JSON value.
Json read_json_value(const std::filesystem::path& file);

}  // namespace espalier
