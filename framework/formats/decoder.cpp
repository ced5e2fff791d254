#include "formats/decoder.h"

#include <fmt/format.h>

#include "sdk/error.h"

namespace espalier {
namespace {

// Longest tables that are made (1 Mi positions × 64 pairs × 2 = 512 MiB); the length is only a number in the file.
constexpr std::int64_t kMaxPositions = 1 << 20;

/// The mask for layers that see `window` positions back: query and key count from the first key, which may be of a past.
std::string windowed(ModelWriter& w, const std::string& mask, std::int64_t window) {
  const std::string scope = fmt::format("/model/window_{}", window), size = fmt::format("window.size_{}", window);
  w.integer("window.zero", 0);
  w.integer("window.one", 1);
  w.integers("window.column", {1});
  w.integer(size, window);
  const std::string keys = w.length(scope + "/keys", "attention_mask"), queries = w.length(scope + "/queries", "position_ids");
  const std::string key = w.add(scope + "/keys", "Range", {"window.zero", keys, "window.one"});
  const std::string first = w.add(scope + "/first", "Sub", {keys, queries});
  const std::string query = w.add(scope + "/queries", "Range", {first, keys, "window.one"});
  const std::string column = w.add(scope + "/queries", "Unsqueeze", {query, "window.column"});
  const std::string back = w.add(scope + "/back", "Sub", {column, key});
  return w.add(scope, "And", {mask, w.add(scope, "Less", {back, size})});
}

class Decoder {
 public:
  Decoder(ModelWriter& writer, const DecoderShape& shape) : w_(writer), m_(shape) {}

  void build() {
    const std::string mask = write_mask(w_, "/model/mask", "position_ids");
    std::map<std::int64_t, std::string> masks{{0, mask}};
    std::string distances;
    if (m_.encoding == Encoding::alibi) distances = write_distances(w_, "/model/distances", m_.alibi_rounded);
    std::string stream = embedding();
    for (std::int64_t n = 0; n < m_.layers; ++n) {
      const std::int64_t window = window_of(n);
      if (!masks.contains(window)) masks[window] = windowed(w_, mask, window);
      const LayerSides sides{masks[window], m_.has_local && window > 0 ? "rotary.local" : "rotary", distances};
      stream = write_layer(w_, m_, sides, stream, fmt::format("model.layers.{}", n), n);
    }
    if (m_.final_norm) stream = w_.norm(m_.norm, "model.norm", stream, m_.hidden);
    if (narrow()) stream = w_.linear("model.project_out", stream, m_.hidden, m_.embedding_size, false);
    head(stream);
  }

 private:
  bool narrow() const { return m_.embedding_size != 0 && m_.embedding_size != m_.hidden; }
  std::int64_t token_size() const { return narrow() ? m_.embedding_size : m_.hidden; }

  std::int64_t window_of(std::int64_t layer) const {
    const auto at = static_cast<std::size_t>(layer);
    return at < m_.windows.size() && m_.windows[at] < m_.positions ? m_.windows[at] : 0;
  }

  std::string embedding() {
    std::string x = w_.lookup("model.embed_tokens", "input_ids", m_.vocabulary, token_size());
    if (m_.embedding_scale != 1) {
      w_.number("embedding.scale", m_.embedding_scale);
      x = w_.add("/model/embed_tokens", "Mul", {x, "embedding.scale"});
    }
    if (narrow()) x = w_.linear("model.project_in", x, m_.embedding_size, m_.hidden, false);
    if (m_.encoding == Encoding::learned) {
      std::string rows = "position_ids";
      if (m_.position_offset != 0) {
        w_.integer("position.offset", m_.position_offset);
        rows = w_.add("/model/embed_positions/rows", "Add", {rows, "position.offset"});
      }
      const std::string position = w_.lookup("model.embed_positions", rows, m_.positions + m_.position_offset, m_.hidden);
      x = w_.add("/model/embed_positions", "Add", {x, position});
    }
    return m_.embedding_norm ? w_.norm(m_.norm, "model.embed_layernorm", x, m_.hidden) : x;
  }

  /// To the output "logits", which the last of its nodes makes.
  void head(const std::string& x) {
    const bool scaled = m_.logit_scale != 1, capped = m_.final_softcap != 0;
    const auto name = [](bool more) { return more ? "" : "logits"; };
    std::string y;
    if (m_.tied) {
      y = w_.tied("/lm_head", "model.embed_tokens", x, name(m_.head_bias || scaled || capped));
    } else {
      w_.weights().linear("lm_head.weight", token_size(), m_.vocabulary, {});
      y = w_.add("/lm_head", "MatMul", {x, "lm_head.weight"}, {}, name(m_.head_bias || scaled || capped));
    }
    if (m_.head_bias) {
      w_.weights().vector("lm_head.bias", m_.vocabulary, {});
      y = w_.add("/lm_head", "Add", {y, "lm_head.bias"}, {}, name(scaled || capped));
    }
    if (scaled) {
      w_.number("logits.scale", m_.logit_scale);
      y = w_.add("/lm_head/scale", "Mul", {y, "logits.scale"}, {}, name(capped));
    }
    if (!capped) return;
    w_.number("logits.cap", m_.final_softcap);
    y = w_.add("/lm_head/cap", "Tanh", {w_.add("/lm_head/cap", "Div", {y, "logits.cap"})});
    w_.add("/lm_head/cap", "Mul", {y, "logits.cap"}, {}, "logits");
  }

  ModelWriter& w_;
  const DecoderShape& m_;
};

}  // namespace

Graph build_decoder(const DecoderShape& m, WeightSource& weights, const std::string& where) {
  if (m.positions > kMaxPositions)
    throw_unsupported(fmt::format("a context of {} positions", m.positions), where, "at most 1,048,576 are read");
  Graph graph;
  const Shape tokens{Dim::symbol("batch"), Dim::symbol("sequence")};
  graph.inputs = {{"input_ids", DType::i64, tokens}, {"attention_mask", DType::i64, tokens}, {"position_ids", DType::i64, tokens}};
  graph.outputs = {{"logits", DType::f32, {tokens[0], tokens[1], m.vocabulary}}};
  ModelWriter writer(graph, weights);
  Decoder(writer, m).build();
  if (m.encoding == Encoding::rotary) {
    add_rotary_tables(graph, "rotary", m.rotary, m.positions, m.rotary_size);
    if (m.has_local) add_rotary_tables(graph, "rotary.local", m.local, m.positions, m.rotary_size);
  }
  return graph;
}

}  // namespace espalier
