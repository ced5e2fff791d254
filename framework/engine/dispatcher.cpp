#include "engine/dispatcher.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>

#include "sdk/error.h"

namespace espalier {
namespace fs = std::filesystem;
namespace {

constexpr auto kTick = std::chrono::milliseconds(50);  // interrupts, locks, deadlines
constexpr auto kMemoryTick = std::chrono::milliseconds(20);
constexpr auto kCancelGrace = std::chrono::milliseconds(500);  // from the polite word to SIGKILL
constexpr auto kBlockedNotice = std::chrono::seconds(2);       // after which a person is told what is waited for
constexpr std::size_t kLineLimit = 256u << 20;                 // one message of a stage

/// Anonymous memory: what the stage itself took; mapped weights and shared libraries do not count.
std::uint64_t anonymous_bytes(pid_t pid) {
  std::ifstream status("/proc/" + std::to_string(pid) + "/status");
  for (std::string line; std::getline(status, line);)
    if (line.starts_with("RssAnon:")) return std::strtoull(line.c_str() + 8, nullptr, 10) * 1024;
  return 0;
}

std::string mebibytes(std::uint64_t bytes) { return std::to_string((bytes + (1u << 19)) >> 20) + " MiB"; }

std::string seconds_text(double seconds) {
  char text[32];
  std::snprintf(text, sizeof text, "%g s", seconds);
  return text;
}

StageResult::Failure failure(ErrorCode code, std::string message, std::string hint = {}) {
  return {std::string(to_string(code)), std::move(message), {}, std::move(hint)};
}

StageResult::Failure failure(const Error& error) {
  return {std::string(to_string(error.code())), error.message(), error.where(), error.hint()};
}

void watch(int epoll, int fd) {
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.fd = fd;
  if (::epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) != 0) throw_resource("epoll", "watch a worker", errno);
}

}  // namespace

struct Dispatcher::Pending {
  Job job;
  std::function<void(JobOutcome)> ended;
  std::optional<Clock::time_point> blocked_since;  // by another process
  bool told = false;
};

struct Dispatcher::Running {
  Pending pending;
  JobOutcome outcome;
  std::uint64_t id = 0;
  FileDescriptor channel;
  pid_t pid = 0;  // 0: not forked yet
  bool kill_at_birth = false, timed_out = false;
  std::uint64_t over_memory = 0;
  Clock::time_point started{};
  std::string buffer;
};

Dispatcher::Dispatcher(Store& store, fs::path worker, const EngineOptions& options, Observer& observer)
    : store_(store), program_(std::move(worker)), options_(options), observer_(observer) {
  epoll_ = FileDescriptor(::epoll_create1(EPOLL_CLOEXEC));
  wake_ = FileDescriptor(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!epoll_ || !wake_) throw_resource("epoll", "make an event queue", errno);
  watch(epoll_.get(), wake_.get());
  thread_ = std::thread([this] { loop(); });
}

Dispatcher::~Dispatcher() {
  finished_ = true;
  ::eventfd_write(wake_.get(), 1);
  thread_.join();
}

void Dispatcher::submit(Job job, std::function<void(JobOutcome)> ended) {
  {
    const std::lock_guard guard(mutex_);
    arrived_.push_back({std::move(job), std::move(ended), {}, false});
  }
  ::eventfd_write(wake_.get(), 1);
}

void Dispatcher::loop() {
  while (!finished_) {
    wait_for_events();
    {
      const std::lock_guard guard(mutex_);
      for (Pending& pending : arrived_) pending_.push_back(std::move(pending));
      arrived_.clear();
    }
    const auto now = Clock::now();
    const bool interrupted = options_.interrupted != nullptr && *options_.interrupted != 0;
    if (interrupted)
      cancel_all(now);
    else
      start_what_may();
    enforce_limits(now);
  }
}

void Dispatcher::wait_for_events() {
  int timeout = -1;
  if (!pending_.empty() || !running_.empty()) {
    timeout = static_cast<int>(kTick.count());
    for (const Running& job : running_)
      if (job.pending.job.stage->memory_bytes) timeout = static_cast<int>(kMemoryTick.count());
  }
  epoll_event events[32];
  const int count = ::epoll_wait(epoll_.get(), events, 32, timeout);
  bool control = false;
  for (int i = 0; i < count; ++i) {
    const int fd = events[i].data.fd;
    if (fd == wake_.get()) {
      eventfd_t value;
      ::eventfd_read(fd, &value);
    } else if (worker_ && fd == worker_->control()) {
      control = true;
    } else {
      for (Running& job : running_)
        if (job.channel.get() == fd) read_channel(job);
    }
  }
  if (control) read_control();
}

/// Earlier stages first; a stage that measures waits until nothing else runs or could run.
void Dispatcher::start_what_may() {
  pending_.sort([](const Pending& a, const Pending& b) {
    const bool alone_a = a.job.stage->component->exclusive, alone_b = b.job.stage->component->exclusive;
    return alone_a != alone_b ? alone_b : a.job.order < b.job.order;
  });
  for (auto pending = pending_.begin(); pending != pending_.end();) {
    bool gone = false;
    if (closed_) {
      JobOutcome outcome;
      outcome.kind = JobOutcome::Kind::skipped;
      end(*pending, std::move(outcome));
      gone = true;
    } else if (may_start(*pending)) {
      gone = start(*pending);
    }
    pending = gone ? pending_.erase(pending) : std::next(pending);
  }
  if (running_.empty()) machine_.reset();
}

bool Dispatcher::may_start(const Pending& pending) const {
  if (static_cast<int>(running_.size()) >= std::max(1, options_.jobs)) return false;
  for (const Running& job : running_)
    if (job.pending.job.stage->component->exclusive) return false;
  return !pending.job.stage->component->exclusive || (running_.empty() && unsettled_.use_count() == 1);
}

/// True when the job has started or ended; false when it has to wait for another process.
bool Dispatcher::start(Pending& pending) {
  JobOutcome outcome;
  try {
    const bool first = running_.empty();
    if (first) {
      machine_.reset();
      machine_ = store_.try_machine(pending.job.stage->component->exclusive);
    }
    if (!machine_) {
      blocked(pending, pending.job.stage->component->exclusive ? "the stages of another run, to measure alone"
                                                               : "another run's measurement");
      return false;
    }
    outcome.lock = store_.try_lock(pending.job.key);
    if (!outcome.lock) {
      blocked(pending, "whoever makes the same result already");
      return false;
    }
    if (!pending.job.force)
      if ((outcome.entry = store_.find(pending.job.key))) {
        outcome.kind = JobOutcome::Kind::cached;
        end(pending, std::move(outcome));
        return true;
      }
    outcome.folder = store_.job_folder(pending.job.key);
    launch(pending, outcome);
  } catch (const Error& error) {
    outcome.kind = JobOutcome::Kind::failed;
    outcome.error = failure(error);
    end(pending, std::move(outcome));
  }
  return true;
}

void Dispatcher::blocked(Pending& pending, const std::string& by) {
  const auto now = Clock::now();
  if (!pending.blocked_since) pending.blocked_since = now;
  if (pending.told || now - *pending.blocked_since < kBlockedNotice) return;
  pending.told = true;
  observer_.log(*pending.job.stage, 2, "waits for " + by);
}

void Dispatcher::launch(Pending& pending, JobOutcome& outcome) {
  const fs::path folder = outcome.folder;
  const FileDescriptor request = memory_file("request", pending.job.request(folder, store_.scratch(pending.job.key)));
  const FileDescriptor log(::open((folder / "log").c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644));
  if (!log) throw_resource(folder / "log", "make the log", errno);
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) throw_resource(folder, "make a socket for the stage", errno);
  FileDescriptor ours(ends[0]), theirs(ends[1]);
  ::fcntl(ours.get(), F_SETFL, O_NONBLOCK);
  if (!worker_) {
    worker_ = std::make_unique<WorkerProcess>(program_);
    watch(epoll_.get(), worker_->control());
  }
  const std::uint64_t id = next_id_++;
  worker_->start(id, request.get(), theirs.get(), log.get());
  watch(epoll_.get(), ours.get());
  Running job;
  job.outcome = std::move(outcome);
  job.id = id;
  job.channel = std::move(ours);
  job.started = Clock::now();
  const Stage& stage = *pending.job.stage;
  job.pending = std::move(pending);
  running_.push_back(std::move(job));
  observer_.started(stage);
}

void Dispatcher::read_channel(Running& job) {
  char bytes[65536];
  for (;;) {
    const ssize_t n = ::recv(job.channel.get(), bytes, sizeof bytes, 0);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) {
      if (n == 0) ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, job.channel.get(), nullptr);
      return;
    }
    const std::size_t old = job.buffer.size();
    job.buffer.append(bytes, static_cast<std::size_t>(n));
    std::size_t start = 0;
    for (std::size_t end = job.buffer.find('\n', old); end != std::string::npos; end = job.buffer.find('\n', start)) {
      handle_line(job, std::string_view(job.buffer).substr(start, end - start));
      start = end + 1;
    }
    job.buffer.erase(0, start);
    if (job.buffer.size() > kLineLimit) {
      job.outcome.error = failure(ErrorCode::failed, "its result is larger than " + mebibytes(kLineLimit));
      kill(job);
      return;
    }
  }
}

void Dispatcher::handle_line(Running& job, std::string_view line) {
  const Json message = Json::parse(line, nullptr, false);
  if (!message.is_object()) return;  // a plugin that writes to a descriptor that is not its own
  const Stage& stage = *job.pending.job.stage;
  const auto text = [&](const char* name) {
    return message.contains(name) && message[name].is_string() ? message[name].get<std::string>() : "";
  };
  const std::string type = text("t");
  if (type == "log")
    observer_.log(stage, message.value("level", 1), text("text"));
  else if (type == "progress")
    observer_.progress(stage, message);
  else if (type == "done")
    job.outcome.done = message;
  else if (type == "error")
    job.outcome.error = {text("code"), text("message"), text("where"), text("hint")};
}

void Dispatcher::read_control() {
  bool gone = false;
  while (const auto message = worker_->receive(gone)) {
    const auto job = std::find_if(running_.begin(), running_.end(), [&](const Running& one) { return one.id == message->id; });
    if (job == running_.end()) continue;
    if (message->exited != 0) {
      read_channel(*job);
      conclude(job, *message);
    } else if (message->pid > 0) {
      job->pid = message->pid;
      job->started = Clock::now();
      if (job->kill_at_birth) kill(*job);
    } else {
      job->outcome.error = failure(ErrorCode::resource, std::string("cannot fork a process: ") + std::strerror(message->error));
      conclude(job, {});
    }
  }
  if (gone) worker_died();
}

void Dispatcher::worker_died() {
  const std::string cause = worker_->epitaph();
  worker_.reset();
  while (!running_.empty()) {
    const auto job = running_.begin();
    if (job->pid > 0) ::kill(-job->pid, SIGKILL);
    read_channel(*job);
    if (job->outcome.done.is_null() && !job->outcome.error)
      job->outcome.error = failure(ErrorCode::crashed, "the worker process died: " + cause, "run again; finished stages are kept");
    conclude(job, {});
  }
}

void Dispatcher::enforce_limits(Clock::time_point now) {
  const bool look = now >= next_look_;
  if (look) next_look_ = now + kMemoryTick;
  for (Running& job : running_) {
    const Stage& stage = *job.pending.job.stage;
    if (job.pid == 0) continue;
    if (stage.timeout_seconds && !job.timed_out && now - job.started > std::chrono::duration<double>(*stage.timeout_seconds)) {
      job.timed_out = true;
      kill(job);
    }
    if (!look || !stage.memory_bytes || job.over_memory != 0) continue;
    const std::uint64_t bytes = anonymous_bytes(job.pid);
    if (bytes <= *stage.memory_bytes) continue;
    job.over_memory = bytes;
    kill(job);
  }
}

void Dispatcher::cancel_all(Clock::time_point now) {
  for (Pending& pending : pending_) {
    JobOutcome outcome;
    outcome.kind = JobOutcome::Kind::cancelled;
    end(pending, std::move(outcome));
  }
  pending_.clear();
  if (!cancelled_at_) {
    cancelled_at_ = now;
    for (Running& job : running_) ::send(job.channel.get(), "c", 1, MSG_NOSIGNAL | MSG_DONTWAIT);
  }
  if (now - *cancelled_at_ < kCancelGrace) return;
  // The worker itself too: one that still loads LibTorch has not forked what it was asked for.
  for (Running& job : running_) kill(job);
  const bool unborn = std::any_of(running_.begin(), running_.end(), [](const Running& job) { return job.pid == 0; });
  if (unborn && worker_) worker_died();
}

void Dispatcher::kill(Running& job) {
  if (job.pid > 0)
    ::kill(-job.pid, SIGKILL);
  else
    job.kill_at_birth = true;
}

void Dispatcher::conclude(std::list<Running>::iterator job, const ChildMessage& ending) {
  const Stage& stage = *job->pending.job.stage;
  JobOutcome& outcome = job->outcome;
  outcome.seconds = std::chrono::duration<double>(Clock::now() - job->started).count();
  outcome.cpu_seconds = ending.cpu_seconds;
  outcome.peak_rss = ending.peak_rss > 0 ? static_cast<std::uint64_t>(ending.peak_rss) : 0;
  const int status = ending.status;
  const bool clean = WIFEXITED(status) && WEXITSTATUS(status) == 0;
  outcome.kind = JobOutcome::Kind::failed;
  if (outcome.done.is_object() && clean && !outcome.error) {
    outcome.kind = JobOutcome::Kind::finished;
  } else if (cancelled_at_) {
    outcome.kind = JobOutcome::Kind::cancelled;
    outcome.error.reset();
  } else if (job->timed_out) {
    outcome.error = failure(ErrorCode::timeout, "ran past its timeout of " + seconds_text(*stage.timeout_seconds),
                            "raise `timeout`, or give the stage less to do");
  } else if (job->over_memory != 0) {
    outcome.error =
        failure(ErrorCode::resource,
                "took " + mebibytes(job->over_memory) + " of memory, more than its limit of " + mebibytes(*stage.memory_bytes),
                "raise `memory`, or give the stage less to do");
  } else if (!outcome.error && WIFSIGNALED(status)) {
    const bool killed = WTERMSIG(status) == SIGKILL;
    outcome.error =
        failure(ErrorCode::crashed, "killed by " + signal_text(WTERMSIG(status)),
                killed ? "perhaps the kernel ran out of memory: see dmesg" : "a defect of the plugin; its log may tell more");
  } else if (!outcome.error) {
    outcome.error = failure(ErrorCode::crashed, "exited with code " + std::to_string(WEXITSTATUS(status)) + " without finishing",
                            "a stage must return from run()");
  }
  Running ended = std::move(*job);
  running_.erase(job);
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, ended.channel.get(), nullptr);
  end(ended.pending, std::move(ended.outcome));
}

void Dispatcher::end(Pending& pending, JobOutcome outcome) {
  // Here and not where the failure is reported: before that its log goes to the disk, and meanwhile another stage could start.
  if (outcome.kind == JobOutcome::Kind::failed && !options_.keep_going) closed_ = true;
  outcome.unsettled = unsettled_;
  pending.ended(std::move(outcome));
}

}  // namespace espalier
