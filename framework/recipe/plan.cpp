#include "recipe/plan.h"

#include <set>

#include "recipe/matrix.h"
#include "sdk/error.h"

namespace espalier {

const Stage* Plan::find(std::string_view name) const {
  for (const auto& stage : stages)
    if (stage.name == name) return &stage;
  return nullptr;
}

std::vector<const Stage*> Plan::named(std::string_view name) const {
  if (const Stage* one = find(name)) return {one};
  std::vector<const Stage*> all;
  for (const auto& stage : stages)
    if (stage_base(stage.name) == name && stage.name.size() > name.size()) all.push_back(&stage);
  return all;
}

std::vector<std::string> Plan::closure(const std::vector<std::string>& wanted) const {
  std::vector<std::string> known;
  for (const auto& stage : stages) known.push_back(stage.name);
  std::set<std::string> needed;
  for (const auto& name : wanted) {
    if (!find(name)) {
      const auto near = nearest(name, known);
      throw_invalid("the recipe has no stage \"" + name + "\"", file.string(), near ? "did you mean \"" + *near + "\"?" : "");
    }
    needed.insert(name);
  }
  // Producers stand before their readers, so one pass from the end finds them all.
  for (auto stage = stages.rbegin(); stage != stages.rend(); ++stage) {
    if (!needed.count(stage->name)) continue;
    for (const auto& [port, producers] : stage->inputs)
      for (const auto& producer : producers) needed.insert(producer.stage);
  }
  std::vector<std::string> result;
  for (const auto& name : known)
    if (needed.count(name)) result.push_back(name);
  return result;
}

}  // namespace espalier
