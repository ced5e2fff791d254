// Tools that look at a model's graph and weights and run nothing: LibTorch takes longer to load than most of them take.
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <string>

#include "engine/tools/tools.h"
#include "formats/model_reader.h"
#include "sdk/error.h"

namespace espalier {
namespace {

char** arguments = nullptr;

/// What needs LibTorch after all is done by the worker, from the beginning; nothing has been written before.
[[noreturn]] void become_worker() {
  std::error_code error;
  const std::string worker = (std::filesystem::read_symlink("/proc/self/exe", error).parent_path() / "espalier-worker").string();
  ::execv(worker.c_str(), arguments);
  throw Error(ErrorCode::resource, std::string("cannot start the worker: ") + std::strerror(errno), worker,
              "build it: ./espalier build");
}

Graph read_in_worker(const std::filesystem::path&) { become_worker(); }

const RegisterModelReader reader{
    {"torchscript", {kTorchScriptEndings.begin(), kTorchScriptEndings.end()}, "TorchScript (.pt)", read_in_worker}};

int work(int argc, char** argv) {
  arguments = argv;
  if (argc == 4) {
    const Json request = Json::parse(argv[3], nullptr, false);
    if (request.is_object() && request.value("format", "") == "torchscript") become_worker();
  }
  return run_tool_of(argc, argv);
}

}  // namespace
}  // namespace espalier

/// Started by `espalier` only: `--tool NAME ARG…`.
int main(int argc, char** argv) {
  return espalier::answer_by_exit_code([&] { return espalier::work(argc, argv); });
}
