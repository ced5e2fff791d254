#include "recipe/units.h"

#include <charconv>
#include <cmath>

namespace espalier {
namespace {

void skip_blanks(std::string_view& text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
}

/// A decimal number at the start of the text, which loses it.
std::optional<double> take_number(std::string_view& text, bool sign) {
  if (text.empty() || (!sign && (text.front() < '0' || text.front() > '9'))) return std::nullopt;
  double value = 0;
  const auto [end, problem] =
      std::from_chars(text.data(), text.data() + text.size(), value, sign ? std::chars_format::general : std::chars_format::fixed);
  if (problem != std::errc() || !std::isfinite(value)) return std::nullopt;
  text.remove_prefix(static_cast<std::size_t>(end - text.data()));
  return value;
}

std::string_view take_letters(std::string_view& text) {
  std::size_t n = 0;
  while (n < text.size() && ((text[n] >= 'a' && text[n] <= 'z') || (text[n] >= 'A' && text[n] <= 'Z'))) ++n;
  const auto word = text.substr(0, n);
  text.remove_prefix(n);
  return word;
}

}  // namespace

std::optional<double> parse_duration(std::string_view text) {
  static constexpr std::pair<std::string_view, double> units[] = {{"ms", 0.001}, {"s", 1},    {"m", 60},
                                                                  {"min", 60},   {"h", 3600}, {"d", 86400}};
  skip_blanks(text);
  double seconds = 0;
  bool any = false;
  while (!text.empty()) {
    const auto number = take_number(text, false);
    if (!number) return std::nullopt;
    skip_blanks(text);
    const auto word = take_letters(text);
    double scale = 0;
    for (const auto& [name, value] : units)
      if (name == word) scale = value;
    if (scale == 0) return std::nullopt;
    seconds += *number * scale;
    any = true;
    skip_blanks(text);
  }
  if (!any || !(seconds > 0) || seconds > 3.2e8) return std::nullopt;
  return seconds;
}

std::optional<std::uint64_t> parse_bytes(std::string_view text) {
  static constexpr std::pair<std::string_view, double> units[] = {
      {"", 1},     {"B", 1},    {"KiB", 1024.0}, {"MiB", 1048576.0}, {"GiB", 1073741824.0}, {"TiB", 1099511627776.0},
      {"kB", 1e3}, {"KB", 1e3}, {"MB", 1e6},     {"GB", 1e9},        {"TB", 1e12}};
  skip_blanks(text);
  const auto number = take_number(text, false);
  if (!number) return std::nullopt;
  skip_blanks(text);
  const auto word = take_letters(text);
  if (!text.empty()) return std::nullopt;
  for (const auto& [name, scale] : units) {
    if (name != word) continue;
    const double bytes = *number * scale;
    if (bytes < 1 || bytes > 1152921504606846976.0) return std::nullopt;
    return static_cast<std::uint64_t>(bytes);
  }
  return std::nullopt;
}

std::optional<Requirement> parse_requirement(std::string_view text) {
  Requirement result;
  result.text = std::string(text);
  skip_blanks(text);
  for (const std::string_view op : {">=", "<=", "==", ">", "<"}) {
    if (!text.starts_with(op)) continue;
    result.op = std::string(op);
    text.remove_prefix(op.size());
    skip_blanks(text);
    const auto bound = take_number(text, true);
    if (!bound || !text.empty()) return std::nullopt;
    result.bound = *bound;
    return result;
  }
  return std::nullopt;
}

}  // namespace espalier
