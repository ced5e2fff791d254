#include <ATen/TensorOperators.h>
#include <ATen/ops/allclose.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_floating_point.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <cstdlib>
#include <fstream>
#include <limits>

#include "formats/model_artifact.h"
#include "formats/onnx.h"
#include "formats/safetensors.h"
#include "graph/causal.h"
#include "graph/experts.h"
#include "graph/op.h"
#include "graph/passes.h"
#include "run/session.h"
#include "toy_model.h"

using namespace espalier;
using namespace espalier::test;
using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::WithinAbs;

namespace {

using Gone = std::vector<std::size_t>;

Graph mixture_model(std::int64_t experts = 5, std::int64_t used = 2) {
  return toy_language_model({.layers = 2, .experts = experts, .used = used}, 3);
}

at::Tensor logits_of(const Graph& graph) {
  constexpr std::int64_t length = 11;
  const TensorMap tokens{{"input_ids", (at::arange(2 * length, at::kLong) * 7 % 61).reshape({2, length})},
                         {"attention_mask", at::ones({2, length}, at::kLong)},
                         {"position_ids", at::arange(length, at::kLong).expand({2, length})}};
  return Session(graph).run(tokens).at("logits");
}

/// The graph with the logits of some experts at minus infinity.
Graph masked(Graph graph, const std::vector<Mixture>& mixtures, const ExpertRemoval& removal) {
  for (const auto& [number, gone] : removal) {
    const Mixture& mixture = mixtures[number];
    std::vector<float> bias(mixture.experts.size(), 0.0F);
    for (const std::size_t e : gone) bias[e] = -std::numeric_limits<float>::infinity();
    const std::string name = "mask." + std::to_string(number), closed = name + ".logits";
    graph.initializers[name] = Tensor::of(DType::f32, {static_cast<std::int64_t>(bias.size())}, bias);
    for (Node& node : graph.nodes) std::replace(node.inputs.begin(), node.inputs.end(), mixture.logits, closed);
    graph.nodes.push_back({"Add", "", "/" + name, {mixture.logits, name}, {closed}, {}});
  }
  graph.sort();
  return graph;
}

/// A bias behind a router's product.
Graph with_router_bias(Graph graph, const std::vector<float>& bias) {
  const auto mixtures = find_mixtures(graph);
  for (std::size_t m = 0; m < mixtures.size(); ++m) {
    const std::string name = "router_bias." + std::to_string(m), out = name + ".sum";
    graph.initializers[name] = Tensor::of(DType::f32, {static_cast<std::int64_t>(bias.size())}, bias);
    for (Node& node : graph.nodes) std::replace(node.inputs.begin(), node.inputs.end(), mixtures[m].logits, out);
    graph.nodes.push_back({"Add", "", "/" + name, {mixtures[m].logits, name}, {out}, {}});
  }
  graph.sort();
  return graph;
}

/// Of all floating initializers; parameter_count() leaves out a bias that has come to one element.
std::int64_t elements(const Graph& graph) {
  std::int64_t sum = 0;
  for (const auto& [name, tensor] : graph.initializers) sum += is_floating(tensor.dtype) ? tensor.count() : 0;
  return sum;
}

struct Pruned {
  TemporaryFolder folder;
  TestContext context{folder};
  Graph graph, smaller;

  Pruned(Graph model, const Json& parameters) : graph(std::move(model)) {
    context.run("pruner/experts", parameters, {{"model", save_model(context, graph)}, {"data", toy_dataset(context, 6, 24, 5)}});
    smaller = load_model(context, context.outputs.at("model"));
  }
  std::vector<int> kept(int mixture) const {
    const auto file = context.map(context.outputs.at("masks").blobs.at("masks.safetensors"));
    const auto masks = parse_safetensors(file.bytes(), file.owner(), "masks");
    const auto bytes = masks.at("experts:" + std::to_string(mixture)).as<std::uint8_t>();
    return {bytes.begin(), bytes.end()};
  }
};

}  // namespace

TEST_CASE("mixtures are found by structure, with what belongs to each expert") {
  Graph graph = mixture_model();
  for (std::size_t n = 0; n < graph.nodes.size(); ++n) graph.nodes[n].name = "n" + std::to_string(n);  // names tell nothing
  const auto mixtures = find_mixtures(graph);
  REQUIRE(mixtures.size() == 2);
  for (const Mixture& mixture : mixtures) {
    CHECK(mixture.used == 2);
    REQUIRE(mixture.experts.size() == 5);
    REQUIRE(mixture.router.size() == 1);
    CHECK(mixture.router[0].axis == 1);
    for (const Expert& expert : mixture.experts) {
      CHECK(expert.weights.size() == 3);
      CHECK(expert.parameters == 3 * 32 * 48 + 32);
    }
  }
  CHECK(mixtures[0].router[0].tensor == "model.layers.0.moe.gate.weight");
  CHECK(find_mixtures(toy_language_model()).empty());
}

TEST_CASE("a router whose logits something else reads makes no mixture") {
  Graph graph = mixture_model();
  const std::string logits = find_mixtures(graph)[0].logits;
  graph.outputs.push_back({logits, DType::f32, {Dim::symbol("batch"), Dim::symbol("sequence"), 5}});
  CHECK(find_mixtures(graph).size() == 1);
}

TEST_CASE("a model without some experts answers as with their logits at minus infinity") {
  const std::vector<float> bias{0.5F, -0.25F, 0.75F, 0.0F, -0.5F};
  for (const bool biased : {false, true}) {
    const Graph graph = biased ? with_router_bias(mixture_model(), bias) : mixture_model();
    const auto mixtures = find_mixtures(graph);
    REQUIRE(mixtures.size() == 2);
    CHECK(mixtures[0].router.size() == (biased ? 2 : 1));
    const at::Tensor whole = logits_of(graph);
    for (const ExpertRemoval& removal :
         {ExpertRemoval{{0, {0}}}, {{0, {4}}, {1, {0, 2}}}, {{1, {1, 2, 3}}}, {{0, {0, 1, 2, 3}}, {1, {1, 2, 3, 4}}}}) {
      const Graph smaller = without_experts(graph, mixtures, removal);
      const at::Tensor got = logits_of(smaller);
      CHECK(at::allclose(got, logits_of(masked(graph, mixtures, removal)), 1e-6, 1e-6));
      CHECK_FALSE(at::allclose(got, whole, 1e-3, 1e-3));
      std::int64_t gone = 0;
      for (const auto& [number, experts] : removal)
        for (const std::size_t e : experts) gone += mixtures[number].experts[e].parameters;
      CHECK(elements(graph) - elements(smaller) == gone);
    }
  }
}

TEST_CASE("routers without renormalisation, and with sigmoids, lose experts as if masked") {
  for (const bool sigmoid : {false, true})
    for (const bool shares : {false, true}) {
      CAPTURE(sigmoid, shares);
      Graph graph = mixture_model();
      for (Node& node : graph.nodes) {
        const bool router = node.name.find("/moe/gate/") != std::string::npos;
        if (sigmoid && router && node.op == "Softmax") node.op = "Sigmoid", node.attributes.clear();
        if (!shares && router && node.op == "ScatterElements") {
          const auto div = std::ranges::find(graph.nodes, node.inputs[2], [](const Node& n) { return n.output(0); });
          node.inputs[2] = div->input(0);
        }
      }
      remove_dead(graph);
      const auto mixtures = find_mixtures(graph);
      REQUIRE(mixtures.size() == 2);
      const ExpertRemoval removal{{0, {1}}, {1, {0, 2, 3, 4}}};
      const at::Tensor got = logits_of(without_experts(graph, mixtures, removal));
      CHECK(at::allclose(got, logits_of(masked(graph, mixtures, removal)), 1e-6, 1e-6));
      CHECK_FALSE(at::allclose(got, logits_of(graph), 1e-3, 1e-3));
    }
}

TEST_CASE("a model without some experts passes ONNX's checker and gives the same numbers in ONNX Runtime and OpenVINO") {
  const char *python = std::getenv("ESPALIER_TEST_PYTHON"), *source = std::getenv("ESPALIER_SOURCE");
  REQUIRE(python);
  REQUIRE(source);
  // With a cache, as packages have it: ONNX Runtime refuses a causal mask of one row.
  const Graph graph = with_kv_cache(mixture_model());
  const auto mixtures = find_mixtures(graph);
  REQUIRE(mixtures.size() == 2);
  const Graph smaller = without_experts(graph, mixtures, {{0, {1}}, {1, {0, 2, 3, 4}}});
  const at::Tensor ids = at::arange(20, at::kLong).mul(7).remainder(ToySize{}.vocabulary).unsqueeze(0);
  TensorMap inputs{
      {"input_ids", ids}, {"attention_mask", at::ones_like(ids)}, {"position_ids", at::arange(20, at::kLong).unsqueeze(0)}};
  for (const Value& input : smaller.inputs)
    if (input.name.starts_with("past_key_values."))
      inputs[input.name] = at::zeros({1, input.shape[1].value(), 0, input.shape[3].value()}, at::kFloat);
  const TemporaryFolder folder;
  const auto place = folder.path() / "experts";
  std::filesystem::create_directories(place);
  write_onnx(smaller, place / "model.onnx");
  Json described = Json::object();
  for (const auto& [name, value] : inputs) {
    const at::Tensor flat = value.to(at::kDouble).contiguous();
    described[name] = {
        {"type", value.is_floating_point() ? "float32" : "int64"},
        {"shape", value.sizes().vec()},
        {"values", std::vector<double>(flat.const_data_ptr<double>(), flat.const_data_ptr<double>() + flat.numel())}};
  }
  std::ofstream(place / "inputs.json") << described.dump();
  std::ofstream(place / "tolerance.txt") << 1e-4;
  const at::Tensor expected = Session(smaller).run(inputs, {"logits"}).at("logits").contiguous();
  std::ofstream(place / "expected.bin", std::ios::binary)
      .write(static_cast<const char*>(expected.const_data_ptr()), std::streamsize(expected.nbytes()));
  const std::string call =
      std::string("'") + python + "' '" + source + "/tests/plugins/quantized_oracle.py' '" + folder.path().string() + "'";
  CHECK(std::system(call.c_str()) == 0);
}

TEST_CASE("fewer experts than were chosen are all chosen") {
  const Graph graph = mixture_model(4, 3);
  const auto mixtures = find_mixtures(graph);
  const auto left = find_mixtures(without_experts(graph, mixtures, {{0, {0, 3}}, {1, {2}}}));
  REQUIRE(left.size() == 2);
  CHECK(left[0].used == 2);
  CHECK(left[0].experts.size() == 2);
  CHECK(left[1].used == 3);
}

TEST_CASE("experts that are none, and a mixture that would lose all, are refused by name") {
  const Graph graph = mixture_model(3);
  const auto mixtures = find_mixtures(graph);
  CHECK_THROWS_WITH(without_experts(graph, mixtures, {{1, {0, 1, 2}}}),
                    ContainsSubstring("model.layers.1.moe.gate") && ContainsSubstring("would lose all of its 3 experts"));
  CHECK_THROWS_WITH(without_experts(graph, mixtures, {{0, {3}}}), ContainsSubstring("has no expert 3"));
  CHECK_THROWS_WITH(without_experts(graph, mixtures, {{2, {0}}}), ContainsSubstring("there is no mixture 2"));
}

TEST_CASE("the expert that is never chosen goes first") {
  for (const char* metric : {"usage", "output"}) {
    CAPTURE(metric);
    const Pruned pruned(with_router_bias(mixture_model(), {0, 0, 0, -1000, 0}), {{"count", 1}, {"metric", metric}});
    CHECK(pruned.kept(0) == std::vector<int>{1, 1, 1, 0, 1});
    CHECK(pruned.kept(1) == std::vector<int>{1, 1, 1, 0, 1});
    CHECK(at::allclose(logits_of(pruned.smaller), logits_of(pruned.graph), 1e-6, 1e-6));
    const auto& rows = pruned.context.details.at("experts").at("rows");
    REQUIRE(rows.size() == 10);
    CHECK(rows[3][3] == 0.0);
    double chosen = 0, gates = 0;
    for (int e = 0; e < 5; ++e) chosen += rows[e][3].get<double>(), gates += rows[e][4].get<double>();
    CHECK_THAT(chosen, WithinAbs(2, 1e-9));
    CHECK_THAT(gates, WithinAbs(1, 1e-5));
    CHECK(pruned.context.figures.at("experts") == 8);
    CHECK(pruned.context.figures.at("macs_removed") > 0);
  }
}

TEST_CASE("global ranking takes experts where they do least, and leaves each mixture its minimum") {
  Graph graph = with_router_bias(mixture_model(), {0, 0, 0, 0, 0});
  graph.initializers["router_bias.1"] = Tensor::of<float>(DType::f32, {5}, {0, 0, -1000, -1000, -1000});
  const Pruned pruned(graph, {{"share", 0.2}, {"ranking", "global"}});
  CHECK(pruned.kept(0) == std::vector<int>{1, 1, 1, 1, 1});
  CHECK(std::ranges::count(pruned.kept(1), 0) == 2);
  CHECK((pruned.kept(1)[0] == 1 && pruned.kept(1)[1] == 1));
  const Pruned held(graph, {{"share", 0.2}, {"ranking", "global"}, {"minimum", 4}});
  CHECK(std::ranges::count(held.kept(1), 0) == 1);
  CHECK(std::ranges::count(held.kept(0), 0) == 1);
}

TEST_CASE("a mixture left with fewer experts than it chose is reported") {
  const Pruned pruned(mixture_model(3), {{"count", 2}});
  const bool told = std::any_of(pruned.context.warnings.begin(), pruned.context.warnings.end(),
                                [](const std::string& w) { return w.find("it takes all of them now") != std::string::npos; });
  CHECK(told);
  CHECK(pruned.context.details.at("mixtures").at("rows")[0][5] == 1);
}

TEST_CASE("what the expert pruner cannot do is said") {
  CHECK_THROWS_WITH(Pruned(mixture_model(3), {{"count", 3}}), ContainsSubstring("at least 1 must stay"));
  CHECK_THROWS_WITH(Pruned(mixture_model(3), {{"share", 1.0}}), ContainsSubstring("parameter share"));
  CHECK_THROWS_WITH(Pruned(mixture_model(3), {{"share", 1.5}}), ContainsSubstring("share"));
  CHECK_THROWS_WITH(Pruned(mixture_model(3), Json::object()), ContainsSubstring("either count or share"));
  CHECK_THROWS_WITH(Pruned(mixture_model(3), {{"share", 0.4}, {"count", 1}}), ContainsSubstring("either count or share"));
  CHECK_THROWS_WITH(Pruned(toy_language_model(), {{"count", 1}}), ContainsSubstring("no mixture of experts"));
}
