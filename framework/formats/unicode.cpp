#include "formats/unicode.h"

#include <fmt/format.h>

#include "formats/utf8.h"
#include "sdk/error.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

namespace espalier {
namespace {

// What one match may cost; a pattern from a hostile file can otherwise run for ever.
constexpr std::uint32_t kMatchLimit = 50'000'000;
constexpr std::uint32_t kHeapLimitKiB = 256 * 1024;
constexpr std::size_t kMaxPattern = 64 * 1024;

// PCRE's \s also takes U+180E, which Unicode moved out of White_Space.
constexpr std::string_view kSpace = R"(\x09-\x0d\x20\x85\xa0\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000})";

// Letters and numbers of Unicode 15 and 16 (DerivedGeneralCategory.txt), for a PCRE built with the tables of Unicode 14: the ids of
// a text may not depend on the machine. Oniguruma, which Hugging Face's tokenizers use, has those of Unicode 16.
constexpr std::string_view kNewLetters =
    R"(\x{1c89}-\x{1c8a}\x{a7cb}-\x{a7cd}\x{a7da}-\x{a7dc}\x{105c0}-\x{105f3}\x{10d4a}-\x{10d65}\x{10d6f}-\x{10d85})"
    R"(\x{10ec2}-\x{10ec4}\x{1123f}-\x{11240}\x{11380}-\x{11389}\x{1138b}\x{1138e}\x{11390}-\x{113b5}\x{113b7})"
    R"(\x{113d1}\x{113d3}\x{11bc0}-\x{11be0}\x{11f02}\x{11f04}-\x{11f10}\x{11f12}-\x{11f33}\x{1342f})"
    R"(\x{13441}-\x{13446}\x{13460}-\x{143fa}\x{16100}-\x{1611d}\x{16d40}-\x{16d6c}\x{18cff}\x{1b132}\x{1b155})"
    R"(\x{1df25}-\x{1df2a}\x{1e030}-\x{1e06d}\x{1e4d0}-\x{1e4eb}\x{1e5d0}-\x{1e5ed}\x{1e5f0}\x{2b739})"
    R"(\x{2ebf0}-\x{2ee5d}\x{31350}-\x{323af})";
constexpr std::string_view kNewNumbers =
    R"(\x{10d40}-\x{10d49}\x{116d0}-\x{116e3}\x{11bf0}-\x{11bf9}\x{11f50}-\x{11f59}\x{16130}-\x{16139})"
    R"(\x{16d70}-\x{16d79}\x{1ccf0}-\x{1ccf9}\x{1d2c0}-\x{1d2d3}\x{1e4f0}-\x{1e4f9}\x{1e5f1}-\x{1e5fa})";

/// What stands in a character class for `\s`, `\p{L}` or `\p{N}` at the front of `rest`, and its length; "" for anything else.
std::pair<std::string, std::size_t> spelled_class(std::string_view rest) {
  const auto starts = [&](std::string_view with) { return rest.substr(0, with.size()) == with; };
  if (starts("\\s") || starts("\\S")) return {std::string(kSpace), 2};
  if (starts("\\p{L}") || starts("\\P{L}")) return {fmt::format("\\p{{L}}{}", kNewLetters), 5};
  if (starts("\\p{N}") || starts("\\P{N}")) return {fmt::format("\\p{{N}}{}", kNewNumbers), 5};
  return {};
}

/// The pattern with white space, letters and numbers spelled out. Negated ones inside a class stay PCRE's own.
std::string spelled_out(std::string_view pattern) {
  std::string out;
  bool in_class = false;
  for (std::size_t i = 0; i < pattern.size(); ++i) {
    const char c = pattern[i];
    if (c == '\\' && i + 1 < pattern.size()) {
      const bool negated = pattern[i + 1] == 'S' || pattern[i + 1] == 'P';
      const auto [members, length] = spelled_class(pattern.substr(i));
      if (length > 0 && !(negated && in_class)) {
        out += in_class ? members : fmt::format("[{}{}]", negated ? "^" : "", members);
        i += length - 1;
      } else {
        out += pattern.substr(i++, 2);
      }
      continue;
    }
    if (c == '[') in_class = true;
    if (c == ']') in_class = false;
    out += c;
  }
  return out;
}

}  // namespace

struct Pattern::Code {
  pcre2_code* code = nullptr;
  std::string where;
  ~Code() { pcre2_code_free(code); }
};

Pattern::Pattern(const std::string& pattern, const std::string& where) {
  if (pattern.size() > kMaxPattern)
    throw_invalid(fmt::format("a pattern of {} bytes", pattern.size()), where, "at most 65,536 are read");
  const std::string text = spelled_out(pattern);
  int error = 0;
  PCRE2_SIZE offset = 0;
  auto code = std::make_shared<Code>();
  code->where = where;
  code->code =
      pcre2_compile(reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), PCRE2_UTF | PCRE2_UCP, &error, &offset, nullptr);
  if (!code->code) {
    char message[200] = {};
    pcre2_get_error_message(error, reinterpret_cast<PCRE2_UCHAR*>(message), sizeof message);
    throw_invalid(fmt::format("pattern '{}': {}", pattern.substr(0, 120), message), where,
                  "the tokenizer's pre_tokenizer is damaged");
  }
  pcre2_jit_compile(code->code, PCRE2_JIT_COMPLETE);  // without it matching is slower, nothing else
  code_ = std::move(code);
}

void Pattern::each(std::string_view text, const std::function<void(std::size_t, std::size_t)>& match) const {
  const std::unique_ptr<pcre2_match_data, void (*)(pcre2_match_data*)> data(
      pcre2_match_data_create_from_pattern(code_->code, nullptr), pcre2_match_data_free);
  const std::unique_ptr<pcre2_match_context, void (*)(pcre2_match_context*)> context(pcre2_match_context_create(nullptr),
                                                                                     pcre2_match_context_free);
  const std::unique_ptr<pcre2_jit_stack, void (*)(pcre2_jit_stack*)> stack(
      pcre2_jit_stack_create(32 * 1024, 64 * 1024 * 1024, nullptr), pcre2_jit_stack_free);
  if (!data || !context) throw std::bad_alloc();
  pcre2_set_match_limit(context.get(), kMatchLimit);
  pcre2_set_heap_limit(context.get(), kHeapLimitKiB);
  if (stack) pcre2_jit_stack_assign(context.get(), nullptr, stack.get());
  std::size_t at = 0;
  while (at < text.size()) {
    // The text has been checked once; checking the rest of it at every match would take quadratic time.
    const int found = pcre2_match(code_->code, reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), at, PCRE2_NO_UTF_CHECK,
                                  data.get(), context.get());
    if (found == PCRE2_ERROR_NOMATCH) return;
    if (found < 0)
      throw_invalid(fmt::format("the tokenizer's pattern gave up on a text of {} bytes (error {})", text.size(), found),
                    code_->where);
    const PCRE2_SIZE* span = pcre2_get_ovector_pointer(data.get());
    const std::size_t begin = span[0], end = span[1];
    if (end > begin && begin >= at) match(begin, end);
    at = end > at ? end : at + utf8_sequence(text.substr(at));
  }
}

bool is_white_space(char32_t c) {
  return (c >= 9 && c <= 13) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 ||
         c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

bool is_word_character(char32_t c) {
  static const Pattern word(R"([\p{Alphabetic}\p{L}\p{M}\p{Nd}\p{Pc}\x{200c}\x{200d}])", "the project's own pattern");
  std::string text;
  append_utf8(text, c);
  bool matched = false;
  word.each(text, [&](std::size_t, std::size_t) { matched = true; });
  return matched;
}

}  // namespace espalier
