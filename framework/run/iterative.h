#pragma once
/// Pruning in rounds, with training between them: a little is cut, what is left recovers, and what is least important now is cut
/// next (Molchanov et al., "Pruning Convolutional Neural Networks for Resource Efficient Inference", ICLR 2017).
#include <cstdint>
#include <string_view>
#include <vector>

#include "sdk/context.h"

namespace espalier {

/// The share of the uncut model's parameters in scope that is gone after each of `rounds` rounds; the last is `sparsity` itself.
///   linear     every round takes the same number
///   cubic      sparsity · (1 − (1 − t/n)³): much at first, little at last (Zhu & Gupta, "To Prune, or Not to Prune", 2017)
///   geometric  every round takes the same share of what is left: 1 − (1 − sparsity)^(t/n)
/// Throws Error(invalid_input) for another schedule.
std::vector<double> removal_schedule(std::string_view schedule, double sparsity, std::int64_t rounds);

/// The stage. Ports: model, data and heldout (both optional). Parameters: those of plugins/pruners/iterative.cpp. Outputs: model,
/// masks (u8 per unit and group of the uncut model, 1 = kept). Figures: parameters, sparsity (since the uncut model), groups,
/// rounds (that the result has been through), stopped_at (the round that the stop rule refused), resumed_at, and on held-out data
/// heldout_loss_before, heldout_loss_after. Details: rounds, widths, compensation, curve.heldout by round, curve.loss by step of
/// all recoveries.
void run_iterative_pruner(Context& context);

}  // namespace espalier
