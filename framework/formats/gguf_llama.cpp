#include <fmt/format.h>

#include <cmath>
#include <map>
#include <set>

#include "formats/decoder.h"
#include "formats/gguf.h"
#include "formats/gguf_tokenizer.h"
#include "formats/gguf_types.h"
#include "graph/op.h"
#include "sdk/error.h"

namespace espalier {
namespace {

const GgufFile::Entry& need(const GgufFile& file, const std::string& name, const std::vector<std::int64_t>& shape) {
  const auto* entry = file.tensor(name);
  if (!entry)
    throw_invalid("tensor '" + name + "' is missing", file.where(), "the file is incomplete, or its block_count is wrong");
  if (entry->shape != shape) {
    throw_invalid(fmt::format("tensor '{}' has the shape [{}], the metadata asks for [{}]", name, fmt::join(entry->shape, ", "),
                              fmt::join(shape, ", ")),
                  file.where(), "the file is damaged");
  }
  return *entry;
}

std::int64_t positive(const GgufFile& file, const std::string& key, std::int64_t fallback = -1) {
  const std::int64_t value = metadata_integer(file, key, fallback);
  if (value <= 0 || value > INT32_MAX)
    throw_invalid("metadata '" + key + "' is missing or no positive number", file.where(), "the file is damaged");
  return value;
}

DecoderShape read_shape(const GgufFile& file) {
  DecoderShape m;
  m.layers = positive(file, "llama.block_count");
  m.hidden = positive(file, "llama.embedding_length");
  m.feed_forward = positive(file, "llama.feed_forward_length");
  m.heads = positive(file, "llama.attention.head_count");
  m.kv_heads = positive(file, "llama.attention.head_count_kv", m.heads);
  m.head_size = positive(file, "llama.attention.key_length", m.hidden / m.heads);
  m.positions = positive(file, "llama.context_length");
  m.norm.epsilon = metadata_number(file, "llama.attention.layer_norm_rms_epsilon", -1);
  m.rotary.base = metadata_number(file, "llama.rope.freq_base", 10000.0);
  m.rotary_size = m.head_size;
  m.rotary_pairs = true;
  const std::string& where = file.where();
  if (!(m.norm.epsilon > 0 && m.norm.epsilon < 1))
    throw_invalid("llama.attention.layer_norm_rms_epsilon is missing or not in (0, 1)", where);
  if (!(m.rotary.base > 1 && std::isfinite(m.rotary.base))) throw_invalid("llama.rope.freq_base is no number above 1", where);
  if (m.heads % m.kv_heads != 0) throw_invalid(fmt::format("{} heads cannot share {} key/value heads", m.heads, m.kv_heads), where);
  if (m.head_size % 2 != 0) throw_invalid(fmt::format("a head of {} elements has no rotary pairs", m.head_size), where);
  if (metadata_integer(file, "llama.attention.value_length", m.head_size) != m.head_size)
    throw_unsupported("value heads of another size than key heads", where);
  if (metadata_integer(file, "llama.rope.dimension_count", m.head_size) != m.head_size)
    throw_unsupported("rotary embedding of a part of each head", where);
  if (const auto scaling = metadata_text(file, "llama.rope.scaling.type", "none");
      scaling != "none" || has_metadata(file, "llama.rope.scale_linear")) {
    throw_unsupported("rope scaling '" + scaling + "'", where);
  }
  if (metadata_integer(file, "llama.expert_count", 0) != 0) throw_unsupported("a mixture of experts", where);
  const auto* embedding = file.tensor("token_embd.weight");
  if (!embedding || embedding->shape.size() != 2)
    throw_invalid("tensor 'token_embd.weight' is missing or no matrix", where, "the file is incomplete");
  m.vocabulary = embedding->shape[0];
  m.tied = file.tensor("output.weight") == nullptr;
  return m;
}

/// "model.layers.3.self_attn.q_proj.weight" → "blk.3.attn_q.weight".
std::string source_name(const std::string& name) {
  static const std::map<std::string, std::string, std::less<>> whole = {{"model.embed_tokens.weight", "token_embd.weight"},
                                                                        {"model.norm.weight", "output_norm.weight"},
                                                                        {"lm_head.weight", "output.weight"}};
  static const std::map<std::string, std::string, std::less<>> parts = {
      {"input_layernorm", "attn_norm"}, {"self_attn.q_proj", "attn_q"},      {"self_attn.k_proj", "attn_k"},
      {"self_attn.v_proj", "attn_v"},   {"self_attn.o_proj", "attn_output"}, {"post_attention_layernorm", "ffn_norm"},
      {"mlp.gate_proj", "ffn_gate"},    {"mlp.up_proj", "ffn_up"},           {"mlp.down_proj", "ffn_down"}};
  if (const auto found = whole.find(name); found != whole.end()) return found->second;
  constexpr std::string_view prefix = "model.layers.", suffix = ".weight";
  const auto dot = name.find('.', prefix.size());
  const std::string part = name.substr(dot + 1, name.size() - dot - 1 - suffix.size());
  return fmt::format("blk.{}.{}.weight", name.substr(prefix.size(), dot - prefix.size()), parts.at(part));
}

class GgufWeights final : public WeightSource {
 public:
  explicit GgufWeights(const GgufFile& file) : file_(file) {}

  bool has(const std::string& name) const override { return file_.tensor(source_name(name)) != nullptr; }

  void plain(const std::string& name, const std::vector<std::int64_t>& shape, double) override {
    const auto [entry, type] = tensor(source_name(name), shape);
    jobs_.add(name, shape, [entry = entry, type = type](float* to) {
      type->dequantize(entry->bytes.data(), entry->bytes.size() / type->bytes * type->block, to);
    });
  }

  /// The LLaMA family has no biases, and nothing inside another tensor.
  void vector(const std::string& name, std::int64_t out, const Origin&) override { plain(name, {out}, 0); }

  void linear(const std::string& name, std::int64_t in, std::int64_t out, const Origin& origin) override {
    const auto [entry, type] = tensor(source_name(name), {out, in});
    jobs_.add(name, {in, out}, [entry = entry, type = type, in, out, rows = origin.rows](float* to) {
      const std::size_t row_bytes = static_cast<std::size_t>(in) / type->block * type->bytes;
      const auto row = [&](std::int64_t number, float* values) {
        const auto from = static_cast<std::size_t>(rows.at(number)) * row_bytes;
        type->dequantize(entry->bytes.data() + from, static_cast<std::size_t>(in), values);
      };
      transpose_rows(in, out, row, to);
    });
  }

  bool used(const std::string& source) const { return used_.contains(source); }
  void convert(Graph& graph, const TensorStore& store) { jobs_.run(graph, store); }

 private:
  std::pair<const GgufFile::Entry*, const GgmlType*> tensor(const std::string& source, const std::vector<std::int64_t>& shape) {
    const GgufFile::Entry& entry = need(file_, source, shape);
    const GgmlType* type = ggml_type(entry.type);
    if (!type->dequantize)
      throw_unsupported(fmt::format("tensor '{}' has the type {}", source, type->name), file_.where(),
                        "read are " + readable_ggml_types());
    used_.insert(source);
    return {&entry, type};
  }

  const GgufFile& file_;
  WeightJobs jobs_;
  std::set<std::string> used_;
};

Graph build(const GgufFile& file, const DecoderShape& shape, const TensorStore& store) {
  GgufWeights weights(file);
  Graph graph = build_decoder(shape, weights, file.where());
  for (const auto& entry : file.tensors())
    if (!weights.used(entry.name))
      throw_unsupported("tensor '" + entry.name + "' has no place in the LLaMA graph", file.where(),
                        "biases, rope factors and experts are not read");
  weights.convert(graph, store);
  return graph;
}

}  // namespace

ImportedModel import_gguf(const std::filesystem::path& path, const TensorStore& store) {
  const GgufFile file = GgufFile::open(path);
  const std::string architecture = metadata_text(file, "general.architecture", "");
  if (architecture != "llama")
    throw_unsupported("architecture '" + architecture + "'", file.where(), "the LLaMA family (\"llama\") is read");
  ImportedModel model;
  model.tokenizer = gguf_tokenizer(file);
  const DecoderShape shape = read_shape(file);
  if (static_cast<std::int64_t>(model.tokenizer->vocabulary()) > shape.vocabulary) {
    throw_invalid(fmt::format("the tokenizer has {} tokens, the embedding {}", model.tokenizer->vocabulary(), shape.vocabulary),
                  file.where(), "the file is damaged");
  }
  Graph& graph = model.graph;
  graph = build(file, shape, store);
  graph.metadata["espalier.task"] = "causal-lm";
  graph.metadata["source.format"] = "gguf";
  if (const auto licence = metadata_text(file, "general.license", ""); !licence.empty()) graph.metadata["licence"] = licence;
  if (const auto name = metadata_text(file, "general.name", ""); !name.empty()) graph.metadata["source.name"] = name;
  graph.sort();
  graph.validate();
  infer(graph);
  return model;
}

}  // namespace espalier
