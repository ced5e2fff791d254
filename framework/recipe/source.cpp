// The only file that includes toml++. Its parser bounds the nesting of values but not of dotted keys; find_deep_key() does that
// before.
#define TOML_MAX_NESTED_VALUES 32
namespace espalier {
[[noreturn]] void refuse_by_assertion();
}
// Some bad keys run into the parser's own assertions (seen in 3.3): a finding, not the end of the program.
#define TOML_ASSERT(expr) ((expr) ? void() : ::espalier::refuse_by_assertion())
#include "recipe/source.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <toml++/toml.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "sdk/error.h"

namespace espalier {
namespace {

struct AssertionFailed {};

}  // namespace

void refuse_by_assertion() { throw AssertionFailed(); }

namespace {

constexpr std::size_t largest_recipe = 4u << 20;
constexpr int most_key_parts = 16;

/// Offset of the first byte that is not UTF-8 (RFC 3629: no overlong forms, no surrogates), or npos.
std::size_t find_bad_utf8(std::string_view text) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  for (std::size_t i = 0; i < text.size();) {
    const unsigned first = byte(i);
    if (first < 0x80) {
      ++i;
      continue;
    }
    const int more = first >= 0xC2 && first <= 0xDF ? 1 : (first & 0xF0) == 0xE0 ? 2 : first >= 0xF0 && first <= 0xF4 ? 3 : 0;
    if (more == 0 || text.size() - i <= static_cast<std::size_t>(more)) return i;
    for (int k = 1; k <= more; ++k)
      if ((byte(i + static_cast<std::size_t>(k)) & 0xC0) != 0x80) return i;
    const unsigned second = byte(i + 1);
    if ((first == 0xE0 && second < 0xA0) || (first == 0xED && second > 0x9F) || (first == 0xF0 && second < 0x90) ||
        (first == 0xF4 && second > 0x8F))
      return i;
    i += static_cast<std::size_t>(more) + 1;
  }
  return std::string_view::npos;
}

Position position_of(std::string_view text, std::size_t offset) {
  Position at{1, 1};
  for (std::size_t i = 0; i < offset; ++i) {
    if (text[i] == '\n')
      at = {at.line + 1, 1};
    else if ((static_cast<unsigned char>(text[i]) & 0xC0) != 0x80)
      ++at.column;
  }
  return at;
}

/// Skips a string that begins at `i`; gives the offset after it (or the end).
std::size_t skip_string(std::string_view text, std::size_t i) {
  const char quote = text[i];
  const std::string three(3, quote);
  const bool long_form = text.substr(i, 3) == three;
  i += long_form ? 3 : 1;
  while (i < text.size()) {
    if (quote == '"' && text[i] == '\\') {
      i += 2;
    } else if (long_form ? text.substr(i, 3) == three : text[i] == quote) {
      return i + (long_form ? 3 : 1);
    } else if (!long_form && text[i] == '\n') {
      return i;
    } else {
      ++i;
    }
  }
  return text.size();
}

/// Offset of a dotted key with too many parts, or npos.
std::size_t find_deep_key(std::string_view text) {
  int dots = 0;
  for (std::size_t i = 0; i < text.size();) {
    const char c = text[i];
    if (c == '"' || c == '\'') {
      i = skip_string(text, i);
      continue;
    }
    if (c == '#') {
      i = std::min(text.find('\n', i), text.size());
      continue;
    }
    if (c == '.') {
      if (++dots >= most_key_parts) return i;
    } else if (std::strchr("\n=,{}[]", c) && c != '\0') {
      dots = 0;
    }
    ++i;
  }
  return std::string_view::npos;
}

Position at(const toml::source_position& p) { return {static_cast<int>(p.line), static_cast<int>(p.column)}; }

Node convert(const toml::node& from) {
  Node node;
  node.at = at(from.source().begin);
  if (const auto* table = from.as_table()) {
    node.kind = Node::Kind::table;
    for (const auto& [key, value] : *table)
      node.members.push_back({std::string(key.str()), at(key.source().begin), convert(value)});
    std::stable_sort(node.members.begin(), node.members.end(), [](const Member& a, const Member& b) {
      return std::pair(a.key_at.line, a.key_at.column) < std::pair(b.key_at.line, b.key_at.column);
    });
  } else if (const auto* list = from.as_array()) {
    node.kind = Node::Kind::list;
    node.items.reserve(list->size());
    for (const auto& item : *list) node.items.push_back(convert(item));
  } else if (const auto* text = from.as_string()) {
    node.scalar = text->get();
  } else if (const auto* integer = from.as_integer()) {
    node.scalar = integer->get();
  } else if (const auto* number = from.as_floating_point()) {
    node.scalar = number->get();
  } else if (const auto* flag = from.as_boolean()) {
    node.scalar = flag->get();
  } else {
    node.kind = Node::Kind::foreign;
    node.scalar = "a date or time";
  }
  return node;
}

/// toml++ stops behind a doubled key; the finding belongs to the line's first character.
Position line_start(const std::string& text, Position found) {
  std::size_t begin = 0;
  for (int line = 1; line < found.line && begin != std::string::npos; ++line) {
    begin = text.find('\n', begin);
    if (begin != std::string::npos) ++begin;
  }
  if (begin == std::string::npos) return found;
  const auto first = text.find_first_not_of(" \t", begin);
  return first == std::string::npos ? found : Position{found.line, static_cast<int>(first - begin) + 1};
}

/// toml++ says "Error while parsing string: …"; the commonest slip, a missing quote, it calls a control character.
std::string syntax_message(std::string what) {
  constexpr std::string_view prefix = "Error while ";
  if (what.starts_with(prefix)) what.erase(0, prefix.size());
  if (what.starts_with("parsing string: unescaped control characters"))
    what = "the string does not end on its line: a quote is missing (or a control character is not escaped)";
  return what;
}

/// An assertion has no place: the first line with which the text fails it, found by halving.
Position assertion_line(const std::string& text) {
  const auto fails = [&](std::size_t length) {
    try {
      static_cast<void>(toml::parse(std::string_view(text).substr(0, length), std::string()));
    } catch (const AssertionFailed&) {
      return true;
    } catch (const toml::parse_error&) {}
    return false;
  };
  std::size_t sound = 0, failing = text.size();  // lengths
  for (;;) {
    auto middle = text.rfind('\n', sound + (failing - sound) / 2);
    if (middle == std::string::npos || middle + 1 <= sound) middle = text.find('\n', sound);
    if (middle == std::string::npos || middle + 1 >= failing) return position_of(text, sound);
    (fails(middle + 1) ? failing : sound) = middle + 1;
  }
}

}  // namespace

std::optional<std::string> read_recipe_text(const std::filesystem::path& file, Findings& findings) {
  const auto fail = [&](const std::string& what) {
    throw_invalid("the recipe cannot be read: " + what, file.string(),
                  file.is_relative() ? "the path is relative to the working directory" : "");
  };
  const int descriptor = ::open(file.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) fail(std::strerror(errno));
  std::string text;
  std::vector<char> piece(64 << 10);
  int problem = 0;
  for (;;) {
    const ssize_t done = ::read(descriptor, piece.data(), piece.size());
    if (done < 0 && errno == EINTR) continue;
    if (done < 0) problem = errno;
    if (done <= 0) break;
    text.append(piece.data(), static_cast<std::size_t>(done));
    if (text.size() > largest_recipe) break;
  }
  ::close(descriptor);
  if (problem) fail(std::strerror(problem));
  if (text.size() > largest_recipe) {
    findings.error("too-large", {}, "the recipe is larger than 4 MiB",
                   "a recipe is text of a few kilobytes: is this the right file?");
    return std::nullopt;
  }
  if (const auto bad = find_bad_utf8(text); bad != std::string::npos) {
    findings.error("encoding", position_of(text, bad),
                   fmt::format("the recipe is not UTF-8: byte 0x{:02x} at offset {}", static_cast<unsigned char>(text[bad]), bad),
                   "save it as UTF-8");
    return std::nullopt;
  }
  return text;
}

std::optional<Node> parse_toml(const std::string& text, Findings& findings) {
  if (const auto deep = find_deep_key(text); deep != std::string::npos) {
    findings.error("too-deep", position_of(text, deep), fmt::format("a key has more than {} parts", most_key_parts));
    return std::nullopt;
  }
  try {
    return convert(toml::parse(std::string_view(text), std::string()));
  } catch (const AssertionFailed&) {
    findings.error("syntax", assertion_line(text), "this line is not TOML", "a line is KEY = VALUE or [TABLE]");
    return std::nullopt;
  } catch (const toml::parse_error& error) {
    const std::string what(error.description());
    const Position place = at(error.source().begin);
    if (what.find("cannot redefine") != std::string::npos)
      findings.error("duplicate", line_start(text, place), what.substr(what.find("cannot redefine")));
    else if (what.find("maximum nested value depth") != std::string::npos)
      findings.error("too-deep", place, "values are nested too deeply");
    else
      findings.error("syntax", place, syntax_message(what));
    return std::nullopt;
  }
}

std::optional<Node> parse_toml_value(const std::string& text) {
  if (text.find('\n') != std::string::npos) return std::nullopt;
  Findings ignored("");
  auto table = parse_toml("value = " + text, ignored);
  if (!table || table->members.size() != 1 || table->members[0].key != "value") return std::nullopt;
  return std::move(table->members[0].value);
}

}  // namespace espalier
