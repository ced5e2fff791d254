#include "formats/charsmap.h"

#include <fmt/format.h>

#include "formats/tokenizer_part.h"
#include "formats/unicode.h"
#include "formats/utf8.h"
#include "sdk/error.h"

namespace espalier {
namespace {

constexpr char32_t kJoiner = 0x200D;

[[noreturn]] void damaged(const std::string& what, const std::string& where) {
  throw_invalid("the precompiled_charsmap " + what, where, kDamagedTokenizer);
}

int sextet(char c) {
  if (c >= 'A' && c <= 'Z') return c - 'A';
  if (c >= 'a' && c <= 'z') return c - 'a' + 26;
  if (c >= '0' && c <= '9') return c - '0' + 52;
  return c == '+' ? 62 : c == '/' ? 63 : -1;
}

/// RFC 4648 with padding.
std::string from_base64(std::string_view text, const std::string& where) {
  if (text.size() % 4 != 0) damaged(fmt::format("has {} characters, which is no base64", text.size()), where);
  std::string bytes;
  bytes.reserve(text.size() / 4 * 3);
  for (std::size_t i = 0; i < text.size(); i += 4) {
    const bool last = i + 4 == text.size();
    const int padding = !last || text[i + 3] != '=' ? 0 : text[i + 2] == '=' ? 2 : 1;
    std::uint32_t group = 0;
    for (int k = 0; k < 4; ++k) {
      const int value = k >= 4 - padding ? 0 : sextet(text[i + static_cast<std::size_t>(k)]);
      if (value < 0) damaged(fmt::format("is no base64 at character {}", i + static_cast<std::size_t>(k)), where);
      group = group << 6 | static_cast<std::uint32_t>(value);
    }
    for (int k = 0; k < 3 - padding; ++k) bytes += static_cast<char>(group >> (16 - 8 * k) & 0xFF);
  }
  return bytes;
}

std::uint32_t little_endian(std::string_view bytes) {
  std::uint32_t value = 0;
  for (std::size_t i = 4; i-- > 0;) value = value << 8 | static_cast<unsigned char>(bytes[i]);
  return value;
}

bool one_syllable(GraphemeRole left, GraphemeRole right) {
  using Role = GraphemeRole;
  switch (right) {
    case Role::leading:
    case Role::syllable:
    case Role::closed_syllable:
      return left == Role::leading;
    case Role::vowel:
      return left == Role::leading || left == Role::vowel || left == Role::syllable;
    case Role::trailing:
      return left == Role::vowel || left == Role::trailing || left == Role::syllable || left == Role::closed_syllable;
    default:
      return false;
  }
}

/// The end of the grapheme that begins at `begin`. Those of six bytes and more are handled by character anyway, which leaves
/// Unicode's rules for flags and conjuncts without effect here.
std::size_t grapheme_end(std::string_view text, std::size_t begin) {
  std::size_t end = begin;
  char32_t last = next_code_point(text, end);
  GraphemeRole role = grapheme_role(last);
  bool pictograph = role == GraphemeRole::pictograph;  // then only extenders
  for (std::size_t at = end; at < text.size(); end = at) {
    const char32_t next = next_code_point(text, at);
    const GraphemeRole next_role = grapheme_role(next);
    const bool line_end = last == '\r' && next == '\n';
    const bool control = role == GraphemeRole::control || next_role == GraphemeRole::control;
    const bool joined = next_role == GraphemeRole::extends || role == GraphemeRole::prepends || one_syllable(role, next_role) ||
                        (pictograph && last == kJoiner && next_role == GraphemeRole::pictograph);
    if (!(control ? line_end : joined)) break;
    if (next_role != GraphemeRole::extends) pictograph = next_role == GraphemeRole::pictograph;
    last = next;
    role = next_role;
  }
  return end;
}

}  // namespace

CharsMap::CharsMap(const std::string& base64, const std::string& where) {
  const std::string bytes = from_base64(base64, where);
  const std::uint32_t size = bytes.size() < 4 ? 0 : little_endian(bytes);
  if (size < 4 || size > bytes.size() - 4) damaged(fmt::format("claims a trie of {} bytes in {} bytes", size, bytes.size()), where);
  units_.resize(size / 4);
  for (std::size_t i = 0; i < units_.size(); ++i) units_[i] = little_endian(std::string_view(bytes).substr(4 + 4 * i, 4));
  replacements_ = bytes.substr(4 + 4 * units_.size());
  if (!valid_utf8(replacements_)) damaged("has replacements that are no UTF-8", where);
}

std::optional<std::string_view> CharsMap::find(std::string_view key) const {
  const auto offset = [](std::uint32_t unit) { return std::size_t{unit >> 10} << ((unit & 1U << 9) >> 6); };
  std::size_t node = offset(units_[0]);
  for (const char c : key) {
    const auto label = static_cast<unsigned char>(c);
    node ^= label;
    if (label == 0 || node >= units_.size() || (units_[node] & (1U << 31 | 0xFF)) != label) return std::nullopt;
    const bool leaf = (units_[node] >> 8 & 1) != 0;
    node ^= offset(units_[node]);
    if (!leaf) continue;
    if (node >= units_.size()) return std::nullopt;
    const std::size_t at = units_[node] & 0x7FFFFFFF;
    // Only at the front of a character: what comes out must be UTF-8 again.
    if (at > replacements_.size() || (at < replacements_.size() && (static_cast<unsigned char>(replacements_[at]) & 0xC0) == 0x80))
      return std::nullopt;
    const std::size_t end = replacements_.find('\0', at);
    return std::string_view(replacements_).substr(at, end == std::string::npos ? end : end - at);
  }
  return std::nullopt;
}

std::string CharsMap::normalized(std::string_view text, const std::function<void(std::size_t)>& check) const {
  std::string out;
  out.reserve(text.size());
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = grapheme_end(text, begin);
    check(out.size());
    const std::string_view grapheme = text.substr(begin, end - begin);
    begin = end;
    if (const auto whole = grapheme.size() < 6 ? find(grapheme) : std::nullopt) {
      out += *whole;
      continue;
    }
    for (std::size_t at = 0; at < grapheme.size();) {
      const std::size_t from = at;
      next_code_point(grapheme, at);
      const std::string_view character = grapheme.substr(from, at - from);
      out += find(character).value_or(character);
    }
  }
  return out;
}

}  // namespace espalier
