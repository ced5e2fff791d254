#include "host/manifest.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "host/parameter.h"
#include "sdk/error.h"
#include "sdk/fingerprint.h"

namespace espalier {
namespace {

constexpr int deepest = 32;

/// One place in the manifest: reads members by name and remembers what is wrong with them.
class Reader {
 public:
  Reader(const Json& value, std::string place, std::vector<std::string>& problems)
      : value_(value), place_(std::move(place)), problems_(problems), sound_(value.is_object()) {
    if (!sound_) complain(place_, "must be an object");
  }
  bool sound() const { return sound_; }
  std::string place(std::string_view key) const { return place_.empty() ? std::string(key) : fmt::format("{}.{}", place_, key); }
  void complain(const std::string& place, std::string_view what) const {
    problems_.push_back(fmt::format("key {} {}", place.empty() ? "(whole manifest)" : place, what));
  }

  /// The member, or null when it is not there; every name that is asked for counts as known.
  const Json* get(std::string_view key, bool required = false) {
    known_.emplace_back(key);
    if (!sound_) return nullptr;
    const auto found = value_.find(key);
    if (found != value_.end()) return &*found;
    if (required) complain(place(key), "is missing");
    return nullptr;
  }
  std::string text(std::string_view key, bool required = false) {
    const Json* value = get(key, required);
    if (!value) return {};
    if (!value->is_string() || (required && value->get_ref<const std::string&>().empty())) {
      complain(place(key), "must be a string that is not empty");
      return {};
    }
    return value->get<std::string>();
  }
  bool flag(std::string_view key, bool fallback) {
    const Json* value = get(key);
    if (!value) return fallback;
    if (!value->is_boolean()) complain(place(key), "must be true or false");
    return value->is_boolean() ? value->get<bool>() : fallback;
  }
  std::optional<double> number(std::string_view key) {
    const Json* value = get(key);
    if (!value) return std::nullopt;
    if (!value->is_number()) {
      complain(place(key), "must be a number");
      return std::nullopt;
    }
    return value->get<double>();
  }
  /// Calls `each` with every item of a list of objects.
  template <class Each>
  void objects(std::string_view key, bool required, Each each) {
    const Json* value = get(key, required);
    if (!value) return;
    if (!value->is_array()) return complain(place(key), "must be a list");
    for (std::size_t i = 0; i < value->size(); ++i) {
      Reader item((*value)[i], fmt::format("{}[{}]", place(key), i), problems_);
      if (!item.sound()) continue;
      each(item);
      item.refuse_unknown();
    }
  }
  std::vector<std::string> names(std::string_view key) {
    std::vector<std::string> result;
    const Json* value = get(key);
    if (!value) return result;
    if (!value->is_array()) {
      complain(place(key), "must be a list of strings");
      return result;
    }
    for (const auto& item : *value) {
      if (item.is_string())
        result.push_back(item.get<std::string>());
      else if (item.is_number_integer())
        result.push_back(item.dump());
      else
        complain(place(key), "must be a list of strings");
    }
    return result;
  }
  void refuse_unknown() {
    if (!sound_) return;
    for (const auto& [key, value] : value_.items()) {
      if (std::find(known_.begin(), known_.end(), key) != known_.end()) continue;
      const auto near = nearest(key, known_);
      complain(place(key), near ? fmt::format("is unknown (did you mean \"{}\"?)", *near) : "is unknown");
    }
  }

 private:
  const Json& value_;
  std::string place_;
  std::vector<std::string>& problems_;
  std::vector<std::string> known_;
  bool sound_;
};

bool is_word(std::string_view text) {
  if (text.empty() || text.size() > 64 || text[0] < 'a' || text[0] > 'z') return false;
  return std::all_of(text.begin(), text.end(),
                     [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' || c == '-' || c == '.'; });
}

bool is_component_name(std::string_view text) {
  const auto slash = text.find('/');
  return slash != std::string_view::npos && is_word(text.substr(0, slash)) && is_word(text.substr(slash + 1));
}

void read_name(Reader& in, std::string& name, std::set<std::string>& taken) {
  name = in.text("name", true);
  if (name.empty()) return;
  const auto& reserved = reserved_stage_keys();
  if (!is_word(name))
    in.complain(in.place("name"), "must begin with a letter and consist of a-z, 0-9, \"_\", \"-\"");
  else if (std::find(reserved.begin(), reserved.end(), name) != reserved.end())
    in.complain(in.place("name"), fmt::format("\"{}\" is reserved for recipes", name));
  else if (!taken.insert(name).second)
    in.complain(in.place("name"), fmt::format("\"{}\" stands there twice", name));
}

PortInfo read_port(Reader& in, bool input, std::set<std::string>& taken) {
  PortInfo port;
  read_name(in, port.name, taken);
  const auto type = in.text("type", true);
  if (!type.empty()) {
    try {
      port.type = artifact_type_from(type);
    } catch (const Error&) {
      in.complain(in.place("type"), fmt::format("names no artifact type: \"{}\"", type));
    }
  }
  port.help = in.text("help");
  if (input) {
    port.required = in.flag("required", true);
    port.many = in.flag("many", false);
  }
  return port;
}

/// The default against the parameter's own type, range and choices.
void check_default(Reader& in, ParameterInfo& p) {
  Json& value = p.default_value;
  const auto wrong = [&](const std::string& what) { in.complain(in.place("default"), what); };
  if (value.is_null()) return;
  if (p.required) return wrong("contradicts \"required\"");
  if (element_type(p.type) == "component") {
    const auto is_component = [](const Json& one) { return one.is_object() && one.contains("use") && one["use"].is_string(); };
    if (!is_list(p.type) && !is_component(value)) wrong("must be an object with \"use\"");
    if (is_list(p.type) && !(value.is_array() && std::all_of(value.begin(), value.end(), is_component)))
      wrong("must be a list of objects with \"use\"");
    return;
  }
  if (element_type(p.type) == "path") {
    if (value != Json::array()) wrong("cannot be a path: a path in a manifest means nothing on another machine");
    return;
  }
  const bool list = is_list(p.type), map = is_map(p.type);
  if (list != value.is_array() || map != value.is_object()) return wrong("must be " + describe_type(p.type));
  if (!list && !map) {
    if (const auto problem = check_scalar(p, value)) wrong("is wrong: " + problem->message);
    return;
  }
  for (auto& element : value)
    if (const auto problem = check_scalar(p, element)) return wrong("is wrong: " + problem->message);
}

ParameterInfo read_parameter(Reader& in, std::set<std::string>& taken);

/// A key of the owner's beside those of a component.
ParameterInfo read_field(Reader& in, std::set<std::string>& taken) {
  ParameterInfo field = read_parameter(in, taken);
  const bool scalar = element_type(field.type) == field.type && field.type != "component" && field.type != "path";
  if (!field.type.empty() && !scalar) in.complain(in.place("type"), "must be integer, number, boolean or string in a field");
  return field;
}

ParameterInfo read_parameter(Reader& in, std::set<std::string>& taken) {
  ParameterInfo p;
  read_name(in, p.name, taken);
  p.type = in.text("type", true);
  p.required = in.flag("required", false);
  p.min = in.number("min");
  p.max = in.number("max");
  p.choices = in.names("choices");
  p.unit = in.text("unit");
  p.help = in.text("help");
  p.component_kind = in.text("kind");
  if (const Json* value = in.get("default")) p.default_value = *value;
  if (p.type.empty()) return p;
  if (!is_parameter_type(p.type)) {
    in.complain(in.place("type"), fmt::format("names no parameter type: \"{}\"", p.type));
    return p;
  }
  const auto element = element_type(p.type);
  if ((p.min || p.max) && element != "integer" && element != "number")
    in.complain(in.place(p.min ? "min" : "max"), "is only for numbers");
  if (p.min && p.max && *p.min > *p.max) in.complain(in.place("min"), "is above \"max\"");
  if (!p.choices.empty() && element != "string" && element != "integer")
    in.complain(in.place("choices"), "is only for strings and integers");
  if (element == "component" && p.component_kind.empty()) in.complain(in.place("kind"), "is missing: which kind of component?");
  if (element != "component" && !p.component_kind.empty()) in.complain(in.place("kind"), "is only for components");
  std::set<std::string> fields{"use"};
  in.objects("fields", false, [&](Reader& item) { p.fields.push_back(read_field(item, fields)); });
  if (element != "component" && !p.fields.empty()) in.complain(in.place("fields"), "is only for components");
  check_default(in, p);
  return p;
}

/// An expression over what the component declares; a name that it does not is a slip.
std::optional<Expression> read_expression(Reader& in, const std::string& key, const ComponentInfo& c) {
  if (!in.get(key)) return std::nullopt;
  const std::string text = in.text(key, true);
  if (text.empty()) return std::nullopt;
  std::vector<std::string> known{"threads", "machine", "input"};
  for (const auto& port : c.inputs) known.push_back(port.name);
  for (const auto& parameter : c.parameters) known.push_back(parameter.name);
  try {
    Expression expression(text);
    for (const std::string& name : expression.names()) {
      const std::string first = name.substr(0, name.find('.'));
      if (std::find(known.begin(), known.end(), first) != known.end()) continue;
      const auto near = nearest(first, known);
      in.complain(in.place(key), fmt::format("speaks of \"{}\", which is no input and no parameter{}", name,
                                             near ? fmt::format(" (did you mean \"{}\"?)", *near) : ""));
    }
    return expression;
  } catch (const Error& error) {
    in.complain(in.place(key), fmt::format("is wrong: {} ({})", error.message(), error.where()));
    return std::nullopt;
  }
}

void read_output_facts(const Json& value, const std::string& place, ComponentInfo& c, std::vector<std::string>& problems) {
  Reader outputs(value, place, problems);
  for (const auto& port : c.outputs) {
    const Json* facts = outputs.get(port.name);
    if (!facts) continue;
    Reader in(*facts, outputs.place(port.name), problems);
    if (!in.sound()) continue;
    for (const auto& [fact, text] : facts->items())
      if (auto expression = read_expression(in, fact, c)) c.estimate.outputs[port.name].emplace(fact, std::move(*expression));
  }
  outputs.refuse_unknown();
}

void read_depends(Reader& in, ComponentInfo& c, std::vector<std::string>& problems) {
  if (const Json* value = in.get("depends")) {
    Reader depends(*value, in.place("depends"), problems);
    c.uses_seed = depends.flag("seed", false);
    c.uses_threads = depends.flag("threads", true);
    c.runtimes = depends.names("runtimes");
    depends.refuse_unknown();
  }
  if (const Json* value = in.get("estimate")) {
    Reader estimate(*value, in.place("estimate"), problems);
    for (const auto& [key, target] : {std::pair{"memory_base", &c.memory_base},
                                      {"memory_per_byte", &c.memory_per_byte},
                                      {"output_per_byte", &c.output_per_byte}}) {
      const auto number = estimate.number(key);
      if (number && !(*number >= 0 && *number <= 1e15))
        estimate.complain(estimate.place(key), "must be between 0 and 1e15");
      else if (number)
        *target = *number;
    }
    c.estimate.memory = read_expression(estimate, "memory", c);
    c.estimate.seconds = read_expression(estimate, "seconds", c);
    if (const Json* outputs = estimate.get("outputs")) read_output_facts(*outputs, estimate.place("outputs"), c, problems);
    estimate.refuse_unknown();
  }
}

ComponentInfo read_component(Reader& in, const PluginInfo& plugin, std::vector<std::string>& problems) {
  ComponentInfo c;
  c.file = plugin.file;
  c.name = in.text("name", true);
  if (!c.name.empty() && !is_component_name(c.name)) in.complain(in.place("name"), "must be KIND/NAME of a-z, 0-9, \"_\", \"-\"");
  c.version = in.text("version");
  if (c.version.empty()) c.version = plugin.version;
  c.summary = in.text("summary");
  std::set<std::string> keys, ports;  // inputs and parameters share a stage's keys
  in.objects("inputs", false, [&](Reader& item) { c.inputs.push_back(read_port(item, true, keys)); });
  in.objects("outputs", false, [&](Reader& item) { c.outputs.push_back(read_port(item, false, ports)); });
  in.objects("parameters", false, [&](Reader& item) { c.parameters.push_back(read_parameter(item, keys)); });
  c.byte_exact = in.flag("byte_exact", false);
  c.exclusive = in.flag("exclusive", false);
  read_depends(in, c, problems);
  return c;
}

/// Parses with bounded depth and without doubled keys, of which the library would silently keep the last.
Json parse_strictly(std::string_view text, std::string& problem) {
  std::vector<std::set<std::string>> keys;
  const auto watch = [&](int depth, Json::parse_event_t event, Json& parsed) {
    if (depth > deepest && problem.empty()) problem = "the manifest is nested too deeply";
    if (event == Json::parse_event_t::object_start) keys.emplace_back();
    if (event == Json::parse_event_t::object_end) keys.pop_back();
    if (event == Json::parse_event_t::key && !keys.back().insert(parsed.get<std::string>()).second && problem.empty())
      problem = fmt::format("key \"{}\" stands there twice", parsed.get<std::string>());
    return true;
  };
  try {
    return Json::parse(text, watch);
  } catch (const Json::exception& error) {
    problem = std::string("the manifest is not JSON: ") + error.what();
    return {};
  }
}

std::string epoch_of(std::string_view fingerprint) {
  const auto start = fingerprint.find("sdk=");
  if (start == std::string_view::npos) return {};
  const auto rest = fingerprint.substr(start + 4);
  return std::string(rest.substr(0, rest.find(';')));
}

/// Which side is older decides who has to be built again.
std::string fingerprint_problem(const std::string& found) {
  std::string advice = "rebuild the plugin against this installation";
  const auto theirs = epoch_of(found), ours = epoch_of(ESPALIER_FINGERPRINT);
  if (!theirs.empty() && (theirs.size() > ours.size() || (theirs.size() == ours.size() && theirs > ours)))
    advice = "the plugin is newer: update Espalier, or rebuild the plugin against this installation";
  return fmt::format("was built for \"{}\", this program is \"{}\"; {}", found, ESPALIER_FINGERPRINT, advice);
}

}  // namespace

const std::vector<std::string>& reserved_stage_keys() {
  static const std::vector<std::string> keys = {"use",  "threads", "timeout", "memory",   "device",
                                                "seed", "require", "matrix",  "isolation"};
  return keys;
}

PluginInfo parse_manifest(std::string_view text, const std::filesystem::path& file) {
  PluginInfo info;
  info.file = file;
  const auto refuse = [&](const std::string& what) { info.problem = fmt::format("{}: {}", file.string(), what); };

  std::string problem;
  const Json whole = parse_strictly(text, problem);
  if (!problem.empty()) {
    refuse(problem);
    return info;
  }
  std::vector<std::string> problems;
  Reader top(whole, "", problems);
  const Json* format = top.get("format", true);
  if (format && *format != 1) {
    refuse(fmt::format("key format is {}; this program reads manifests of format 1",
                       format->dump(-1, ' ', false, Json::error_handler_t::replace).substr(0, 40)));
    return info;
  }
  info.fingerprint = top.text("fingerprint", true);
  if (const Json* plugin = top.get("plugin", true)) {
    Reader in(*plugin, "plugin", problems);
    info.name = in.text("name", true);
    info.version = in.text("version", true);
    info.author = in.text("author");
    info.licence = in.text("licence");
    info.description = in.text("description");
    in.objects("components", true, [&](Reader& item) { info.components.push_back(read_component(item, info, problems)); });
    if (in.sound() && info.components.empty() && problems.empty()) in.complain("plugin.components", "names no component");
    in.refuse_unknown();
  }
  top.refuse_unknown();
  std::set<std::string> names;
  for (const auto& component : info.components)
    if (!names.insert(component.name).second) problems.push_back(fmt::format("component {} stands there twice", component.name));

  // A manifest of another epoch may well look strange; the fingerprint is what the person has to know then.
  if (!info.fingerprint.empty() && info.fingerprint != ESPALIER_FINGERPRINT) {
    refuse(fingerprint_problem(info.fingerprint));
    return info;
  }
  if (problems.empty()) {
    info.usable = true;
    return info;
  }
  std::string all;
  for (std::size_t i = 0; i < problems.size() && i < 3; ++i) all += (i ? "; " : "") + problems[i];
  if (problems.size() > 3) all += fmt::format("; and {} more", problems.size() - 3);
  refuse("wrong manifest: " + all);
  return info;
}

}  // namespace espalier
