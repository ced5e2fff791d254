// Speed of our own runner on a GGUF language model, two threads: a forward pass of 512 tokens with all logits, forward and
// backward, and decoding 128 tokens behind a prompt of 512 with the head on the last position only.
//   bench_runner_speed MODEL.gguf [ROUNDS]
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/ones.h>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>

#include "formats/gguf.h"
#include "run/runtime.h"
#include "run/session.h"
#include "run/training.h"
#include "sdk/error.h"

using namespace espalier;

namespace {

template <class Work>
double best_of(int rounds, Work work) {
  double best = 1e30;
  for (int i = 0; i < rounds; ++i) {
    const auto start = std::chrono::steady_clock::now();
    work();
    best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  return best;
}

void measure(const char* file, int rounds) {
  const Graph graph = import_gguf(file).graph;
  const at::Tensor ids = (at::arange(512, at::kLong) * 37 % 20000).unsqueeze(0);
  const TensorMap inputs{{"input_ids", ids},
                         {"attention_mask", at::ones({1, 512}, at::kLong)},
                         {"position_ids", at::arange(512, at::kLong).unsqueeze(0)}};
  double forward, both, prefill, decode;
  {
    Session session(graph);
    forward = best_of(rounds, [&] { session.run(inputs); });
  }
  {
    Session session(graph);
    session.train();
    both = best_of(rounds, [&] {
      for (const std::string& name : session.trainable()) session.parameter(name).mutable_grad().reset();
      causal_cross_entropy(session.run(inputs).at("logits"), ids).backward();
    });
  }
  const auto model = language_model(graph, {.threads = 2, .last_only = true});
  const std::vector<std::int64_t> prompt(ids.const_data_ptr<std::int64_t>(), ids.const_data_ptr<std::int64_t>() + 512);
  prefill = best_of(rounds, [&] {
    model->reset();
    model->feed(prompt, false);
  });
  decode = best_of(rounds, [&] {
    model->reset();
    model->feed(prompt, false);
    for (std::int64_t i = 0; i < 128; ++i) model->feed(std::vector<std::int64_t>{i * 101 % 20000}, false);
  });
  fmt::print(
      "{{\"forward_512_seconds\":{:.3f},\"forward_backward_512_seconds\":{:.3f},\"prefill_tokens_per_second\":{:.1f},"
      "\"decode_tokens_per_second\":{:.1f}}}\n",
      forward, both, 512 / prefill, 128 / (decode - prefill));
}

}  // namespace

int main(int count, char** arguments) try {
  if (count < 2) {
    std::fputs("usage: bench_runner_speed MODEL.gguf [ROUNDS]\n", stderr);
    return 2;
  }
  at::set_num_threads(2);
  measure(arguments[1], count > 2 ? std::atoi(arguments[2]) : 3);
  return 0;
} catch (const Error& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return exit_code(error.code());
}
