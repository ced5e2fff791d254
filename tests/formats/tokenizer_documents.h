#pragma once
/// Small tokenizer.json documents, one of each kind, for tests that change or damage them.
#include <string>
#include <vector>

#include "sdk/artifact.h"

namespace espalier::tests {

inline std::string base64(const std::string& bytes) {
  static const char* digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  for (std::size_t i = 0; i < bytes.size(); i += 3) {
    std::uint32_t group = 0;
    for (std::size_t k = 0; k < 3; ++k) group = group << 8 | (i + k < bytes.size() ? static_cast<unsigned char>(bytes[i + k]) : 0U);
    for (std::size_t k = 0; k < 4; ++k) out += i + k <= bytes.size() ? digits[group >> (18 - 6 * k) & 63] : '=';
  }
  return out;
}

/// A trie of `units` 32-bit words that maps "a" to what stands at `value` of `replacements`.
inline std::string charsmap(std::uint32_t value = 0, const std::string& replacements = std::string("X\0", 2),
                            std::size_t units = 0x61) {
  std::vector<std::uint32_t> trie(units);
  trie[0] = 1 << 10;                              // children lie at 1 ^ byte
  trie[0x60] = (0x60 ^ 2) << 10 | 1 << 8 | 0x61;  // 'a', which ends a text; its value lies at 2
  trie[2] = 1U << 31 | value;
  std::string bytes;
  const auto add = [&](std::uint32_t word) {
    for (int k = 0; k < 4; ++k) bytes += static_cast<char>(word >> 8 * k & 0xFF);
  };
  add(static_cast<std::uint32_t>(4 * units));
  for (const std::uint32_t unit : trie) add(unit);
  return base64(bytes + replacements);
}

inline Json added_token(int id, const std::string& content, bool special) {
  return {{"id", id},        {"content", content},  {"single_word", false}, {"lstrip", false},
          {"rstrip", false}, {"normalized", false}, {"special", special}};
}

inline Json word_piece_document() {
  const auto piece = [](const char* id, int segment) { return Json{{"SpecialToken", {{"id", id}, {"type_id", segment}}}}; };
  const auto text = [](const char* id, int segment) { return Json{{"Sequence", {{"id", id}, {"type_id", segment}}}}; };
  const auto special = [](const char* name, int id) { return Json{{"id", name}, {"ids", {id}}, {"tokens", {name}}}; };
  return {
      {"version", "1.0"},
      {"added_tokens", {added_token(0, "[UNK]", true), added_token(1, "[CLS]", true), added_token(2, "[SEP]", true)}},
      {"normalizer",
       {{"type", "BertNormalizer"},
        {"clean_text", true},
        {"handle_chinese_chars", true},
        {"strip_accents", nullptr},
        {"lowercase", true}}},
      {"pre_tokenizer", {{"type", "BertPreTokenizer"}}},
      {"post_processor",
       {{"type", "TemplateProcessing"},
        {"single", {piece("[CLS]", 0), text("A", 0), piece("[SEP]", 0)}},
        {"pair", {piece("[CLS]", 0), text("A", 0), piece("[SEP]", 0), text("B", 1), piece("[SEP]", 1)}},
        {"special_tokens", {{"[CLS]", special("[CLS]", 1)}, {"[SEP]", special("[SEP]", 2)}}}}},
      {"decoder", {{"type", "WordPiece"}, {"prefix", "##"}, {"cleanup", true}}},
      {"model",
       {{"type", "WordPiece"},
        {"unk_token", "[UNK]"},
        {"continuing_subword_prefix", "##"},
        {"max_input_chars_per_word", 100},
        {"vocab",
         {{"[UNK]", 0}, {"[CLS]", 1}, {"[SEP]", 2}, {"the", 3}, {"gard", 4}, {"##en", 5}, {"##er", 6}, {".", 7}, {"ete", 8}}}}}};
}

inline Json unigram_document() {
  Json vocabulary =
      Json::array({{"<unk>", 0.0}, {"<s>", 0.0}, {"▁", -2.0}, {"X", -3.0}, {"▁X", -3.5}, {"b", -4.25}, {"▁Xb", -9.0}, {"bb", -6}});
  return {{"version", "1.0"},
          {"added_tokens", {added_token(1, "<s>", true)}},
          {"normalizer",
           {{"type", "Sequence"},
            {"normalizers",
             {{{"type", "Precompiled"}, {"precompiled_charsmap", charsmap()}},
              {{"type", "Replace"}, {"pattern", {{"Regex", " {2,}"}}}, {"content", " "}}}}}},
          {"pre_tokenizer", {{"type", "Metaspace"}, {"replacement", "▁"}, {"prepend_scheme", "always"}, {"split", true}}},
          {"post_processor",
           {{"type", "RobertaProcessing"},
            {"sep", {"<s>", 1}},
            {"cls", {"<s>", 1}},
            {"trim_offsets", true},
            {"add_prefix_space", true}}},
          {"decoder", {{"type", "Metaspace"}, {"replacement", "▁"}, {"prepend_scheme", "always"}, {"split", true}}},
          {"model", {{"type", "Unigram"}, {"unk_id", 0}, {"vocab", vocabulary}, {"byte_fallback", false}}}};
}

inline Json llama_document() {
  static const char* digits = "0123456789ABCDEF";
  Json vocabulary = {{"<unk>", 0}, {"<s>", 1}, {"▁", 2}, {"a", 3}, {"b", 4}, {"▁a", 5}, {"▁ab", 6}, {"▁▁", 7}};
  for (int b = 0; b < 256; ++b) vocabulary[std::string("<0x") + digits[b / 16] + digits[b % 16] + ">"] = 8 + b;
  return {{"version", "1.0"},
          {"added_tokens", {added_token(1, "<s>", true)}},
          {"normalizer",
           {{"type", "Sequence"},
            {"normalizers",
             {{{"type", "Prepend"}, {"prepend", "▁"}}, {{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", "▁"}}}}}},
          {"pre_tokenizer", nullptr},
          {"post_processor", nullptr},
          {"decoder",
           {{"type", "Sequence"},
            {"decoders",
             {{{"type", "Replace"}, {"pattern", {{"String", "▁"}}}, {"content", " "}},
              {{"type", "ByteFallback"}},
              {{"type", "Fuse"}},
              {{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}}}}}},
          {"model",
           {{"type", "BPE"},
            {"unk_token", "<unk>"},
            {"fuse_unk", true},
            {"byte_fallback", true},
            {"vocab", vocabulary},
            {"merges", {"▁ a", "▁a b", "▁ ▁"}}}}};
}

}  // namespace espalier::tests
