#include <fmt/format.h>

#include "cli/command.h"
#include "cli/table.h"

namespace espalier {
namespace {

CommandAction set_up(CLI::App& app) {
  auto recipe = std::make_shared<RecipeArguments>();
  recipe->attach(app);
  return [recipe](const CommonOptions& common) {
    const auto loaded = load(common, *recipe);
    if (!loaded) return 2;
    if (common.json) {
      Json warnings = Json::array();
      for (const auto& warning : loaded->warnings) warnings.push_back(to_json(warning));
      print_json({{"schema", 1},
                  {"ok", true},
                  {"recipe", loaded->plan.name},
                  {"stages", loaded->plan.stages.size()},
                  {"diagnostics", std::move(warnings)}});
    } else if (!common.quiet) {
      const auto count = loaded->plan.stages.size();
      print(fmt::format("{}: {} stage{}, {}\n", printable(recipe->file), count, count == 1 ? "" : "s",
                        coloured("valid", "green", common.colour_out)));
    }
    return 0;
  };
}

const RegisterCommand registered{{"validate",
                                  "check a recipe: all errors at once, nothing runs",
                                  {"espalier validate recipe.toml", "espalier validate recipe.toml --set sparsity=0.3 --json"},
                                  set_up}};

}  // namespace
}  // namespace espalier
