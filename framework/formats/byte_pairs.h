#pragma once
#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "sdk/artifact.h"

namespace espalier {

/// The BPE model of a tokenizer.json: merges pairs of tokens, the pair of the lowest rank first, the leftmost among equals
/// (Sennrich et al., 2016), from single bytes up.
class BytePairs {
 public:
  /// `model` is the "model" object; `vocabulary` the ids by token text. Throws Error(invalid_input / unsupported).
  BytePairs(const Json& model, const std::unordered_map<std::string, std::int32_t>& vocabulary, const std::string& where);

  /// Appends the ids of one pre-tokenized word.
  void encode(std::string_view word, std::vector<std::int32_t>& ids) const;

 private:
  struct Merge {
    std::uint64_t pair = ~std::uint64_t{0};
    std::int32_t rank = 0, id = 0;
  };
  const Merge* find(std::int32_t left, std::int32_t right) const;
  void insert(std::int32_t left, std::int32_t right, std::int32_t rank, std::int32_t id);
  void first_symbols(std::string_view word, std::vector<std::int32_t>& symbols) const;

  std::vector<Merge> table_;  // open addressing, a power of two, at most half full
  std::array<std::int32_t, 256> bytes_{};
  std::unordered_map<std::string, std::int32_t> whole_words_;  // only when merges are ignored for words that are tokens
  std::int32_t unknown_ = -1;
  bool fuse_unknown_ = false;
};

}  // namespace espalier
