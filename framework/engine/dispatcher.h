#pragma once
#include <atomic>
#include <deque>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>

#include "engine/engine.h"
#include "engine/worker_process.h"

namespace espalier {

/// A stage that has to run.
struct Job {
  const Stage* stage = nullptr;
  std::size_t order = 0;  ///< place in the plan: earlier ones start first
  Digest key;
  bool force = false;  ///< runs although another process may have published its entry meanwhile
  /// The worker's request, given the job's folder and the scratch folder.
  std::function<std::string(const std::filesystem::path& folder, const std::filesystem::path& scratch)> request;
};

/// How a job ended. The key's lock is held until the outcome is destroyed: publish before.
struct JobOutcome {
  enum class Kind { finished, cached, failed, skipped, cancelled } kind = Kind::failed;
  Json done;                                  ///< finished: outputs, figures, details, blobs
  std::optional<ActionEntry> entry;           ///< cached: another process did it
  std::optional<StageResult::Failure> error;  ///< failed: code, message, where, hint as the cause gave them
  double seconds = 0;
  double cpu_seconds = 0;  ///< of the stage's process and those that it waited for
  std::uint64_t peak_rss = 0;
  std::filesystem::path folder;  ///< blobs and "log"; removed by who takes the outcome; empty when nothing started
  std::optional<Store::Lock> lock;
  std::shared_ptr<const void> unsettled;  ///< until it is gone, the result is being published: no measurement starts
};

/// Runs jobs in worker processes: one thread that waits for all of them at once. Holds to the limit of jobs at a time, runs
/// exclusive stages alone, takes key locks without blocking, enforces timeouts and memory limits, stops everything on an interrupt.
class Dispatcher {
 public:
  Dispatcher(Store& store, std::filesystem::path worker, const EngineOptions& options, Observer& observer);
  /// All jobs must have ended.
  ~Dispatcher();

  /// `ended` is called on the dispatcher's thread. Any thread may submit.
  void submit(Job job, std::function<void(JobOutcome)> ended);
  /// No further job starts (after a failure without keep_going); waiting ones end as skipped.
  void stop_starting() { closed_ = true; }

 private:
  struct Pending;
  struct Running;
  using Clock = std::chrono::steady_clock;

  void loop();
  void wait_for_events();
  void start_what_may();
  bool may_start(const Pending& pending) const;
  bool start(Pending& pending);
  void blocked(Pending& pending, const std::string& by);
  void launch(Pending& pending, JobOutcome& outcome);
  void read_channel(Running& job);
  void handle_line(Running& job, std::string_view line);
  void read_control();
  void worker_died();
  void enforce_limits(Clock::time_point now);
  void cancel_all(Clock::time_point now);
  void kill(Running& job);
  void conclude(std::list<Running>::iterator job, const ChildMessage& ending);
  void end(Pending& pending, JobOutcome outcome);

  Store& store_;
  std::filesystem::path program_;
  const EngineOptions& options_;
  Observer& observer_;
  FileDescriptor epoll_, wake_;
  std::mutex mutex_;  // guards arrived_
  std::deque<Pending> arrived_;
  std::atomic<bool> closed_ = false, finished_ = false;
  // From here on the thread's own.
  std::list<Pending> pending_;
  std::list<Running> running_;
  std::shared_ptr<const void> unsettled_ = std::make_shared<char>();  // shared with every outcome that was handed out
  std::unique_ptr<WorkerProcess> worker_;
  std::uint64_t next_id_ = 1;
  std::optional<Store::Lock> machine_;  // shared while stages run, or exclusive while one measures
  std::optional<Clock::time_point> cancelled_at_;
  Clock::time_point next_look_{};
  std::thread thread_;
};

}  // namespace espalier
