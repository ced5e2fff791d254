#include "engine/worker/tools.h"

#include <map>

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

}  // namespace espalier
