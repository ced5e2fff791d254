#include "graph/groups.h"

#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <cstdlib>

#include "models.h"

using namespace espalier;
using namespace espalier::test;

namespace {

const CoupledGroup* find(const std::vector<CoupledGroup>& groups, const std::string& id) {
  const auto found = std::find_if(groups.begin(), groups.end(), [&](const CoupledGroup& g) { return g.id == id; });
  return found == groups.end() ? nullptr : &*found;
}

const Member* member(const CoupledGroup& group, const std::string& tensor, std::size_t axis) {
  for (const auto& m : group.members)
    if (m.tensor == tensor && m.axis == axis) return &m;
  return nullptr;
}

const std::vector<std::int64_t>& indices(const CoupledGroup& group, std::size_t unit, const std::string& tensor, std::size_t axis) {
  for (const auto& slice : group.units[unit])
    if (group.members[slice.member].tensor == tensor && group.members[slice.member].axis == axis) return slice.indices;
  static const std::vector<std::int64_t> none;
  return none;
}

using Ints = std::vector<std::int64_t>;

}  // namespace

TEST_CASE("a language model has FFN channels, key-value groups and one residual stream") {
  const auto graph = language_model(1);
  const auto groups = coupled_groups(graph, infer(graph));
  REQUIRE(groups.size() == 9);

  const auto& residual = groups[0];
  CHECK(residual.id == "model.embed_tokens.weight:1:0");
  CHECK(residual.units.size() == 48);
  CHECK(residual.exact);
  CHECK(residual.kind == CoupledGroup::Kind::channels);
  std::int64_t per_unit = 50 + 9;
  for (std::size_t n = 0; n < 4; ++n) {
    const LanguageModelShape s;
    per_unit += 2 * 48 + 2 * 8 * s.kv_heads[n] + 3 * s.widths[n];
  }
  CHECK(residual.parameters_per_unit == per_unit);

  const auto* ffn = find(groups, "model.layers.2.mlp.gate_proj.weight:1:0");
  REQUIRE(ffn);
  CHECK(ffn->units.size() == 72);
  CHECK(ffn->members.size() == 3);
  REQUIRE(member(*ffn, "model.layers.2.mlp.down_proj.weight", 0));
  CHECK(!member(*ffn, "model.layers.2.mlp.down_proj.weight", 0)->producer);
  CHECK(member(*ffn, "model.layers.2.mlp.up_proj.weight", 1)->producer);
  CHECK(ffn->parameters_per_unit == 3 * 48);
  CHECK(indices(*ffn, 5, "model.layers.2.mlp.down_proj.weight", 0) == Ints{5});
  CHECK(std::find(ffn->scopes.begin(), ffn->scopes.end(), "/model/layers.2/mlp/gate_proj/MatMul") != ffn->scopes.end());
  CHECK(
      std::none_of(ffn->scopes.begin(), ffn->scopes.end(), [](const auto& s) { return s.find("layers.1") != std::string::npos; }));

  const auto* heads = find(groups, "model.layers.1.self_attn.q_proj.weight:1:0");
  REQUIRE(heads);
  CHECK(heads->kind == CoupledGroup::Kind::heads);
  CHECK(heads->units.size() == 2);
  CHECK(member(*heads, "model.layers.1.self_attn.q_proj.weight", 1)->width == 24);
  CHECK(member(*heads, "model.layers.1.self_attn.k_proj.weight", 1)->width == 8);
  CHECK(member(*heads, "model.layers.1.self_attn.o_proj.weight", 0)->width == 24);
  CHECK(heads->parameters_per_unit == 48 * (24 + 8 + 8 + 24));
  CHECK(indices(*heads, 1, "model.layers.1.self_attn.v_proj.weight", 1) == Ints{8, 9, 10, 11, 12, 13, 14, 15});
}

TEST_CASE("what reaches the border is pinned, with the reason") {
  const auto graph = language_model(2);
  const auto groups = coupled_groups(graph, infer(graph), true);
  const auto* vocabulary = find(groups, "model.embed_tokens.weight:0:0");
  REQUIRE(vocabulary);
  CHECK(vocabulary->pinned);
  CHECK(!vocabulary->reason.empty());
}

TEST_CASE("a residual CNN has groups through depthwise, grouped, concatenated and split paths") {
  const auto graph = residual_cnn(1);
  const auto groups = coupled_groups(graph, infer(graph));

  const auto* residual = find(groups, "stem.weight:0:0");
  REQUIRE(residual);
  CHECK(residual->units.size() == 16);
  for (const auto* tensor : {"block1.conv2.weight", "block2.project.weight", "block3.project.weight"})
    CHECK(member(*residual, tensor, 0));
  for (const auto* tensor : {"block1.conv1.weight", "block2.expand.weight", "branch.left.weight"}) {
    REQUIRE(member(*residual, tensor, 1));
    CHECK(!member(*residual, tensor, 1)->producer);
  }
  CHECK(member(*residual, "stem.norm.variance", 0));

  const auto* depthwise = find(groups, "block2.expand.weight:0:0");
  REQUIRE(depthwise);
  CHECK(depthwise->units.size() == 32);
  CHECK(member(*depthwise, "block2.depthwise.weight", 0)->width == 1);
  CHECK(member(*depthwise, "block2.project.weight", 1)->width == 1);

  const auto* grouped = find(groups, "block3.reduce.weight:0:0");
  REQUIRE(grouped);
  // Position p of all four groups goes at once, so that the groups stay equal.
  CHECK(grouped->units.size() == 6);
  CHECK(indices(*grouped, 1, "block3.reduce.weight", 0) == Ints{1, 7, 13, 19});
  CHECK(indices(*grouped, 1, "block3.grouped.weight", 1) == Ints{1});
  const auto* made = find(groups, "block3.grouped.weight:0:0");
  REQUIRE(made);
  CHECK(made->units.size() == 8);
  CHECK(indices(*made, 2, "block3.project.weight", 1) == Ints{2, 10, 18, 26});

  const auto* right = find(groups, "branch.right.weight:0:0");
  REQUIRE(right);
  CHECK(right->units.size() == 12);
  CHECK(indices(*right, 0, "branch.join.weight", 1) == Ints{8});

  const auto* gate = find(groups, "branch.join.weight:0:0");
  REQUIRE(gate);
  CHECK(gate->units.size() == 12);
  CHECK(indices(*gate, 3, "branch.join.weight", 0) == Ints{3, 15});
  CHECK(indices(*gate, 3, "gate.out.weight", 1) == Ints{3});
  for (const auto& group : groups) {
    CHECK(group.exact);
    CHECK(!group.pinned);
  }
}

TEST_CASE("what is picked alone stays") {
  // Queries, keys and values as [batch, positions, 3, heads, size], taken one by one: no unit of the three may go.
  ModelBuilder b("packed", 4);
  b.graph.inputs.push_back({"x", DType::f32, {2, 5, 8}});
  const auto product = b.add("/qkv", "MatMul", {"x", b.weight("qkv", {8, 24}, 0.3)});
  const auto packed = b.add("/packed", "Reshape", {product, b.integers("shape", {2, 5, 3, 2, 4})});
  std::vector<std::string> parts;
  for (std::int64_t i = 0; i < 3; ++i) {
    const auto name = std::to_string(i);
    const auto one =
        b.add("/one" + name, "Slice",
              {packed, b.integers("start" + name, {i}), b.integers("end" + name, {i + 1}), b.integers("axis" + name, {2})});
    parts.push_back(b.add("/alone" + name, "Squeeze", {one, b.integers("gone" + name, {2})}));
  }
  const auto sum = b.add("/sum", "Add", {b.add("/first", "Add", {parts[0], parts[1]}), parts[2]});
  const auto y = b.add("/mean", "ReduceMean", {sum, b.integers("over", {-1})});
  b.graph.outputs.push_back({y, DType::f32, {2, 5, 2, 1}});
  for (const auto& group : coupled_groups(b.graph, infer(b.graph)))
    for (const auto& member : group.members) CHECK_FALSE((member.tensor == "qkv" && member.axis == 1));
}

TEST_CASE("an unknown operator pins what it touches and says so") {
  ModelBuilder b("unknown", 1);
  b.graph.inputs.push_back({"x", DType::f32, {Dim::symbol("batch"), 4}});
  auto h = b.add("/a/MatMul", "MatMul", {"x", b.weight("a", {4, 6}, 1)});
  h = b.add("/odd", "OddOperator", {h});
  b.graph.nodes.back().domain = "somewhere";
  h = b.add("/b/MatMul", "MatMul", {b.add("/c/MatMul", "MatMul", {"x", b.weight("c", {4, 5}, 1)}), b.weight("b", {5, 3}, 1)});
  b.graph.outputs.push_back({h, DType::f32, {Dim::symbol("batch"), 3}});
  const auto groups = coupled_groups(b.graph, infer(b.graph), true);
  const auto* touched = find(groups, "a:1:0");
  REQUIRE(touched);
  CHECK(touched->pinned);
  CHECK(touched->reason.find("/odd") != std::string::npos);
  const auto* beside = find(groups, "c:1:0");
  REQUIRE(beside);
  CHECK(!beside->pinned);
}

TEST_CASE("a function of the whole axis makes a group inexact, and names the node") {
  ModelBuilder b("inexact", 1);
  b.graph.inputs.push_back({"x", DType::f32, {Dim::symbol("batch"), 4}});
  auto h = b.add("/a/MatMul", "MatMul", {"x", b.weight("a", {4, 6}, 1)});
  h = b.add("/norm", "LayerNormalization", {h, b.weight("gain", {6}, 1), b.weight("shift", {6}, 1)});
  h = b.add("/b/MatMul", "MatMul", {h, b.weight("b", {6, 3}, 1)});
  b.graph.outputs.push_back({h, DType::f32, {Dim::symbol("batch"), 3}});
  const auto groups = coupled_groups(b.graph, infer(b.graph));
  REQUIRE(groups.size() == 1);
  CHECK(!groups[0].exact);
  CHECK(groups[0].reason.find("/norm") != std::string::npos);
}

TEST_CASE("channels that are not zero under the mask make what sums over them inexact") {
  // Two activations are multiplied channel by channel and summed: 0.5 · 0.5 stays where both were masked.
  for (const auto& [op, keeps] : std::vector<std::pair<const char*, bool>>{{"Sigmoid", false},
                                                                           {"Cosh", false},
                                                                           {"Acos", false},
                                                                           {"Softplus", false},
                                                                           {"Relu", true},
                                                                           {"Atan", true},
                                                                           {"Mish", true}}) {
    INFO(op);
    ModelBuilder b("products", 1);
    b.graph.inputs.push_back({"x", DType::f32, {Dim::symbol("batch"), 4}});
    const auto left = b.add("/left", op, {b.add("/l", "MatMul", {"x", b.weight("l", {4, 6}, 1)})});
    const auto right = b.add("/right", op, {b.add("/r", "MatMul", {"x", b.weight("r", {4, 6}, 1)})});
    const auto turned = b.add("/turn", "Transpose", {right}, {{"perm", Ints{1, 0}}});
    const auto y = b.add("/product", "MatMul", {left, turned});
    b.graph.outputs.push_back({y, DType::f32, {Dim::symbol("batch"), Dim::symbol("batch")}});
    const auto groups = coupled_groups(b.graph, infer(b.graph));
    REQUIRE(groups.size() == 1);
    CHECK(groups[0].exact == keeps);
  }
}

TEST_CASE("a quantized weight is cut with its scale and zero point") {
  ModelBuilder b("quantized", 1);
  b.graph.inputs.push_back({"x", DType::f32, {Dim::symbol("batch"), 4}});
  b.graph.initializers["a.q"] = Tensor::of<std::int8_t>(DType::i8, {4, 6}, std::vector<std::int8_t>(24, 3));
  b.graph.initializers["a.zero_point"] = Tensor::of<std::int8_t>(DType::i8, {6}, std::vector<std::int8_t>(6, 1));
  const auto a = b.add("/a/DequantizeLinear", "DequantizeLinear", {"a.q", b.weight("a.scale", {6}, 0.1, 1), "a.zero_point"},
                       {{"axis", std::int64_t{1}}});
  const auto h = b.add("/b/MatMul", "MatMul", {b.add("/a/MatMul", "MatMul", {"x", a}), b.weight("b", {6, 3}, 1)});
  b.graph.outputs.push_back({h, DType::f32, {Dim::symbol("batch"), 3}});
  const auto groups = coupled_groups(b.graph, infer(b.graph));
  REQUIRE(groups.size() == 1);
  CHECK(groups[0].id == "a.q:1:0");
  CHECK(member(groups[0], "a.q", 1)->producer);
  CHECK(member(groups[0], "a.scale", 0)->producer);
  CHECK(member(groups[0], "a.zero_point", 0));
  CHECK(!member(groups[0], "b", 0)->producer);
  CHECK(groups[0].parameters_per_unit == 4 + 1 + 1 + 3);
}

TEST_CASE("a model of 30 layers is looked through in a blink") {
  LanguageModelShape s;
  s.kv_heads.assign(30, 3);
  s.widths.assign(30, 48);
  auto graph = language_model(1, s);
  // The shapes of a real one over bytes that nobody reads.
  const std::map<std::int64_t, std::int64_t> wide{{48, 576}, {50, 49152}, {24, 192}};
  std::shared_ptr<void> zeros(std::calloc(49152, 576 * 4), std::free);
  for (auto& [name, tensor] : graph.initializers) {
    if (!is_floating(tensor.dtype) || name.starts_with("rotary")) continue;
    for (auto& length : tensor.shape) length = wide.contains(length) ? wide.at(length) : length;
    if (name.find("mlp") != std::string::npos) tensor.shape[name.find("down_proj") == std::string::npos ? 1 : 0] = 1536;
    tensor.bytes = {static_cast<const std::byte*>(zeros.get()), static_cast<std::size_t>(tensor.count()) * 4};
    tensor.owner = zeros;
  }
  const auto half = std::vector<float>(64 * 32, 0.5F);
  for (const auto* name : {"rotary.cos", "rotary.sin"}) graph.initializers[name] = Tensor::of<float>(DType::f32, {64, 32}, half);
  for (auto& node : graph.nodes)
    if (node.op == "Attention") node.attributes["q_num_heads"] = std::int64_t{9};
  for (auto& node : graph.nodes)
    if (node.name.ends_with("q_rotary")) node.attributes["num_heads"] = std::int64_t{9};
  graph.outputs[0].shape[2] = 49152;
  const auto groups = coupled_groups(graph, infer(graph));
  CHECK(groups.size() == 61);
  CHECK(groups[0].units.size() == 576);
}
