#pragma once
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace espalier {

/// SentencePiece's `precompiled_charsmap`: a double-array trie (Aoe, 1989; Darts' 32-bit units) from sequences of characters to
/// their replacements. Layout: the trie's size in bytes (little-endian u32), its units, then the replacements, each ended by a zero
/// byte.
class CharsMap {
 public:
  /// Throws Error(invalid_input) for what is no base64, no UTF-8, or lies about its size.
  CharsMap(const std::string& base64, const std::string& where);
  /// `text` (valid UTF-8) with every grapheme or character replaced that the map knows. A grapheme below six bytes is replaced as a
  /// whole by the map's shortest prefix of it, which is what Hugging Face's tokenizers do.
  /// `check` gets the length that the result has by now, and may throw.
  std::string normalized(std::string_view text, const std::function<void(std::size_t length)>& check) const;

 private:
  std::optional<std::string_view> find(std::string_view key) const;

  std::vector<std::uint32_t> units_;
  std::string replacements_;
};

}  // namespace espalier
