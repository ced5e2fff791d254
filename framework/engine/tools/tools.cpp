#include "engine/tools/tools.h"

#include <cstdio>
#include <map>
#include <string>

#include "sdk/error.h"

namespace espalier {
namespace {

std::map<std::string_view, ToolFunction>& registry() {
  static std::map<std::string_view, ToolFunction> tools;
  return tools;
}

}  // namespace

RegisterTool::RegisterTool(std::string_view name, ToolFunction function) { registry()[name] = function; }

ToolFunction find_tool(std::string_view name) {
  const auto found = registry().find(name);
  return found == registry().end() ? nullptr : found->second;
}

int run_tool_of(int argc, char** argv) {
  if (argc < 3 || std::string_view(argv[1]) != "--tool") {
    std::fprintf(stderr, "this program is started by espalier; it has no use of its own\n");
    return 2;
  }
  const ToolFunction tool = find_tool(argv[2]);
  if (tool == nullptr) throw_invalid(std::string("no tool \"") + argv[2] + "\" in this program");
  return tool(argc - 2, argv + 2);
}

int answer_by_exit_code(const std::function<int()>& work) {
  try {
    return work();
  } catch (const Error& error) {
    std::fprintf(stderr, "espalier: error: %s\n", error.what());
    return exit_code(error.code());
  } catch (const std::exception& error) {
    std::fprintf(stderr, "espalier: internal error: %s\n", error.what());
    return 70;
  }
}

Json tool_request(int argc, char** argv) {
  if (argc != 2) throw_invalid(std::string(argv[0]) + " takes one argument, its request");
  return Json::parse(argv[1]);
}

void print_answer(const Json& json) {
  const std::string text = json.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
  if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size() || std::fflush(stdout) != 0)
    throw Error(ErrorCode::resource, "the result cannot be written to stdout");
}

}  // namespace espalier
