#include "engine/estimate.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <set>

namespace espalier {
namespace fs = std::filesystem;
namespace {

using Value = Expression::Value;
using Speed = std::function<std::optional<MachineSpeed>(int threads)>;
using Inputs = std::map<std::string, std::vector<Facts>>;

double bytes_of(const Json& paths) {
  double bytes = 0;
  const auto add = [&](const Json& path) {
    std::error_code error;
    if (!path.is_string()) return;
    const fs::path file = path.get<std::string>();
    if (fs::is_directory(file, error)) {
      for (const auto& item : fs::recursive_directory_iterator(file, error))
        if (item.is_regular_file(error)) bytes += static_cast<double>(item.file_size(error));
    } else if (const auto size = fs::file_size(file, error); !error) {
      bytes += static_cast<double>(size);
    }
  };
  if (paths.is_array())
    for (const Json& path : paths) add(path);
  else
    add(paths);
  return bytes;
}

/// Numbers in the arrays of .npy files, by the element size that their header states; bytes of all other files.
double elements_of(const Json& paths) {
  if (paths.is_array()) {
    double sum = 0;
    for (const Json& path : paths) sum += elements_of(path);
    return sum;
  }
  const double bytes = bytes_of(paths);
  if (!paths.is_string()) return bytes;
  std::ifstream in(paths.get<std::string>(), std::ios::binary);
  std::string head(128, '\0');
  in.read(head.data(), static_cast<std::streamsize>(head.size()));
  const auto at = head.find("'descr': '");
  if (!head.starts_with("\x93NUMPY") || at == std::string::npos || at + 13 > head.size()) return bytes;
  const char size = head[at + 12];  // after the byte order and the kind
  return size >= '1' && size <= '8' ? bytes / (size - '0') : bytes;
}

/// Facts that follow from nothing but the kind of artifact.
std::optional<double> implied(const Facts& facts, const std::string& fact) {
  if (fact == "sequence" && facts.contains("count")) return 1.0;
  if (const auto bytes = facts.find("bytes"); fact == "open_bytes" && bytes != facts.end()) return 2 * bytes->second;
  return std::nullopt;
}

/// Values of names for one component: a stage's own, or one that a parameter holds.
class Names {
 public:
  Names(const ComponentInfo& component, const Json& params, const Catalog& catalog, const Inputs& inputs, int threads,
        const Speed& speed)
      : component_(component), params_(params), catalog_(catalog), inputs_(inputs), threads_(threads), speed_(speed) {}

  std::optional<Value> operator()(const std::string& name) const {
    const auto dot = name.find('.');
    const std::string first = name.substr(0, dot), rest = dot == std::string::npos ? "" : name.substr(dot + 1);
    if (name == "threads") return static_cast<double>(threads_);
    if (first == "machine") return machine(rest);
    if (first == "input") return rest == "bytes" ? std::optional<Value>(all_bytes()) : std::nullopt;
    for (const PortInfo& port : component_.inputs)
      if (port.name == first) return fact(first, rest);
    for (const ParameterInfo& info : component_.parameters)
      if (info.name == first) return parameter(info, rest);
    return std::nullopt;
  }

 private:
  std::optional<Value> machine(const std::string& which) const {
    const auto speed = speed_(threads_);
    if (!speed) return std::nullopt;
    if (which == "flops") return speed->flops;
    if (which == "bandwidth") return speed->bandwidth;
    return std::nullopt;
  }
  std::optional<Value> fact(const std::string& port, const std::string& which) const {
    const auto found = inputs_.find(port);
    if (found == inputs_.end()) return 0.0;
    double sum = 0;
    for (const Facts& facts : found->second) {
      const auto value = facts.find(which);
      const auto stand_in = value == facts.end() ? implied(facts, which) : std::optional(value->second);
      if (!stand_in) return std::nullopt;
      sum += *stand_in;
    }
    return sum;
  }
  double all_bytes() const {
    double sum = 0;
    for (const auto& [port, artifacts] : inputs_)
      for (const Facts& facts : artifacts)
        if (const auto bytes = facts.find("bytes"); bytes != facts.end()) sum += bytes->second;
    for (const ParameterInfo& info : component_.parameters)
      if (info.type == "path" || info.type == "list<path>")
        if (const auto value = params_.find(info.name); value != params_.end()) sum += bytes_of(*value);
    return sum;
  }
  std::optional<Value> parameter(const ParameterInfo& info, const std::string& rest) const {
    const auto given = params_.find(info.name);
    const Json& value = given == params_.end() ? info.default_value : *given;
    if (rest == "bytes") return bytes_of(value);
    if (rest == "elements") return elements_of(value);
    if (info.type == "component") return inside(value, rest);
    if (info.type == "list<component>" && (rest == "memory" || rest == "seconds")) return together(value, rest);
    if (rest == "count") return static_cast<double>(value.size());
    if (!rest.empty()) {
      const auto found = value.is_object() ? value.find(rest) : value.end();
      return value.is_object() && found != value.end() && found->is_number() ? std::optional<Value>(found->get<double>())
                                                                             : std::optional<Value>(0.0);
    }
    if (value.is_number()) return value.get<double>();
    if (value.is_boolean()) return value.get<bool>() ? 1.0 : 0.0;
    if (value.is_string()) return value.get<std::string>();
    if (value.is_null()) return 0.0;
    return std::nullopt;
  }
  /// Of components that run one after the other: the largest memory, the sum of seconds.
  std::optional<Value> together(const Json& list, const std::string& rest) const {
    if (!list.is_array()) return std::nullopt;
    double most = 0, sum = 0;
    for (const Json& one : list) {
      const auto value = inside(one, rest);
      if (!value || !std::holds_alternative<double>(*value)) return std::nullopt;
      most = std::max(most, std::get<double>(*value));
      sum += std::get<double>(*value);
    }
    return rest == "memory" ? most : sum;
  }
  std::optional<Value> inside(const Json& value, const std::string& rest) const {
    if (value.is_null()) return rest == "use" ? Value(std::string()) : Value(0.0);  // left out
    if (!value.is_object() || !value.contains("use") || !value["use"].is_string()) return std::nullopt;
    if (rest == "use") return value["use"].get<std::string>();
    const ComponentInfo* component = catalog_.find(value["use"].get<std::string>());
    if (component == nullptr) return std::nullopt;
    const Names names(*component, value, catalog_, inputs_, threads_, speed_);
    const auto of = [&](const std::optional<Expression>& expression) -> std::optional<Value> {
      if (!expression) return std::nullopt;
      const auto number = expression->value(names);
      return number ? std::optional<Value>(*number) : std::nullopt;
    };
    if (rest == "memory") return of(component->estimate.memory);
    if (rest == "seconds") return of(component->estimate.seconds);
    return names(rest);
  }

  const ComponentInfo& component_;
  const Json& params_;
  const Catalog& catalog_;
  const Inputs& inputs_;
  int threads_;
  const Speed& speed_;
};

/// The line through the bytes that a stage reads, for components whose manifest says no more; nothing while a size is unknown.
std::optional<double> linear_memory(const ComponentInfo& component, const Inputs& inputs, const Names& names) {
  for (const PortInfo& port : component.inputs) {
    const auto found = inputs.find(port.name);
    const bool large = port.type == ArtifactType::model || port.type == ArtifactType::package || port.type == ArtifactType::dataset;
    if (found == inputs.end() || !large) continue;
    for (const Facts& facts : found->second)
      if (!facts.contains("bytes")) return std::nullopt;
  }
  const auto bytes = names("input.bytes");
  return component.memory_base + component.memory_per_byte * std::get<double>(*bytes);
}

/// What an output starts from: the first input of its type; a package, and a data set's scores, from the model.
Facts starting_facts(const PortInfo& output, const ComponentInfo& component, const Inputs& inputs) {
  for (const ArtifactType type : {output.type, ArtifactType::model})
    for (const PortInfo& port : component.inputs) {
      const auto found = inputs.find(port.name);
      if (port.type != type || found == inputs.end() || found->second.empty()) continue;
      Facts facts = found->second.front();
      const bool grows = output.type == ArtifactType::model || output.type == ArtifactType::package;
      if (type != output.type && !grows) facts.erase("bytes");
      return facts;
    }
  return {};
}

/// Of one position: free dimensions count once.
double output_elements(const Json& outputs) {
  double all = 0;
  for (const Json& output : outputs) {
    double elements = 1;
    for (const Json& size : output.value("shape", Json::array()))
      if (size.is_number()) elements *= size.get<double>();
    all += elements;
  }
  return all;
}

}  // namespace

Facts facts_of(const Artifact& artifact) {
  Facts facts;
  std::set<Digest> seen;
  double bytes = 0, largest = 0;
  for (const auto& [name, blob] : artifact.blobs) {
    const auto size = static_cast<double>(blob.size);
    if (seen.insert(blob.digest).second) bytes += size;
    largest = std::max(largest, size);
  }
  facts["bytes"] = bytes;
  for (const auto& [name, value] : artifact.meta.items())
    if (value.is_number()) facts[name] = value.get<double>();
  if (artifact.type == ArtifactType::model || artifact.type == ArtifactType::package)
    facts["language"] = artifact.meta.value("task", Json()) == "causal-lm" ? 1 : 0;
  if (artifact.type == ArtifactType::model) facts["largest_bytes"] = largest;
  if (artifact.type == ArtifactType::model) facts["output_elements"] = output_elements(artifact.meta.value("outputs", Json()));
  return facts;
}

StageEstimate estimate_stage(const Stage& stage, const Catalog& catalog, const Inputs& inputs, const Speed& speed) {
  StageEstimate estimate;
  if (stage.component == nullptr) return estimate;
  const ComponentInfo& component = *stage.component;
  const Names names(component, stage.params, catalog, inputs, stage.threads, speed);
  estimate.memory = component.estimate.memory ? component.estimate.memory->value(names) : linear_memory(component, inputs, names);
  if (component.estimate.seconds) estimate.seconds = component.estimate.seconds->value(names);
  for (const PortInfo& output : component.outputs) {
    Facts facts = starting_facts(output, component, inputs);
    if (const auto given = component.estimate.outputs.find(output.name); given != component.estimate.outputs.end())
      for (const auto& [fact, expression] : given->second) {
        const auto value = expression.value(names);
        if (value)
          facts[fact] = *value;
        else
          facts.erase(fact);
      }
    estimate.outputs[output.name] = std::move(facts);
  }
  return estimate;
}

std::map<std::string, StageEstimate> estimate_plan(
    const Plan& plan, const Catalog& catalog,
    const std::function<std::optional<Facts>(const Stage& stage, const std::string& port)>& known, const Speed& speed) {
  std::map<std::string, StageEstimate> estimates;
  for (const Stage& stage : plan.stages) {
    Inputs inputs;
    for (const auto& [port, producers] : stage.inputs)
      for (const StageInput& producer : producers) inputs[port].push_back(estimates[producer.stage].outputs[producer.port]);
    StageEstimate estimate = estimate_stage(stage, catalog, inputs, speed);
    for (const PortInfo& output : stage.component->outputs)
      if (const auto facts = known(stage, output.name))
        for (const auto& [fact, value] : *facts) estimate.outputs[output.name][fact] = value;
    estimates[stage.name] = std::move(estimate);
  }
  return estimates;
}

std::map<std::string, StageEstimate> estimate_from_sources(const Plan& plan, const Catalog& catalog, Store& store,
                                                           const std::function<const ActionEntry*(const Stage& stage)>& result) {
  return estimate_plan(
      plan, catalog,
      [&](const Stage& stage, const std::string& port) -> std::optional<Facts> {
        const ActionEntry* entry = stage.component->kind() == "source" ? result(stage) : nullptr;
        if (entry == nullptr) return std::nullopt;
        const auto output = entry->outputs.find(port);
        return output == entry->outputs.end() ? std::nullopt : std::optional(facts_of(store.artifact(output->second.second)));
      },
      [&](int threads) { return known_speed(store, threads); });
}

}  // namespace espalier
