#pragma once
#include <string_view>

namespace espalier {

/// A job of the worker program that is no stage: `espalier-worker --tool NAME ARG…`. argv[0] is NAME. Returns the exit code; an
/// espalier::Error that leaves it is printed, and exits by its code.
using ToolFunction = int (*)(int argc, char** argv);

/// Registers a tool from a static object in the file that defines it:
///   const RegisterTool tool{"generate", generate_tool};
struct RegisterTool {
  RegisterTool(std::string_view name, ToolFunction function);
};

/// nullptr when no tool has that name.
ToolFunction find_tool(std::string_view name);

}  // namespace espalier
