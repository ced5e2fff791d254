#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "sdk/artifact.h"

namespace espalier {

/// A tokenizer, as `tokenizer.json` of Hugging Face describes it: normalizer, pre-tokenizer, a BPE, WordPiece or Unigram model,
/// added tokens, post-processor and decoder, with the same ids and the same decoded text. The file's "truncation" and "padding" are
/// kept and have no effect: data sets cut and pad. Immutable, usable from many threads.
class Tokenizer {
 public:
  /// Parses a tokenizer.json. Throws Error(invalid_input) / Error(unsupported) naming the part that is not understood.
  static std::shared_ptr<Tokenizer> from_json(std::string_view json, const std::string& where);
  virtual ~Tokenizer();

  /// Token ids of UTF-8 text, with nothing around them; invalid bytes are replaced by U+FFFD as Hugging Face does. `special`:
  /// recognise special tokens.
  virtual std::vector<std::int32_t> encode(std::string_view text, bool special = true) const = 0;
  /// Whether a text may be encoded in parts: those that end in a newline between two visible ASCII characters.
  virtual bool cuts_at_newlines() const = 0;
  /// Ids as a model expects them, with what the post-processor puts around a text, or around a text and its pair ([CLS] … [SEP], a
  /// BOS). `segments` gets the segment (token type, 0 or 1) of each.
  virtual std::vector<std::int32_t> frame(std::span<const std::int32_t> text,
                                          std::vector<std::int32_t>* segments = nullptr) const = 0;
  virtual std::vector<std::int32_t> frame(std::span<const std::int32_t> text, std::span<const std::int32_t> pair,
                                          std::vector<std::int32_t>* segments = nullptr) const = 0;

  virtual std::string decode(std::span<const std::int32_t> ids, bool skip_special = false) const = 0;
  /// Raw bytes that one token adds within a text, for streaming.
  virtual std::string bytes(std::int32_t id) const = 0;
  /// Whether decode() leaves the token out when it skips special ones.
  virtual bool special(std::int32_t id) const = 0;
  virtual std::size_t vocabulary() const = 0;
  virtual std::int32_t bos() const = 0;  ///< -1 when absent
  virtual std::int32_t eos() const = 0;
  /// The tokenizer.json, byte-stable; what packages and artifacts hold.
  virtual std::string json() const = 0;
};

}  // namespace espalier
