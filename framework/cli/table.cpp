#include "cli/table.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <stdexcept>

namespace espalier {
namespace {

std::size_t width(std::string_view text) {
  std::size_t count = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\x1b') {
      while (i < text.size() && text[i] != 'm') ++i;
    } else if ((static_cast<unsigned char>(text[i]) & 0xC0) != 0x80) {
      ++count;
    }
  }
  return count;
}

}  // namespace

void Table::row(std::vector<std::string> cells) {
  if (cells.size() > columns_.size()) throw std::logic_error("a table's row has more cells than columns");
  cells.resize(columns_.size());
  rows_.push_back(std::move(cells));
}

std::string Table::text(bool colour) const {
  std::vector<std::size_t> widths;
  for (std::size_t c = 0; c < columns_.size(); ++c) {
    std::size_t widest = width(columns_[c].first);
    for (const auto& cells : rows_) widest = std::max(widest, width(cells[c]));
    widths.push_back(widest);
  }
  std::string out;
  const auto add = [&](const std::vector<std::string>& cells, std::string_view style) {
    std::string line;
    std::size_t owed = 0;  // blanks are written only before more text
    for (std::size_t c = 0; c < cells.size(); ++c) {
      const std::size_t fill = widths[c] - width(cells[c]);
      const bool right = columns_[c].second == Align::right;
      if (c) owed += 2;
      if (cells[c].empty()) {
        owed += fill;
        continue;
      }
      line.append(owed + (right ? fill : 0), ' ');
      line += coloured(cells[c], style, colour && !style.empty());
      owed = right ? 0 : fill;
    }
    out += line + '\n';
  };
  std::vector<std::string> header;
  for (const auto& column : columns_) header.push_back(column.first);
  add(header, "bold");
  for (const auto& cells : rows_) add(cells, {});
  return out;
}

std::string human_bytes(std::uint64_t bytes) {
  static constexpr const char* units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  double value = static_cast<double>(bytes);
  std::size_t unit = 0;
  while (value >= 1023.5 && unit + 1 < std::size(units)) {
    value /= 1024;
    ++unit;
  }
  if (unit == 0) return fmt::format("{} B", bytes);
  return fmt::format("{:.{}f} {}", value, value < 9.995 ? 2 : value < 99.95 ? 1 : 0, units[unit]);
}

std::string human_seconds(double seconds) {
  if (!std::isfinite(seconds) || seconds < 0) return "?";
  if (seconds < 0.9995) return fmt::format("{:.0f} ms", seconds * 1000);
  if (seconds < 99.95) return fmt::format("{:.1f} s", seconds);
  if (seconds > 1e12) return "?";
  const auto whole = static_cast<std::uint64_t>(std::llround(seconds));
  if (whole < 3600) return fmt::format("{} min {:02} s", whole / 60, whole % 60);
  return fmt::format("{} h {:02} min", whole / 3600, whole % 3600 / 60);
}

std::string significant(double value, int digits) {
  if (!std::isfinite(value) || value == 0) return fmt::format("{}", value);
  constexpr int most = 12;
  const int decimals = std::clamp(digits - 1 - static_cast<int>(std::floor(std::log10(std::abs(value)))), 0, most);
  return fmt::format("{:.{}f}", value, decimals);
}

std::string coloured(std::string_view text, std::string_view colour, bool use) {
  if (!use) return std::string(text);
  static constexpr std::pair<std::string_view, int> codes[] = {{"bold", 1},    {"dim", 2},   {"red", 31}, {"green", 32},
                                                               {"yellow", 33}, {"blue", 34}, {"cyan", 36}};
  for (const auto& [name, code] : codes)
    if (name == colour) return fmt::format("\x1b[{}m{}\x1b[0m", code, text);
  throw std::logic_error(fmt::format("no colour {}", colour));
}

std::string printable(std::string_view text) {
  std::string result;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte == '\n' || byte == '\t')
      result += ' ';
    else if (byte < 0x20 || byte == 0x7f)
      result += '?';
    else
      result += c;
  }
  return result;
}

}  // namespace espalier
