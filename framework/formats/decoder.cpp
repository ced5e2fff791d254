#include "formats/decoder.h"

#include <fmt/format.h>

#include <atomic>
#include <cmath>
#include <future>
#include <numbers>

#include "graph/op.h"
#include "sdk/error.h"

namespace espalier {
namespace {

// Longest rotary tables that are made (1 Mi positions × 64 pairs × 2 = 512 MiB); the length is only a number in the file.
constexpr std::int64_t kMaxPositions = 1 << 20;

using Integers = std::vector<std::int64_t>;
using Attributes = std::map<std::string, Attribute>;

/// Writes the nodes down in order; every node's only output is named after it.
class Builder {
 public:
  explicit Builder(Graph& graph) : graph_(graph) {}
  std::string add(const std::string& scope, const std::string& op, std::vector<std::string> inputs, Attributes attributes = {},
                  std::string output = {}) {
    return add_many(scope, op, std::move(inputs), std::move(attributes), 1, std::move(output)).front();
  }
  std::vector<std::string> add_many(const std::string& scope, const std::string& op, std::vector<std::string> inputs,
                                    Attributes attributes, std::int64_t outputs, const std::string& output = {}) {
    Node node;
    node.op = op;
    node.name = scope + "/" + op;
    node.inputs = std::move(inputs);
    for (std::int64_t i = 0; i < outputs; ++i)
      node.outputs.push_back(!output.empty() ? output
                             : outputs == 1  ? node.name + "_output"
                                             : fmt::format("{}_output_{}", node.name, i));
    node.attributes = std::move(attributes);
    graph_.nodes.push_back(std::move(node));
    return graph_.nodes.back().outputs;
  }
  void integers(const std::string& name, const Integers& values) {
    graph_.initializers.try_emplace(name, Tensor::of<std::int64_t>(DType::i64, {static_cast<std::int64_t>(values.size())}, values));
  }
  void number(const std::string& name, double value) {
    graph_.initializers.try_emplace(name, Tensor::of<float>(DType::f32, {}, {static_cast<float>(value)}));
  }
  void integer(const std::string& name, std::int64_t value) {
    graph_.initializers.try_emplace(name, Tensor::of<std::int64_t>(DType::i64, {}, {value}));
  }

 private:
  Graph& graph_;
};

/// Where a matrix lies among the rows of another one.
struct Rows {
  std::string source;
  std::int64_t first = 0, all = 0;
};

/// One layer's nodes, and what they ask of the file.
class Layer {
 public:
  Layer(Builder& builder, DecoderWeights& weights, const DecoderShape& shape, std::int64_t number)
      : b_(builder),
        weights_(weights),
        m_(shape),
        scope_(fmt::format("/model/layers.{}", number)),
        name_(fmt::format("model.layers.{}.", number)),
        local_(m_.has_local && window(shape, number) > 0) {}

  static std::int64_t window(const DecoderShape& m, std::int64_t layer) {
    const auto at = static_cast<std::size_t>(layer);
    return at < m.windows.size() && m.windows[at] < m.positions ? m.windows[at] : 0;
  }

  std::string build(const std::string& hidden, const std::string& mask) {
    using P = DecoderShape::Placement;
    const bool before = m_.placement != P::after;
    const std::string in = before ? norm("input_layernorm", hidden) : hidden;
    std::string attended = attention(in, mask);
    if (m_.placement != P::before) attended = norm("post_attention_layernorm", attended);
    const std::string middle = b_.add(scope_ + "/self_attn/residual", "Add", {hidden, attended});
    const char* second = m_.placement == P::around ? "pre_feedforward_layernorm" : "post_attention_layernorm";
    const std::string normed = before ? norm(second, middle) : middle;
    std::string out = m_.experts > 0 ? mixture(normed) : feed_forward("mlp", normed);
    if (m_.placement != P::before) out = norm("post_feedforward_layernorm", out);
    return b_.add(scope_ + "/mlp/residual", "Add", {middle, out});
  }

 private:
  std::string norm(const std::string& which, const std::string& x) {
    const std::string weight = name_ + which + ".weight";
    weights_.plain(weight, {m_.hidden}, m_.norm == DecoderShape::Norm::rms_one ? 1 : 0);
    if (m_.norm != DecoderShape::Norm::layer) return rms(scope_ + "/" + which, x, weight);
    const std::string bias = name_ + which + ".bias";
    weights_.plain(bias, {m_.hidden});
    return b_.add(scope_ + "/" + which, "LayerNormalization", {x, weight, bias},
                  {{"axis", std::int64_t{-1}}, {"epsilon", m_.epsilon}});
  }

  std::string rms(const std::string& scope, const std::string& x, const std::string& weight) {
    return b_.add(scope, "RMSNormalization", {x, weight}, {{"axis", std::int64_t{-1}}, {"epsilon", m_.epsilon}});
  }

  /// x · W (+ b). `which` is "self_attn.q_proj"; `rows` where the file has it inside another matrix.
  std::string project(const std::string& which, const std::string& x, std::int64_t in, std::int64_t out, bool bias,
                      std::int64_t rotary_heads = 0, const Rows& rows = {}) {
    std::string path = which;
    for (char& c : path)
      if (c == '.') c = '/';
    const std::string weight = name_ + which + ".weight";
    weights_.linear(weight, rows.source.empty() ? weight : name_ + rows.source + ".weight", in, out, rotary_heads, rows.first,
                    rows.all);
    const std::string y = b_.add(scope_ + "/" + path, "MatMul", {x, weight});
    if (!bias) return y;
    weights_.plain(name_ + which + ".bias", {out});
    return b_.add(scope_ + "/" + path, "Add", {y, name_ + which + ".bias"});
  }

  /// RMSNorm of queries or keys, over each head or over all of them.
  std::string query_norm(const std::string& which, const std::string& x, std::int64_t heads) {
    using Q = DecoderShape::QueryNorm;
    if (m_.query_norm == Q::none) return x;
    const std::string weight = name_ + "self_attn." + which + ".weight", scope = scope_ + "/self_attn/" + which;
    const bool each = m_.query_norm == Q::head;
    weights_.plain(weight, {each ? m_.head_size : heads * m_.head_size}, m_.norm == DecoderShape::Norm::rms_one ? 1 : 0);
    if (!each) return rms(scope, x, weight);
    const std::string apart = fmt::format("shape.heads_{}", heads), together = fmt::format("shape.width_{}", heads * m_.head_size);
    b_.integers(apart, {0, 0, heads, m_.head_size});
    b_.integers(together, {0, 0, heads * m_.head_size});
    const std::string split = b_.add(scope + "/heads", "Reshape", {x, apart});
    return b_.add(scope + "/width", "Reshape", {rms(scope, split, weight), together});
  }

  std::string rotate(const std::string& which, const std::string& x, std::int64_t heads) {
    Attributes attributes{{"num_heads", heads}};
    if (m_.rotary_size != m_.head_size) attributes["rotary_embedding_dim"] = m_.rotary_size;
    const std::string table = local_ ? "rotary.local" : "rotary";
    return b_.add(scope_ + "/self_attn/" + which, "RotaryEmbedding", {x, table + ".cos", table + ".sin", "position_ids"},
                  attributes);
  }

  std::string attention(const std::string& x, const std::string& mask) {
    const std::int64_t query = m_.heads * m_.head_size, keys = m_.kv_heads * m_.head_size, all = query + 2 * keys;
    const auto rows = [&](std::int64_t first) { return m_.fused ? Rows{"self_attn.qkv_proj", first, all} : Rows{}; };
    const std::string q =
        query_norm("q_norm", project("self_attn.q_proj", x, m_.hidden, query, m_.qkv_bias, m_.heads, rows(0)), m_.heads);
    const std::string k =
        query_norm("k_norm", project("self_attn.k_proj", x, m_.hidden, keys, m_.qkv_bias, m_.kv_heads, rows(query)), m_.kv_heads);
    const std::string v = project("self_attn.v_proj", x, m_.hidden, keys, m_.qkv_bias, 0, rows(query + keys));
    Attributes attributes{{"q_num_heads", m_.heads}, {"kv_num_heads", m_.kv_heads}, {"is_causal", std::int64_t{1}}};
    if (m_.attention_scale != 0) attributes["scale"] = m_.attention_scale;
    if (m_.attention_softcap != 0) attributes["softcap"] = m_.attention_softcap;
    const std::string turned_q = rotate("q_rotary", q, m_.heads), turned_k = rotate("k_rotary", k, m_.kv_heads);
    const std::string attended = b_.add(scope_ + "/self_attn", "Attention", {turned_q, turned_k, v, mask}, attributes);
    return project("self_attn.o_proj", attended, query, m_.hidden, m_.out_bias);
  }

  std::string active(const std::string& scope, const std::string& x) {
    using A = DecoderShape::Activation;
    switch (m_.activation) {
      case A::silu:
        return b_.add(scope, "Mul", {x, b_.add(scope, "Sigmoid", {x})});
      case A::relu:
        return b_.add(scope, "Relu", {x});
      case A::gelu:
        return b_.add(scope, "Gelu", {x});
      case A::gelu_tanh:
        break;
    }
    return b_.add(scope, "Gelu", {x}, {{"approximate", std::string("tanh")}});
  }

  std::string feed_forward(const std::string& part, const std::string& x) {
    const std::string scope = scope_ + "/" + part;
    const std::int64_t wide = m_.feed_forward;
    if (!m_.gated) {
      const std::string up = project(part + "." + m_.up_name, x, m_.hidden, wide, m_.mlp_bias);
      return project(part + "." + m_.down_name, active(scope + "/act_fn", up), wide, m_.hidden, m_.mlp_bias);
    }
    const auto rows = [&](std::int64_t first) { return m_.fused ? Rows{part + ".gate_up_proj", first, 2 * wide} : Rows{}; };
    const std::string gate = project(part + ".gate_proj", x, m_.hidden, wide, m_.mlp_bias, 0, rows(0));
    const std::string up = project(part + "." + m_.up_name, x, m_.hidden, wide, m_.mlp_bias, 0, rows(wide));
    const std::string product = b_.add(scope, "Mul", {active(scope + "/act_fn", gate), up});
    return project(part + "." + m_.down_name, product, wide, m_.hidden, m_.mlp_bias);
  }

  /// Experts, each computed for every position and weighted by its gate, which is zero where it was not chosen (Mixtral).
  std::string mixture(const std::string& x) {
    const std::string part = "block_sparse_moe", scope = scope_ + "/" + part;
    const std::string chances = b_.add(scope + "/gate", "Softmax", {project(part + ".gate", x, m_.hidden, m_.experts, false)},
                                       {{"axis", std::int64_t{-1}}});
    b_.integers("experts.used", {m_.experts_used});
    b_.integers("experts.axis", {-1});
    b_.number("experts.none", 0);
    const auto best = b_.add_many(scope + "/gate", "TopK", {chances, "experts.used"}, {{"axis", std::int64_t{-1}}}, 2);
    const std::string sum = b_.add(scope + "/gate", "ReduceSum", {best[0], "experts.axis"}, {{"keepdims", std::int64_t{1}}});
    const std::string shares = b_.add(scope + "/gate", "Div", {best[0], sum});
    const std::string none = b_.add(scope + "/gate", "Mul", {chances, "experts.none"});
    const std::string gates = b_.add(scope + "/gate", "ScatterElements", {none, best[1], shares}, {{"axis", std::int64_t{-1}}});
    const auto each =
        b_.add_many(scope + "/gate", "Split", {gates}, {{"axis", std::int64_t{-1}}, {"num_outputs", m_.experts}}, m_.experts);
    std::string all;
    for (std::int64_t e = 0; e < m_.experts; ++e) {
      const std::string expert = fmt::format("{}.experts.{}", part, e), inside = fmt::format("{}/experts.{}", scope, e);
      const std::string gate = project(expert + ".w1", x, m_.hidden, m_.feed_forward, false);
      const std::string up = project(expert + ".w3", x, m_.hidden, m_.feed_forward, false);
      const std::string product = b_.add(inside, "Mul", {active(inside + "/act_fn", gate), up});
      const std::string down = project(expert + ".w2", product, m_.feed_forward, m_.hidden, false);
      const std::string weighted = b_.add(inside + "/share", "Mul", {down, each[static_cast<std::size_t>(e)]});
      all = all.empty() ? weighted : b_.add(inside + "/sum", "Add", {all, weighted});
    }
    return all;
  }

  Builder& b_;
  DecoderWeights& weights_;
  const DecoderShape& m_;
  std::string scope_, name_;
  bool local_;
};

/// Frequencies of the pairs, stretched as the table says.
std::vector<double> frequencies(const RotaryTable& table, std::int64_t size) {
  using Kind = RotaryScaling::Kind;
  const RotaryScaling& s = table.scaling;
  const double tau = 2 * std::numbers::pi;
  const auto half = static_cast<std::size_t>(size / 2);
  std::vector<double> out;
  // yarn: the pair whose wave turns so often within the original context.
  const auto pair_of = [&](double turns) {
    return static_cast<double>(size) * std::log(s.original / (turns * tau)) / (2 * std::log(table.base));
  };
  const double low = std::max(std::floor(pair_of(s.beta_fast)), 0.0);
  double high = std::min(std::ceil(pair_of(s.beta_slow)), static_cast<double>(size) - 1);
  if (low == high) high += 0.001;
  for (std::size_t i = 0; i < half; ++i) {
    double frequency = std::pow(table.base, -2.0 * static_cast<double>(i) / static_cast<double>(size));
    if (s.kind == Kind::linear) frequency /= s.factor;
    if (s.kind == Kind::llama3) {
      const double wave = tau / frequency;
      if (wave > s.original / s.low) {
        frequency /= s.factor;
      } else if (wave >= s.original / s.high) {
        const double smooth = (s.original / wave - s.low) / (s.high - s.low);
        frequency = (1 - smooth) * frequency / s.factor + smooth * frequency;
      }
    }
    if (s.kind == Kind::yarn) {
      const double ramp = std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0);
      frequency = frequency / s.factor * ramp + frequency * (1 - ramp);
    }
    out.push_back(frequency);
  }
  return out;
}

/// cos and sin of position × frequency: [positions, size/2], computed in f64, rounded to f32.
void add_rotary_tables(Graph& graph, const std::string& name, const RotaryTable& table, std::int64_t positions, std::int64_t size) {
  const std::int64_t half = size / 2;
  std::vector<float> cosines(static_cast<std::size_t>(positions * half)), sines(cosines.size());
  const std::vector<double> by_pair = frequencies(table, size);
  for (std::int64_t i = 0; i < half; ++i) {
    for (std::int64_t p = 0; p < positions; ++p) {
      const double angle = static_cast<double>(p) * by_pair[static_cast<std::size_t>(i)];
      cosines[static_cast<std::size_t>(p * half + i)] = static_cast<float>(std::cos(angle) * table.scaling.gain);
      sines[static_cast<std::size_t>(p * half + i)] = static_cast<float>(std::sin(angle) * table.scaling.gain);
    }
  }
  graph.initializers[name + ".cos"] = Tensor::of<float>(DType::f32, {positions, half}, cosines);
  graph.initializers[name + ".sin"] = Tensor::of<float>(DType::f32, {positions, half}, sines);
  graph.doc[""] = "Rotary tables are computed in double precision and rounded to single.";
}

/// attention_mask → [batch, 1, sequence, keys] booleans. The operator would broadcast the third axis itself; ONNX Runtime does not.
std::string build_mask(Builder& b) {
  b.integers("mask.axes", {1, 2});
  b.integers("mask.ones", {1, 1});
  b.integers("mask.one", {1});
  const std::string allowed = b.add("/model/mask", "Cast", {"attention_mask"}, {{"to", static_cast<std::int64_t>(DType::boolean)}});
  const std::string row = b.add("/model/mask", "Unsqueeze", {allowed, "mask.axes"});
  const std::string queries =
      b.add("/model/mask", "Shape", {"position_ids"}, {{"start", std::int64_t{1}}, {"end", std::int64_t{2}}});
  const std::string shape = b.add("/model/mask", "Concat", {"mask.ones", queries, "mask.one"}, {{"axis", std::int64_t{0}}});
  return b.add("/model/mask", "Expand", {row, shape});
}

/// The same for layers that see `window` positions back: query and key count from the first key, which may be of a past.
std::string windowed(Builder& b, const std::string& mask, std::int64_t window) {
  const std::string scope = fmt::format("/model/window_{}", window);
  const auto length = [&](const char* of, const char* input) {
    const std::string list = b.add(scope + of, "Shape", {input}, {{"start", std::int64_t{1}}, {"end", std::int64_t{2}}});
    return b.add(scope + of, "Squeeze", {list});
  };
  b.integer("window.zero", 0);
  b.integer("window.one", 1);
  b.integers("window.column", {1});
  const std::string size = fmt::format("window.size_{}", window);
  b.integer(size, window);
  const std::string keys = length("/keys", "attention_mask"), queries = length("/queries", "position_ids");
  const std::string key = b.add(scope + "/keys", "Range", {"window.zero", keys, "window.one"});
  const std::string first = b.add(scope + "/first", "Sub", {keys, queries});
  const std::string query = b.add(scope + "/queries", "Range", {first, keys, "window.one"});
  const std::string column = b.add(scope + "/queries", "Unsqueeze", {query, "window.column"});
  const std::string back = b.add(scope + "/back", "Sub", {column, key});
  return b.add(scope, "And", {mask, b.add(scope, "Less", {back, size})});
}

}  // namespace

Graph build_decoder(const DecoderShape& m, DecoderWeights& weights, const std::string& where) {
  if (m.positions > kMaxPositions)
    throw_unsupported(fmt::format("a context of {} positions", m.positions), where, "at most 1,048,576 are read");
  Graph graph;
  const Shape tokens{Dim::symbol("batch"), Dim::symbol("sequence")};
  graph.inputs = {{"input_ids", DType::i64, tokens}, {"attention_mask", DType::i64, tokens}, {"position_ids", DType::i64, tokens}};
  graph.outputs = {{"logits", DType::f32, {tokens[0], tokens[1], m.vocabulary}}};
  Builder b(graph);
  weights.plain("model.embed_tokens.weight", {m.vocabulary, m.hidden});
  const std::string mask = build_mask(b);
  std::map<std::int64_t, std::string> masks{{0, mask}};
  std::string hidden =
      b.add("/model/embed_tokens", "Gather", {"model.embed_tokens.weight", "input_ids"}, {{"axis", std::int64_t{0}}});
  if (m.embedding_scale != 1) {
    b.number("embedding.scale", m.embedding_scale);
    hidden = b.add("/model/embed_tokens", "Mul", {hidden, "embedding.scale"});
  }
  for (std::int64_t n = 0; n < m.layers; ++n) {
    const std::int64_t window = Layer::window(m, n);
    if (!masks.contains(window)) masks[window] = windowed(b, mask, window);
    hidden = Layer(b, weights, m, n).build(hidden, masks[window]);
  }
  weights.plain("model.norm.weight", {m.hidden}, m.norm == DecoderShape::Norm::rms_one ? 1 : 0);
  const Attributes attributes{{"axis", std::int64_t{-1}}, {"epsilon", m.epsilon}};
  if (m.norm == DecoderShape::Norm::layer) {
    weights.plain("model.norm.bias", {m.hidden});
    hidden = b.add("/model/norm", "LayerNormalization", {hidden, "model.norm.weight", "model.norm.bias"}, attributes);
  } else {
    hidden = b.add("/model/norm", "RMSNormalization", {hidden, "model.norm.weight"}, attributes);
  }
  std::string head = "lm_head.weight";
  if (m.tied)
    head = b.add("/lm_head", "Transpose", {"model.embed_tokens.weight"}, {{"perm", Integers{1, 0}}});
  else
    weights.linear(head, head, m.hidden, m.vocabulary, 0);
  const bool capped = m.final_softcap != 0;
  std::string logits = b.add("/lm_head", "MatMul", {hidden, head}, {}, capped ? "" : "logits");
  if (capped) {
    b.number("logits.cap", m.final_softcap);
    logits = b.add("/lm_head/cap", "Tanh", {b.add("/lm_head/cap", "Div", {logits, "logits.cap"})});
    b.add("/lm_head/cap", "Mul", {logits, "logits.cap"}, {}, "logits");
  }
  add_rotary_tables(graph, "rotary", m.rotary, m.positions, m.rotary_size);
  if (m.has_local) add_rotary_tables(graph, "rotary.local", m.local, m.positions, m.rotary_size);
  return graph;
}

void WeightJobs::add(std::string name, std::vector<std::int64_t> shape, Fill fill) {
  jobs_.push_back({std::move(name), std::move(shape), {}, std::move(fill)});
}

void WeightJobs::run(Graph& graph) {
  for (Job& job : jobs_) {
    std::size_t count = 1;
    for (const std::int64_t length : job.shape) count *= static_cast<std::size_t>(length);
    job.values.resize(count * sizeof(float));
  }
  std::atomic<std::size_t> next{0};
  const auto work = [&] {
    for (std::size_t i; (i = next++) < jobs_.size();) jobs_[i].fill(reinterpret_cast<float*>(jobs_[i].values.data()));
  };
  std::future<void> second = std::async(std::launch::async, work);
  work();
  second.get();
  for (Job& job : jobs_) graph.initializers[job.name] = Tensor::own(DType::f32, job.shape, std::move(job.values));
  jobs_.clear();
}

void transpose_rows(std::int64_t in, std::int64_t out, const std::function<void(std::int64_t row, float* to)>& row, float* to) {
  constexpr std::int64_t kRows = 16;  // a strip of rows fits the cache while its columns are spread
  std::vector<float> strip(static_cast<std::size_t>(kRows * in));
  for (std::int64_t first = 0; first < out; first += kRows) {
    const std::int64_t rows = std::min(kRows, out - first);
    for (std::int64_t r = 0; r < rows; ++r) row(first + r, strip.data() + r * in);
    for (std::int64_t k = 0; k < in; ++k)
      for (std::int64_t r = 0; r < rows; ++r) to[k * out + first + r] = strip[static_cast<std::size_t>(r * in + k)];
  }
}

}  // namespace espalier
