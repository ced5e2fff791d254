// How fast this machine computes and moves bytes, for estimates: a product of matrices as large as a language model's, and a copy
// that no cache holds.
#include <ATen/Parallel.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/ones.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <vector>

#include "engine/tools/tools.h"
#include "sdk/artifact.h"
#include "sdk/error.h"

namespace espalier {
namespace {

constexpr int kRounds = 7;

/// Median seconds of `work`, after one round that does not count.
template <class Work>
double seconds(Work work) {
  std::vector<double> times;
  for (int round = 0; round <= kRounds; ++round) {
    const auto start = std::chrono::steady_clock::now();
    work();
    if (round > 0) times.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  std::sort(times.begin(), times.end());
  return times[times.size() / 2];
}

/// measure-machine {"threads"}: prints {"flops", "bandwidth"}.
int measure_machine(int argc, char** argv) {
  if (argc != 2) throw_invalid("measure-machine takes one argument, its request");
  at::set_num_threads(Json::parse(argv[1]).at("threads").get<int>());
  const at::Tensor a = at::ones({512, 1536}), b = at::ones({1536, 1536});
  const double product = seconds([&] { at::matmul(a, b); });
  const at::Tensor from = at::ones({32 << 20});  // 128 MiB
  at::Tensor to = at::empty_like(from);
  const double copy = seconds([&] { to.copy_(from); });
  const Json result{{"flops", 2.0 * 512 * 1536 * 1536 / product}, {"bandwidth", 2.0 * 4 * (32 << 20) / copy}};
  std::printf("%s\n", result.dump().c_str());
  return 0;
}

const RegisterTool registered{"measure-machine", measure_machine};

}  // namespace
}  // namespace espalier
