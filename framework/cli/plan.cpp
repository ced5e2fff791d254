#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "cli/command.h"
#include "cli/display.h"
#include "cli/table.h"
#include "engine/engine.h"
#include "engine/estimate.h"
#include "sdk/error.h"

namespace espalier {
namespace {

std::string state_of(const PlannedStage& stage) { return !stage.known ? "unknown" : stage.hit ? "hit" : "miss"; }

std::string state_text(const PlannedStage& stage, bool colour) {
  const std::string state = state_of(stage);
  return coloured(state, stage.hit ? "green" : stage.known ? "yellow" : "dim", colour);
}

Json as_json(const Plan& plan, const Preflight& flight) {
  Json stages = Json::array();
  double seconds = 0;
  for (const auto& stage : flight.stages) {
    const Stage* described = plan.find(stage.name);
    stages.push_back({{"name", stage.name},
                      {"use", described ? described->use : ""},
                      {"status", state_of(stage)},
                      {"key", stage.key ? Json(stage.key->hex()) : Json()},
                      {"reason", stage.reason},
                      {"memory_bytes", stage.memory},
                      {"disk_bytes", stage.disk},
                      {"seconds", stage.seconds ? Json(*stage.seconds) : Json()}});
    if (stage.seconds && !stage.hit) seconds += *stage.seconds;
  }
  Json totals{{"memory_bytes", flight.memory},
              {"memory_available_bytes", flight.memory_available},
              {"disk_bytes", flight.disk},
              {"disk_available_bytes", flight.disk_available},
              {"seconds", seconds}};
  Json params = Json::object();
  for (const auto& [name, value] : plan.params) params[name] = value;
  return {{"schema", 1},
          {"ok", true},
          {"recipe", plan.name},
          {"params", std::move(params)},
          {"stages", std::move(stages)},
          {"totals", std::move(totals)}};
}

std::string as_text(const Plan& plan, const Preflight& flight, bool colour) {
  Table table({{"stage", Table::Align::left},
               {"component", Table::Align::left},
               {"cache", Table::Align::left},
               {"memory", Table::Align::right},
               {"disk", Table::Align::right},
               {"time", Table::Align::right},
               {"why", Table::Align::left}});
  double seconds = 0;
  std::size_t to_run = 0, untimed = 0;
  for (const auto& stage : flight.stages) {
    const Stage* described = plan.find(stage.name);
    table.row({stage.name, described ? described->use : "", state_text(stage, colour), stage.hit ? "" : human_bytes(stage.memory),
               stage.hit ? "" : human_bytes(stage.disk),
               stage.hit       ? ""
               : stage.seconds ? human_seconds(*stage.seconds)
                               : "?",
               printable(stage.reason)});
    if (stage.hit) continue;
    ++to_run;
    if (stage.seconds)
      seconds += *stage.seconds;
    else
      ++untimed;
  }
  std::string text = table.text(colour);
  text += fmt::format("\n{} of {} stages to run", to_run, flight.stages.size());
  if (to_run)
    text += fmt::format(", {}{}", untimed == to_run ? "time not known yet" : human_seconds(seconds),
                        untimed && untimed != to_run ? " and what is not known" : "");
  text += fmt::format("\nmemory: {} at the peak, {} available\n", human_bytes(flight.memory), human_bytes(flight.memory_available));
  text += fmt::format("disk:   {} to be written, {} available\n", human_bytes(flight.disk), human_bytes(flight.disk_available));
  return text;
}

/// What estimates stand on: the speed of this machine, and the sources' models and data, which are made where they are missing.
void prepare_estimates(const LoadedRecipe& loaded, Store& store, const EngineOptions& options, const CommonOptions& common) {
  std::set<int> threads;
  for (const Stage& stage : loaded.plan.stages) threads.insert(stage.threads);
  for (const int count : threads) {
    if (known_speed(store, count)) continue;
    remark(common, fmt::format("measuring this machine with {} thread{}", count, count == 1 ? "" : "s"));
    measure_speed(store, count);
  }
  EngineOptions sources = options;
  sources.wanted.clear();
  sources.force.clear();
  const auto needed = loaded.plan.closure(options.wanted);
  for (const Stage& stage : loaded.plan.stages) {
    const bool wanted = options.wanted.empty() || std::find(needed.begin(), needed.end(), stage.name) != needed.end();
    if (wanted && stage.component->kind() == "source") sources.wanted.push_back(stage.name);
  }
  if (sources.wanted.empty()) return;
  Display display(common);
  for (const StageResult& result : execute(loaded.plan, store, loaded.catalog, sources, display))
    if (result.error)
      throw Error(error_code_from(result.error->code), result.error->message, result.error->where, result.error->hint);
}

CommandAction set_up(CLI::App& app) {
  auto recipe = std::make_shared<RecipeArguments>();
  auto wanted = std::make_shared<std::vector<std::string>>();
  auto force = std::make_shared<std::vector<std::string>>();
  auto estimate = std::make_shared<bool>(false);
  recipe->attach(app);
  app.add_flag("--estimate", *estimate, "measure this machine once and run the sources, so that time and memory can be told");
  app.add_option("STAGE", *wanted, "only these stages and what they need");
  app.add_option("--force", *force, "a stage that would run even when cached (again for more)")
      ->type_name("STAGE")
      ->allow_extra_args(false);
  return [=](const CommonOptions& common) {
    const auto loaded = load(common, *recipe);
    if (!loaded) return 2;
    EngineOptions options;
    options.wanted = require_stages(loaded->plan, *wanted);
    const auto forced = require_stages(loaded->plan, *force);
    options.force = {forced.begin(), forced.end()};
    Store store = open_store(common);
    if (*estimate) prepare_estimates(*loaded, store, options, common);
    const Preflight flight = preflight(loaded->plan, store, loaded->catalog, options);
    if (common.json)
      print_json(as_json(loaded->plan, flight));
    else
      print(as_text(loaded->plan, flight, common.colour_out));
    if (flight.memory > flight.memory_available)
      remark(common, "warning: more memory is needed than is available; a stage may be killed");
    if (flight.disk > flight.disk_available)
      remark(common, "warning: more disk is needed than is free, the run will be refused; `espalier gc` makes room");
    return 0;
  };
}

const RegisterCommand registered{{"plan",
                                  "show what would run, what is cached and why not, and estimates of memory, disk and time",
                                  {"espalier plan recipe.toml", "espalier plan recipe.toml package --set sparsity=0.3",
                                   "espalier plan recipe.toml --estimate", "espalier plan recipe.toml --json"},
                                  set_up}};

}  // namespace
}  // namespace espalier
