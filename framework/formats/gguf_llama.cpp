#include <fmt/format.h>

#include <atomic>
#include <cmath>
#include <functional>
#include <future>
#include <set>

#include "formats/gguf.h"
#include "formats/gguf_tokenizer.h"
#include "formats/gguf_types.h"
#include "graph/op.h"
#include "sdk/error.h"

namespace espalier {
namespace {

// Longest rotary tables that are made (1 Mi positions × 64 pairs × 2 = 512 MiB); the length is only a number in the file.
constexpr std::int64_t kMaxPositions = 1 << 20;

struct Shape3 {  // of the family's models
  std::int64_t layers, hidden, feed_forward, heads, kv_heads, head_size, positions, vocabulary;
  double epsilon, rope_base;
};

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

Shape3 read_shape(const GgufFile& file) {
  Shape3 m{};
  m.layers = positive(file, "llama.block_count");
  m.hidden = positive(file, "llama.embedding_length");
  m.feed_forward = positive(file, "llama.feed_forward_length");
  m.heads = positive(file, "llama.attention.head_count");
  m.kv_heads = positive(file, "llama.attention.head_count_kv", m.heads);
  m.head_size = positive(file, "llama.attention.key_length", m.hidden / m.heads);
  m.positions = positive(file, "llama.context_length");
  m.epsilon = metadata_number(file, "llama.attention.layer_norm_rms_epsilon", -1);
  m.rope_base = metadata_number(file, "llama.rope.freq_base", 10000.0);
  const std::string& where = file.where();
  if (!(m.epsilon > 0 && m.epsilon < 1)) throw_invalid("llama.attention.layer_norm_rms_epsilon is missing or not in (0, 1)", where);
  if (!(m.rope_base > 1 && std::isfinite(m.rope_base))) throw_invalid("llama.rope.freq_base is no number above 1", where);
  if (m.heads % m.kv_heads != 0) throw_invalid(fmt::format("{} heads cannot share {} key/value heads", m.heads, m.kv_heads), where);
  if (m.head_size % 2 != 0) throw_invalid(fmt::format("a head of {} elements has no rotary pairs", m.head_size), where);
  if (m.positions > kMaxPositions)
    throw_unsupported(fmt::format("a context of {} positions", m.positions), where, "at most 1,048,576 are read");
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
  return m;
}

/// Conversions to f32, kept until all of the file is known to be right, then done on two threads.
class Weights {
 public:
  explicit Weights(const GgufFile& file, Graph& graph) : file_(file), graph_(graph) {}

  /// A tensor as it lies in the file.
  void plain(const std::string& name, const std::string& source, const std::vector<std::int64_t>& shape) {
    add(name, source, shape, shape, [](const GgmlType& type, const GgufFile::Entry& entry, float* to) {
      type.dequantize(entry.bytes.data(), entry.bytes.size() / type.bytes * type.block, to);
    });
  }
  /// [out, in] → [in, out]. `rotary_heads`: output rows lie with the rotary pairs of each head interleaved (0: they do not), and
  /// are put back into halves, as rotate-half wants them.
  void linear(const std::string& name, const std::string& source, std::int64_t in, std::int64_t out,
              std::int64_t rotary_heads = 0) {
    add(name, source, {out, in}, {in, out}, [in, out, rotary_heads](const GgmlType& type, const GgufFile::Entry& entry, float* to) {
      constexpr std::int64_t kRows = 16;  // a strip of rows fits the cache while its columns are spread
      const std::size_t row_bytes = static_cast<std::size_t>(in) / type.block * type.bytes;
      const std::int64_t size = rotary_heads ? out / rotary_heads : out, half = size / 2;
      std::vector<float> strip(static_cast<std::size_t>(kRows * in));
      for (std::int64_t first = 0; first < out; first += kRows) {
        const std::int64_t rows = std::min(kRows, out - first);
        for (std::int64_t r = 0; r < rows; ++r) {
          const std::int64_t row = first + r, i = row % size;
          const std::int64_t from = rotary_heads ? row - i + 2 * (i % half) + i / half : row;
          type.dequantize(entry.bytes.data() + static_cast<std::size_t>(from) * row_bytes, static_cast<std::size_t>(in),
                          strip.data() + r * in);
        }
        for (std::int64_t k = 0; k < in; ++k) {
          for (std::int64_t r = 0; r < rows; ++r) to[k * out + first + r] = strip[static_cast<std::size_t>(r * in + k)];
        }
      }
    });
  }

  bool used(const std::string& source) const { return used_.count(source) > 0; }

  void convert() {
    for (Job& job : jobs_) job.values.resize(job.count * sizeof(float));
    std::atomic<std::size_t> next{0};
    const auto work = [&] {
      for (std::size_t i; (i = next++) < jobs_.size();) {
        Job& job = jobs_[i];
        job.run(*ggml_type(job.entry->type), *job.entry, reinterpret_cast<float*>(job.values.data()));
      }
    };
    std::future<void> second = std::async(std::launch::async, work);
    work();
    second.get();
    for (Job& job : jobs_) graph_.initializers[job.name] = Tensor::own(DType::f32, job.shape, std::move(job.values));
  }

 private:
  using Convert = std::function<void(const GgmlType&, const GgufFile::Entry&, float*)>;
  struct Job {
    std::string name;
    const GgufFile::Entry* entry;
    std::vector<std::int64_t> shape;
    std::size_t count;
    Convert run;
    std::vector<std::byte> values;
  };

  void add(const std::string& name, const std::string& source, const std::vector<std::int64_t>& stored,
           std::vector<std::int64_t> shape, Convert run) {
    const GgufFile::Entry& entry = need(file_, source, stored);
    const GgmlType& type = *ggml_type(entry.type);
    if (!type.dequantize) {
      throw_unsupported(fmt::format("tensor '{}' has the type {}", source, type.name), file_.where(),
                        "F32, F16, BF16, Q4_1 and Q8_0 are read");
    }
    used_.insert(source);
    jobs_.push_back({name, &entry, std::move(shape), entry.bytes.size() / type.bytes * type.block, std::move(run), {}});
  }

  const GgufFile& file_;
  Graph& graph_;
  std::vector<Job> jobs_;
  std::set<std::string> used_;
};

/// Writes the nodes down in order; every node's only output is named after it.
class Builder {
 public:
  explicit Builder(Graph& graph) : graph_(graph) {}
  std::string add(const std::string& scope, const std::string& op, std::vector<std::string> inputs,
                  std::map<std::string, Attribute> attributes = {}, std::string output = {}) {
    Node node;
    node.op = op;
    node.name = scope + "/" + op;
    node.inputs = std::move(inputs);
    node.outputs = {output.empty() ? node.name + "_output" : std::move(output)};
    node.attributes = std::move(attributes);
    graph_.nodes.push_back(std::move(node));
    return graph_.nodes.back().outputs[0];
  }

 private:
  Graph& graph_;
};

std::string build_layer(Builder& b, Weights& weights, const Shape3& m, std::int64_t n, const std::string& hidden,
                        const std::string& mask) {
  const std::string scope = fmt::format("/model/layers.{}", n), name = fmt::format("model.layers.{}.", n),
                    source = fmt::format("blk.{}.", n);
  const std::int64_t query = m.heads * m.head_size, keys = m.kv_heads * m.head_size;
  weights.plain(name + "input_layernorm.weight", source + "attn_norm.weight", {m.hidden});
  weights.linear(name + "self_attn.q_proj.weight", source + "attn_q.weight", m.hidden, query, m.heads);
  weights.linear(name + "self_attn.k_proj.weight", source + "attn_k.weight", m.hidden, keys, m.kv_heads);
  weights.linear(name + "self_attn.v_proj.weight", source + "attn_v.weight", m.hidden, keys);
  weights.linear(name + "self_attn.o_proj.weight", source + "attn_output.weight", query, m.hidden);
  weights.plain(name + "post_attention_layernorm.weight", source + "ffn_norm.weight", {m.hidden});
  weights.linear(name + "mlp.gate_proj.weight", source + "ffn_gate.weight", m.hidden, m.feed_forward);
  weights.linear(name + "mlp.up_proj.weight", source + "ffn_up.weight", m.hidden, m.feed_forward);
  weights.linear(name + "mlp.down_proj.weight", source + "ffn_down.weight", m.feed_forward, m.hidden);

  const auto norm = [&](const std::string& which, const std::string& x) {
    return b.add(scope + "/" + which, "RMSNormalization", {x, name + which + ".weight"},
                 {{"axis", std::int64_t{-1}}, {"epsilon", m.epsilon}});
  };
  const auto project = [&](const std::string& which, const std::string& x) {
    std::string dotted = which;
    dotted.replace(dotted.find('/'), 1, ".");
    return b.add(scope + "/" + which, "MatMul", {x, name + dotted + ".weight"});
  };
  const auto rotate = [&](const std::string& which, const std::string& x, std::int64_t heads) {
    return b.add(scope + "/self_attn/" + which, "RotaryEmbedding", {x, "rotary.cos", "rotary.sin", "position_ids"},
                 {{"num_heads", heads}});
  };
  const std::string normed = norm("input_layernorm", hidden);
  const std::string q = rotate("q_rotary", project("self_attn/q_proj", normed), m.heads);
  const std::string k = rotate("k_rotary", project("self_attn/k_proj", normed), m.kv_heads);
  const std::string v = project("self_attn/v_proj", normed);
  const std::string attended = b.add(scope + "/self_attn", "Attention", {q, k, v, mask},
                                     {{"q_num_heads", m.heads}, {"kv_num_heads", m.kv_heads}, {"is_causal", std::int64_t{1}}});
  const std::string middle = b.add(scope + "/self_attn/residual", "Add", {hidden, project("self_attn/o_proj", attended)});
  const std::string second = norm("post_attention_layernorm", middle);
  const std::string gate = project("mlp/gate_proj", second), up = project("mlp/up_proj", second);
  const std::string active = b.add(scope + "/mlp/act_fn", "Mul", {gate, b.add(scope + "/mlp/act_fn", "Sigmoid", {gate})});
  const std::string down = project("mlp/down_proj", b.add(scope + "/mlp", "Mul", {active, up}));
  return b.add(scope + "/mlp/residual", "Add", {middle, down});
}

/// cos and sin of position × base^(-2i/size): [positions, size/2], computed in f64, rounded to f32.
void add_rotary_tables(Graph& graph, const Shape3& m) {
  const std::int64_t half = m.head_size / 2;
  std::vector<float> cosines(static_cast<std::size_t>(m.positions * half)), sines(cosines.size());
  for (std::int64_t i = 0; i < half; ++i) {
    const double frequency = std::pow(m.rope_base, -2.0 * static_cast<double>(i) / static_cast<double>(m.head_size));
    for (std::int64_t p = 0; p < m.positions; ++p) {
      const double angle = static_cast<double>(p) * frequency;
      cosines[static_cast<std::size_t>(p * half + i)] = static_cast<float>(std::cos(angle));
      sines[static_cast<std::size_t>(p * half + i)] = static_cast<float>(std::sin(angle));
    }
  }
  graph.initializers["rotary.cos"] = Tensor::of<float>(DType::f32, {m.positions, half}, cosines);
  graph.initializers["rotary.sin"] = Tensor::of<float>(DType::f32, {m.positions, half}, sines);
  graph.doc[""] = "Rotary tables are computed in double precision and rounded to single.";
}

/// attention_mask → [batch, 1, sequence, keys] booleans. The operator would broadcast the third axis itself; ONNX Runtime does not.
std::string build_mask(Builder& b, Graph& graph) {
  graph.initializers["mask.axes"] = Tensor::of<std::int64_t>(DType::i64, {2}, {1, 2});
  graph.initializers["mask.ones"] = Tensor::of<std::int64_t>(DType::i64, {2}, {1, 1});
  graph.initializers["mask.one"] = Tensor::of<std::int64_t>(DType::i64, {1}, {1});
  const std::string allowed = b.add("/model/mask", "Cast", {"attention_mask"}, {{"to", static_cast<std::int64_t>(DType::boolean)}});
  const std::string row = b.add("/model/mask", "Unsqueeze", {allowed, "mask.axes"});
  const std::string queries =
      b.add("/model/mask", "Shape", {"position_ids"}, {{"start", std::int64_t{1}}, {"end", std::int64_t{2}}});
  const std::string shape = b.add("/model/mask", "Concat", {"mask.ones", queries, "mask.one"}, {{"axis", std::int64_t{0}}});
  return b.add("/model/mask", "Expand", {row, shape});
}

void build(const GgufFile& file, const Shape3& m, Graph& graph) {
  const Shape tokens{Dim::symbol("batch"), Dim::symbol("sequence")};
  graph.inputs = {{"input_ids", DType::i64, tokens}, {"attention_mask", DType::i64, tokens}, {"position_ids", DType::i64, tokens}};
  graph.outputs = {{"logits", DType::f32, {tokens[0], tokens[1], m.vocabulary}}};
  Builder b(graph);
  Weights weights(file, graph);
  weights.plain("model.embed_tokens.weight", "token_embd.weight", {m.vocabulary, m.hidden});
  const std::string mask = build_mask(b, graph);
  std::string hidden =
      b.add("/model/embed_tokens", "Gather", {"model.embed_tokens.weight", "input_ids"}, {{"axis", std::int64_t{0}}});
  for (std::int64_t n = 0; n < m.layers; ++n) hidden = build_layer(b, weights, m, n, hidden, mask);
  weights.plain("model.norm.weight", "output_norm.weight", {m.hidden});
  hidden =
      b.add("/model/norm", "RMSNormalization", {hidden, "model.norm.weight"}, {{"axis", std::int64_t{-1}}, {"epsilon", m.epsilon}});
  std::string head = "lm_head.weight";
  if (file.tensor("output.weight")) {
    weights.linear(head, "output.weight", m.hidden, m.vocabulary);
  } else {  // tied
    head = b.add("/lm_head", "Transpose", {"model.embed_tokens.weight"}, {{"perm", std::vector<std::int64_t>{1, 0}}});
  }
  b.add("/lm_head", "MatMul", {hidden, head}, {}, "logits");
  for (const auto& entry : file.tensors()) {
    if (!weights.used(entry.name)) {
      throw_unsupported("tensor '" + entry.name + "' has no place in the LLaMA graph", file.where(),
                        "biases, rope factors and experts are not read");
    }
  }
  add_rotary_tables(graph, m);
  weights.convert();
}

}  // namespace

ImportedModel import_gguf(const std::filesystem::path& path) {
  const GgufFile file = GgufFile::open(path);
  const std::string architecture = metadata_text(file, "general.architecture", "");
  if (architecture != "llama")
    throw_unsupported("architecture '" + architecture + "'", file.where(), "the LLaMA family (\"llama\") is read");
  ImportedModel model;
  model.tokenizer = gguf_tokenizer(file);
  const Shape3 shape = read_shape(file);
  if (static_cast<std::int64_t>(model.tokenizer->vocabulary()) > shape.vocabulary) {
    throw_invalid(fmt::format("the tokenizer has {} tokens, the embedding {}", model.tokenizer->vocabulary(), shape.vocabulary),
                  file.where(), "the file is damaged");
  }
  Graph& graph = model.graph;
  build(file, shape, graph);
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
