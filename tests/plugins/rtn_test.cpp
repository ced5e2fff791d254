#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_floating_point.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <cmath>
#include <limits>

#include "formats/model_artifact.h"
#include "run/session.h"
#include "toy_model.h"

using namespace espalier;
using namespace espalier::test;
using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::WithinRel;

namespace {

const Node* dequantizer_of(const Graph& graph, const std::string& name) {
  for (const auto& node : graph.nodes) {
    if (node.op == "DequantizeLinear" && node.output(0) == name) return &node;
  }
  return nullptr;
}

/// The values that readers of a quantized weight meet.
std::vector<double> dequantized(const Graph& graph, const std::string& name) {
  const Node* node = dequantizer_of(graph, name);
  REQUIRE(node);
  const Tensor& codes = *graph.initializer(node->input(0));
  const auto scales = graph.initializer(node->input(1))->numbers();
  const auto q = codes.as<std::int8_t>();
  std::int64_t inner = 1, axis = node->integer("axis", 1);
  for (std::size_t d = std::size_t(axis) + 1; d < codes.shape.size(); ++d) inner *= codes.shape[d];
  std::vector<double> values;
  for (std::size_t i = 0; i < q.size(); ++i) {
    const double scale =
        scales.size() == 1 ? scales[0] : scales[std::size_t(std::int64_t(i) / inner % codes.shape[std::size_t(axis)])];
    values.push_back(double(q[i]) * scale);
  }
  return values;
}

Graph quantized(TestContext& context, const Graph& graph, const Json& parameters = Json::object()) {
  context.run("quantizer/rtn", parameters, {{"model", save_model(context, graph)}});
  return load_model(context, context.outputs.at("model"));
}

/// x [2, 4] through one MatMul.
Graph product(const std::vector<float>& weight, std::vector<std::int64_t> shape) {
  Graph graph;
  graph.inputs.push_back({"x", DType::f32, {2, shape[0]}});
  graph.outputs.push_back({"y", DType::f32, {2, shape[1]}});
  graph.initializers["proj.weight"] = Tensor::of(DType::f32, shape, weight);
  graph.nodes.push_back({"MatMul", "", "/proj/MatMul", {"x", "proj.weight"}, {"y"}, {}});
  graph.validate();
  return graph;
}

}  // namespace

TEST_CASE("every weight is within half a step of its channel") {
  const TemporaryFolder folder;
  TestContext context(folder);
  const Graph graph = toy_language_model();
  const auto data = toy_dataset(context, 4, 24, 5);
  const Graph small = quantized(context, graph);
  CHECK(context.figures.at("parameters") == double(graph.parameter_count()));
  CHECK(context.figures.at("size_bytes") < 0.4 * double(graph.weight_bytes()));
  std::size_t checked = 0;
  for (const auto& [name, tensor] : graph.initializers) {
    if (name.find("_proj.weight") == std::string::npos && name != "model.embed_tokens.weight") continue;
    ++checked;
    CHECK_FALSE(small.initializer(name));
    const auto values = tensor.as<float>();
    const auto rounded = dequantized(small, name);
    const auto scales = small.initializer(name + ".scale")->as<float>();
    const std::int64_t axis = dequantizer_of(small, name)->integer("axis", 1);
    CHECK(axis == (name == "model.embed_tokens.weight" ? 0 : 1));
    REQUIRE(std::int64_t(scales.size()) == tensor.shape[std::size_t(axis)]);
    const auto columns = std::size_t(tensor.shape[1]);
    double worst = 0;
    for (std::size_t i = 0; i < values.size(); ++i) {
      const double scale = scales[axis == 0 ? i / columns : i % columns];
      worst = std::max(worst, std::abs(rounded[i] - double(values[i])) / scale);
    }
    CHECK(worst <= 0.5 + 1e-5);
  }
  CHECK(checked == 2 * 7 + 1);
  // The tied table is one tensor for both of its readers, norms are left alone, and the loss hardly moves.
  CHECK(small.initializer("model.norm.weight"));
  CHECK_THAT(loss_of(small, context, data), WithinRel(loss_of(graph, context, data), 0.01));
  CHECK(context.outputs.at("model").meta.at("tokenizer") == toy_tokenizer_digest());
  const auto& table = context.details.at("rounding");
  CHECK(table.at("columns").size() == 7);
  CHECK(table.at("rows").size() == 8);  // seven kinds of projection and the embedding
}

TEST_CASE("scales and codes are those of the definition") {
  const TemporaryFolder folder;
  TestContext context(folder);
  // Columns: max 127 (scale 1), ties to even, zeros, a tiny one.
  const Graph graph = product({127, 2.5f, 0, 1e-42f,    //
                               -1.5f, 63.5f, 0, 0,      //
                               0.5f, -127, 0, -1e-42f,  //
                               2.5f, 3.5f, 0, 0},
                              {4, 4});
  const Graph small = quantized(context, graph);
  const auto q = small.initializer("proj.weight.q")->as<std::int8_t>();
  CHECK(std::vector<int>(q.begin(), q.end()) == std::vector<int>{127, 2, 0, 0, -2, 64, 0, 0, 0, -127, 0, 0, 2, 4, 0, 0});
  const auto scales = small.initializer("proj.weight.scale")->as<float>();
  CHECK(std::vector<float>(scales.begin(), scales.end()) == std::vector<float>{1, 1, 1, 1});
  const Graph whole = quantized(context, graph, {{"per", "tensor"}});
  CHECK(whole.initializer("proj.weight.scale")->shape.empty());
  CHECK_FALSE(dequantizer_of(whole, "proj.weight")->has("axis"));
}

TEST_CASE("what is on the grid comes back unchanged") {
  const TemporaryFolder folder;
  TestContext context(folder);
  std::vector<float> weight;
  for (int i = 0; i < 12; ++i) weight.push_back(float(i % 3 == 0 ? 127 : (i * 37) % 200 - 100) * 0.125f);
  const Graph small = quantized(context, product(weight, {4, 3}));
  const auto back = dequantized(small, "proj.weight");
  for (std::size_t i = 0; i < weight.size(); i += 3) CHECK(back[i] == double(weight[i]));
}

TEST_CASE("convolutions and Gemm are quantized along their outputs") {
  const TemporaryFolder folder;
  TestContext context(folder);
  const Graph small = quantized(context, toy_residual_network());
  CHECK(dequantizer_of(small, "block.0.conv1.weight")->integer("axis", -1) == 0);
  CHECK(small.initializer("block.0.conv1.weight.scale")->shape == std::vector<std::int64_t>{24});
  CHECK(dequantizer_of(small, "head.weight")->integer("axis", -1) == 0);
  CHECK(small.initializer("stem_bn.weight"));
  const Graph without = quantized(context, toy_residual_network(), {{"head", false}});
  CHECK(without.initializer("head.weight"));
}

TEST_CASE("scopes and switches leave weights as they are") {
  const TemporaryFolder folder;
  TestContext context(folder);
  const Graph graph = toy_language_model();
  const Graph mlp = quantized(context, graph, {{"scope", {"*.mlp"}}, {"exclude", {"*.layers.1.mlp.down_proj"}}});
  CHECK(mlp.initializer("model.layers.0.self_attn.q_proj.weight"));
  CHECK(mlp.initializer("model.layers.1.mlp.down_proj.weight"));
  CHECK_FALSE(mlp.initializer("model.layers.0.mlp.down_proj.weight"));
  CHECK(quantized(context, graph, {{"embeddings", false}}).initializer("model.embed_tokens.weight"));
  CHECK(quantized(context, graph, {{"head", false}}).initializer("model.embed_tokens.weight"));  // tied
  CHECK_FALSE(quantized(context, graph).initializer("model.embed_tokens.weight"));
}

TEST_CASE("half-precision weights keep their type") {
  const TemporaryFolder folder;
  TestContext context(folder);
  Graph graph = product({1, -2, 3, -4}, {2, 2});
  graph.inputs[0].dtype = graph.outputs[0].dtype = DType::f16;
  graph.initializers["proj.weight"] = Tensor::of<std::uint16_t>(DType::f16, {2, 2}, {0x3c00, 0xc000, 0x4200, 0xc400});  // 1 -2 3 -4
  const Graph small = quantized(context, graph);
  CHECK(small.initializer("proj.weight.scale")->dtype == DType::f16);
  const auto back = dequantized(small, "proj.weight");
  CHECK_THAT(back[2], WithinRel(3.0, 1e-3));
  CHECK(std::abs(back[1] + 2.0) < 0.51 * 4 / 127);
}

TEST_CASE("rtn refuses what it cannot do") {
  const TemporaryFolder folder;
  TestContext context(folder);
  CHECK_THROWS_WITH(quantized(context, product({1, 2, 3, std::numeric_limits<float>::infinity()}, {2, 2})),
                    ContainsSubstring("proj.weight") && ContainsSubstring("not finite"));
  CHECK_THROWS_WITH(quantized(context, toy_language_model(), {{"scope", {"*.mpl"}}}),
                    ContainsSubstring("*.mpl") && ContainsSubstring("model.layers.*.mlp"));
  const Graph small = quantized(context, product({1, 2, 3, 4}, {2, 2}));
  CHECK_THROWS_WITH(quantized(context, small), ContainsSubstring("quantized already"));
  Graph old = product({1, 2, 3, 4}, {2, 2});
  old.opsets[""] = 12;
  CHECK_THROWS_WITH(quantized(context, old), ContainsSubstring("opset 12"));
}
