#pragma once
/// The part of a manifest that every distiller shares: parameters that train_graph() reads. A manifest is one string literal, so
/// this is one, too.
// clang-format off
#define ESPALIER_TRAINING_PARAMETERS \
  R"json({"name": "steps", "type": "integer", "default": 100, "min": 1, "max": 100000000, "unit": "steps", "help": "optimizer steps"},)json" \
  R"json({"name": "batch", "type": "integer", "default": 1, "min": 1, "max": 65536, "unit": "examples", "help": "examples (windows of tokens) in one forward and backward pass; decides peak memory"},)json" \
  R"json({"name": "accumulation", "type": "integer", "default": 1, "min": 1, "max": 65536, "unit": "passes", "help": "passes whose gradients make one step; batch · accumulation examples count together"},)json" \
  R"json({"name": "learning_rate", "type": "number", "default": 0.0002, "min": 0, "max": 10, "help": "peak rate of AdamW, after warm-up"},)json" \
  R"json({"name": "warmup", "type": "integer", "default": 10, "min": 0, "unit": "steps", "help": "steps over which the rate rises from 0; then it falls along a cosine"},)json" \
  R"json({"name": "final_share", "type": "number", "default": 0.0, "min": 0, "max": 1, "help": "share of the peak rate at the last step"},)json" \
  R"json({"name": "weight_decay", "type": "number", "default": 0.01, "min": 0, "max": 1, "help": "decoupled weight decay per step, times the rate"},)json" \
  R"json({"name": "beta1", "type": "number", "default": 0.9, "min": 0, "max": 0.999999, "help": "decay of the gradient's running mean"},)json" \
  R"json({"name": "beta2", "type": "number", "default": 0.999, "min": 0, "max": 0.9999999, "help": "decay of the squared gradient's running mean"},)json" \
  R"json({"name": "epsilon", "type": "number", "default": 1e-8, "min": 0, "max": 1, "help": "added to the root of the second moment"},)json" \
  R"json({"name": "clip", "type": "number", "default": 1.0, "min": 0, "help": "largest global norm of the gradient; 0 = off"},)json" \
  R"json({"name": "precision", "type": "string", "default": "f32", "choices": ["f32", "bf16"], "help": "type of matrix products, convolutions and attention; weights, gradients, optimizer, norms and losses stay in f32"},)json" \
  R"json({"name": "checkpoint", "type": "boolean", "default": false, "help": "activation checkpointing: repeated blocks keep only what enters them and run again in the backward pass; less memory, about a third more time"},)json" \
  R"json({"name": "evaluate_every", "type": "integer", "default": 0, "min": 0, "unit": "steps", "help": "steps between evaluations of the loss on `heldout`; 0 = only before and after"},)json" \
  R"json({"name": "patience", "type": "integer", "default": 0, "min": 0, "unit": "evaluations", "help": "stop after so many evaluations without a lower held-out loss; 0 = never"},)json" \
  R"json({"name": "keep", "type": "string", "default": "last", "choices": ["last", "best"], "help": "which parameters the result has: those of the last step, or those of the evaluation with the lowest held-out loss"},)json" \
  R"json({"name": "resume_every", "type": "integer", "default": 0, "min": -1, "unit": "steps", "help": "steps between states written to disk, from which a run that was broken off goes on; 0 = a twelfth of the run, -1 = none"},)json" \
  R"json({"name": "train", "type": "list<string>", "default": ["*"], "help": "patterns of the weights that change, such as *.mlp; the others stay frozen"})json"
// clang-format on
