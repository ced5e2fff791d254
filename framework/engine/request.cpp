#include "engine/request.h"

#include "host/parameter.h"
#include "sdk/error.h"
#include "store/index.h"

namespace espalier {
namespace {

Json with_defaults(const std::vector<ParameterInfo>& parameters, const Json& values, const Catalog& catalog);

/// A component given by name alone has its own parameters' defaults, and those of the keys beside them.
Json filled_component(const ParameterInfo& parameter, const Json& value, const Catalog& catalog) {
  if (!value.is_object() || !value.contains("use") || !value["use"].is_string()) return value;
  const ComponentInfo* inner = catalog.find(value["use"].get<std::string>());
  const Json filled = inner ? with_defaults(inner->parameters, value, catalog) : value;
  return with_defaults(parameter.fields, filled, catalog);
}

Json with_defaults(const std::vector<ParameterInfo>& parameters, const Json& values, const Catalog& catalog) {
  Json filled = values;
  for (const ParameterInfo& parameter : parameters) {
    if (!filled.contains(parameter.name)) filled[parameter.name] = parameter.default_value;
    Json& value = filled[parameter.name];
    if (parameter.type == "component") value = filled_component(parameter, value, catalog);
    if (parameter.type == "list<component>" && value.is_array())
      for (Json& one : value) one = filled_component(parameter, one, catalog);
  }
  return filled;
}

void add_nested(Json& plugins, const Catalog& catalog, const ComponentInfo& component, const Json& params);

void add_plugin(Json& plugins, const Catalog& catalog, const std::string& name) {
  if (plugins.contains(name)) return;
  const ComponentInfo* component = catalog.find(name);
  if (component == nullptr) return;  // the worker says so if it is asked for
  const FileStamp stamp = FileStamp::of(component->file);
  const Json defaults = with_defaults(component->parameters, Json::object(), catalog);
  plugins[name] = {{"file", component->file.string()},
                   {"size", stamp.size},
                   {"mtime", stamp.mtime_ns},
                   {"ctime", stamp.ctime_ns},
                   {"defaults", defaults}};
  add_nested(plugins, catalog, *component, defaults);
}

/// The components that parameters name, and theirs.
void add_nested(Json& plugins, const Catalog& catalog, const ComponentInfo& component, const Json& params) {
  for (const ParameterInfo& parameter : component.parameters) {
    const auto value = params.find(parameter.name);
    if (value == params.end()) continue;
    for (const Json& one : components_in(parameter, *value)) {
      const std::string name = one["use"].get<std::string>();
      add_plugin(plugins, catalog, name);
      if (const ComponentInfo* inner = catalog.find(name)) add_nested(plugins, catalog, *inner, one);
    }
  }
}

}  // namespace

Json stage_request(const Stage& stage, const StageInputs& inputs, const Store& store, const Catalog& catalog) {
  const ComponentInfo& component = *stage.component;
  const Json params = with_defaults(component.parameters, stage.params, catalog);
  Json plugins = Json::object();
  add_plugin(plugins, catalog, component.name);
  add_nested(plugins, catalog, component, params);
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
