#include "engine/worker/serve.h"

#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <map>

#include "engine/worker/stage.h"
#include "engine/worker/warm.h"
#include "sdk/error.h"
#include "store/files.h"

namespace espalier {
namespace {

constexpr int kDescriptors = 3;

struct Start {
  StartMessage message;
  FileDescriptor request, channel, log;
};

enum class Received { start, nothing, closed };

Received receive(int control, Start& start) {
  iovec data{&start.message, sizeof start.message};
  alignas(cmsghdr) char room[CMSG_SPACE(kDescriptors * sizeof(int))];
  msghdr header{};
  header.msg_iov = &data;
  header.msg_iovlen = 1;
  header.msg_control = room;
  header.msg_controllen = sizeof room;
  const ssize_t n = ::recvmsg(control, &header, MSG_CMSG_CLOEXEC);
  if (n < 0 && (errno == EINTR || errno == EAGAIN)) return Received::nothing;
  if (n <= 0) return Received::closed;
  const cmsghdr* extra = CMSG_FIRSTHDR(&header);
  if (n != sizeof start.message || extra == nullptr || extra->cmsg_type != SCM_RIGHTS ||
      extra->cmsg_len != CMSG_LEN(kDescriptors * sizeof(int)))
    return Received::closed;
  int descriptors[kDescriptors];
  std::memcpy(descriptors, CMSG_DATA(extra), sizeof descriptors);
  start.request = FileDescriptor(descriptors[0]);
  start.channel = FileDescriptor(descriptors[1]);
  start.log = FileDescriptor(descriptors[2]);
  return Received::start;
}

void report(int control, const ChildMessage& message) {
  while (::send(control, &message, sizeof message, MSG_NOSIGNAL) < 0 && errno == EINTR) {}
}

/// In the child: a process group of its own, killed with the worker, no signal blocked.
[[noreturn]] void become_stage(pid_t worker, int control, int signals, Start& start) {
  ::setpgid(0, 0);
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != worker) ::_exit(EXIT_FAILURE);
  ::close(control);
  ::close(signals);
  sigset_t none;
  sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  ::dup2(start.log.get(), STDOUT_FILENO);
  ::dup2(start.log.get(), STDERR_FILENO);
  ::_exit(run_stage(start.request.get(), start.channel.get()));
}

double seconds(const timeval& time) { return static_cast<double>(time.tv_sec) + 1e-6 * static_cast<double>(time.tv_usec); }

}  // namespace

int serve(int control) {
  sigset_t watched;
  sigemptyset(&watched);
  sigaddset(&watched, SIGCHLD);
  ::sigprocmask(SIG_BLOCK, &watched, nullptr);
  const int signals = ::signalfd(-1, &watched, SFD_CLOEXEC | SFD_NONBLOCK);
  if (signals < 0) throw_resource("signalfd", "wait for children", errno);
  warm_up();
  const pid_t self = ::getpid();
  std::map<pid_t, std::uint64_t> children;

  for (bool open = true; open;) {
    pollfd waits[2] = {{control, POLLIN, 0}, {signals, POLLIN, 0}};
    if (::poll(waits, 2, -1) < 0 && errno != EINTR) break;
    if (waits[1].revents != 0) {
      signalfd_siginfo information;
      while (::read(signals, &information, sizeof information) > 0) {}
      int status = 0;
      rusage usage{};
      for (pid_t pid; (pid = ::wait4(-1, &status, WNOHANG, &usage)) > 0;) {
        ::kill(-pid, SIGKILL);  // what the stage started and left behind
        const auto child = children.find(pid);
        if (child == children.end()) continue;
        report(control,
               {child->second, pid, 1, status, 0, usage.ru_maxrss * 1024, seconds(usage.ru_utime) + seconds(usage.ru_stime)});
        children.erase(child);
      }
    }
    if (waits[0].revents == 0) continue;
    Start start;
    switch (receive(control, start)) {
      case Received::closed:
        open = false;
        break;
      case Received::nothing:
        break;
      case Received::start: {
        const pid_t pid = ::fork();
        if (pid == 0) become_stage(self, control, signals, start);
        if (pid > 0) {
          ::setpgid(pid, pid);
          children[pid] = start.message.id;
        }
        report(control, {start.message.id, pid, 0, 0, pid < 0 ? errno : 0, 0});
      }
    }
  }
  for (const auto& [pid, id] : children) ::kill(-pid, SIGKILL);
  return 0;
}

}  // namespace espalier
