#pragma once
#include <filesystem>
#include <memory>
#include <string>

#include "sdk/component.h"

struct espalier_plugin;

namespace espalier {

class Context;

/// A plugin's C descriptor after a look at its size, epoch and fingerprint. The library stays loaded for good. Throws
/// Error(invalid_input) with the file when it is no plugin of this build.
const espalier_plugin* load_plugin(const std::filesystem::path& file);

/// A new object of the component that a plugin file offers; destroyed through the plugin that made it. Throws what the plugin
/// reports, with the file as the place.
std::shared_ptr<Component> load_component(const std::filesystem::path& file, const std::string& name);

/// Creates the component and runs it as a stage, through the C boundary: whatever it throws arrives as an Error.
void run_component(const std::filesystem::path& file, const std::string& name, Context& context);

}  // namespace espalier
