#include "cli/groups_svg.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "cli/report_charts.h"
#include "cli/table.h"

namespace espalier {
namespace {

constexpr double margin = 16, label = 250, row_height = 92, gap = 14, largest = 58, smallest = 10;
constexpr std::array<const char*, 6> colours = {"#2a78d6", "#1b8a5a", "#b3541e", "#7a4fbf", "#b01e5b", "#5c6b00"};

std::string escaped(const std::string& text) { return escape_html(printable(text)); }

/// Lengths from 1 to thousands on a scale that fits a line.
double side(std::int64_t length) {
  return std::clamp(smallest + 4.4 * std::log2(static_cast<double>(std::max<std::int64_t>(length, 1))), smallest, largest);
}

/// A tensor as a box: its last axis to the right, the one before downwards; further axes are in its tooltip alone.
std::string box(const nlohmann::json& member, double x, double y, const char* colour, double& width) {
  const auto shape = member.at("shape").get<std::vector<std::int64_t>>();
  const auto axis = member.at("axis").get<std::size_t>();
  const std::size_t rank = shape.size();
  // Of a convolution's weights the first two axes are channels; elsewhere the last two are drawn.
  const std::size_t across = rank > 2 ? 1 : rank - 1, down = rank > 1 ? (rank > 2 ? 0 : rank - 2) : rank;
  width = side(shape.empty() ? 1 : shape[across]);
  const double height = down < rank ? side(shape[down]) : smallest;
  std::string lengths;
  for (const auto length : shape) lengths += fmt::format("{}{}", lengths.empty() ? "" : " × ", length);
  std::string out =
      fmt::format("<g><title>{}\n{}, axis {}, {} indices a unit{}</title>", escaped(member.at("tensor").get<std::string>()),
                  lengths, axis, member.at("width").get<std::int64_t>(), member.at("makes").get<bool>() ? ", makes it" : "");
  out += fmt::format("<rect x='{:.1f}' y='{:.1f}' width='{:.1f}' height='{:.1f}' class='t'/>", x, y, width, height);
  const bool vertical = axis == across;  // stripes across the axis
  if (vertical || axis == down) {
    const double extent = vertical ? width : height;
    const int stripes = std::max(2, static_cast<int>(extent / 6));
    for (int i = 0; i < stripes; ++i) {
      const double at = (i + 0.25) * extent / stripes, thick = extent / stripes / 2;
      out += vertical ? fmt::format("<rect x='{:.1f}' y='{:.1f}' width='{:.1f}' height='{:.1f}' fill='{}'/>", x + at, y, thick,
                                    height, colour)
                      : fmt::format("<rect x='{:.1f}' y='{:.1f}' width='{:.1f}' height='{:.1f}' fill='{}'/>", x, y + at, width,
                                    thick, colour);
    }
  }
  return out + "</g>";
}

/// The end of a long name says most.
std::string shortened(const std::string& text, std::size_t most) {
  return text.size() <= most ? text : "…" + text.substr(text.size() - most);
}

}  // namespace

std::string groups_svg(const nlohmann::json& groups, const std::string& title) {
  std::string body;
  double y = margin + 30, right = 700;
  std::size_t number = 0;
  for (const auto& group : groups) {
    const bool pinned = group.at("pinned").get<bool>();
    const char* colour = pinned ? "#9a9a9a" : colours[number++ % colours.size()];
    body +=
        fmt::format("<text x='{}' y='{:.1f}'>{}</text>", margin, y + 14, escaped(shortened(group.at("id").get<std::string>(), 36)));
    body += fmt::format("<text x='{}' y='{:.1f}' class='s'>{} {}, {} parameters each</text>", margin, y + 31,
                        group.at("units").get<std::int64_t>(), escaped(group.at("kind").get<std::string>()),
                        group.at("parameters_per_unit").get<std::int64_t>());
    if (const auto reason = group.at("reason").get<std::string>(); !reason.empty())
      body += fmt::format("<text x='{}' y='{:.1f}' class='s'>{}: {}</text>", margin, y + 47, pinned ? "pinned" : "inexact",
                          escaped(reason));
    double x = margin + label;
    for (const auto& member : group.at("members")) {
      double width = 0;
      body += box(member, x, y, colour, width);
      x += width + gap;
    }
    right = std::max(right, x + margin);
    y += row_height;
  }
  return fmt::format(
             "<svg xmlns='http://www.w3.org/2000/svg' width='{0:.0f}' height='{1:.0f}' viewBox='0 0 {0:.0f} {1:.0f}'>"
             "<style>svg{{background:#fff}}text{{font:13px sans-serif;fill:#1d1d1f}}.s{{font-size:11px;fill:#6b6b70}}"
             ".t{{fill:#f3f3f5;stroke:#8a8a8f}}</style><text x='{2}' y='{3}' style='font-weight:bold'>{4}</text>",
             right, y + margin, margin, margin + 8, escaped(title)) +
         body + "</svg>\n";
}

}  // namespace espalier
