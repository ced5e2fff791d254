#include "engine/request.h"

#include "sdk/error.h"
#include "store/index.h"

namespace espalier {
namespace {

void add_plugin(Json& plugins, const Catalog& catalog, const std::string& name) {
  if (plugins.contains(name)) return;
  const ComponentInfo* component = catalog.find(name);
  if (component == nullptr) return;  // the worker says so if it is asked for
  const FileStamp stamp = FileStamp::of(component->file);
  Json defaults = Json::object();
  for (const ParameterInfo& parameter : component->parameters) defaults[parameter.name] = parameter.default_value;
  plugins[name] = {{"file", component->file.string()},
                   {"size", stamp.size},
                   {"mtime", stamp.mtime_ns},
                   {"ctime", stamp.ctime_ns},
                   {"defaults", std::move(defaults)}};
}

/// The components that parameters name, and theirs.
void add_nested(Json& plugins, const Catalog& catalog, const Json& params) {
  for (const Json& value : params) {
    if (!value.is_object() || !value.contains("use") || !value["use"].is_string()) continue;
    add_plugin(plugins, catalog, value["use"].get<std::string>());
    add_nested(plugins, catalog, value);
  }
}

/// A component given by name alone has its own parameters' defaults.
Json with_defaults(const ComponentInfo& component, const Json& values, const Catalog& catalog) {
  Json filled = values;
  for (const ParameterInfo& parameter : component.parameters) {
    if (!filled.contains(parameter.name)) filled[parameter.name] = parameter.default_value;
    Json& value = filled[parameter.name];
    if (parameter.type != "component" || !value.is_object() || !value.contains("use")) continue;
    if (const ComponentInfo* inner = catalog.find(value["use"].get<std::string>())) value = with_defaults(*inner, value, catalog);
  }
  return filled;
}

}  // namespace

Json stage_request(const Stage& stage, const StageInputs& inputs, const Store& store, const Catalog& catalog) {
  const ComponentInfo& component = *stage.component;
  const Json params = with_defaults(component, stage.params, catalog);
  Json plugins = Json::object();
  add_plugin(plugins, catalog, component.name);
  add_nested(plugins, catalog, params);
  Json ports = Json::object();
  for (const PortInfo& port : component.inputs) {
    Json manifests = Json::array();
    if (const auto found = inputs.find(port.name); found != inputs.end())
      for (const Digest& digest : found->second) {
        const Artifact artifact = store.artifact(digest);
        if (const auto backend = artifact.meta.find("backend"); backend != artifact.meta.end() && backend->is_string())
          add_plugin(plugins, catalog, backend->get<std::string>());
        manifests.push_back(artifact.manifest());
      }
    ports[port.name] = {{"many", port.many}, {"artifacts", std::move(manifests)}};
  }
  Json outputs = Json::object();
  for (const PortInfo& port : component.outputs) outputs[port.name] = std::string(to_string(port.type));
  return {{"stage", stage.name},
          {"use", component.name},
          {"params", params},
          {"seed", stage.seed},
          {"threads", stage.threads},
          {"device", stage.device},
          {"store", store.root().string()},
          {"inputs", std::move(ports)},
          {"outputs", std::move(outputs)},
          {"plugins", std::move(plugins)}};
}

}  // namespace espalier
