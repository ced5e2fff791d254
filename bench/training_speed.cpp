// Steps of our training loop on a folder that bench_training_parity wrote, for bench/training_speed.py:
//   bench_training_speed MODEL.gguf FOLDER f32|bf16 plain|checkpoint [STEPS]
// Prints the seconds of each step and the process's peak memory.
#include <ATen/Parallel.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/tensor.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <sys/resource.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string_view>

#include "formats/gguf.h"
#include "formats/safetensors.h"
#include "run/head.h"
#include "run/session.h"
#include "run/training.h"
#include "sdk/artifact.h"
#include "sdk/error.h"

using namespace espalier;

namespace {

/// The graph with its weights mapped from a file, as a stage has them from the store.
Graph model(const char* gguf, const std::filesystem::path& folder) {
  Graph graph = import_gguf(gguf).graph;
  const auto file = folder / "weights.safetensors";
  const MappedFile mapped(file);
  for (auto& [name, tensor] : parse_safetensors(mapped.bytes(), mapped.owner(), file.string()))
    graph.initializers.at(name) = tensor;
  return graph;
}

void train(const Graph& graph, const std::filesystem::path& folder, SessionOptions how, std::int64_t steps) {
  const Json settings = Json::parse(std::ifstream(folder / "settings.json"));
  const auto sequence = settings.at("sequence").get<std::int64_t>();
  std::vector<std::int32_t> tokens(static_cast<std::size_t>(steps * sequence));
  std::ifstream file(folder / "tokens.i32", std::ios::binary);
  file.read(reinterpret_cast<char*>(tokens.data()), static_cast<std::streamsize>(tokens.size() * sizeof(std::int32_t)));
  if (!file) throw_invalid(fmt::format("fewer than {} windows", steps), (folder / "tokens.i32").string());
  Session session(graph, how);
  session.train(settings.at("trained").get<std::vector<std::string>>());
  const auto head = find_head(graph, "logits");
  if (!head) throw_invalid("the model has no plain head");
  std::vector<double> seconds;
  auto last = std::chrono::steady_clock::now();
  const auto lap = [&] {
    const auto now = std::chrono::steady_clock::now();
    seconds.push_back(std::chrono::duration<double>(now - last).count());
    last = now;
  };
  TrainingOptions options{.steps = steps, .learning_rate = 2e-4, .warmup = 5};
  const TrainingResult result = train_loop(
      session, options,
      [&](std::int64_t step, std::int64_t) {
        if (step > 0) lap();
        const std::vector<std::int64_t> part(tokens.begin() + step * sequence, tokens.begin() + (step + 1) * sequence);
        return TensorMap{{"input_ids", at::tensor(at::ArrayRef<std::int64_t>(part), at::kLong).unsqueeze(0)},
                         {"attention_mask", at::ones({1, sequence}, at::kLong)},
                         {"position_ids", at::arange(sequence, at::kLong).unsqueeze(0)}};
      },
      [&](const TensorMap& inputs) {
        const TensorMap values = session.run(inputs, {head->hidden, head->weight});
        HeadTargets targets{.hard = 1, .labels = next_tokens(inputs.at("input_ids"))};
        return head_loss({values.at(head->hidden), values.at(head->weight), head->transposed}, targets).sum;
      },
      nullptr);
  lap();
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  fmt::print("{{\"seconds\":[{:.4f}],\"losses\":[{:.5f}],\"peak_rss_bytes\":{}}}\n", fmt::join(seconds, ","),
             fmt::join(result.losses, ","), usage.ru_maxrss * 1024);
}

}  // namespace

int main(int count, char** arguments) try {
  if (count < 5) {
    std::fputs("usage: bench_training_speed MODEL.gguf FOLDER f32|bf16 plain|checkpoint [STEPS]\n", stderr);
    return 2;
  }
  at::set_num_threads(2);
  SessionOptions how{.recompute = std::string_view(arguments[4]) == "checkpoint"};
  if (std::string_view(arguments[3]) == "bf16") how.products = DType::bf16;
  train(model(arguments[1], arguments[2]), arguments[2], how, count > 5 ? std::atoll(arguments[5]) : 5);
  return 0;
} catch (const Error& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return exit_code(error.code());
}
