#include <fmt/chrono.h>
#include <fmt/format.h>
#include <sys/utsname.h>

#include <ctime>
#include <fstream>
#include <map>
#include <memory>
#include <thread>

#include "cli/command.h"
#include "cli/report_comparison.h"
#include "cli/report_estimates.h"
#include "cli/report_page.h"
#include "cli/table.h"
#include "engine/engine.h"
#include "engine/estimate.h"
#include "sdk/error.h"

namespace espalier {
namespace {

std::string machine_text() {
  std::string model = "unknown processor";
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);)
    if (line.starts_with("model name"))
      if (const auto colon = line.find(": "); colon != std::string::npos) {
        model = line.substr(colon + 2);
        break;
      }
  return fmt::format("{}, {} threads", model, std::thread::hardware_concurrency());
}

/// The last run's word on each stage, from its summary (the JSON that `run --json` prints).
std::map<std::string, Json> last_words(const std::optional<Store::RunRecord>& run) {
  std::map<std::string, Json> words;
  if (!run || !run->summary.is_object() || !run->summary.contains("stages")) return words;
  for (const Json& stage : run->summary["stages"])
    if (stage.is_object() && stage.contains("name") && stage["name"].is_string()) words[stage["name"].get<std::string>()] = stage;
  return words;
}

/// What each stage was expected to take. The run's own record says so where it is about the same result; else it is told anew, from
/// the same facts.
void add_estimates(ReportData& data, const LoadedRecipe& loaded, Store& store, const std::map<std::string, Json>& words,
                   const std::map<std::string, Digest>& keys) {
  const auto anew = estimate_from_sources(loaded.plan, loaded.catalog, store, [&](const Stage& stage) -> const ActionEntry* {
    for (const ReportRow& row : data.rows)
      if (row.stage == &stage) return row.entry ? &*row.entry : nullptr;
    return nullptr;
  });
  for (ReportRow& row : data.rows) {
    const std::string& name = row.stage->name;
    row.expected_memory = anew.at(name).memory;
    row.expected_seconds = anew.at(name).seconds;
    data.speed_known = data.speed_known || known_speed(store, row.stage->threads).has_value();
    const auto word = words.find(name);
    const auto key = keys.find(name);
    if (word == words.end() || key == keys.end() || word->second.value("key", Json()) != key->second.hex()) continue;
    const Json recorded = word->second.value("estimate", Json::object());
    if (recorded.value("memory_bytes", Json()).is_number()) row.expected_memory = recorded["memory_bytes"].get<double>();
    if (recorded.value("seconds", Json()).is_number()) row.expected_seconds = recorded["seconds"].get<double>();
  }
}

ReportData collect(const LoadedRecipe& loaded, Store& store) {
  ReportData data;
  data.plan = &loaded.plan;
  data.machine = machine_text();
  const auto runs = store.runs(loaded.plan.file, 1);
  const auto run = runs.empty() ? std::nullopt : std::optional(runs.front());
  if (run) {
    const auto seconds = static_cast<std::time_t>(run->started);
    data.when = fmt::format("{:%Y-%m-%d %H:%M} UTC", fmt::gmtime(seconds));
    data.run_id = run->id;
    data.seconds = run->seconds;
  }
  const auto words = last_words(run);
  const Preflight known = preflight(loaded.plan, store, loaded.catalog, {});
  std::map<std::string, Digest> keys;
  for (const PlannedStage& planned : known.stages)
    if (planned.key) keys.emplace(planned.name, *planned.key);
  for (const Stage& stage : loaded.plan.stages) {
    ReportRow row;
    row.stage = &stage;
    row.status = "not run";
    for (const PlannedStage& planned : known.stages)
      if (planned.name == stage.name && planned.hit && planned.key) row.entry = store.find(*planned.key);
    if (row.entry) {
      row.status = "cached";
      row.seconds = row.entry->seconds;
      if (!stage.component->outputs.empty())
        if (const auto out = row.entry->outputs.find(stage.component->outputs.front().name); out != row.entry->outputs.end())
          row.artifact = store.artifact(out->second.second);
    }
    if (const auto word = words.find(stage.name); word != words.end()) {
      const std::string status = word->second.value("status", "");
      // A result that the store has since gained or lost outranks what the last run said.
      if (row.entry ? status == "ran" || status == "failed" : status != "ran" && status != "cached") row.status = status;
      if (word->second.contains("error") && word->second["error"].is_object())
        row.error = word->second["error"].value("message", "");
    }
    data.rows.push_back(std::move(row));
  }
  add_estimates(data, loaded, store, words, keys);
  return data;
}

std::string terminal_table(const ReportData& data, bool colour) {
  using enum Table::Align;
  Table table({{"stage", left},
               {"component", left},
               {"state", left},
               {"time", right},
               {"size", right},
               {"parameters", right},
               {"quality", left},
               {"speed", left}});
  for (const ReportRow& row : data.rows) {
    std::string quality, speed;
    for (const char* name : {"perplexity", "accuracy", "loss_last"})
      if (const auto value = row.figure(name); value && quality.empty()) quality = fmt::format("{} {:.4g}", name, *value);
    for (const char* name : {"speedup", "decode_tokens_per_second", "tokens_per_second"})
      if (const auto value = row.figure(name); value && speed.empty()) speed = fmt::format("{} {:.3g}", name, *value);
    const auto size = row.size(), parameters = row.parameters();
    const char* paint = row.status == "failed" ? "red" : row.status == "ran" ? "green" : "dim";
    table.row({row.stage->name, row.stage->use, coloured(row.status, paint, colour), row.entry ? human_seconds(row.seconds) : "",
               size ? human_bytes(static_cast<std::uint64_t>(*size)) : "", parameters ? human_count(*parameters) : "", quality,
               speed});
  }
  return table.text(colour);
}

Json summary(const ReportData& data, const std::string& page) {
  Json stages = Json::array();
  for (const ReportRow& row : data.rows) {
    Json figures = Json::object();
    if (row.entry)
      for (const auto& [name, value] : row.entry->figures) figures[name] = value;
    stages.push_back({{"name", row.stage->name},
                      {"use", row.stage->use},
                      {"status", row.status},
                      {"seconds", row.seconds},
                      {"figures", figures},
                      {"estimate", estimate_json(row)}});
    if (row.entry) stages.back().update({{"peak_rss_bytes", row.entry->peak_rss}, {"cpu_seconds", row.entry->cpu_seconds}});
  }
  Json all = {{"schema", 1},  {"recipe", data.plan->name}, {"run", data.run_id},
              {"page", page}, {"stages", stages},          {"estimates", estimates_json(data)}};
  if (const auto comparison = compare_roles(data)) all["comparison"] = comparison_json(data, *comparison);
  return all;
}

void write_page(const std::string& file, const std::string& text) {
  const std::string aside = file + ".part";
  std::ofstream out(aside, std::ios::binary | std::ios::trunc);
  out << text;
  out.close();
  std::error_code error;
  if (out) std::filesystem::rename(aside, file, error);
  if (!out || error) {
    std::filesystem::remove(aside, error);
    throw Error(ErrorCode::resource, "the report could not be written", file, "give another place with --out FILE");
  }
}

CommandAction set_up(CLI::App& app) {
  auto recipe = std::make_shared<RecipeArguments>();
  auto out = std::make_shared<std::string>();
  recipe->attach(app);
  app.add_option("--out", *out, "the HTML page (default: NAME.report.html in this folder)")->type_name("FILE");
  return [recipe, out](const CommonOptions& common) {
    const auto loaded = load(common, *recipe);
    if (!loaded) return 2;
    Store store = open_store(common);
    const ReportData data = collect(*loaded, store);
    const std::string file = out->empty() ? loaded->plan.file.stem().string() + ".report.html" : *out;
    write_page(file, report_page(data));
    if (common.json) {
      print_json(summary(data, file));
    } else {
      print(terminal_table(data, common.colour_out));
      print("\n" + estimates_table(data, common.colour_out));
      if (const auto comparison = compare_roles(data)) print("\n" + comparison_table(data, *comparison, common.colour_out));
      remark(common, "page: " + file);
    }
    return 0;
  };
}

const RegisterCommand registered{
    {"report",
     "a recipe's results as a table and as one self-contained HTML page",
     {"espalier report pipelines/quickstart.toml", "espalier report recipe.toml --out report.html --json"},
     set_up}};

}  // namespace
}  // namespace espalier
