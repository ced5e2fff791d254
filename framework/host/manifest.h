#pragma once
#include <filesystem>
#include <string_view>

#include "host/catalog.h"

namespace espalier {

/// Keys that a recipe's stage has for itself; no input port or parameter may be named like one.
const std::vector<std::string>& reserved_stage_keys();

/// Checks a manifest, {"format": 1, "fingerprint": …, "plugin": {…}}, strictly: unknown, missing and doubled keys, wrong types and
/// contradictions are problems that name the key ("components[0].parameters[2].default"). Never throws for bad text; `file` only
/// stands in the result.
PluginInfo parse_manifest(std::string_view text, const std::filesystem::path& file);

}  // namespace espalier
