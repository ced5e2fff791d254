#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

namespace espalier {

/// Unicode's White_Space property.
bool is_white_space(char32_t point);
/// A letter, mark, decimal digit, connector or joiner (Unicode TS 18, annex C, \w).
bool is_word_character(char32_t point);

/// A tokenizer's pattern, in the syntax that Oniguruma and PCRE share. Text must be valid UTF-8. Immutable, usable from many
/// threads.
class Pattern {
 public:
  /// Throws Error(invalid_input) with the place in the pattern.
  Pattern(const std::string& pattern, const std::string& where);
  /// Calls `match(begin, end)` for every non-empty match from left to right. Throws Error(invalid_input) when the pattern needs
  /// exponential time on the text.
  void each(std::string_view text, const std::function<void(std::size_t begin, std::size_t end)>& match) const;

 private:
  struct Code;
  std::shared_ptr<const Code> code_;
};

}  // namespace espalier
