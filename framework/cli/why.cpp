#include "engine/why.h"

#include <fmt/chrono.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <ctime>

#include "cli/command.h"
#include "cli/table.h"

namespace espalier {
namespace {

const char* word_of(Explanation::State state) {
  return state == Explanation::State::hit ? "hit" : state == Explanation::State::miss ? "miss" : "waiting";
}

std::string moment(const Store::RunRecord& run) {
  const auto seconds = static_cast<std::time_t>(run.started);
  std::tm local{};
  ::localtime_r(&seconds, &local);
  return fmt::format("{:%Y-%m-%d %H:%M:%S}", local);
}

Json as_json(const Plan& plan, const Stage& stage, const Explanation& why) {
  Json causes = Json::array();
  for (const Cause& cause : why.causes)
    causes.push_back({{"stage", cause.stage},
                      {"use", cause.use},
                      {"what", cause.what},
                      {"before", cause.before.empty() ? Json() : Json(cause.before)},
                      {"now", cause.now.empty() ? Json() : Json(cause.now)}});
  Json compared;
  if (why.compared)
    compared = {{"run", why.compared->id},
                {"recipe", why.compared->recipe},
                {"file", why.compared->file},
                {"started", why.compared->started}};
  return {{"schema", 1},
          {"ok", true},
          {"recipe", plan.name},
          {"stage", stage.name},
          {"use", stage.use},
          {"status", word_of(why.state)},
          {"key", why.key ? Json(why.key->hex()) : Json()},
          {"compared", std::move(compared)},
          {"causes", std::move(causes)},
          {"through", why.through}};
}

std::string as_text(const Stage& stage, const Explanation& why, bool colour) {
  std::string text = fmt::format("{} ({}): ", printable(stage.name), stage.use);
  if (why.state == Explanation::State::hit) {
    text += coloured("cached", "green", colour) + fmt::format(" under key {}", why.key->hex().substr(0, 12));
    if (why.compared) text += fmt::format("; run {} of {} had it already", why.compared->id, moment(*why.compared));
    return text + "\n";
  }
  text += coloured("would run", "yellow", colour);
  if (!why.compared) return text + "; none of the store's last runs has a result of it\n";
  text += fmt::format("\ncompared with run {} of {}, recipe {}\n", why.compared->id, moment(*why.compared),
                      printable(why.compared->recipe));
  // Stages with the same causes (a new build of the project, say) are told once.
  std::vector<std::pair<std::string, std::vector<std::string>>> told;
  const auto side = [](const std::string& value) { return value.empty() ? std::string("(none)") : printable(value); };
  for (std::size_t first = 0, end = 0; first < why.causes.size(); first = end) {
    std::string lines;
    for (end = first; end < why.causes.size() && why.causes[end].stage == why.causes[first].stage; ++end) {
      const Cause& cause = why.causes[end];
      lines += fmt::format("    {}: {} → {}\n", printable(cause.what), side(cause.before), side(cause.now));
    }
    auto same = std::find_if(told.begin(), told.end(), [&](const auto& one) { return one.first == lines; });
    if (same == told.end()) same = told.insert(told.end(), {lines, {}});
    same->second.push_back(fmt::format("{} ({})", printable(why.causes[first].stage), why.causes[first].use));
  }
  for (const auto& [lines, stages] : told) text += fmt::format("  {}\n{}", fmt::join(stages, ", "), lines);
  if (!why.through.empty())
    text += fmt::format("and what reads that, unless it comes out the same: {}\n",
                        printable(fmt::format("{}", fmt::join(why.through, ", "))));
  return text;
}

CommandAction set_up(CLI::App& app) {
  auto recipe = std::make_shared<RecipeArguments>();
  auto name = std::make_shared<std::string>();
  recipe->attach(app);
  app.add_option("STAGE", *name, "the stage that is asked about")->required();
  return [=](const CommonOptions& common) {
    const auto loaded = load(common, *recipe);
    if (!loaded) return 2;
    const Stage& stage = require_stage(loaded->plan, *name);
    Store store = open_store(common);
    const Explanation why = explain(loaded->plan, store, loaded->catalog, stage.name);
    if (common.json)
      print_json(as_json(loaded->plan, stage, why));
    else
      print(as_text(stage, why, common.colour_out));
    return 0;
  };
}

const RegisterCommand registered{{"why",
                                  "say what has changed since the nearest earlier result of a stage",
                                  {"espalier why recipe.toml package", "espalier why recipe.toml package --set sparsity=0.3",
                                   "espalier why recipe.toml package --json"},
                                  set_up}};

}  // namespace
}  // namespace espalier
