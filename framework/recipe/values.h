#pragma once
#include <filesystem>
#include <vector>

#include "recipe/node.h"

namespace espalier {

/// Checks parameters of stages, and of the components inside them, against manifests.
class ParameterValues {
 public:
  ParameterValues(const Catalog& catalog, const std::filesystem::path& recipe_folder,
                  const std::filesystem::path& working_directory, Findings& findings)
      : catalog_(catalog), recipe_folder_(recipe_folder), working_directory_(working_directory), findings_(findings) {}

  /// The component that `use` names, or null with a finding. `kind` restricts it ("metric"); empty: any.
  const ComponentInfo* component(const Node& use, std::string_view kind);
  /// All parameters of `component`: what `given` says, else the default, else null. Missing ones are findings at `place`; paths
  /// become absolute and are collected in `files`.
  Json read(const ComponentInfo& component, const std::vector<const Member*>& given, Position place,
            std::vector<std::filesystem::path>& files);

 private:
  Json value(const ParameterInfo& parameter, Node node);
  Json scalar(const ParameterInfo& parameter, Node& node);
  Json nested(const ParameterInfo& parameter, const Node& node);
  Json path(const ParameterInfo& parameter, const Node& node);

  const Catalog& catalog_;
  std::filesystem::path recipe_folder_, working_directory_;
  Findings& findings_;
  std::vector<std::filesystem::path>* files_ = nullptr;
  int depth_ = 0;
};

/// True for text that refers to a stage: "@base", but not "@@base".
bool is_reference(const Node& node);

}  // namespace espalier
