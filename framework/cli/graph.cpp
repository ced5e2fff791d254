#include <fmt/format.h>

#include "cli/command.h"

namespace espalier {
namespace {

/// A quoted identifier of the DOT language.
std::string dot_id(std::string_view text) {
  std::string result = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') result += '\\';
    result += c;
  }
  return result + '"';
}

std::string dot(const Plan& plan) {
  std::string text =
      fmt::format("digraph {} {{\n  rankdir=LR;\n  node [shape=box, style=rounded, fontname=\"sans-serif\"];\n", dot_id(plan.name));
  for (const auto& stage : plan.stages) {
    std::string label = dot_id(stage.name);
    label.insert(label.size() - 1, "\\n" + stage.use);  // names of components need no escape
    text += fmt::format("  {} [label={}];\n", dot_id(stage.name), label);
  }
  for (const auto& stage : plan.stages)
    for (const auto& [port, producers] : stage.inputs)
      for (const auto& producer : producers)
        text += fmt::format("  {} -> {} [label={}];\n", dot_id(producer.stage), dot_id(stage.name), dot_id(port));
  return text + "}\n";
}

Json edges(const Plan& plan) {
  Json stages = Json::array(), list = Json::array();
  for (const auto& stage : plan.stages) {
    stages.push_back({{"name", stage.name}, {"use", stage.use}});
    for (const auto& [port, producers] : stage.inputs)
      for (const auto& producer : producers)
        list.push_back({{"from", producer.stage}, {"from_port", producer.port}, {"to", stage.name}, {"to_port", port}});
  }
  return {{"schema", 1}, {"ok", true}, {"recipe", plan.name}, {"stages", std::move(stages)}, {"edges", std::move(list)}};
}

CommandAction set_up(CLI::App& app) {
  auto recipe = std::make_shared<RecipeArguments>();
  recipe->attach(app);
  return [recipe](const CommonOptions& common) {
    const auto loaded = load(common, *recipe);
    if (!loaded) return 2;
    if (common.json)
      print_json(edges(loaded->plan));
    else
      print(dot(loaded->plan));
    return 0;
  };
}

const RegisterCommand registered{{"graph",
                                  "draw a recipe's stages as a DOT graph",
                                  {"espalier graph recipe.toml | dot -Tsvg > recipe.svg", "espalier graph recipe.toml --json"},
                                  set_up}};

}  // namespace
}  // namespace espalier
