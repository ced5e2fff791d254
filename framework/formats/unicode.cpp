#include "formats/unicode.h"

#include <unicode/uchar.h>

#include <algorithm>
#include <iterator>

#include "formats/utf8.h"

namespace espalier {
namespace {

struct Range {
  char32_t first, last;
};

/// `ranges` ascend.
template <std::size_t n>
bool within(const Range (&ranges)[n], char32_t point) {
  const auto* found =
      std::lower_bound(std::begin(ranges), std::end(ranges), point, [](const Range& range, char32_t p) { return range.last < p; });
  return found != std::end(ranges) && found->first <= point;
}

// What the oldest ICU that is built with (72: Unicode 15.0) does not know yet. A newer one gives the same answers by itself.
constexpr Range kNewWordCharacters[] = {
    {0x897, 0x897},     {0x1C89, 0x1C8A},   {0xA7CB, 0xA7CD},   {0xA7DA, 0xA7DC},   {0x105C0, 0x105F3}, {0x10D40, 0x10D65},
    {0x10D69, 0x10D6D}, {0x10D6F, 0x10D85}, {0x10EC2, 0x10EC4}, {0x10EFC, 0x10EFC}, {0x11380, 0x11389}, {0x1138B, 0x1138B},
    {0x1138E, 0x1138E}, {0x11390, 0x113B5}, {0x113B7, 0x113C0}, {0x113C2, 0x113C2}, {0x113C5, 0x113C5}, {0x113C7, 0x113CA},
    {0x113CC, 0x113D3}, {0x113E1, 0x113E2}, {0x116D0, 0x116E3}, {0x11BC0, 0x11BE0}, {0x11BF0, 0x11BF9}, {0x11F5A, 0x11F5A},
    {0x13460, 0x143FA}, {0x16100, 0x16139}, {0x16D40, 0x16D6C}, {0x16D70, 0x16D79}, {0x18CFF, 0x18CFF}, {0x1CCF0, 0x1CCF9},
    {0x1E5D0, 0x1E5FA}, {0x2EBF0, 0x2EE5D}};
constexpr Range kNewNumbers[] = {{0x10D40, 0x10D49}, {0x116D0, 0x116E3}, {0x11BF0, 0x11BF9}, {0x11DE0, 0x11DE9}, {0x16130, 0x16139},
                                 {0x16D70, 0x16D79}, {0x16FF4, 0x16FF6}, {0x1CCF0, 0x1CCF9}, {0x1E5F1, 0x1E5FA}};
constexpr Range kNewExtenders[] = {{0x897, 0x897},     {0x1ACF, 0x1ADD},   {0x1AE0, 0x1AEB},   {0x10D69, 0x10D6D},
                                   {0x10EFA, 0x10EFC}, {0x113B8, 0x113C0}, {0x113C2, 0x113C2}, {0x113C5, 0x113C5},
                                   {0x113C7, 0x113CA}, {0x113CC, 0x113D0}, {0x113D2, 0x113D2}, {0x113E1, 0x113E2},
                                   {0x11B60, 0x11B67}, {0x11F5A, 0x11F5A}, {0x1611E, 0x1612F}, {0x1E5EE, 0x1E5EF},
                                   {0x1E6E3, 0x1E6E3}, {0x1E6E6, 0x1E6E6}, {0x1E6EE, 0x1E6EF}, {0x1E6F5, 0x1E6F5}};
/// Capitals, and how far their small letters are from the first.
struct Capitals {
  char32_t first, last, small;
};
constexpr Capitals kNewCapitals[] = {{0x1C89, 0x1C89, 0x1C8A},   {0xA7CB, 0xA7CB, 0x264},  {0xA7CC, 0xA7CC, 0xA7CD},
                                     {0xA7CE, 0xA7CE, 0xA7CF},   {0xA7D2, 0xA7D2, 0xA7D3}, {0xA7D4, 0xA7D4, 0xA7D5},
                                     {0xA7DA, 0xA7DA, 0xA7DB},   {0xA7DC, 0xA7DC, 0x19B},  {0x10D50, 0x10D65, 0x10D70},
                                     {0x16EA0, 0x16EB8, 0x16EBB}};

UChar32 icu(char32_t point) { return static_cast<UChar32>(point); }

std::uint32_t category(char32_t point) { return U_MASK(u_charType(icu(point))); }

bool since(char32_t point, int version) {
  UVersionInfo age;
  u_charAge(icu(point), age);
  return age[0] <= version;
}

}  // namespace

bool is_white_space(char32_t c) {
  return (c >= 9 && c <= 13) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 ||
         c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

bool is_word_character(char32_t c) {
  if (c < 0x80) return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
  if (c == 0x200C || c == 0x200D || within(kNewWordCharacters, c)) return true;
  constexpr std::uint32_t word = U_GC_M_MASK | U_GC_ND_MASK | U_GC_PC_MASK;
  return ((category(c) & word) != 0 || u_hasBinaryProperty(icu(c), UCHAR_ALPHABETIC)) && since(c, 16);
}

bool is_numeric(char32_t c) {
  if (c < 0x80) return c >= '0' && c <= '9';
  return ((category(c) & U_GC_N_MASK) != 0 && since(c, 17)) || within(kNewNumbers, c);
}

bool is_punctuation(char32_t c) {
  if (c < 0x80) return (c > 0x20 && c < '0') || (c > '9' && c < 'A') || (c > 'Z' && c < 'a') || (c > 'z' && c < 0x7F);
  // U+166D was punctuation then, and U+111C9 is so in the table that they use.
  return ((category(c) & U_GC_P_MASK) != 0 && since(c, 8)) || c == 0x166D || c == 0x111C9;
}

bool is_mark(char32_t c) {
  if (c < 0x300) return false;
  return ((category(c) & U_GC_M_MASK) != 0 && since(c, 9) && c != 0x111C9) || c == 0x1CF2 || c == 0x1CF3;
}

bool is_nonspacing_mark(char32_t c) {
  if (c < 0x300) return false;
  if (c == 0x1885 || c == 0x1886 || c == 0xA9BD || c == 0x111C9) return false;  // became marks later
  return ((category(c) & U_GC_MN_MASK) != 0 && since(c, 8)) || c == 0x1734;
}

bool is_control(char32_t c) {
  if (c < 0x80) return c < 0x20 || c == 0x7F;
  return (category(c) & (U_GC_CC_MASK | U_GC_CF_MASK | U_GC_CO_MASK)) != 0 && since(c, 8);
}

GraphemeRole grapheme_role(char32_t c) {
  if (c >= 0x20 && c < 0x7F) return GraphemeRole::other;
  if (within(kNewExtenders, c)) return GraphemeRole::extends;
  if (c == 0x113D1) return GraphemeRole::prepends;
  if (c == 0x11A3A) return GraphemeRole::other;  // it took the next character in before Unicode 17
  if (!since(c, 17)) return GraphemeRole::other;
  switch (u_getIntPropertyValue(icu(c), UCHAR_GRAPHEME_CLUSTER_BREAK)) {
    case U_GCB_CR:
    case U_GCB_LF:
    case U_GCB_CONTROL:
      return GraphemeRole::control;
    case U_GCB_EXTEND:
    case U_GCB_SPACING_MARK:
    case U_GCB_ZWJ:
      return GraphemeRole::extends;
    case U_GCB_PREPEND:
      return GraphemeRole::prepends;
    case U_GCB_L:
      return GraphemeRole::leading;
    case U_GCB_V:
      return GraphemeRole::vowel;
    case U_GCB_T:
      return GraphemeRole::trailing;
    case U_GCB_LV:
      return GraphemeRole::syllable;
    case U_GCB_LVT:
      return GraphemeRole::closed_syllable;
    default:
      return u_hasBinaryProperty(icu(c), UCHAR_EXTENDED_PICTOGRAPHIC) ? GraphemeRole::pictograph : GraphemeRole::other;
  }
}

void append_lower_case(std::string& text, char32_t c) {
  if (c < 0x80) {
    text += static_cast<char>(c >= 'A' && c <= 'Z' ? c + 32 : c);
    return;
  }
  if (c == 0x130) {  // the one character whose lower case is two
    text += "i\u0307";
    return;
  }
  for (const auto& [first, last, small] : kNewCapitals) {
    if (c >= first && c <= last) return append_utf8(text, small + (c - first));
  }
  append_utf8(text, static_cast<char32_t>(u_tolower(icu(c))));
}

}  // namespace espalier
