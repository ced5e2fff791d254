#include "formats/token_model.h"

#include <fmt/format.h>

#include <algorithm>

#include "formats/tokenizer_part.h"
#include "sdk/error.h"

namespace espalier {

TokenIds::TokenIds(const Json& vocabulary, const std::string& where) {
  if (!vocabulary.is_structured() || vocabulary.empty()) throw_invalid("the model has no vocabulary", where, kDamagedTokenizer);
  ids_.reserve(vocabulary.size());
  if (vocabulary.is_array()) {  // Unigram: [text, score], in the order of their ids
    std::int32_t id = 0;
    for (const Json& entry : vocabulary) {
      if (!entry.is_array() || entry.size() != 2 || !entry[0].is_string() || !entry[1].is_number())
        throw_invalid(fmt::format("entry {} of the vocabulary is no token with its score", id), where, kDamagedTokenizer);
      ids_[entry[0].get<std::string>()] = id++;  // the last of equal ones
    }
    return;
  }
  // Gaps are allowed, but no id that the number of tokens does not justify.
  const std::int64_t limit = 2 * static_cast<std::int64_t>(vocabulary.size()) + 65536;
  for (const auto& [token, id] : vocabulary.items()) {
    if (!id.is_number_integer() || id.get<std::int64_t>() < 0 || id.get<std::int64_t>() >= limit)
      throw_invalid(fmt::format("token '{}' has no id between 0 and {}", token, limit), where, kDamagedTokenizer);
    ids_.emplace(token, id.get<std::int32_t>());
  }
}

std::unique_ptr<TokenModel> make_token_model(const Json& model, const TokenIds& ids, const std::string& where) {
  const Json& type = json_member(model, "type");
  const auto is = [&](const char* name, const char* key) {
    return type == name || (type.is_null() && model.contains(key));  // old files leave the type out
  };
  if (is("Unigram", "unk_id")) return make_unigram(model, ids, where);
  const bool pairs = is("BPE", "merges");
  if (pairs || is("WordPiece", "max_input_chars_per_word")) {
    if (!json_member(model, "vocab").is_object())
      throw_invalid("the vocabulary is no table of tokens and ids", where, kDamagedTokenizer);
    return pairs ? make_byte_pairs(model, ids, where) : make_word_piece(model, ids, where);
  }
  throw_unsupported(
      "the tokenizer model " + (type.is_string() ? "'" + type.get<std::string>() + "'" : std::string("without a type")), where,
      "read are: BPE, Unigram, WordPiece");
}

std::vector<std::int32_t> byte_tokens(const TokenIds& ids) {
  std::vector<std::int32_t> bytes;
  for (int b = 0; b < 256; ++b) bytes.push_back(ids.find(fmt::format("<0x{:02X}>", b)));
  return bytes;
}

bool append_byte_tokens(const std::vector<std::int32_t>& bytes, std::string_view character, std::vector<std::int32_t>& ids) {
  const auto token = [&](char b) { return bytes[static_cast<unsigned char>(b)]; };
  if (std::any_of(character.begin(), character.end(), [&](char b) { return token(b) < 0; })) return false;
  for (const char b : character) ids.push_back(token(b));
  return true;
}

}  // namespace espalier
