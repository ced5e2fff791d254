#include <tbb/flow_graph.h>

#include <fstream>

#include "engine/dispatcher.h"
#include "engine/engine.h"
#include "engine/key.h"
#include "engine/request.h"
#include "engine/requirement.h"
#include "sdk/error.h"

namespace espalier {
namespace fs = std::filesystem;
namespace {

using Token = tbb::flow::continue_msg;
using WorkNode = tbb::flow::async_node<Token, Token>;

constexpr std::size_t kLogHead = 1u << 20, kLogTail = 3u << 20;  // of a longer log, what is kept
constexpr std::size_t kTailBytes = 4000;
constexpr int kTailLines = 20;

/// Passes events on one at a time.
class OneAtATime final : public Observer {
 public:
  explicit OneAtATime(Observer& inner) : inner_(inner) {}
  void started(const Stage& stage) override {
    with([&] { inner_.started(stage); });
  }
  void progress(const Stage& stage, const Json& report) override {
    with([&] { inner_.progress(stage, report); });
  }
  void log(const Stage& stage, int level, const std::string& text) override {
    with([&] { inner_.log(stage, level, text); });
  }
  void finished(const Stage& stage, const StageResult& result) override {
    with([&] { inner_.finished(stage, result); });
  }

 private:
  template <class Function>
  void with(const Function& function) {
    const std::lock_guard guard(mutex_);
    function();
  }
  Observer& inner_;
  std::mutex mutex_;
};

std::string read_log(const fs::path& file) {
  std::ifstream in(file, std::ios::binary);
  in.seekg(0, std::ios::end);
  const auto size = in ? static_cast<std::size_t>(in.tellg()) : 0;
  const auto part = [&](std::size_t from, std::size_t length) {
    std::string text(length, '\0');
    in.seekg(static_cast<std::streamoff>(from));
    in.read(text.data(), static_cast<std::streamsize>(length));
    text.resize(static_cast<std::size_t>(in.gcount()));
    return text;
  };
  if (size == 0) return {};
  if (size <= kLogHead + kLogTail) return part(0, size);
  return part(0, kLogHead) + "\n… " + std::to_string(size - kLogHead - kLogTail) + " bytes left out …\n" +
         part(size - kLogTail, kLogTail);
}

std::string last_lines(const std::string& text) {
  std::size_t start = text.size() > kTailBytes ? text.size() - kTailBytes : 0;
  std::size_t at = text.find_last_not_of('\n');
  for (int line = 0; line < kTailLines && at != std::string::npos && at >= start; ++line) {
    at = text.rfind('\n', at);
    if (at == std::string::npos || at == 0) break;
    if (line + 1 == kTailLines) start = std::max(start, at + 1);
    --at;
  }
  return text.substr(start);
}

/// One execution of a plan. Every stage is a chain of three nodes: `prepare` (key, cache), `work` (waits for a worker without
/// holding a thread), `settle` (publishes); a chain starts when all that it reads from have settled.
class Execution {
 public:
  Execution(const Plan& plan, Store& store, const Catalog& catalog, const EngineOptions& options, Observer& observer)
      : plan_(plan), store_(store), catalog_(catalog), options_(options), observer_(observer), keys_(store, catalog) {}

  std::vector<StageResult> run();

 private:
  struct Step {
    const Stage* stage = nullptr;
    StageResult result;
    std::map<std::string, std::vector<std::pair<std::size_t, std::string>>> inputs;  // port → (producing step, its port)
    StageInputs digests;
    Json preimage;
    std::optional<ActionEntry> earlier;  // of a forced stage
    std::optional<JobOutcome> outcome;
    bool needs_work = false;
  };

  bool interrupted() const { return options_.interrupted != nullptr && *options_.interrupted != 0; }
  void plan_steps();
  void prepare(Step& step);
  bool inputs_ready(Step& step);
  void work(Step& step, WorkNode::gateway_type& gateway);
  void settle(Step& step);
  void publish(Step& step);
  void keep_log(Step& step);
  void accept(Step& step, StageStatus status, ActionEntry entry);
  void fail(Step& step, StageResult::Failure cause);
  void done(Step& step, StageStatus status);
  void compare(const Step& step, const ActionEntry& now);
  Dispatcher& dispatcher();

  const Plan& plan_;
  Store& store_;
  const Catalog& catalog_;
  const EngineOptions& options_;
  OneAtATime observer_;
  KeyMaker keys_;
  std::vector<Step> steps_;
  std::atomic<bool> stopped_ = false;
  std::once_flag dispatcher_made_;
  std::unique_ptr<Dispatcher> dispatcher_;
};

void Execution::plan_steps() {
  std::map<std::string, std::size_t> index;
  std::set<std::string> wanted;
  if (!options_.wanted.empty())
    for (const std::string& name : plan_.closure(options_.wanted)) wanted.insert(name);
  for (const Stage& stage : plan_.stages) {
    if (!options_.wanted.empty() && !wanted.contains(stage.name)) continue;
    Step step;
    step.stage = &stage;
    step.result.name = stage.name;
    step.result.use = stage.use;
    for (const auto& [port, producers] : stage.inputs)
      for (const StageInput& input : producers) step.inputs[port].emplace_back(index.at(input.stage), input.port);
    index[stage.name] = steps_.size();
    steps_.push_back(std::move(step));
  }
}

std::vector<StageResult> Execution::run() {
  plan_steps();
  store_.stop_on(options_.interrupted);
  const auto use = store_.in_use([this] { return !interrupted(); });
  tbb::flow::graph graph;
  std::deque<tbb::flow::continue_node<Token>> prepares, settles;
  std::deque<WorkNode> works;
  for (Step& step : steps_) {
    prepares.emplace_back(graph, [this, &step](const Token&) { prepare(step); });
    works.emplace_back(graph, tbb::flow::unlimited,
                       [this, &step](const Token&, WorkNode::gateway_type& gateway) { work(step, gateway); });
    settles.emplace_back(graph, [this, &step](const Token&) { settle(step); });
    tbb::flow::make_edge(prepares.back(), works.back());
    tbb::flow::make_edge(works.back(), settles.back());
  }
  std::vector<std::size_t> roots;
  for (std::size_t i = 0; i < steps_.size(); ++i) {
    std::set<std::size_t> producers;
    for (const auto& [port, sources] : steps_[i].inputs)
      for (const auto& source : sources) producers.insert(source.first);
    for (const std::size_t producer : producers) tbb::flow::make_edge(settles[producer], prepares[i]);
    if (producers.empty()) roots.push_back(i);
  }
  for (const std::size_t root : roots) prepares[root].try_put(Token());
  graph.wait_for_all();
  dispatcher_.reset();
  store_.stop_on(nullptr);
  std::vector<StageResult> results;
  for (Step& step : steps_) results.push_back(std::move(step.result));
  return results;
}

bool Execution::inputs_ready(Step& step) {
  for (const auto& [port, sources] : step.inputs)
    for (const auto& [producer, output] : sources) {
      const StageResult& result = steps_[producer].result;
      if (result.status == StageStatus::cancelled) return done(step, StageStatus::cancelled), false;
      if (result.status != StageStatus::ran && result.status != StageStatus::cached) return done(step, StageStatus::skipped), false;
      const auto found = result.entry->outputs.find(output);
      if (found == result.entry->outputs.end()) {
        fail(step, {std::string(to_string(ErrorCode::internal)),
                    "stage \"" + result.name + "\" has no output \"" + output + "\"",
                    {},
                    {},
                    {}});
        return false;
      }
      step.digests[port].push_back(found->second.second);
    }
  return true;
}

void Execution::prepare(Step& step) {
  if (interrupted()) return done(step, StageStatus::cancelled);
  if (stopped_) return done(step, StageStatus::skipped);
  if (!inputs_ready(step)) return;
  try {
    StageKey key = keys_.key(*step.stage, step.digests);
    step.result.key = key.digest;
    step.preimage = std::move(key.preimage);
    auto entry = store_.find(key.digest);
    if (options_.force.contains(step.stage->name))
      step.earlier = std::move(entry);
    else if (entry)
      return accept(step, StageStatus::cached, std::move(*entry));
    step.needs_work = true;
  } catch (const Error& error) {
    if (error.code() == ErrorCode::cancelled) return done(step, StageStatus::cancelled);
    fail(step, {std::string(to_string(error.code())), error.message(), error.where(), error.hint(), {}});
  } catch (const std::exception& error) {
    fail(step, {std::string(to_string(ErrorCode::internal)), error.what(), {}, {}, {}});
  }
}

Dispatcher& Execution::dispatcher() {
  std::call_once(dispatcher_made_, [this] {
    dispatcher_ = std::make_unique<Dispatcher>(store_, keys_.installation().worker(), options_, observer_);
  });
  return *dispatcher_;
}

void Execution::work(Step& step, WorkNode::gateway_type& gateway) {
  if (!step.needs_work) {
    gateway.try_put(Token());
    return;
  }
  Job job;
  job.stage = step.stage;
  job.order = static_cast<std::size_t>(&step - steps_.data());
  job.key = *step.result.key;
  job.force = options_.force.contains(step.stage->name);
  job.request = [this, &step](const fs::path& folder, const fs::path& scratch) {
    Json request = stage_request(*step.stage, step.digests, store_, catalog_);
    request["job"] = folder.string();
    request["scratch"] = scratch.string();
    return request.dump();
  };
  gateway.reserve_wait();
  try {
    dispatcher().submit(std::move(job), [&step, &gateway](JobOutcome outcome) {
      step.outcome = std::move(outcome);
      gateway.try_put(Token());
      gateway.release_wait();
    });
  } catch (const Error& error) {
    step.needs_work = false;
    fail(step, {std::string(to_string(error.code())), error.message(), error.where(), error.hint(), {}});
    gateway.try_put(Token());
    gateway.release_wait();
  }
}

void Execution::settle(Step& step) {
  if (!step.needs_work) return;
  JobOutcome& outcome = *step.outcome;
  step.result.seconds = outcome.seconds;
  try {
    switch (outcome.kind) {
      case JobOutcome::Kind::finished:
        publish(step);
        break;
      case JobOutcome::Kind::cached:
        accept(step, StageStatus::cached, std::move(*outcome.entry));
        break;
      case JobOutcome::Kind::skipped:
        done(step, StageStatus::skipped);
        break;
      case JobOutcome::Kind::cancelled:
        done(step, StageStatus::cancelled);
        break;
      case JobOutcome::Kind::failed:
        keep_log(step);
        fail(step, *outcome.error);
        break;
    }
  } catch (const Error& error) {
    fail(step, {std::string(to_string(error.code())), error.message(), error.where(), error.hint(), {}});
  } catch (const std::exception& error) {
    fail(step, {std::string(to_string(ErrorCode::internal)), error.what(), {}, {}, {}});
  }
  std::error_code ignored;
  if (!outcome.folder.empty()) fs::remove_all(outcome.folder, ignored);
  step.outcome.reset();  // the key's lock goes last
}

/// What a failed stage printed is kept for `log`, and its end for the message; a store that cannot take it is no second failure.
void Execution::keep_log(Step& step) {
  if (step.outcome->folder.empty()) return;
  const std::string text = read_log(step.outcome->folder / "log");
  if (step.outcome->error) step.outcome->error->tail = last_lines(text);
  try {
    step.result.log = store_.put(std::as_bytes(std::span<const char>(text))).digest;
  } catch (const Error&) {}
}

void Execution::publish(Step& step) {
  JobOutcome& outcome = *step.outcome;
  const auto digest_of = [](const Json& value) {
    const auto digest = Digest::from_hex(value.get<std::string>());
    if (!digest) throw Error(ErrorCode::internal, "the worker named no digest: " + value.dump());
    return *digest;
  };
  std::vector<std::pair<fs::path, Digest>> blobs;
  for (const Json& blob : outcome.done.at("blobs")) {
    const Digest digest = digest_of(blob);
    blobs.emplace_back(outcome.folder / digest.hex(), digest);
  }
  store_.adopt(blobs);
  ActionEntry entry;
  entry.stage = step.stage->name;
  entry.use = step.stage->use;
  for (const auto& [port, output] : outcome.done.at("outputs").items())
    entry.outputs[port] = {artifact_type_from(output.at("type").get<std::string>()), digest_of(output.at("digest"))};
  for (const auto& [name, value] : outcome.done.at("figures").items())
    entry.figures[name] = value.is_null() ? std::numeric_limits<double>::quiet_NaN() : value.get<double>();
  entry.details = outcome.done.at("details");
  entry.seconds = outcome.seconds;
  entry.cpu_seconds = outcome.cpu_seconds;
  entry.peak_rss = outcome.peak_rss;
  const std::string log = read_log(outcome.folder / "log");
  entry.log = store_.put(std::as_bytes(std::span<const char>(log))).digest;
  const std::string preimage = step.preimage.dump(1);
  entry.preimage = store_.put(std::as_bytes(std::span<const char>(preimage))).digest;
  store_.publish(*step.result.key, entry);
  std::error_code ignored;
  fs::remove_all(store_.scratch(*step.result.key), ignored);
  compare(step, entry);
  accept(step, StageStatus::ran, std::move(entry));
}

/// The same key with other bytes: something that is no input decided over the result.
void Execution::compare(const Step& step, const ActionEntry& now) {
  if (!step.earlier) return;
  for (const auto& [port, output] : now.outputs) {
    const auto before = step.earlier->outputs.find(port);
    if (before == step.earlier->outputs.end() || before->second == output || step.stage->component->exclusive) continue;
    observer_.log(
        *step.stage, 2,
        "not deterministic: output \"" + port + "\" was " + before->second.second.hex() + ", now it is " + output.second.hex());
  }
}

void Execution::accept(Step& step, StageStatus status, ActionEntry entry) {
  if (status == StageStatus::cached) step.result.seconds = 0;
  step.result.log = entry.log;
  step.result.entry = std::move(entry);
  if (auto failure = unmet(*step.stage, step.result.entry->figures)) return fail(step, std::move(*failure));
  done(step, status);
}

/// Names stage, component and plugin file before the cause.
void Execution::fail(Step& step, StageResult::Failure cause) {
  const Stage& stage = *step.stage;
  std::string text = "stage \"" + stage.name + "\" (" + stage.use;
  if (stage.component != nullptr) text += ", " + stage.component->file.filename().string();
  text += "): ";
  if (!cause.where.empty()) text += cause.where + ": ";
  cause.message = text + cause.message;
  cause.where = plan_.file.string() + (stage.line > 0 ? ":" + std::to_string(stage.line) : "");
  step.result.error = std::move(cause);
  if (!options_.keep_going) {
    stopped_ = true;
    if (dispatcher_) dispatcher_->stop_starting();
  }
  done(step, StageStatus::failed);
}

void Execution::done(Step& step, StageStatus status) {
  step.result.status = status;
  observer_.finished(*step.stage, step.result);
}

}  // namespace

std::vector<StageResult> execute(const Plan& plan, Store& store, const Catalog& catalog, const EngineOptions& options,
                                 Observer& observer) {
  return Execution(plan, store, catalog, options, observer).run();
}

}  // namespace espalier
