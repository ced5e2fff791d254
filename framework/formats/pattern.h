#pragma once
#include <functional>
#include <memory>
#include <string>
#include <string_view>

namespace espalier {

/// A tokenizer's pattern, in Oniguruma's Ruby syntax and with the properties of Unicode 16, as Hugging Face's tokenizers read it.
/// Text must be valid UTF-8. Immutable, usable from many threads.
class Pattern {
 public:
  /// Throws Error(invalid_input) for a pattern that is none, Error(unsupported) for arithmetic on character classes.
  Pattern(const std::string& pattern, const std::string& where);
  /// The text itself, whatever its characters mean in a pattern.
  static Pattern literal(std::string_view text, const std::string& where);
  /// Calls `match(begin, end)` for every match from left to right. One may be empty unless it touches the end of the match before
  /// it. Throws Error(invalid_input) when the pattern needs exponential time on the text.
  void each(std::string_view text, const std::function<void(std::size_t begin, std::size_t end)>& match) const;

 private:
  struct Code;
  std::shared_ptr<const Code> code_;
};

}  // namespace espalier
