#include <cstdlib>
#include <string_view>

#include "engine/tools/tools.h"
#include "engine/worker/serve.h"

/// Started by `espalier` only: `--serve FD` runs stages, `--tool NAME ARG…` does one job and exits.
int main(int argc, char** argv) {
  return espalier::answer_by_exit_code([&] {
    if (argc == 3 && std::string_view(argv[1]) == "--serve") return espalier::serve(std::atoi(argv[2]));
    return espalier::run_tool_of(argc, argv);
  });
}
