#include <CLI/App.hpp>

#include "cli/command.h"
#include "cli/stored.h"
#include "sdk/error.h"
#include "store/files.h"

namespace espalier {
namespace {

constexpr std::size_t kLogLimit = 64u << 20;
constexpr int kPastRuns = 20;

struct Log {
  Digest digest;
  std::string origin;
};

/// Of the stage's last run, failed ones included; else of its cached result.
std::optional<Log> find_log(const LoadedRecipe& loaded, Store& store, const std::string& stage) {
  for (const Store::RunRecord& run : store.runs(loaded.plan.file, kPastRuns)) {
    const auto stages = run.summary.find("stages");
    if (stages == run.summary.end() || !stages->is_array()) continue;
    for (const Json& one : *stages) {
      if (!one.is_object() || one.value("name", "") != stage || !one.contains("log") || !one["log"].is_string()) continue;
      const auto digest = Digest::from_hex(one["log"].get<std::string>());
      if (digest && store.has_blob(*digest)) return Log{*digest, "run " + run.id + ": " + one.value("status", "")};
    }
  }
  const auto stored = stored_stage(loaded, store, stage);
  if (stored && stored->entry.log && store.has_blob(*stored->entry.log)) return Log{*stored->entry.log, "cached"};
  return std::nullopt;
}

int show_log(const RecipeArguments& recipe, const std::string& stage, const CommonOptions& common) {
  const auto loaded = load(common, recipe);
  if (!loaded) return 2;
  require_stage(loaded->plan, stage);
  Store store = open_store(common, true);
  const auto log = find_log(*loaded, store, stage);
  if (!log) throw_invalid("no log of stage \"" + stage + "\" is kept", loaded->plan.file.string(), "run the recipe first");
  const std::string text = read_small_file(store.blob_path(log->digest), kLogLimit).value_or("");
  remark(common, stage + ", " + log->origin + (text.empty() ? ": it printed nothing" : ""));
  if (common.json)
    print_json({{"schema", 1}, {"stage", stage}, {"origin", log->origin}, {"digest", log->digest.hex()}, {"text", text}});
  else
    print(text);
  return 0;
}

CommandAction set_up(CLI::App& app) {
  auto recipe = std::make_shared<RecipeArguments>();
  auto stage = std::make_shared<std::string>();
  recipe->attach(app);
  app.add_option("STAGE", *stage, "the stage")->required();
  return [=](const CommonOptions& common) { return show_log(*recipe, *stage, common); };
}

const RegisterCommand registered{{"log", "what a stage printed when it last ran", {"espalier log recipe.toml tuned"}, set_up}};

}  // namespace
}  // namespace espalier
