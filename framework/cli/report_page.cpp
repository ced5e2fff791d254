#include "cli/report_page.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>

#include "cli/report_charts.h"
#include "cli/report_comparison.h"
#include "cli/report_estimates.h"
#include "cli/table.h"

namespace espalier {

std::optional<double> ReportRow::figure(const std::string& name) const {
  if (entry)
    if (const auto found = entry->figures.find(name); found != entry->figures.end()) return found->second;
  return std::nullopt;
}

namespace {

std::string bytes_text(double bytes) { return human_bytes(static_cast<std::uint64_t>(std::max(bytes, 0.0))); }

std::optional<double> number(const std::optional<Artifact>& artifact, const char* key) {
  if (!artifact) return std::nullopt;
  const auto found = artifact->meta.find(key);
  if (found == artifact->meta.end() || !found->is_number()) return std::nullopt;
  return found->get<double>();
}

std::string cell(const std::optional<double>& value, const std::function<std::string(double)>& text) {
  return value ? "<td class=n>" + escape_html(text(*value)) + "</td>" : "<td class=n>–</td>";
}

/// "before → after" of a quantity: the original against the candidate where the recipe names both and they state it, else the
/// largest against the smallest that a stage states.
std::string change_card(const ReportData& data, const std::string& title,
                        const std::function<std::optional<double>(const ReportRow&)>& of,
                        const std::function<std::string(double)>& text, bool only_packages) {
  const ReportRow *first = nullptr, *last = nullptr;
  for (const ReportRow& row : data.rows) {
    if (only_packages && !(row.artifact && row.artifact->type == ArtifactType::package)) continue;
    if (!of(row)) continue;
    if (!first || *of(row) > *of(*first)) first = &row;
    if (!last || *of(row) <= *of(*last)) last = &row;
  }
  if (const auto& roles = data.plan->report) {
    const auto named = [&](const std::string& name) -> const ReportRow* {
      for (const ReportRow& row : data.rows)
        if (row.stage->name == name && of(row)) return &row;
      return nullptr;
    };
    const ReportRow *original = named(roles->original), *candidate = named(roles->candidate);
    if (original && candidate) first = original, last = candidate;
  }
  if (!first || !last || first == last) return {};
  const double a = *of(*first), b = *of(*last);
  return fmt::format("<div class=card><h3>{}</h3><p class=big>{} <span class=arrow>→</span> {}</p><p>{:+.1f} % · {} → {}</p></div>",
                     title, escape_html(text(a)), escape_html(text(b)), a != 0 ? 100 * (b - a) / a : 0,
                     escape_html(first->stage->name), escape_html(last->stage->name));
}

std::string headline(const ReportData& data) {
  std::string out = "<section class=cards>";
  out += change_card(
      data, "Parameters",
      [](const ReportRow& r) { return r.artifact && r.artifact->type == ArtifactType::model ? r.parameters() : std::nullopt; },
      human_count, false);
  out += change_card(
      data, "Package size", [](const ReportRow& r) { return r.size(); }, bytes_text, true);
  std::string quality;
  for (const ReportRow& row : data.rows)
    for (const char* name : {"perplexity", "accuracy", "kl", "top1_agreement"})
      if (const auto value = row.figure(name))
        quality +=
            fmt::format("<tr><td>{}</td><td>{}</td><td class=n>{:.4g}</td></tr>", escape_html(row.stage->name), name, *value);
  if (!quality.empty()) out += "<div class=card><h3>Quality</h3><table>" + quality + "</table></div>";
  std::string speed;
  for (const ReportRow& row : data.rows)
    for (const char* name : {"speedup", "decode_tokens_per_second", "prefill_tokens_per_second"})
      if (const auto value = row.figure(name))
        speed += fmt::format("<tr><td>{}</td><td>{}</td><td class=n>{}</td></tr>", escape_html(row.stage->name), name,
                             figure_text(name, *value));
  if (!speed.empty()) out += "<div class=card><h3>Speed</h3><table>" + speed + "</table></div>";
  return out + "</section>";
}

std::string stage_table(const ReportData& data) {
  std::string out =
      "<h2>Stages</h2><div class=wide><table "
      "class=grid><tr><th>Stage<th>Component<th>State<th>Time<th>Size<th>Parameters<th>Quality<th>Speed<th>"
      "Peak memory</tr>";
  for (const ReportRow& row : data.rows) {
    std::string quality = "–", speed = "–";
    for (const char* name : {"perplexity", "accuracy", "loss_last"})
      if (const auto value = row.figure(name); value && quality == "–") quality = fmt::format("{} {:.4g}", name, *value);
    for (const char* name : {"speedup", "decode_tokens_per_second", "tokens_per_second"})
      if (const auto value = row.figure(name); value && speed == "–") speed = fmt::format("{} {}", name, figure_text(name, *value));
    out += fmt::format("<tr><td><a href='#stage-{0}'>{0}</a></td><td>{1}</td><td class='state {2}'>{2}</td><td class=n>{3}</td>",
                       escape_html(row.stage->name), escape_html(row.stage->use), escape_html(row.status),
                       row.entry ? human_seconds(row.seconds) : "–");
    out += cell(row.size(), bytes_text) + cell(row.parameters(), human_count);
    out += fmt::format("<td>{}</td><td>{}</td>", escape_html(quality), escape_html(speed));
    const double peak = row.entry ? static_cast<double>(row.entry->peak_rss) : 0;
    out += cell(peak > 0 ? std::optional(peak) : std::nullopt, bytes_text) + "</tr>";
    if (!row.error.empty()) out += "<tr><td></td><td colspan=8 class=error>" + escape_html(row.error) + "</td></tr>";
  }
  return out + "</table></div>";
}

std::string table_of(const Json& table) {
  const auto columns = table.find("columns"), rows = table.find("rows");
  if (columns == table.end() || rows == table.end() || !columns->is_array() || !rows->is_array()) return {};
  std::string out = "<div class=wide><table class=grid><tr>";
  const auto text = [](const Json& value) {
    if (value.is_string()) return value.get<std::string>();
    if (value.is_number_float()) return fmt::format("{:.5g}", value.get<double>());
    return value.dump(-1, ' ', false, Json::error_handler_t::replace);
  };
  for (const Json& column : *columns) out += "<th>" + escape_html(text(column));
  out += "</tr>";
  for (const Json& row : *rows) {
    if (!row.is_array()) continue;
    out += "<tr>";
    for (const Json& value : row) out += (value.is_number() ? "<td class=n>" : "<td>") + escape_html(text(value)) + "</td>";
    out += "</tr>";
  }
  return out + "</table></div>";
}

std::string stage_section(const ReportRow& row) {
  std::string out = fmt::format("<details id='stage-{0}'><summary><b>{0}</b> · {1}</summary>", escape_html(row.stage->name),
                                escape_html(row.stage->use));
  if (row.entry) {
    out += "<table>";
    for (const auto& [name, value] : row.entry->figures)
      out += fmt::format("<tr><td>{}</td><td class=n>{}</td></tr>", escape_html(name), escape_html(figure_text(name, value)));
    out += "</table>";
    for (const auto& [name, value] : row.entry->details.items())
      if (value.is_object() && name != "widths" && !name.starts_with("flame."))
        if (const std::string table = table_of(value); !table.empty()) out += "<h4>" + escape_html(name) + "</h4>" + table;
    out += "<h4>Outputs</h4><table>";
    for (const auto& [port, output] : row.entry->outputs)
      out += fmt::format("<tr><td>{}</td><td>{}</td><td><code>{}</code></td></tr>", escape_html(port), to_string(output.first),
                         output.second.hex());
    out += "</table>";
  }
  out += "<h4>Parameters</h4><pre>" + escape_html(row.stage->params.dump(2, ' ', false, Json::error_handler_t::replace)) +
         "</pre></details>";
  return out;
}

constexpr const char* style = R"css(
:root{--ink:#1d2420;--soft:#5d6b62;--line:#d9dfd9;--paper:#fbfcfa;--panel:#fff;--leaf:#2f7d4f;--leaf2:#a9cdb4;--warn:#b3402e;--blue:#31688e}
@media(prefers-color-scheme:dark){:root{--ink:#e6ebe6;--soft:#9aa89f;--line:#333c36;--paper:#141816;--panel:#1b211d;--leaf:#6cc08b;--leaf2:#2c5a3d;--warn:#ef8a78;--blue:#7fb3d5}}
*{box-sizing:border-box}body{margin:0;background:var(--paper);color:var(--ink);font:15px/1.5 system-ui,sans-serif}
main{max-width:1120px;margin:0 auto;padding:28px 20px 60px}h1{margin:0;font-size:28px}h2{margin:36px 0 10px;font-size:19px}h3{margin:0 0 4px;font-size:13px;color:var(--soft);font-weight:600;text-transform:uppercase;letter-spacing:.04em}h4{margin:14px 0 4px;font-size:13px;color:var(--soft)}
.sub{color:var(--soft);margin:4px 0 20px}.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(420px,100%),1fr));gap:12px;align-items:start}.card{background:var(--panel);border:1px solid var(--line);border-radius:10px;padding:14px 16px}.card p{margin:2px 0;color:var(--soft);font-size:13px}.card .big{font-size:22px;color:var(--ink);font-variant-numeric:tabular-nums}.arrow{color:var(--leaf)}
table{border-collapse:collapse;font-size:13.5px}td,th{padding:4px 12px 4px 0;text-align:left;vertical-align:top}.grid{width:100%}.grid th{color:var(--soft);font-weight:600;border-bottom:1px solid var(--line)}.grid td{border-bottom:1px solid var(--line)}td.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}.card table{width:100%}.card td{overflow-wrap:anywhere}.card td.n{padding-left:8px}.card td:last-child{padding-right:0}
.wide{overflow-x:auto}a{color:var(--leaf);text-decoration:none}.state{font-weight:600}.state.ran{color:var(--leaf)}.state.cached{color:var(--blue)}.state.failed,.error{color:var(--warn)}
details{background:var(--panel);border:1px solid var(--line);border-radius:10px;padding:8px 14px;margin:8px 0}summary{cursor:pointer}pre,code{font:12.5px/1.45 ui-monospace,monospace;overflow-x:auto}svg{max-width:100%;height:auto;display:block}svg text{fill:var(--ink);font:12px system-ui,sans-serif}svg .soft{fill:var(--soft)}
.node{fill:var(--panel);stroke:var(--line)}.node.ran{stroke:var(--leaf)}.node.cached{stroke:var(--blue)}.node.failed{stroke:var(--warn);stroke-width:2}.edge{fill:none;stroke:var(--soft);stroke-opacity:.55}.axis{stroke:var(--line)}.curve{fill:none;stroke:var(--leaf);stroke-width:2}.raw{fill:none;stroke:var(--leaf2);stroke-width:1}.before{fill:var(--leaf2)}.after{fill:var(--leaf)}
.flame rect{stroke:var(--panel);stroke-width:.6}.flame .f0{fill:var(--line)}.flame .f1{fill:var(--leaf2)}.flame .f2{fill:var(--leaf);fill-opacity:.55}.flame .f3{fill:var(--blue);fill-opacity:.6}.flame text{font-size:11px}
.compare td,.compare td.n{white-space:normal}.compare .sub{margin:0}td.good{color:var(--leaf)}td.bad{color:var(--warn)}td.soft{color:var(--soft)}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(420px,1fr));gap:12px}
)css";

}  // namespace

std::optional<double> ReportRow::size() const {
  if (const auto value = number(artifact, "size_bytes")) return value;
  if (const auto value = number(artifact, "weight_bytes")) return value;
  return figure("size_bytes");
}

std::optional<double> ReportRow::parameters() const {
  if (const auto value = number(artifact, "parameters")) return value;
  return figure("parameters");
}

std::string human_count(double value) {
  if (value >= 1e9) return fmt::format("{:.2f}G", value / 1e9);
  if (value >= 1e6) return fmt::format("{:.1f}M", value / 1e6);
  if (value >= 1e4) return fmt::format("{:.1f}k", value / 1e3);
  return fmt::format("{:.0f}", value);
}

std::string figure_text(const std::string& name, double value) {
  if (name.ends_with("_bytes")) return bytes_text(value);
  if (name == "parameters" || name == "macs" || name == "tokens") return human_count(value);
  if (name.ends_with("_ms")) return fmt::format("{:.2f} ms", value);
  if (name.ends_with("_per_second")) return fmt::format("{:.1f}", value);
  if (name == "speedup" || name.starts_with("speedup_")) return significant(value, 3) + "×";
  if (name == "sparsity") return fmt::format("{:.1f} %", 100 * value);
  if (value == std::floor(value) && std::abs(value) < 1e15) return fmt::format("{:.0f}", value);
  return fmt::format("{:.4g}", value);
}

std::string report_page(const ReportData& data) {
  std::string charts, flames;
  for (const ReportRow& row : data.rows) {
    if (!row.entry) continue;
    for (const auto& [name, value] : row.entry->details.items()) {
      if (name.starts_with("curve.")) charts += curve_chart(row.stage->name + " · " + name.substr(6), value);
      if (name.starts_with("flame.")) flames += flame_chart(row.stage->name + " · " + name.substr(6), value);
      if (name.starts_with("plot.")) charts += plot_chart(row.stage->name + " · " + name.substr(5), value);
      if (name == "widths") charts += width_chart(row.stage->name + " · widths before and after", value);
    }
  }
  std::string out = "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'><title>";
  out += escape_html(data.plan->name) + " · Espalier</title><style>" + style + "</style><main>";
  out += "<h1>" + escape_html(data.plan->name) + "</h1><p class=sub>" + escape_html(data.plan->description);
  if (!data.plan->description.empty()) out += "<br>";
  if (data.when.empty())
    out += "not run yet";
  else
    out += fmt::format("last run {} · {} · took {}", escape_html(data.run_id), escape_html(data.when), human_seconds(data.seconds));
  double work = 0;
  for (const ReportRow& row : data.rows) work += row.entry ? row.seconds : 0;
  if (work > 0) out += " · the work behind these results took " + human_seconds(work);
  if (!data.machine.empty()) out += " · " + escape_html(data.machine);
  out += "</p>";
  if (const auto comparison = compare_roles(data)) out += comparison_section(data, *comparison);
  out += headline(data);
  out += "<h2>From source to package</h2><div class=wide>" + dag_chart(data) + "</div>";
  out += stage_table(data);
  out += estimates_section(data);
  if (!charts.empty()) out += "<h2>Curves and widths</h2><section class=charts>" + charts + "</section>";
  if (!flames.empty()) out += "<h2>Where the time goes</h2>" + flames;
  out += "<h2>Every stage</h2>";
  for (const ReportRow& row : data.rows) out += stage_section(row);
  return out + "</main></html>\n";
}

}  // namespace espalier
