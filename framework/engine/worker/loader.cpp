#include "engine/worker/loader.h"

#include <dlfcn.h>

#include <boost/dll/shared_library.hpp>
#include <map>

#include "sdk/plugin.h"

namespace espalier {
namespace {

using Entry = const espalier_plugin*();

/// Boost.DLL passes its mode on to dlopen(). Nothing is ever unloaded: objects, threads and exceptions of a plugin may outlive any
/// handle.
constexpr auto kMode =
    static_cast<boost::dll::load_mode::type>(static_cast<int>(boost::dll::load_mode::rtld_now) | RTLD_LOCAL | RTLD_NODELETE);

Error refused(const std::filesystem::path& file, const std::string& message) {
  return Error(ErrorCode::invalid_input, message, file.string(), "rebuild the plugin against this installation");
}

[[noreturn]] void rethrow(const espalier_error& error, const std::filesystem::path& file) {
  const auto text = [](const char* value) { return std::string(value != nullptr ? value : ""); };
  const bool known = error.code >= 0 && error.code <= static_cast<std::int32_t>(ErrorCode::internal);
  std::string where = text(error.where);
  throw Error(known ? static_cast<ErrorCode>(error.code) : ErrorCode::internal, text(error.message),
              where.empty() ? file.string() : where, text(error.hint));
}

struct Object {
  const espalier_plugin* plugin;
  void* pointer;
};

Object create(const std::filesystem::path& file, const std::string& name) {
  const espalier_plugin* plugin = load_plugin(file);
  espalier_error error{sizeof(espalier_error), 0, nullptr, nullptr, nullptr};
  void* pointer = nullptr;
  if (plugin->create(name.c_str(), &pointer, &error) != 0) rethrow(error, file);
  if (pointer == nullptr) throw refused(file, "create(\"" + name + "\") gave no object");
  return {plugin, pointer};
}

}  // namespace

const espalier_plugin* load_plugin(const std::filesystem::path& file) {
  static std::map<std::filesystem::path, std::pair<boost::dll::shared_library, const espalier_plugin*>> loaded;
  const auto known = loaded.find(file);
  if (known != loaded.end()) return known->second.second;
  try {
    boost::dll::shared_library library(file, kMode);
    if (!library.has("espalier_plugin_v1")) throw refused(file, "no plugin: it does not export espalier_plugin_v1");
    const espalier_plugin* plugin = library.get<Entry>("espalier_plugin_v1")();
    if (plugin == nullptr || plugin->size < sizeof(espalier_plugin))
      throw refused(file, "its descriptor is smaller than this SDK's");
    if (plugin->sdk_epoch != ESPALIER_SDK_EPOCH || plugin->fingerprint == nullptr ||
        std::string_view(plugin->fingerprint) != ESPALIER_FINGERPRINT)
      throw refused(file, std::string("made for \"") + (plugin->fingerprint ? plugin->fingerprint : "?") +
                              "\", this is \"" ESPALIER_FINGERPRINT "\"");
    loaded.emplace(file, std::make_pair(std::move(library), plugin));
    return plugin;
  } catch (const std::system_error& error) {
    throw refused(file, std::string("cannot be loaded: ") + error.what());
  }
}

std::shared_ptr<Component> load_component(const std::filesystem::path& file, const std::string& name) {
  const Object object = create(file, name);
  const std::shared_ptr<void> owner(object.pointer, [plugin = object.plugin](void* pointer) { plugin->destroy(pointer); });
  auto* component = static_cast<Component*>(object.plugin->as_component(object.pointer));
  if (component == nullptr) throw refused(file, "\"" + name + "\" has no C++ component behind it");
  return std::shared_ptr<Component>(owner, component);
}

void run_component(const std::filesystem::path& file, const std::string& name, Context& context) {
  const Object object = create(file, name);
  const std::shared_ptr<void> owner(object.pointer, [plugin = object.plugin](void* pointer) { plugin->destroy(pointer); });
  espalier_error error{sizeof(espalier_error), 0, nullptr, nullptr, nullptr};
  if (object.plugin->run(object.pointer, &context, &error) != 0) rethrow(error, file);
}

}  // namespace espalier
