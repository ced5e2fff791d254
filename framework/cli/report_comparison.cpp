#include "cli/report_comparison.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "cli/table.h"
#include "sdk/error.h"

namespace espalier {
namespace {

/// A quality figure that is made of one value per window or example; its samples lie in the detail "samples.DETAIL".
struct Quality {
  const char *figure, *detail;
  bool lower_is_better, ratio;  ///< ratio: exp of the mean, so that a difference of means is a ratio of figures
};
constexpr std::array<Quality, 4> qualities = {{{"perplexity", "nll", true, true},
                                               {"kl", "kl", true, false},
                                               {"top1_agreement", "top1_agreement", false, false},
                                               {"accuracy", "correct", false, false}}};

/// Figures of size and speed: compared by their ratio.
struct Quantity {
  const char* figure;
  bool lower_is_better;
};
constexpr std::array<Quantity, 9> quantities = {{{"macs", true},
                                                 {"prefill_tokens_per_second", false},
                                                 {"decode_tokens_per_second", false},
                                                 {"latency_p50_ms", true},
                                                 {"latency_p95_ms", true},
                                                 {"latency_p99_ms", true},
                                                 {"startup_ms", true},
                                                 {"peak_rss_bytes", true},
                                                 {"sparsity", false}}};

/// Evaluations of the same component, data and parameters, by the role of what they evaluate.
struct Group {
  std::string use, data;
  std::array<std::vector<const ReportRow*>, 3> rows;
};

std::array<std::string, 3> role_names(const ReportRoles& roles) { return {roles.candidate, roles.control, roles.original}; }

std::string producers(const Stage& stage, const std::string& port) {
  std::string names;
  if (const auto found = stage.inputs.find(port); found != stage.inputs.end())
    for (const StageInput& input : found->second) names += (names.empty() ? "" : ", ") + input.stage;
  return names;
}

std::vector<Group> groups_of(const ReportData& data, const std::array<std::string, 3>& roles) {
  std::vector<Group> groups;
  std::map<std::string, std::size_t> index;
  for (const ReportRow& row : data.rows) {
    const Stage& stage = *row.stage;
    if (!stage.use.starts_with("evaluator/") || !row.entry) continue;
    std::string subject = producers(stage, "package");
    if (subject.empty()) subject = producers(stage, "model");
    for (std::size_t r = 0; r < 3; ++r) {
      if (roles[r].empty() || subject != roles[r]) continue;
      const std::string on = producers(stage, "data");
      const std::string key = stage.use + '\n' + on + '\n' + stage.params.dump();
      const auto [at, fresh] = index.try_emplace(key, groups.size());
      if (fresh) groups.push_back({stage.use, on, {}});
      groups[at->second].rows[r].push_back(&row);
    }
  }
  return groups;
}

std::optional<Samples> samples_of(const ReportRow& row, const std::string& detail) {
  const Json& details = row.entry->details;
  const auto values = details.find("samples." + detail);
  if (values == details.end() || !values->is_array()) return std::nullopt;
  Samples samples;
  try {
    samples.values = values->get<std::vector<double>>();
    if (const auto tokens = details.find("samples.tokens"); tokens != details.end())
      samples.weights = tokens->get<std::vector<double>>();
  } catch (const Json::exception&) {
    return std::nullopt;
  }
  return samples;
}

Change quality_change(const Quality& quality, const ReportRow& own, const ReportRow& other) {
  Change change;
  change.ratio = quality.ratio;
  const double a = *own.figure(quality.figure), b = *other.figure(quality.figure);
  change.value = quality.ratio ? a / b : a - b;
  const std::optional<Samples> mine = samples_of(own, quality.detail), theirs = samples_of(other, quality.detail);
  if (!mine || !theirs || mine->values.empty()) {
    change.remark = "no samples";
  } else if (mine->values.size() != theirs->values.size() || mine->weights != theirs->weights) {
    change.remark = "measured on other windows";
  } else {
    const std::array<Samples, 2> both{*mine, *theirs};
    try {
      change.interval = bootstrap(
          both, [&](std::span<const double> means) { return quality.ratio ? std::exp(means[0] - means[1]) : means[0] - means[1]; });
    } catch (const Error& error) {
      change.remark = error.message();
    }
    if (change.interval)
      change.significant = !change.interval->holds(quality.ratio ? 1 : 0);
    else if (change.remark.empty())
      change.remark = "one window has no interval";
  }
  return change;
}

void add_quality(const Group& group, const Quality& quality, Comparison& comparison) {
  ComparedFigure compared{quality.figure, group.use, group.data, quality.lower_is_better, {}, {}};
  std::array<const ReportRow*, 3> rows{};
  for (std::size_t r = 0; r < 3; ++r)
    for (const ReportRow* row : group.rows[r])
      if (const auto value = row->figure(quality.figure); value && !rows[r]) {
        rows[r] = row;
        const std::string name = quality.figure;
        compared.cells[r] = ComparedFigure::Cell{*value, row->figure(name + "_low"), row->figure(name + "_high")};
      }
  if (!rows[0] && !rows[1] && !rows[2]) return;
  for (std::size_t r = 1; r < 3; ++r)
    if (rows[0] && rows[r]) compared.against[r - 1] = quality_change(quality, *rows[0], *rows[r]);
  comparison.figures.push_back(std::move(compared));
}

void add_ratio(ComparedFigure compared, Comparison& comparison) {
  for (std::size_t r = 1; r < 3; ++r)
    if (compared.cells[0] && compared.cells[r] && compared.cells[r]->value != 0) {
      Change change;
      change.ratio = true;
      change.value = compared.cells[0]->value / compared.cells[r]->value;
      compared.against[r - 1] = change;
    }
  if (std::any_of(compared.cells.begin(), compared.cells.end(), [](const auto& cell) { return cell.has_value(); }))
    comparison.figures.push_back(std::move(compared));
}

/// `speedup` was measured in turns with its baseline: it outranks the ratio of two runs at different times.
void add_speedup(const Group& group, const std::array<std::string, 3>& roles, Comparison& comparison) {
  ComparedFigure compared{"speedup", group.use, group.data, false, {}, {}};
  for (const ReportRow* row : group.rows[0])
    for (std::size_t r = 1; r < 3; ++r)
      if (const auto value = row->figure("speedup"); value && !roles[r].empty() && producers(*row->stage, "baseline") == roles[r]) {
        Change change;
        change.ratio = true;
        change.value = *value;
        if (const auto low = row->figure("speedup_low"), high = row->figure("speedup_high"); low && high) {
          change.interval = Interval{*value, *low, *high};
          change.significant = !change.interval->holds(1);
        }
        compared.against[r - 1] = change;
      }
  if (compared.against[0] || compared.against[1]) comparison.figures.push_back(std::move(compared));
}

/// A figure of the group that role `r` should have, too: all of quality; but nobody asks how far the original is from itself.
bool measures_quality(const Group& group, std::size_t r) {
  for (const auto& rows : group.rows)
    for (const ReportRow* row : rows)
      for (const Quality& quality : qualities)
        if (row->figure(quality.figure)) return r != 2 || !row->figure("kl");
  return false;
}

std::string verdict(const ComparedFigure& figure, const Change& change) {
  if (!change.significant) return change.remark;
  if (!*change.significant) return "not significant";
  if (!figure.lower_is_better) return "significant";
  const bool lower = change.value < (change.ratio ? 1 : 0);
  return lower == *figure.lower_is_better ? "better" : "worse";
}

}  // namespace

std::optional<Comparison> compare_roles(const ReportData& data) {
  if (!data.plan->report) return std::nullopt;
  const std::array<std::string, 3> roles = role_names(*data.plan->report);
  Comparison comparison;
  const std::vector<Group> groups = groups_of(data, roles);
  for (const Group& group : groups)
    for (const Quality& quality : qualities) add_quality(group, quality, comparison);
  ComparedFigure size{"size_bytes", "", "", true, {}, {}}, parameters{"parameters", "", "", true, {}, {}};
  for (const ReportRow& row : data.rows)
    for (std::size_t r = 0; r < 3; ++r) {
      if (row.stage->name != roles[r]) continue;
      if (const auto value = row.size()) size.cells[r] = ComparedFigure::Cell{*value, {}, {}};
      if (const auto value = row.parameters()) parameters.cells[r] = ComparedFigure::Cell{*value, {}, {}};
    }
  add_ratio(std::move(size), comparison);
  add_ratio(std::move(parameters), comparison);
  for (const Group& group : groups) {
    add_speedup(group, roles, comparison);
    for (const Quantity& quantity : quantities) {
      ComparedFigure compared{quantity.figure, group.use, group.data, quantity.lower_is_better, {}, {}};
      for (std::size_t r = 0; r < 3; ++r)
        for (const ReportRow* row : group.rows[r])
          if (const auto value = row->figure(quantity.figure); value && !compared.cells[r])
            compared.cells[r] = ComparedFigure::Cell{*value, {}, {}};
      add_ratio(std::move(compared), comparison);
    }
  }
  constexpr std::array<const char*, 3> words = {"candidate", "control", "original"};
  for (std::size_t r = 0; r < 3; ++r) {
    if (roles[r].empty()) continue;
    const bool measured = std::any_of(groups.begin(), groups.end(), [&](const Group& group) { return !group.rows[r].empty(); });
    if (!measured) comparison.remarks.push_back(fmt::format("no evaluator with a result takes the {} (@{})", words[r], roles[r]));
  }
  for (const Group& group : groups)
    for (std::size_t r = 0; r < 3; ++r)
      if (!roles[r].empty() && group.rows[r].empty() && measures_quality(group, r))
        comparison.remarks.push_back(fmt::format("{}{} with these parameters does not measure the {} (@{})", group.use,
                                                 group.data.empty() ? "" : " on " + group.data, words[r], roles[r]));
  return comparison;
}

std::string cell_text(const std::string& figure, const ComparedFigure::Cell& cell) {
  std::string text = figure_text(figure, cell.value);
  if (cell.low && cell.high) text += fmt::format(" [{}, {}]", figure_text(figure, *cell.low), figure_text(figure, *cell.high));
  return text;
}

std::string change_text(const ComparedFigure& figure, const Change& change) {
  std::string text = change.ratio ? significant(change.value, 4) + "×" : fmt::format("{:+.4g}", change.value);
  if (change.interval)
    text += change.ratio ? fmt::format(" [{}, {}]", significant(change.interval->low, 4), significant(change.interval->high, 4))
                         : fmt::format(" [{:+.4g}, {:+.4g}]", change.interval->low, change.interval->high);
  const std::string said = verdict(figure, change);
  return said.empty() ? text : text + ", " + said;
}

Json comparison_json(const ReportData& data, const Comparison& comparison) {
  constexpr std::array<const char*, 3> words = {"candidate", "control", "original"};
  const std::array<std::string, 3> roles = role_names(*data.plan->report);
  Json out = {{"figures", Json::array()}, {"remarks", comparison.remarks}};
  for (std::size_t r = 0; r < 3; ++r) out[words[r]] = roles[r].empty() ? Json() : Json(roles[r]);
  for (const ComparedFigure& figure : comparison.figures) {
    Json values = Json::object(), against = Json::object();
    for (std::size_t r = 0; r < 3; ++r)
      if (const auto& cell = figure.cells[r]) {
        values[words[r]] = {{"value", cell->value}};
        if (cell->low && cell->high) values[words[r]].update({{"low", *cell->low}, {"high", *cell->high}});
      }
    for (std::size_t r = 1; r < 3; ++r)
      if (const auto& change = figure.against[r - 1]) {
        Json& to = against[words[r]] = {{"kind", change->ratio ? "ratio" : "difference"}, {"value", change->value}};
        if (change->interval) to.update({{"low", change->interval->low}, {"high", change->interval->high}});
        if (change->significant) to["significant"] = *change->significant;
        if (!change->remark.empty()) to["remark"] = change->remark;
      }
    out["figures"].push_back(
        {{"figure", figure.figure}, {"use", figure.use}, {"data", figure.data}, {"values", values}, {"against", against}});
  }
  return out;
}

}  // namespace espalier
