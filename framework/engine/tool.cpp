#include "engine/tool.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>

#include "engine/installation.h"
#include "sdk/error.h"
#include "store/files.h"

namespace espalier {
namespace {

constexpr std::size_t kMost = 1u << 28;

struct Actions {
  posix_spawn_file_actions_t value;
  Actions() { ::posix_spawn_file_actions_init(&value); }
  ~Actions() { ::posix_spawn_file_actions_destroy(&value); }
};

std::string read_all(int fd) {
  std::string text;
  std::array<char, 4096> bytes;
  for (;;) {
    const ssize_t n = ::read(fd, bytes.data(), bytes.size());
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return text;
    if (text.size() < kMost) text.append(bytes.data(), static_cast<std::size_t>(n));
  }
}

}  // namespace

std::string run_worker_tool(const std::string& name, const std::string& argument) {
  std::string worker = Installation::current().worker().string(), tool = "--tool", which = name, text = argument;
  std::array<char*, 5> arguments = {worker.data(), tool.data(), which.data(), text.data(), nullptr};
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) throw_resource(worker, "make a pipe for the worker", errno);
  const FileDescriptor out(ends[0]);
  FileDescriptor in(ends[1]);
  Actions actions;
  ::posix_spawn_file_actions_adddup2(&actions.value, in.get(), STDOUT_FILENO);
  pid_t pid = 0;
  if (const int error = ::posix_spawn(&pid, worker.c_str(), &actions.value, nullptr, arguments.data(), environ); error != 0)
    throw_resource(worker, "start the worker", error);
  in = FileDescriptor();
  std::string printed = read_all(out.get());
  int status = 0;
  while (::waitpid(pid, &status, 0) < 0 && errno == EINTR) {}
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0 || printed.size() >= kMost)
    throw Error(ErrorCode::failed, "the worker's tool \"" + name + "\" failed; its message is above", worker);
  return printed;
}

void become_worker_tool(const std::string& name, const std::string& argument) {
  std::string worker = Installation::current().worker().string(), tool = "--tool", which = name, text = argument;
  char* const arguments[] = {worker.data(), tool.data(), which.data(), text.data(), nullptr};
  ::execv(worker.c_str(), arguments);
  if (errno == E2BIG) throw_invalid("the text is too long for a command line", name, "shorten it to 100 kB");
  throw Error(ErrorCode::resource, std::string("cannot start the worker: ") + std::strerror(errno), worker,
              "build it: ./espalier build");
}

}  // namespace espalier
