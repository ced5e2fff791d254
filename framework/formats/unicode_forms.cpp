#include "formats/unicode_forms.h"

#include <unicode/uchar.h>
#include <unicode/unorm2.h>
#include <unicode/utf16.h>

#include <algorithm>
#include <vector>

#include "formats/utf8.h"
#include "sdk/error.h"

namespace espalier {
namespace {

struct Character {
  char32_t point;
  std::uint8_t combining;  ///< canonical combining class; 0 for a starter
};

const UNormalizer2* tables(bool compatibility) {
  UErrorCode error = U_ZERO_ERROR;
  const UNormalizer2* found = compatibility ? unorm2_getNFKCInstance(&error) : unorm2_getNFCInstance(&error);
  if (U_FAILURE(error)) throw Error(ErrorCode::resource, "ICU's normalization data cannot be read", "", "reinstall libicu");
  return found;
}

/// Whether Unicode 9 knows the character; an unassigned one is inert anyway.
bool known(char32_t point) {
  UVersionInfo age;
  u_charAge(static_cast<UChar32>(point), age);
  return age[0] <= 9;
}

void decompose(char32_t point, const UNormalizer2* tables, std::vector<Character>& out) {
  if (point < 0x80 || !known(point)) {
    out.push_back({point, 0});
    return;
  }
  UChar units[64];  // the longest decomposition, U+FDFA's, has 18
  UErrorCode error = U_ZERO_ERROR;
  const std::int32_t length = unorm2_getDecomposition(tables, static_cast<UChar32>(point), units, 64, &error);
  if (length < 0 || U_FAILURE(error)) {
    out.push_back({point, unorm2_getCombiningClass(tables, static_cast<UChar32>(point))});
    return;
  }
  for (std::int32_t at = 0; at < length;) {
    UChar32 part = 0;
    U16_NEXT(units, at, length, part);
    out.push_back({static_cast<char32_t>(part), unorm2_getCombiningClass(tables, part)});
  }
}

/// Marks between two starters by their class; equal ones keep their order.
void order(std::vector<Character>& text) {
  for (auto at = text.begin(); at != text.end();) {
    if (at->combining == 0) {
      ++at;
      continue;
    }
    const auto end = std::find_if(at, text.end(), [](const Character& c) { return c.combining == 0; });
    std::stable_sort(at, end, [](const Character& a, const Character& b) { return a.combining < b.combining; });
    at = end;
  }
}

/// Each mark into the last starter where the two have a composite and no mark of its class stands between.
void compose(std::vector<Character>& text, const UNormalizer2* tables) {
  constexpr std::size_t none = ~std::size_t{0};
  std::size_t kept = 0, starter = none;
  for (const Character next : text) {
    if (starter != none && (kept == starter + 1 || (text[kept - 1].combining != 0 && text[kept - 1].combining < next.combining))) {
      const UChar32 whole =
          known(text[starter].point) && known(next.point)
              ? unorm2_composePair(tables, static_cast<UChar32>(text[starter].point), static_cast<UChar32>(next.point))
              : -1;
      if (whole >= 0) {
        text[starter].point = static_cast<char32_t>(whole);
        continue;
      }
    }
    if (next.combining == 0) starter = kept;
    text[kept++] = next;
  }
  text.resize(kept);
}

}  // namespace

std::string normal_form(std::string_view text, NormalForm form) {
  // ASCII is in every form, and in NFC all below the first mark.
  const auto settled = static_cast<unsigned char>(form == NormalForm::nfc ? 0xCC : 0x80);
  if (std::all_of(text.begin(), text.end(), [=](char c) { return static_cast<unsigned char>(c) < settled; }))
    return std::string(text);
  const UNormalizer2* data = tables(form == NormalForm::nfkd || form == NormalForm::nfkc);
  std::vector<Character> characters;
  characters.reserve(text.size());
  for (std::size_t at = 0; at < text.size();) decompose(next_code_point(text, at), data, characters);
  order(characters);
  if (form == NormalForm::nfc || form == NormalForm::nfkc) compose(characters, data);
  std::string out;
  out.reserve(text.size());
  for (const Character& c : characters) append_utf8(out, c.point);
  return out;
}

}  // namespace espalier
