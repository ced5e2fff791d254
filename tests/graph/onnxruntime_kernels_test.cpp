// The rewrite for ONNX Runtime's kernels: what it takes, and what it must leave alone. What the result computes is compared in the
// deployment tests, where the runtime is.
#include "graph/onnxruntime_kernels.h"

#include <algorithm>
#include <catch2/catch_test_macros.hpp>

#include "graph/causal.h"
#include "graph/op.h"
#include "models.h"
#include "sdk/error.h"

using namespace espalier;
using namespace espalier::test;

namespace {

std::int64_t count(const Graph& graph, const std::string& op) {
  return std::count_if(graph.nodes.begin(), graph.nodes.end(), [&](const Node& node) { return node.op == op; });
}

}  // namespace

TEST_CASE("a language model with a cache is written with ONNX Runtime's operators") {
  Graph graph = with_kv_cache(language_model(31));
  const auto cached = count(graph, "Attention");
  REQUIRE(cached > 0);
  const auto done = use_onnxruntime_kernels(graph, true);
  CHECK(done.shared_cache);
  CHECK(done.attention == cached);
  CHECK(count(graph, "GroupQueryAttention") == cached);
  CHECK(count(graph, "Attention") == 0);
  CHECK(graph.opset("com.microsoft") == 1);
}

TEST_CASE("an attention that does more than causal masking stays for ONNX Runtime, and its cache is handed over") {
  Graph graph = with_kv_cache(language_model(32));
  bool changed = false;
  for (Node& node : graph.nodes) {
    if (node.op != "Attention" || changed) continue;
    node.attributes["softcap"] = 30.0;
    changed = true;
  }
  REQUIRE(changed);
  const auto attention = count(graph, "Attention");
  const auto done = use_onnxruntime_kernels(graph, true);
  CHECK_FALSE(done.shared_cache);
  CHECK(done.attention == 0);
  CHECK(count(graph, "Attention") == attention);

  Graph plain = language_model(33);  // no past at all
  CHECK(use_onnxruntime_kernels(plain, true).attention == 0);
}

TEST_CASE("query heads that no kernel of ONNX Runtime fits are refused by the node's name") {
  Graph graph = with_kv_cache(language_model(34));
  std::string name;
  for (Node& node : graph.nodes) {
    if (node.op != "Attention" || !name.empty()) continue;
    node.attributes["q_num_heads"] = std::int64_t{3};
    node.attributes["kv_num_heads"] = std::int64_t{2};
    name = node.name;
  }
  try {
    use_onnxruntime_kernels(graph, true);
    FAIL("it was written");
  } catch (const Error& error) {
    CHECK(std::string(error.what()).find(name) != std::string::npos);
  }
}
