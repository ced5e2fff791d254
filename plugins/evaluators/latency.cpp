#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "formats/onnx.h"
#include "formats/package.h"
#include "run/package_process.h"
#include "run/runtime.h"
#include "sdk/machine.h"
#include "sdk/plugin.h"
#include "sdk/statistics.h"

namespace espalier {
namespace {

constexpr std::size_t fewest = 100;  ///< samples that a percentile stands on
constexpr double noticeable = 0.10;  ///< drift past which a person is told
constexpr double too_much_stolen = 0.02;

/// One of the packages that take turns.
struct Measured {
  std::string name;  ///< "package" or "baseline"
  std::unique_ptr<PackageProcess> process;
  double startup_ms = 0;
  StagePeaks peaks;
  std::vector<TimedSample> samples;

  std::vector<double> each(double (*value)(const TimedSample&)) const {
    std::vector<double> values;
    for (const TimedSample& sample : samples) values.push_back(value(sample));
    return values;
  }
  std::vector<double> steps() const {
    std::vector<double> all;
    for (const TimedSample& sample : samples) all.insert(all.end(), sample.decode_ms.begin(), sample.decode_ms.end());
    return all;
  }
};

double prompt_of(const TimedSample& s) { return s.prompt_ms; }
double decode_of(const TimedSample& s) { return s.decode_total(); }
double total_of(const TimedSample& s) { return s.total(); }

/// Speed of a package, alone on the machine; with a baseline, the two take turns sample by sample, each first in every other round,
/// so that a machine that slows down slows both. `speedup` is the median over the rounds of baseline time / package time, for
/// prompt and decode together.
class Latency final : public Component {
 public:
  void run(Context& context) override {
    const Params& params = context.params();
    std::vector<Measured> measured;
    bool language = true;
    measured.push_back(start(context, "package", language));
    if (context.has_input("baseline")) {
      bool other = true;
      measured.push_back(start(context, "baseline", other));
      if (other != language) throw_invalid("the package and its baseline are models of different tasks", "evaluator/latency");
    }
    const std::int64_t prompt = language ? params.integer("prompt") : 0, decode = language ? params.integer("decode") : 0;
    const std::int64_t count = params.has("samples") ? params.integer("samples") : language ? 5 : 100;
    const std::int64_t warmup = params.integer("warmup");
    const auto total = static_cast<std::uint64_t>(warmup + count);
    for (Measured& each : measured) {
      context.progress({0, total, "opening the " + each.name, {}});
      each.startup_ms = each.process->open();
    }
    std::vector<double> clocks;
    std::optional<ProcessorTime> before;
    for (std::int64_t round = 0; round < warmup + count; ++round) {
      if (round == warmup) before = processor_time();
      for (std::size_t turn = 0; turn < measured.size(); ++turn) {
        context.check_cancelled();
        Measured& each = measured[(turn + static_cast<std::size_t>(round)) % measured.size()];
        TimedSample sample = each.process->sample(prompt, decode);
        if (round >= warmup) each.samples.push_back(std::move(sample));
      }
      if (const auto clock = processor_clock(); clock && round >= warmup) clocks.push_back(*clock);
      context.progress({static_cast<std::uint64_t>(round + 1), total, round < warmup ? "warming up" : "sampling", {}});
    }
    const std::optional<ProcessorTime> after = processor_time();
    for (Measured& each : measured) each.peaks = each.process->peaks();
    state_speed(context, measured[0], language, prompt, decode);
    if (measured.size() == 2) state_speedup(context, measured[0], measured[1], language);
    state_memory(context, measured, language);
    state_steadiness(context, measured, before, after, clocks);
    for (const Measured& each : measured) keep_samples(context, each, language);
    double bytes = 0;
    for (const auto& [name, blob] : context.input("package").blobs) bytes += static_cast<double>(blob.size);
    context.figure("size_bytes", bytes);
    Json machine = Json::array();
    for (const auto& [property, value] : describe_machine()) machine.push_back({property, value});
    context.detail("machine", {{"columns", {"property", "value"}}, {"rows", machine}});
  }

 private:
  Measured start(Context& context, const std::string& port, bool& language) {
    const Artifact& package = context.input(port);
    const std::filesystem::path folder = unpack(context, package);
    const Graph graph = read_onnx(folder / "model.onnx");
    const auto has = [](const std::vector<Value>& values, const char* name) {
      return std::any_of(values.begin(), values.end(), [&](const Value& v) { return v.name == name; });
    };
    const std::string task = package.meta.value("task", std::string());
    language = task == "causal-lm" || (task.empty() && has(graph.inputs, "input_ids") && has(graph.outputs, "logits"));
    const std::vector<Value> inputs =
        language ? std::vector<Value>{} : sized_inputs(graph, context.params().numbers("dimensions"), 0);
    return {
        port, std::make_unique<PackageProcess>(context.component_for(package), folder, context.threads(), port, inputs), 0, {}, {}};
  }

  static void state_speed(Context& context, const Measured& own, bool language, std::int64_t prompt, std::int64_t decode) {
    const std::vector<double> steps = language ? own.steps() : own.each(prompt_of);
    if (language) {
      context.figure("prefill_tokens_per_second", 1e3 * static_cast<double>(prompt) / median(own.each(prompt_of)));
      context.figure("decode_tokens_per_second", 1e3 * static_cast<double>(decode) / median(own.each(decode_of)));
    }
    context.figure("latency_samples", static_cast<double>(steps.size()));
    if (steps.size() >= fewest) {
      context.figure("latency_p50_ms", percentile(steps, 0.50));
      context.figure("latency_p95_ms", percentile(steps, 0.95));
      context.figure("latency_p99_ms", percentile(steps, 0.99));
    } else {
      context.log(LogLevel::warning, fmt::format("{} samples of latency are too few for percentiles, which want {}: raise {}",
                                                 steps.size(), fewest, language ? "samples or decode" : "samples"));
    }
    context.figure("startup_ms", own.startup_ms);
  }

  static void state_speedup(Context& context, const Measured& own, const Measured& baseline, bool language) {
    const auto state = [&](const std::string& name, double (*value)(const TimedSample&)) {
      std::vector<double> ratios = baseline.each(value);
      const std::vector<double> mine = own.each(value);
      for (std::size_t i = 0; i < ratios.size(); ++i) ratios[i] /= mine[i];
      context.figure(name, median(ratios));
      if (const std::optional<Interval> interval = median_interval(ratios)) {
        context.figure(name + "_low", interval->low);
        context.figure(name + "_high", interval->high);
      }
    };
    state("speedup", total_of);
    if (!language) return;
    state("speedup_prefill", prompt_of);
    state("speedup_decode", decode_of);
  }

  static void state_memory(Context& context, const std::vector<Measured>& measured, bool language) {
    Json rows = Json::array();
    for (const Measured& each : measured) {
      const StagePeaks& peaks = each.peaks;
      Json row = {each.name, each.startup_ms, peaks.before, peaks.opening, peaks.prompt};
      if (language) row.push_back(peaks.decode);
      rows.push_back(std::move(row));
    }
    const StagePeaks& own = measured[0].peaks;
    context.figure("peak_rss_bytes", own.all());
    context.figure("peak_rss_opening_bytes", own.opening);
    context.figure(language ? "peak_rss_prompt_bytes" : "peak_rss_run_bytes", own.prompt);
    if (language) context.figure("peak_rss_decode_bytes", own.decode);
    Json columns = {"process", "start-up ms", "bytes before opening", "peak opening", language ? "peak prompt" : "peak running"};
    if (language) columns.push_back("peak decode");
    context.detail("memory", {{"columns", columns}, {"rows", rows}});
  }

  /// A machine that gets hot, or is shared, is slower at the end than at the beginning: then the figures are of that machine.
  static void state_steadiness(Context& context, const std::vector<Measured>& measured, const std::optional<ProcessorTime>& before,
                               const std::optional<ProcessorTime>& after, const std::vector<double>& clocks) {
    const std::size_t rounds = measured[0].samples.size(), third = rounds / 3;
    if (third > 0) {
      std::vector<double> all;
      for (std::size_t r = 0; r < rounds; ++r) {
        all.push_back(0);
        for (const Measured& each : measured) all.back() += each.samples[r].total();
      }
      const auto from = all.begin(), until = all.end();
      const double drift =
          median({until - static_cast<std::ptrdiff_t>(third), until}) / median({from, from + static_cast<std::ptrdiff_t>(third)}) -
          1;
      context.figure("drift", drift);
      if (std::abs(drift) > noticeable)
        context.log(LogLevel::warning,
                    fmt::format("the last third of the runs took {:+.0f} % of the first third's time: the machine is hot or busy",
                                100 * drift));
    }
    if (before && after && after->total > before->total) {
      const double stolen = (after->stolen - before->stolen) / (after->total - before->total);
      context.figure("steal", stolen);
      if (stolen > too_much_stolen)
        context.log(LogLevel::warning,
                    fmt::format("{:.1f} % of the processor's time went to other guests of its host", 100 * stolen));
    }
    if (!clocks.empty()) context.detail("samples.clock_mhz", clocks);
  }

  static void keep_samples(Context& context, const Measured& each, bool language) {
    const std::string prefix = "samples." + std::string(each.name == "package" ? "" : "baseline_");
    if (language) {
      context.detail(prefix + "prefill_ms", each.each(prompt_of));
      context.detail(prefix + "decode_ms", each.steps());
    }
    context.detail(prefix + "total_ms", each.each(total_of));
  }
};

}  // namespace

ESPALIER_PLUGIN(R"json({
  "name": "latency", "version": "0.2.0", "author": "The Espalier authors", "licence": "Apache-2.0",
  "description": "Speed, start-up and memory of packages",
  "components": [ {
    "name": "evaluator/latency", "version": "0.2.0",
    "summary": "latency percentiles, tokens a second, start-up and peak memory of a package, against a baseline where one is given",
    "inputs": [
      {"name": "package", "type": "package", "required": true, "many": false, "help": "the package to measure"},
      {"name": "baseline", "type": "package", "required": false, "many": false, "help": "what it is compared with, sample by sample"} ],
    "outputs": [],
    "parameters": [
      {"name": "prompt", "type": "integer", "default": 512, "min": 1, "unit": "tokens", "help": "tokens fed at once (language models)"},
      {"name": "decode", "type": "integer", "default": 128, "min": 1, "unit": "tokens", "help": "tokens generated one by one (language models)"},
      {"name": "samples", "type": "integer", "min": 1, "max": 10000, "help": "prompts measured, each with its continuation, or runs of another model; 5 and 100 when left out. Percentiles want 100 tokens or runs"},
      {"name": "warmup", "type": "integer", "default": 1, "min": 0, "max": 1000, "help": "samples taken before, not counted"},
      {"name": "dimensions", "type": "map<number>", "default": {}, "help": "sizes of the model's free dimensions by name (other than language models); a free first one is 1 when left out"}
    ],
    "depends": {"seed": false, "threads": true, "runtimes": []},
    "byte_exact": false, "exclusive": true,
    "estimate": {"memory": "1e8 + max(package.open_bytes, baseline.open_bytes) + if(package.language, 0.1 * prompt, 1) * package.activation_bytes",
                 "seconds": "if(package.language, 0.8, 0.15) + (package.bytes + baseline.bytes) / 4e8 + (warmup + if(samples, samples, if(package.language, 5, 100))) * if(package.language, prompt * 2 * (package.macs + baseline.macs) / (0.7 * machine.flops) + decode * (0.004 + (package.bytes + baseline.bytes) / machine.bandwidth), 2e-4 + 2 * (package.macs + baseline.macs) / (0.5 * machine.flops))",
                 "memory_base": 6e8, "memory_per_byte": 1.6, "output_per_byte": 0}
  } ] })json",
                ESPALIER_COMPONENT("evaluator/latency", Latency));

}  // namespace espalier
