#include "graph/surgery.h"

#include <algorithm>
#include <catch2/catch_test_macros.hpp>

#include "models.h"
#include "sdk/error.h"

using namespace espalier;
using namespace espalier::test;

namespace {

std::string refusal(const Graph& graph, const std::vector<CoupledGroup>& groups, const Removal& removal) {
  try {
    cut(graph, groups, removal);
  } catch (const Error& error) {
    CHECK(error.code() == ErrorCode::invalid_input);
    CHECK(error.where() == removal.begin()->first);
    return error.message();
  }
  return {};
}

/// x [batch, 2] · a [2, 6] · b [6, 2].
ModelBuilder two_layers() {
  ModelBuilder b("two_layers", 1);
  b.graph.inputs.push_back({"x", DType::f32, {Dim::symbol("batch"), 2}});
  std::vector<float> numbers(12);
  for (std::size_t i = 0; i < numbers.size(); ++i) numbers[i] = static_cast<float>(i);
  b.numbers("a", {2, 6}, numbers);
  b.numbers("b", {6, 2}, numbers);
  const auto h = b.add("/a/MatMul", "MatMul", {"x", "a"});
  const auto y = b.add("/b/MatMul", "MatMul", {h, "b"});
  b.graph.outputs.push_back({y, DType::f32, {Dim::symbol("batch"), 2}});
  return b;
}

}  // namespace

TEST_CASE("a cut takes the slices out of every member") {
  const auto graph = two_layers().graph;
  const auto groups = coupled_groups(graph, infer(graph));
  REQUIRE(groups.size() == 1);
  CutReport report;
  const auto small = cut(graph, groups, {{"a:1:0", {0, 3, 4}}}, false, &report);
  CHECK(small.initializers.at("a").shape == std::vector<std::int64_t>{2, 3});
  CHECK(small.initializers.at("a").numbers() == std::vector<double>{1, 2, 5, 7, 8, 11});
  CHECK(small.initializers.at("b").numbers() == std::vector<double>{2, 3, 4, 5, 10, 11});
  REQUIRE(report.rows.size() == 1);
  CHECK(report.rows[0].before == 6);
  CHECK(report.rows[0].after == 3);
  CHECK(report.parameters_before - report.parameters_after == 3 * groups[0].parameters_per_unit);
  CHECK(graph.initializers.at("a").shape == std::vector<std::int64_t>{2, 6});  // the graph that was cut is as it was

  const auto masked = mask(graph, groups, {{"a:1:0", {0, 3, 4}}});
  CHECK(masked.initializers.at("a").numbers() == std::vector<double>{0, 1, 2, 0, 0, 5, 0, 7, 8, 0, 0, 11});
  CHECK(masked.initializers.at("b").numbers() == std::vector<double>{0, 0, 2, 3, 4, 5, 0, 0, 0, 0, 10, 11});
}

TEST_CASE("what cannot be cut is refused with the group's name") {
  const auto graph = two_layers().graph;
  auto groups = coupled_groups(graph, infer(graph), true);
  CHECK(refusal(graph, groups, {{"nobody:0:0", {1}}}).find("no such group") != std::string::npos);
  CHECK(refusal(graph, groups, {{"a:1:0", {6}}}).find("unit 6 does not exist") != std::string::npos);
  CHECK(refusal(graph, groups, {{"a:1:0", {-1}}}).find("does not exist") != std::string::npos);
  CHECK(refusal(graph, groups, {{"a:1:0", {3, 1}}}).find("ascending") != std::string::npos);
  CHECK(refusal(graph, groups, {{"a:1:0", {0, 1, 2, 3, 4, 5}}}).find("last unit") != std::string::npos);
  CHECK(refusal(graph, groups, {{"b:1:0", {0}}}).find("output") != std::string::npos);
  for (auto& group : groups) group.multiple = 4;
  CHECK(refusal(graph, groups, {{"a:1:0", {0}}}).find("multiple of 4") != std::string::npos);
  for (auto& group : groups) group.exact = false, group.multiple = 1;
  CHECK(!refusal(graph, groups, {{"a:1:0", {0}}}).empty());
  CHECK(cut(graph, groups, {{"a:1:0", {0}}}, true).initializers.at("a").shape[1] == 5);
}

TEST_CASE("groups of another graph are refused") {
  const auto graph = two_layers().graph;
  const auto groups = coupled_groups(graph, infer(graph));
  const auto small = cut(graph, groups, {{"a:1:0", {0, 1, 2}}});
  CHECK(!refusal(small, groups, {{"a:1:0", {5}}}).empty());
}

TEST_CASE("packed weights are cut between their nibbles") {
  auto b = two_layers();
  auto& graph = b.graph;
  // 0 1 2 3 4 5 / 6 7 8 9 10 11, two a byte, the first low.
  const std::vector<std::uint8_t> packed{0x10, 0x32, 0x54, 0x76, 0x98, 0xBA};
  graph.initializers["a.q"] = Tensor::own(
      DType::u4, {2, 6},
      {reinterpret_cast<const std::byte*>(packed.data()), reinterpret_cast<const std::byte*>(packed.data()) + packed.size()});
  graph.initializers.erase("a");
  b.add("/a/DequantizeLinear", "DequantizeLinear", {"a.q", b.numbers("a.scale", {}, {0.5F})});
  graph.nodes.back().outputs[0] = "a";
  graph.sort();
  const auto groups = coupled_groups(graph, infer(graph));
  REQUIRE(groups.size() == 1);
  const auto small = cut(graph, groups, {{groups[0].id, {1, 2, 3}}});
  const auto& tensor = small.initializers.at("a.q");
  CHECK(tensor.shape == std::vector<std::int64_t>{2, 3});
  REQUIRE(tensor.bytes.size() == 3);
  CHECK(tensor.bytes[0] == std::byte{0x40});
  CHECK(tensor.bytes[1] == std::byte{0x65});
  CHECK(tensor.bytes[2] == std::byte{0xBA});
}

TEST_CASE("a mask writes the zero point into what is quantized by one scale") {
  auto b = two_layers();
  auto& graph = b.graph;
  graph.initializers["a.q"] = Tensor::of<std::uint8_t>(DType::u8, {2, 6}, std::vector<std::uint8_t>(12, 7));
  graph.initializers["a.zero_point"] = Tensor::of<std::uint8_t>(DType::u8, {}, {128});
  graph.initializers.erase("a");
  b.add("/a/DequantizeLinear", "DequantizeLinear", {"a.q", b.numbers("a.scale", {}, {0.5F}), "a.zero_point"});
  graph.nodes.back().outputs[0] = "a";
  graph.sort();
  const auto groups = coupled_groups(graph, infer(graph));
  const auto masked = mask(graph, groups, {{groups[0].id, {2}}});
  const auto bytes = masked.initializers.at("a.q").as<std::uint8_t>();
  CHECK(bytes[2] == 128);
  CHECK(bytes[8] == 128);
  CHECK(bytes[3] == 7);
}

TEST_CASE("head counts and RMS gains follow the cut") {
  const auto graph = language_model(1);
  const auto groups = coupled_groups(graph, infer(graph));
  const auto small =
      cut(graph, groups, {{"model.layers.0.self_attn.q_proj.weight:1:0", {1}}, {"model.embed_tokens.weight:1:0", {0, 7}}});
  const auto attention = std::find_if(small.nodes.begin(), small.nodes.end(), [](const Node& n) { return n.op == "Attention"; });
  CHECK(attention->integer("q_num_heads", 0) == 4);
  CHECK(attention->integer("kv_num_heads", 0) == 2);
  const auto norm = std::find_if(small.nodes.begin(), small.nodes.end(), [](const Node& n) { return n.op == "RMSNormalization"; });
  CHECK(norm->number("epsilon", 0) > 1e-5);
  CHECK(small.initializers.at("model.embed_tokens.weight").shape == std::vector<std::int64_t>{50, 46});
  CHECK(small.metadata.at("espalier.task") == "causal-lm");
}
