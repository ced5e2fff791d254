#pragma once
#include "run/trainer.h"

namespace espalier {

/// The part of a distiller's manifest that train_with_adapter() reads; put it after ESPALIER_TRAINING_PARAMETERS and a comma.
// clang-format off
#define ESPALIER_ADAPTER_PARAMETERS \
  R"json({"name": "adapter", "type": "string", "default": "none", "choices": ["none", "lora", "ia3"], "help": "train only a few numbers beside frozen matrices, merged into them at the end: lora (a product of two thin matrices) or ia3 (a factor for each output channel)"},)json" \
  R"json({"name": "rank", "type": "integer", "default": 8, "min": 1, "max": 65536, "help": "lora: columns of the thin matrices"},)json" \
  R"json({"name": "alpha", "type": "number", "default": 16.0, "min": 0, "help": "lora: the product counts alpha / rank times"},)json" \
  R"json({"name": "adapter_scope", "type": "list<string>", "default": ["*"], "help": "patterns of the matrices that get an adapter, such as *.self_attn"})json"
// clang-format on

/// train_graph(), with the adapters that `params` ask for: the base stays frozen, gradients and optimizer state exist for the
/// adapters (and loss.beside) alone, and the result is task.model with the adapters merged; tensors without one keep their bytes.
/// Adds the figures adapters and adapter_parameters and the detail "adapters". Throws Error(invalid_input) for a scope that means
/// no matrix that an adapter can stand beside, and when `train` is narrowed too.
Trained train_with_adapter(Context& context, const Params& params, const TrainingTask& task, const Objective& objective,
                           PassLoss loss);

}  // namespace espalier
