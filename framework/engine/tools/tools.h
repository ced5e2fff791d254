#pragma once
#include <functional>
#include <string_view>

#include "sdk/artifact.h"

namespace espalier {

/// A job that is no stage: `espalier-graph --tool NAME ARG…`, or of the worker where it needs LibTorch. argv[0] is NAME. Returns
/// the exit code; an espalier::Error that leaves it is printed, and exits by its code.
using ToolFunction = int (*)(int argc, char** argv);

/// Registers a tool from a static object in the file that defines it:
///   const RegisterTool tool{"generate", generate_tool};
struct RegisterTool {
  RegisterTool(std::string_view name, ToolFunction function);
};

/// nullptr when no tool has that name.
ToolFunction find_tool(std::string_view name);
/// `PROGRAM --tool NAME ARG…`, for main(): throws Error(invalid_input) when there is no such tool.
int run_tool_of(int argc, char** argv);
/// The body of a main(): an error that leaves `work` is printed, and is the exit code.
int answer_by_exit_code(const std::function<int()>& work);

/// What most tools take, one argument of JSON, and give, one line of it. Throw Error(invalid_input) for another number of
/// arguments, Error(resource) where stdout takes nothing.
Json tool_request(int argc, char** argv);
void print_answer(const Json& json);

}  // namespace espalier
