#pragma once
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "recipe/plan.h"
#include "store/store.h"

namespace espalier {

/// What is known of an artifact in numbers: "bytes" (of its distinct blobs) and every number of its meta (a model's parameters,
/// macs and activation_bytes, a data set's count and sequence, …).
using Facts = std::map<std::string, double>;
Facts facts_of(const Artifact& artifact);

/// Speed of this machine at a number of threads: f32 operations and bytes moved, a second.
struct MachineSpeed {
  double flops = 0, bandwidth = 0;
};
/// As measured before with this store, or nothing.
std::optional<MachineSpeed> known_speed(Store& store, int threads);
/// Measures (about two seconds, by the worker program) and remembers. Throws Error(failed) when the worker cannot.
MachineSpeed measure_speed(Store& store, int threads);

/// What a stage is expected to take; absent where the manifest says nothing or a fact is unknown.
struct StageEstimate {
  std::optional<double> memory, seconds;  ///< bytes at the peak; of the stage's process
  std::map<std::string, Facts> outputs;   ///< by port
};

/// Evaluates the manifest's estimates of one stage. `inputs`: port → facts of each artifact on it. `speed` may say nothing: then
/// what needs the machine has no value.
///
/// Names in expressions: PORT.FACT (summed over a port with several artifacts; 0 when the port is left out), input.bytes (all ports
/// and source files), PARAMETER (booleans are 0 or 1), PARAMETER.bytes (files), PARAMETER.KEY (of a map), PARAMETER.count (of a
/// list), COMPONENT.PARAMETER, COMPONENT.memory and COMPONENT.seconds (estimates of a component given as parameter; 0 when it is
/// left out, COMPONENT.use is "" then), threads,
/// machine.flops, machine.bandwidth. A data set without "sequence" counts one position an example.
StageEstimate estimate_stage(const Stage& stage, const Catalog& catalog, const std::map<std::string, std::vector<Facts>>& inputs,
                             const std::function<std::optional<MachineSpeed>(int threads)>& speed);

/// Estimates of all stages of a plan, by name, in the plan's order. `known` gives the facts of an output that is there already.
std::map<std::string, StageEstimate> estimate_plan(
    const Plan& plan, const Catalog& catalog,
    const std::function<std::optional<Facts>(const Stage& stage, const std::string& port)>& known,
    const std::function<std::optional<MachineSpeed>(int threads)>& speed);

}  // namespace espalier
