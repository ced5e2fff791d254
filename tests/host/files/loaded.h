#pragma once
#include <cstdlib>

/// Runs when the file is loaded, which no reader of manifests may do.
__attribute__((constructor)) static void loaded() { std::_Exit(99); }
