#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace espalier {

/// Length of the well-formed UTF-8 sequence at the front of `text` (Unicode 15, table 3-7); when there is none, 0, and `bad` gets
/// the length of the maximal ill-formed subpart.
std::size_t utf8_sequence(std::string_view text, std::size_t* bad = nullptr);
bool valid_utf8(std::string_view text);
/// Every maximal ill-formed subpart becomes one U+FFFD, as Python's decode(errors="replace") and Rust's from_utf8_lossy do.
std::string repaired_utf8(std::string_view text);
/// The code point of a well-formed sequence of `length` bytes.
char32_t code_point(std::string_view sequence);
/// The code point at `at` of well-formed UTF-8; `at` moves behind it.
char32_t next_code_point(std::string_view text, std::size_t& at);
void append_utf8(std::string& text, char32_t point);

}  // namespace espalier
