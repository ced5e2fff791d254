#include "run/prepack.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/linspace.h>
#include <ATen/ops/tensor.h>

#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

#include "run/session.h"
#include "sdk/error.h"

using namespace espalier;
using Catch::Matchers::ContainsSubstring;

namespace {

at::Tensor waves(std::vector<std::int64_t> shape, double from = -3) {
  std::int64_t count = 1;
  for (const auto d : shape) count *= d;
  return at::linspace(from, 40, count, at::kFloat).mul(1.7).sin().reshape(shape);
}

Tensor codes(DType type, std::vector<std::int64_t> shape) {
  std::int64_t count = 1;
  for (const auto d : shape) count *= d;
  std::vector<std::uint8_t> bytes;
  for (std::uint64_t i = 0; i < byte_size(type, count); ++i) bytes.push_back(static_cast<std::uint8_t>(i * 89 + i / 7));
  return Tensor::of(type, std::move(shape), bytes);
}

Tensor scales(std::vector<std::int64_t> shape) { return from_aten(waves(std::move(shape)).mul(0.01).add(0.02)); }

/// How the weight of a case is written down: nodes that make the value "w" [inputs, outputs] or, with `rows`, [outputs, inputs].
struct Written {
  std::string name;
  std::map<std::string, Tensor> initializers;
  std::vector<Node> nodes;
  std::int64_t inputs = 48, outputs = 20;
  bool rows = false;
};

Node dequantize(std::int64_t axis, std::int64_t block, bool zero) {
  Node node{"DequantizeLinear", "", "dq", {"q", "s"}, {"w"}, {{"axis", axis}}};
  if (zero) node.inputs.push_back("z");
  if (block > 0) node.attributes["block_size"] = block;
  return node;
}

std::vector<Written> all() {
  std::vector<Written> out;
  for (const bool rows : {false, true}) {
    const auto add = [&](std::string name, std::map<std::string, Tensor> initializers, std::vector<Node> nodes,
                         std::int64_t inputs = 48, std::int64_t outputs = 20) {
      out.push_back({name + (rows ? " in rows" : ""), std::move(initializers), std::move(nodes), inputs, outputs, rows});
    };
    const auto shape = [rows](std::int64_t inputs, std::int64_t outputs) {
      return rows ? std::vector{outputs, inputs} : std::vector{inputs, outputs};
    };
    const std::int64_t over = rows ? 1 : 0, along = rows ? 0 : 1;
    add("f32", {{"w", from_aten(waves(shape(48, 20)))}}, {});
    add("f32, odd", {{"w", from_aten(waves(shape(37, 5)))}}, {}, 37, 5);
    for (const auto& [name, type] : {std::pair("f16", at::kHalf), std::pair("bf16", at::kBFloat16)})
      for (const std::int64_t inputs : {48, 43})
        add(std::string(name) + " " + std::to_string(inputs), {{"h", from_aten(waves(shape(inputs, 20)).to(type))}},
            {{"Cast", "", "cast", {"h"}, {"w"}, {{"to", std::int64_t{1}}}}}, inputs);
    for (const auto& [name, type] :
         {std::pair("i8", DType::i8), std::pair("u8", DType::u8), std::pair("i4", DType::i4), std::pair("u4", DType::u4)}) {
      for (const bool zero : {false, true}) {
        const auto with = [&](std::string what, std::vector<std::int64_t> scale, std::int64_t axis, std::int64_t block,
                              std::int64_t inputs = 48) {
          std::map<std::string, Tensor> parts{{"q", codes(type, shape(inputs, 20))}, {"s", scales(scale)}};
          if (zero) parts["z"] = codes(type, scale);
          add(std::string(name) + (zero ? " zero " : " ") + what, std::move(parts), {dequantize(axis, block, zero)}, inputs);
        };
        with("tensor", {}, 1, 0);
        with("channel", {20}, along, 0);
        with("negative axis", {20}, along - 2, 0);
        with("channel, odd", {20}, along, 0, 42);
        with("blocks of 16", shape(3, 20), over, 16);
        with("blocks of 12", shape(4, 20), over, 12);
      }
    }
  }
  return out;
}

/// x through the weight, by Gemm with C where the weight lies in rows.
Graph graph_of(const Written& w) {
  Graph graph;
  graph.inputs = {{"x", DType::f32, {Dim::symbol("n"), w.inputs}}};
  graph.outputs = {{"y", DType::f32, {Dim::symbol("n"), w.outputs}}};
  graph.initializers = w.initializers;
  graph.nodes = w.nodes;
  if (w.rows) {
    graph.initializers["c"] = from_aten(waves({w.outputs}));
    graph.nodes.push_back({"Gemm", "", "gemm", {"x", "w", "c"}, {"y"}, {{"transB", std::int64_t{1}}}});
  } else {
    graph.nodes.push_back({"MatMul", "", "matmul", {"x", "w"}, {"y"}, {}});
  }
  graph.validate();
  return graph;
}

std::int64_t count(const Graph& graph, const std::string& op) {
  return std::count_if(graph.nodes.begin(), graph.nodes.end(), [&](const Node& node) { return node.op == op; });
}

double difference(const at::Tensor& got, const at::Tensor& want) {
  REQUIRE(got.sizes() == want.sizes());
  return (got - want).abs().max().item<double>() / want.abs().max().item<double>();
}

}  // namespace

TEST_CASE("packed products give what the plain graph gives") {
  for (const Written& w : all()) {
    const Graph graph = graph_of(w);
    const Graph packed = Prepack().apply(graph);
    INFO(w.name);
    CHECK(packed.nodes.size() == 1);
    CHECK(count(packed, "PackedMatMul") == 1);
    for (const std::int64_t rows : {1, 3, 21}) {
      const TensorMap inputs{{"x", waves({rows, w.inputs}, -1)}};
      CHECK(difference(Session(packed).run(inputs).at("y"), Session(graph).run(inputs).at("y")) < 2e-6);
    }
  }
}

TEST_CASE("weights are not widened when they are packed") {
  for (const Written& w : all()) {
    const Graph graph = graph_of(w), packed = Prepack().apply(graph);
    INFO(w.name);
    const bool four = w.initializers.contains("q") && bits(w.initializers.at("q").dtype) == 4;
    const bool packs = four && w.name.find("odd") == std::string::npos && w.name.find("12") == std::string::npos;
    const auto& rows = *packed.initializer(packed.nodes[0].input(1));
    const auto stored = w.initializers.contains("w") ? 32 : w.initializers.contains("h") ? 16 : packs ? 4 : 8;
    CHECK(rows.bytes.size() * 8 == static_cast<std::size_t>(w.inputs * w.outputs * stored));
  }
}

TEST_CASE("a table and a head that share a weight share its packed form") {
  Graph graph;
  graph.inputs = {{"ids", DType::i64, {2, 3}}};
  graph.outputs = {{"y", DType::f32, {2, 3, 20}}};
  graph.initializers = {{"q", codes(DType::i8, {20, 32})}, {"s", scales({20})}};
  graph.nodes = {{"DequantizeLinear", "", "dq", {"q", "s"}, {"w"}, {{"axis", std::int64_t{0}}}},
                 {"Gather", "", "look-up", {"w", "ids"}, {"x"}, {}},
                 {"Transpose", "", "turn", {"w"}, {"t"}, {{"perm", std::vector<std::int64_t>{1, 0}}}},
                 {"MatMul", "", "head", {"x", "t"}, {"y"}, {}}};
  graph.validate();
  Prepack prepack;
  const Graph packed = prepack.apply(graph);
  CHECK(count(packed, "PackedGather") == 1);
  CHECK(count(packed, "PackedMatMul") == 1);
  CHECK(packed.nodes.size() == 2);
  CHECK(packed.nodes[0].input(1) == packed.nodes[1].input(1));
  CHECK(packed.initializers.size() == 2);
  // A second graph of the same model holds the very same bytes.
  CHECK(prepack.apply(graph).initializer("q/rows")->bytes.data() == packed.initializer("q/rows")->bytes.data());
  const TensorMap inputs{{"ids", at::tensor({0, 19, -1, 3, 7, -20}, at::kLong).reshape({2, 3})}};
  CHECK(difference(Session(packed).run(inputs).at("y"), Session(graph).run(inputs).at("y")) < 2e-6);
  CHECK_THROWS_WITH(Session(packed).run({{"ids", at::tensor({0, 1, 2, 3, 4, 20}, at::kLong).reshape({2, 3})}}),
                    ContainsSubstring("index 20") && ContainsSubstring("20 rows"));
}

TEST_CASE("what does not fit stays as it is") {
  Written groups{"one scale for each input", {{"q", codes(DType::i8, {48, 20})}, {"s", scales({48})}}, {dequantize(0, 0, false)}};
  CHECK(count(Prepack().apply(graph_of(groups)), "MatMul") == 1);
  Written rest{
      "a last block that is not whole", {{"q", codes(DType::i8, {48, 20})}, {"s", scales({2, 20})}}, {dequantize(0, 32, false)}};
  CHECK(count(Prepack().apply(graph_of(rest)), "MatMul") == 1);
  Graph scaled = graph_of({"scaled", {{"w", from_aten(waves({20, 48}))}}, {}, 48, 20, true});
  scaled.nodes[0].attributes["alpha"] = 0.5;
  CHECK(count(Prepack().apply(scaled), "Gemm") == 1);
  Graph narrow = graph_of({"narrow", {{"w", from_aten(waves({48, 20}))}}, {}});
  CHECK_THROWS_WITH(Session(Prepack().apply(narrow)).run({{"x", waves({2, 3, 48})}}), ContainsSubstring("\"x\""));
}
