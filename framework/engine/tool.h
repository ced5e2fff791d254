#pragma once
#include <string>

namespace espalier {

/// Runs `espalier-worker --tool NAME ARGUMENT` to its end and returns what it printed on stdout; its stderr is ours. For jobs that
/// need tensors, which this program knows nothing of. Throws Error(resource) when it cannot be started, Error(failed) naming the
/// tool when it does not exit with 0 or prints more than 256 MiB.
std::string run_worker_tool(const std::string& name, const std::string& argument);

/// Becomes the worker and its tool: what it prints, how it takes signals and its exit code are this program's from then on. Throws
/// Error(resource) when it cannot be started, Error(invalid_input) when the argument is longer than a command line holds.
[[noreturn]] void become_worker_tool(const std::string& name, const std::string& argument);

}  // namespace espalier
