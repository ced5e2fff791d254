#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "formats/normalizers.h"
#include "sdk/artifact.h"

namespace espalier {

/// Tokens that are found in the text before anything else: leftmost first, the longest among those that begin there.
class AddedTokens {
 public:
  struct Token {
    std::string content;
    std::string found_as;  ///< its text, normalized where the text that it is looked for in is
    std::int32_t id = 0;
    bool special = false, single_word = false, lstrip = false, rstrip = false;
    std::string role;  ///< our own key: "bos", "eos", "bos eos"; other readers ignore it
  };
  /// The entries whose "normalized" is `normalized`: readers look for the others first, in the whole text, and for these in what
  /// `normalizer` (which may be null) makes of the rest.
  AddedTokens(const Json& list, bool normalized, const Normalizer* normalizer, const std::string& where);

  const std::vector<Token>& tokens() const { return tokens_; }
  /// Text between tokens has id -1. `special`: special tokens count too.
  struct Piece {
    std::string_view text;
    std::int32_t id;
  };
  std::vector<Piece> split(std::string_view text, bool special) const;

 private:
  const Token* longest_at(std::string_view rest) const;

  std::vector<Token> tokens_;
  std::map<std::string, std::size_t, std::less<>> by_text_;
  std::map<char, std::vector<std::size_t>> lengths_;  // first byte → lengths that occur, longest first
};

}  // namespace espalier
