#pragma once
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace espalier {

/// What a figure of speed depends on, as (property, value): processor, the instructions that matter, cores, governor, memory,
/// kernel. What cannot be read is left out.
std::vector<std::pair<std::string, std::string>> describe_machine();

/// Processor time of all cores since boot, in ticks: what was taken by other guests of the same host, and all of it.
struct ProcessorTime {
  double stolen = 0, total = 0;
};
std::optional<ProcessorTime> processor_time();

/// Mean clock of the cores in MHz; nothing where the kernel does not tell.
std::optional<double> processor_clock();

}  // namespace espalier
