#pragma once
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "host/expression.h"
#include "sdk/artifact.h"

namespace espalier {

struct ParameterInfo {
  std::string name;
  /// integer, number, boolean, string, path, component, list<integer|number|string|path|component>, map<number>
  std::string type;
  Json default_value;  ///< null: none
  bool required = false;
  std::optional<double> min, max;
  std::vector<std::string> choices;
  std::string unit, help;
  std::string component_kind;  ///< for components: "metric"
  /// For components: keys beside theirs that belong to the owner of the parameter, such as a weight; scalars.
  std::vector<ParameterInfo> fields;
};

struct PortInfo {
  std::string name;
  ArtifactType type = ArtifactType::model;
  bool required = true;  ///< inputs only
  bool many = false;     ///< inputs only: takes a list of references
  std::string help;
};

/// What a stage of a component takes, as expressions over facts of its inputs ("model.parameters", "data.sequence"), its
/// parameters, "threads", and the machine ("machine.flops" and "machine.bandwidth" a second); see engine/estimate.h.
struct EstimateInfo {
  std::optional<Expression> memory;   ///< bytes at the peak
  std::optional<Expression> seconds;  ///< of the stage's process
  /// Output port → fact → value, where an output's facts are not those of the first input of its type.
  std::map<std::string, std::map<std::string, Expression>> outputs;
};

struct ComponentInfo {
  std::string name, version, summary;     ///< "pruner/channels"
  std::vector<PortInfo> inputs, outputs;  ///< the first output is the default port
  std::vector<ParameterInfo> parameters;
  bool uses_seed = false, uses_threads = true;
  std::vector<std::string> runtimes;  ///< "torch", "openvino": their versions enter the key
  bool byte_exact = false;            ///< the numeric profile stays out of the key
  bool exclusive = false;             ///< measures speed: runs alone, machine fingerprint in the key
  /// Linear estimates from the bytes of all inputs (files of sources included), where `estimate` says nothing.
  double memory_base = 6e8, memory_per_byte = 3.0, output_per_byte = 1.0;
  EstimateInfo estimate;
  std::filesystem::path file;  ///< the plugin that offers it
  std::string kind() const;    ///< "pruner"
};

struct PluginInfo {
  std::filesystem::path file;
  std::string name, version, author, licence, description, fingerprint;
  bool usable = false;
  std::string problem;  ///< why not, and what to do
  std::vector<ComponentInfo> components;
};

/// Reads the manifest from the ELF section `.espalier` of a file without loading it: bounds-checked, nothing of the file runs.
/// A file without a manifest, with a malformed one or with another fingerprint gives usable == false and a problem.
PluginInfo read_plugin(const std::filesystem::path& file);

/// All plugins of some folders (every *.so, not recursive). Two plugins that offer one component: both become unusable for it, with
/// a problem.
class Catalog {
 public:
  static Catalog scan(const std::vector<std::filesystem::path>& folders);
  /// The same from plugins that were read already (or only described, in tests).
  static Catalog from(std::vector<PluginInfo> plugins);
  /// The installation's plugin folder, then ESPALIER_PLUGIN_PATH.
  static std::vector<std::filesystem::path> default_folders();
  /// Sorted by file.
  const std::vector<PluginInfo>& plugins() const { return *plugins_; }
  const ComponentInfo* find(std::string_view component) const;
  std::vector<std::string> names(std::string_view kind = {}) const;  ///< sorted; for "did you mean"
  /// Why find() does not give a component that some plugin offers: "FILE: problem". Empty when no plugin offers it.
  std::string refusal(std::string_view component) const;

 private:
  // Shared and constant, so that what find() gave stays valid in every copy of the catalog.
  std::shared_ptr<const std::vector<PluginInfo>> plugins_ = std::make_shared<const std::vector<PluginInfo>>();
  std::map<std::string, const ComponentInfo*, std::less<>> by_name_;
};

/// The nearest of `candidates` by edit distance, if it is near enough to be a slip.
std::optional<std::string> nearest(std::string_view word, const std::vector<std::string>& candidates);

}  // namespace espalier
