#include <signal.h>
#include <unistd.h>
#include <CLI/App.hpp>
#include <CLI/Formatter.hpp>

#include <ctime>
#include <optional>
#include <set>

#include "cli/command.h"
#include "cli/display.h"
#include "cli/events.h"
#include "cli/packed.h"
#include "cli/table.h"
#include "engine/engine.h"
#include "engine/estimate.h"
#include "sdk/error.h"

namespace espalier {
namespace {

namespace fs = std::filesystem;

struct Arguments {
  RecipeArguments recipe;
  std::vector<std::string> wanted, force;
  int jobs = 1;
  bool keep_going = false, fail_fast = false, in_process = false;
  std::string out, events;
};

std::atomic<int> interrupted{0};

/// The first signal stops the run in order; a second one ends the program at once (its stages die with their worker).
extern "C" void on_signal(int number) {
  if (interrupted != 0) ::_exit(128 + number);
  interrupted = number;
}

class SignalsCaught {
 public:
  SignalsCaught() {
    struct sigaction action {};
    action.sa_handler = on_signal;
    ::sigaction(SIGINT, &action, &old_int_);
    ::sigaction(SIGTERM, &action, &old_term_);
  }
  ~SignalsCaught() {
    ::sigaction(SIGINT, &old_int_, nullptr);
    ::sigaction(SIGTERM, &old_term_, nullptr);
  }

 private:
  struct sigaction old_int_ {
  }, old_term_{};
};

std::string run_id(double started) {
  const auto seconds = static_cast<std::time_t>(started);
  std::tm parts{};
  ::gmtime_r(&seconds, &parts);
  char text[64];
  std::snprintf(text, sizeof text, "%04d%02d%02d-%02d%02d%02d-%05d", parts.tm_year + 1900, parts.tm_mon + 1, parts.tm_mday,
                parts.tm_hour, parts.tm_min, parts.tm_sec, static_cast<int>(::getpid()) % 100000);
  return text;
}

std::string as_table(const std::vector<StageResult>& results, bool colour) {
  Table table({{"stage", Table::Align::left},
               {"status", Table::Align::left},
               {"time", Table::Align::right},
               {"figures", Table::Align::left}});
  for (const StageResult& result : results) {
    const bool good = result.status == StageStatus::ran || result.status == StageStatus::cached;
    const std::string status(to_string(result.status));
    table.row({result.name,
               coloured(status,
                        good                                   ? "green"
                        : result.status == StageStatus::failed ? "red"
                                                               : "yellow",
                        colour),
               result.status == StageStatus::ran || result.status == StageStatus::failed ? human_seconds(result.seconds) : "",
               result.entry ? figures_text(result.entry->figures) : ""});
  }
  return table.text(colour);
}

/// Refuses a run that the disk cannot hold; warns of memory, which estimates know less well.
void check_resources(const Preflight& flight, const CommonOptions& common, const Store& store) {
  if (flight.disk > flight.disk_available)
    throw Error(
        ErrorCode::resource,
        "the run would write about " + human_bytes(flight.disk) + ", and " + human_bytes(flight.disk_available) + " are free",
        store.root().string(), "espalier gc makes room; --store DIR names another place");
  if (flight.memory > flight.memory_available)
    remark(common, "warning: the run may take " + human_bytes(flight.memory) + " of memory, " +
                       human_bytes(flight.memory_available) + " are available");
}

/// Wrong files and calls exit 2 only when nothing worse happened beside them.
int exit_code_of(const std::vector<StageResult>& results) {
  if (interrupted != 0) return 128 + interrupted;
  std::set<int> codes;
  for (const StageResult& result : results)
    if (result.error) codes.insert(exit_code(error_code_from(result.error->code)));
  if (codes.empty()) return 0;
  if (codes.contains(70)) return 70;
  return codes.contains(2) && codes.size() == 1 ? 2 : 1;
}

void write_packages(const Store& store, const std::vector<StageResult>& results, const fs::path& out, const CommonOptions& common) {
  for (const StageResult& result : results) {
    if (!result.entry || result.status == StageStatus::failed) continue;
    int packages = 0;
    for (const auto& [port, output] : result.entry->outputs) packages += output.first == ArtifactType::package;
    for (const auto& [port, output] : result.entry->outputs) {
      if (output.first != ArtifactType::package) continue;
      const fs::path folder = out / (packages > 1 ? result.name + "." + port : result.name);
      write_packed(store, output.second, folder);
      remark(common, result.name + ": package in " + folder.string());
    }
  }
}

int run(const Arguments& arguments, const CommonOptions& common) {
  if (arguments.in_process) throw_invalid("--in-process is not there yet", {}, "attach a debugger to the stage's process instead");
  const auto loaded = load(common, arguments.recipe);
  if (!loaded) return 2;
  const auto wanted = require_stages(loaded->plan, arguments.wanted), forced = require_stages(loaded->plan, arguments.force);
  EngineOptions options;
  options.jobs = arguments.jobs;
  options.keep_going = !arguments.fail_fast;
  options.force = {forced.begin(), forced.end()};
  options.wanted = wanted;
  options.interrupted = &interrupted;

  Store::RunRecord record;
  record.started = unix_time();
  record.id = run_id(record.started);
  record.recipe = loaded->plan.name;
  record.file = loaded->plan.file.string();
  Store store = open_store(common);
  const SignalsCaught caught;
  store.stop_on(&interrupted);
  std::vector<StageResult> results;
  std::optional<EventWriter> events;
  {
    check_resources(preflight(loaded->plan, store, loaded->catalog, options), common, store);
    // A run that is refused has no events.
    if (!arguments.events.empty()) events.emplace(arguments.events, record.id, loaded->plan, wanted);
    Display display(common);
    Observers observers({&display});
    if (events) observers.add(*events);
    results = execute(loaded->plan, store, loaded->catalog, options, observers);
  }
  record.seconds = unix_time() - record.started;
  const int code = exit_code_of(results);
  record.ok = code == 0;
  Json stages = Json::array();
  auto estimates = estimate_from_sources(loaded->plan, loaded->catalog, store, [&](const Stage& stage) -> const ActionEntry* {
    for (const StageResult& result : results)
      if (result.name == stage.name) return result.entry ? &*result.entry : nullptr;
    return nullptr;
  });
  for (const StageResult& result : results) stages.push_back(stage_json(result, estimates[result.name]));
  record.summary = {{"schema", 1},     {"run", record.id},          {"recipe", record.recipe},
                    {"ok", record.ok}, {"seconds", record.seconds}, {"stages", std::move(stages)}};
  store.record_run(record);
  if (events) {
    events->end(record.ok, record.seconds, interrupted);
    if (const std::string& trouble = events->trouble(); !trouble.empty()) remark(common, "warning: " + trouble);
  }
  if (!arguments.out.empty() && interrupted == 0) write_packages(store, results, arguments.out, common);
  if (common.verbose > 0)
    for (const std::string& note : store.notes()) remark(common, note);
  if (common.json)
    print_json(record.summary);
  else
    print(as_table(results, common.colour_out));
  if (interrupted != 0) remark(common, "interrupted; finished stages are kept");
  return code;
}

CommandAction set_up(CLI::App& app) {
  auto arguments = std::make_shared<Arguments>();
  arguments->recipe.attach(app);
  app.add_option("STAGE", arguments->wanted, "only these stages and what they need");
  app.add_option("--force", arguments->force, "a stage to run even when cached (again for more)")
      ->type_name("STAGE")
      ->allow_extra_args(false);
  app.add_option("--jobs", arguments->jobs, "stages at a time (1); those that measure speed always run alone")
      ->type_name("N")
      ->check(CLI::Range(1, 1024));
  auto* keep_going =
      app.add_flag("--keep-going", arguments->keep_going, "after a failure, finish the other branches (the default)");
  app.add_flag("--fail-fast", arguments->fail_fast, "after a failure, start no other stage")->excludes(keep_going);
  app.add_option("--out", arguments->out, "write the packages that the recipe makes into this folder")->type_name("DIR");
  app.add_option("--events", arguments->events, "write what happens into this file, as it happens: a line of JSON for each event")
      ->type_name("FILE");
  app.add_flag("--in-process", arguments->in_process, "(not there yet) run stages in this process, for debuggers");
  return [arguments](const CommonOptions& common) { return run(*arguments, common); };
}

const RegisterCommand registered{
    {"run",
     "run a recipe; what is cached is not done again",
     {"espalier run recipe.toml", "espalier run recipe.toml package --set sparsity=0.3 --out packages",
      "espalier run recipe.toml --force speed --json", "espalier run recipe.toml --events run.jsonl  # tail -f run.jsonl | jq ."},
     set_up}};

}  // namespace
}  // namespace espalier
