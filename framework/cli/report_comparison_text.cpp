#include <fmt/format.h>

#include "cli/report_charts.h"
#include "cli/report_comparison.h"
#include "cli/table.h"

namespace espalier {
namespace {

std::string place(const ComparedFigure& figure) {
  return figure.data.empty() ? figure.figure : figure.figure + " on " + figure.data;
}

/// "better" and "worse" in colour; what is not significant stays grey.
const char* paint(const ComparedFigure& figure, const Change& change) {
  if (!change.significant || !*change.significant || !figure.lower_is_better) return "soft";
  return (change.value < (change.ratio ? 1 : 0)) == *figure.lower_is_better ? "good" : "bad";
}

}  // namespace

std::string comparison_table(const ReportData& data, const Comparison& comparison, bool colour) {
  using enum Table::Align;
  const ReportRoles& roles = *data.plan->report;
  std::vector<std::pair<std::string, Table::Align>> columns{{"figure", left}, {"candidate @" + roles.candidate, right}};
  if (!roles.control.empty()) columns.push_back({"control @" + roles.control, right});
  if (!roles.original.empty()) columns.push_back({"original @" + roles.original, right});
  if (!roles.control.empty()) columns.push_back({"against control", left});
  if (!roles.original.empty()) columns.push_back({"against original", left});
  Table table(columns);
  const std::array<bool, 3> shown{true, !roles.control.empty(), !roles.original.empty()};
  for (const ComparedFigure& figure : comparison.figures) {
    std::vector<std::string> cells{place(figure)};
    for (std::size_t r = 0; r < 3; ++r)
      if (shown[r]) cells.push_back(figure.cells[r] ? cell_text(figure.figure, *figure.cells[r]) : "");
    for (std::size_t r = 1; r < 3; ++r)
      if (shown[r]) cells.push_back(figure.against[r - 1] ? change_text(figure, *figure.against[r - 1]) : "");
    table.row(std::move(cells));
  }
  std::string out = table.text(colour);
  for (const std::string& remark : comparison.remarks) out += "  " + remark + "\n";
  return out + "  intervals: 95 %, bootstrap over windows; differences over the same windows on both sides\n";
}

std::string comparison_section(const ReportData& data, const Comparison& comparison) {
  const ReportRoles& roles = *data.plan->report;
  const std::array<std::pair<const char*, const std::string*>, 3> all{
      {{"Candidate", &roles.candidate}, {"Control", &roles.control}, {"Original", &roles.original}}};
  std::string out = "<h2>Candidate, control, original</h2><div class=wide><table class='grid compare'><tr><th>Figure";
  for (const auto& [title, stage] : all)
    if (!stage->empty()) out += fmt::format("<th>{0} <a href='#stage-{1}'>{1}</a>", title, escape_html(*stage));
  for (std::size_t r = 1; r < 3; ++r)
    if (!all[r].second->empty()) out += fmt::format("<th>Against {}", r == 1 ? "control" : "original");
  out += "</tr>";
  for (const ComparedFigure& figure : comparison.figures) {
    out += fmt::format("<tr><td>{}", escape_html(figure.figure));
    if (!figure.data.empty()) out += fmt::format(" <span class=sub>on {}</span>", escape_html(figure.data));
    out += "</td>";
    for (std::size_t r = 0; r < 3; ++r) {
      if (all[r].second->empty()) continue;
      out += "<td class=n>" + (figure.cells[r] ? escape_html(cell_text(figure.figure, *figure.cells[r])) : "–") + "</td>";
    }
    for (std::size_t r = 1; r < 3; ++r) {
      if (all[r].second->empty()) continue;
      const auto& change = figure.against[r - 1];
      out += change ? fmt::format("<td class={}>{}</td>", paint(figure, *change), escape_html(change_text(figure, *change)))
                    : std::string("<td>–</td>");
    }
    out += "</tr>";
  }
  out +=
      "</table></div><p class=sub>Intervals: 95 %, bootstrap over windows or examples; differences over the same ones on both "
      "sides. The control had everything but the step in question.";
  for (const std::string& remark : comparison.remarks) out += "<br>" + escape_html(remark);
  return out + "</p>";
}

}  // namespace espalier
