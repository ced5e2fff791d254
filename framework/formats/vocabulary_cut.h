#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "sdk/artifact.h"

namespace espalier {

/// A tokenizer.json with some of its tokens taken out. Text that needed only tokens which stay is cut into the same ones as before:
/// a merge that such a text used makes a token on the way to one that stays, and all of those stay, too.
class VocabularyCut {
 public:
  /// Reads models BPE, WordPiece and Unigram. Throws Error(invalid_input) naming the part that is damaged, Error(unsupported) for
  /// another model.
  VocabularyCut(std::string_view tokenizer_json, const std::string& where);

  /// One more than the largest id.
  std::int64_t size() const { return tokens_.empty() ? 0 : std::int64_t{tokens_.rbegin()->first} + 1; }
  bool has(std::int32_t id) const { return tokens_.contains(id); }
  /// `ids`, ascending and each once, with all that has to stay: added tokens, the unknown token, the alphabet of bytes, and of BPE
  /// every token that a merge towards one of them goes through. Throws Error(invalid_input) for an id that is none.
  std::vector<std::int32_t> closed(const std::vector<std::int32_t>& ids) const;
  /// The tokenizer with the tokens of `kept` (closed, ascending) alone; the k-th of them gets the id k.
  std::string json(const std::vector<std::int32_t>& kept) const;

 private:
  void read_vocabulary(const std::string& where);
  void read_merges(const std::string& where);
  void place(std::int32_t id, const std::string& token, const std::string& where);

  Json json_;
  std::string model_;
  std::map<std::int32_t, std::string> tokens_;
  std::map<std::string, std::int32_t, std::less<>> ids_;
  std::vector<std::int32_t> required_;
  std::multimap<std::int32_t, std::pair<std::int32_t, std::int32_t>> parts_;  // token → what its merges join
};

}  // namespace espalier
