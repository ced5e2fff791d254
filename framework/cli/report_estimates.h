#pragma once
#include <optional>
#include <string>
#include <vector>

#include "cli/report_page.h"

namespace espalier {

/// How near an estimate is to be for people to act on it.
inline constexpr double kNearMemory = 0.25;  ///< within 25 % of the peak
inline constexpr double kNearTime = 2;       ///< within a factor of 2

/// estimate / outcome of a stage's peak memory and of its time; nothing without an estimate or an outcome.
std::optional<double> memory_ratio(const ReportRow& row);
std::optional<double> time_ratio(const ReportRow& row);

/// How near the estimates of one quantity came.
struct Nearness {
  std::size_t compared = 0, near = 0;
  std::string worst;       ///< the stage whose ratio is farthest from 1
  double worst_ratio = 0;  ///< 0: nothing was compared
};
Nearness memory_nearness(const ReportData& data);
Nearness time_nearness(const ReportData& data);

/// For the terminal: estimates beside outcomes, and how near they came.
std::string estimates_table(const ReportData& data, bool colour);
/// The same as HTML, with its heading.
std::string estimates_section(const ReportData& data);
/// Of all stages: {"memory": {"compared", "within", "tolerance", "worst": {"stage", "ratio"}}, "seconds": {…, "factor", …},
/// "remarks"}.
Json estimates_json(const ReportData& data);
/// Of one: {"memory_bytes", "seconds", "memory_ratio", "seconds_ratio"}, null where unknown.
Json estimate_json(const ReportRow& row);

}  // namespace espalier
