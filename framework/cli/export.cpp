#include <CLI/App.hpp>

#include "cli/command.h"
#include "cli/packed.h"
#include "cli/stored.h"
#include "sdk/error.h"

namespace espalier {
namespace {

int export_stage(const RecipeArguments& recipe, const std::string& what, const std::string& folder, const CommonOptions& common) {
  const auto loaded = load(common, recipe);
  if (!loaded) return 2;
  // Stage names may hold dots: the whole text is tried first.
  std::string name = what, port;
  if (loaded->plan.find(what) == nullptr)
    if (const std::size_t dot = what.rfind('.'); dot != std::string::npos) name = what.substr(0, dot), port = what.substr(dot + 1);
  const Stage& stage = require_stage(loaded->plan, name);
  if (stage.component->outputs.empty()) throw_invalid("stage \"" + name + "\" has no outputs", loaded->plan.file.string());
  if (port.empty()) port = stage.component->outputs.front().name;
  Store store = open_store(common);
  const auto keep = store.in_use({});
  const StoredStage stored = require_stored(*loaded, store, name);
  const auto output = stored.entry.outputs.find(port);
  if (output == stored.entry.outputs.end()) {
    std::string ports;
    for (const auto& [each, value] : stored.entry.outputs) ports += (ports.empty() ? "" : ", ") + each;
    throw_invalid("stage \"" + name + "\" has no output \"" + port + "\"", loaded->plan.file.string(), "its outputs: " + ports);
  }
  write_packed(store, output->second.second, folder);
  const std::string type(to_string(output->second.first));
  if (common.json)
    print_json({{"schema", 1},
                {"ok", true},
                {"stage", name},
                {"port", port},
                {"type", type},
                {"digest", output->second.second.hex()},
                {"folder", folder}});
  else
    remark(common, name + "." + port + " (" + type + ") is in " + folder);
  return 0;
}

CommandAction set_up(CLI::App& app) {
  auto recipe = std::make_shared<RecipeArguments>();
  auto what = std::make_shared<std::string>(), folder = std::make_shared<std::string>();
  recipe->attach(app);
  app.add_option("STAGE[.PORT]", *what, "the stage, and one of its outputs (default: its first)")->required();
  app.add_option("DIR", *folder, "the folder to write")->required();
  return [=](const CommonOptions& common) { return export_stage(*recipe, *what, *folder, common); };
}

const RegisterCommand registered{
    {"export",
     "write a stage's output as files that other programs read",
     {"espalier export recipe.toml package build/package", "espalier export recipe.toml base.tokenizer tokenizer"},
     set_up}};

}  // namespace
}  // namespace espalier
