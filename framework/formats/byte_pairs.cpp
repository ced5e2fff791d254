#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <queue>
#include <unordered_map>

#include "formats/token_model.h"
#include "formats/tokenizer_part.h"
#include "formats/utf8.h"
#include "sdk/error.h"

namespace espalier {
namespace {

constexpr std::string_view kMark = "▁";  // SentencePiece's blank

std::uint64_t pair_key(std::int32_t left, std::int32_t right) {
  return static_cast<std::uint64_t>(static_cast<std::uint32_t>(left)) << 32 | static_cast<std::uint32_t>(right);
}

std::size_t slot_of(std::uint64_t key, std::size_t mask) {
  key *= 0x9E3779B97F4A7C15U;  // Fibonacci hashing
  return static_cast<std::size_t>(key >> 32) & mask;
}

/// "a b" (one space) or ["a", "b"].
std::pair<std::string, std::string> parse_merge(const Json& merge, std::size_t number, const std::string& where) {
  if (merge.is_string()) {
    const auto& text = merge.get_ref<const std::string&>();
    const std::size_t space = text.find(' ');
    if (space != std::string::npos && space > 0 && space + 1 < text.size() && text.find(' ', space + 1) == std::string::npos) {
      return {text.substr(0, space), text.substr(space + 1)};
    }
  } else if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
    return {merge[0].get<std::string>(), merge[1].get<std::string>()};
  }
  throw_invalid(fmt::format("merge {} is no pair of tokens", number), where, kDamagedTokenizer);
}

/// The pairs that merge, with rank and result.
class Merges {
 public:
  struct Merge {
    std::uint64_t pair = kEmpty;
    std::int32_t rank = 0, id = 0;
  };
  explicit Merges(std::size_t count) : table_(std::bit_ceil(std::max<std::size_t>(16, count * 2))) {}

  void insert(std::int32_t left, std::int32_t right, std::int32_t rank, std::int32_t id) {
    const std::uint64_t key = pair_key(left, right);
    const std::size_t mask = table_.size() - 1;
    std::size_t at = slot_of(key, mask);
    while (table_[at].pair != kEmpty && table_[at].pair != key) at = (at + 1) & mask;
    table_[at] = {key, rank, id};  // a pair that is listed twice has its last rank
  }
  const Merge* find(std::int32_t left, std::int32_t right) const {
    const std::uint64_t key = pair_key(left, right);
    const std::size_t mask = table_.size() - 1;
    for (std::size_t at = slot_of(key, mask); table_[at].pair != kEmpty; at = (at + 1) & mask) {
      if (table_[at].pair == key) return &table_[at];
    }
    return nullptr;
  }

 private:
  static constexpr std::uint64_t kEmpty = ~std::uint64_t{0};
  std::vector<Merge> table_;  // open addressing, a power of two, at most half full
};

/// Merges pairs of tokens, the pair of the lowest rank first, the leftmost among equals (Sennrich et al., 2016), from single
/// characters up; in byte-level BPE those are bytes' characters.
class BytePairs final : public TokenModel {
 public:
  BytePairs(const Json& model, const TokenIds& ids, const std::string& where)
      : where_(where), ids_(ids), merges_(json_member(model, "merges").size()) {
    if (const Json& dropout = json_member(model, "dropout"); !dropout.is_null() && dropout != 0.0)
      throw_unsupported("the BPE option 'dropout'", where, "ids are to be the same every time; set it to null");
    prefix_ = text(model, "continuing_subword_prefix");
    suffix_ = text(model, "end_of_word_suffix");
    unknown_name_ = text(model, "unk_token");
    unknown_ = unknown_name_.empty() ? -1 : ids.find(unknown_name_);
    fuse_unknown_ = flag(model, "fuse_unk");
    whole_words_ = flag(model, "ignore_merges");
    if (flag(model, "byte_fallback")) bytes_ = byte_tokens(ids);
    read_characters();
    read_merges(json_member(model, "merges"));
  }

  void encode(std::string_view word, std::vector<std::int32_t>& ids) const override {
    if (whole_words_) {
      if (const std::int32_t id = ids_.find(word); id >= 0) return ids.push_back(id);
    }
    struct Candidate {
      std::int32_t rank;
      std::uint32_t at;
      std::int32_t id;
      bool operator>(const Candidate& other) const { return rank != other.rank ? rank > other.rank : at > other.at; }
    };
    constexpr std::uint32_t kNone = ~std::uint32_t{0};
    std::vector<std::int32_t> symbols;
    first_symbols(word, symbols);
    const auto size = static_cast<std::uint32_t>(symbols.size());
    std::vector<std::uint32_t> next(size), previous(size);
    std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> queue;
    const auto offer = [&](std::uint32_t left, std::uint32_t right) {
      if (const auto* merge = merges_.find(symbols[left], symbols[right])) queue.push({merge->rank, left, merge->id});
    };
    for (std::uint32_t i = 0; i < size; ++i) {
      previous[i] = i == 0 ? kNone : i - 1;
      next[i] = i + 1 == size ? kNone : i + 1;
      if (i > 0) offer(i - 1, i);
    }
    while (!queue.empty()) {
      const Candidate top = queue.top();
      queue.pop();
      const std::uint32_t left = top.at, right = symbols[left] < 0 ? kNone : next[left];
      if (right == kNone) continue;
      const auto* merge = merges_.find(symbols[left], symbols[right]);
      if (!merge || merge->id != top.id) continue;  // one of the two has changed since
      symbols[left] = merge->id;
      symbols[right] = -1;
      next[left] = next[right];
      if (next[left] != kNone) previous[next[left]] = left;
      if (previous[left] != kNone) offer(previous[left], left);
      if (next[left] != kNone) offer(left, next[left]);
    }
    for (const std::int32_t id : symbols) {
      if (id >= 0) ids.push_back(id);
    }
  }

  /// Nothing merges across the front of a mark, so that a whole text as one word falls into its real ones.
  std::size_t stretch(std::string_view word, std::size_t begin) const override {
    if (!marks_begin_words_) return word.size();
    std::size_t end = word.find(kMark, begin + 1);
    while (end != std::string_view::npos && word.substr(begin, end - begin).ends_with(kMark)) {
      end = word.find(kMark, end + 1);  // marks may merge with each other
    }
    return std::min(end, word.size());
  }

 private:
  static constexpr std::size_t kDirect = 0x400;  // characters whose tokens stand in a table

  std::string text(const Json& model, const char* key) const {
    const Json& value = json_member(model, key);
    if (!value.is_null() && !value.is_string())
      throw_invalid(fmt::format("the BPE option '{}' is no text", key), where_, kDamagedTokenizer);
    return value.is_null() ? std::string() : value.get<std::string>();
  }
  bool flag(const Json& model, const char* key) const {
    const Json& value = json_member(model, key);
    if (!value.is_null() && !value.is_boolean())
      throw_invalid(fmt::format("the BPE option '{}' is neither true nor false", key), where_, kDamagedTokenizer);
    return value == true;
  }

  void read_characters() {
    direct_.fill(-1);
    for (const auto& [token, id] : ids_) {
      std::size_t at = 0;
      const char32_t point = token.empty() ? 0 : next_code_point(token, at);
      if (token.empty() || at != token.size()) continue;
      if (point < kDirect) {
        direct_[point] = id;
      } else {
        characters_.emplace(point, id);
      }
    }
  }

  void read_merges(const Json& merges) {
    if (!merges.is_array()) throw_invalid("the BPE model has no list of merges", where_, kDamagedTokenizer);
    marks_begin_words_ = !whole_words_ && prefix_.empty() && suffix_.empty() && ids_.find(kMark) >= 0;
    std::int32_t rank = 0;
    for (const Json& merge : merges) {
      const auto [left, right] = parse_merge(merge, static_cast<std::size_t>(rank), where_);
      const std::string result = left + (right.size() < prefix_.size() ? "" : right.substr(prefix_.size()));
      const std::int32_t a = ids_.find(left), b = ids_.find(right), whole = ids_.find(result);
      if (a < 0 || b < 0 || whole < 0) {
        throw_invalid(fmt::format("merge {} ('{}' with '{}') names a token that is not in the vocabulary", rank, left, right),
                      where_, kDamagedTokenizer);
      }
      if (right.starts_with(kMark) && !left.ends_with(kMark)) marks_begin_words_ = false;
      merges_.insert(a, b, rank++, whole);
    }
  }

  std::int32_t character(std::string_view character, bool first, bool last) const {
    if ((first || prefix_.empty()) && (!last || suffix_.empty())) {
      std::size_t at = 0;
      const char32_t point = next_code_point(character, at);
      if (point < kDirect) return direct_[point];
      const auto found = characters_.find(point);
      return found == characters_.end() ? -1 : found->second;
    }
    return ids_.find(spelled(character, first, last));
  }
  std::string spelled(std::string_view character, bool first, bool last) const {
    return (first ? "" : prefix_) + std::string(character) + (last ? suffix_ : "");
  }

  /// One symbol for each character, an unknown token or the tokens of its bytes where it has none.
  void first_symbols(std::string_view word, std::vector<std::int32_t>& symbols) const {
    bool unknown = false;  // one waits: bytes go before it, as in Hugging Face's tokenizers
    for (std::size_t begin = 0, end = 0; begin < word.size(); begin = end) {
      next_code_point(word, end);
      const std::string_view one = word.substr(begin, end - begin);
      const bool first = begin == 0, last = end == word.size();
      const std::int32_t id = character(one, first, last);
      if (id >= 0) {
        if (unknown) symbols.push_back(unknown_);
        unknown = false;
        symbols.push_back(id);
      } else if ((bytes_.empty() || !append_byte_tokens(bytes_, spelled(one, first, last), symbols)) && !unknown_name_.empty()) {
        if (unknown_ < 0)
          throw_invalid("the unknown token '" + unknown_name_ + "' is not in the vocabulary", where_, kDamagedTokenizer);
        if (unknown && !fuse_unknown_) symbols.push_back(unknown_);
        unknown = true;
      }
    }
    if (unknown) symbols.push_back(unknown_);
  }

  std::string where_;
  const TokenIds& ids_;
  Merges merges_;
  std::array<std::int32_t, kDirect> direct_{};
  std::unordered_map<char32_t, std::int32_t> characters_;  // those beyond the table
  std::vector<std::int32_t> bytes_;                        // the tokens of bytes, when unknown characters are spelled with them
  std::string prefix_, suffix_, unknown_name_;
  std::int32_t unknown_ = -1;
  bool fuse_unknown_ = false, whole_words_ = false, marks_begin_words_ = false;
};

}  // namespace

std::unique_ptr<TokenModel> make_byte_pairs(const Json& model, const TokenIds& ids, const std::string& where) {
  return std::make_unique<BytePairs>(model, ids, where);
}

}  // namespace espalier
