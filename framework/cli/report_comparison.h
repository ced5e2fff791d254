#pragma once
#include <array>
#include <optional>
#include <string>
#include <vector>

#include "cli/report_page.h"
#include "sdk/statistics.h"

namespace espalier {

/// How the candidate's figure stands to that of the control or the original.
struct Change {
  bool ratio = false;  ///< candidate / other; else candidate - other
  double value = 0;
  std::optional<Interval> interval;  ///< 95 %, by a bootstrap over the units that both were measured on
  /// The interval leaves out "no change"; nothing where no interval could be had.
  std::optional<bool> significant;
  std::string remark;  ///< why there is no interval, where one was to be expected
};

/// One figure of candidate, control and original, side by side.
struct ComparedFigure {
  std::string figure, use, data;  ///< data: names of the stages on port "data"; empty for what needs none
  std::optional<bool> lower_is_better;
  struct Cell {
    double value = 0;
    std::optional<double> low, high;
  };
  std::array<std::optional<Cell>, 3> cells;      ///< candidate, control, original
  std::array<std::optional<Change>, 2> against;  ///< control, original
};

struct Comparison {
  std::vector<ComparedFigure> figures;
  std::vector<std::string> remarks;  ///< what is not measured, and so cannot be compared
};

/// What [report] asks for. Evaluators are matched by component, data set and parameters. Nothing without [report].
std::optional<Comparison> compare_roles(const ReportData& data);

/// "1.15× [1.12, 1.18], worse", "-0.002 [-0.004, 0.001], not significant".
std::string change_text(const ComparedFigure& figure, const Change& change);
/// A value with its interval.
std::string cell_text(const std::string& figure, const ComparedFigure::Cell& cell);

std::string comparison_table(const ReportData& data, const Comparison& comparison, bool colour);  ///< for the terminal
std::string comparison_section(const ReportData& data, const Comparison& comparison);             ///< HTML
Json comparison_json(const ReportData& data, const Comparison& comparison);

}  // namespace espalier
