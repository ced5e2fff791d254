#pragma once
#include <memory>
#include <string>
#include <string_view>

#include "sdk/params.h"

namespace espalier {

class Context;

/// What a plugin offers. A component derives from Component, and from the C++ interfaces that its kind asks for; those are found by
/// interface(id) on a match of the build fingerprint.
class Component {
 public:
  virtual ~Component();
  /// Runs the component as a stage. The default refuses.
  virtual void run(Context& context);
  /// A pointer to the C++ interface of that id ("espalier.metric/1"), or nullptr.
  virtual void* interface(std::string_view id);
};

/// A component created for a parameter: the object and its own parameters. Destroyed through the plugin that made it.
struct ComponentHandle {
  std::string name;  ///< "metric/taylor"
  std::shared_ptr<Component> object;
  Params params;

  template <class Interface>
  Interface& as() const {
    return *static_cast<Interface*>(require_interface(Interface::interface_id));
  }

 private:
  /// Throws Error(invalid_input) naming component and interface when the component does not have it.
  void* require_interface(std::string_view id) const;
};

}  // namespace espalier
