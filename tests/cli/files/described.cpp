#include <cstdlib>

#include "sdk/fingerprint.h"

namespace {

/// Runs when the file is loaded, which listing, checking and planning may not do.
__attribute__((constructor)) void loaded() { std::_Exit(99); }

__attribute__((section(".espalier"), used)) const char text[] =
    "{\"format\":1,\"fingerprint\":\"" ESPALIER_FINGERPRINT
    "\",\"plugin\":"
    R"json({ "name": "described", "version": "0.1.0", "licence": "Apache-2.0", "components": [
  { "name": "source/described", "summary": "reads a file", "outputs": [ {"name": "model", "type": "model"} ],
    "parameters": [ {"name": "path", "type": "path", "required": true, "help": "any file"} ] },
  { "name": "pruner/described", "summary": "cuts", "inputs": [ {"name": "model", "type": "model"} ], "outputs": [ {"name": "model", "type": "model"} ],
    "parameters": [ {"name": "sparsity", "type": "number", "default": 0.5, "min": 0, "max": 0.9, "help": "how much goes"} ] } ] }})json";

}  // namespace
