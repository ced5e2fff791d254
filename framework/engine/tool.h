#pragma once
#include <string>

namespace espalier {

/// Programs that do what needs tensors, which this one knows nothing of: `graph` those jobs that look at a model and run nothing,
/// at once and without LibTorch, `worker` all others.
enum class ToolProgram { worker, graph };

/// Runs `PROGRAM --tool NAME ARGUMENT` to its end and returns what it printed on stdout; its stderr is ours. Throws Error(resource)
/// when it cannot be started, Error(failed) naming the tool when it does not exit with 0 or prints more than 256 MiB.
std::string run_tool(ToolProgram program, const std::string& name, const std::string& argument);

/// Becomes the program and its tool: what it prints, how it takes signals and its exit code are this program's from then on. Throws
/// Error(resource) when it cannot be started, Error(invalid_input) when the argument is longer than a command line holds.
[[noreturn]] void become_tool(ToolProgram program, const std::string& name, const std::string& argument);

}  // namespace espalier
