#include <cstdio>
#include <cstdlib>
#include <exception>
#include <string_view>

#include "engine/worker/serve.h"
#include "engine/worker/tools.h"
#include "sdk/error.h"

namespace {

int run_tool(int argc, char** argv) {
  const espalier::ToolFunction tool = espalier::find_tool(argv[0]);
  if (tool == nullptr)
    throw espalier::Error(espalier::ErrorCode::invalid_input, std::string("no tool \"") + argv[0] + "\" in this worker");
  return tool(argc, argv);
}

}  // namespace

/// Started by `espalier` only: `--serve FD` runs stages, `--tool NAME ARG…` does one job and exits.
int main(int argc, char** argv) {
  try {
    if (argc == 3 && std::string_view(argv[1]) == "--serve") return espalier::serve(std::atoi(argv[2]));
    if (argc >= 3 && std::string_view(argv[1]) == "--tool") return run_tool(argc - 2, argv + 2);
    std::fprintf(stderr, "espalier-worker is started by espalier; it has no use of its own\n");
    return 2;
  } catch (const espalier::Error& error) {
    std::fprintf(stderr, "espalier: error: %s\n", error.what());
    return espalier::exit_code(error.code());
  } catch (const std::exception& error) {
    std::fprintf(stderr, "espalier: internal error: %s\n", error.what());
    return 70;
  }
}
