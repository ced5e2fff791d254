#include "run/token_limits.h"

#include <fmt/format.h>

#include "sdk/error.h"

namespace espalier {

void TokenLimits::check(std::span<const std::int64_t> tokens, bool all, std::int64_t position) const {
  if (tokens.empty()) throw_invalid("no tokens to feed", where);
  if (all && last_only) throw Error(ErrorCode::internal, "opened for the last position only, asked for all", where);
  for (const std::int64_t token : tokens)
    if (token < 0 || token >= vocabulary)
      throw_invalid(fmt::format("token {} is outside the vocabulary of {}", token, vocabulary), where,
                    "use the package's own tokenizer");
  const std::int64_t total = position + static_cast<std::int64_t>(tokens.size());
  if (positions > 0 && total > positions)
    throw_invalid(fmt::format("{} tokens do not fit: the model knows {} positions", total, positions), where, "shorten the prompt");
}

}  // namespace espalier
