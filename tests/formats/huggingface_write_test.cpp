#include "formats/huggingface_write.h"

#include <fmt/format.h>

#include <bit>
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <cmath>
#include <cstring>
#include <limits>

#include "abuse.h"
#include "formats/decoder_facts.h"
#include "formats/float_values.h"
#include "formats/gguf.h"
#include "formats/gguf_blocks.h"
#include "formats/huggingface.h"
#include "formats/safetensors.h"
#include "graph/causal.h"
#include "graph/op.h"
#include "tiny_decoder.h"
#include "tiny_gguf.h"

using namespace espalier;
using Catch::Matchers::ContainsSubstring;
using tests::tiny_decoder;
using tests::tiny_shape;
namespace fs = std::filesystem;
using Shape_ = DecoderShape;

namespace {

Json config_of(const fs::path& folder) {
  const auto bytes = abuse::read_file(folder / "config.json");
  return Json::parse(std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size()));
}

std::string refusal(const Graph& graph) {
  const abuse::Folder folder;
  const Error error = abuse::error_of([&] { write_huggingface(graph, nullptr, folder.path()); });
  CHECK(error.code() == ErrorCode::unsupported);
  CHECK(fs::is_empty(folder.path()));
  return error.what();
}

/// Every initializer of one graph stands in the other under its name, bit by bit.
void same_weights(const Graph& given, const Graph& expected) {
  CHECK(given.initializers.size() == expected.initializers.size());
  for (const auto& [name, tensor] : expected.initializers) {
    INFO(name);
    const Tensor* found = given.initializer(name);
    REQUIRE(found);
    CHECK(found->shape == tensor.shape);
    CHECK(std::ranges::equal(found->bytes, tensor.bytes));
  }
}

Shape_ with(const std::function<void(Shape_&)>& change) {
  Shape_ shape = tiny_shape();
  change(shape);
  return shape;
}

void like_gemma2(Shape_& s) {
  s.norm.kind = Norm::rms_one;
  s.activation = Activation::gelu_tanh;
  s.embedding_scale = std::sqrt(static_cast<double>(s.hidden));
  s.tied = true;
  s.placement = Shape_::Placement::around;
  s.attention_scale = 1 / std::sqrt(24.0);
  s.attention_softcap = 50;
  s.final_softcap = 30;
  s.windows = {5, 0};
}

struct Case {
  const char* family;
  Shape_ shape;
};

std::vector<Case> cases() {
  using S = Shape_;
  return {
      {"llama", tiny_shape()},
      {"llama", with([](S& s) { s.tied = s.qkv_bias = s.out_bias = s.mlp_bias = true, s.rotary.base = 500000; })},
      {"llama", with([](S& s) { s.rotary.scaling.kind = RotaryScaling::Kind::linear, s.rotary.scaling.factor = 4; })},
      {"mistral", with([](S& s) { s.heads = 3, s.kv_heads = 1, s.rotary.base = 12345, s.activation = Activation::gelu; })},
      {"mistral", with([](S& s) {
         s.windows = {7, 7};
       })},
      {"qwen2", with([](S& s) {
         s.qkv_bias = true, s.windows = {0, 9};
       })},
      {"qwen3", with([](S& s) { s.query_norm = S::QueryNorm::head; })},
      {"olmo2", with([](S& s) { s.query_norm = S::QueryNorm::width, s.placement = S::Placement::after; })},
      {"gemma", with([](S& s) {
         like_gemma2(s);
         s.placement = S::Placement::before, s.windows = {};
         s.attention_scale = s.attention_softcap = s.final_softcap = 0;
       })},
      {"gemma2", with(like_gemma2)},
      {"gemma3_text", with([](S& s) {
         like_gemma2(s);
         s.query_norm = S::QueryNorm::head, s.attention_softcap = s.final_softcap = 0;
         s.has_local = true, s.rotary.base = 1e6, s.local.base = 1e4;
       })},
      {"starcoder2", with([](S& s) {
         s.norm.kind = Norm::layer, s.gated = false;
         s.qkv_bias = s.out_bias = s.mlp_bias = s.tied = true, s.activation = Activation::gelu_tanh;
       })},
      {"mixtral", with([](S& s) {
         s.experts = 3, s.experts_used = 2, s.windows = {6, 6};
       })},
  };
}

/// Rows of a matrix [in, out] of the last axis' first `width` columns, or of its first `width` rows.
Tensor narrowed(const Tensor& tensor, std::size_t axis, std::int64_t width) {
  std::vector<float> kept;
  const auto all = tensor.as<float>();
  for (std::int64_t r = 0; r < tensor.shape[0]; ++r)
    for (std::int64_t c = 0; c < tensor.shape[1]; ++c)
      if ((axis == 0 ? r : c) < width) kept.push_back(all[static_cast<std::size_t>(r * tensor.shape[1] + c)]);
  std::vector<std::int64_t> shape = tensor.shape;
  shape[axis] = width;
  return Tensor::of<float>(DType::f32, shape, kept);
}

void narrow_feed_forward(Graph& graph, int layer, std::int64_t width) {
  for (const char* part : {"gate_proj", "up_proj"}) {
    Tensor& tensor = graph.initializers.at(fmt::format("model.layers.{}.mlp.{}.weight", layer, part));
    tensor = narrowed(tensor, 1, width);
  }
  Tensor& down = graph.initializers.at(fmt::format("model.layers.{}.mlp.down_proj.weight", layer));
  down = narrowed(down, 0, width);
}

Node& reader_of(Graph& graph, const std::string& value) {
  for (Node& node : graph.nodes)
    for (const auto& input : node.inputs)
      if (input == value) return node;
  throw std::runtime_error("nothing reads " + value);
}

}  // namespace

TEST_CASE("a decoder of every family is written from the graph alone, and comes back bit by bit") {
  for (const Case& each : cases()) {
    const Graph graph = tiny_decoder(each.shape);
    const abuse::Folder folder;
    const HuggingfaceFiles files = write_huggingface(graph, nullptr, folder.path());
    INFO(each.family << "\n" << config_of(folder.path()).dump(1));
    CHECK(files.family == each.family);
    CHECK(files.dtype == "float32");
    same_weights(import_huggingface(folder.path()).graph, graph);
  }
}

TEST_CASE("a model that was cut alike in all layers has other numbers in its config.json, the rest of which stays") {
  const abuse::Folder folder;
  write_huggingface(tiny_decoder(with([](Shape_& s) { s.rotary.base = 777; })), nullptr, folder.path());
  Json config = config_of(folder.path());
  config["eos_token_id"] = {2, 7};
  config["my_own_key"] = "stays";
  config["torch_dtype"] = "bfloat16";
  const std::string text = config.dump();
  abuse::write_file(folder / "config.json", abuse::bytes_of(text));
  Graph graph = import_huggingface(folder.path()).graph;
  for (int layer : {0, 1}) narrow_feed_forward(graph, layer, 10);
  const abuse::Folder out;
  write_huggingface(graph, nullptr, out.path(), {DType::f16});
  const Json changed = config_of(out.path());
  CHECK(changed["intermediate_size"] == 10);
  CHECK(changed["my_own_key"] == "stays");
  CHECK(changed["rope_theta"] == 777);
  CHECK(changed["torch_dtype"] == "float16");
  CHECK(changed["dtype"] == "float16");
  const auto generation = abuse::read_file(out / "generation_config.json");
  CHECK_THAT(std::string(reinterpret_cast<const char*>(generation.data()), generation.size()), ContainsSubstring("eos_token_id"));
}

TEST_CASE("layers that were cut apart are named, with the ways out") {
  Graph graph = tiny_decoder(with([](Shape_& s) { s.layers = 5; }));
  narrow_feed_forward(graph, 1, 20);
  narrow_feed_forward(graph, 4, 8);
  CHECK_THAT(refusal(graph), ContainsSubstring("8 in layer 4; 20 in layer 1; 24 in layers 0, 2 to 3") &&
                                 ContainsSubstring("intermediate_size") && ContainsSubstring("ranking") &&
                                 ContainsSubstring(".onnx"));
  Graph heads = tiny_decoder(tiny_shape());
  for (const auto& [part, axis] : {std::pair{"q_proj", 1}, {"k_proj", 1}, {"v_proj", 1}, {"o_proj", 0}}) {
    Tensor& tensor = heads.initializers.at(fmt::format("model.layers.1.self_attn.{}.weight", part));
    tensor = narrowed(tensor, static_cast<std::size_t>(axis), tensor.shape[static_cast<std::size_t>(axis)] / 2);
  }
  for (Node& node : heads.nodes) {
    if (node.name.find("layers.1/") == std::string::npos) continue;
    if (node.op == "Attention") node.attributes["q_num_heads"] = std::int64_t{2}, node.attributes["kv_num_heads"] = std::int64_t{1};
    if (node.op == "RotaryEmbedding")
      node.attributes["num_heads"] = std::int64_t{node.name.find("q_rotary") != std::string::npos ? 2 : 1};
  }
  infer(heads);
  CHECK_THAT(refusal(heads), ContainsSubstring("attention heads differ: 2 in layer 1; 4 in layer 0"));
}

TEST_CASE("what a family has no place for is named by its node") {
  const std::string weight = "model.layers.1.mlp.up_proj.weight";
  const auto behind = [&](Graph& graph, Node node) {
    reader_of(graph, weight).inputs[1] = node.outputs[0];
    graph.nodes.push_back(std::move(node));
    graph.sort();
  };
  Graph codes = tiny_decoder(tiny_shape());
  codes.initializers["scale"] = Tensor::of<float>(DType::f32, {}, {0.1F});
  codes.initializers["codes"] = Tensor::of<std::int8_t>(DType::i8, {16, 24}, std::vector<std::int8_t>(16 * 24, 3));
  behind(codes, {"DequantizeLinear", "", "/up/DequantizeLinear", {"codes", "scale"}, {"up.weight"}, {}});
  CHECK_THAT(refusal(codes), ContainsSubstring("/up/DequantizeLinear") && ContainsSubstring("quantized"));

  Graph adapted = tiny_decoder(tiny_shape());
  Node& product = reader_of(adapted, weight);
  const std::string y = product.outputs[0];
  product.outputs[0] = "before";
  adapted.initializers["delta"] = Tensor::of<float>(DType::f32, {24}, std::vector<float>(24, 0.5F));
  adapted.nodes.push_back({"Mul", "", "/adapter/Mul", {"before", "delta"}, {y}, {}});
  adapted.sort();
  CHECK_THAT(refusal(adapted), ContainsSubstring("/adapter/Mul") && ContainsSubstring("MatMul"));

  Graph epsilon = tiny_decoder(tiny_shape());
  for (Node& node : epsilon.nodes)
    if (node.name == "/model/layers.0/post_attention_layernorm/RMSNormalization") node.attributes["epsilon"] = 0.5;
  CHECK_THAT(refusal(epsilon), ContainsSubstring("is 0.5 where") && ContainsSubstring("layers.0/post_attention"));

  Graph more = tiny_decoder(tiny_shape());
  more.outputs.push_back({"/model/norm/RMSNormalization_output", DType::f32, {}});
  CHECK_THAT(refusal(more), ContainsSubstring("an output more"));
  CHECK_THAT(refusal(with_kv_cache(tiny_decoder(tiny_shape()))), ContainsSubstring("past keys and values"));
  Graph other = tiny_decoder(tiny_shape());
  other.metadata["source.family"] = "unheard_of";
  CHECK_THAT(refusal(other), ContainsSubstring("unheard_of") && ContainsSubstring("starcoder2"));
  CHECK_THAT(refusal(tiny_decoder(with([](Shape_& s) {
               s.rotary.scaling.kind = RotaryScaling::Kind::llama3;
               s.rotary.scaling.factor = 8, s.rotary.scaling.original = 16;
             }))),
             ContainsSubstring("rotary frequencies"));
  Graph nothing;
  CHECK_THAT(refusal(nothing), ContainsSubstring("no decoder-only language model"));
}

TEST_CASE("files have the family's names, whatever the graph's tensors are called") {
  const Graph graph = tiny_decoder(tiny_shape());
  Graph hostile = graph;
  std::map<std::string, std::string> names;
  for (const auto& [name, tensor] : graph.initializers) names[name] = "../../../tmp/" + std::to_string(names.size()) + "/" + name;
  hostile.initializers.clear();
  for (const auto& [name, tensor] : graph.initializers) hostile.initializers[names[name]] = tensor;
  for (Node& node : hostile.nodes)
    for (auto& input : node.inputs)
      if (const auto found = names.find(input); found != names.end()) input = found->second;
  const abuse::Folder parent;
  const fs::path a = parent / "a", b = parent / "b";
  fs::create_directories(a);
  fs::create_directories(b);
  write_huggingface(graph, nullptr, a);
  write_huggingface(hostile, nullptr, b);
  CHECK(abuse::read_file(a / "model.safetensors") == abuse::read_file(b / "model.safetensors"));
  CHECK(std::distance(fs::directory_iterator(parent.path()), {}) == 2);
  CHECK(std::distance(fs::directory_iterator(b), {}) == 3);
}

TEST_CASE("a large model is written in shards with an index, byte for byte the same each time") {
  const Graph graph = tiny_decoder(tiny_shape());
  const abuse::Folder one, two;
  std::uint64_t done = 0, all = 0;
  HuggingfaceOptions options;
  options.max_shard = 4000;
  options.progress = [&](std::uint64_t so_far, std::uint64_t total) { done = so_far, all = total; };
  const HuggingfaceFiles files = write_huggingface(graph, nullptr, one.path(), options);
  CHECK(done == all);
  CHECK(all == 4 * static_cast<std::uint64_t>(graph.parameter_count()));
  write_huggingface(graph, nullptr, two.path(), options);
  int shards = 0;
  for (const auto& [name, bytes] : files.written) {
    shards += name.starts_with("model-");
    CHECK(fs::file_size(one / name) == bytes);
    CHECK(abuse::read_file(one / name) == abuse::read_file(two / name));
  }
  CHECK(shards > 3);
  CHECK(fs::exists(one / fmt::format("model-{:05}-of-{:05}.safetensors", shards, shards)));
  CHECK(!fs::exists(one / "model.safetensors"));
  same_weights(import_huggingface(one.path()).graph, graph);
}

TEST_CASE("writing that is stopped leaves no half of a file") {
  const abuse::Folder folder;
  HuggingfaceOptions options;
  options.progress = [](std::uint64_t done, std::uint64_t) {
    if (done > 3000) throw Error(ErrorCode::cancelled, "stopped");
  };
  CHECK(abuse::error_of([&] { write_huggingface(tiny_decoder(tiny_shape()), nullptr, folder.path(), options); }).code() ==
        ErrorCode::cancelled);
  CHECK(fs::is_empty(folder.path()));
}

TEST_CASE("weights in 16 bits are the nearest, and one beyond the type is refused by its name") {
  Graph graph = tiny_decoder(tiny_shape());
  for (const DType type : {DType::f16, DType::bf16}) {
    const abuse::Folder folder;
    CHECK(write_huggingface(graph, nullptr, folder.path(), {type}).dtype == to_string(type));
    const Graph read = import_huggingface(folder.path()).graph;
    const double unit = type == DType::f16 ? std::ldexp(1, -11) : std::ldexp(1, -8);
    for (const auto& [name, tensor] : graph.initializers) {
      if (!is_floating(tensor.dtype) || name.starts_with("rotary")) continue;
      const auto before = tensor.as<float>(), after = read.initializers.at(name).as<float>();
      double off = 0;
      for (std::size_t i = 0; i < before.size(); ++i)
        off = std::max(off, std::abs(static_cast<double>(after[i]) - before[i]) / std::max(std::abs(before[i]), 1e-3F));
      CHECK(off <= unit);
    }
  }
  std::vector<float> values(16, 1);
  values[5] = 70000;
  graph.initializers.at("model.norm.weight") = Tensor::of<float>(DType::f32, {16}, values);
  const abuse::Folder folder;
  const Error error = abuse::error_of([&] { write_huggingface(graph, nullptr, folder.path(), {DType::f16}); });
  CHECK(error.where() == "model.norm.weight");
  CHECK_THAT(error.message(), ContainsSubstring("70000"));
}

TEST_CASE("a weight that lies in 16 bits behind a Cast is written in 16 bits") {
  Graph graph = tiny_decoder(tiny_shape());
  const std::string name = "model.layers.0.mlp.up_proj.weight";
  std::vector<std::uint16_t> halves;
  for (const float value : graph.initializers.at(name).as<float>()) halves.push_back(to_bf16(value));
  graph.initializers.erase(name);
  graph.initializers["held"] = Tensor::of<std::uint16_t>(DType::bf16, {16, 24}, halves);
  graph.nodes.push_back({"Cast", "", "cast", {"held"}, {name}, {{"to", std::int64_t{1}}}});
  graph.sort();
  const abuse::Folder folder;
  CHECK(write_huggingface(graph, nullptr, folder.path()).dtype == "float32");  // the others are
  const auto bytes = std::make_shared<abuse::Bytes>(abuse::read_file(folder / "model.safetensors"));
  const auto tensors = parse_safetensors(*bytes, bytes, "model.safetensors");
  CHECK(tensors.at(name).dtype == DType::bf16);
  CHECK(tensors.at("model.norm.weight").dtype == DType::f32);
  CHECK(tensors.at(name).as<std::uint16_t>()[1] == halves[24]);  // [out, in] again
}

TEST_CASE("a GGUF model's heads are turned back, and its tokenizer comes along") {
  const abuse::Folder folder;
  abuse::write_file(folder / "m.gguf", tests::TinyLlama{}.bytes());
  const ImportedModel model = import_gguf(folder / "m.gguf");
  const fs::path out = folder / "out";
  fs::create_directories(out);
  CHECK(write_huggingface(model.graph, model.tokenizer.get(), out).family == "llama");
  const Json config = config_of(out);
  CHECK(config["head_dim"] == 4);
  CHECK(config["rope_theta"] == 10000);
  CHECK(config["bos_token_id"] == 0);
  CHECK(config["rms_norm_eps"] == 1e-5);
  CHECK(config["tie_word_embeddings"] == true);
  const ImportedModel read = import_huggingface(out);
  same_weights(read.graph, model.graph);
  CHECK(read.tokenizer->json() == model.tokenizer->json());
  Graph small = model.graph;
  Tensor& table = small.initializers.at("model.embed_tokens.weight");
  table = narrowed(table, 0, 100);
  small.outputs[0].shape[2] = 100;
  CHECK_THAT(std::string(abuse::error_of([&] { write_huggingface(small, model.tokenizer.get(), out); }).what()),
             ContainsSubstring("the tokenizer has 300 tokens"));
}

TEST_CASE("half precision and bfloat16 are rounded to nearest, half to even") {
  for (std::uint32_t bits = 0; bits < 0x10000; ++bits) {
    const auto word = static_cast<std::uint16_t>(bits);
    const float half = ggml::half(reinterpret_cast<const std::byte*>(&word));
    const float brain = std::bit_cast<float>(bits << 16);
    if (!std::isnan(half)) REQUIRE(to_f16(half) == word);
    if (!std::isnan(brain)) REQUIRE(to_bf16(brain) == word);
    // Between a number and the next larger one: down below the middle, up above it, to the even one at it.
    if ((bits & 0x7fffU) >= 0x7bffU) continue;
    const auto next_word = static_cast<std::uint16_t>(bits + 1);
    const double next = ggml::half(reinterpret_cast<const std::byte*>(&next_word)), middle = (half + next) / 2;
    const auto middle_value = static_cast<float>(middle);
    const float out = half < 0 || (bits & 0x8000U) ? -INFINITY : INFINITY;
    REQUIRE(to_f16(middle_value) == (bits % 2 ? next_word : word));
    REQUIRE(to_f16(std::nextafter(middle_value, out)) == next_word);
    REQUIRE(to_f16(std::nextafter(middle_value, half)) == word);
  }
  CHECK(to_f16(65519.996F) == 0x7bff);
  CHECK(to_f16(65520.0F) == 0x7c00);
  CHECK(to_bf16(1.00390625F) == 0x3f80);  // halfway, to even
  CHECK(to_bf16(1.01171875F) == 0x3f82);
  CHECK((to_bf16(std::numeric_limits<float>::quiet_NaN()) & 0x7fU) != 0);
  CHECK((to_f16(std::bit_cast<float>(0x7f800001U)) & 0x3ffU) != 0);
}

TEST_CASE("the rule of rotary tables is found from their numbers") {
  const auto rule = [](double base, std::int64_t positions, std::int64_t half) {
    std::vector<float> cosines, sines;
    for (std::int64_t p = 0; p < positions; ++p)
      for (std::int64_t i = 0; i < half; ++i) {
        const double angle = static_cast<double>(p) * std::pow(base, -static_cast<double>(i) / static_cast<double>(half));
        cosines.push_back(static_cast<float>(std::cos(angle)));
        sines.push_back(static_cast<float>(std::sin(angle)));
      }
    return rotary_rule(Tensor::of<float>(DType::f32, {positions, half}, cosines),
                       Tensor::of<float>(DType::f32, {positions, half}, sines));
  };
  CHECK(rule(10000, 2048, 32)->base == 10000);
  CHECK(rule(1e6, 513, 64)->base == 1e6);
  CHECK(rule(5e5, 64, 4)->base == 5e5);
  CHECK(std::abs(rule(1234.5678, 4096, 32)->base / 1234.5678 - 1) < 1e-5);
  CHECK(rule(10000, 1, 4)->base == 10000);  // nothing turns at position 0
}
