// Perplexity of a GGUF model in our own runner: the tokens of a text as one stream without BOS, the first WINDOWS non-overlapping
// windows of 512 tokens, exp of the mean cross-entropy of the tokens 1 … 511 of each.
//   bench_perplexity_parity MODEL.gguf TEXT [WINDOWS [EXPECTED]]
// With EXPECTED the program fails when the result is more than 0.05 % off. transformers 5.23 with torch 2.13 in f32 gives 25.6765
// for SmolLM2-135M-Instruct (Q4_1) on 39 windows of the head of WikiText-2's test split.
#include <ATen/Parallel.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/tensor.h>
#include <fmt/format.h>

#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>

#include "formats/gguf.h"
#include "run/session.h"
#include "run/training.h"
#include "sdk/error.h"

using namespace espalier;

namespace {

constexpr std::int64_t window = 512;

int measure(const char* model_file, const char* text_file, std::int64_t windows, double expected) {
  const ImportedModel model = import_gguf(model_file);
  std::ifstream file(text_file, std::ios::binary);
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  const std::vector<std::int32_t> tokens = model.tokenizer->encode(text, false);
  windows = std::min(windows, static_cast<std::int64_t>(tokens.size()) / window);
  if (windows < 1) throw_invalid(fmt::format("{} tokens are not one window of {}", tokens.size(), window), text_file);
  Session session(model.graph);
  const auto start = std::chrono::steady_clock::now();
  double sum = 0;
  for (std::int64_t i = 0; i < windows; ++i) {
    const std::vector<std::int64_t> part(tokens.begin() + i * window, tokens.begin() + (i + 1) * window);
    const at::Tensor ids = at::tensor(at::ArrayRef<std::int64_t>(part), at::kLong).unsqueeze(0);
    const TensorMap inputs{{"input_ids", ids},
                           {"attention_mask", at::ones({1, window}, at::kLong)},
                           {"position_ids", at::arange(window, at::kLong).unsqueeze(0)}};
    sum += causal_cross_entropy(session.run(inputs).at("logits"), ids).item<double>();
  }
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  const double perplexity = std::exp(sum / static_cast<double>(windows));
  const double off = expected > 0 ? std::abs(perplexity / expected - 1) : 0;
  fmt::print(
      "{{\"perplexity\":{:.6f},\"windows\":{},\"tokens\":{},\"seconds\":{:.2f},\"seconds_per_window\":{:.3f},\"expected\":{},"
      "\"off\":{:.2e}}}\n",
      perplexity, windows, windows * window, seconds, seconds / static_cast<double>(windows), expected, off);
  return off <= 5e-4 ? 0 : 1;
}

}  // namespace

int main(int count, char** arguments) try {
  if (count < 3) {
    std::fputs("usage: bench_perplexity_parity MODEL.gguf TEXT [WINDOWS [EXPECTED]]\n", stderr);
    return 2;
  }
  at::set_num_threads(2);
  return measure(arguments[1], arguments[2], count > 3 ? std::atoll(arguments[3]) : 39, count > 4 ? std::atof(arguments[4]) : 0);
} catch (const Error& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return exit_code(error.code());
}
