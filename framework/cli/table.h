#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace espalier {

/// Rows of text in aligned columns. Width counts code points; ANSI colour sequences count nothing.
class Table {
 public:
  enum class Align { left, right };
  explicit Table(std::vector<std::pair<std::string, Align>> columns) : columns_(std::move(columns)) {}
  /// Missing cells are empty; more cells than columns is a defect.
  void row(std::vector<std::string> cells);
  /// Every line ends with a newline and has no trailing blanks; a header in bold where `colour`.
  std::string text(bool colour) const;

 private:
  std::vector<std::pair<std::string, Align>> columns_;
  std::vector<std::vector<std::string>> rows_;
};

/// "0 B", "12.3 MiB", "4.00 GiB": three significant digits, binary units.
std::string human_bytes(std::uint64_t bytes);
/// "3 ms", "12.4 s", "5 min 03 s", "2 h 14 min".
std::string human_seconds(double seconds);
/// A number with so many significant digits and no exponent: "12300", "1.23", "0.000412".
std::string significant(double value, int digits);
/// Text in a colour of the terminal ("red", "green", "yellow", "bold", "dim"), or as it is.
std::string coloured(std::string_view text, std::string_view colour, bool use);
/// Control characters of foreign text (names from files, messages of plugins) replaced, so that they cannot drive the terminal.
std::string printable(std::string_view text);

}  // namespace espalier
