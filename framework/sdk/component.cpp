#include "sdk/component.h"

#include "sdk/context.h"
#include "sdk/error.h"
#include "sdk/plugin.h"

namespace espalier {

Component::~Component() = default;
void Component::run(Context&) {
  throw Error(ErrorCode::invalid_input, "this component cannot be a stage of its own", {},
              "use it as a parameter of a stage that takes one");
}
void* Component::interface(std::string_view) { return nullptr; }
Context::~Context() = default;

std::vector<ComponentHandle> Context::components(const Params&, std::string_view name) {
  throw Error(ErrorCode::internal, "this context opens no components, and \"" + std::string(name) + "\" holds some");
}

void* ComponentHandle::require_interface(std::string_view id) const {
  void* found = object ? object->interface(id) : nullptr;
  if (!found)
    throw_invalid("component '" + name + "' does not offer the interface " + std::string(id), {},
                  "give a component of the kind that this parameter asks for");
  return found;
}

namespace detail {
namespace {

thread_local std::string last_message, last_where, last_hint;

int32_t report(espalier_error* error, ErrorCode code, std::string message, std::string where = {}, std::string hint = {}) {
  last_message = std::move(message);
  last_where = std::move(where);
  last_hint = std::move(hint);
  if (error && error->size >= sizeof(espalier_error)) {
    error->code = static_cast<int32_t>(code);
    error->message = last_message.c_str();
    error->where = last_where.c_str();
    error->hint = last_hint.c_str();
  }
  return 1;
}

/// Runs `body`; nothing that it throws passes this line.
template <class Body>
int32_t guarded(espalier_error* error, Body body) {
  try {
    body();
    return 0;
  } catch (const Error& e) {
    return report(error, e.code(), e.message(), e.where(), e.hint());
  } catch (const std::bad_alloc&) {
    return report(error, ErrorCode::resource, "out of memory", {},
                  "close other programs, or make the stage smaller (batch, sequence)");
  } catch (const std::exception& e) {
    return report(error, ErrorCode::failed, e.what());
  } catch (...) {
    return report(error, ErrorCode::failed, "threw something that is no std::exception");
  }
}

}  // namespace

int32_t create_component(const ComponentEntry* entries, std::size_t count, const char* name, void** object, espalier_error* error) {
  return guarded(error, [&] {
    for (std::size_t i = 0; i < count; ++i) {
      if (std::string_view(entries[i].name) != name) continue;
      *object = entries[i].make().release();
      return;
    }
    throw Error(ErrorCode::invalid_input, "the plugin has no component '" + std::string(name) + "'", {},
                "its manifest and its code disagree; tell its author");
  });
}

void destroy_component(void* object) { delete static_cast<Component*>(object); }

int32_t run_component(void* object, void* context, espalier_error* error) {
  return guarded(error, [&] { static_cast<Component*>(object)->run(*static_cast<Context*>(context)); });
}

void* component_of(void* object) { return object; }

}  // namespace detail
}  // namespace espalier
