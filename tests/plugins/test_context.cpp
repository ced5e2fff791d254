#include "test_context.h"

#include <ATen/Parallel.h>
#include <dlfcn.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <system_error>

#include "host/catalog.h"
#include "sdk/plugin.h"

namespace fs = std::filesystem;

namespace espalier::test {
namespace {

fs::path build_folder() {
  if (const char* build = std::getenv("ESPALIER_BUILD")) return build;
  return fs::read_symlink("/proc/self/exe").parent_path().parent_path();
}

const PluginInfo& plugin_of(const std::string& component) {
  static std::map<std::string, PluginInfo> known;
  auto dashed = component;
  std::replace(dashed.begin(), dashed.end(), '/', '-');
  auto [at, fresh] = known.try_emplace(component);
  if (fresh) {
    const auto file = "espalier-" + dashed + ".so";
    at->second =
        read_plugin(fs::exists(plugin_folder() / file) ? plugin_folder() / file : build_folder() / "tests" / "guide" / file);
  }
  if (!at->second.usable) throw Error(ErrorCode::internal, at->second.problem, component);
  return at->second;
}

const espalier_plugin& load(const fs::path& file) {
  void* library = dlopen(file.c_str(), RTLD_NOW | RTLD_NODELETE);
  if (!library) throw Error(ErrorCode::internal, dlerror(), file.string());
  auto entry = reinterpret_cast<const espalier_plugin* (*)()>(dlsym(library, "espalier_plugin_v1"));
  if (!entry) throw Error(ErrorCode::internal, "no entry", file.string());
  return *entry();
}

void check(int32_t code, const espalier_error& error) {
  if (code != 0) throw Error(static_cast<ErrorCode>(error.code), error.message, error.where, error.hint);
}

Json with_defaults(const std::string& component, Json given, const std::vector<ParameterInfo>& fields = {}) {
  for (const auto& info : plugin_of(component).components) {
    if (info.name != component) continue;
    auto parameters = info.parameters;
    parameters.insert(parameters.end(), fields.begin(), fields.end());
    std::set<std::string> known{"use"};
    for (const auto& p : parameters) {
      known.insert(p.name);
      if (!given.contains(p.name)) given[p.name] = p.default_value;
      const auto fill = [&](Json& one) { one = with_defaults(one.at("use").get<std::string>(), one, p.fields); };
      if (p.type == "component" && given[p.name].is_object()) fill(given[p.name]);
      if (p.type == "list<component>" && given[p.name].is_array()) std::for_each(given[p.name].begin(), given[p.name].end(), fill);
    }
    for (const auto& [key, value] : given.items()) {
      if (!known.contains(key)) throw Error(ErrorCode::internal, "the test gives an undeclared parameter " + key, component);
    }
    return given;
  }
  throw Error(ErrorCode::internal, "the manifest does not name it", component);
}

/// With parameters that are complete.
ComponentHandle open_filled(const std::string& name, const Json& params) {
  const auto& plugin = load(plugin_of(name).file);
  espalier_error error{sizeof error, 0, nullptr, nullptr, nullptr};
  void* object = nullptr;
  check(plugin.create(name.c_str(), &object, &error), error);
  auto* component = static_cast<Component*>(plugin.as_component(object));
  return {name, std::shared_ptr<Component>(component, [&plugin, object](Component*) { plugin.destroy(object); }), Params(params)};
}

}  // namespace

fs::path plugin_folder() { return build_folder() / "plugins"; }

TemporaryFolder::TemporaryFolder() {
  std::string name = (fs::temp_directory_path() / "espalier-plugins-XXXXXX").string();
  if (!mkdtemp(name.data())) throw std::system_error(errno, std::generic_category(), name);
  path_ = name;
}
TemporaryFolder::~TemporaryFolder() {
  std::error_code ignored;
  fs::remove_all(path_, ignored);
}
fs::path TemporaryFolder::write(const std::string& name, std::string_view text) const {
  std::ofstream(path_ / name, std::ios::binary) << text;
  return path_ / name;
}

ComponentHandle open_component(const std::string& name, const Json& given) { return open_filled(name, with_defaults(name, given)); }

void TestContext::run(const std::string& component, const Json& parameters, std::map<std::string, Artifact> inputs) {
  outputs.clear();
  figures.clear();
  details.clear();
  warnings.clear();
  messages.clear();
  reports = checks_ = 0;
  inputs_ = std::move(inputs);
  params_ = Params(with_defaults(component, parameters));
  at::set_num_threads(1);  // toy models: a second thread costs more than it brings, the more so on a busy machine
  const auto& plugin = load(plugin_of(component).file);
  espalier_error error{sizeof error, 0, nullptr, nullptr, nullptr};
  void* object = nullptr;
  check(plugin.create(component.c_str(), &object, &error), error);
  const auto code = plugin.run(object, static_cast<Context*>(this), &error);
  plugin.destroy(object);
  check(code, error);
}

const Artifact& TestContext::input(std::string_view port) const {
  const auto found = inputs_.find(std::string(port));
  if (found == inputs_.end()) throw Error(ErrorCode::internal, "no input on port", std::string(port));
  return found->second;
}

BlobRef TestContext::put(std::span<const std::byte> bytes, const Digest& known) {
  const BlobRef blob{known, bytes.size()};
  if (!fs::exists(path(blob))) {
    std::ofstream(path(blob), std::ios::binary).write(reinterpret_cast<const char*>(bytes.data()), std::streamsize(bytes.size()));
  }
  return blob;
}

BlobRef TestContext::put_file(const fs::path& file) {
  const BlobRef blob{sha256_file(file), fs::file_size(file)};
  fs::rename(file, path(blob));
  return blob;
}

void TestContext::check_cancelled() const {
  if (cancel_after >= 0 && checks_++ >= cancel_after) throw Error(ErrorCode::cancelled, "stopped by the test");
}

fs::path TestContext::scratch() {
  fs::create_directories(folder_ / "scratch");
  return folder_ / "scratch";
}

ComponentHandle TestContext::component(std::string_view name) {
  const Json& value = params_.json().at(std::string(name));
  return open_filled(value.at("use").get<std::string>(), value);
}

std::vector<ComponentHandle> TestContext::components(const Params& params, std::string_view name) {
  const Json& value = params.json().at(std::string(name));
  std::vector<ComponentHandle> handles;
  for (const Json& one : value.is_array() ? value : value.is_null() ? Json::array() : Json::array({value}))
    handles.push_back(open_filled(one.at("use").get<std::string>(), one));
  return handles;
}

}  // namespace espalier::test
