#include <algorithm>
#include <fstream>

#include "engine/engine.h"
#include "engine/estimate.h"
#include "engine/key.h"
#include "sdk/error.h"

namespace espalier {
namespace {

constexpr int kPastRuns = 20;

std::optional<std::uint64_t> number_in(const char* file) {
  std::ifstream in(file);
  std::uint64_t value = 0;
  if (in >> value) return value;
  return std::nullopt;
}

/// What the kernel would still give: MemAvailable, or less where a control group (version 2 or 1) sets a limit.
std::uint64_t available_memory() {
  std::uint64_t available = 0;
  std::ifstream in("/proc/meminfo");
  for (std::string line; std::getline(in, line);)
    if (line.starts_with("MemAvailable:")) available = std::strtoull(line.c_str() + 13, nullptr, 10) * 1024;
  const std::pair<const char*, const char*> groups[] = {
      {"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"},
      {"/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"}};
  for (const auto& [limit_file, usage_file] : groups) {
    const auto limit = number_in(limit_file), usage = number_in(usage_file);
    if (limit && usage && *limit < (std::uint64_t{1} << 60)) available = std::min(available, *limit > *usage ? *limit - *usage : 0);
  }
  return available;
}

std::uint64_t artifact_bytes(const Store& store, const Digest& digest) {
  std::map<Digest, std::uint64_t> blobs;
  for (const auto& [name, blob] : store.artifact(digest).blobs) blobs[blob.digest] = blob.size;
  std::uint64_t bytes = 0;
  for (const auto& [blob, size] : blobs) bytes += size;
  return bytes;
}

/// Seconds that the newest run of this recipe needed for a stage, by name and component.
std::map<std::pair<std::string, std::string>, double> past_seconds(const Store& store, const Plan& plan) {
  std::map<std::pair<std::string, std::string>, double> seconds;
  for (const Store::RunRecord& run : store.runs(plan.file, kPastRuns)) {
    const auto stages = run.summary.find("stages");
    if (stages == run.summary.end() || !stages->is_array()) continue;
    for (const Json& stage : *stages)
      if (stage.is_object() && stage.value("status", "") == "ran")
        seconds.try_emplace({stage.value("name", ""), stage.value("use", "")}, stage.value("seconds", 0.0));
  }
  return seconds;
}

/// What an output that is not there yet may hold: models, packages and data grow with what the stage reads, the rest stays small.
std::uint64_t expected_bytes(const Stage& producer, const std::string& port, std::uint64_t estimate) {
  for (const PortInfo& output : producer.component->outputs) {
    if (output.name != port) continue;
    switch (output.type) {
      case ArtifactType::tokenizer:
        return std::min<std::uint64_t>(estimate, 4u << 20);
      case ArtifactType::figures:
        return std::min<std::uint64_t>(estimate, 1u << 20);
      case ArtifactType::scores:
      case ArtifactType::masks:
      case ArtifactType::statistics:
        return std::min<std::uint64_t>(estimate, 16u << 20);
      default:
        return estimate;
    }
  }
  return estimate;
}

/// What is known of a stage's outputs before it has run.
struct Known {
  std::optional<ActionEntry> entry;
  std::uint64_t bytes = 0;
};

}  // namespace

Preflight preflight(const Plan& plan, Store& store, const Catalog& catalog, const EngineOptions& options) {
  Preflight flight;
  KeyMaker keys(store, catalog);
  std::map<std::string, Known> known;
  std::set<std::string> wanted;
  for (const std::string& name : plan.closure(options.wanted)) wanted.insert(name);
  for (const Stage& stage : plan.stages) {
    if (!options.wanted.empty() && !wanted.contains(stage.name)) continue;
    PlannedStage planned;
    planned.name = stage.name;
    planned.known = true;
    std::uint64_t bytes = keys.source_bytes(stage);
    std::map<std::string, std::vector<Digest>> inputs;
    for (const auto& [port, producers] : stage.inputs)
      for (const StageInput& producer : producers) {
        const Known& source = known[producer.stage];
        const auto output = source.entry ? source.entry->outputs.find(producer.port) : decltype(source.entry->outputs.end()){};
        if (source.entry && output != source.entry->outputs.end()) {
          inputs[port].push_back(output->second.second);
          bytes += artifact_bytes(store, output->second.second);
        } else {
          if (planned.known) planned.reason = "waits for " + producer.stage;
          planned.known = false;
          bytes += expected_bytes(*plan.find(producer.stage), producer.port, source.bytes);
        }
      }
    Known& self = known[stage.name];
    if (planned.known) {
      try {
        planned.key = keys.key(stage, inputs).digest;
        self.entry = store.find(*planned.key);
        const bool forced = options.force.contains(stage.name);
        planned.hit = self.entry && !forced;
        planned.reason = planned.hit ? "cached" : forced ? "forced" : "no entry under its key";
        if (forced) self.entry.reset();
      } catch (const Error& error) {
        planned.known = false;
        planned.reason = error.what();
      }
    }
    if (!planned.hit) {
      planned.memory =
          static_cast<std::uint64_t>(stage.component->memory_base + stage.component->memory_per_byte * static_cast<double>(bytes));
      planned.disk = static_cast<std::uint64_t>(stage.component->output_per_byte * static_cast<double>(bytes));
      self.bytes = planned.disk;
    }
    flight.stages.push_back(std::move(planned));
  }

  // The manifests' own estimates, from what is there already.
  const auto estimates = estimate_plan(
      plan, catalog,
      [&](const Stage& stage, const std::string& port) -> std::optional<Facts> {
        const auto found = known.find(stage.name);
        if (found == known.end() || !found->second.entry) return std::nullopt;
        const auto output = found->second.entry->outputs.find(port);
        if (output == found->second.entry->outputs.end()) return std::nullopt;
        return facts_of(store.artifact(output->second.second));
      },
      [&](int threads) { return known_speed(store, threads); });
  for (PlannedStage& stage : flight.stages) {
    if (stage.hit) continue;
    const StageEstimate& estimate = estimates.at(stage.name);
    if (estimate.memory) stage.memory = static_cast<std::uint64_t>(std::max(*estimate.memory, 0.0));
    if (estimate.seconds) stage.seconds = std::max(*estimate.seconds, 0.0);
  }

  std::vector<std::uint64_t> memories;
  const bool misses = std::any_of(flight.stages.begin(), flight.stages.end(), [](const PlannedStage& stage) { return !stage.hit; });
  const auto past = misses ? past_seconds(store, plan) : decltype(past_seconds(store, plan)){};
  for (PlannedStage& stage : flight.stages) {
    if (stage.hit) continue;
    flight.disk += stage.disk;
    memories.push_back(stage.memory);
    if (stage.seconds) continue;
    if (const auto found = past.find({stage.name, plan.find(stage.name)->use}); found != past.end()) stage.seconds = found->second;
  }
  std::sort(memories.rbegin(), memories.rend());
  const auto at_once = std::min(memories.size(), static_cast<std::size_t>(std::max(1, options.jobs)));
  for (std::size_t i = 0; i < at_once; ++i) flight.memory += memories[i];
  flight.memory_available = available_memory();
  flight.disk_available = store.free_bytes();
  return flight;
}

}  // namespace espalier
