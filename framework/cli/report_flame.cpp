#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "cli/report_charts.h"

namespace espalier {
namespace {

constexpr double kWidth = 1060, kRow = 26, kTop = 24;

/// A box of the flame: its name, its time, what it is made of, in the order of first appearance by time.
struct Box {
  std::string name;
  double time = 0;
  std::vector<Box> inner;
  Box& of(const std::string& wanted) {
    const auto found = std::find_if(inner.begin(), inner.end(), [&](const Box& box) { return box.name == wanted; });
    return found != inner.end() ? *found : inner.emplace_back(Box{wanted, 0, {}});
  }
};

/// "model.layers.10" after "model.layers.9": numbers inside names count as numbers.
bool before(const Box& a, const Box& b) {
  std::size_t i = 0, j = 0;
  const auto digit = [](char c) { return c >= '0' && c <= '9'; };
  while (i < a.name.size() && j < b.name.size()) {
    if (digit(a.name[i]) && digit(b.name[j])) {
      std::size_t i_end = i, j_end = j;
      while (i_end < a.name.size() && digit(a.name[i_end])) ++i_end;
      while (j_end < b.name.size() && digit(b.name[j_end])) ++j_end;
      const std::string left = a.name.substr(i, i_end - i), right = b.name.substr(j, j_end - j);
      if (left != right) return left.size() != right.size() ? left.size() < right.size() : left < right;
      i = i_end, j = j_end;
    } else if (a.name[i] != b.name[j]) {
      return a.name[i] < b.name[j];
    } else {
      ++i, ++j;
    }
  }
  return a.name.size() < b.name.size();
}

void draw(Box& box, const std::string& path, int depth, double x, double width, double all, std::string& out) {
  if (width < 0.3) return;  // nobody sees it; the tables have it
  const double y = kTop + kRow * depth;
  const std::string full = path.empty() ? box.name : path + " › " + box.name;
  out +=
      fmt::format("<g><title>{}: {:.3g} ms, {:.2f} %</title><rect class=f{} x='{:.2f}' y='{:.0f}' width='{:.2f}' height='{:.0f}'/>",
                  escape_html(full), box.time, 100 * box.time / all, depth, x, y, width, kRow - 1);
  const auto room = static_cast<std::size_t>(std::max(0.0, (width - 6) / 6.2));
  if (room >= 3) {
    std::string name = box.name;
    if (name.size() > room) name = "…" + name.substr(name.size() - (room - 1));  // the end of a scope tells more
    out += fmt::format("<text x='{:.1f}' y='{:.0f}'>{}</text>", x + 3, y + 16, escape_html(name));
  }
  out += "</g>";
  std::stable_sort(box.inner.begin(), box.inner.end(), before);
  for (Box& inner : box.inner) {
    const double share = width * inner.time / box.time;
    draw(inner, depth == 0 ? "" : full, depth + 1, x, share, all, out);
    x += share;
  }
}

}  // namespace

std::string flame_chart(const std::string& title, const Json& table) {
  const auto columns = table.find("columns"), rows = table.find("rows");
  if (columns == table.end() || rows == table.end() || !columns->is_array() || !rows->is_array()) return {};
  const auto at = std::find(columns->begin(), columns->end(), Json("ms"));
  if (at == columns->end()) return {};
  const auto time_column = static_cast<std::size_t>(at - columns->begin());
  Box root{"all", 0, {}};
  for (const Json& row : *rows) {
    if (!row.is_array() || row.size() <= time_column || row.size() < 3 || !row[time_column].is_number()) continue;
    if (!row[0].is_string() || !row[1].is_string() || !row[2].is_string()) continue;
    const double time = row[time_column].get<double>();
    if (!(time > 0)) continue;
    Box& layer = root.of(row[0].get<std::string>());
    // A layer without parts hangs its operators below itself.
    Box& part = row[1] == "" ? layer : layer.of(row[1].get<std::string>());
    root.time += time;
    layer.time += time;
    if (&part != &layer) part.time += time;
    part.of(row[2].get<std::string>()).time += time;
  }
  if (root.time <= 0) return {};
  std::string boxes;
  const double all = root.time;
  draw(root, "", 0, 0, kWidth, all, boxes);
  return fmt::format(
      "<div class=card><svg class=flame viewBox='0 0 {0:.0f} {1:.0f}' width='{0:.0f}' height='{1:.0f}' role=img "
      "aria-label='{2}'><text x=0 y=14>{2}: {3:.4g} ms, by layer, part and operator</text>{4}</svg></div>",
      kWidth, kTop + 4 * kRow, escape_html(title), all, boxes);
}

}  // namespace espalier
