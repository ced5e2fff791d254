#pragma once
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "sdk/artifact.h"

namespace espalier {

/// The "pre_tokenizer" of a tokenizer.json: cuts text into the words within which the model looks for tokens. Immutable, usable
/// from many threads.
class PreTokenizer {
 public:
  /// A stretch of text, not empty; `origin`: how many of its first bytes stand for the whole text's first character.
  struct Piece {
    std::string_view text;
    std::size_t origin = 0;
  };
  using Sink = std::function<void(const Piece& piece)>;
  /// Cuts a piece into pieces, which may hold other text than it.
  class Step {
   public:
    virtual ~Step() = default;
    virtual void cut(const Piece& piece, const Sink& next) const = 0;
  };

  /// Null cuts nothing. Throws Error(unsupported) naming the first part that is not read, Error(invalid_input) for a damaged one.
  PreTokenizer(const Json& json, const std::string& where);
  /// Calls `word` for every word, in order. The text must be valid UTF-8.
  void each(const Piece& text, const Sink& word) const;
  /// Whether two parts of a text, cut after a newline between visible ASCII characters, have the words of the whole.
  bool cuts_at_newlines() const { return cuts_at_newlines_; }

 private:
  void apply(std::size_t step, const Piece& piece, const Sink& word) const;

  std::vector<std::unique_ptr<Step>> steps_;
  bool cuts_at_newlines_ = false;
};

}  // namespace espalier
