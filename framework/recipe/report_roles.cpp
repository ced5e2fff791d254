#include "recipe/report_roles.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "host/parameter.h"

namespace espalier {
namespace {

/// The stage that a role names, or nothing after a finding.
const Stage* role_stage(const Member& role, const std::vector<Stage>& stages, Findings& findings) {
  const Node& value = role.value;
  if (value.reported()) return nullptr;
  if (!value.is_text()) {
    findings.error("type", value.at, fmt::format("\"{}\" must name a stage", role.key),
                   fmt::format("for example {} = \"@package\"", role.key));
    return nullptr;
  }
  std::string name = value.scalar.get<std::string>();
  if (name.starts_with('@')) name.erase(0, 1);
  const auto found = std::find_if(stages.begin(), stages.end(), [&](const Stage& stage) { return stage.name == name; });
  if (found == stages.end()) {
    std::vector<std::string> names;
    for (const Stage& stage : stages) names.push_back(stage.name);
    std::string hint = findings.suggest(name, names);
    if (hint.empty() && name.find('.') != std::string::npos) hint = "name the stage alone, without a port";
    findings.error("unknown-stage", value.at, fmt::format("there is no stage {}", describe_value(name)), hint);
    return nullptr;
  }
  if (!found->component) return nullptr;  // reported where the stage stands
  const auto& outputs = found->component->outputs;
  if (!outputs.empty() && (outputs[0].type == ArtifactType::model || outputs[0].type == ArtifactType::package)) return &*found;
  findings.error("port-type", value.at,
                 fmt::format("stage \"{}\" ({}) gives {}: a report compares models or packages", found->name, found->use,
                             outputs.empty() ? "nothing" : "artifacts of type " + std::string(to_string(outputs[0].type))));
  return nullptr;
}

}  // namespace

std::optional<ReportRoles> read_report_roles(const Member& report, const std::vector<Stage>& stages, Findings& findings) {
  static const std::vector<std::string> known = {"candidate", "control", "original"};
  std::map<std::string, std::string> named;  // role → stage
  bool sound = true;
  for (const Member& member : report.value.members) {
    if (std::find(known.begin(), known.end(), member.key) == known.end()) {
      const std::string near = findings.suggest(member.key, known);
      findings.error("unknown-key", member.key_at, fmt::format("[report] has no key {}", describe_value(member.key)),
                     near.empty() ? "it has candidate, control and original" : near);
      sound = false;
      continue;
    }
    const Stage* stage = role_stage(member, stages, findings);
    if (!stage) {
      sound = false;
      continue;
    }
    for (const auto& [role, other] : named)
      if (other == stage->name) {
        findings.error("duplicate", member.value.at, fmt::format("\"{}\" is the {} already", other, role),
                       "a stage compared with itself shows nothing");
        sound = false;
      }
    named[member.key] = stage->name;
  }
  if (!sound) return std::nullopt;
  if (!named.contains("candidate") || named.size() < 2) {
    findings.error(
        "missing-input", report.key_at,
        named.contains("candidate") ? "[report] has a candidate, but nothing to compare it with"
                                    : "[report] does not say which stage is the candidate",
        named.contains("candidate") ? "add control = \"@STAGE\" or original = \"@STAGE\"" : "add candidate = \"@STAGE\"");
    return std::nullopt;
  }
  return ReportRoles{named["candidate"], named["control"], named["original"]};
}

}  // namespace espalier
