#pragma once
#include <memory>
#include <string>
#include <vector>

#include "sdk/artifact.h"

namespace espalier {

/// The "decoder" of a tokenizer.json: tokens back to text. Immutable, usable from many threads.
class TokenDecoder {
 public:
  virtual ~TokenDecoder() = default;
  /// The texts that the tokens stand for, to be joined; there may be fewer than tokens.
  virtual void apply(std::vector<std::string>& tokens) const = 0;
  /// The bytes that one token adds within a text, whatever its neighbours: for text that comes token by token.
  virtual void inside(std::string& token) const = 0;
};

/// Null for null. Throws Error(unsupported) naming a type that is not read, Error(invalid_input) for a damaged one.
std::unique_ptr<TokenDecoder> make_token_decoder(const Json& json, const std::string& where);

}  // namespace espalier
