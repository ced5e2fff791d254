#include "engine/tool.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>

#include "engine/environment.h"
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

std::string path_of(ToolProgram program) {
  const Installation installation = Installation::current();
  return (program == ToolProgram::graph ? installation.graph_program() : installation.worker()).string();
}

}  // namespace

std::string run_tool(ToolProgram program, const std::string& name, const std::string& argument) {
  std::string path = path_of(program), tool = "--tool", which = name, text = argument;
  std::array<char*, 5> arguments = {path.data(), tool.data(), which.data(), text.data(), nullptr};
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) throw_resource(path, "make a pipe for the program", errno);
  const FileDescriptor out(ends[0]);
  FileDescriptor in(ends[1]);
  Actions actions;
  ::posix_spawn_file_actions_adddup2(&actions.value, in.get(), STDOUT_FILENO);
  pid_t pid = 0;
  if (const int error = ::posix_spawn(&pid, path.c_str(), &actions.value, nullptr, arguments.data(), worker_environment().data());
      error != 0)
    throw_resource(path, "start the program", error);
  in = FileDescriptor();
  std::string printed = read_all(out.get());
  int status = 0;
  while (::waitpid(pid, &status, 0) < 0 && errno == EINTR) {}
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0 || printed.size() >= kMost)
    throw Error(ErrorCode::failed, "the tool \"" + name + "\" failed; its message is above", path);
  return printed;
}

void become_tool(ToolProgram program, const std::string& name, const std::string& argument) {
  std::string path = path_of(program), tool = "--tool", which = name, text = argument;
  char* const arguments[] = {path.data(), tool.data(), which.data(), text.data(), nullptr};
  ::execve(path.c_str(), arguments, worker_environment().data());
  if (errno == E2BIG) throw_invalid("the text is too long for a command line", name, "shorten it to 100 kB");
  throw Error(ErrorCode::resource, std::string("cannot start the program: ") + std::strerror(errno), path,
              "build it: ./espalier build");
}

}  // namespace espalier
