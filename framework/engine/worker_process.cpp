#include "engine/worker_process.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdlib>
#include <vector>

#include "engine/environment.h"
#include "sdk/error.h"

namespace espalier {
namespace {

constexpr int kControl = 3;  // the worker's end of the control socket
constexpr std::size_t kEpitaph = 2000;

/// posix_spawn's two objects, destroyed in any case.
struct SpawnPlan {
  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
  SpawnPlan() {
    ::posix_spawn_file_actions_init(&actions);
    ::posix_spawnattr_init(&attributes);
  }
  ~SpawnPlan() {
    ::posix_spawn_file_actions_destroy(&actions);
    ::posix_spawnattr_destroy(&attributes);
  }
};

}  // namespace

FileDescriptor memory_file(const char* name, const std::string& text) {
  FileDescriptor fd(::memfd_create(name, MFD_CLOEXEC));
  if (!fd) throw_resource(name, "make a file in memory", errno);
  for (std::size_t done = 0; done < text.size();) {
    const ssize_t n = ::write(fd.get(), text.data() + done, text.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) throw_resource(name, "write to a file in memory", n < 0 ? errno : EIO);
    done += static_cast<std::size_t>(n);
  }
  return fd;
}

std::string signal_text(int number) {
  const char* name = ::sigabbrev_np(number);
  const char* text = ::sigdescr_np(number);
  return name == nullptr ? "signal " + std::to_string(number) : "signal SIG" + std::string(name) + " (" + (text ? text : "?") + ")";
}

WorkerProcess::WorkerProcess(const std::filesystem::path& program) {
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0)
    throw_resource(program, "make a socket for the worker", errno);
  control_ = FileDescriptor(ends[0]);
  const FileDescriptor theirs(ends[1]);
  ::fcntl(control_.get(), F_SETFL, O_NONBLOCK);
  output_ = memory_file("espalier-worker", "");

  SpawnPlan plan;
  ::posix_spawn_file_actions_addopen(&plan.actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  ::posix_spawn_file_actions_adddup2(&plan.actions, output_.get(), STDOUT_FILENO);
  ::posix_spawn_file_actions_adddup2(&plan.actions, output_.get(), STDERR_FILENO);
  ::posix_spawn_file_actions_adddup2(&plan.actions, theirs.get(), kControl);
  // A process group of its own: Ctrl-C reaches the host alone, which then stops its stages in order.
  sigset_t none, all;
  sigemptyset(&none);
  sigfillset(&all);
  ::posix_spawnattr_setflags(&plan.attributes, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  ::posix_spawnattr_setpgroup(&plan.attributes, 0);
  ::posix_spawnattr_setsigmask(&plan.attributes, &none);
  ::posix_spawnattr_setsigdefault(&plan.attributes, &all);
  std::string name = program.string(), serve = "--serve", number = std::to_string(kControl);
  std::array<char*, 4> arguments = {name.data(), serve.data(), number.data(), nullptr};
  auto variables = worker_environment();
  const int error = ::posix_spawn(&pid_, program.c_str(), &plan.actions, &plan.attributes, arguments.data(), variables.data());
  if (error != 0) throw_resource(program, "start the worker", error);
}

WorkerProcess::~WorkerProcess() {
  if (pid_ <= 0) return;
  ::kill(pid_, SIGKILL);
  while (::waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {}
}

void WorkerProcess::start(std::uint64_t id, int request, int channel, int log) {
  StartMessage message{id};
  iovec data{&message, sizeof message};
  const int descriptors[3] = {request, channel, log};
  alignas(cmsghdr) char room[CMSG_SPACE(sizeof descriptors)] = {};
  msghdr header{};
  header.msg_iov = &data;
  header.msg_iovlen = 1;
  header.msg_control = room;
  header.msg_controllen = sizeof room;
  cmsghdr* extra = CMSG_FIRSTHDR(&header);
  extra->cmsg_level = SOL_SOCKET;
  extra->cmsg_type = SCM_RIGHTS;
  extra->cmsg_len = CMSG_LEN(sizeof descriptors);
  ::memcpy(CMSG_DATA(extra), descriptors, sizeof descriptors);
  while (::sendmsg(control_.get(), &header, MSG_NOSIGNAL) < 0)
    if (errno != EINTR) throw Error(ErrorCode::crashed, "the worker process is gone: " + epitaph());
}

std::optional<ChildMessage> WorkerProcess::receive(bool& closed) {
  ChildMessage message;
  for (;;) {
    const ssize_t n = ::recv(control_.get(), &message, sizeof message, 0);
    if (n == static_cast<ssize_t>(sizeof message)) return message;
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return std::nullopt;
    closed = true;
    return std::nullopt;
  }
}

std::string WorkerProcess::epitaph() {
  std::string text = "it closed its socket";
  if (pid_ > 0) {
    int status = 0;
    ::kill(pid_, SIGKILL);  // no effect on one that is dead already
    while (::waitpid(pid_, &status, 0) < 0 && errno == EINTR) {}
    pid_ = -1;
    text = WIFSIGNALED(status) ? "killed by " + signal_text(WTERMSIG(status))
                               : "exited with code " + std::to_string(WEXITSTATUS(status));
  }
  const off_t size = ::lseek(output_.get(), 0, SEEK_END);
  std::string end(std::min<std::size_t>(size > 0 ? static_cast<std::size_t>(size) : 0, kEpitaph), '\0');
  const ssize_t n = ::pread(output_.get(), end.data(), end.size(), size - static_cast<off_t>(end.size()));
  end.resize(n > 0 ? static_cast<std::size_t>(n) : 0);
  while (!end.empty() && end.back() == '\n') end.pop_back();
  return end.empty() ? text : text + ": " + end;
}

}  // namespace espalier
