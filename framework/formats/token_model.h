#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "sdk/artifact.h"

namespace espalier {

/// For tables of texts that are asked with std::string_view.
struct TextHash {
  using is_transparent = void;
  std::size_t operator()(std::string_view text) const { return std::hash<std::string_view>{}(text); }
};

/// The tokens of a model by their text.
class TokenIds {
 public:
  /// Throws Error(invalid_input) for an id below zero, or far above the number of tokens: ids index tables.
  TokenIds(const Json& vocabulary, const std::string& where);

  std::int32_t find(std::string_view token) const {  ///< -1 for none
    const auto found = ids_.find(token);
    return found == ids_.end() ? -1 : found->second;
  }
  std::size_t size() const { return ids_.size(); }
  auto begin() const { return ids_.begin(); }
  auto end() const { return ids_.end(); }

 private:
  std::unordered_map<std::string, std::int32_t, TextHash, std::equal_to<>> ids_;
};

/// The "model" of a tokenizer.json: words to ids. Immutable, usable from many threads.
class TokenModel {
 public:
  virtual ~TokenModel() = default;
  /// Appends the ids of one word, valid UTF-8. Throws Error(invalid_input) when it needs an unknown token that the file does not
  /// have.
  virtual void encode(std::string_view word, std::vector<std::int32_t>& ids) const = 0;
  /// The end of the stretch from `begin` on whose ids are the same by itself as within the word.
  virtual std::size_t stretch(std::string_view word, std::size_t /*begin*/) const { return word.size(); }
};

/// `ids` outlives the model. Throws Error(unsupported) for a type that is not read, Error(invalid_input) for a damaged one.
std::unique_ptr<TokenModel> make_token_model(const Json& model, const TokenIds& ids, const std::string& where);

std::unique_ptr<TokenModel> make_byte_pairs(const Json& model, const TokenIds& ids, const std::string& where);
std::unique_ptr<TokenModel> make_word_piece(const Json& model, const TokenIds& ids, const std::string& where);
std::unique_ptr<TokenModel> make_unigram(const Json& model, const TokenIds& ids, const std::string& where);

/// The ids of the tokens "<0x00>" to "<0xFF>", -1 where there is none: what spells a character that has no token.
std::vector<std::int32_t> byte_tokens(const TokenIds& ids);
/// Appends the tokens of a character's bytes; false, and nothing appended, when one of them is missing.
bool append_byte_tokens(const std::vector<std::int32_t>& bytes, std::string_view character, std::vector<std::int32_t>& ids);

}  // namespace espalier
