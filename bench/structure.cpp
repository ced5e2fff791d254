// Where the time goes when coupled groups are found in a model file, in milliseconds, medians of ROUNDS (5): reading it, normal
// form, types and shapes, classes of channels, groups, and MACs of a unit of each. bench/structure.py sets it beside Torch-Pruning.
//   bench_structure MODEL [ROUNDS]
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <map>
#include <vector>

#include "formats/model_file.h"
#include "graph/groups.h"
#include "graph/passes.h"
#include "graph/tensor_store.h"
#include "graph/unit_cost.h"
#include "sdk/error.h"

using namespace espalier;

int main(int argc, char** argv) try {
  if (argc < 2) throw_invalid("usage: bench_structure MODEL [ROUNDS]");
  const int rounds = argc > 2 ? std::atoi(argv[2]) : 5;
  if (rounds < 1) throw_invalid("ROUNDS is no positive number");
  std::vector<std::pair<std::string, std::vector<double>>> spent;
  const auto timed = [&spent](const char* what, auto&& work) {
    const auto begin = std::chrono::steady_clock::now();
    auto result = work();
    const std::chrono::duration<double, std::milli> time = std::chrono::steady_clock::now() - begin;
    auto at = std::find_if(spent.begin(), spent.end(), [what](const auto& row) { return row.first == what; });
    if (at == spent.end()) at = spent.insert(spent.end(), {what, {}});
    at->second.push_back(time.count());
    return result;
  };
  std::size_t count = 0;
  for (int round = 0; round < rounds; ++round) {
    Graph graph = timed("read", [&] { return read_model_file(argv[1], nullptr, shapes_only()); });
    timed("normal_form", [&] { return normal_form(graph), 0; });
    const ValueMap values = timed("infer", [&] { return infer(graph); });
    const ChannelClasses classes = timed("classes", [&] { return ChannelClasses(graph, values); });
    const auto groups = timed("groups", [&] { return coupled_groups(classes); });
    timed("macs_per_unit", [&] { return macs_per_unit(classes, groups); });
    count = groups.size();
  }
  fmt::print("{{\"groups\":{}", count);
  for (auto& [what, times] : spent) {
    std::nth_element(times.begin(), times.begin() + rounds / 2, times.end());
    fmt::print(",\"{}_ms\":{:.2f}", what, times[static_cast<std::size_t>(rounds / 2)]);
  }
  fmt::print("}}\n");
} catch (const Error& e) {
  fmt::print(stderr, "bench_structure: {} ({})\n", e.message(), e.where());
  return 1;
}
