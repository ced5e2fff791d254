#include "graph/blocks.h"

#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <set>

#include "graph/causal.h"
#include "graph/passes.h"
#include "models.h"

using namespace espalier;
using namespace espalier::test;

namespace {

using Ints = std::vector<std::int64_t>;
using Names = std::vector<std::string>;

/// What every list of blocks must keep: runs are chains, corresponding nodes have one operator, and a block computes its output
/// from its input, its sides, its constants and the initializers alone.
void check_consistent(const Graph& graph, const std::vector<Block>& blocks) {
  std::set<std::size_t> seen;
  for (std::size_t b = 0; b < blocks.size(); ++b) {
    const Block& block = blocks[b];
    CAPTURE(b, block.scope);
    std::set<std::string> known(block.sides.begin(), block.sides.end());
    known.insert(block.input);
    for (const auto& [name, tensor] : graph.initializers) known.insert(name);
    const auto run = [&](const std::vector<std::size_t>& nodes) {
      for (const auto n : nodes) {
        CHECK(seen.insert(n).second);
        for (const auto& input : graph.nodes[n].inputs) CHECK((input.empty() || known.contains(input)));
        for (const auto& output : graph.nodes[n].outputs) known.insert(output);
      }
    };
    run(block.constants);
    run(block.nodes);
    CHECK(known.contains(block.output));
    if (b == 0 || blocks[b - 1].run != block.run) continue;
    CHECK(blocks[b - 1].output == block.input);
    REQUIRE(blocks[b - 1].nodes.size() == block.nodes.size());
    for (std::size_t i = 0; i < block.nodes.size(); ++i)
      CHECK(graph.nodes[block.nodes[i]].op == graph.nodes[blocks[b - 1].nodes[i]].op);
  }
}

Names scopes(const std::vector<Block>& blocks) {
  Names names;
  for (const auto& block : blocks) names.push_back(block.scope);
  return names;
}

/// y = Relu(x + Conv(Relu(Conv(x)))), channels kept, `width` inside.
std::string residual_block(ModelBuilder& b, const std::string& name, const std::string& x, std::int64_t channels,
                           std::int64_t width) {
  const auto conv = [&](const std::string& part, const std::string& in, std::int64_t from, std::int64_t to) {
    return b.add(name + "/" + part + "/Conv", "Conv", {in, b.weight(name + part + ".weight", {to, from, 3, 3}, 0.1)},
                 {{"kernel_shape", Ints{3, 3}}, {"pads", Ints{1, 1, 1, 1}}});
  };
  const auto inner = b.add(name + "/act/Relu", "Relu", {conv("conv1", x, channels, width)});
  const auto sum = b.add(name + "/Add", "Add", {conv("conv2", inner, width, channels), x});
  return b.add(name + "/Relu", "Relu", {sum});
}

Graph finish(ModelBuilder& b, const std::string& x) {
  b.graph.outputs.push_back({x, DType::f32, {}});
  b.graph.validate();
  return b.graph;
}

}  // namespace

TEST_CASE("a language model's layers are its blocks, whatever their widths") {
  const Graph graph = language_model(3);  // four layers, all of different widths
  const auto blocks = find_blocks(graph);
  check_consistent(graph, blocks);
  CHECK(scopes(blocks) == Names{"model.layers.0", "model.layers.1", "model.layers.2", "model.layers.3"});
  REQUIRE(blocks.size() == 4);
  CHECK(blocks[0].input == "/model/embed_tokens/Gather_output_0");
  CHECK(blocks[3].output == "/model/layers.3/mlp/Add_output_0");
  for (const auto& block : blocks) {
    CHECK(block.run == 0);
    CHECK(block.nodes.size() == 17);
    CHECK(block.sides == Names{"/mask/Expand_output_0", "position_ids"});
  }
}

TEST_CASE("two layers are enough; names are not needed") {
  LanguageModelShape shape;
  shape.kv_heads = {3, 2};
  shape.widths = {40, 24};
  Graph graph = language_model(5, shape);
  for (std::size_t n = 0; n < graph.nodes.size(); ++n) graph.nodes[n].name = "n" + std::to_string(n);
  const auto blocks = find_blocks(graph);
  check_consistent(graph, blocks);
  REQUIRE(blocks.size() == 2);
  CHECK(blocks[0].input == "/model/embed_tokens/Gather_output_0");
  CHECK(blocks[1].output == "/model/layers.1/mlp/Add_output_0");
  shape.kv_heads = {3};
  shape.widths = {40};
  CHECK(find_blocks(language_model(5, shape)).empty());
}

TEST_CASE("a cache gives each block inputs of its own, and no other blocks") {
  const Graph graph = with_kv_cache(language_model(3));
  const auto blocks = find_blocks(graph);
  check_consistent(graph, blocks);
  REQUIRE(blocks.size() == 4);
  const auto& sides = blocks[2].sides;
  CHECK(std::count(sides.begin(), sides.end(), "past_key_values.2.key") == 1);
  CHECK(std::count(sides.begin(), sides.end(), "past_key_values.1.key") == 0);
}

TEST_CASE("passes and a cut of the last position keep the blocks") {
  Graph graph = last_position_only(language_model(3));
  optimize(graph);
  const auto blocks = find_blocks(graph);
  check_consistent(graph, blocks);
  CHECK(blocks.size() == 4);
}

TEST_CASE("residual blocks of a CNN start where the stream does") {
  ModelBuilder b("cnn", 1);
  b.graph.inputs.push_back({"image", DType::f32, {Dim::symbol("batch"), 3, 8, 8}});
  auto x = b.add("stem/Conv", "Conv", {"image", b.weight("stem.weight", {8, 3, 3, 3}, 0.1)},
                 {{"kernel_shape", Ints{3, 3}}, {"pads", Ints{1, 1, 1, 1}}});
  x = b.add("stem/Relu", "Relu", {x});
  for (int i = 0; i < 3; ++i) x = residual_block(b, "narrow." + std::to_string(i), x, 8, 12 + i);
  x = b.add("down/Conv", "Conv", {x, b.weight("down.weight", {16, 8, 1, 1}, 0.1)}, {{"strides", Ints{2, 2}}});
  for (int i = 0; i < 2; ++i) x = residual_block(b, "wide." + std::to_string(i), x, 16, 20);
  x = b.add("head/GlobalAveragePool", "GlobalAveragePool", {x});
  const Graph graph = finish(b, x);
  const auto blocks = find_blocks(graph);
  check_consistent(graph, blocks);
  CHECK(scopes(blocks) == Names{"narrow.0", "narrow.1", "narrow.2", "wide.0", "wide.1"});
  REQUIRE(blocks.size() == 5);
  CHECK(blocks[0].input == "stem/Relu_output_0");
  CHECK(blocks[2].run == 0);
  CHECK(blocks[3].run == 1);
  CHECK(blocks[3].input == "down/Conv_output_0");
}

TEST_CASE("numbers of groups follow widths: a depthwise and a grouped bottleneck are two of a kind") {
  const Graph graph = residual_cnn(1);
  const auto blocks = find_blocks(graph);
  check_consistent(graph, blocks);
  REQUIRE(blocks.size() == 2);
  CHECK(blocks[0].output == "block2/Add_output_0");
  CHECK(blocks[1].output == "block3/Add_output_0");
}

TEST_CASE("blocks may begin at a graph input and bring constants of their own") {
  ModelBuilder b("mlp", 1);
  b.graph.inputs.push_back({"features", DType::f32, {Dim::symbol("batch"), 8}});
  std::string x = "features";
  for (int i = 0; i < 3; ++i) {
    const auto name = "layer." + std::to_string(i);
    const auto turn = [&](const std::string& part, std::int64_t rows, std::int64_t columns) {
      return b.add(name + "/" + part + "/Transpose", "Transpose", {b.weight(name + part, {rows, columns}, 0.3)},
                   {{"perm", Ints{1, 0}}});
    };
    const auto inner = b.add(name + "/Relu", "Relu", {b.add(name + "/up/MatMul", "MatMul", {x, turn("up", 12 + i, 8)})});
    x = b.add(name + "/Add", "Add", {x, b.add(name + "/down/MatMul", "MatMul", {inner, turn("down", 8, 12 + i)})});
  }
  const Graph graph = finish(b, x);
  const auto blocks = find_blocks(graph);
  check_consistent(graph, blocks);
  REQUIRE(scopes(blocks) == Names{"layer.0", "layer.1", "layer.2"});
  CHECK(blocks[0].input == "features");
  CHECK(blocks[1].constants.size() == 2);
  CHECK(blocks[1].sides.empty());
}

TEST_CASE("the layers after a sum and its norm are blocks (post-norm), with a mask expanded in each") {
  ModelBuilder b("encoder", 1);
  b.graph.inputs.push_back({"ids", DType::i64, {Dim::symbol("batch"), 6}});
  b.graph.inputs.push_back({"mask", DType::f32, {Dim::symbol("batch"), 6}});
  const auto norm = [&](const std::string& name, const std::string& x) {
    return b.add(name + "/LayerNormalization", "LayerNormalization", {x, b.weight(name + ".weight", {8}, 0.1, 1)});
  };
  const auto linear = [&](const std::string& name, const std::string& x) {
    return b.add(name + "/MatMul", "MatMul", {x, b.weight(name + ".weight", {8, 8}, 0.3)});
  };
  b.weight("words", {20, 8}, 1);
  auto x = norm("embeddings", b.add("embeddings/Gather", "Gather", {"words", "ids"}));
  for (int i = 0; i < 2; ++i) {
    const auto name = "encoder.layer." + std::to_string(i);
    const auto own = b.add(name + "/attention/Unsqueeze", "Unsqueeze", {"mask", b.integers(name + ".axes", {1, 2})});
    const auto a =
        b.add(name + "/attention/Attention", "Attention",
              {linear(name + "/attention/q", x), linear(name + "/attention/k", x), linear(name + "/attention/v", x), own},
              {{"q_num_heads", std::int64_t{2}}, {"kv_num_heads", std::int64_t{2}}});
    x = norm(name + "/attention/norm", b.add(name + "/attention/Add", "Add", {linear(name + "/attention/o", a), x}));
    const auto inner = b.add(name + "/ffn/Gelu", "Gelu", {linear(name + "/ffn/up", x)});
    x = norm(name + "/norm", b.add(name + "/Add", "Add", {linear(name + "/ffn/down", inner), x}));
  }
  x = b.add("pooler/Tanh", "Tanh", {linear("pooler", x)});
  const Graph graph = finish(b, x);
  const auto blocks = find_blocks(graph);
  check_consistent(graph, blocks);
  REQUIRE(scopes(blocks) == Names{"encoder.layer.0", "encoder.layer.1"});
  CHECK(blocks[0].input == "embeddings/LayerNormalization_output_0");
  CHECK(blocks[0].nodes.size() == 13);
  CHECK(blocks[1].sides == Names{"mask"});
}

TEST_CASE("encoder and decoder are runs of their own") {
  ModelBuilder b("translator", 1);
  for (const auto* name : {"source", "target"})
    b.graph.inputs.push_back({name, DType::i64, {Dim::symbol("batch"), Dim::symbol(name)}});
  b.weight("words", {20, 8}, 1);
  const auto linear = [&](const std::string& name, const std::string& x) {
    return b.add(name + "/MatMul", "MatMul", {x, b.weight(name + ".weight", {8, 8}, 0.3)});
  };
  const auto attend = [&](const std::string& name, const std::string& x, const std::string& memory) {
    const auto a =
        b.add(name + "/Attention", "Attention", {linear(name + "/q", x), linear(name + "/k", memory), linear(name + "/v", memory)},
              {{"q_num_heads", std::int64_t{2}}, {"kv_num_heads", std::int64_t{2}}});
    return b.add(name + "/Add", "Add", {x, linear(name + "/o", a)});
  };
  auto memory = b.add("encoder/Gather", "Gather", {"words", "source"});
  for (int i = 0; i < 3; ++i) memory = attend("encoder.layers." + std::to_string(i) + "/self", memory, memory);
  auto x = b.add("decoder/Gather", "Gather", {"words", "target"});
  for (int i = 0; i < 2; ++i) {
    const auto name = "decoder.layers." + std::to_string(i);
    x = attend(name + "/self", x, x);
    x = attend(name + "/cross", x, memory);
  }
  const Graph graph = finish(b, linear("head", x));
  const auto blocks = find_blocks(graph);
  check_consistent(graph, blocks);
  REQUIRE(blocks.size() == 5);
  CHECK(blocks[0].scope == "encoder.layers.0.self");
  CHECK(blocks[2].output == memory);
  CHECK(blocks[3].scope == "decoder.layers.0");
  CHECK(blocks[3].sides == Names{memory});
  CHECK(blocks[4].output == x);
  CHECK(blocks[3].run != blocks[2].run);
}

TEST_CASE("a graph without repeats has no blocks") {
  CHECK(find_blocks(Graph{}).empty());
  ModelBuilder b("activations", 1);  // repeats, but nothing that could be trained
  b.graph.inputs.push_back({"x", DType::f32, {4}});
  std::string x = "x";
  for (int i = 0; i < 6; ++i) x = b.add("n" + std::to_string(i), i % 2 == 0 ? "Relu" : "Sigmoid", {x});
  CHECK(find_blocks(finish(b, x)).empty());
}
