#include "graph/adapters.h"

#include <catch2/catch_approx.hpp>
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <cmath>
#include <set>

#include "graph/gaussian.h"
#include "graph/op.h"
#include "models.h"
#include "sdk/error.h"

using namespace espalier;
using namespace espalier::test;
using Catch::Approx;
using Catch::Matchers::ContainsSubstring;

namespace {

using Ints = std::vector<std::int64_t>;

/// x [batch, 4] → Gemm with transB (5 outputs) → MatMul through a Transpose (3 outputs) → MatMul (2 outputs).
Graph three_products() {
  ModelBuilder b("products", 1);
  b.graph.inputs.push_back({"x", DType::f32, {Dim::symbol("batch"), 4}});
  auto x = b.add("a/Gemm", "Gemm", {"x", b.weight("a", {5, 4}, 1), b.weight("a.bias", {5}, 1)},
                 {{"transB", std::int64_t{1}}, {"alpha", 0.5}, {"beta", 2.0}});
  x = b.add("b/MatMul", "MatMul", {x, b.add("b/Transpose", "Transpose", {b.weight("b", {3, 5}, 1)}, {{"perm", Ints{1, 0}}})});
  x = b.add("c/MatMul", "MatMul", {x, b.weight("c", {3, 2}, 1)});
  b.graph.outputs.push_back({x, DType::f32, {Dim::symbol("batch"), 2}});
  b.graph.validate();
  return b.graph;
}

}  // namespace

TEST_CASE("gaussian numbers are the same everywhere, and normal") {
  const Tensor t = gaussian({200, 100}, 2, 7);
  CHECK(t.as<float>()[0] == Approx(gaussian({3}, 2, 7).as<float>()[0]));
  double mean = 0, square = 0, fourth = 0;
  for (const double v : t.numbers()) {
    mean += v / 20000;
    square += v * v / 20000;
    fourth += v * v * v * v / 20000;
  }
  CHECK(std::abs(mean) < 0.06);
  CHECK(square == Approx(4).epsilon(0.05));
  CHECK(fourth == Approx(48).epsilon(0.1));  // 3 σ⁴
  CHECK(gaussian({4}, 1, 1).digest() != gaussian({4}, 1, 2).digest());
  CHECK(seed_for(1, "a") != seed_for(1, "b"));
  CHECK(seed_for(1, "a") != seed_for(2, "a"));
}

TEST_CASE("adapters stand beside matrices that one product reads") {
  const Graph graph = language_model(3);
  const auto sites = adapter_sites(graph);
  CHECK(sites.size() == 4 * 7);
  std::set<std::string> names;
  for (const auto& site : sites) names.insert(site.weight);
  CHECK(names.contains("model.layers.2.mlp.down_proj.weight"));
  CHECK_FALSE(names.contains("model.embed_tokens.weight"));  // tied: the embedding reads it, too
  const auto three = adapter_sites(three_products());
  REQUIRE(three.size() == 3);
  CHECK(three[0].weight == "a");
  CHECK(three[0].turned);
  CHECK(three[0].inputs == 4);
  CHECK(three[0].outputs == 5);
  CHECK(three[1].turned);
  CHECK(three[1].inputs == 5);
  CHECK(three[1].outputs == 3);
  CHECK_FALSE(three[2].turned);
}

TEST_CASE("LoRA leaves borders, names and shapes as they are, and merges to W + alpha/rank A B") {
  const Graph graph = three_products();
  const auto adapted = add_lora(graph, adapter_sites(graph), 2, 6, 11);
  CHECK(adapted.graph.outputs[0].name == graph.outputs[0].name);
  CHECK(text(infer(adapted.graph).at(graph.outputs[0].name).shape) == text(infer(graph).at(graph.outputs[0].name).shape));
  REQUIRE(adapted.trainable() == std::vector<std::string>{"a.lora_A", "a.lora_B", "b.lora_A", "b.lora_B", "c.lora_A", "c.lora_B"});
  for (const float v : adapted.graph.initializer("b.lora_B")->as<float>()) CHECK(v == 0);
  const Graph same = merge_adapters(graph, adapted.graph, adapted.adapters);
  for (const auto& [name, tensor] : graph.initializers) CHECK(same.initializers.at(name).digest() == tensor.digest());

  Graph trained = adapted.graph;
  for (const char* name : {"a", "b", "c"})
    trained.initializers.at(std::string(name) + ".lora_B") =
        gaussian(trained.initializers.at(std::string(name) + ".lora_B").shape, 1, 5);
  const Graph merged = merge_adapters(graph, trained, adapted.adapters);
  const auto a = trained.initializers.at("b.lora_A").numbers(), b = trained.initializers.at("b.lora_B").numbers();
  const auto before = graph.initializers.at("b").numbers(), after = merged.initializers.at("b").numbers();
  for (std::size_t out = 0; out < 3; ++out)
    for (std::size_t in = 0; in < 5; ++in) {
      double product = 0;
      for (std::size_t r = 0; r < 2; ++r) product += a[in * 2 + r] * b[r * 3 + out];
      CHECK(after[out * 5 + in] == Approx(before[out * 5 + in] + 3 * product).epsilon(1e-6));
    }
  CHECK(merged.initializers.at("a.bias").digest() == graph.initializers.at("a.bias").digest());
  CHECK(merged.nodes.size() == graph.nodes.size());
  CHECK(merged.initializers.size() == graph.initializers.size());
  CHECK_THROWS_WITH(add_lora(graph, adapter_sites(graph), 3, 6, 11), ContainsSubstring("rank = 3") && ContainsSubstring("\"c\""));
  CHECK_THROWS_AS(add_lora(graph, adapter_sites(graph), 0, 6, 11), Error);
}

TEST_CASE("an adapter's first numbers depend on its weight's name and the seed, not on its neighbours") {
  const Graph graph = three_products();
  const auto sites = adapter_sites(graph);
  const auto all = add_lora(graph, sites, 2, 6, 11), one = add_lora(graph, {sites[1]}, 2, 6, 11),
             other = add_lora(graph, sites, 2, 6, 12);
  CHECK(all.graph.initializers.at("b.lora_A").digest() == one.graph.initializers.at("b.lora_A").digest());
  CHECK(all.graph.initializers.at("b.lora_A").digest() != other.graph.initializers.at("b.lora_A").digest());
}
