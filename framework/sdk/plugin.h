#pragma once
/// What a plugin file includes: the C descriptor (the specification) and the C++ sugar over it.
///
///   #include "sdk/plugin.h"
///   class Size final : public espalier::Component { void run(espalier::Context& c) override { … } };
///   ESPALIER_PLUGIN(R"json({ "name": "size", "version": "0.1.0", "licence": "Apache-2.0", "author": "…",
///     "components": [ { "name": "evaluator/size", … } ] })json",
///     ESPALIER_COMPONENT("evaluator/size", Size))
///
/// The manifest (docs/plugins.md) lands in the ELF section `.espalier` as JSON and is read from the file without loading it.
#include <cstdint>
#include <memory>
#include <string_view>

#include "sdk/artifact.h"
#include "sdk/component.h"
#include "sdk/context.h"
#include "sdk/error.h"
#include "sdk/fingerprint.h"
#include "sdk/params.h"

extern "C" {

#define ESPALIER_SDK_EPOCH 1

/// Filled by the plugin's side of a failed call. The text belongs to the plugin and lives until its next call on that thread.
typedef struct espalier_error {
  uint32_t size;
  int32_t code;         ///< espalier::ErrorCode
  const char* message;  ///< never null after a failure
  const char* where;
  const char* hint;
} espalier_error;

/// The plugin descriptor. Append-only: a reader looks at `size` before it touches a member. Every call returns 0 on success, and
/// fills `error` otherwise; no exception leaves the plugin.
typedef struct espalier_plugin {
  uint32_t size;
  uint32_t sdk_epoch;
  const char* fingerprint;  ///< must equal the host's, or C++ interfaces are not touched
  int32_t (*create)(const char* component, void** object, espalier_error* error);
  void (*destroy)(void* object);
  /// `object` as a stage; `context` is the C++ espalier::Context.
  int32_t (*run)(void* object, void* context, espalier_error* error);
  /// The espalier::Component behind `object`.
  void* (*as_component)(void* object);
} espalier_plugin;

}  // extern "C"

namespace espalier::detail {

struct ComponentEntry {
  const char* name;
  std::unique_ptr<Component> (*make)();
};

/// One adapter for all plugins: catches everything, keeps the error's text. Defined in the SDK library.
int32_t create_component(const ComponentEntry* entries, std::size_t count, const char* name, void** object, espalier_error* error);
void destroy_component(void* object);
int32_t run_component(void* object, void* context, espalier_error* error);
void* component_of(void* object);

}  // namespace espalier::detail

#define ESPALIER_COMPONENT(name_, type_)                                                        \
  ::espalier::detail::ComponentEntry {                                                          \
    name_, []() -> std::unique_ptr<::espalier::Component> { return std::make_unique<type_>(); } \
  }

#define ESPALIER_PLUGIN(manifest_, ...)                                                                                          \
  namespace {                                                                                                                    \
  __attribute__((section(".espalier"), used)) const char espalier_manifest_text[] =                                              \
      "{\"format\":1,\"fingerprint\":\"" ESPALIER_FINGERPRINT "\",\"plugin\":" manifest_ "}";                                    \
  const ::espalier::detail::ComponentEntry espalier_entries[] = {__VA_ARGS__};                                                   \
  int32_t espalier_create(const char* name, void** object, espalier_error* error) {                                              \
    return ::espalier::detail::create_component(espalier_entries, sizeof espalier_entries / sizeof espalier_entries[0], name,    \
                                                object, error);                                                                  \
  }                                                                                                                              \
  const espalier_plugin espalier_descriptor = {sizeof(espalier_plugin),                                                          \
                                               ESPALIER_SDK_EPOCH,                                                               \
                                               ESPALIER_FINGERPRINT,                                                             \
                                               espalier_create,                                                                  \
                                               ::espalier::detail::destroy_component,                                            \
                                               ::espalier::detail::run_component,                                                \
                                               ::espalier::detail::component_of};                                                \
  }                                                                                                                              \
  extern "C" __attribute__((visibility("default"))) const espalier_plugin* espalier_plugin_v1() { return &espalier_descriptor; } \
  static_assert(true)
