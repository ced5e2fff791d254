#pragma once
#include <optional>
#include <string>
#include <string_view>

namespace espalier {

/// The alphabet of byte-level BPE (GPT-2): each byte has one printable character; bytes that print themselves stand for themselves,
/// the others for U+0100 and following in order.
char32_t byte_character(unsigned char byte);
std::string to_byte_characters(std::string_view bytes);
void append_byte_characters(std::string& text, std::string_view bytes);
/// The bytes that a token's text stands for; nothing when it holds a character outside the alphabet.
std::optional<std::string> from_byte_characters(std::string_view text);

}  // namespace espalier
