#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "formats/byte_trie.h"
#include "formats/token_model.h"
#include "formats/tokenizer_part.h"
#include "formats/utf8.h"
#include "sdk/error.h"

namespace espalier {
namespace {

constexpr double kUnknownPenalty = 10;  // below the worst token, as SentencePiece has it

/// A unigram language model (Kudo, 2018): the split of a word whose tokens' log-probabilities have the largest sum, found by
/// Viterbi's algorithm; of equal ones, the one whose last token is the longest.
class Unigram final : public TokenModel {
 public:
  Unigram(const Json& model, const TokenIds& ids, const std::string& where)
      : where_(where), ids_(ids), trie_(all_bytes(json_member(model, "vocab"), where)) {
    double worst = std::numeric_limits<double>::infinity();
    for (const Json& entry : model["vocab"]) {
      scores_.push_back(entry[1].get<double>());
      worst = std::min(worst, scores_.back());
    }
    for (const auto& [token, id] : ids) trie_.insert(token, id);
    unknown_score_ = worst - kUnknownPenalty;
    if (const Json& unknown = json_member(model, "unk_id"); !unknown.is_null()) {
      if (!unknown.is_number_unsigned() || unknown.get<std::uint64_t>() >= scores_.size())
        throw_invalid(fmt::format("unk_id is none of the {} tokens", scores_.size()), where, kDamagedTokenizer);
      unknown_ = unknown.get<std::int32_t>();
    }
    const Json& fallback = json_member(model, "byte_fallback");
    if (!fallback.is_null() && !fallback.is_boolean())
      throw_invalid("Unigram's \"byte_fallback\" is neither true nor false", where, kDamagedTokenizer);
    if (fallback == true) bytes_ = byte_tokens(ids);
  }

  void encode(std::string_view word, std::vector<std::int32_t>& ids) const override {
    const std::vector<Node> best = best_paths(word);
    // From the end to the front; neighbouring unknown tokens become one.
    const auto before = static_cast<std::ptrdiff_t>(ids.size());
    std::size_t unknown_end = 0;
    const auto flush = [&](std::size_t begin) {
      if (unknown_end == 0) return;
      append_unknown(word.substr(begin, unknown_end - begin), ids);
      unknown_end = 0;
    };
    for (std::size_t end = word.size(); end > 0; end = best[end].begin) {
      if (best[end].id == unknown_) {
        if (unknown_end == 0) unknown_end = end;
        continue;
      }
      flush(end);
      ids.push_back(best[end].id);
    }
    flush(0);
    std::reverse(ids.begin() + before, ids.end());
  }

 private:
  /// The best token that ends at a place.
  struct Node {
    double score = 0;
    std::size_t begin = kNone;
    std::int32_t id = 0;
  };
  static constexpr std::size_t kNone = ~std::size_t{0};

  static std::size_t all_bytes(const Json& vocabulary, const std::string& where) {
    if (!vocabulary.is_array()) throw_invalid("a Unigram model's vocabulary is no list", where, kDamagedTokenizer);
    std::size_t bytes = 0;
    for (const Json& entry : vocabulary) bytes += entry[0].get_ref<const std::string&>().size();
    return bytes;
  }

  std::vector<Node> best_paths(std::string_view word) const {
    std::vector<Node> best(word.size() + 1);
    const auto offer = [&](std::size_t begin, std::size_t end, std::int32_t id, double score) {
      score += best[begin].score;
      if (best[end].begin == kNone || score > best[end].score) best[end] = {score, begin, id};
    };
    for (std::size_t begin = 0, next = 0; begin < word.size(); begin = next) {
      next_code_point(word, next);
      bool single = false;
      std::uint32_t node = ByteTrie::kRoot;
      for (std::size_t at = begin; at < word.size(); ++at) {
        node = trie_.step(node, word[at]);
        if (node == ByteTrie::kNone) break;
        const std::int32_t id = trie_.value(node);
        if (id < 0) continue;
        offer(begin, at + 1, id, scores_[static_cast<std::size_t>(id)]);
        single |= at + 1 == next;
      }
      if (single) continue;
      if (unknown_ < 0) throw_invalid("the text needs an unknown token, and the model has no unk_id", where_, kDamagedTokenizer);
      offer(begin, next, unknown_, unknown_score_);
    }
    return best;
  }

  /// In reverse, as encode() collects them.
  void append_unknown(std::string_view text, std::vector<std::int32_t>& ids) const {
    const std::int32_t whole = ids_.find(text);  // "<unk>" itself
    if (whole >= 0) return ids.push_back(whole);
    const auto before = static_cast<std::ptrdiff_t>(ids.size());
    if (bytes_.empty() || !append_byte_tokens(bytes_, text, ids)) ids.push_back(unknown_);
    std::reverse(ids.begin() + before, ids.end());
  }

  std::string where_;
  const TokenIds& ids_;
  ByteTrie trie_;
  std::vector<double> scores_;
  std::vector<std::int32_t> bytes_;
  double unknown_score_ = 0;
  std::int32_t unknown_ = -1;
};

}  // namespace

std::unique_ptr<TokenModel> make_unigram(const Json& model, const TokenIds& ids, const std::string& where) {
  return std::make_unique<Unigram>(model, ids, where);
}

}  // namespace espalier
