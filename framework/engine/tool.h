#pragma once
#include <string>

namespace espalier {

/// Runs `espalier-worker --tool NAME ARGUMENT` to its end and returns what it printed on stdout; its stderr is ours. For jobs that
/// need tensors, which this program knows nothing of. Throws Error(resource) when it cannot be started, Error(failed) naming the
/// tool when it does not exit with 0 or prints more than 256 MiB.
std::string run_worker_tool(const std::string& name, const std::string& argument);

}  // namespace espalier
