#include <ATen/ops/argmax.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <fstream>
#include <numeric>

#include "formats/package.h"
#include "run/runtime.h"
#include "sdk/plugin.h"

namespace espalier {
namespace {

using Clock = std::chrono::steady_clock;
double milliseconds(Clock::time_point from, Clock::time_point to) {
  return std::chrono::duration<double, std::milli>(to - from).count();
}

/// One prompt and its continuation: milliseconds of the prompt, and of each generated token.
struct Sample {
  double prefill_ms = 0;
  std::vector<double> decode_ms;
  double decode_total() const { return std::accumulate(decode_ms.begin(), decode_ms.end(), 0.0); }
  double total() const { return prefill_ms + decode_total(); }
};

/// Feeds a prompt of `prompt` tokens made from a fixed sequence and continues it greedily by `decode` tokens.
Sample measure(LanguageModel& model, std::int64_t vocabulary, std::int64_t prompt, std::int64_t decode) {
  std::vector<std::int64_t> tokens(static_cast<std::size_t>(prompt));
  std::uint64_t state = 0x9e3779b97f4a7c15u;  // a linear congruential sequence: any text will do, the same for everyone
  for (std::int64_t& token : tokens) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    token = static_cast<std::int64_t>((state >> 33) % static_cast<std::uint64_t>(vocabulary));
  }
  model.reset();
  Sample sample;
  auto start = Clock::now();
  std::int64_t next = at::argmax(model.feed(tokens, false)).item<std::int64_t>();
  sample.prefill_ms = milliseconds(start, Clock::now());
  for (std::int64_t i = 0; i < decode; ++i) {
    start = Clock::now();
    next = at::argmax(model.feed({&next, 1}, false)).item<std::int64_t>();
    sample.decode_ms.push_back(milliseconds(start, Clock::now()));
  }
  return sample;
}

/// "VmHWM" and the like of this process, in bytes.
double memory_of_process(std::string_view field) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with(field)) return 1024.0 * std::stod(line.substr(field.size() + 1));
  }
  return 0;
}

/// Messages between the evaluator and the process of a package: length, then JSON.
void send(int fd, const Json& message) {
  const std::string text = message.dump();
  const auto size = static_cast<std::uint32_t>(text.size());
  std::string bytes(reinterpret_cast<const char*>(&size), sizeof size);
  bytes += text;
  for (std::size_t done = 0; done < bytes.size();) {
    const ssize_t n = ::write(fd, bytes.data() + done, bytes.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) throw Error(ErrorCode::crashed, "the process that runs the package is gone", "evaluator/latency");
    done += static_cast<std::size_t>(n);
  }
}

bool receive_bytes(int fd, char* to, std::size_t size) {
  for (std::size_t done = 0; done < size;) {
    const ssize_t n = ::read(fd, to + done, size - done);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    done += static_cast<std::size_t>(n);
  }
  return true;
}

std::optional<Json> receive(int fd) {
  std::uint32_t size = 0;
  if (!receive_bytes(fd, reinterpret_cast<char*>(&size), sizeof size) || size > (64u << 20)) return std::nullopt;
  std::string text(size, '\0');
  if (!receive_bytes(fd, text.data(), size)) return std::nullopt;
  return Json::parse(text);
}

/// A package opened in a process of its own, forked before any runtime has started: its start-up and its peak memory are its own,
/// and two packages never share threads or allocators.
class PackageProcess {
 public:
  PackageProcess(const ComponentHandle& backend, const std::filesystem::path& folder, int threads, std::string name)
      : name_(std::move(name)) {
    int down[2], up[2];
    if (::pipe(down) != 0 || ::pipe(up) != 0) throw Error(ErrorCode::resource, "no pipe can be made", "evaluator/latency");
    pid_ = ::fork();
    if (pid_ < 0) throw Error(ErrorCode::resource, "no process can be forked", "evaluator/latency");
    if (pid_ == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      ::close(down[1]);
      ::close(up[0]);
      serve(backend, folder, threads, down[0], up[1]);
      ::_exit(0);
    }
    ::close(down[0]);
    ::close(up[1]);
    to_ = down[1];
    from_ = up[0];
  }
  PackageProcess(const PackageProcess&) = delete;
  ~PackageProcess() {
    ::close(to_);
    ::close(from_);
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }

  Json ask(const Json& request) {
    send(to_, request);
    const std::optional<Json> answer = receive(from_);
    if (!answer)
      throw Error(ErrorCode::crashed, "the process that runs the " + name_ + " died", "evaluator/latency",
                  "not enough memory, or a defect of its runtime");
    if (answer->contains("error")) {
      const Json& error = answer->at("error");
      throw Error(error_code_from(error.at("code").get<std::string>()), error.at("message").get<std::string>(),
                  name_ + ": " + error.at("where").get<std::string>(), error.at("hint").get<std::string>());
    }
    return *answer;
  }

 private:
  static Json answer_to(const Json& request, const ComponentHandle& backend, const std::filesystem::path& folder, int threads,
                        std::unique_ptr<LanguageModel>& model, std::int64_t& vocabulary) {
    if (request.at("do") == "open") {
      const double before = memory_of_process("VmRSS:");
      const auto start = Clock::now();
      model = backend.as<Runtime>().open_language_model(folder, {threads, true});
      const std::int64_t first = 0;
      vocabulary = model->feed({&first, 1}, false).size(1);
      return {{"startup_ms", milliseconds(start, Clock::now())}, {"rss_before", before}};
    }
    if (request.at("do") == "sample") {
      const Sample sample = measure(*model, vocabulary, request.at("prompt"), request.at("decode"));
      return {{"prefill_ms", sample.prefill_ms}, {"decode_ms", sample.decode_ms}};
    }
    return {{"peak_rss", memory_of_process("VmHWM:")}};
  }

  static void serve(const ComponentHandle& backend, const std::filesystem::path& folder, int threads, int in, int out) {
    std::unique_ptr<LanguageModel> model;
    std::int64_t vocabulary = 0;
    try {
      while (const std::optional<Json> request = receive(in)) {
        Json answer;
        try {
          answer = answer_to(*request, backend, folder, threads, model, vocabulary);
        } catch (const Error& error) {
          answer["error"] = {
              {"code", to_string(error.code())}, {"message", error.message()}, {"where", error.where()}, {"hint", error.hint()}};
        } catch (const std::exception& error) {
          answer["error"] = {{"code", "failed"}, {"message", error.what()}, {"where", folder.string()}, {"hint", ""}};
        }
        send(out, answer);
      }
    } catch (...) {  // the evaluator is gone: nobody is left to tell
    }
    ::_exit(0);  // no destructors: the runtime's threads end with the process
  }

  std::string name_;
  pid_t pid_ = -1;
  int to_ = -1, from_ = -1;
};

/// Percentile by the nearest rank.
double percentile(std::vector<double> values, double share) {
  std::sort(values.begin(), values.end());
  const auto rank = static_cast<std::size_t>(std::ceil(share * static_cast<double>(values.size())));
  return values[std::clamp<std::size_t>(rank, 1, values.size()) - 1];
}
double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const std::size_t n = values.size();
  return n % 2 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}

struct Measured {
  std::vector<Sample> samples;
  double startup_ms = 0, peak_rss = 0, rss_before = 0;
  std::vector<double> each(double (*value)(const Sample&)) const {
    std::vector<double> values;
    for (const Sample& sample : samples) values.push_back(value(sample));
    return values;
  }
  std::vector<double> steps() const {
    std::vector<double> all;
    for (const Sample& sample : samples) all.insert(all.end(), sample.decode_ms.begin(), sample.decode_ms.end());
    return all;
  }
};

double prefill(const Sample& s) { return s.prefill_ms; }
double decode(const Sample& s) { return s.decode_total(); }
double total(const Sample& s) { return s.total(); }

/// Speed of a package, alone on the machine; with a baseline, the two take turns sample by sample, so that a machine that slows
/// down slows both. `speedup` is the median over the pairs of baseline time / package time, for prompt and decode together.
class Latency final : public Component {
 public:
  void run(Context& context) override {
    const Params& params = context.params();
    const std::int64_t prompt = params.integer("prompt"), length = params.integer("decode");
    const std::int64_t warmup = params.integer("warmup"), count = params.integer("samples");
    const Artifact& package = context.input("package");
    const bool compared = context.has_input("baseline");

    std::vector<std::unique_ptr<PackageProcess>> processes;
    std::vector<Measured> measured(compared ? 2 : 1);
    processes.push_back(start(context, package, "package"));
    if (compared) processes.push_back(start(context, context.input("baseline"), "baseline"));
    for (std::size_t p = 0; p < processes.size(); ++p) {
      context.progress(
          {0, static_cast<std::uint64_t>(warmup + count), p == 0 ? "opening the package" : "opening the baseline", {}});
      const Json opened = processes[p]->ask({{"do", "open"}});
      measured[p].startup_ms = opened.at("startup_ms");
      measured[p].rss_before = opened.at("rss_before");
    }
    for (std::int64_t round = 0; round < warmup + count; ++round) {
      for (std::size_t p = 0; p < processes.size(); ++p) {
        context.check_cancelled();
        const Json answer = processes[p]->ask({{"do", "sample"}, {"prompt", prompt}, {"decode", length}});
        Sample sample{answer.at("prefill_ms"), answer.at("decode_ms")};
        if (round >= warmup) measured[p].samples.push_back(std::move(sample));
      }
      context.progress({static_cast<std::uint64_t>(round + 1),
                        static_cast<std::uint64_t>(warmup + count),
                        round < warmup ? "warming up" : "sampling",
                        {}});
    }
    for (std::size_t p = 0; p < processes.size(); ++p) measured[p].peak_rss = processes[p]->ask({{"do", "memory"}}).at("peak_rss");
    report(context, measured, prompt, length);
    double bytes = 0;
    for (const auto& [name, blob] : package.blobs) bytes += static_cast<double>(blob.size);
    context.figure("size_bytes", bytes);
  }

 private:
  std::vector<ComponentHandle> backends_;  // outlive the forks

  std::unique_ptr<PackageProcess> start(Context& context, const Artifact& package, const std::string& name) {
    if (package.meta.value("task", std::string("causal-lm")) != "causal-lm")
      throw_unsupported("only packages of causal language models can be measured", "evaluator/latency, " + name);
    backends_.push_back(context.component_for(package));
    return std::make_unique<PackageProcess>(backends_.back(), unpack(context, package), context.threads(), name);
  }

  static void report(Context& context, const std::vector<Measured>& measured, std::int64_t prompt, std::int64_t length) {
    const Measured& own = measured[0];
    const std::vector<double> steps = own.steps();
    context.figure("prefill_tokens_per_second", 1e3 * static_cast<double>(prompt) / median(own.each(prefill)));
    context.figure("decode_tokens_per_second", 1e3 * static_cast<double>(length) / median(own.each(decode)));
    context.figure("latency_p50_ms", percentile(steps, 0.50));
    context.figure("latency_p95_ms", percentile(steps, 0.95));
    if (steps.size() >= 100) context.figure("latency_p99_ms", percentile(steps, 0.99));
    context.figure("startup_ms", own.startup_ms);
    context.figure("peak_rss_bytes", own.peak_rss);
    if (measured.size() == 2) {
      const auto ratio = [&](double (*value)(const Sample&)) {
        std::vector<double> ratios = measured[1].each(value);
        const std::vector<double> mine = own.each(value);
        for (std::size_t i = 0; i < ratios.size(); ++i) ratios[i] /= mine[i];
        return median(ratios);
      };
      context.figure("speedup", ratio(total));
      context.figure("speedup_prefill", ratio(prefill));
      context.figure("speedup_decode", ratio(decode));
    }
    Json memory = Json::array();
    for (std::size_t p = 0; p < measured.size(); ++p) {
      const std::string name = p == 0 ? "" : "baseline_";
      context.detail("samples." + name + "prefill_ms", measured[p].each(prefill));
      context.detail("samples." + name + "decode_ms", measured[p].steps());
      context.detail("samples." + name + "total_ms", measured[p].each(total));
      memory.push_back({p == 0 ? "package" : "baseline", measured[p].startup_ms, measured[p].rss_before, measured[p].peak_rss});
    }
    context.detail("processes", {{"columns", {"process", "start-up ms", "bytes before opening", "peak bytes"}}, {"rows", memory}});
  }
};

}  // namespace

ESPALIER_PLUGIN(R"json({
  "name": "latency", "version": "0.1.0", "author": "The Espalier authors", "licence": "Apache-2.0",
  "description": "Speed, start-up and memory of packages",
  "components": [ {
    "name": "evaluator/latency", "version": "0.1.0",
    "summary": "tokens a second, latency percentiles, start-up and peak memory of a package, against a baseline where one is given",
    "inputs": [
      {"name": "package", "type": "package", "required": true, "many": false, "help": "the package to measure"},
      {"name": "baseline", "type": "package", "required": false, "many": false, "help": "what it is compared with, sample by sample"} ],
    "outputs": [],
    "parameters": [
      {"name": "prompt", "type": "integer", "default": 512, "min": 1, "unit": "tokens", "help": "tokens fed at once"},
      {"name": "decode", "type": "integer", "default": 128, "min": 1, "unit": "tokens", "help": "tokens generated one by one"},
      {"name": "samples", "type": "integer", "default": 5, "min": 1, "max": 10000, "help": "prompts measured, each with its continuation"},
      {"name": "warmup", "type": "integer", "default": 1, "min": 0, "max": 1000, "help": "prompts run before, not counted"}
    ],
    "depends": {"seed": false, "threads": true, "runtimes": []},
    "byte_exact": false, "exclusive": true,
    "estimate": {"memory_base": 6e8, "memory_per_byte": 1.6, "output_per_byte": 0}
  } ] })json",
                ESPALIER_COMPONENT("evaluator/latency", Latency));

}  // namespace espalier
