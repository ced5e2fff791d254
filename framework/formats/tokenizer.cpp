#include "formats/tokenizer.h"

#include <fmt/format.h>

#include <unordered_map>

#include "formats/added_tokens.h"
#include "formats/bounds.h"
#include "formats/byte_level.h"
#include "formats/byte_pairs.h"
#include "formats/pre_tokenizer.h"
#include "formats/utf8.h"
#include "sdk/error.h"

namespace espalier {
namespace {

constexpr const char* kDamaged = "the tokenizer is damaged";
constexpr std::size_t kCachedWords = 1 << 16;
constexpr std::size_t kCachedLength = 64;

using Vocabulary = std::unordered_map<std::string, std::int32_t>;

const Json& member(const Json& json, const char* key) {
  static const Json none;
  const auto found = json.find(key);
  return found == json.end() ? none : *found;
}

Vocabulary read_vocabulary(const Json& model, const std::string& where) {
  const Json& vocab = member(model, "vocab");
  if (!vocab.is_object() || vocab.empty()) throw_invalid("the BPE model has no vocabulary", where, kDamaged);
  Vocabulary vocabulary;
  vocabulary.reserve(vocab.size());
  // Ids index a table: gaps are allowed, but no id that the number of tokens does not justify.
  const std::int64_t limit = 2 * static_cast<std::int64_t>(vocab.size()) + 65536;
  for (const auto& [token, id] : vocab.items()) {
    if (!id.is_number_integer() || id.get<std::int64_t>() < 0 || id.get<std::int64_t>() >= limit) {
      throw_invalid(fmt::format("token '{}' has no id between 0 and {}", token, limit), where, kDamaged);
    }
    vocabulary.emplace(token, id.get<std::int32_t>());
  }
  return vocabulary;
}

/// The first special token that a post-processor puts before a text; -1 when there is none.
std::int32_t leading_token(const Json& processor) {
  if (!processor.is_object()) return -1;
  if (const Json& list = member(processor, "processors"); list.is_array()) {
    for (const Json& item : list) {
      if (const std::int32_t id = leading_token(item); id >= 0) return id;
    }
    return -1;
  }
  const Json& single = member(processor, "single");
  if (!single.is_array() || single.empty() || !single[0].is_object()) return -1;
  const Json& name = member(member(single[0], "SpecialToken"), "id");
  if (!name.is_string()) return -1;
  const Json& ids = member(member(member(processor, "special_tokens"), name.get_ref<const std::string&>().c_str()), "ids");
  return ids.is_array() && ids.size() == 1 && ids[0].is_number_unsigned() && ids[0].get<std::uint64_t>() <= INT32_MAX
             ? ids[0].get<std::int32_t>()
             : -1;
}

class BytePairTokenizer final : public Tokenizer {
 public:
  BytePairTokenizer(const Json& json, const std::string& where)
      : text_(json.dump()),
        vocabulary_(read_vocabulary(member(json, "model"), where)),
        first_(member(json, "added_tokens"), false, where),
        second_(member(json, "added_tokens"), true, where),
        words_(member(json, "pre_tokenizer"), where),
        pairs_(member(json, "model"), vocabulary_, where) {
    const std::size_t limit = 2 * (vocabulary_.size() + first_.tokens().size() + second_.tokens().size()) + 65536;
    for (const auto& [token, id] : vocabulary_) name_token(id, token, false, limit, where);
    for (const auto* added : {&first_, &second_}) {
      for (const auto& token : added->tokens()) {
        if (const auto known = vocabulary_.find(token.content); known != vocabulary_.end() && known->second != token.id) {
          throw_invalid(
              fmt::format("added token '{}' has id {}, in the vocabulary it has {}", token.content, token.id, known->second), where,
              kDamaged);
        }
        name_token(token.id, token.content, token.special, limit, where);
        if (token.role.find("bos") != std::string::npos) bos_ = token.id;
        if (token.role.find("eos") != std::string::npos) eos_ = token.id;
      }
    }
    if (bos_ < 0) bos_ = leading_token(member(json, "post_processor"));
  }

  std::vector<std::int32_t> encode(std::string_view text, bool special) const override {
    std::string repaired;
    if (!valid_utf8(text)) text = repaired = repaired_utf8(text);
    std::vector<std::int32_t> ids;
    ids.reserve(text.size() / 3);
    WordCache cache;
    for (const auto& outer : first_.split(text, special)) {
      if (outer.id >= 0) {
        ids.push_back(outer.id);
        continue;
      }
      for (const auto& piece : second_.split(outer.text, special)) {
        if (piece.id >= 0) {
          ids.push_back(piece.id);
        } else {
          words_.each(piece.text, [&](std::string_view word) { encode_word(word, cache, ids); });
        }
      }
    }
    return ids;
  }

  std::string decode(std::span<const std::int32_t> ids, bool skip_special) const override {
    std::string out;
    for (const std::int32_t id : ids) {
      if (id < 0 || static_cast<std::size_t>(id) >= tokens_.size()) continue;  // rows of a padded embedding have no token
      const Token& token = tokens_[static_cast<std::size_t>(id)];
      if (!(skip_special && token.special)) out += token.bytes;
    }
    return repaired_utf8(out);
  }

  std::string bytes(std::int32_t id) const override {
    return id < 0 || static_cast<std::size_t>(id) >= tokens_.size() ? std::string() : tokens_[static_cast<std::size_t>(id)].bytes;
  }
  std::size_t vocabulary() const override { return tokens_.size(); }
  std::int32_t bos() const override { return bos_; }
  std::int32_t eos() const override { return eos_; }
  std::string json() const override { return text_; }

 private:
  struct Token {
    std::string bytes;
    bool taken = false, special = false;
  };
  struct Hash {
    using is_transparent = void;
    std::size_t operator()(std::string_view text) const { return std::hash<std::string_view>{}(text); }
  };
  /// A text's frequent words and their ids.
  struct WordCache {
    std::unordered_map<std::string, std::pair<std::size_t, std::size_t>, Hash, std::equal_to<>> words;
    std::vector<std::int32_t> ids;
  };

  void encode_word(std::string_view word, WordCache& cache, std::vector<std::int32_t>& ids) const {
    if (word.size() > kCachedLength) return pairs_.encode(word, ids);
    if (const auto found = cache.words.find(word); found != cache.words.end()) {
      const auto begin = cache.ids.begin() + static_cast<std::ptrdiff_t>(found->second.first);
      ids.insert(ids.end(), begin, begin + static_cast<std::ptrdiff_t>(found->second.second));
      return;
    }
    const std::size_t before = ids.size();
    pairs_.encode(word, ids);
    if (cache.words.size() == kCachedWords) return;
    cache.words.emplace(std::string(word), std::pair(cache.ids.size(), ids.size() - before));
    cache.ids.insert(cache.ids.end(), ids.begin() + static_cast<std::ptrdiff_t>(before), ids.end());
  }

  void name_token(std::int32_t id, const std::string& text, bool special, std::size_t limit, const std::string& where) {
    const auto at = static_cast<std::size_t>(id);
    if (at >= limit)
      throw_invalid(fmt::format("token '{}' has the id {}, far above the number of tokens", text, id), where, kDamaged);
    if (at >= tokens_.size()) tokens_.resize(at + 1);
    Token& token = tokens_[at];
    const std::string bytes = from_byte_characters(text).value_or(text);
    if (token.taken && token.bytes != bytes)
      throw_invalid(fmt::format("two tokens have the id {}, one is '{}'", id, text), where, kDamaged);
    token = {bytes, true, token.special || special};
  }

  std::string text_;
  Vocabulary vocabulary_;
  AddedTokens first_, second_;
  PreTokenizer words_;
  BytePairs pairs_;
  std::vector<Token> tokens_;
  std::int32_t bos_ = -1, eos_ = -1;
};

}  // namespace

Tokenizer::~Tokenizer() = default;

std::shared_ptr<Tokenizer> Tokenizer::from_json(std::string_view text, const std::string& where) {
  const Json json = parse_json(text, where);
  const Json& model = json.is_object() ? member(json, "model") : json;
  if (!json.is_object() || !model.is_object()) throw_invalid("the tokenizer has no model", where, "is it a tokenizer.json?");
  // Old files leave the type out.
  const Json& type = member(model, "type");
  if (!(type == "BPE" || (type.is_null() && model.contains("merges")))) {
    throw_unsupported(
        "the tokenizer model " + (type.is_string() ? "'" + type.get<std::string>() + "'" : std::string("without a type")), where,
        "byte-level BPE is read");
  }
  if (const Json& normalizer = member(json, "normalizer"); !normalizer.is_null()) {
    const Json& name = normalizer.is_object() ? member(normalizer, "type") : normalizer;
    throw_unsupported("the normalizer " + (name.is_string() ? "'" + name.get<std::string>() + "'" : std::string("without a type")),
                      where, "tokenizers without one are read");
  }
  try {
    return std::make_shared<BytePairTokenizer>(json, where);
  } catch (const Json::exception& e) {
    throw_invalid(fmt::format("a part has the wrong type: {}", e.what()), where, kDamaged);
  }
}

}  // namespace espalier
