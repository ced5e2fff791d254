#include "cli/report_estimates.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "cli/report_charts.h"
#include "cli/table.h"

namespace espalier {
namespace {

std::optional<double> ratio(const std::optional<double>& expected, double outcome) {
  if (!expected || !(outcome > 0)) return std::nullopt;
  return *expected / outcome;
}

bool near_memory(double ratio) { return std::abs(ratio - 1) <= kNearMemory; }
bool near_time(double ratio) { return ratio >= 1 / kNearTime && ratio <= kNearTime; }

Nearness nearness(const ReportData& data, std::optional<double> (*of)(const ReportRow&), bool (*near)(double)) {
  Nearness all;
  const auto distance = [](double ratio) { return std::abs(std::log(std::max(ratio, 1e-9))); };
  for (const ReportRow& row : data.rows) {
    const auto own = of(row);
    if (!own) continue;
    ++all.compared;
    all.near += near(*own) ? 1 : 0;
    if (!all.worst.empty() && distance(*own) <= distance(all.worst_ratio)) continue;
    all.worst = row.stage->name;
    all.worst_ratio = *own;
  }
  return all;
}

std::string bytes_text(double bytes) { return human_bytes(static_cast<std::uint64_t>(std::max(bytes, 0.0))); }
std::string ratio_text(double ratio) { return fmt::format("{}×", significant(ratio, 3)); }

std::string nearness_text(const Nearness& all, const std::string& what, const std::string& bound) {
  if (all.compared == 0) return what + ": nothing to compare";
  return fmt::format("{}: {} of {} {}, worst {} ({})", what, all.near, all.compared, bound, ratio_text(all.worst_ratio), all.worst);
}

std::string nearness_line(const ReportData& data) {
  return nearness_text(memory_nearness(data), "memory", fmt::format("stages within {:.0f} %", 100 * kNearMemory)) + "; " +
         nearness_text(time_nearness(data), "time", fmt::format("within a factor of {:.0f}", kNearTime));
}

std::vector<std::string> remarks(const ReportData& data) {
  std::vector<std::string> said;
  const bool sources = std::any_of(data.rows.begin(), data.rows.end(),
                                   [](const ReportRow& row) { return row.stage->use.starts_with("source/") && !row.entry; });
  if (sources) said.emplace_back("a source has no result yet, and sizes come from the sources: run the recipe, or plan --estimate");
  if (!data.speed_known)
    said.emplace_back(
        "how fast this machine is has not been measured, so most times are not estimated: `espalier plan RECIPE "
        "--estimate` measures it once, in a few seconds");
  return said;
}

/// Cells of a row: expected and measured memory, their ratio; the same of time. Empty where unknown.
std::vector<std::string> cells(const ReportRow& row) {
  const auto memory = memory_ratio(row), time = time_ratio(row);
  const double peak = row.entry ? static_cast<double>(row.entry->peak_rss) : 0;
  return {row.expected_memory ? bytes_text(*row.expected_memory) : "",
          peak > 0 ? bytes_text(peak) : "",
          memory ? ratio_text(*memory) : "",
          row.expected_seconds ? human_seconds(*row.expected_seconds) : "",
          row.entry ? human_seconds(row.seconds) : "",
          time ? ratio_text(*time) : ""};
}

Json number_or_null(const std::optional<double>& value) { return value ? Json(*value) : Json(nullptr); }

Json nearness_json(const Nearness& all) {
  Json json{{"compared", all.compared}, {"within", all.near}, {"worst", nullptr}};
  if (all.compared > 0) json["worst"] = {{"stage", all.worst}, {"ratio", all.worst_ratio}};
  return json;
}

}  // namespace

std::optional<double> memory_ratio(const ReportRow& row) {
  return ratio(row.expected_memory, row.entry ? static_cast<double>(row.entry->peak_rss) : 0);
}
std::optional<double> time_ratio(const ReportRow& row) { return ratio(row.expected_seconds, row.entry ? row.seconds : 0); }

Nearness memory_nearness(const ReportData& data) { return nearness(data, memory_ratio, near_memory); }
Nearness time_nearness(const ReportData& data) { return nearness(data, time_ratio, near_time); }

std::string estimates_table(const ReportData& data, bool colour) {
  using enum Table::Align;
  Table table({{"stage", left},
               {"memory expected", right},
               {"peak", right},
               {"ratio", right},
               {"time expected", right},
               {"took", right},
               {"ratio", right}});
  for (const ReportRow& row : data.rows) {
    std::vector<std::string> line{row.stage->name};
    for (std::string& cell : cells(row)) line.push_back(std::move(cell));
    if (const auto own = memory_ratio(row); own && !near_memory(*own)) line[3] = coloured(line[3], "yellow", colour);
    if (const auto own = time_ratio(row); own && !near_time(*own)) line[6] = coloured(line[6], "yellow", colour);
    table.row(std::move(line));
  }
  std::string out = table.text(colour) + "  " + nearness_line(data) + "\n";
  for (const std::string& remark : remarks(data)) out += "  " + remark + "\n";
  return out;
}

std::string estimates_section(const ReportData& data) {
  std::string out =
      "<h2>Estimates and what happened</h2><div class=wide><table class='grid estimates'><tr><th>Stage<th>Memory expected<th>Peak"
      "<th>Ratio<th>Time expected<th>Took<th>Ratio</tr>";
  for (const ReportRow& row : data.rows) {
    out += fmt::format("<tr><td><a href='#stage-{0}'>{0}</a></td>", escape_html(row.stage->name));
    const std::vector<std::string> line = cells(row);
    const auto memory = memory_ratio(row), time = time_ratio(row);
    for (std::size_t i = 0; i < line.size(); ++i) {
      const bool far = (i == 2 && memory && !near_memory(*memory)) || (i == 5 && time && !near_time(*time));
      out += fmt::format("<td class='n{}'>{}</td>", far ? " bad" : "", line[i].empty() ? "–" : escape_html(line[i]));
    }
    out += "</tr>";
  }
  out += "</table></div><p class=sub>" + escape_html(nearness_line(data)) +
         "<br>Ratio: estimate / outcome. Estimates are told from the sources' sizes and this machine's speed, before a stage has "
         "run; a "
         "cached stage's outcome is that of the run that made it. On a machine that others use, stages take longer than they need.";
  for (const std::string& remark : remarks(data)) out += "<br>" + escape_html(remark);
  return out + "</p>";
}

Json estimates_json(const ReportData& data) {
  Json memory = nearness_json(memory_nearness(data)), seconds = nearness_json(time_nearness(data));
  memory["tolerance"] = kNearMemory;
  seconds["factor"] = kNearTime;
  return {{"memory", std::move(memory)}, {"seconds", std::move(seconds)}, {"remarks", remarks(data)}};
}

Json estimate_json(const ReportRow& row) {
  return {{"memory_bytes", number_or_null(row.expected_memory)},
          {"seconds", number_or_null(row.expected_seconds)},
          {"memory_ratio", number_or_null(memory_ratio(row))},
          {"seconds_ratio", number_or_null(time_ratio(row))}};
}

}  // namespace espalier
