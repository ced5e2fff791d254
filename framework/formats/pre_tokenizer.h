#pragma once
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "formats/unicode.h"
#include "sdk/artifact.h"

namespace espalier {

/// The "pre_tokenizer" of a byte-level tokenizer.json: cuts text into the words within which pairs are merged.
class PreTokenizer {
 public:
  /// Throws Error(unsupported) naming the first part that is not read, or when no ByteLevel ends the sequence.
  PreTokenizer(const Json& json, const std::string& where);
  /// Calls `word` for every word, in order. The text must be valid UTF-8.
  void each(std::string_view text, const std::function<void(std::string_view word)>& word) const;

 private:
  struct Step {
    std::vector<Pattern> pattern;  ///< none (nothing is cut) or one
    bool keep_matches = true, keep_rest = true;
    bool prefix_space = false;  ///< a space goes before every piece that begins with none
  };
  void add(const Json& json, const std::string& where);
  void apply(std::size_t step, std::string_view text, const std::function<void(std::string_view)>& word) const;

  std::vector<Step> steps_;
  bool byte_level_ = false;
};

}  // namespace espalier
