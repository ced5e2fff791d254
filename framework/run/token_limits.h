#pragma once
#include <cstdint>
#include <span>
#include <string>

namespace espalier {

/// What a language model can be fed. Runtimes read past a table or stop with a message of their own instead.
struct TokenLimits {
  std::string where;           ///< the package, for messages
  std::int64_t vocabulary;     ///< tokens are in [0, vocabulary)
  std::int64_t positions = 0;  ///< that the model has tables for; 0: not known
  bool last_only = false;      ///< opened with OpenOptions::last_only

  /// Throws Error(invalid_input) for no tokens, one outside the vocabulary, or more than fit after `position`; Error(internal) when
  /// all logits are asked of a model that was opened for the last ones.
  void check(std::span<const std::int64_t> tokens, bool all, std::int64_t position) const;
};

}  // namespace espalier
