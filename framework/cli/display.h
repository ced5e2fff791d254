#pragma once
#include <chrono>
#include <condition_variable>
#include <map>
#include <mutex>
#include <string>
#include <thread>

#include "cli/command.h"
#include "engine/engine.h"

namespace espalier {

/// What a run looks like on stderr: on a terminal one live line per running stage (step, loss, time left), elsewhere plain lines.
class Display final : public Observer {
 public:
  explicit Display(const CommonOptions& common);
  ~Display() override;
  void started(const Stage& stage) override;
  void progress(const Stage& stage, const Json& report) override;
  void log(const Stage& stage, int level, const std::string& text) override;
  void finished(const Stage& stage, const StageResult& result) override;

 private:
  using Clock = std::chrono::steady_clock;
  struct Live {
    Clock::time_point since, said, first_at;
    std::uint64_t step = 0, total = 0, first = 0;  // first: the step of the first report, from which speed is told
    std::string label, values;
  };
  std::string line(const std::string& name, const Live& live, Clock::time_point now) const;
  void say(const std::string& text);
  void draw();
  void erase();
  void tick();

  CommonOptions common_;
  bool live_;
  std::map<std::string, Live> running_;
  int drawn_ = 0;
  std::mutex mutex_;
  std::condition_variable stop_;
  bool stopped_ = false;
  std::thread ticker_;
};

/// A stage's error as it is shown: message, hint, the end of its log.
std::string error_text(const StageResult::Failure& failure, bool colour);
/// "perplexity 25.7, size_bytes 5.38e+08".
std::string figures_text(const std::map<std::string, double>& figures);

}  // namespace espalier
