#pragma once
#include <string>

#include "formats/torchscript/program.h"

namespace espalier {

/// What LibTorch's parser makes of an archive: calls inlined, attributes frozen. Throws Error.
torchscript::Program parse_torchscript(const std::string& file);

}  // namespace espalier
