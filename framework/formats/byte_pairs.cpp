#include "formats/byte_pairs.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <queue>

#include "formats/byte_level.h"
#include "sdk/error.h"

namespace espalier {
namespace {

constexpr const char* kDamaged = "the tokenizer is damaged";

std::uint64_t pair_key(std::int32_t left, std::int32_t right) {
  return static_cast<std::uint64_t>(static_cast<std::uint32_t>(left)) << 32 | static_cast<std::uint32_t>(right);
}

std::size_t slot_of(std::uint64_t key, std::size_t mask) {
  key *= 0x9E3779B97F4A7C15U;  // Fibonacci hashing
  return static_cast<std::size_t>(key >> 32) & mask;
}

bool set(const Json& model, const char* key) {
  const auto found = model.find(key);
  if (found == model.end() || found->is_null() || *found == false || *found == "") return false;
  return true;
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
  throw_invalid(fmt::format("merge {} is no pair of tokens", number), where, kDamaged);
}

}  // namespace

BytePairs::BytePairs(const Json& model, const std::unordered_map<std::string, std::int32_t>& vocabulary, const std::string& where) {
  for (const char* key : {"dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback"}) {
    if (set(model, key)) throw_unsupported(fmt::format("the BPE option '{}'", key), where, "byte-level BPE without it is read");
  }
  fuse_unknown_ = set(model, "fuse_unk");
  const auto id_of = [&](const std::string& token) {
    const auto found = vocabulary.find(token);
    return found == vocabulary.end() ? -1 : found->second;
  };
  if (set(model, "unk_token")) {
    if (!model["unk_token"].is_string()) throw_invalid("unk_token is no text", where, kDamaged);
    unknown_ = id_of(model["unk_token"].get<std::string>());
    if (unknown_ < 0)
      throw_invalid("unk_token '" + model["unk_token"].get<std::string>() + "' is not in the vocabulary", where, kDamaged);
  }
  if (set(model, "ignore_merges")) {
    for (const auto& [text, id] : vocabulary) {
      if (auto bytes = from_byte_characters(text)) whole_words_.emplace(std::move(*bytes), id);
    }
  }
  for (int b = 0; b < 256; ++b) {
    bytes_[static_cast<std::size_t>(b)] = id_of(to_byte_characters(std::string(1, static_cast<char>(b))));
  }
  const auto merges = model.find("merges");
  if (merges == model.end() || !merges->is_array()) throw_invalid("the BPE model has no list of merges", where, kDamaged);
  table_.resize(std::bit_ceil(std::max<std::size_t>(16, merges->size() * 2)));
  std::int32_t rank = 0;
  for (const Json& merge : *merges) {
    const auto [left, right] = parse_merge(merge, static_cast<std::size_t>(rank), where);
    const std::int32_t a = id_of(left), b = id_of(right), whole = id_of(left + right);
    if (a < 0 || b < 0 || whole < 0) {
      throw_invalid(fmt::format("merge {} ('{}' with '{}') names a token that is not in the vocabulary", rank, left, right), where,
                    kDamaged);
    }
    insert(a, b, rank++, whole);
  }
}

void BytePairs::insert(std::int32_t left, std::int32_t right, std::int32_t rank, std::int32_t id) {
  const std::uint64_t key = pair_key(left, right);
  const std::size_t mask = table_.size() - 1;
  std::size_t at = slot_of(key, mask);
  while (table_[at].pair != ~std::uint64_t{0} && table_[at].pair != key) at = (at + 1) & mask;
  table_[at] = {key, rank, id};  // a pair that is listed twice has its last rank
}

const BytePairs::Merge* BytePairs::find(std::int32_t left, std::int32_t right) const {
  const std::uint64_t key = pair_key(left, right);
  const std::size_t mask = table_.size() - 1;
  for (std::size_t at = slot_of(key, mask); table_[at].pair != ~std::uint64_t{0}; at = (at + 1) & mask) {
    if (table_[at].pair == key) return &table_[at];
  }
  return nullptr;
}

void BytePairs::first_symbols(std::string_view word, std::vector<std::int32_t>& symbols) const {
  bool after_unknown = false;
  for (const char c : word) {
    const std::int32_t id = bytes_[static_cast<unsigned char>(c)];
    if (id >= 0) {
      symbols.push_back(id);
    } else if (unknown_ >= 0 && !(fuse_unknown_ && after_unknown)) {
      symbols.push_back(unknown_);
    }
    after_unknown = id < 0;
  }
}

void BytePairs::encode(std::string_view word, std::vector<std::int32_t>& ids) const {
  if (!whole_words_.empty()) {
    if (const auto found = whole_words_.find(std::string(word)); found != whole_words_.end()) {
      ids.push_back(found->second);
      return;
    }
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
    if (const Merge* merge = find(symbols[left], symbols[right])) queue.push({merge->rank, left, merge->id});
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
    const Merge* merge = find(symbols[left], symbols[right]);
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

}  // namespace espalier
