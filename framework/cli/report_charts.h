#pragma once
#include <string>

#include "cli/report_page.h"

namespace espalier {

std::string escape_html(std::string_view text);
/// The recipe's DAG as SVG: stages in columns by their distance from the sources.
std::string dag_chart(const ReportData& data);
/// [[x, y], …] as a line with its running mean; "" when there are fewer than two points.
std::string curve_chart(const std::string& title, const Json& points);
/// {"columns": ["group", "before", "after"], "rows": …} as paired bars.
std::string width_chart(const std::string& title, const Json& table);
/// {"columns": ["layer", "part", "operator", …, "ms", …], "rows": …} as a flame: all, layers, their parts, operators; widths are
/// time.
std::string flame_chart(const std::string& title, const Json& table);
/// {"x", "y", "series": [{"name", "values": [y, …]}, …]} as lines over the index; "" when no series has two values.
std::string plot_chart(const std::string& title, const Json& plot);

}  // namespace espalier
