#pragma once
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "recipe/plan.h"
#include "store/store.h"

namespace espalier {

/// What is known of an artifact in numbers: "bytes" (of its distinct blobs), every number of its meta (a model's parameters, macs
/// and activation_bytes, a data set's count and sequence, …), "language" (1 for causal language models and their packages, else 0)
/// and a model's "output_elements" (of one position) and "largest_bytes" (of a tensor).
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

/// What a stage is expected to take; absent where the manifest says nothing or a fact is unknown. A manifest without an expression
/// for memory has its line through the bytes read.
struct StageEstimate {
  std::optional<double> memory, seconds;  ///< bytes at the peak; of the stage's process
  std::map<std::string, Facts> outputs;   ///< by port
};

/// Evaluates the manifest's estimates of one stage. `inputs`: port → facts of each artifact on it. `speed` may say nothing: then
/// what needs the machine has no value.
///
/// Names in expressions: PORT.FACT (summed over a port with several artifacts; 0 when the port is left out), input.bytes (all ports
/// and source files), PARAMETER (booleans are 0 or 1; 0 when left out without a default), PARAMETER.bytes (files),
/// PARAMETER.elements (numbers in .npy files), PARAMETER.KEY (of a map), PARAMETER.count (of a list), COMPONENT.PARAMETER,
/// COMPONENT.memory and COMPONENT.seconds (estimates of a component given as parameter; of a list of them the largest memory and
/// the sum of seconds; 0 when it is left out, COMPONENT.use is "" then), threads, machine.flops, machine.bandwidth. A data set
/// without "sequence" counts one position an example; a package without "open_bytes" (what it takes once it is open, as its backend
/// states) counts twice its bytes.
StageEstimate estimate_stage(const Stage& stage, const Catalog& catalog, const std::map<std::string, std::vector<Facts>>& inputs,
                             const std::function<std::optional<MachineSpeed>(int threads)>& speed);

/// Estimates of all stages of a plan, by name, in the plan's order. `known` gives the facts of an output that is there already;
/// what it does not state (a package's macs) stays as expected.
std::map<std::string, StageEstimate> estimate_plan(
    const Plan& plan, const Catalog& catalog,
    const std::function<std::optional<Facts>(const Stage& stage, const std::string& port)>& known,
    const std::function<std::optional<MachineSpeed>(int threads)>& speed);

/// What a run is expected to take as told before it: from the facts of its sources' results alone and the speed that the store
/// knows of this machine. `result` gives a stage's entry, or nullptr. Whatever a run has found out since has no part in it.
std::map<std::string, StageEstimate> estimate_from_sources(const Plan& plan, const Catalog& catalog, Store& store,
                                                           const std::function<const ActionEntry*(const Stage& stage)>& result);

}  // namespace espalier
