#include "loaded.h"
#include "sdk/plugin.h"

namespace {
class Sound final : public espalier::Component {};
}  // namespace

ESPALIER_PLUGIN(R"json({ "name": "sound", "version": "1.2.3", "author": "The Espalier authors", "licence": "Apache-2.0",
  "description": "a plugin for the tests",
  "components": [ { "name": "metric/sound", "version": "1.2.3", "summary": "scores nothing",
    "inputs": [ {"name": "model", "type": "model", "help": "any"}, {"name": "data", "type": "dataset", "required": false, "many": true} ],
    "outputs": [ {"name": "scores", "type": "scores"} ],
    "parameters": [ {"name": "samples", "type": "integer", "default": 16, "min": 1, "max": 4096, "unit": "samples", "help": "how many"} ],
    "depends": {"seed": true, "threads": true, "runtimes": ["torch"]},
    "estimate": {"memory_base": 1e8} } ] })json",
                ESPALIER_COMPONENT("metric/sound", Sound));
