#pragma once
/// The part of a pruner's manifest that run_pruner() reads for compensation (run/compensation.h).
// clang-format off
#define ESPALIER_COMPENSATION_PARAMETERS \
  R"json({"name": "compensate", "type": "boolean", "default": false, "help": "refit the weights that read what is cut, by least squares over the data, before cutting: what is kept makes good what it can, without training"},)json" \
  R"json({"name": "compensation_samples", "type": "integer", "default": 32, "min": 1, "unit": "examples", "help": "examples that the refit looks at, spread evenly over the data"},)json" \
  R"json({"name": "compensation_precision", "type": "string", "default": "f32", "choices": ["f32", "bf16"], "help": "type of the products in the passes that the refit looks at; its moments are f32 and its equations f64 either way"},)json" \
  R"json({"name": "ridge", "type": "number", "default": 0.01, "min": 0, "max": 1000, "help": "damping of the refit, as a share of the mean second moment"})json"
// clang-format on
