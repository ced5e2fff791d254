#include "cli/report_charts.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <vector>

namespace espalier {

std::string escape_html(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      case '\'':
        out += "&#39;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

std::string dag_chart(const ReportData& data) {
  constexpr double width = 150, height = 40, gap_x = 46, gap_y = 14;
  std::map<std::string, std::size_t> column;
  std::vector<std::vector<const ReportRow*>> columns;
  for (const ReportRow& row : data.rows) {  // topological order: producers come first
    std::size_t depth = 0;
    for (const auto& [port, producers] : row.stage->inputs)
      for (const StageInput& input : producers)
        if (const auto found = column.find(input.stage); found != column.end()) depth = std::max(depth, found->second + 1);
    column[row.stage->name] = depth;
    if (columns.size() <= depth) columns.resize(depth + 1);
    columns[depth].push_back(&row);
  }
  std::size_t tallest = 1;
  for (const auto& list : columns) tallest = std::max(tallest, list.size());
  std::map<std::string, std::pair<double, double>> place;
  for (std::size_t c = 0; c < columns.size(); ++c) {
    // Rows near the mean height of their producers keep edges short.
    auto& list = columns[c];
    const auto wish = [&](const ReportRow* row) {
      double sum = 0;
      int count = 0;
      for (const auto& [port, producers] : row->stage->inputs)
        for (const StageInput& input : producers)
          if (const auto found = place.find(input.stage); found != place.end()) sum += found->second.second, ++count;
      return count ? sum / count : 0;
    };
    std::stable_sort(list.begin(), list.end(), [&](const ReportRow* a, const ReportRow* b) { return wish(a) < wish(b); });
    const double offset = (static_cast<double>(tallest - list.size()) * (height + gap_y)) / 2;
    for (std::size_t r = 0; r < list.size(); ++r)
      place[list[r]->stage->name] = {4 + static_cast<double>(c) * (width + gap_x),
                                     4 + offset + static_cast<double>(r) * (height + gap_y)};
  }
  std::string edges, nodes;
  for (const ReportRow& row : data.rows) {
    const auto [x, y] = place[row.stage->name];
    for (const auto& [port, producers] : row.stage->inputs)
      for (const StageInput& input : producers) {
        const auto from = place.find(input.stage);
        if (from == place.end()) continue;
        const double x1 = from->second.first + width, y1 = from->second.second + height / 2, y2 = y + height / 2;
        edges += fmt::format(
            "<path class=edge d='M{:.0f} {:.0f}C{:.0f} {:.0f} {:.0f} {:.0f} {:.0f} {:.0f}'><title>{}.{} → {}.{}</title></path>", x1,
            y1, x1 + gap_x * .6, y1, x - gap_x * .6, y2, x, y2, escape_html(input.stage), escape_html(input.port),
            escape_html(row.stage->name), escape_html(port));
      }
    nodes += fmt::format(
        "<a href='#stage-{0}'><rect class='node {1}' x='{2:.0f}' y='{3:.0f}' width='{4:.0f}' height='{5:.0f}' rx='8'/><text "
        "x='{6:.0f}' y='{7:.0f}'>{0}"
        "</text><text class=soft x='{6:.0f}' y='{8:.0f}'>{9}</text></a>",
        escape_html(row.stage->name), escape_html(row.status), x, y, width, height, x + 10, y + 17, y + 32,
        escape_html(row.stage->use));
  }
  const double w = 8 + static_cast<double>(columns.size()) * (width + gap_x) - gap_x,
               h = 8 + static_cast<double>(tallest) * (height + gap_y) - gap_y;
  return fmt::format(
      "<svg viewBox='0 0 {0:.0f} {1:.0f}' width='{0:.0f}' height='{1:.0f}' role=img aria-label='recipe graph'>{2}{3}</svg>", w, h,
      edges, nodes);
}

std::string curve_chart(const std::string& title, const Json& points) {
  std::vector<std::pair<double, double>> data;
  if (points.is_array())
    for (const Json& point : points)
      if (point.is_array() && point.size() == 2 && point[0].is_number() && point[1].is_number() &&
          std::isfinite(point[1].get<double>()))
        data.emplace_back(point[0].get<double>(), point[1].get<double>());
  if (data.size() < 2) return {};
  constexpr double w = 460, h = 220, left = 46, right = 12, top = 28, bottom = 26;
  double low = data[0].second, high = low;
  for (const auto& [x, y] : data) low = std::min(low, y), high = std::max(high, y);
  if (high - low < 1e-9) high = low + 1;
  const double x0 = data.front().first, x1 = std::max(data.back().first, x0 + 1e-9);
  const auto px = [&](double x) { return left + (x - x0) / (x1 - x0) * (w - left - right); };
  const auto py = [&](double y) { return h - bottom - (y - low) / (high - low) * (h - top - bottom); };
  std::string raw, mean;
  double average = data[0].second;
  const double keep = data.size() > 20 ? 0.85 : 0.6;
  for (std::size_t i = 0; i < data.size(); ++i) {
    average = i == 0 ? data[i].second : keep * average + (1 - keep) * data[i].second;
    raw += fmt::format("{}{:.1f} {:.1f}", i ? "L" : "M", px(data[i].first), py(data[i].second));
    mean += fmt::format("{}{:.1f} {:.1f}", i ? "L" : "M", px(data[i].first), py(average));
  }
  std::string out = fmt::format("<div class=card><svg viewBox='0 0 {} {}' role=img aria-label='{}'><text x='0' y='14'>{}</text>", w,
                                h, escape_html(title), escape_html(title));
  for (int tick = 0; tick <= 4; ++tick) {
    const double y = low + (high - low) * tick / 4;
    out += fmt::format(
        "<line class=axis x1='{}' x2='{}' y1='{:.1f}' y2='{:.1f}'/><text class=soft x='{}' y='{:.1f}' "
        "text-anchor=end>{:.3g}</text>",
        left, w - right, py(y), py(y), left - 6, py(y) + 4, y);
  }
  out += fmt::format("<text class=soft x='{}' y='{}'>{:.0f}</text><text class=soft x='{}' y='{}' text-anchor=end>{:.0f}</text>",
                     left, h - 6, x0, w - right, h - 6, x1);
  return out + fmt::format(
                   "<path class=raw d='{}'/><path class=curve d='{}'><title>{} points, first {:.4g}, last "
                   "{:.4g}</title></path></svg></div>",
                   raw, mean, data.size(), data.front().second, data.back().second);
}

std::string plot_chart(const std::string& title, const Json& plot) {
  struct Line {
    std::string name;
    std::vector<double> values;
  };
  std::vector<Line> lines;
  double high = 0;
  std::size_t longest = 0;
  if (plot.is_object() && plot.contains("series") && plot["series"].is_array())
    for (const Json& series : plot["series"]) {
      if (!series.is_object() || !series.contains("values") || !series["values"].is_array()) continue;
      Line line{series.value("name", std::string()), {}};
      for (const Json& value : series["values"])
        if (value.is_number() && std::isfinite(value.get<double>())) line.values.push_back(value.get<double>());
      if (line.values.size() < 2) continue;
      high = std::max(high, *std::max_element(line.values.begin(), line.values.end()));
      longest = std::max(longest, line.values.size());
      lines.push_back(std::move(line));
    }
  if (lines.empty()) return {};
  if (high <= 0) high = 1;
  constexpr double w = 460, h = 220, left = 56, right = 12, top = 28, bottom = 26;
  const auto py = [&](double y) { return h - bottom - y / high * (h - top - bottom); };
  std::string out = fmt::format("<div class=card><svg viewBox='0 0 {} {}' role=img aria-label='{}'><text x='0' y='14'>{}</text>", w,
                                h, escape_html(title), escape_html(title));
  for (int tick = 0; tick <= 4; ++tick)
    out += fmt::format(
        "<line class=axis x1='{}' x2='{}' y1='{:.1f}' y2='{:.1f}'/><text class=soft x='{}' y='{:.1f}' "
        "text-anchor=end>{:.3g}</text>",
        left, w - right, py(high * tick / 4), py(high * tick / 4), left - 6, py(high * tick / 4) + 4, high * tick / 4);
  for (std::size_t k = 0; k < lines.size(); ++k) {
    std::string path;
    for (std::size_t i = 0; i < lines[k].values.size(); ++i)
      path += fmt::format("{}{:.1f} {:.1f}", i ? "L" : "M",
                          left + static_cast<double>(i) / static_cast<double>(longest - 1) * (w - left - right),
                          py(lines[k].values[i]));
    const char* colour = k % 3 == 0 ? "var(--soft)" : k % 3 == 1 ? "var(--leaf)" : "var(--blue)";
    out += fmt::format(
        "<path fill=none stroke='{}' d='{}'/><text fill='{}' style='fill:{}' x='{}' y='{}' text-anchor=end>{}</text>", colour, path,
        colour, colour, w - right - 70.0 * static_cast<double>(lines.size() - 1 - k), 14, escape_html(lines[k].name));
  }
  const auto label = [&](const char* key) {
    return plot.contains(key) && plot[key].is_string() ? plot[key].get<std::string>() : "";
  };
  return out + fmt::format("<text class=soft x='{}' y='{}'>{} over {}, {} points</text></svg></div>", left, h - 6,
                           escape_html(label("y")), escape_html(label("x")), longest);
}

std::string width_chart(const std::string& title, const Json& table) {
  struct Bar {
    std::string name;
    double before, after;
  };
  std::vector<Bar> bars;
  if (table.is_object() && table.contains("rows") && table["rows"].is_array())
    for (const Json& row : table["rows"])
      if (row.is_array() && row.size() >= 3 && row[0].is_string() && row[1].is_number() && row[2].is_number())
        bars.push_back({row[0].get<std::string>(), row[1].get<double>(), row[2].get<double>()});
  if (bars.empty()) return {};
  constexpr double w = 460, h = 220, left = 46, right = 12, top = 28, bottom = 26;
  double high = 1;
  for (const Bar& bar : bars) high = std::max(high, bar.before);
  const double step = (w - left - right) / static_cast<double>(bars.size());
  std::string out = fmt::format("<div class=card><svg viewBox='0 0 {} {}' role=img aria-label='{}'><text x='0' y='14'>{}</text>", w,
                                h, escape_html(title), escape_html(title));
  for (int tick = 0; tick <= 4; ++tick) {
    const double y = h - bottom - tick / 4.0 * (h - top - bottom);
    out += fmt::format(
        "<line class=axis x1='{}' x2='{}' y1='{:.1f}' y2='{:.1f}'/><text class=soft x='{}' y='{:.1f}' "
        "text-anchor=end>{:.0f}</text>",
        left, w - right, y, y, left - 6, y + 4, high * tick / 4);
  }
  for (std::size_t i = 0; i < bars.size(); ++i) {
    const double x = left + step * static_cast<double>(i) + step * .1, width = std::max(1.0, step * .8);
    const double before = bars[i].before / high * (h - top - bottom), after = bars[i].after / high * (h - top - bottom);
    out += fmt::format(
        "<g><title>{}: {:.0f} → {:.0f}</title><rect class=before x='{:.1f}' y='{:.1f}' width='{:.1f}' height='{:.1f}'/><rect "
        "class=after x='{:.1f}' "
        "y='{:.1f}' width='{:.1f}' height='{:.1f}'/></g>",
        escape_html(bars[i].name), bars[i].before, bars[i].after, x, h - bottom - before, width, before, x, h - bottom - after,
        width, after);
  }
  return out +
         fmt::format(
             "<text class=soft x='{}' y='{}'>{} groups in the order of the graph; light: before, dark: after</text></svg></div>",
             left, h - 6, bars.size());
}

}  // namespace espalier
