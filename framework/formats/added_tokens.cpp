#include "formats/added_tokens.h"

#include <algorithm>
#include <array>

#include "formats/tokenizer_part.h"
#include "formats/unicode.h"
#include "formats/utf8.h"
#include "sdk/error.h"

namespace espalier {
namespace {

bool flag(const Json& entry, const char* key) {
  const auto found = entry.find(key);
  return found != entry.end() && found->is_boolean() && found->get<bool>();
}

char32_t first_point(std::string_view text) { return code_point(text.substr(0, utf8_sequence(text))); }

char32_t last_point(std::string_view text) {
  std::size_t at = text.size() - 1;
  while (at > 0 && (static_cast<unsigned char>(text[at]) & 0xC0) == 0x80) --at;
  return code_point(text.substr(at));
}

std::size_t spaces_before(std::string_view text) {
  std::size_t end = text.size();
  while (end > 0 && is_white_space(last_point(text.substr(0, end)))) {
    do --end;
    while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80);
  }
  return text.size() - end;
}

std::size_t spaces_after(std::string_view text) {
  std::size_t at = 0;
  while (at < text.size() && is_white_space(first_point(text.substr(at)))) at += utf8_sequence(text.substr(at));
  return at;
}

}  // namespace

AddedTokens::AddedTokens(const Json& list, bool normalized, const Normalizer* normalizer, const std::string& where) {
  if (list.is_null()) return;
  if (!list.is_array()) throw_invalid("added_tokens is no list", where, kDamagedTokenizer);
  for (const Json& entry : list) {
    if (!entry.is_object() || !entry.contains("content") || !entry["content"].is_string() || !entry.contains("id") ||
        !entry["id"].is_number_integer() || entry["id"].get<std::int64_t>() < 0 || entry["id"].get<std::int64_t>() > INT32_MAX) {
      throw_invalid("an added token lacks its content or id", where, kDamagedTokenizer);
    }
    if (flag(entry, "normalized") != normalized) continue;
    Token token;
    token.content = entry["content"].get<std::string>();
    token.id = entry["id"].get<std::int32_t>();
    token.special = flag(entry, "special");
    token.single_word = flag(entry, "single_word");
    token.lstrip = flag(entry, "lstrip");
    token.rstrip = flag(entry, "rstrip");
    if (const auto role = entry.find("role"); role != entry.end() && role->is_string()) token.role = role->get<std::string>();
    token.found_as = token.content;
    if (normalized && normalizer) {
      NormalizedText text{token.content};
      normalizer->apply(text);
      token.found_as = std::move(text.text);
    }
    if (token.found_as.empty()) continue;  // matches nothing, there as here
    const std::size_t length = token.found_as.size();
    if (!by_text_.emplace(token.found_as, tokens_.size()).second)
      throw_invalid("added token '" + token.content + "' appears twice", where, kDamagedTokenizer);
    auto& lengths = lengths_[token.found_as[0]];
    if (std::find(lengths.begin(), lengths.end(), length) == lengths.end()) lengths.push_back(length);
    tokens_.push_back(std::move(token));
  }
  for (auto& [first, lengths] : lengths_) std::sort(lengths.rbegin(), lengths.rend());
}

const AddedTokens::Token* AddedTokens::longest_at(std::string_view rest) const {
  const auto lengths = lengths_.find(rest[0]);
  if (lengths == lengths_.end()) return nullptr;
  for (const std::size_t length : lengths->second) {
    if (length > rest.size()) continue;
    if (const auto found = by_text_.find(rest.substr(0, length)); found != by_text_.end()) return &tokens_[found->second];
  }
  return nullptr;
}

std::vector<AddedTokens::Piece> AddedTokens::split(std::string_view text, bool special) const {
  std::vector<Piece> pieces;
  std::array<bool, 256> starts{};
  for (const auto& [first, lengths] : lengths_) starts[static_cast<unsigned char>(first)] = true;
  std::size_t begin = 0;
  for (std::size_t at = 0; at < text.size();) {
    const Token* token = starts[static_cast<unsigned char>(text[at])] ? longest_at(text.substr(at)) : nullptr;
    if (!token) {
      ++at;
      continue;
    }
    std::size_t from = at, to = at + token->found_as.size();
    at = to;
    if (token->special && !special) continue;
    if (token->single_word) {
      const bool joined = (from > 0 && is_word_character(last_point(text.substr(0, from)))) ||
                          (to < text.size() && is_word_character(first_point(text.substr(to))));
      if (joined) continue;
    }
    if (token->lstrip) from -= spaces_before(text.substr(begin, from - begin));
    if (token->rstrip) to += spaces_after(text.substr(to));
    if (begin < from) pieces.push_back({text.substr(begin, from - begin), -1});
    pieces.push_back({text.substr(from, to - from), token->id});
    begin = to;
    at = std::max(at, to);
  }
  if (begin < text.size()) pieces.push_back({text.substr(begin), -1});
  return pieces;
}

}  // namespace espalier
