#include <fmt/format.h>

#include "formats/byte_trie.h"
#include "formats/token_model.h"
#include "formats/tokenizer_part.h"
#include "sdk/error.h"

namespace espalier {
namespace {

/// WordPiece (Wu et al., 2016): the longest token from the front, then the longest that continues it, and so on; a word that cannot
/// be spelled is one unknown token.
class WordPiece final : public TokenModel {
 public:
  WordPiece(const Json& model, const TokenIds& ids, const std::string& where) : where_(where), trie_(all_bytes(ids)) {
    const auto text = [&](const char* key, const char* fallback) {
      const Json& value = json_member(model, key);
      if (!value.is_null() && !value.is_string())
        throw_invalid(fmt::format("WordPiece's \"{}\" is no text", key), where, kDamagedTokenizer);
      return value.is_null() ? std::string(fallback) : value.get<std::string>();
    };
    for (const auto& [token, id] : ids) trie_.insert(token, id);
    unknown_name_ = text("unk_token", "[UNK]");
    unknown_ = ids.find(unknown_name_);
    continuing_ = trie_.walk(text("continuing_subword_prefix", "##"));
    if (const Json& most = json_member(model, "max_input_chars_per_word"); !most.is_null()) {
      if (!most.is_number_unsigned())
        throw_invalid("WordPiece's \"max_input_chars_per_word\" is no number from zero up", where, kDamagedTokenizer);
      longest_ = most.get<std::uint64_t>();
    }
  }

  void encode(std::string_view word, std::vector<std::int32_t>& ids) const override {
    const std::size_t before = ids.size();
    if (characters(word) <= longest_ && spell(word, ids)) return;
    if (unknown_ < 0)
      throw_invalid("the unknown token '" + unknown_name_ + "' is not in the vocabulary", where_, kDamagedTokenizer);
    ids.resize(before);
    ids.push_back(unknown_);
  }

 private:
  static std::size_t all_bytes(const TokenIds& ids) {
    std::size_t bytes = 0;
    for (const auto& [token, id] : ids) bytes += token.size();
    return bytes;
  }
  static std::uint64_t characters(std::string_view word) {
    std::uint64_t count = 0;
    for (const char c : word) count += (static_cast<unsigned char>(c) & 0xC0) != 0x80;
    return count;
  }

  bool spell(std::string_view word, std::vector<std::int32_t>& ids) const {
    for (std::size_t begin = 0; begin < word.size();) {
      std::uint32_t node = begin == 0 ? ByteTrie::kRoot : continuing_;
      std::size_t end = begin;
      std::int32_t id = -1;
      for (std::size_t at = begin; at < word.size() && node != ByteTrie::kNone; ++at) {
        node = trie_.step(node, word[at]);
        if (node == ByteTrie::kNone || trie_.value(node) < 0) continue;
        id = trie_.value(node);
        end = at + 1;
      }
      if (id < 0) return false;
      ids.push_back(id);
      begin = end;
    }
    return true;
  }

  std::string where_, unknown_name_;
  ByteTrie trie_;
  std::uint32_t continuing_ = ByteTrie::kNone;  // where continuing tokens begin
  std::uint64_t longest_ = 100;                 // characters of a word that is looked at
  std::int32_t unknown_ = -1;
};

}  // namespace

std::unique_ptr<TokenModel> make_word_piece(const Json& model, const TokenIds& ids, const std::string& where) {
  return std::make_unique<WordPiece>(model, ids, where);
}

}  // namespace espalier
