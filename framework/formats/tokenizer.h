#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "sdk/artifact.h"

namespace espalier {

/// A byte-level BPE tokenizer, as `tokenizer.json` of Hugging Face describes it. Immutable, usable from many threads.
class Tokenizer {
 public:
  /// Parses a tokenizer.json. Throws Error(invalid_input) / Error(unsupported) naming the part that is not understood.
  static std::shared_ptr<Tokenizer> from_json(std::string_view json, const std::string& where);
  virtual ~Tokenizer();

  /// Token ids of UTF-8 text; invalid bytes are replaced by U+FFFD as Hugging Face does. `special`: recognise special tokens.
  virtual std::vector<std::int32_t> encode(std::string_view text, bool special = true) const = 0;
  virtual std::string decode(std::span<const std::int32_t> ids, bool skip_special = false) const = 0;
  /// Raw bytes of one token, for streaming.
  virtual std::string bytes(std::int32_t id) const = 0;
  virtual std::size_t vocabulary() const = 0;
  virtual std::int32_t bos() const = 0;  ///< -1 when absent
  virtual std::int32_t eos() const = 0;
  /// The tokenizer.json, byte-stable; what packages and artifacts hold.
  virtual std::string json() const = 0;
};

}  // namespace espalier
