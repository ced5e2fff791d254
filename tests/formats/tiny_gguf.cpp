#include "tiny_gguf.h"

#include <cmath>

#include "formats/byte_level.h"

namespace tests {
namespace {

constexpr std::uint64_t kHidden = 8, kHeads = 4, kKvHeads = 2, kHead = 4, kFeedForward = 12, kVocabulary = 300;

std::string string_of(const std::string& text) { return packed<std::uint64_t>(text.size()) + text; }

}  // namespace

std::string floats(const std::vector<float>& values) {
  return std::string(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float));
}

void GgufWriter::key(const std::string& name, std::uint32_t type) {
  metadata_ += string_of(name) + packed(type);
  ++keys_;
}
void GgufWriter::raw(const std::string& name, std::uint32_t type, const std::string& bytes) {
  key(name, type);
  metadata_ += bytes;
}
void GgufWriter::text(const std::string& name, const std::string& value) { raw(name, 8, string_of(value)); }
void GgufWriter::u32(const std::string& name, std::uint32_t value) { raw(name, 4, packed(value)); }
void GgufWriter::f32(const std::string& name, float value) { raw(name, 6, packed(value)); }
void GgufWriter::flag(const std::string& name, bool value) { raw(name, 7, packed<std::uint8_t>(value)); }
void GgufWriter::texts(const std::string& name, const std::vector<std::string>& values) {
  std::string bytes = packed<std::uint32_t>(8) + packed<std::uint64_t>(values.size());
  for (const auto& value : values) bytes += string_of(value);
  raw(name, 9, bytes);
}
void GgufWriter::integers(const std::string& name, const std::vector<std::int32_t>& values) {
  std::string bytes = packed<std::uint32_t>(5) + packed<std::uint64_t>(values.size());
  for (const auto value : values) bytes += packed(value);
  raw(name, 9, bytes);
}

void GgufWriter::tensor_at(const std::string& name, const std::vector<std::uint64_t>& shape, std::uint32_t type,
                           std::uint64_t offset) {
  headers_ += string_of(name) + packed<std::uint32_t>(static_cast<std::uint32_t>(shape.size()));
  for (const auto length : shape) headers_ += packed(length);
  headers_ += packed(type) + packed(offset);
  ++tensors_;
}
void GgufWriter::tensor(const std::string& name, const std::vector<std::uint64_t>& shape, std::uint32_t type,
                        const std::string& bytes) {
  data_.resize((data_.size() + alignment - 1) / alignment * alignment);
  tensor_at(name, shape, type, data_.size());
  data_ += bytes;
}

abuse::Bytes GgufWriter::bytes() const {
  std::string out = "GGUF" + packed(version) + packed(tensors_) + packed(keys_) + metadata_ + headers_;
  out.resize((out.size() + alignment - 1) / alignment * alignment);
  return abuse::bytes_of(out + data_);
}

float TinyLlama::weight(const std::string& name, std::uint64_t row, std::uint64_t column) {
  const auto seed = static_cast<double>(name.size() * 7 + static_cast<unsigned char>(name[name.size() / 2]));
  return static_cast<float>(0.3 * std::sin(seed + 1.7 * static_cast<double>(row) + 0.31 * static_cast<double>(column * column)));
}

abuse::Bytes TinyLlama::bytes() const {
  GgufWriter w;
  w.text("general.architecture", architecture);
  w.text("general.license", "cc0-1.0");
  w.u32("llama.block_count", layers);
  w.u32("llama.context_length", context);
  w.u32("llama.embedding_length", kHidden);
  w.u32("llama.feed_forward_length", kFeedForward);
  w.u32("llama.attention.head_count", kHeads);
  w.u32("llama.attention.head_count_kv", kKvHeads);
  w.u32("llama.attention.key_length", kHead);
  w.u32("llama.attention.value_length", kHead);
  w.f32("llama.rope.freq_base", 10000.0F);
  w.f32("llama.attention.layer_norm_rms_epsilon", 1e-5F);
  if (rope_scaling) w.text("llama.rope.scaling.type", "yarn");
  w.text("tokenizer.ggml.model", tokenizer);
  w.text("tokenizer.ggml.pre", pre);
  std::vector<std::string> tokens{"<s>", "</s>"}, merges{"t h", "th e", "\u0120 the"};
  for (int b = 0; b < 256; ++b) tokens.push_back(espalier::to_byte_characters(std::string(1, static_cast<char>(b))));
  for (const char* token : {"th", "the", "\u0120the"}) tokens.emplace_back(token);
  while (tokens.size() < kVocabulary) tokens.push_back("<unused" + std::to_string(tokens.size()) + ">");
  std::vector<std::int32_t> types(tokens.size(), 1);
  types[0] = types[1] = 3;
  w.texts("tokenizer.ggml.tokens", tokens);
  w.texts("tokenizer.ggml.merges", merges);
  w.integers("tokenizer.ggml.token_type", types);
  w.u32("tokenizer.ggml.bos_token_id", 0);
  w.u32("tokenizer.ggml.eos_token_id", 1);

  const auto matrix = [&](const std::string& name, std::uint64_t columns, std::uint64_t rows) {
    std::vector<float> values;
    for (std::uint64_t r = 0; r < rows; ++r)
      for (std::uint64_t c = 0; c < columns; ++c) values.push_back(weight(name, r, c));
    w.tensor(name, {columns, rows}, 0, floats(values));
  };
  const auto norm = [&](const std::string& name) { w.tensor(name, {kHidden}, 0, floats(std::vector<float>(kHidden, 1.25F))); };
  matrix("token_embd.weight", kHidden, kVocabulary);
  for (std::uint32_t n = 0; n < 2; ++n) {
    const std::string scope = "blk." + std::to_string(n) + ".";
    norm(scope + "attn_norm.weight");
    matrix(scope + "attn_q.weight", kHidden, kHeads * kHead);
    matrix(scope + "attn_k.weight", kHidden, kKvHeads * kHead);
    matrix(scope + "attn_v.weight", kHidden, kKvHeads * kHead);
    matrix(scope + "attn_output.weight", kHeads * kHead, kHidden);
    norm(scope + "ffn_norm.weight");
    matrix(scope + "ffn_gate.weight", kHidden, kFeedForward);
    matrix(scope + "ffn_up.weight", kHidden, kFeedForward);
    matrix(scope + "ffn_down.weight", kFeedForward, kHidden);
  }
  norm("output_norm.weight");
  if (!tied) matrix("output.weight", kHidden, kVocabulary);
  if (extra_tensor) norm("blk.0.attn_q.bias");
  return w.bytes();
}

}  // namespace tests
