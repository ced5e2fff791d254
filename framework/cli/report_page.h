#pragma once
#include <optional>
#include <string>
#include <vector>

#include "recipe/plan.h"
#include "store/store.h"

namespace espalier {

/// One stage of a recipe as the report shows it: from its action entry, the artifact it made, and the last run's summary.
struct ReportRow {
  const Stage* stage = nullptr;
  std::string status;  ///< of the last run: "ran", "cached", "failed", "skipped", …; "not run" when there is no result
  std::string error;   ///< message of a failure
  std::optional<ActionEntry> entry;
  std::optional<Artifact> artifact;  ///< the default output
  double seconds = 0;                ///< what the work took when it was done
  /// What was expected before the run, from the sources alone: bytes at the peak, and seconds.
  std::optional<double> expected_memory, expected_seconds;

  /// A figure of the stage, or of the artifact that it made.
  std::optional<double> figure(const std::string& name) const;
  std::optional<double> size() const;  ///< bytes: files of a package, weights of a model
  std::optional<double> parameters() const;
};

struct ReportData {
  const Plan* plan = nullptr;
  std::vector<ReportRow> rows;  ///< in the plan's order
  std::string when, run_id;     ///< of the last run; empty when there is none
  double seconds = 0;           ///< wall time of the last run
  std::string machine;
  bool speed_known = false;  ///< the store knows how fast this machine is, so that time can be estimated
};

/// "134.5M", "98.4k": counts for people.
std::string human_count(double value);

/// A figure with the unit that its name implies: "12.30 ms", "97.4 MiB", "1.85×".
std::string figure_text(const std::string& name, double value);

/// One self-contained HTML page: no script, no outside resource.
std::string report_page(const ReportData& data);

}  // namespace espalier
