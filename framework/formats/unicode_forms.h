#pragma once
#include <string>
#include <string_view>

namespace espalier {

/// Unicode's normal forms (Unicode annex 15): decomposed or composed, canonical or by compatibility.
enum class NormalForm { nfd, nfc, nfkd, nfkc };

/// `text` (well-formed UTF-8) in a normal form of Unicode 9, whose tables Hugging Face's tokenizers have: characters younger than
/// that stay as they are and nothing moves across them. Takes n log n time however many marks follow each other.
std::string normal_form(std::string_view text, NormalForm form);

}  // namespace espalier
