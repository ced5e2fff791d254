// Plans of buffers: no two values that live at the same time share bytes, the order is a valid one that computes the same, and the
// figures are what the buffers say.
#include "graph/memory_plan.h"

#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <set>

#include "../graph/models.h"
#include "graph/causal.h"
#include "running.h"
#include "sdk/error.h"

using namespace espalier;
using namespace espalier::test;

namespace {

void check_plan(const Graph& graph, const MemoryPlan& plan) {
  REQUIRE(std::set<std::size_t>(plan.order.begin(), plan.order.end()).size() == graph.nodes.size());
  std::int64_t arena = 0, sum = 0;
  bool apart = true;
  for (std::size_t i = 0; i < plan.buffers.size(); ++i) {
    const auto& a = plan.buffers[i];
    arena = std::max(arena, a.offset + a.bytes);
    sum += a.bytes;
    for (std::size_t k = 0; k < i; ++k) {
      const auto& b = plan.buffers[k];
      const bool together = a.first <= b.last && b.first <= a.last,
                 overlap = a.offset < b.offset + b.bytes && b.offset < a.offset + a.bytes;
      apart = apart && !(together && overlap);
    }
  }
  CHECK(apart);
  CHECK(plan.peak_after == arena);
  CHECK(plan.peak_before == sum);
  CHECK(plan.peak_after <= plan.peak_before);
  // Nothing can need less than what is alive at once.
  CHECK(*std::max_element(plan.live_after.begin(), plan.live_after.end()) <= plan.peak_after);
  // Every reader comes within the life of what it reads.
  std::map<std::string, const PlannedBuffer*> by_name;
  for (const auto& buffer : plan.buffers) by_name[buffer.value] = &buffer;
  bool kept = true;
  for (std::size_t step = 0; step < plan.order.size(); ++step)
    for (const auto& input : graph.nodes[plan.order[step]].inputs)
      if (const auto found = by_name.find(input); found != by_name.end())
        kept = kept && found->second->first < step && step <= found->second->last;
  CHECK(kept);
}

}  // namespace

TEST_CASE("planned buffers never overlap, and the planned order computes the same") {
  const auto check = [](Graph graph, const Bindings& lengths, const TensorMap& inputs) {
    const Graph before = graph;
    const auto plan = plan_memory(graph, infer(graph), lengths);
    check_plan(graph, plan);
    CHECK(plan.peak_after < plan.peak_before / 2);
    apply_order(graph, plan);
    CHECK(difference(before, graph, inputs) == 0);
  };
  for (const std::uint64_t seed : {51, 52}) {
    check(language_model(seed), {{"batch", 2}, {"sequence", 6}}, language_inputs(2, 6, 50, seed));
    check(residual_cnn(seed), {{"batch", 2}}, image_inputs(2, seed));
  }
}

TEST_CASE("wide branches that shrink again are finished one after the other") {
  Graph graph;
  graph.inputs = {{"x", DType::f32, {1, 1000}}};
  graph.outputs = {{"sum", DType::f32, {1, 1}}};
  graph.initializers["axes"] = Tensor::of<std::int64_t>(DType::i64, {1}, {1});
  std::vector<std::string> small;
  for (int i = 0; i < 4; ++i) {  // all the wide values first
    const auto n = std::to_string(i);
    graph.nodes.push_back({i % 2 ? "Relu" : "Neg", "", "/wide" + n, {"x"}, {"wide" + n}, {}});
  }
  for (int i = 0; i < 4; ++i) {
    const auto n = std::to_string(i);
    graph.nodes.push_back({"ReduceMean", "", "/small" + n, {"wide" + n, "axes"}, {"small" + n}, {}});
    small.push_back("small" + n);
  }
  graph.nodes.push_back({"Concat", "", "/joined", small, {"joined"}, {{"axis", std::int64_t{1}}}});
  graph.nodes.push_back({"ReduceMean", "", "/sum", {"joined", "axes"}, {"sum"}, {}});
  const auto plan = plan_memory(graph, infer(graph), {});
  check_plan(graph, plan);
  CHECK(plan.reordered);
  CHECK(*std::max_element(plan.live_before.begin(), plan.live_before.end()) >= 16000);
  CHECK(plan.peak_after < 6000);
  Graph moved = graph;
  apply_order(moved, plan);
  CHECK(difference(graph, moved, {{"x", image_inputs(2, 1).begin()->second.flatten().narrow(0, 0, 1000).reshape({1, 1000})}}) == 0);
}

TEST_CASE("a length that nobody gave is named") {
  const auto graph = language_model(53);
  try {
    plan_memory(graph, infer(graph), {{"batch", 1}});
    FAIL("it was planned");
  } catch (const Error& error) {
    CHECK(std::string(error.what()).find("sequence") != std::string::npos);
  }
}
