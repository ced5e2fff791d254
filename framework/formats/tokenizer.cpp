#include "formats/tokenizer.h"

#include <fmt/format.h>

#include <unordered_map>

#include "formats/added_tokens.h"
#include "formats/bounds.h"
#include "formats/normalizers.h"
#include "formats/post_processor.h"
#include "formats/pre_tokenizer.h"
#include "formats/token_decoders.h"
#include "formats/token_model.h"
#include "formats/tokenizer_part.h"
#include "formats/utf8.h"
#include "sdk/error.h"

namespace espalier {
namespace {

constexpr std::size_t kCachedWords = 1 << 16;
constexpr std::size_t kCachedLength = 64;
constexpr std::size_t kMostText = std::size_t{64} << 20;  // what a short text may become

/// A text's frequent words and their ids.
class WordCache {
 public:
  explicit WordCache(const TokenModel& model) : model_(model) {}

  void encode(std::string_view word, std::vector<std::int32_t>& ids) {
    for (std::size_t begin = 0, end = 0; begin < word.size(); begin = end) {
      end = model_.stretch(word, begin);
      encode_stretch(word.substr(begin, end - begin), ids);
    }
  }

 private:
  void encode_stretch(std::string_view word, std::vector<std::int32_t>& ids) {
    if (word.size() > kCachedLength) return model_.encode(word, ids);
    if (const auto found = words_.find(word); found != words_.end()) {
      const auto begin = ids_.begin() + static_cast<std::ptrdiff_t>(found->second.first);
      ids.insert(ids.end(), begin, begin + static_cast<std::ptrdiff_t>(found->second.second));
      return;
    }
    const std::size_t before = ids.size();
    model_.encode(word, ids);
    if (words_.size() == kCachedWords) return;
    words_.emplace(std::string(word), std::pair(ids_.size(), ids.size() - before));
    ids_.insert(ids_.end(), ids.begin() + static_cast<std::ptrdiff_t>(before), ids.end());
  }

  const TokenModel& model_;
  std::unordered_map<std::string, std::pair<std::size_t, std::size_t>, TextHash, std::equal_to<>> words_;
  std::vector<std::int32_t> ids_;
};

/// The parts of a tokenizer.json, one after the other.
class Pipeline final : public Tokenizer {
 public:
  Pipeline(const Json& json, const std::string& where)
      : text_(json.dump()),
        ids_(json_member(json_member(json, "model"), "vocab"), where),
        normalizer_(make_normalizer(json_member(json, "normalizer"), where)),
        first_(json_member(json, "added_tokens"), false, nullptr, where),
        second_(json_member(json, "added_tokens"), true, normalizer_.get(), where),
        words_(json_member(json, "pre_tokenizer"), where),
        model_(make_token_model(json_member(json, "model"), ids_, where)),
        processor_(json_member(json, "post_processor"), where),
        decoder_(make_token_decoder(json_member(json, "decoder"), where)) {
    name_tokens(json_member(json_member(json, "model"), "vocab"), where);
    if (bos_ < 0) bos_ = processor_.leading();
  }

  std::vector<std::int32_t> encode(std::string_view text, bool special) const override {
    std::string repaired;
    if (!valid_utf8(text)) text = repaired = repaired_utf8(text);
    std::vector<std::int32_t> ids;
    ids.reserve(text.size() / 3);
    WordCache cache(*model_);
    const std::size_t front = text.empty() ? 0 : utf8_sequence(text);
    for (const auto& outer : first_.split(text, special)) {
      if (outer.id >= 0) {
        ids.push_back(outer.id);
        continue;
      }
      NormalizedText normalized;
      std::string_view rest = outer.text;
      std::size_t origin = outer.text.data() == text.data() ? front : 0;
      if (normalizer_) {
        normalized = {std::string(rest), origin, kMostText + 8 * rest.size()};
        normalizer_->apply(normalized);
        rest = normalized.text;
        origin = normalized.origin;
      }
      for (const auto& piece : second_.split(rest, special)) {
        if (piece.id >= 0) {
          ids.push_back(piece.id);
          continue;
        }
        const auto at = static_cast<std::size_t>(piece.text.data() - rest.data());
        words_.each({piece.text, origin > at ? origin - at : 0},
                    [&](const PreTokenizer::Piece& word) { cache.encode(word.text, ids); });
      }
    }
    return ids;
  }

  bool cuts_at_newlines() const override { return words_.cuts_at_newlines() && (!normalizer_ || normalizer_->local()); }

  std::vector<std::int32_t> frame(std::span<const std::int32_t> text, std::vector<std::int32_t>* segments) const override {
    return processor_.frame(text, segments);
  }
  std::vector<std::int32_t> frame(std::span<const std::int32_t> text, std::span<const std::int32_t> pair,
                                  std::vector<std::int32_t>* segments) const override {
    return processor_.frame(text, pair, segments);
  }

  std::string decode(std::span<const std::int32_t> ids, bool skip_special) const override {
    std::vector<std::string> texts;
    for (const std::int32_t id : ids) {
      const Token* token = find(id);  // rows of a padded embedding have none
      if (token && !(skip_special && token->special)) texts.push_back(token->text);
    }
    if (decoder_) {
      decoder_->apply(texts);
      return fmt::format("{}", fmt::join(texts, ""));
    }
    return fmt::format("{}", fmt::join(texts, " "));
  }

  std::string bytes(std::int32_t id) const override {
    const Token* token = find(id);
    if (!token) return {};
    std::string text = decoder_ ? token->text : " " + token->text;
    if (decoder_) decoder_->inside(text);
    return text;
  }
  bool special(std::int32_t id) const override {
    const Token* token = find(id);
    return token && token->special;
  }
  std::size_t vocabulary() const override { return tokens_.size(); }
  std::int32_t bos() const override { return bos_; }
  std::int32_t eos() const override { return eos_; }
  std::string json() const override { return text_; }

 private:
  struct Token {
    std::string text;
    bool taken = false, special = false;
  };

  const Token* find(std::int32_t id) const {
    const bool known = id >= 0 && static_cast<std::size_t>(id) < tokens_.size() && tokens_[static_cast<std::size_t>(id)].taken;
    return known ? &tokens_[static_cast<std::size_t>(id)] : nullptr;
  }

  void name_tokens(const Json& vocabulary, const std::string& where) {
    const std::size_t limit = 2 * (vocabulary.size() + first_.tokens().size() + second_.tokens().size()) + 65536;
    if (vocabulary.is_array()) {
      std::int32_t id = 0;
      for (const Json& entry : vocabulary) name_token(id++, entry[0].get<std::string>(), limit, where);
    } else {
      for (const auto& [token, id] : ids_) name_token(id, token, limit, where);
    }
    for (const auto* added : {&first_, &second_}) {
      for (const auto& token : added->tokens()) {
        if (const std::int32_t known = ids_.find(token.content); known >= 0 && known != token.id) {
          throw_invalid(fmt::format("added token '{}' has id {}, in the vocabulary it has {}", token.content, token.id, known),
                        where, kDamagedTokenizer);
        }
        name_token(token.id, token.content, limit, where);
        Token& named = tokens_[static_cast<std::size_t>(token.id)];
        named.text = token.found_as;  // what it is decoded from
        // A special token that normalizing changes is not recognised as one there.
        named.special = token.special && token.found_as == token.content;
        if (token.role.find("bos") != std::string::npos) bos_ = token.id;
        if (token.role.find("eos") != std::string::npos) eos_ = token.id;
      }
    }
  }

  void name_token(std::int32_t id, const std::string& text, std::size_t limit, const std::string& where) {
    const auto at = static_cast<std::size_t>(id);
    if (at >= limit)
      throw_invalid(fmt::format("token '{}' has the id {}, far above the number of tokens", text, id), where, kDamagedTokenizer);
    if (at >= tokens_.size()) tokens_.resize(at + 1);
    if (tokens_[at].taken && tokens_[at].text != text)
      throw_invalid(fmt::format("two tokens have the id {}, one is '{}'", id, text), where, kDamagedTokenizer);
    tokens_[at] = {text, true, false};
  }

  std::string text_;
  TokenIds ids_;
  std::unique_ptr<Normalizer> normalizer_;
  AddedTokens first_, second_;
  PreTokenizer words_;
  std::unique_ptr<TokenModel> model_;
  PostProcessor processor_;
  std::unique_ptr<TokenDecoder> decoder_;
  std::vector<Token> tokens_;
  std::int32_t bos_ = -1, eos_ = -1;
};

}  // namespace

Tokenizer::~Tokenizer() = default;

std::shared_ptr<Tokenizer> Tokenizer::from_json(std::string_view text, const std::string& where) {
  const Json json = parse_json(text, where);
  if (!json_member(json, "model").is_object()) throw_invalid("the tokenizer has no model", where, "is it a tokenizer.json?");
  try {
    return std::make_shared<Pipeline>(json, where);
  } catch (const Json::exception& e) {
    throw_invalid(fmt::format("a part has the wrong type: {}", e.what()), where, kDamagedTokenizer);
  }
}

}  // namespace espalier
