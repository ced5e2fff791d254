#include "formats/byte_level.h"

#include <array>

#include "formats/utf8.h"

namespace espalier {
namespace {

constexpr char32_t kFirst = 0x100;
constexpr int kShifted = 68;  // bytes that do not print themselves

struct Alphabet {
  std::array<char32_t, 256> character{};
  std::array<int, kFirst + kShifted> byte{};
};

const Alphabet& alphabet() {
  static const Alphabet made = [] {
    Alphabet a;
    a.byte.fill(-1);
    char32_t next = kFirst;
    for (int b = 0; b < 256; ++b) {
      const bool prints = (b >= '!' && b <= '~') || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
      const char32_t c = prints ? static_cast<char32_t>(b) : next++;
      a.character[static_cast<std::size_t>(b)] = c;
      a.byte[c] = b;
    }
    return a;
  }();
  return made;
}

}  // namespace

char32_t byte_character(unsigned char byte) { return alphabet().character[byte]; }

void append_byte_characters(std::string& text, std::string_view bytes) {
  for (const char b : bytes) append_utf8(text, byte_character(static_cast<unsigned char>(b)));
}

std::string to_byte_characters(std::string_view bytes) {
  std::string out;
  append_byte_characters(out, bytes);
  return out;
}

std::optional<std::string> from_byte_characters(std::string_view text) {
  std::string out;
  while (!text.empty()) {
    const std::size_t length = utf8_sequence(text);
    if (length == 0) return std::nullopt;
    const char32_t c = code_point(text.substr(0, length));
    if (c >= alphabet().byte.size() || alphabet().byte[c] < 0) return std::nullopt;
    out += static_cast<char>(alphabet().byte[c]);
    text.remove_prefix(length);
  }
  return out;
}

}  // namespace espalier
