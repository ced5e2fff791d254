#pragma once
#include <CLI/App.hpp>

#include "cli/command.h"

namespace espalier {

/// `espalier model convert FROM TO`, as a part of `model`.
CommandAction set_up_convert(CLI::App& app);
/// `espalier model cut FROM TO`, likewise.
CommandAction set_up_cut(CLI::App& app);

}  // namespace espalier
