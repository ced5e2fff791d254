#pragma once
#include <string>

namespace espalier {

/// Properties of characters as Hugging Face's tokenizers see them. Their parts go by tables of different ages, and a text's ids may
/// depend neither on that nor on this machine's ICU: each function names the version of Unicode that it answers for.

/// White_Space (unchanged since Unicode 6.3).
bool is_white_space(char32_t point);
/// A letter, mark, decimal digit, connector or joiner: `\w` of Unicode TS 18, annex C (Unicode 16).
bool is_word_character(char32_t point);
/// A number of any kind (Unicode 17).
bool is_numeric(char32_t point);
/// Punctuation: ASCII's 32, and category P (Unicode 8).
bool is_punctuation(char32_t point);
/// A mark of any kind (Unicode 9).
bool is_mark(char32_t point);
/// A mark that takes no room, category Mn (Unicode 8).
bool is_nonspacing_mark(char32_t point);
/// A control, format or private-use character (Unicode 8).
bool is_control(char32_t point);
/// What a character is to the grapheme that it stands in (Unicode annex 29, of Unicode 17): it belongs to the one before it
/// (Extend, SpacingMark, ZWJ), takes the next one in (Prepend), is a part of a Hangul syllable, an emoji, or stands alone.
enum class GraphemeRole { other, control, extends, prepends, pictograph, leading, vowel, trailing, syllable, closed_syllable };
GraphemeRole grapheme_role(char32_t point);

/// Appends the lower case of one character, whatever its neighbours (Unicode 17).
void append_lower_case(std::string& text, char32_t point);

}  // namespace espalier
