#pragma once
#include <string>

#include "formats/pre_tokenizer.h"

namespace espalier {

/// What becomes of a delimiter that a pre-tokenizer finds.
enum class DelimiterBehavior { removed, isolated, merged_with_previous, merged_with_next, contiguous };

/// "Removed", "MergedWithPrevious", … ; throws Error(unsupported) for another name, of a part that `what` names.
DelimiterBehavior delimiter_behavior(const std::string& name, const std::string& what, const std::string& where);

/// Takes stretches of a piece from left to right, delimiters and what is between them, and hands on what a behaviour makes of them.
class Cutter {
 public:
  Cutter(const PreTokenizer::Piece& piece, DelimiterBehavior behavior, const PreTokenizer::Sink& next)
      : piece_(piece), next_(next), behavior_(behavior) {}
  /// The stretch that ends at `end` and begins where the last one ended.
  void add(std::size_t end, bool delimiter);
  /// After the last stretch.
  void finish() { flush(); }

 private:
  void flush();

  const PreTokenizer::Piece& piece_;
  const PreTokenizer::Sink& next_;
  DelimiterBehavior behavior_;
  std::size_t held_ = 0, done_ = 0;  // [held_, done_) waits for what may join it
  bool last_ = false;                // whether the last stretch was a delimiter
};

}  // namespace espalier
