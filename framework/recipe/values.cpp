#include "recipe/values.h"

#include <fmt/format.h>

#include <algorithm>

#include "host/parameter.h"

namespace espalier {
namespace {

constexpr int deepest_component = 8;

std::string came_from(const Node& node) {
  if (node.parameter.empty()) return {};
  return fmt::format(" (from {}{})", node.origin == Origin::command_line ? "--set " : "${",
                     node.parameter + (node.origin == Origin::command_line ? "" : "}"));
}

void join_hint(std::string& hint, const std::string& more) {
  if (!more.empty()) hint += (hint.empty() ? "" : hint.ends_with("?") ? " " : "; ") + more;
}

/// Another name in the same folder that is nearly the same.
std::string similar_file(const std::filesystem::path& wanted, const Findings& findings) {
  constexpr int most_entries = 1000;
  std::vector<std::string> names;
  std::error_code error;
  for (std::filesystem::directory_iterator entry(wanted.parent_path(), error), end;
       !error && entry != end && names.size() < most_entries; entry.increment(error))
    names.push_back(entry->path().filename().string());
  return findings.suggest(wanted.filename().string(), names);
}

/// What to write instead of something that is no list.
std::string list_hint(const ParameterInfo& parameter, const Node& node) {
  if (element_type(parameter.type) == "component")
    return fmt::format("write {} = [{{ use = \"{}/…\" }}, …]", parameter.name, parameter.component_kind);
  return node.kind == Node::Kind::scalar ? fmt::format("write [{}]", describe_value(node.scalar).substr(0, 80)) : "";
}

}  // namespace

bool is_reference(const Node& node) {
  if (!node.is_text()) return false;
  const auto& text = node.scalar.get_ref<const std::string&>();
  return text.starts_with("@") && !text.starts_with("@@");
}

const ComponentInfo* ParameterValues::component(const Node& use, std::string_view kind) {
  if (use.reported()) return nullptr;
  if (!use.is_text()) {
    findings_.error("type", use.at, "\"use\" must be the name of a component, not " + describe_value(to_json(use)));
    return nullptr;
  }
  const auto& name = use.scalar.get_ref<const std::string&>();
  const ComponentInfo* found = catalog_.find(name);
  if (!found) {
    std::string hint;
    if (const auto why = catalog_.refusal(name); !why.empty()) hint = "it is offered, but cannot be used: " + why;
    if (hint.empty()) hint = findings_.suggest(name, catalog_.names(kind));
    if (hint.empty()) hint = findings_.suggest(name, catalog_.names());
    if (hint.empty())
      hint = catalog_.names().empty() ? "no plugin is installed here: see `espalier doctor`"
                                      : "`espalier plugins` lists what is installed";
    findings_.error("unknown-component", use.at, fmt::format("no plugin offers {}", describe_value(use.scalar)), hint);
    return nullptr;
  }
  if (!kind.empty() && found->kind() != kind) {
    std::string all;
    for (const auto& each : catalog_.names(kind)) all += (all.empty() ? "" : ", ") + each;
    findings_.error("component-kind", use.at, fmt::format("a {} is wanted here, \"{}\" is a {}", kind, name, found->kind()),
                    all.empty() ? "" : "installed: " + all);
    return nullptr;
  }
  return found;
}

Json ParameterValues::read(const ComponentInfo& component, const std::vector<const Member*>& given, Position place,
                           std::vector<std::filesystem::path>& files) {
  files_ = &files;
  Json result = Json::object();
  for (const auto& parameter : component.parameters) {
    const auto found = std::find_if(given.begin(), given.end(), [&](const Member* m) { return m->key == parameter.name; });
    if (found != given.end()) {
      result[parameter.name] = value(parameter, (*found)->value);
    } else if (parameter.required) {
      std::string hint = fmt::format("{} = …, {}", parameter.name, describe_type(parameter.type));
      if (!parameter.help.empty()) hint += ": " + parameter.help;
      findings_.error("missing-parameter", place, fmt::format("{} needs the parameter \"{}\"", component.name, parameter.name),
                      hint);
      result[parameter.name] = nullptr;
    } else if (parameter.default_value.is_null()) {
      result[parameter.name] = nullptr;
    } else {
      result[parameter.name] = value(parameter, from_json(parameter.default_value, place));
    }
  }
  return result;
}

Json ParameterValues::value(const ParameterInfo& parameter, Node node) {
  if (node.reported()) return nullptr;
  if (parameter.type == "component") return nested(parameter, node);
  const auto wrong_type = [&](std::string hint) {
    const Json plain = node.kind == Node::Kind::foreign ? node.scalar : to_json(node);
    const std::string what = node.kind == Node::Kind::foreign ? node.scalar.get<std::string>() : describe_value(plain);
    findings_.error(
        "type", node.at,
        fmt::format("\"{}\" must be {}, not {}{}", parameter.name, describe_type(parameter.type), what, came_from(node)),
        std::move(hint));
    return Json(nullptr);
  };
  if (is_list(parameter.type)) {
    if (node.kind != Node::Kind::list) return wrong_type(list_hint(parameter, node));
    const bool components = element_type(parameter.type) == "component";
    Json list = Json::array();
    for (auto& item : node.items) list.push_back(components ? nested(parameter, item) : scalar(parameter, item));
    return list;
  }
  if (is_map(parameter.type)) {
    if (node.kind != Node::Kind::table) return wrong_type(fmt::format("write {{ name = 1.0, … }}"));
    Json table = Json::object();
    for (auto& member : node.members) table[member.key] = scalar(parameter, member.value);
    return table;
  }
  if (node.kind != Node::Kind::scalar) return wrong_type("");
  return scalar(parameter, node);
}

Json ParameterValues::scalar(const ParameterInfo& parameter, Node& node) {
  if (node.reported()) return nullptr;
  if (node.kind != Node::Kind::scalar) {
    const std::string what = node.kind == Node::Kind::foreign ? node.scalar.get<std::string>() : describe_value(to_json(node));
    findings_.error("type", node.at,
                    fmt::format("\"{}\" must be {}: {} cannot stand in it", parameter.name, describe_type(parameter.type), what));
    return nullptr;
  }
  if (is_reference(node)) {
    findings_.error("type", node.at,
                    fmt::format("\"{}\" is a parameter and takes no reference to a stage{}", parameter.name, came_from(node)),
                    "a text that begins with \"@\" is written with \"@@\"");
    return nullptr;
  }
  if (node.is_text()) {
    auto& text = node.scalar.get_ref<std::string&>();
    if (text.starts_with("@@")) text.erase(0, 1);
  }
  if (auto problem = check_scalar(parameter, node.scalar)) {
    findings_.error(problem->code, node.at, problem->message + came_from(node), problem->hint);
    return nullptr;
  }
  return element_type(parameter.type) == "path" ? path(parameter, node) : node.scalar;
}

Json ParameterValues::path(const ParameterInfo& parameter, const Node& node) {
  const auto& base = node.origin == Origin::command_line ? working_directory_ : recipe_folder_;
  const auto file = (base / node.scalar.get_ref<const std::string&>()).lexically_normal();
  std::error_code error;
  if (!std::filesystem::exists(file, error)) {
    std::string hint = similar_file(file, findings_);
    const bool relative = !std::filesystem::path(node.scalar.get_ref<const std::string&>()).is_absolute();
    if (relative)
      join_hint(hint, fmt::format("the path is relative to the {}: {}",
                                  node.origin == Origin::command_line ? "working directory" : "recipe's folder", file.string()));
    const bool denied = error && error != std::errc::no_such_file_or_directory && error != std::errc::not_a_directory;
    findings_.error("missing-file", node.at,
                    fmt::format("\"{}\": {} {}{}", parameter.name, describe_value(node.scalar),
                                denied ? "cannot be looked at: " + error.message() : "does not exist", came_from(node)),
                    hint);
    return nullptr;
  }
  files_->push_back(file);
  return file.string();
}

Json ParameterValues::nested(const ParameterInfo& parameter, const Node& node) {
  if (node.reported()) return nullptr;
  const Member* use = node.kind == Node::Kind::table ? node.find("use") : nullptr;
  if (!use) {
    std::string example = parameter.component_kind + "/…";
    if (node.is_text() && catalog_.find(node.scalar.get_ref<const std::string&>())) example = node.scalar.get<std::string>();
    const bool list = is_list(parameter.type);
    findings_.error("type", node.at,
                    fmt::format("\"{}\" must be {}", parameter.name, list ? "a list of components" : "a component"),
                    fmt::format("write {} = {}{{ use = \"{}\" }}{}", parameter.name, list ? "[" : "", example, list ? ", …]" : ""));
    return nullptr;
  }
  if (depth_ >= deepest_component) {
    findings_.error("too-deep", node.at, fmt::format("components are nested more than {} deep", deepest_component));
    return nullptr;
  }
  const ComponentInfo* component = this->component(use->value, parameter.component_kind);
  if (!component) return nullptr;
  std::vector<std::string> names{"use"};
  for (const auto& each : component->parameters) names.push_back(each.name);
  std::vector<const Member*> given, of_owner;
  for (const auto& field : parameter.fields) {
    // Both would read one key; the plugins' authors have to part them.
    if (std::find(names.begin(), names.end(), field.name) != names.end())
      findings_.error("ambiguous-key", use->value.at,
                      fmt::format("{} has a parameter \"{}\" of its own, which \"{}\" reads as a key of each element",
                                  component->name, field.name, parameter.name),
                      "this component cannot be used here");
  }
  for (const auto& field : parameter.fields) names.push_back(field.name);
  for (const auto& member : node.members) {
    if (member.key == "use") continue;
    if (std::any_of(parameter.fields.begin(), parameter.fields.end(), [&](const auto& f) { return f.name == member.key; })) {
      of_owner.push_back(&member);
      continue;
    }
    if (std::find(names.begin(), names.end(), member.key) != names.end()) {
      given.push_back(&member);
      continue;
    }
    const bool port =
        std::any_of(component->inputs.begin(), component->inputs.end(), [&](const PortInfo& p) { return p.name == member.key; });
    auto hint = port ? std::string("its inputs come from the stage: leave it out here") : findings_.suggest(member.key, names);
    findings_.error("unknown-key", member.key_at,
                    fmt::format("{} has no parameter {}", component->name, describe_value(member.key)), hint);
  }
  ++depth_;
  Json result = read(*component, given, node.at, *files_);
  ComponentInfo owner;  // the fields are read as if they were a component's parameters
  owner.name = fmt::format("each element of \"{}\"", parameter.name);
  owner.parameters = parameter.fields;
  result.update(read(owner, of_owner, node.at, *files_));
  --depth_;
  result["use"] = component->name;
  return result;
}

}  // namespace espalier
