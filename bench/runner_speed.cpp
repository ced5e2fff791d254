// Speed of our own runner on a language model (GGUF, or a package's model.onnx), two threads unless told otherwise: a forward pass
// of 512 tokens with all logits, forward and backward, and decoding behind a prompt of 512 with the head on the last position only.
// `generate` leaves the first two out. bench/runner_speed.py compares with transformers.
//   bench_runner_speed MODEL.gguf|MODEL.onnx [ROUNDS] [generate] [THREADS]
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/ones.h>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <functional>

#include "formats/gguf.h"
#include "formats/onnx.h"
#include "run/runtime.h"
#include "run/session.h"
#include "run/training.h"
#include "sdk/error.h"

using namespace espalier;

namespace {

/// By the wall, and processor time of all threads: the latter says more on a machine that others use, with one thread.
struct Spent {
  double wall, processor;
};

Spent spent(const std::function<void()>& work) {
  const std::clock_t ticks = std::clock();
  const auto start = std::chrono::steady_clock::now();
  work();
  return {std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count(),
          static_cast<double>(std::clock() - ticks) / CLOCKS_PER_SEC};
}

double seconds(const std::function<void()>& work) { return spent(work).wall; }

double median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2), values.end());
  return values[values.size() / 2];
}

/// Forward, and forward and backward, of 512 tokens: the best of the rounds.
void train(const Graph& graph, const at::Tensor& ids, int rounds) {
  const TensorMap inputs{{"input_ids", ids},
                         {"attention_mask", at::ones({1, 512}, at::kLong)},
                         {"position_ids", at::arange(512, at::kLong).unsqueeze(0)}};
  double forward = 1e30, both = 1e30;
  {
    Session session(graph);
    for (int i = 0; i < rounds; ++i) forward = std::min(forward, seconds([&] { session.run(inputs); }));
  }
  Session session(graph);
  session.train();
  for (int i = 0; i < rounds; ++i) {
    both = std::min(both, seconds([&] {
                      for (const std::string& name : session.trainable()) session.parameter(name).mutable_grad().reset();
                      causal_cross_entropy(session.run(inputs).at("logits"), ids).backward();
                    }));
  }
  fmt::print("{{\"forward_512_seconds\":{:.3f},\"forward_backward_512_seconds\":{:.3f}}}\n", forward, both);
}

/// Medians of prompts and of single tokens.
void generate(const Graph& graph, const at::Tensor& ids, int rounds, int threads) {
  constexpr int tokens = 64;
  std::unique_ptr<LanguageModel> model;
  const std::vector<std::int64_t> prompt(ids.const_data_ptr<std::int64_t>(), ids.const_data_ptr<std::int64_t>() + 512);
  const double opening = seconds([&] {
    model = language_model(graph, {.threads = threads, .last_only = true});
    model->feed(std::vector<std::int64_t>{1}, false);
  });
  std::vector<double> prefill, decode, prefill_cpu, decode_cpu;
  for (int i = 0; i < rounds; ++i) {
    model->reset();
    const Spent whole = spent([&] { model->feed(prompt, false); });
    prefill.push_back(whole.wall);
    prefill_cpu.push_back(whole.processor);
    for (std::int64_t t = 0; t < tokens; ++t) {
      const Spent one = spent([&] { model->feed(std::vector<std::int64_t>{t * 101 % 20000}, false); });
      decode.push_back(one.wall);
      decode_cpu.push_back(one.processor);
    }
  }
  fmt::print(
      "{{\"prefill_tokens_per_second\":{:.1f},\"decode_tokens_per_second\":{:.1f},\"cpu_prefill_tokens_per_second\":{:.1f},"
      "\"cpu_decode_tokens_per_second\":{:.1f},\"first_token_seconds\":{:.2f}}}\n",
      512 / median(prefill), 1 / median(decode), 512 / median(prefill_cpu), 1 / median(decode_cpu), opening);
}

void measure(const std::string& file, int rounds, bool training) {
  const Graph graph = file.ends_with(".onnx") ? read_onnx(file) : import_gguf(file).graph;
  const at::Tensor ids = (at::arange(512, at::kLong) * 37 % 20000).unsqueeze(0);
  if (training) train(graph, ids, rounds);
  generate(graph, ids, rounds, at::get_num_threads());
}

}  // namespace

int main(int count, char** arguments) try {
  if (count < 2) {
    std::fputs("usage: bench_runner_speed MODEL.gguf|MODEL.onnx [ROUNDS] [generate] [THREADS]\n", stderr);
    return 2;
  }
  at::set_num_threads(count > 4 ? std::max(std::atoi(arguments[4]), 1) : 2);
  const std::string file = arguments[1];
  measure(file, count > 2 ? std::max(std::atoi(arguments[2]), 1) : 3, count < 4 && !file.ends_with(".onnx"));
  return 0;
} catch (const Error& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return exit_code(error.code());
}
