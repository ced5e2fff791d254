#pragma once
#include <atomic>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "recipe/plan.h"
#include "store/store.h"

namespace espalier {

enum class StageStatus { waiting, running, ran, cached, failed, skipped, cancelled };
std::string_view to_string(StageStatus status);

struct StageResult {
  std::string name, use;
  StageStatus status = StageStatus::waiting;
  double seconds = 0;
  std::optional<Digest> key;
  std::optional<ActionEntry> entry;
  std::optional<Digest> log;  ///< blob: what the stage printed; of a failed stage too
  struct Failure {
    std::string code, message, where, hint;
    std::string tail{};  ///< the last lines of the stage's log
  };
  std::optional<Failure> error;
};

/// What happens while a recipe runs; called from the engine's threads, one call at a time.
struct Observer {
  virtual ~Observer() = default;
  virtual void started(const Stage&) {}
  virtual void progress(const Stage&, const Json& /* step, total, label, values */) {}
  virtual void log(const Stage&, int /*level*/, const std::string&) {}
  virtual void finished(const Stage&, const StageResult&) {}
};

struct EngineOptions {
  int jobs = 1;                     ///< stages at a time; exclusive stages always run alone
  bool keep_going = true;           ///< other branches go on after a failure
  std::set<std::string> force;      ///< stages that run even when cached
  std::vector<std::string> wanted;  ///< empty: all
  bool in_process = false;
  const std::atomic<int>* interrupted = nullptr;  ///< becomes the signal's number
};

/// What `plan` shows: which stages hit, and estimates. Where the manifest's own estimate cannot be had (engine/estimate.h), memory
/// is linear in the bytes that the stage reads, and seconds are those of the newest run of this recipe.
struct PlannedStage {
  std::string name;
  bool known = false;
  bool hit = false;
  std::optional<Digest> key;
  std::string reason;
  std::uint64_t memory = 0, disk = 0;
  std::optional<double> seconds;
};
struct Preflight {
  std::vector<PlannedStage> stages;
  std::uint64_t memory = 0, disk = 0, memory_available = 0, disk_available = 0;
};
Preflight preflight(const Plan& plan, Store& store, const Catalog& catalog, const EngineOptions& options);

/// Runs a plan on a oneTBB flow graph. Every stage that misses runs in a process forked from a warm espalier-worker.
std::vector<StageResult> execute(const Plan& plan, Store& store, const Catalog& catalog, const EngineOptions& options,
                                 Observer& observer);

}  // namespace espalier
