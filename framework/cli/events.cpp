#include "cli/events.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <ctime>

#include "sdk/error.h"

namespace espalier {
namespace {

Json optional_number(const std::optional<double>& value) { return value ? Json(*value) : Json(nullptr); }

const char* level_word(int level) { return level <= 0 ? "debug" : level == 1 ? "info" : level == 2 ? "warning" : "error"; }

}  // namespace

double unix_time() {
  timespec time{};
  ::clock_gettime(CLOCK_REALTIME, &time);
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) * 1e-9;
}

Json stage_json(const StageResult& result, const StageEstimate& estimate) {
  Json outputs = Json::object(), figures = Json::object();
  if (result.entry) {
    for (const auto& [port, output] : result.entry->outputs)
      outputs[port] = {{"type", std::string(to_string(output.first))}, {"digest", output.second.hex()}};
    for (const auto& [name, value] : result.entry->figures) figures[name] = std::isfinite(value) ? Json(value) : Json(nullptr);
  }
  Json json = {{"name", result.name},
               {"use", result.use},
               {"status", std::string(to_string(result.status))},
               {"seconds", result.seconds},
               {"key", result.key ? Json(result.key->hex()) : Json(nullptr)},
               {"outputs", std::move(outputs)},
               {"figures", std::move(figures)},
               {"estimate", {{"memory_bytes", optional_number(estimate.memory)}, {"seconds", optional_number(estimate.seconds)}}},
               {"error", nullptr}};
  if (result.log) json["log"] = result.log->hex();
  if (result.entry) {
    json["peak_rss_bytes"] = result.entry->peak_rss;
    json["cpu_seconds"] = result.entry->cpu_seconds;
  }
  if (result.error)
    json["error"] = {{"code", result.error->code},
                     {"message", result.error->message},
                     {"where", result.error->where},
                     {"hint", result.error->hint}};
  return json;
}

void Observers::started(const Stage& stage) {
  for (Observer* each : all_) each->started(stage);
}
void Observers::progress(const Stage& stage, const Json& report) {
  for (Observer* each : all_) each->progress(stage, report);
}
void Observers::log(const Stage& stage, int level, const std::string& text) {
  for (Observer* each : all_) each->log(stage, level, text);
}
void Observers::finished(const Stage& stage, const StageResult& result) {
  for (Observer* each : all_) each->finished(stage, result);
}

EventWriter::EventWriter(const std::string& file, std::string run, const Plan& plan, const std::vector<std::string>& wanted)
    : file_(file), run_(std::move(run)) {
  descriptor_ = ::open(file.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0644);
  if (descriptor_ < 0)
    throw Error(ErrorCode::resource, std::string("the file of events cannot be opened: ") + std::strerror(errno), file,
                "name a file in a folder that is there and may be written");
  const auto needed = plan.closure(wanted);
  Json stages = Json::array();
  for (const Stage& stage : plan.stages)
    if (wanted.empty() || std::find(needed.begin(), needed.end(), stage.name) != needed.end())
      stages.push_back({{"name", stage.name}, {"use", stage.use}});
  write("run_started", {{"recipe", plan.name}, {"file", plan.file.string()}, {"stages", std::move(stages)}});
}

EventWriter::~EventWriter() { ::close(descriptor_); }

void EventWriter::write(const char* event, Json more) {
  if (!trouble_.empty()) return;  // half a file of events is better than one with holes
  Json line = {{"schema", 1}, {"run", run_}, {"time", unix_time()}, {"event", event}};
  line.update(more);
  const std::string text = line.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
  std::string_view left = text;
  while (!left.empty()) {
    const ssize_t done = ::write(descriptor_, left.data(), left.size());
    if (done < 0 && errno == EINTR) continue;
    if (done < 0) {
      trouble_ = "events are missing from " + file_ + ": " + std::strerror(errno);
      return;
    }
    left.remove_prefix(static_cast<std::size_t>(done));
  }
}

void EventWriter::started(const Stage& stage) { write("stage_started", {{"stage", stage.name}, {"use", stage.use}}); }

void EventWriter::progress(const Stage& stage, const Json& report) {
  Json more = report.is_object() ? report : Json::object();
  more["stage"] = stage.name;
  write("progress", std::move(more));
}

void EventWriter::log(const Stage& stage, int level, const std::string& text) {
  write("log", {{"stage", stage.name}, {"level", level_word(level)}, {"text", text}});
}

void EventWriter::finished(const Stage& stage, const StageResult& result) {
  Json more = stage_json(result, {});
  more.erase("estimate");
  more.erase("name");
  more["stage"] = stage.name;
  write("stage_finished", std::move(more));
}

void EventWriter::end(bool ok, double seconds, int signal) {
  write("run_finished", {{"ok", ok}, {"seconds", seconds}, {"signal", signal == 0 ? Json() : Json(signal)}});
}

}  // namespace espalier
