#include <fmt/format.h>

#include <algorithm>

#include "recipe/plan.h"

namespace espalier {
namespace {

constexpr int widest_excerpt = 120;  // code points of the source line that are shown

bool continues(char c) { return (static_cast<unsigned char>(c) & 0xC0) == 0x80; }

/// Foreign text cannot drive the terminal.
std::string tame(std::string_view text) {
  std::string result;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    result += byte == '\t' || byte == '\n' ? ' ' : byte < 0x20 || byte == 0x7f ? '?' : c;
  }
  return result;
}

std::string_view line_of(std::string_view source, int line) {
  std::size_t begin = 0;
  for (int i = 1; i < line; ++i) {
    begin = source.find('\n', begin);
    if (begin == std::string_view::npos) return {};
    ++begin;
  }
  auto text = source.substr(begin, source.find('\n', begin) - begin);
  if (text.ends_with('\r')) text.remove_suffix(1);
  return text;
}

/// The part of a line around a column, and the column inside the part.
std::pair<std::string, int> excerpt(std::string_view line, int column) {
  const int first = std::max(1, column - widest_excerpt / 2);
  std::string text;
  int at = 0;
  for (const char c : line) {
    if (!continues(c)) ++at;
    if (at >= first && at < first + widest_excerpt) text += c;
    if (at >= first + widest_excerpt) break;
  }
  return {tame(text), column - first};
}

}  // namespace

std::string render(const Diagnostic& d, const std::string& source, bool colour) {
  const auto paint = [&](std::string_view text, int code) {
    return colour ? fmt::format("\x1b[{}m{}\x1b[0m", code, text) : std::string(text);
  };
  const bool warning = d.severity == "warning";
  std::string place = tame(d.file);
  if (d.line > 0) place += fmt::format(":{}:{}", d.line, std::max(1, d.column));
  std::string text = fmt::format("{}: {}: {}\n", paint(place, 1),
                                 paint(fmt::format("{}[{}]", d.severity, d.code), warning ? 33 : 31), tame(d.message));
  if (d.line > 0 && !source.empty()) {
    const auto [line, caret] = excerpt(line_of(source, d.line), std::max(1, d.column));
    text += fmt::format("{:>5} | {}\n", d.line, line);
    text += fmt::format("      | {}{}\n", std::string(static_cast<std::size_t>(caret), ' '), paint("^", 32));
  }
  if (!d.hint.empty()) text += fmt::format("      = {}\n", tame(d.hint));
  return text;
}

Json to_json(const Diagnostic& d) {
  return {{"code", d.code}, {"severity", d.severity}, {"message", d.message}, {"file", d.file},
          {"line", d.line}, {"column", d.column},     {"hint", d.hint}};
}

}  // namespace espalier
