#include "formats/encoder.h"

#include <fmt/format.h>

#include <cmath>

#include "sdk/error.h"

namespace espalier {
namespace {

constexpr std::int64_t kMaxPositions = 1 << 20;

/// Buckets of distances key - query from -(positions - 1) to positions - 1 (Raffel et al., 2020, as MPNet has them: exact up to a
/// quarter of the buckets each way, then by logarithm up to 128), in the reference's single precision.
std::vector<std::int64_t> distance_buckets(std::int64_t positions, std::int64_t buckets) {
  const std::int64_t half = buckets / 2, exact = half / 2;
  const double reach = std::log(128.0 / static_cast<double>(exact));
  std::vector<std::int64_t> out;
  for (std::int64_t distance = 1 - positions; distance < positions; ++distance) {
    const std::int64_t n = std::abs(distance);
    std::int64_t bucket = n;
    if (n >= exact) {
      const float logarithm = std::log(static_cast<float>(n) / static_cast<float>(exact));
      const float share = logarithm / static_cast<float>(reach) * static_cast<float>(half - exact);
      bucket = std::min(exact + static_cast<std::int64_t>(share), half - 1);
    }
    out.push_back(bucket + (distance > 0 ? half : 0));
  }
  return out;
}

class Encoder {
 public:
  Encoder(ModelWriter& writer, const EncoderShape& shape) : w_(writer), m_(shape) {}

  void build() {
    std::string x = embedding();
    std::string mask = write_mask(w_, "/encoder/mask", "input_ids");
    if (m_.relative_buckets > 0) mask = write_biased_mask(w_, "/encoder/self_attn/mask", mask, relative_bias());
    const LayerSides sides{mask, {}, {}};
    for (std::int64_t n = 0; n < m_.layers; ++n) {
      const std::int64_t group = m_.layer_groups > 0 ? n * m_.layer_groups / m_.layers : n;
      x = write_layer(w_, m_, sides, x, {fmt::format("/encoder/layers.{}", n), fmt::format("encoder.layers.{}", group)}, n);
    }
    using H = EncoderShape::Head;
    if (m_.head == H::none) features(x);
    if (m_.head == H::tokens) token_head(x);
    if (m_.head == H::classes) class_head(x);
    if (m_.head == H::sentence) sentence(x);
  }

 private:
  std::string embedding() {
    const std::string scope = "/embeddings";
    std::string x = w_.lookup("embeddings.word_embeddings", "input_ids", m_.vocabulary, m_.embedding_size);
    if (m_.token_types > 1) {
      const std::string type = w_.lookup("embeddings.token_type_embeddings", "token_type_ids", m_.token_types, m_.embedding_size);
      x = w_.add(scope + "/token_type_embeddings", "Add", {x, type});
    } else if (m_.token_types == 1) {
      w_.weights().plain("embeddings.token_type_embeddings.weight", {1, m_.embedding_size});
      x = w_.add(scope + "/token_type_embeddings", "Add", {x, "embeddings.token_type_embeddings.weight"});
    }
    const std::string position = w_.lookup("embeddings.position_embeddings", positions(), m_.positions, m_.embedding_size);
    x = w_.add(scope + "/position_embeddings", "Add", {x, position});
    x = w_.norm(m_.norm, "embeddings.norm", x, m_.embedding_size);
    return m_.project_embedding ? w_.linear("embeddings.project", x, m_.embedding_size, m_.hidden, true) : x;
  }

  /// Rows of the table of positions, [sequence] or [batch, sequence].
  std::string positions() {
    const std::string scope = "/embeddings/positions";
    w_.integer("position.one", 1);
    if (!m_.padding) {
      w_.integer("position.zero", 0);
      return w_.add(scope, "Range", {"position.zero", w_.length(scope, "input_ids"), "position.one"});
    }
    w_.integer("position.padding", *m_.padding);
    const std::string equal = w_.add(scope, "Equal", {"input_ids", "position.padding"});
    const std::string token =
        w_.add(scope, "Cast", {w_.add(scope, "Not", {equal})}, {{"to", static_cast<std::int64_t>(DType::i64)}});
    const std::string counted = w_.add(scope, "Mul", {w_.add(scope, "CumSum", {token, "position.one"}), token});
    return w_.add(scope, "Add", {counted, "position.padding"});
  }

  /// [heads, queries, keys], one table for all layers.
  std::string relative_bias() {
    const std::string scope = "/encoder/self_attn/relative_bias", table = "encoder.self_attn.relative_bias";
    w_.integer("relative.zero", 0);
    w_.integer("relative.one", 1);
    w_.integer("relative.last", m_.positions - 1);
    w_.integers("relative.column", {1});
    w_.integers("relative.buckets", distance_buckets(m_.positions, m_.relative_buckets));
    const std::string place = w_.add(scope, "Range", {"relative.zero", w_.length(scope, "input_ids"), "relative.one"});
    const std::string column = w_.add(scope, "Unsqueeze", {place, "relative.column"});
    const std::string distance = w_.add(scope, "Add", {w_.add(scope, "Sub", {place, column}), "relative.last"});
    const std::string bucket = w_.add(scope + "/buckets", "Gather", {"relative.buckets", distance}, {{"axis", std::int64_t{0}}});
    const std::string bias = w_.lookup(table, bucket, m_.relative_buckets, m_.heads);
    return w_.add(scope, "Transpose", {bias}, {{"perm", std::vector<std::int64_t>{2, 0, 1}}});
  }

  void output(const std::string& name, Shape shape) { w_.graph().outputs.push_back({name, DType::f32, std::move(shape)}); }
  Dim batch() const { return Dim::symbol("batch"); }
  Dim sequence() const { return Dim::symbol("sequence"); }

  /// [batch, hidden] of the first token.
  std::string first_token(const std::string& scope, const std::string& x) {
    w_.integer("token.first", 0);
    return w_.add(scope, "Gather", {x, "token.first"}, {{"axis", std::int64_t{1}}});
  }

  void features(const std::string& x) {
    w_.add("/last_hidden_state", "Identity", {x}, {}, "last_hidden_state");
    output("last_hidden_state", {batch(), sequence(), m_.hidden});
    if (!w_.weights().has("pooler.dense.weight")) return;
    const std::string dense = w_.linear("pooler.dense", first_token("/pooler", x), m_.hidden, m_.hidden, true);
    w_.add("/pooler", "Tanh", {dense}, {}, "pooler_output");
    output("pooler_output", {batch(), m_.hidden});
  }

  void token_head(const std::string& x) {
    const std::string dense = w_.linear("token_head.dense", x, m_.hidden, m_.embedding_size, true);
    const std::string active = w_.activation("/token_head/activation", m_.token_activation, dense);
    const std::string normed = w_.norm(m_.norm, "token_head.norm", active, m_.embedding_size);
    w_.weights().vector("token_head.decoder.bias", m_.vocabulary, {});
    const std::string scores = w_.tied("/token_head/decoder", "embeddings.word_embeddings", normed);
    w_.add("/token_head/decoder", "Add", {scores, "token_head.decoder.bias"}, {}, "logits");
    output("logits", {batch(), sequence(), m_.vocabulary});
  }

  void class_head(const std::string& x) {
    const std::string dense = w_.linear("class_head.dense", first_token("/class_head", x), m_.hidden, m_.hidden, true);
    const std::string active = w_.activation("/class_head/activation", m_.class_activation, dense);
    w_.weights().linear("class_head.out_proj.weight", m_.hidden, m_.labels, {});
    w_.weights().vector("class_head.out_proj.bias", m_.labels, {});
    const std::string scores = w_.add("/class_head/out_proj", "MatMul", {active, "class_head.out_proj.weight"});
    w_.add("/class_head/out_proj", "Add", {scores, "class_head.out_proj.bias"}, {}, "logits");
    output("logits", {batch(), m_.labels});
  }

  void sentence(const std::string& x) {
    const std::string scope = "/sentence", result = "sentence_embedding";
    const std::string pooled = m_.pooling.normalize ? "" : result;
    std::string y;
    if (m_.pooling.kind == SentencePooling::Kind::first) {
      w_.integer("token.first", 0);
      y = w_.add(scope + "/pooling", "Gather", {x, "token.first"}, {{"axis", std::int64_t{1}}}, pooled);
    } else {
      y = pool(scope + "/pooling", x, pooled);
    }
    output(result, {batch(), m_.hidden});
    if (!m_.pooling.normalize) return;
    w_.integers("sentence.last", {-1});
    w_.number("sentence.shortest", 1e-12);
    const std::string length = w_.add(scope, "ReduceL2", {y, "sentence.last"}, {{"keepdims", std::int64_t{1}}});
    w_.add(scope, "Div", {y, w_.add(scope, "Max", {length, "sentence.shortest"})}, {}, result);
  }

  /// The mean or the largest over the tokens in use.
  std::string pool(const std::string& scope, const std::string& x, const std::string& result) {
    w_.integers("sentence.last", {-1});
    w_.integers("sentence.tokens", {1});
    const bool mean = m_.pooling.kind == SentencePooling::Kind::mean;
    const auto to = static_cast<std::int64_t>(mean ? DType::f32 : DType::boolean);
    const std::string used = w_.add(scope, "Unsqueeze", {w_.add(scope, "Cast", {"attention_mask"}, {{"to", to}}), "sentence.last"});
    const Attributes gone{{"keepdims", std::int64_t{0}}};
    if (!mean) {
      w_.number("sentence.never", -1e9);
      return w_.add(scope, "ReduceMax", {w_.add(scope, "Where", {used, x, "sentence.never"}), "sentence.tokens"}, gone, result);
    }
    w_.number("sentence.fewest", 1e-9);
    const std::string sum = w_.add(scope + "/sum", "ReduceSum", {w_.add(scope, "Mul", {x, used}), "sentence.tokens"}, gone);
    const std::string count = w_.add(scope + "/count", "ReduceSum", {used, "sentence.tokens"}, gone);
    return w_.add(scope, "Div", {sum, w_.add(scope, "Max", {count, "sentence.fewest"})}, {}, result);
  }

  using Attributes = ModelWriter::Attributes;
  ModelWriter& w_;
  const EncoderShape& m_;
};

}  // namespace

EncoderShape::EncoderShape() {
  causal = gated = false;
  encoding = Encoding::learned;
  norm = {Norm::layer, 1e-12, true};
  placement = Placement::last;
  activation = Activation::gelu;
  qkv_bias = out_bias = mlp_bias = true;
}

Graph build_encoder(const EncoderShape& m, WeightSource& weights, const std::string& where) {
  if (m.positions > kMaxPositions)
    throw_unsupported(fmt::format("a context of {} positions", m.positions), where, "at most 1,048,576 are read");
  Graph graph;
  const Shape tokens{Dim::symbol("batch"), Dim::symbol("sequence")};
  graph.inputs = {{"input_ids", DType::i64, tokens}, {"attention_mask", DType::i64, tokens}};
  if (m.token_types > 1) graph.inputs.push_back({"token_type_ids", DType::i64, tokens});
  ModelWriter writer(graph, weights);
  Encoder(writer, m).build();
  return graph;
}

}  // namespace espalier
