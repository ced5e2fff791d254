#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/linspace.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_floating_point.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <cmath>
#include <cstdlib>
#include <fstream>

#include "formats/model_artifact.h"
#include "formats/onnx.h"
#include "graph/causal.h"
#include "graph/op.h"
#include "graph/passes.h"
#include "run/runtime.h"
#include "run/session.h"
#include "toy_model.h"

using namespace espalier;
using namespace espalier::test;
using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::WithinAbs;
using Catch::Matchers::WithinRel;

namespace {

Graph through(TestContext& context, const std::string& component, const Graph& graph, const Json& parameters = Json::object()) {
  context.run(component, parameters, {{"model", save_model(context, graph)}});
  return load_model(context, context.outputs.at("model"));
}

Graph rounded(TestContext& context, const Graph& graph, const Json& parameters = Json::object()) {
  return through(context, "quantizer/rtn", graph, parameters);
}

const Node& dequantizer_of(const Graph& graph, const std::string& name) {
  for (const auto& node : graph.nodes)
    if (node.op == "DequantizeLinear" && node.output(0) == name) return node;
  FAIL("no DequantizeLinear makes " << name);
  return graph.nodes.front();
}

/// x [2, n] through one MatMul.
Graph product(const std::vector<float>& weight, std::vector<std::int64_t> shape, DType type = DType::f32) {
  Graph graph;
  graph.inputs.push_back({"x", type, {2, shape[0]}});
  graph.outputs.push_back({"y", type, {2, shape[1]}});
  graph.initializers["proj.weight"] = Tensor::of(DType::f32, shape, weight);
  graph.nodes.push_back({"MatMul", "", "/proj/MatMul", {"x", "proj.weight"}, {"y"}, {}});
  graph.validate();
  return graph;
}

std::vector<float> wave(std::int64_t count) {
  std::vector<float> values;
  for (std::int64_t i = 0; i < count; ++i) values.push_back(float(std::sin(double(i) * 1.7) + 0.3 * std::cos(double(i * i % 97))));
  return values;
}

/// The numbers that readers of a quantized weight meet, computed here from codes, scales and zero points alone.
std::vector<double> by_definition(const Graph& graph, const std::string& name) {
  const Node& node = dequantizer_of(graph, name);
  const auto integers = [&](const std::string& value) {
    const at::Tensor t = to_aten(*graph.initializer(value)).to(at::kLong).contiguous();
    return std::vector<std::int64_t>(t.const_data_ptr<std::int64_t>(), t.const_data_ptr<std::int64_t>() + t.numel());
  };
  const Tensor& tensor = *graph.initializer(node.input(0));
  const auto codes = integers(node.input(0));
  const auto scales = graph.initializer(node.input(1))->numbers();
  const auto zeros = node.input(2).empty() ? std::vector<std::int64_t>(scales.size(), 0) : integers(node.input(2));
  const auto rows = tensor.shape[0], columns = tensor.shape[1], axis = node.integer("axis", 1),
             block = node.integer("block_size", 0);
  std::vector<double> values;
  for (std::int64_t r = 0; r < rows; ++r) {
    for (std::int64_t c = 0; c < columns; ++c) {
      std::int64_t s = axis == 0 ? r : c;
      if (block > 0) s = axis == 0 ? r / block * columns + c : r * (columns / block) + c / block;
      values.push_back(double(codes[std::size_t(r * columns + c)] - zeros[std::size_t(s)]) * scales[std::size_t(s)]);
    }
  }
  return values;
}

double squared_error(const Graph& graph, const std::vector<float>& weight) {
  const auto back = by_definition(graph, "proj.weight");
  double sum = 0;
  for (std::size_t i = 0; i < weight.size(); ++i) sum += (back[i] - double(weight[i])) * (back[i] - double(weight[i]));
  return sum / double(weight.size());
}

}  // namespace

TEST_CASE("four bits by group: codes, shapes, the packed size and the stated error") {
  const TemporaryFolder folder;
  TestContext context(folder);
  const auto weight = wave(64 * 6);
  Graph graph = product(weight, {64, 6});
  graph.initializers["head.weight"] = Tensor::of(DType::f32, {6, 3}, wave(18));
  graph.outputs = {{"z", DType::f32, {2, 3}}};
  graph.nodes.push_back({"MatMul", "", "/head/MatMul", {"y", "head.weight"}, {"z"}, {}});
  for (const bool symmetric : {true, false}) {
    const Graph small = rounded(context, graph, {{"bits", 4}, {"group", 16}, {"symmetric", symmetric}});
    const Node& node = dequantizer_of(small, "proj.weight");
    CHECK(node.integer("axis", -1) == 0);
    CHECK(node.integer("block_size", 0) == 16);
    const Tensor& codes = *small.initializer(node.input(0));
    CHECK(codes.dtype == (symmetric ? DType::i4 : DType::u4));
    CHECK(codes.bytes.size() == 64 * 6 / 2);
    CHECK(small.initializer(node.input(1))->shape == std::vector<std::int64_t>{4, 6});
    CHECK(node.input(2).empty() == symmetric);
    CHECK(small.initializer(dequantizer_of(small, "head.weight").input(0))->dtype == (symmetric ? DType::i8 : DType::u8));
    // Within half a step everywhere, and what our runner dequantizes is what the definition says.
    const auto back = by_definition(small, "proj.weight");
    const auto scales = small.initializer(node.input(1))->numbers();
    for (std::size_t i = 0; i < back.size(); ++i)
      CHECK(std::abs(back[i] - double(weight[i])) <= 0.501 * scales[i / 6 / 16 * 6 + i % 6]);
    Session session(small);
    const at::Tensor run = session.run({}, {"proj.weight"}).at("proj.weight").to(at::kDouble).contiguous();
    for (std::size_t i = 0; i < back.size(); ++i) CHECK_THAT(run.const_data_ptr<double>()[i], WithinAbs(back[i], 1e-6));
    const auto& rows = context.details.at("rounding").at("rows");
    REQUIRE(rows.size() == 2);
    CHECK(rows[1][5] == 4);
    CHECK(rows[1][6] == 16);
    CHECK_THAT(rows[1][3].get<double>(), WithinRel(squared_error(small, weight), 1e-3));
  }
  // Codes of 4 bits and a float scale for each 16 of them: 6 bits a weight; the head's 18 weights take 8 and 3 scales.
  rounded(context, graph, {{"bits", 4}, {"group", 16}});
  CHECK_THAT(context.figures.at("bits"), WithinRel((384 * 6 + 18 * 8 + 3 * 32) / 402.0, 1e-9));
}

TEST_CASE("a zero point uses the whole range of a one-sided weight") {
  const TemporaryFolder folder;
  TestContext context(folder);
  auto weight = wave(64 * 6);
  for (auto& w : weight) w = w * 0.2f + 1;
  const Graph graph = product(weight, {64, 6});
  const Json four{{"bits", 4}, {"embedding_bits", 4}};
  Json unsigned_codes = four;
  unsigned_codes["symmetric"] = false;
  const double symmetric = squared_error(rounded(context, graph, four), weight);
  const double zero_point = squared_error(rounded(context, graph, unsigned_codes), weight);
  CHECK_THAT(context.figures.at("squared_error"), WithinRel(zero_point, 1e-3));
  CHECK(zero_point < 0.5 * symmetric);
}

TEST_CASE("searched scales have no larger error, and find a grid that is there") {
  const TemporaryFolder folder;
  TestContext context(folder);
  auto weight = wave(64 * 6);
  weight[7] = 9;  // an outlier that stretches its scale
  const Graph graph = product(weight, {64, 6});
  const Json four{{"bits", 4}, {"embedding_bits", 4}};
  Json searched = four;
  searched["scale"] = "mse";
  const double plain = squared_error(rounded(context, graph, four), weight);
  const double best = squared_error(rounded(context, graph, searched), weight);
  CHECK(best < 0.9 * plain);
  std::vector<float> grid;
  for (int i = 0; i < 64 * 6; ++i) grid.push_back(float(i < 6 ? 7 : (i * 5) % 15 - 7) * 0.25f);
  CHECK(squared_error(rounded(context, product(grid, {64, 6}), searched), grid) == 0);
}

TEST_CASE("widths by scope: the longest pattern wins, 16 leaves a weight as it is") {
  const TemporaryFolder folder;
  TestContext context(folder);
  const Graph graph = toy_language_model();
  const Graph small = rounded(
      context, graph,
      {{"bits", 4}, {"group", 8}, {"per_scope", {{"*.mlp", 8}, {"*.layers.1.mlp.down_proj", 16}, {"*.self_attn.v_proj", 8}}}});
  const auto type = [&](const std::string& name) { return small.initializer(dequantizer_of(small, name).input(0))->dtype; };
  CHECK(type("model.layers.0.self_attn.q_proj.weight") == DType::i4);
  CHECK(type("model.layers.0.self_attn.v_proj.weight") == DType::i8);
  CHECK(type("model.layers.0.mlp.down_proj.weight") == DType::i8);
  CHECK(small.initializer("model.layers.1.mlp.down_proj.weight"));
  CHECK(type("model.embed_tokens.weight") == DType::i8);
  CHECK(dequantizer_of(small, "model.embed_tokens.weight").integer("block_size", 0) == 0);
  CHECK_THROWS_WITH(rounded(context, graph, {{"per_scope", {{"*.mpl", 4}}}}),
                    ContainsSubstring("*.mpl") && ContainsSubstring("model.layers.*.mlp"));
  CHECK_THROWS_WITH(rounded(context, graph, {{"per_scope", {{"*.mlp", 5}}}}), ContainsSubstring("5 bits"));
  CHECK(rounded(context, graph, {{"embedding_bits", 16}}).initializer("model.embed_tokens.weight"));
}

TEST_CASE("a width that groups do not divide takes its largest divisor, or is refused") {
  const TemporaryFolder folder;
  TestContext context(folder);
  const auto blocks = [&](std::int64_t width, std::int64_t group) {
    Graph graph = product(wave(width * 4), {width, 4});
    graph.initializers["head.weight"] = Tensor::of(DType::f32, {4, 3}, wave(12));
    graph.outputs = {{"z", DType::f32, {2, 3}}};
    graph.nodes.push_back({"MatMul", "", "/head/MatMul", {"y", "head.weight"}, {"z"}, {}});
    return dequantizer_of(rounded(context, graph, {{"bits", 4}, {"group", group}}), "proj.weight").integer("block_size", 0);
  };
  CHECK(blocks(96, 32) == 32);
  CHECK(blocks(112, 32) == 28);
  CHECK(blocks(16, 32) == 0);  // one scale for each output
  CHECK_THROWS_WITH(blocks(61, 32), ContainsSubstring("proj.weight") && ContainsSubstring("61 inputs"));
  Graph old = product(wave(32), {8, 4});
  old.opsets[""] = 20;
  CHECK_THROWS_WITH(rounded(context, old, {{"embedding_bits", 4}}), ContainsSubstring("opset 20") && ContainsSubstring("21"));
}

TEST_CASE("dynamic activations are rounded as ONNX says, once for all readers of a value") {
  const TemporaryFolder folder;
  TestContext context(folder);
  const auto weight = wave(8 * 4);
  const Graph small = rounded(context, product(weight, {8, 4}), {{"activations", "dynamic"}});
  for (const auto code : small.initializer("proj.weight.q")->as<std::int8_t>()) CHECK(std::abs(int(code)) <= 63);
  const at::Tensor x = at::from_blob(const_cast<float*>(weight.data()), {2, 8}, at::kFloat).clone();
  const TensorMap values = Session(small).run({{"x", x}}, {"y", "x.q", "x.scale", "x.zero"});
  // The operator's definition, in numbers of this test's own.
  const double least = std::min(0.0, x.min().item<double>()), most = std::max(0.0, x.max().item<double>());
  const double scale = (most - least) / 255, zero = std::nearbyint(-least / scale);
  CHECK_THAT(values.at("x.scale").item<double>(), WithinRel(scale, 1e-6));
  CHECK(values.at("x.zero").item<double>() == zero);
  const auto back = by_definition(small, "proj.weight");
  for (int r = 0; r < 2; ++r) {
    for (int c = 0; c < 4; ++c) {
      double sum = 0;
      for (int k = 0; k < 8; ++k)
        sum += (std::nearbyint(double(x[r][k].item<float>()) / scale)) * scale * back[std::size_t(k * 4 + c)];
      CHECK_THAT(values.at("y")[r][c].item<double>(), WithinAbs(sum, 1e-5));
    }
  }
  const Graph model = rounded(context, toy_language_model(), {{"activations", "dynamic"}, {"reduce_range", false}});
  std::map<std::string, int> rounders;
  for (const auto& node : model.nodes)
    if (node.op == "DynamicQuantizeLinear") ++rounders[node.input(0)];
  CHECK(rounders.size() == 2 * 4 + 1);  // before Q, K, V; before O; before gate and up; before down; before the head
  for (const auto& [value, count] : rounders) CHECK(count == 1);
  const auto data = toy_dataset(context, 4, 24, 5);
  CHECK_THAT(loss_of(model, context, data), WithinRel(loss_of(toy_language_model(), context, data), 0.03));
}

TEST_CASE("a model with rounded activations still trains, through the rounding") {
  const TemporaryFolder folder;
  TestContext context(folder);
  Graph graph = toy_language_model();
  const Graph small = rounded(context, graph, {{"activations", "dynamic"}, {"scope", {"*.mlp"}}});
  Session session(small);
  session.train({"model.layers.0.input_layernorm.weight"});
  const at::Tensor ids = at::arange(12, at::kLong).unsqueeze(0);
  const TensorMap inputs{{"input_ids", ids}, {"attention_mask", at::ones_like(ids)}, {"position_ids", ids}};
  session.run(inputs).at("logits").pow(2).mean().backward();
  const at::Tensor gradient = session.parameter("model.layers.0.input_layernorm.weight").grad();
  REQUIRE(gradient.defined());
  CHECK(gradient.abs().max().item<double>() > 0);
}

TEST_CASE("16-bit storage halves the weights and leaves the rest alone") {
  const TemporaryFolder folder;
  TestContext context(folder);
  const Graph graph = toy_language_model();
  const auto data = toy_dataset(context, 4, 24, 5);
  const double loss = loss_of(graph, context, data);
  for (const auto& [storage, type, error] : {std::tuple("f16", DType::f16, 0x1p-11), std::tuple("bf16", DType::bf16, 0x1p-8)}) {
    const Graph small = through(context, "quantizer/cast", graph, {{"storage", storage}});
    CHECK(context.figures.at("parameters") == double(graph.parameter_count()));
    CHECK(context.figures.at("bits") == 16);
    CHECK(context.figures.at("size_bytes") < 0.6 * double(graph.weight_bytes()));
    CHECK(small.initializer("rotary.cos")->dtype == DType::f32);
    const std::string held = std::string("model.embed_tokens.weight.") + storage;
    REQUIRE(small.initializer(held));
    CHECK(small.initializer(held)->dtype == type);
    const auto before = graph.initializer("model.embed_tokens.weight")->numbers(), after = small.initializer(held)->numbers();
    for (std::size_t i = 0; i < before.size(); ++i) CHECK(std::abs(after[i] - before[i]) <= error * std::abs(before[i]) + 1e-7);
    CHECK_THAT(loss_of(small, context, data), WithinRel(loss, 0.01));
    // Constant folding would undo it.
    Graph optimized = small;
    optimize(optimized);
    CHECK(optimized.weight_bytes() <= small.weight_bytes());
  }
  const Graph part = through(context, "quantizer/cast", graph, {{"scope", {"*.mlp"}}, {"exclude", {"*.down_proj"}}});
  CHECK(part.initializer("model.layers.0.mlp.down_proj.weight"));
  CHECK_FALSE(part.initializer("model.layers.0.mlp.up_proj.weight"));
}

TEST_CASE("what float16 cannot hold is an error, or saturates by request") {
  const TemporaryFolder folder;
  TestContext context(folder);
  const Graph graph = product({1, -70000, 1e-9f, 2}, {2, 2});
  CHECK_THROWS_WITH(through(context, "quantizer/cast", graph, {{"storage", "f16"}}),
                    ContainsSubstring("proj.weight") && ContainsSubstring("-70000") && ContainsSubstring("bf16"));
  const Graph small = through(context, "quantizer/cast", graph, {{"storage", "f16"}, {"overflow", "saturate"}});
  CHECK(small.initializer("proj.weight.f16")->numbers() == std::vector<double>{1, -65504, 0, 2});
  CHECK(context.figures.at("saturated") == 1);
  CHECK(context.figures.at("flushed_to_zero") == 1);
  CHECK(context.warnings.size() == 1);
  CHECK(through(context, "quantizer/cast", graph).initializer("proj.weight.bf16"));
  CHECK_THROWS_WITH(through(context, "quantizer/cast", graph, {{"scope", {"nowhere"}}}), ContainsSubstring("nowhere"));
  CHECK_THROWS_WITH(through(context, "quantizer/cast", small), ContainsSubstring("fewer bits already"));
}

TEST_CASE("our runner decodes quantized models to the plain graph's logits") {
  const TemporaryFolder folder;
  TestContext context(folder);
  const Graph graph = toy_language_model();
  const std::vector<std::int64_t> tokens{3, 18, 2, 9, 31, 7, 11, 5, 26, 1, 14, 30};
  const at::Tensor ids = at::tensor(tokens, at::kLong).unsqueeze(0);
  const TensorMap inputs{
      {"input_ids", ids}, {"attention_mask", at::ones_like(ids)}, {"position_ids", at::arange(12, at::kLong).unsqueeze(0)}};
  const auto check = [&](const Graph& small) {
    const at::Tensor want = Session(small).run(inputs, {"logits"}).at("logits").squeeze(0);
    const auto model = language_model(small, {.threads = 1});
    const std::span<const std::int64_t> all(tokens);
    const at::Tensor prompt = model->feed(all.first(10), true);
    const double largest = want.abs().max().item<double>();
    CHECK((prompt - want.narrow(0, 0, 10)).abs().max().item<double>() < 1e-5 * largest);
    for (std::int64_t i = 10; i < 12; ++i) {
      const at::Tensor one = model->feed(all.subspan(std::size_t(i), 1), false).select(0, 0);
      CHECK((one - want[i]).abs().max().item<double>() < 1e-5 * largest);
    }
  };
  check(graph);
  check(rounded(context, graph));
  check(rounded(context, graph, {{"bits", 4}, {"group", 16}, {"embedding_bits", 4}}));
  check(rounded(context, graph, {{"bits", 4}, {"group", 16}, {"symmetric", false}}));
  check(through(context, "quantizer/cast", graph, {{"storage", "f16"}}));
  check(through(context, "quantizer/cast", graph));
}

TEST_CASE("quantized models give the same numbers in ONNX Runtime and OpenVINO") {
  const char *python = std::getenv("ESPALIER_TEST_PYTHON"), *source = std::getenv("ESPALIER_SOURCE");
  REQUIRE(python);
  REQUIRE(source);
  const TemporaryFolder folder;
  TestContext context(folder);
  const at::Tensor ids = at::arange(20, at::kLong).mul(7).remainder(ToySize{}.vocabulary).unsqueeze(0);
  const at::Tensor places = at::arange(20, at::kLong).unsqueeze(0);
  TensorMap language{{"input_ids", ids}, {"attention_mask", at::ones_like(ids)}, {"position_ids", places}};
  // With a cache, as packages have it: ONNX Runtime refuses a causal mask of one row.
  const Graph cached = with_kv_cache(toy_language_model());
  for (const auto& input : cached.inputs) {
    if (input.name.starts_with("past_key_values."))
      language[input.name] = at::zeros({1, input.shape[1].value(), 0, input.shape[3].value()}, at::kFloat);
  }
  const TensorMap vision{{"image", at::linspace(-2, 2, 2 * 3 * 8 * 8, at::kFloat).sin().reshape({2, 3, 8, 8})}};
  const auto write = [&](const std::string& name, const Graph& graph, const TensorMap& inputs, double tolerance) {
    write_onnx(graph, folder.path() / name / "model.onnx");
    Json described = Json::object();
    for (const auto& [input, value] : inputs) {
      const at::Tensor flat = value.to(at::kDouble).contiguous();
      described[input] = {
          {"type", value.is_floating_point() ? "float32" : "int64"},
          {"shape", value.sizes().vec()},
          {"values", std::vector<double>(flat.const_data_ptr<double>(), flat.const_data_ptr<double>() + flat.numel())}};
    }
    std::ofstream(folder.path() / name / "inputs.json") << described.dump();
    std::ofstream(folder.path() / name / "tolerance.txt") << tolerance;
    const at::Tensor expected = Session(graph).run(inputs).begin()->second.to(at::kFloat).contiguous();
    std::ofstream(folder.path() / name / "expected.bin", std::ios::binary)
        .write(static_cast<const char*>(expected.const_data_ptr()), std::streamsize(expected.nbytes()));
  };
  int cases = 0;
  for (const auto& [kind, graph, inputs] :
       {std::tuple("language", cached, language), std::tuple("vision", toy_residual_network(), vision)}) {
    const auto each = [&](const std::string& name, const Json& parameters, double tolerance) {
      std::filesystem::create_directories(folder.path() / (kind + name));
      write(kind + name, rounded(context, graph, parameters), inputs, tolerance);
      ++cases;
    };
    each("int8", Json::object(), 1e-3);
    each("int8-zero-points", {{"symmetric", false}}, 1e-3);
    each("int4-channel", {{"bits", 4}}, 1e-3);
    each("int4-group", {{"bits", 4}, {"group", 16}, {"embedding_bits", 4}}, 1e-3);
    each("int4-group-zero-points", {{"bits", 4}, {"group", 16}, {"symmetric", false}, {"scale", "mse"}}, 1e-3);
    each("trainable-int8", {{"trainable", true}}, 1e-3);
    each("trainable-int4-group", {{"trainable", true}, {"bits", 4}, {"group", 16}, {"symmetric", false}}, 1e-3);
    // A code of an activation may fall to either side of a tie: one step of 255 somewhere.
    each("dynamic", {{"activations", "dynamic"}}, 0.03);
    for (const char* storage : {"f16", "bf16"}) {
      std::filesystem::create_directories(folder.path() / (kind + std::string(storage)));
      write(kind + std::string(storage), through(context, "quantizer/cast", graph, {{"storage", storage}}), inputs, 1e-3);
      ++cases;
    }
  }
  CHECK(cases == 20);
  const std::string call =
      std::string("'") + python + "' '" + source + "/tests/plugins/quantized_oracle.py' '" + folder.path().string() + "'";
  CHECK(std::system(call.c_str()) == 0);
}
