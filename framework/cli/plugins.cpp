#include <fmt/format.h>

#include <algorithm>

#include "cli/command.h"
#include "cli/table.h"
#include "host/parameter.h"
#include "sdk/error.h"

namespace espalier {
namespace {

Json ports_json(const std::vector<PortInfo>& ports, bool inputs) {
  Json list = Json::array();
  for (const auto& port : ports) {
    Json item{{"name", port.name}, {"type", to_string(port.type)}, {"help", port.help}};
    if (inputs) {
      item["required"] = port.required;
      item["many"] = port.many;
    }
    list.push_back(std::move(item));
  }
  return list;
}

Json parameter_json(const ParameterInfo& p) {
  Json fields = Json::array();
  for (const auto& field : p.fields) fields.push_back(parameter_json(field));
  return {{"name", p.name},
          {"type", p.type},
          {"default", p.default_value},
          {"required", p.required},
          {"min", p.min ? Json(*p.min) : Json()},
          {"max", p.max ? Json(*p.max) : Json()},
          {"choices", p.choices},
          {"unit", p.unit},
          {"help", p.help},
          {"kind", p.component_kind},
          {"fields", std::move(fields)}};
}

Json component_json(const ComponentInfo& c) {
  Json parameters = Json::array();
  for (const auto& parameter : c.parameters) parameters.push_back(parameter_json(parameter));
  return {{"name", c.name},
          {"version", c.version},
          {"summary", c.summary},
          {"inputs", ports_json(c.inputs, true)},
          {"outputs", ports_json(c.outputs, false)},
          {"parameters", std::move(parameters)},
          {"uses_seed", c.uses_seed},
          {"uses_threads", c.uses_threads},
          {"runtimes", c.runtimes},
          {"byte_exact", c.byte_exact},
          {"exclusive", c.exclusive},
          {"file", c.file.string()}};
}

Json plugin_json(const PluginInfo& p) {
  Json components = Json::array();
  for (const auto& component : p.components) components.push_back(component_json(component));
  return {{"file", p.file.string()},      {"name", p.name},
          {"version", p.version},         {"author", p.author},
          {"licence", p.licence},         {"description", p.description},
          {"fingerprint", p.fingerprint}, {"usable", p.usable},
          {"problem", p.problem},         {"components", std::move(components)}};
}

/// What the "default" column says: a value, or that there must or need not be one.
std::string default_text(const ParameterInfo& p) {
  if (p.required) return "(required)";
  if (p.default_value.is_null()) return "";
  if (p.type == "component") return p.default_value.value("use", "");
  if (p.type == "list<component>") {
    std::string text;
    for (const auto& one : p.default_value) text += (text.empty() ? "" : ", ") + one.value("use", "");
    return text;
  }
  return p.default_value.dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::string allowed_text(const ParameterInfo& p) {
  std::string text;
  for (const auto& choice : p.choices) text += (text.empty() ? "" : " | ") + choice;
  if (p.min && p.max)
    text = fmt::format("{} to {}", *p.min, *p.max);
  else if (p.min)
    text = fmt::format(">= {}", *p.min);
  else if (p.max)
    text = fmt::format("<= {}", *p.max);
  if (!p.component_kind.empty()) text = p.component_kind + "/…";
  for (const auto& field : p.fields) text += ", " + field.name;
  return text + (p.unit.empty() ? "" : (text.empty() ? "" : " ") + p.unit);
}

std::string details(const ComponentInfo& c, const PluginInfo& plugin, bool colour) {
  using Align = Table::Align;
  const auto say = [](std::string_view text) { return printable(text); };
  std::string text = fmt::format("{} {}\n  {}\n", coloured(c.name, "bold", colour), say(c.version), say(c.summary));
  text += fmt::format("  from {} {} ({}{}{})\n  {}\n", say(plugin.name), say(plugin.version), say(plugin.licence),
                      plugin.author.empty() ? "" : ", ", say(plugin.author), c.file.string());
  if (c.exclusive) text += "  runs alone on the machine: it measures speed\n";
  if (!c.inputs.empty()) {
    Table table({{"input", Align::left}, {"takes", Align::left}, {"", Align::left}, {"", Align::left}});
    for (const auto& port : c.inputs)
      table.row({port.name, std::string(to_string(port.type)) + (port.many ? ", several" : ""), port.required ? "(required)" : "",
                 say(port.help)});
    text += "\n" + table.text(colour);
  }
  if (!c.outputs.empty()) {
    Table table({{"output", Align::left}, {"gives", Align::left}, {"", Align::left}});
    for (const auto& port : c.outputs) table.row({port.name, std::string(to_string(port.type)), say(port.help)});
    text += "\n" + table.text(colour);
  }
  if (!c.parameters.empty()) {
    Table table(
        {{"parameter", Align::left}, {"type", Align::left}, {"default", Align::left}, {"allowed", Align::left}, {"", Align::left}});
    for (const auto& p : c.parameters) table.row({p.name, p.type, say(default_text(p)), say(allowed_text(p)), say(p.help)});
    text += "\n" + table.text(colour);
  }
  return text;
}

struct Found {
  const ComponentInfo* component;
  const PluginInfo* plugin;
};

/// Components that a word means: a component's name, its part after the kind, a kind, or a plugin's name.
std::vector<Found> select(const Catalog& catalog, const std::string& word) {
  std::vector<Found> exact, loose;
  for (const auto& plugin : catalog.plugins()) {
    for (const auto& component : plugin.components) {
      if (catalog.find(component.name) != &component) continue;
      if (component.name == word)
        exact.push_back({&component, &plugin});
      else if (component.kind() == word || component.name.substr(component.kind().size() + 1) == word || plugin.name == word)
        loose.push_back({&component, &plugin});
    }
  }
  return exact.empty() ? loose : exact;
}

[[noreturn]] void not_found(const Catalog& catalog, const std::string& word) {
  if (const auto why = catalog.refusal(word); !why.empty())
    throw_invalid(fmt::format("component \"{}\" cannot be used", word), {}, why);
  auto names = catalog.names();
  for (const auto& plugin : catalog.plugins()) {
    names.push_back(plugin.name);
    for (const auto& component : plugin.components) names.push_back(component.kind());
  }
  const auto near = nearest(word, names);
  throw_invalid(fmt::format("there is no component, kind or plugin \"{}\"", word), {},
                near ? fmt::format("did you mean \"{}\"?", *near) : "`espalier plugins` lists them");
}

int show_some(const CommonOptions& common, const Catalog& catalog, const std::string& word) {
  const auto found = select(catalog, word);
  if (found.empty()) not_found(catalog, word);
  if (common.json) {
    Json list = Json::array();
    for (const auto& each : found) list.push_back(component_json(*each.component));
    print_json({{"schema", 1}, {"ok", true}, {"components", std::move(list)}});
    return 0;
  }
  std::string text;
  for (const auto& each : found) text += (text.empty() ? "" : "\n") + details(*each.component, *each.plugin, common.colour_out);
  print(text);
  return 0;
}

int show_all(const CommonOptions& common, const Catalog& catalog) {
  if (common.json) {
    Json list = Json::array(), folders = Json::array();
    for (const auto& plugin : catalog.plugins()) list.push_back(plugin_json(plugin));
    for (const auto& folder : Catalog::default_folders()) folders.push_back(folder.string());
    print_json({{"schema", 1}, {"ok", true}, {"folders", std::move(folders)}, {"plugins", std::move(list)}});
    return 0;
  }
  Table table({{"component", Table::Align::left}, {"version", Table::Align::left}, {"what it does", Table::Align::left}});
  for (const auto& name : catalog.names()) {
    const auto* component = catalog.find(name);
    table.row({name, printable(component->version), printable(component->summary)});
  }
  print(table.text(common.colour_out));
  for (const auto& plugin : catalog.plugins())
    if (!plugin.problem.empty()) remark(common, fmt::format("warning: {}", printable(plugin.problem)));
  if (catalog.names().empty()) remark(common, "no component is installed; `espalier doctor` says where plugins are looked for");
  return 0;
}

CommandAction set_up(CLI::App& app) {
  auto word = std::make_shared<std::string>();
  app.add_option("NAME", *word, "a component, a kind or a plugin: everything about it");
  return [word](const CommonOptions& common) {
    const Catalog catalog = Catalog::scan(Catalog::default_folders());
    return word->empty() ? show_all(common, catalog) : show_some(common, catalog, *word);
  };
}

const RegisterCommand registered{
    {"plugins",
     "list installed components, or describe one with its inputs and parameters; no plugin is loaded",
     {"espalier plugins", "espalier plugins pruner/channels", "espalier plugins metric", "espalier plugins --json"},
     set_up}};

}  // namespace
}  // namespace espalier
