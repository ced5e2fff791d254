#include "formats/pattern.h"

#include <fmt/format.h>

#include <array>
#include <optional>

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
constexpr const char* kDamaged = "the tokenizer is damaged";

// Characters of Unicode 15 and 16 by category (DerivedGeneralCategory.txt), for a PCRE built with the tables of Unicode 14: the ids
// of a text may not depend on the machine. Oniguruma, which Hugging Face's tokenizers use, has those of Unicode 16.
struct Additions {
  std::string_view category, members;
};
constexpr Additions kAdditions[] = {
    {"Lu", R"(\x{1c89}\x{a7cb}-\x{a7cc}\x{a7da}\x{a7dc}\x{10d50}-\x{10d65})"},
    {"Ll", R"(\x{1c8a}\x{a7cd}\x{a7db}\x{10d70}-\x{10d85}\x{1df25}-\x{1df2a})"},
    {"Lm", R"(\x{10d4e}\x{10d6f}\x{16d40}-\x{16d42}\x{16d6b}-\x{16d6c}\x{1e030}-\x{1e06d}\x{1e4eb})"},
    {"Lo", R"(\x{105c0}-\x{105f3}\x{10d4a}-\x{10d4d}\x{10d4f}\x{10ec2}-\x{10ec4}\x{1123f}-\x{11240}\x{11380}-\x{11389})"
           R"(\x{1138b}\x{1138e}\x{11390}-\x{113b5}\x{113b7}\x{113d1}\x{113d3}\x{11bc0}-\x{11be0}\x{11f02})"
           R"(\x{11f04}-\x{11f10}\x{11f12}-\x{11f33}\x{1342f}\x{13441}-\x{13446}\x{13460}-\x{143fa}\x{16100}-\x{1611d})"
           R"(\x{16d43}-\x{16d6a}\x{18cff}\x{1b132}\x{1b155}\x{1e4d0}-\x{1e4ea}\x{1e5d0}-\x{1e5ed}\x{1e5f0}\x{2b739})"
           R"(\x{2ebf0}-\x{2ee5d}\x{31350}-\x{323af})"},
    {"Mn", R"(\x{897}\x{ece}\x{10d69}-\x{10d6d}\x{10efc}-\x{10eff}\x{11241}\x{113bb}-\x{113c0}\x{113ce}\x{113d0})"
           R"(\x{113d2}\x{113e1}-\x{113e2}\x{11f00}-\x{11f01}\x{11f36}-\x{11f3a}\x{11f40}\x{11f42}\x{11f5a}\x{13440})"
           R"(\x{13447}-\x{13455}\x{1611e}-\x{16129}\x{1612d}-\x{1612f}\x{1e08f}\x{1e4ec}-\x{1e4ef}\x{1e5ee}-\x{1e5ef})"},
    {"Mc", R"(\x{cf3}\x{113b8}-\x{113ba}\x{113c2}\x{113c5}\x{113c7}-\x{113ca}\x{113cc}-\x{113cd}\x{113cf}\x{1171e})"
           R"(\x{11f03}\x{11f34}-\x{11f35}\x{11f3e}-\x{11f3f}\x{11f41}\x{1612a}-\x{1612c})"},
    {"Nd", R"(\x{10d40}-\x{10d49}\x{116d0}-\x{116e3}\x{11bf0}-\x{11bf9}\x{11f50}-\x{11f59}\x{16130}-\x{16139})"
           R"(\x{16d70}-\x{16d79}\x{1ccf0}-\x{1ccf9}\x{1e4f0}-\x{1e4f9}\x{1e5f1}-\x{1e5fa})"},
    {"No", R"(\x{1d2c0}-\x{1d2d3})"},
    {"Pd", R"(\x{10d6e})"},
    {"Po", R"(\x{1b4e}-\x{1b4f}\x{1b7f}\x{113d4}-\x{113d5}\x{113d7}-\x{113d8}\x{11b00}-\x{11b09}\x{11be1})"
           R"(\x{11f43}-\x{11f4f}\x{16d6d}-\x{16d6f}\x{1e5ff})"},
    {"Sm", R"(\x{10d8e}-\x{10d8f})"},
    {"So", R"(\x{2427}-\x{2429}\x{2ffc}-\x{2fff}\x{31e4}-\x{31e5}\x{31ef}\x{1cc00}-\x{1ccef}\x{1cd00}-\x{1ceb3})"
           R"(\x{1f6dc}\x{1f774}-\x{1f776}\x{1f77b}-\x{1f77f}\x{1f7d9}\x{1f8b2}-\x{1f8bb}\x{1f8c0}-\x{1f8c1})"
           R"(\x{1fa75}-\x{1fa77}\x{1fa87}-\x{1fa89}\x{1fa8f}\x{1faad}-\x{1faaf}\x{1fabb}-\x{1fabf}\x{1fac6})"
           R"(\x{1face}-\x{1facf}\x{1fada}-\x{1fadc}\x{1fadf}\x{1fae8}-\x{1fae9}\x{1faf7}-\x{1faf8}\x{1fbcb}-\x{1fbef})"},
    {"Cf", R"(\x{13439}-\x{1343f})"},
};

// PCRE's \s also takes U+180E, which Unicode moved out of White_Space.
constexpr std::string_view kSpace = R"(\x09-\x0d\x20\x85\xa0\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000})";

/// A general category or a group of them ("Lu", "L"), as the members of a class.
std::string category_members(std::string_view name) {
  std::string members = fmt::format("\\p{{{}}}", name);
  for (const Additions& more : kAdditions) {
    if (more.category.substr(0, name.size()) == name) members += more.members;
  }
  return members;
}

/// Oniguruma's word characters. Outside of classes it asks another table below U+0100, where superscripts and fractions are such.
const std::string& word_members(bool in_class) {
  static const std::string plain =
      "\\p{Alphabetic}" + category_members("L") + category_members("M") + category_members("Nd") + category_members("Pc");
  static const std::string more = plain + "\\xb2\\xb3\\xb9\\xbc-\\xbe";
  return in_class ? plain : more;
}

/// A piece of a pattern that Oniguruma and PCRE understand differently, with what PCRE shall read.
struct Spelled {
  std::size_t length = 0;
  std::string members;  ///< of a class
  bool negated = false;
};

/// `\s`, `\w`, `\d`, `\h` (a hexadecimal digit there), `\p{…}` of a category, or `[:punct:]` and `[:space:]` within a class, at the
/// front of `rest`.
std::optional<Spelled> spelled(std::string_view rest, bool in_class) {
  if (in_class && rest.substr(0, 9) == "[:punct:]") return Spelled{9, category_members("P") + category_members("S")};
  if (in_class && rest.substr(0, 9) == "[:space:]") return Spelled{9, std::string(kSpace)};
  if (rest.size() < 2 || rest[0] != '\\') return std::nullopt;
  switch (rest[1]) {
    case 's':
    case 'S':
      return Spelled{2, std::string(kSpace), rest[1] == 'S'};
    case 'w':
    case 'W':
      return Spelled{2, word_members(in_class), rest[1] == 'W'};
    case 'd':
    case 'D':
      return Spelled{2, category_members("Nd"), rest[1] == 'D'};
    case 'h':
    case 'H':
      return Spelled{2, "0-9a-fA-F", rest[1] == 'H'};
    case 'p':
    case 'P':
      break;
    default:
      return std::nullopt;
  }
  const std::size_t end = rest.find('}');
  if (rest.size() < 5 || rest[2] != '{' || end == std::string_view::npos) return std::nullopt;
  std::string_view name = rest.substr(3, end - 3);
  const bool caret = !name.empty() && name[0] == '^';
  if (caret) name.remove_prefix(1);
  const bool category =
      (name.size() == 1 || name.size() == 2) && std::string_view("LMNPSZC").find(name[0]) != std::string_view::npos;
  if (!category) return std::nullopt;  // a script or another property: PCRE's own
  return Spelled{end + 1, category_members(name), (rest[1] == 'P') != caret};
}

/// Oniguruma's pattern as one of PCRE's. Throws for what PCRE would read as something else.
std::string translated(std::string_view pattern, const std::string& where) {
  std::string out;
  bool in_class = false;
  for (std::size_t i = 0; i < pattern.size(); ++i) {
    const std::string_view rest = pattern.substr(i);
    if (auto part = spelled(rest, in_class); part && !(part->negated && in_class)) {
      out += in_class ? part->members : fmt::format("[{}{}]", part->negated ? "^" : "", part->members);
      i += part->length - 1;
    } else if (!in_class && (rest.substr(0, 2) == "\\b" || rest.substr(0, 2) == "\\B")) {
      const std::string& w = word_members(false);
      out += rest[1] == 'b' ? fmt::format("(?:(?<=[{0}])(?![{0}])|(?<![{0}])(?=[{0}]))", w)
                            : fmt::format("(?:(?<=[{0}])(?=[{0}])|(?<![{0}])(?![{0}]))", w);
      ++i;
    } else if (pattern[i] == '\\' && i + 1 < pattern.size()) {
      out += pattern.substr(i++, 2);
    } else if (in_class && (rest.substr(0, 2) == "&&" || (rest[0] == '[' && rest.substr(0, 2) != "[:"))) {
      throw_unsupported(fmt::format("pattern '{}' computes with character classes", pattern.substr(0, 120)), where,
                        "intersections (&&) and classes within classes are not read");
    } else if (in_class && rest.substr(0, 2) == "[:") {
      const std::size_t end = std::min(rest.find(":]"), rest.size() - 2);
      out += rest.substr(0, end + 2);
      i += end + 1;
    } else {
      const bool opens = !in_class && pattern[i] == '[';
      if (in_class && pattern[i] == ']') in_class = false;
      out += pattern[i];
      if (!opens) continue;
      in_class = true;
      if (rest.substr(1, 1) == "^") out += pattern[++i];
      if (pattern.substr(i + 1, 1) == "]") out += pattern[++i];  // the first one stands for itself
    }
  }
  return out;
}

/// What a thread matches with; a match in a callback of another one may use it too, for nothing is kept in it between matches.
struct Scratch {
  pcre2_match_data* data = pcre2_match_data_create(1, nullptr);
  pcre2_match_context* context = pcre2_match_context_create(nullptr);
  pcre2_jit_stack* stack = pcre2_jit_stack_create(32 * 1024, 64 * 1024 * 1024, nullptr);

  Scratch() {
    if (!data || !context) throw std::bad_alloc();
    pcre2_set_match_limit(context, kMatchLimit);
    pcre2_set_heap_limit(context, kHeapLimitKiB);
    if (stack) pcre2_jit_stack_assign(context, nullptr, stack);
  }
  Scratch(const Scratch&) = delete;
  ~Scratch() {
    pcre2_match_data_free(data);
    pcre2_match_context_free(context);
    pcre2_jit_stack_free(stack);
  }
};

}  // namespace

struct Pattern::Code {
  pcre2_code* code = nullptr;
  std::string where;
  ~Code() { pcre2_code_free(code); }
};

Pattern::Pattern(const std::string& pattern, const std::string& where) {
  if (pattern.size() > kMaxPattern)
    throw_invalid(fmt::format("a pattern of {} bytes", pattern.size()), where, "at most 65,536 are read");
  const std::string text = translated(pattern, where);
  int error = 0;
  PCRE2_SIZE offset = 0;
  auto code = std::make_shared<Code>();
  code->where = where;
  // ^ and $ are a line's, as in Oniguruma.
  code->code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE,
                             &error, &offset, nullptr);
  if (!code->code) {
    char message[200] = {};
    pcre2_get_error_message(error, reinterpret_cast<PCRE2_UCHAR*>(message), sizeof message);
    throw_invalid(fmt::format("pattern '{}': {}", pattern.substr(0, 120), message), where, kDamaged);
  }
  pcre2_jit_compile(code->code, PCRE2_JIT_COMPLETE);  // without it matching is slower, nothing else
  code_ = std::move(code);
}

Pattern Pattern::literal(std::string_view text, const std::string& where) {
  std::string quoted;
  for (const char c : text) {
    if (std::string_view(R"(\^$.[]|()?*+{}-#)").find(c) != std::string_view::npos) quoted += '\\';
    quoted += c;
  }
  return Pattern(quoted, where);
}

void Pattern::each(std::string_view text, const std::function<void(std::size_t, std::size_t)>& match) const {
  thread_local const Scratch scratch;
  std::size_t last = ~std::size_t{0};
  for (std::size_t at = 0; at <= text.size();) {
    // The text has been checked once; checking the rest of it at every match would take quadratic time.
    const int found = pcre2_match(code_->code, reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), at, PCRE2_NO_UTF_CHECK,
                                  scratch.data, scratch.context);
    if (found == PCRE2_ERROR_NOMATCH) return;
    if (found < 0)
      throw_invalid(fmt::format("the tokenizer's pattern gave up on a text of {} bytes (error {})", text.size(), found),
                    code_->where);
    const PCRE2_SIZE* span = pcre2_get_ovector_pointer(scratch.data);
    const std::size_t begin = span[0], end = span[1];
    if (end < begin || begin < at) throw_invalid("the tokenizer's pattern matches backwards", code_->where, kDamaged);  // \K can
    if (begin == end && end == last) {
      at = end < text.size() ? end + utf8_sequence(text.substr(end)) : end + 1;
      continue;
    }
    match(begin, end);
    at = last = end;
  }
}

}  // namespace espalier
