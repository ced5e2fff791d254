#pragma once
#include <string>
#include <vector>

#include "engine/engine.h"
#include "engine/estimate.h"

namespace espalier {

/// Seconds since 1970.
double unix_time();

/// What `run --json` says of a stage.
Json stage_json(const StageResult& result, const StageEstimate& estimate);

/// Several observers of one run.
class Observers final : public Observer {
 public:
  explicit Observers(std::vector<Observer*> all) : all_(std::move(all)) {}
  void add(Observer& one) { all_.push_back(&one); }
  void started(const Stage& stage) override;
  void progress(const Stage& stage, const Json& report) override;
  void log(const Stage& stage, int level, const std::string& text) override;
  void finished(const Stage& stage, const StageResult& result) override;

 private:
  std::vector<Observer*> all_;
};

/// What happens in a run, for other programs: one line of JSON for each event, written whole as it happens. Each has "schema" 1,
/// "run", "time" (seconds since 1970) and "event":
///   run_started     recipe, file, stages: [{name, use}]
///   stage_started   stage, use
///   progress        stage, step, total, label, values
///   log             stage, level (debug, info, warning), text
///   stage_finished  stage, and all that `run --json` has of it but the estimate
///   run_finished    ok, seconds, signal (null, or its number)
/// A cached stage is finished without having started. The file is begun anew; a pipe or device is written to as it is. A run does
/// not fail with its events: trouble() says what went wrong.
class EventWriter final : public Observer {
 public:
  /// Throws Error(resource) when the file cannot be opened.
  EventWriter(const std::string& file, std::string run, const Plan& plan, const std::vector<std::string>& wanted);
  ~EventWriter() override;
  EventWriter(const EventWriter&) = delete;
  void started(const Stage& stage) override;
  void progress(const Stage& stage, const Json& report) override;
  void log(const Stage& stage, int level, const std::string& text) override;
  void finished(const Stage& stage, const StageResult& result) override;
  void end(bool ok, double seconds, int signal);
  const std::string& trouble() const { return trouble_; }

 private:
  void write(const char* event, Json more);
  std::string file_, run_, trouble_;
  int descriptor_ = -1;
};

}  // namespace espalier
