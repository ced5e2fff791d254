#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>

#include "host/manifest.h"
#include "host/parameter.h"
#include "recipe/matrix.h"
#include "recipe/order.h"
#include "recipe/report_roles.h"
#include "recipe/source.h"
#include "recipe/substitute.h"
#include "recipe/units.h"
#include "recipe/values.h"

namespace espalier {
namespace {

bool is_stage_name(std::string_view name) {
  const auto letter = [](char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; };
  return !name.empty() && name.size() <= 128 && letter(name[0]) &&
         std::all_of(name.begin(), name.end(), [&](char c) { return letter(c) || (c >= '0' && c <= '9') || c == '-'; });
}

std::string what_is(const Node& node) {
  return node.kind == Node::Kind::foreign ? node.scalar.get<std::string>() : describe_value(to_json(node));
}

/// One pass over a recipe's tables; every method adds findings and goes on.
class Loader {
 public:
  Loader(const std::filesystem::path& file, const Catalog& catalog, const RecipeOptions& options, Findings& findings)
      : options_(options),
        findings_(findings),
        values_(catalog, std::filesystem::absolute(file).parent_path(), options.working_directory, findings) {
    plan_.file = std::filesystem::absolute(file).lexically_normal();
    plan_.name = plan_.file.stem().string();
  }

  std::optional<Plan> load(Node& root) {
    check_top(root);
    const Member* params = table(root, "params");
    Substitution substitution(params ? &params->value : nullptr, options_, findings_);
    for (auto& member : root.members)
      if (member.key == "recipe" || member.key == "stages" || member.key == "report") substitution.apply(member.value);
    read_head(root);
    plan_.params = substitution.values();
    const Member* stages = table(root, "stages");
    if (!stages) {
      if (!root.find("stages"))
        findings_.error("missing-stages", {}, "the recipe has no stages",
                        "a stage is a table [stages.NAME] with use = \"KIND/NAME\"");
      return std::nullopt;
    }
    if (stages->value.members.empty()) findings_.error("missing-stages", stages->key_at, "the recipe has no stages");
    stage_tables_ = stages->value;
    expand_matrix(stage_tables_, findings_);
    index_stages(stage_tables_);
    for (std::size_t i = 0; i < parts_.size(); ++i) read_stage(i);
    if (const Member* report = table(root, "report")) plan_.report = read_report_roles(*report, stages_, findings_);
    const auto order = topological_order(names_, edges_, findings_);
    if (findings_.failed()) return std::nullopt;
    substitution.warn_unused();  // beside an error it would be noise: a misspelt ${name} leaves its parameter unused
    for (const auto i : order) plan_.stages.push_back(std::move(stages_[i]));
    return std::move(plan_);
  }

 private:
  const Member* table(const Node& root, std::string_view key) {
    const Member* member = root.find(key);
    if (!member || member->value.kind == Node::Kind::table) return member;
    findings_.error("type", member->value.at, fmt::format("\"{}\" must be a table, not {}", key, what_is(member->value)),
                    fmt::format("write [{}]", key));
    return nullptr;
  }

  void check_top(const Node& root) {
    static const std::vector<std::string> known = {"recipe", "params", "report", "stages"};
    for (const auto& member : root.members) {
      if (std::find(known.begin(), known.end(), member.key) != known.end()) continue;
      if (member.key == "extends")
        findings_.error("unsupported", member.key_at, fmt::format("\"{}\" is not there yet", member.key));
      else if (member.key == "matrix")
        findings_.error("unknown-key", member.key_at, "a matrix belongs to a stage",
                        "for example matrix = { sparsity = [0.1, 0.2] } in [stages.NAME]");
      else
        findings_.error("unknown-key", member.key_at, fmt::format("a recipe has no table {}", describe_value(member.key)),
                        top_hint(member.key, known));
    }
  }
  std::string top_hint(const std::string& key, const std::vector<std::string>& known) {
    const auto near = findings_.suggest(key, known);
    return near.empty() ? "a recipe has [recipe], [params], [stages.NAME] and [report]" : near;
  }

  void read_head(const Node& root) {
    const Member* head = table(root, "recipe");
    if (!head) return;
    static const std::vector<std::string> known = {"name", "description", "seed"};
    for (const auto& member : head->value.members) {
      const Node& value = member.value;
      if (value.reported()) continue;
      if (member.key == "name" || member.key == "description") {
        if (!value.is_text())
          findings_.error("type", value.at, fmt::format("\"{}\" must be a string, not {}", member.key, what_is(value)));
        else
          (member.key == "name" ? plan_.name : plan_.description) = value.scalar.get<std::string>();
      } else if (member.key == "seed") {
        if (const auto seed = read_seed(value)) plan_.seed = *seed;
      } else if (member.key == "extends") {
        findings_.error("unsupported", member.key_at, "\"extends\" is not there yet");
      } else {
        findings_.error("unknown-key", member.key_at, fmt::format("[recipe] has no key {}", describe_value(member.key)),
                        findings_.suggest(member.key, known));
      }
    }
  }

  std::optional<std::uint64_t> read_seed(const Node& value) {
    if (value.kind == Node::Kind::scalar && value.scalar.is_number_integer()) {
      if (value.scalar.get<std::int64_t>() >= 0) return value.scalar.get<std::uint64_t>();
      findings_.error("range", value.at, "\"seed\" must not be negative");
    } else {
      findings_.error("type", value.at, fmt::format("\"seed\" must be an integer, not {}", what_is(value)));
    }
    return std::nullopt;
  }

  void index_stages(const Node& stages) {
    for (const auto& member : stages.members) {
      if (member.value.reported()) continue;
      if (member.value.kind != Node::Kind::table) {
        findings_.error("type", member.value.at, fmt::format("a stage must be a table, not {}", what_is(member.value)),
                        fmt::format("write [stages.{}]", member.key.substr(0, 60)));
        continue;
      }
      if (!is_stage_name(stage_base(member.key)))
        findings_.error("name", member.key_at, fmt::format("{} cannot name a stage", describe_value(member.key)),
                        "letters, digits, \"_\" and \"-\", beginning with a letter");
      index_.emplace(member.key, parts_.size());
      parts_.push_back(&member);
      names_.push_back(member.key);
      Stage stage;
      stage.name = member.key;
      stage.line = member.key_at.line;
      stage.seed = plan_.seed;
      if (const Member* use = member.value.find("use")) {
        stage.component = values_.component(use->value, {});
        if (use->value.is_text()) stage.use = use->value.scalar.get<std::string>();
      } else {
        findings_.error("missing-use", member.key_at, fmt::format("stage \"{}\" does not say which component it uses", member.key),
                        "add use = \"KIND/NAME\"");
      }
      stages_.push_back(std::move(stage));
    }
  }

  void read_stage(std::size_t index) {
    const Member& part = *parts_[index];
    Stage& stage = stages_[index];
    const ComponentInfo* component = stage.component;
    std::vector<const Member*> parameters;
    std::set<std::string> ports;
    for (const auto& member : part.value.members) {
      if (is_reserved(member.key)) {
        read_reserved(stage, member);
      } else if (!component) {
        check_references(index, member.value);  // what can be said without knowing the component
      } else if (const PortInfo* port = find_port(component->inputs, member.key)) {
        ports.insert(port->name);
        read_input(index, *port, member);
      } else if (has_parameter(*component, member.key)) {
        parameters.push_back(&member);
      } else {
        findings_.error("unknown-key", member.key_at,
                        fmt::format("{} has no input or parameter {}", component->name, describe_value(member.key)),
                        key_hint(*component, member.key));
        check_references(index, member.value);
      }
    }
    if (!component) return;
    for (const auto& port : component->inputs)
      if (port.required && !ports.count(port.name)) missing_input(part, *component, port);
    stage.params = values_.read(*component, parameters, part.key_at, stage.files);
  }

  static bool is_reserved(const std::string& key) {
    const auto& keys = reserved_stage_keys();
    return std::find(keys.begin(), keys.end(), key) != keys.end();
  }
  static const PortInfo* find_port(const std::vector<PortInfo>& ports, std::string_view name) {
    const auto found = std::find_if(ports.begin(), ports.end(), [&](const PortInfo& p) { return p.name == name; });
    return found == ports.end() ? nullptr : &*found;
  }
  static bool has_parameter(const ComponentInfo& component, std::string_view name) {
    return std::any_of(component.parameters.begin(), component.parameters.end(),
                       [&](const ParameterInfo& p) { return p.name == name; });
  }

  std::string key_hint(const ComponentInfo& component, const std::string& key) {
    std::vector<std::string> all = reserved_stage_keys();
    for (const auto& port : component.inputs) all.push_back(port.name);
    for (const auto& parameter : component.parameters) all.push_back(parameter.name);
    const auto near = findings_.suggest(key, all);
    return near.empty() ? fmt::format("`espalier plugins {}` lists them", component.name) : near;
  }

  void missing_input(const Member& part, const ComponentInfo& component, const PortInfo& port) {
    std::string hint;
    for (const auto& other : stages_) {  // an example that would fit
      if (!hint.empty() || findings_.full() || other.name == part.key || !other.component) continue;
      for (std::size_t i = 0; i < other.component->outputs.size(); ++i) {
        if (other.component->outputs[i].type != port.type) continue;
        hint = fmt::format("for example {} = \"@{}{}\"", port.name, other.name, i ? "." + other.component->outputs[i].name : "");
        break;
      }
    }
    if (hint.empty()) hint = fmt::format("{} = \"@STAGE\", a stage that gives {} artifacts", port.name, to_string(port.type));
    findings_.error("missing-input", part.key_at,
                    fmt::format("{} needs the input \"{}\" ({})", component.name, port.name, to_string(port.type)), hint);
  }

  void read_input(std::size_t index, const PortInfo& port, const Member& member) {
    const Node& value = member.value;
    std::vector<StageInput> producers;
    if (value.kind == Node::Kind::list) {
      if (!port.many)
        return findings_.error("type", value.at, fmt::format("the input \"{}\" takes one reference, not a list", port.name));
      if (value.items.empty() && port.required)
        return findings_.error("missing-input", value.at, fmt::format("the input \"{}\" needs at least one reference", port.name));
      for (const auto& item : value.items)
        if (auto producer = read_reference(index, port, item)) producers.push_back(std::move(*producer));
    } else if (auto producer = read_reference(index, port, value)) {
      producers.push_back(std::move(*producer));
    }
    if (!producers.empty()) stages_[index].inputs.emplace(port.name, std::move(producers));
  }

  std::optional<StageInput> read_reference(std::size_t index, const PortInfo& port, const Node& value) {
    if (value.reported()) return std::nullopt;
    if (!is_reference(value)) {
      std::string hint = fmt::format("write {} = \"@STAGE\"", port.name);
      if (value.is_text() && index_.count(value.scalar.get_ref<const std::string&>()))
        hint = fmt::format("did you mean \"@{}\"?", value.scalar.get_ref<const std::string&>());
      findings_.error("type", value.at,
                      fmt::format("\"{}\" is an input: it takes a reference to a stage, not {}", port.name, what_is(value)), hint);
      return std::nullopt;
    }
    const auto producer = resolve(index, value);
    if (!producer) return std::nullopt;
    const ComponentInfo* component = stages_[index_.at(producer->stage)].component;
    const PortInfo* output = component ? find_port(component->outputs, producer->port) : nullptr;
    if (!output) return std::nullopt;
    if (output->type != port.type) {
      std::string hint;
      for (const auto& other : component->outputs)
        if (other.type == port.type && hint.empty()) hint = fmt::format("did you mean \"@{}.{}\"?", producer->stage, other.name);
      findings_.error("port-type", value.at,
                      fmt::format("the input \"{}\" takes artifacts of type {}, but \"@{}.{}\" gives {}", port.name,
                                  to_string(port.type), producer->stage, producer->port, to_string(output->type)),
                      hint);
      return std::nullopt;
    }
    return producer;
  }

  /// "@stage" or "@stage.port" → producer with its port filled in; an edge is noted.
  std::optional<StageInput> resolve(std::size_t index, const Node& value) {
    auto [name, port] = split_reference(value.scalar.get_ref<const std::string&>().substr(1));
    StageInput producer{std::move(name), std::move(port)};
    const bool unnamed = producer.port.empty() && !value.scalar.get_ref<const std::string&>().ends_with('.');
    const auto found = index_.find(producer.stage);
    if (found == index_.end()) {
      auto hint = findings_.suggest(producer.stage, names_);
      findings_.error("unknown-stage", value.at, fmt::format("there is no stage {}", describe_value(producer.stage)), hint);
      return std::nullopt;
    }
    edges_.push_back({found->second, index, value.at});
    const Stage& stage = stages_[found->second];
    if (!stage.component) return std::nullopt;
    const auto& outputs = stage.component->outputs;
    if (outputs.empty()) {
      findings_.error("unknown-port", value.at, fmt::format("stage \"{}\" ({}) has no outputs", stage.name, stage.use));
      return std::nullopt;
    }
    if (unnamed) producer.port = outputs.front().name;
    if (find_port(outputs, producer.port)) return producer;
    std::vector<std::string> names;
    for (const auto& output : outputs) names.push_back(output.name);
    auto hint = findings_.suggest(producer.port, names);
    if (hint.empty()) {
      hint = "its outputs: ";
      for (std::size_t i = 0; i < names.size(); ++i) hint += (i ? ", " : "") + names[i];
    }
    findings_.error("unknown-port", value.at,
                    fmt::format("stage \"{}\" ({}) has no output {}", stage.name, stage.use, describe_value(producer.port)), hint);
    return std::nullopt;
  }

  void check_references(std::size_t index, const Node& value) {
    if (is_reference(value)) resolve(index, value);
    for (const auto& item : value.items) check_references(index, item);
  }

  void read_reserved(Stage& stage, const Member& member) {
    const auto& key = member.key;
    const Node& value = member.value;
    if (key == "use" || value.reported()) return;
    if (key == "isolation") return findings_.error("unsupported", member.key_at, fmt::format("\"{}\" is not there yet", key));
    if (key == "require") return read_require(stage, value);
    if (key == "threads") return read_threads(stage, value);
    if (key == "timeout") return read_timeout(stage, value);
    if (key == "memory") return read_memory(stage, value);
    if (key == "device") {
      if (!value.is_text())
        findings_.error("type", value.at, fmt::format("\"device\" must be a string, not {}", what_is(value)));
      else if (value.scalar != "cpu")
        findings_.error("unsupported", value.at, fmt::format("the device {} is not there yet", describe_value(value.scalar)),
                        "write device = \"cpu\", or leave it out");
      return;
    }
    if (const auto seed = read_seed(value)) {
      stage.seed = *seed;
      if (stage.component && !stage.component->uses_seed)
        findings_.warning("no-effect", member.key_at, fmt::format("{} uses no seed", stage.use));
    }
  }

  void read_threads(Stage& stage, const Node& value) {
    constexpr std::int64_t most = 1024;
    if (value.kind != Node::Kind::scalar || !value.scalar.is_number_integer())
      return findings_.error("type", value.at, fmt::format("\"threads\" must be an integer, not {}", what_is(value)));
    const auto threads = value.scalar.get<std::int64_t>();
    if (threads < 1 || threads > most)
      return findings_.error("range", value.at, fmt::format("\"threads\" is {}, out of range", threads),
                             fmt::format("allowed: 1 to {}", most));
    stage.threads = static_cast<int>(threads);
  }

  void read_timeout(Stage& stage, const Node& value) {
    if (value.is_text()) {
      stage.timeout_seconds = parse_duration(value.scalar.get_ref<const std::string&>());
      if (!stage.timeout_seconds)
        findings_.error("type", value.at, fmt::format("{} is no duration", describe_value(value.scalar)),
                        "for example \"90s\", \"10m\", \"1h30m\", or seconds as a number");
    } else if (value.kind == Node::Kind::scalar && value.scalar.is_number()) {
      const double seconds = value.scalar.get<double>();
      if (seconds > 0 && seconds < 3.2e8)
        stage.timeout_seconds = seconds;
      else
        findings_.error("range", value.at, "\"timeout\" must be more than zero seconds and less than ten years");
    } else {
      findings_.error("type", value.at, fmt::format("\"timeout\" must be a duration, not {}", what_is(value)),
                      "for example \"10m\"");
    }
  }

  void read_memory(Stage& stage, const Node& value) {
    if (value.is_text()) {
      stage.memory_bytes = parse_bytes(value.scalar.get_ref<const std::string&>());
      if (!stage.memory_bytes)
        findings_.error("type", value.at, fmt::format("{} is no amount of memory", describe_value(value.scalar)),
                        "for example \"4GiB\", \"512MiB\", or bytes as a number");
    } else if (value.kind == Node::Kind::scalar && value.scalar.is_number_integer()) {
      if (value.scalar.get<std::int64_t>() > 0)
        stage.memory_bytes = value.scalar.get<std::uint64_t>();
      else
        findings_.error("range", value.at, "\"memory\" must be more than zero bytes");
    } else {
      findings_.error("type", value.at, fmt::format("\"memory\" must be an amount of memory, not {}", what_is(value)),
                      "for example \"4GiB\"");
    }
  }

  void read_require(Stage& stage, const Node& value) {
    static const std::vector<std::string> pinned = {"perplexity",
                                                    "kl",
                                                    "top1_agreement",
                                                    "accuracy",
                                                    "prefill_tokens_per_second",
                                                    "decode_tokens_per_second",
                                                    "latency_p50_ms",
                                                    "latency_p95_ms",
                                                    "latency_p99_ms",
                                                    "startup_ms",
                                                    "peak_rss_bytes",
                                                    "size_bytes",
                                                    "parameters",
                                                    "macs",
                                                    "sparsity",
                                                    "speedup"};
    if (value.kind != Node::Kind::table)
      return findings_.error("type", value.at, fmt::format("\"require\" must be a table, not {}", what_is(value)),
                             "for example require = { speedup = \">1.0\" }");
    for (const auto& member : value.members) {
      if (member.value.reported()) continue;
      std::optional<Requirement> requirement;
      if (member.value.is_text()) requirement = parse_requirement(member.value.scalar.get_ref<const std::string&>());
      if (!requirement) {
        findings_.error("type", member.value.at,
                        fmt::format("\"{}\" must be an operator and a number, not {}", member.key, what_is(member.value)),
                        "for example \">1.0\", \"<=30\", \"==4\"");
        continue;
      }
      if (std::find(pinned.begin(), pinned.end(), member.key) == pinned.end())
        if (const auto near = findings_.suggest(member.key, pinned); !near.empty())
          findings_.warning("unknown-figure", member.key_at,
                            fmt::format("{} is none of the usual figures", describe_value(member.key)), near);
      requirement->figure = member.key;
      requirement->line = member.key_at.line;
      stage.require.push_back(std::move(*requirement));
    }
  }

  const RecipeOptions& options_;
  Findings& findings_;
  ParameterValues values_;
  Plan plan_;
  Node stage_tables_;                 ///< with matrices expanded
  std::vector<const Member*> parts_;  ///< of them
  std::vector<std::string> names_;
  std::vector<Stage> stages_;
  std::map<std::string, std::size_t> index_;
  std::vector<Edge> edges_;
};

}  // namespace

RecipeResult load_recipe(const std::filesystem::path& file, const Catalog& catalog, const RecipeOptions& options) {
  RecipeResult result;
  Findings findings(file.string());
  RecipeOptions complete = options;
  if (complete.working_directory.empty()) complete.working_directory = std::filesystem::current_path();
  if (auto text = read_recipe_text(file, findings)) {
    result.source = std::move(*text);
    if (auto root = parse_toml(result.source, findings)) result.plan = Loader(file, catalog, complete, findings).load(*root);
  }
  result.diagnostics = findings.take();
  return result;
}

}  // namespace espalier
