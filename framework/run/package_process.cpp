#include "run/package_process.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/argmax.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>
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
#include <optional>

#include "run/runtime.h"
#include "sdk/error.h"

namespace espalier {
namespace {

using Clock = std::chrono::steady_clock;
double since(Clock::time_point start) { return std::chrono::duration<double, std::milli>(Clock::now() - start).count(); }

/// A linear congruential sequence (Knuth's MMIX constants): any contents will do, the same for everyone.
class Sequence {
 public:
  std::uint64_t next() { return (state_ = state_ * 6364136223846793005u + 1442695040888963407u) >> 33; }

 private:
  std::uint64_t state_ = 0x9e3779b97f4a7c15u;
};

/// "VmHWM:" and the like of this process, in bytes.
double memory_of_process(std::string_view field) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);)
    if (line.starts_with(field)) return 1024.0 * std::stod(line.substr(field.size()));
  return 0;
}

/// The peak since the last call. Where the kernel cannot forget a peak (clear_refs is absent), the memory that is held now: a peak
/// of the whole process would be shown for every stage that comes after it.
double peak_since_last(bool& forgets) {
  const double peak = memory_of_process(forgets ? "VmHWM:" : "VmRSS:");
  std::ofstream clear("/proc/self/clear_refs");
  clear << "5" << std::flush;
  forgets = static_cast<bool>(clear);
  return peak;
}

/// Messages: length, then JSON.
bool send(int fd, const Json& message) {
  const std::string text = message.dump(-1, ' ', false, Json::error_handler_t::replace);
  const auto size = static_cast<std::uint32_t>(text.size());
  std::string bytes(reinterpret_cast<const char*>(&size), sizeof size);
  bytes += text;
  for (std::size_t done = 0; done < bytes.size();) {
    const ssize_t n = ::write(fd, bytes.data() + done, bytes.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    done += static_cast<std::size_t>(n);
  }
  return true;
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

/// The far side: what the forked process does with its package.
class Server {
 public:
  Server(const ComponentHandle& backend, std::filesystem::path folder, int threads, std::vector<Value> inputs)
      : backend_(backend), folder_(std::move(folder)), threads_(threads), wanted_(std::move(inputs)) {}

  Json answer(const Json& request) {
    if (request.at("do") == "open") return open();
    if (request.at("do") == "sample") return sample(request.at("prompt"), request.at("decode"));
    return {{"before", peaks_.before},
            {"opening", peaks_.opening},
            {"prompt", peaks_.prompt},
            {"decode", peaks_.decode},
            {"whole", memory_of_process("VmHWM:")}};
  }

 private:
  Json open() {
    peak_since_last(forgets_);
    peaks_.before = memory_of_process("VmRSS:");
    const auto start = Clock::now();
    if (wanted_.empty()) {
      language_ = backend_.as<Runtime>().open_language_model(folder_, {threads_, true});
      const std::int64_t first = 0;
      vocabulary_ = language_->feed({&first, 1}, false).size(1);
    } else {
      for (const Value& input : wanted_) inputs_[input.name] = fed_value(input);
      model_ = backend_.as<Runtime>().open_model(folder_, {threads_, false});
      model_->run(inputs_);
    }
    const double took = since(start);
    peaks_.opening = peak_since_last(forgets_);
    return {{"startup_ms", took}};
  }

  Json sample(std::int64_t prompt, std::int64_t decode) {
    if (model_) {
      const auto start = Clock::now();
      model_->run(inputs_);
      const double took = since(start);
      peaks_.prompt = std::max(peaks_.prompt, peak_since_last(forgets_));
      return {{"prompt_ms", took}, {"decode_ms", Json::array()}};
    }
    std::vector<std::int64_t> tokens(static_cast<std::size_t>(prompt));
    Sequence sequence;
    for (std::int64_t& token : tokens) token = static_cast<std::int64_t>(sequence.next() % static_cast<std::uint64_t>(vocabulary_));
    language_->reset();
    auto start = Clock::now();
    std::int64_t next = at::argmax(language_->feed(tokens, false)).item<std::int64_t>();
    const double prompt_ms = since(start);
    peaks_.prompt = std::max(peaks_.prompt, peak_since_last(forgets_));
    std::vector<double> steps;
    for (std::int64_t i = 0; i < decode; ++i) {
      start = Clock::now();
      next = at::argmax(language_->feed({&next, 1}, false)).item<std::int64_t>();
      steps.push_back(since(start));
    }
    peaks_.decode = std::max(peaks_.decode, peak_since_last(forgets_));
    return {{"prompt_ms", prompt_ms}, {"decode_ms", steps}};
  }

  const ComponentHandle& backend_;
  std::filesystem::path folder_;
  int threads_;
  std::vector<Value> wanted_;
  std::unique_ptr<LanguageModel> language_;
  std::unique_ptr<DeployedModel> model_;
  TensorMap inputs_;
  std::int64_t vocabulary_ = 0;
  StagePeaks peaks_;
  bool forgets_ = true;
};

[[noreturn]] void serve(Server& server, const std::filesystem::path& folder, int in, int out) {
  try {
    while (const std::optional<Json> request = receive(in)) {
      Json answer;
      try {
        answer = server.answer(*request);
      } catch (const Error& error) {
        answer["error"] = {
            {"code", to_string(error.code())}, {"message", error.message()}, {"where", error.where()}, {"hint", error.hint()}};
      } catch (const std::exception& error) {
        answer["error"] = {{"code", "failed"}, {"message", error.what()}, {"where", folder.string()}, {"hint", ""}};
      }
      if (!send(out, answer)) break;
    }
  } catch (...) {  // the evaluator is gone: nobody is left to tell
  }
  ::_exit(0);  // no destructors: the runtime's threads end with the process
}

}  // namespace

double TimedSample::decode_total() const { return std::accumulate(decode_ms.begin(), decode_ms.end(), 0.0); }
double StagePeaks::all() const { return std::max({opening, prompt, decode, whole}); }

std::vector<Value> sized_inputs(const Graph& graph, const std::map<std::string, double>& dimensions, std::int64_t otherwise) {
  std::vector<Value> inputs;
  for (Value input : graph.inputs) {
    if (graph.initializer(input.name)) continue;
    const std::string shape = text(input.shape);
    for (std::size_t axis = 0; axis < input.shape.size(); ++axis) {
      Dim& dim = input.shape[axis];
      if (dim.known()) continue;
      const auto size = dimensions.find(dim.text());
      const double value = size != dimensions.end() ? size->second : axis == 0 ? 1 : static_cast<double>(otherwise);
      if (size == dimensions.end() && value == 0)
        throw_invalid(fmt::format("input \"{}\" {} has the free dimension \"{}\"", input.name, shape, dim.text()),
                      "parameter dimensions", fmt::format("dimensions = {{ {} = 128 }}", dim.text()));
      if (value < 1 || value > 1e9 || value != std::floor(value))
        throw_invalid(fmt::format("dimension \"{}\" is to be {}, no whole number from 1", dim.text(), value),
                      "parameter dimensions");
      dim = Dim(static_cast<std::int64_t>(value));
    }
    inputs.push_back(std::move(input));
  }
  if (inputs.empty()) throw_invalid("the model has no inputs: there is nothing to feed", graph.name);
  return inputs;
}

at::Tensor fed_value(const Value& input) {
  std::vector<std::int64_t> sizes;
  for (const Dim& dim : input.shape) sizes.push_back(dim.value());
  if (is_floating(input.dtype)) {
    at::Tensor value = at::empty(sizes, at::TensorOptions().dtype(at::kFloat));
    Sequence sequence;
    auto* element = value.mutable_data_ptr<float>();
    for (std::int64_t i = 0; i < value.numel(); ++i) element[i] = static_cast<float>(sequence.next() % 4096) / 4096;
    return value.to(scalar_type(input.dtype));
  }
  const auto named = [&](const char* part) { return input.name.find(part) != std::string::npos; };
  at::Tensor value = at::zeros(sizes, at::TensorOptions().dtype(at::kLong));
  if (named("mask")) {
    value.fill_(1);
  } else if (named("position") && !sizes.empty()) {
    value.copy_(at::arange(sizes.back(), at::TensorOptions().dtype(at::kLong)).expand(sizes));
  } else if (!named("type")) {
    Sequence sequence;
    auto* element = value.mutable_data_ptr<std::int64_t>();
    for (std::int64_t i = 0; i < value.numel(); ++i) element[i] = static_cast<std::int64_t>(sequence.next() % 32);
  }
  return value.to(scalar_type(input.dtype));
}

PackageProcess::PackageProcess(ComponentHandle backend, const std::filesystem::path& folder, int threads, std::string name,
                               std::vector<Value> inputs)
    : name_(std::move(name)) {
  int down[2], up[2];
  if (::pipe(down) != 0 || ::pipe(up) != 0) throw Error(ErrorCode::resource, "no pipe can be made", name_);
  pid_ = ::fork();
  if (pid_ < 0) throw Error(ErrorCode::resource, "no process can be forked", name_);
  if (pid_ == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    ::close(down[1]);
    ::close(up[0]);
    Server server(backend, folder, threads, std::move(inputs));
    serve(server, folder, down[0], up[1]);
  }
  ::close(down[0]);
  ::close(up[1]);
  to_ = down[1];
  from_ = up[0];
}

PackageProcess::~PackageProcess() {
  ::close(to_);
  ::close(from_);
  ::kill(pid_, SIGKILL);
  ::waitpid(pid_, nullptr, 0);
}

Json PackageProcess::ask(const Json& request) {
  std::optional<Json> answer;
  if (send(to_, request)) answer = receive(from_);
  if (!answer)
    throw Error(ErrorCode::crashed, "the process that runs the " + name_ + " died", name_,
                "not enough memory, or a defect of its runtime");
  if (answer->contains("error")) {
    const Json& error = answer->at("error");
    throw Error(error_code_from(error.at("code").get<std::string>()), error.at("message").get<std::string>(),
                name_ + ": " + error.at("where").get<std::string>(), error.at("hint").get<std::string>());
  }
  return *answer;
}

double PackageProcess::open() { return ask({{"do", "open"}}).at("startup_ms"); }

TimedSample PackageProcess::sample(std::int64_t prompt, std::int64_t decode) {
  const Json answer = ask({{"do", "sample"}, {"prompt", prompt}, {"decode", decode}});
  return {answer.at("prompt_ms"), answer.at("decode_ms")};
}

StagePeaks PackageProcess::peaks() {
  const Json answer = ask({{"do", "peaks"}});
  return {answer.at("before"), answer.at("opening"), answer.at("prompt"), answer.at("decode"), answer.at("whole")};
}

}  // namespace espalier
