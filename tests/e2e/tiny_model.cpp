#include "e2e/tiny_model.h"

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>
#include <random>

#include "formats/onnx.h"
#include "graph/graph.h"

namespace espalier::test {
namespace {

constexpr std::int64_t hidden = 32, heads = 4, kv_heads = 2, head_size = 8, ffn = 64, vocabulary = 257, layers = 2, positions = 64;

class Builder {
 public:
  Graph graph;

  std::string weight(const std::string& name, std::vector<std::int64_t> shape, double scale) {
    std::int64_t count = 1;
    for (std::int64_t d : shape) count *= d;
    std::vector<float> values(static_cast<std::size_t>(count));
    for (float& v : values) v = static_cast<float>(scale * normal_(random_));
    graph.initializers[name] = Tensor::of(DType::f32, std::move(shape), values);
    return name;
  }
  std::string ones(const std::string& name) {
    graph.initializers[name] = Tensor::of(DType::f32, {hidden}, std::vector<float>(hidden, 1.0f));
    return name;
  }
  std::string node(const std::string& op, const std::string& name, std::vector<std::string> inputs,
                   std::map<std::string, Attribute> attributes = {}) {
    Node n;
    n.op = op;
    n.name = name;
    n.inputs = std::move(inputs);
    n.outputs = {name + "_out"};
    n.attributes = std::move(attributes);
    graph.nodes.push_back(n);
    return graph.nodes.back().outputs[0];
  }
  std::string linear(const std::string& scope, const std::string& tensor, const std::string& x, std::int64_t in, std::int64_t out) {
    return node("MatMul", scope + "/MatMul", {x, weight(tensor, {in, out}, 1.0 / std::sqrt(static_cast<double>(in)))});
  }

 private:
  std::mt19937_64 random_{20240601};
  std::normal_distribution<double> normal_;
};

std::string norm(Builder& b, const std::string& scope, const std::string& tensor, const std::string& x) {
  return b.node("RMSNormalization", scope, {x, b.ones(tensor)}, {{"axis", std::int64_t{-1}}, {"epsilon", 1e-5}});
}

std::string layer(Builder& b, int index, std::string x, const std::string& mask) {
  const std::string dot = "model.layers." + std::to_string(index) + ".", scope = "/model/layers." + std::to_string(index) + "/";
  const std::string y = norm(b, scope + "input_layernorm", dot + "input_layernorm.weight", x);
  std::string q = b.linear(scope + "self_attn/q_proj", dot + "self_attn.q_proj.weight", y, hidden, heads * head_size);
  std::string k = b.linear(scope + "self_attn/k_proj", dot + "self_attn.k_proj.weight", y, hidden, kv_heads * head_size);
  const std::string v = b.linear(scope + "self_attn/v_proj", dot + "self_attn.v_proj.weight", y, hidden, kv_heads * head_size);
  q = b.node("RotaryEmbedding", scope + "self_attn/q_rotary", {q, "rotary.cos", "rotary.sin", "position_ids"},
             {{"num_heads", heads}});
  k = b.node("RotaryEmbedding", scope + "self_attn/k_rotary", {k, "rotary.cos", "rotary.sin", "position_ids"},
             {{"num_heads", kv_heads}});
  const std::string a = b.node("Attention", scope + "self_attn/Attention", {q, k, v, mask},
                               {{"q_num_heads", heads}, {"kv_num_heads", kv_heads}, {"is_causal", std::int64_t{1}}});
  x = b.node("Add", scope + "Add",
             {x, b.linear(scope + "self_attn/o_proj", dot + "self_attn.o_proj.weight", a, heads * head_size, hidden)});
  const std::string z = norm(b, scope + "post_attention_layernorm", dot + "post_attention_layernorm.weight", x);
  const std::string gate = b.linear(scope + "mlp/gate_proj", dot + "mlp.gate_proj.weight", z, hidden, ffn);
  const std::string up = b.linear(scope + "mlp/up_proj", dot + "mlp.up_proj.weight", z, hidden, ffn);
  const std::string silu = b.node("Mul", scope + "mlp/act_fn/Mul", {gate, b.node("Sigmoid", scope + "mlp/act_fn/Sigmoid", {gate})});
  const std::string product = b.node("Mul", scope + "mlp/Mul", {silu, up});
  return b.node("Add", scope + "Add_1", {x, b.linear(scope + "mlp/down_proj", dot + "mlp.down_proj.weight", product, ffn, hidden)});
}

Graph language_model() {
  Builder b;
  b.graph.inputs = {{"input_ids", DType::i64, {Dim::symbol("batch"), Dim::symbol("sequence")}},
                    {"attention_mask", DType::i64, {Dim::symbol("batch"), Dim::symbol("sequence")}},
                    {"position_ids", DType::i64, {Dim::symbol("batch"), Dim::symbol("sequence")}}};
  b.graph.outputs = {{"logits", DType::f32, {Dim::symbol("batch"), Dim::symbol("sequence"), vocabulary}}};
  b.graph.metadata["espalier.task"] = "causal-lm";
  std::vector<float> cosines, sines;
  for (std::int64_t p = 0; p < positions; ++p)
    for (std::int64_t i = 0; i < head_size / 2; ++i) {
      const double angle = static_cast<double>(p) * std::pow(10000.0, -2.0 * static_cast<double>(i) / head_size);
      cosines.push_back(static_cast<float>(std::cos(angle)));
      sines.push_back(static_cast<float>(std::sin(angle)));
    }
  b.graph.initializers["rotary.cos"] = Tensor::of(DType::f32, {positions, head_size / 2}, cosines);
  b.graph.initializers["rotary.sin"] = Tensor::of(DType::f32, {positions, head_size / 2}, sines);
  b.graph.initializers["mask.axes"] = Tensor::of(DType::i64, {2}, std::vector<std::int64_t>{1, 2});
  const std::string seen =
      b.node("Cast", "/model/mask/Cast", {"attention_mask"}, {{"to", static_cast<std::int64_t>(DType::boolean)}});
  const std::string mask = b.node("Unsqueeze", "/model/mask/Unsqueeze", {seen, "mask.axes"});
  std::string x = b.node("Gather", "/model/embed_tokens/Gather",
                         {b.weight("model.embed_tokens.weight", {vocabulary, hidden}, 0.5), "input_ids"});
  for (int i = 0; i < layers; ++i) x = layer(b, i, x, mask);
  x = norm(b, "/model/norm", "model.norm.weight", x);
  const std::string table =
      b.node("Transpose", "/lm_head/Transpose", {"model.embed_tokens.weight"}, {{"perm", std::vector<std::int64_t>{1, 0}}});
  b.node("MatMul", "/lm_head/MatMul", {x, table});
  b.graph.nodes.back().outputs[0] = "logits";
  b.graph.validate();
  return b.graph;
}

/// The byte → character table of byte-level BPE (GPT-2): printable bytes stand for themselves, the others for U+0100 and up.
nlohmann::json byte_vocabulary() {
  nlohmann::json vocab;
  int next = 0;
  for (int byte = 0; byte < 256; ++byte) {
    const bool printable = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
    const int point = printable ? byte : 256 + next++;
    std::string text;
    if (point < 0x80) {
      text += static_cast<char>(point);
    } else {
      text += static_cast<char>(0xc0 | point >> 6);
      text += static_cast<char>(0x80 | (point & 0x3f));
    }
    vocab[text] = byte;
  }
  return vocab;
}

void write_tokenizer(const std::filesystem::path& file) {
  nlohmann::json json;
  json["version"] = "1.0";
  json["added_tokens"] = nlohmann::json::array({{{"id", 256},
                                                 {"content", "<|end|>"},
                                                 {"single_word", false},
                                                 {"lstrip", false},
                                                 {"rstrip", false},
                                                 {"normalized", false},
                                                 {"special", true}}});
  json["normalizer"] = nullptr;
  json["pre_tokenizer"] = {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", true}};
  json["post_processor"] = nullptr;
  json["decoder"] = {{"type", "ByteLevel"}, {"add_prefix_space", true}, {"trim_offsets", true}, {"use_regex", true}};
  nlohmann::json vocab = byte_vocabulary();
  vocab["<|end|>"] = 256;
  json["model"] = {{"type", "BPE"},
                   {"dropout", nullptr},
                   {"unk_token", nullptr},
                   {"continuing_subword_prefix", nullptr},
                   {"end_of_word_suffix", nullptr},
                   {"fuse_unk", false},
                   {"byte_fallback", false},
                   {"vocab", vocab},
                   {"merges", nlohmann::json::array()}};
  std::ofstream(file) << json.dump();
}

void write_text(const std::filesystem::path& file, unsigned seed, int sentences) {
  const char* who[] = {"the gardener", "a fox", "the old tree", "rain"};
  const char* does[] = {"cuts", "sees", "shades", "wets"};
  const char* what[] = {"the hedge", "a pear", "the path", "some moss"};
  std::mt19937 random(seed);
  std::ofstream out(file);
  for (int i = 0; i < sentences; ++i) {
    const unsigned a = random() % 4;  // subject and verb go together: something to learn
    out << who[a] << ' ' << does[a] << ' ' << what[random() % 4] << ".\n";
  }
}

}  // namespace

void write_tiny_model(const std::filesystem::path& folder) {
  write_onnx(language_model(), folder / "model.onnx", {.inline_below = 1u << 30, .data_name = "model.data"});
  write_tokenizer(folder / "tokenizer.json");
  write_text(folder / "train.txt", 1, 400);
  write_text(folder / "test.txt", 2, 60);
}

}  // namespace espalier::test
