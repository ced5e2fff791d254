#include "formats/transformer_layer.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <numbers>

namespace espalier {
namespace {

using Attributes = ModelWriter::Attributes;

/// x as bf16 would keep it.
std::string rounded(ModelWriter& w, const std::string& scope, const std::string& x) {
  const std::string narrow = w.add(scope + "/bf16", "Cast", {x}, {{"to", static_cast<std::int64_t>(DType::bf16)}});
  return w.add(scope + "/f32", "Cast", {narrow}, {{"to", static_cast<std::int64_t>(DType::f32)}});
}

/// One layer's nodes, and what they ask of the file.
class Layer {
 public:
  Layer(ModelWriter& writer, const LayerShape& shape, const LayerSides& sides, const Site& site, std::int64_t number)
      : w_(writer), m_(shape), sides_(sides), site_(site), number_(number) {}

  std::string build(const std::string& x) {
    using R = LayerShape::Residual;
    if (m_.residual == R::normed) return normed(x);
    return m_.residual == R::sequential ? sequential(x) : parallel(x);
  }

 private:
  std::string sequential(const std::string& x) {
    using P = LayerShape::Placement;
    const bool before = m_.placement == P::before || m_.placement == P::around, last = m_.placement == P::last;
    const bool after = m_.placement == P::after || m_.placement == P::around;
    std::string attended = attention(before ? norm("input_layernorm", x) : x);
    if (after) attended = norm("post_attention_layernorm", attended);
    std::string middle = w_.add(site_.scope + "/self_attn/residual", "Add", {x, attended});
    if (last) middle = norm("self_attn_layernorm", middle);
    const char* second = m_.placement == P::around ? "pre_feedforward_layernorm" : "post_attention_layernorm";
    std::string fed = feed_forward(before ? norm(second, middle) : middle);
    if (after) fed = norm("post_feedforward_layernorm", fed);
    const std::string sum = w_.add(site_.scope + "/mlp/residual", "Add", {middle, fed});
    return last ? norm("mlp_layernorm", sum) : sum;
  }

  std::string normed(const std::string& x) {
    const std::string first = norm("input_layernorm", x);
    const std::string middle = w_.add(site_.scope + "/self_attn/residual", "Add", {first, attention(first)});
    const std::string second = norm("post_attention_layernorm", middle);
    return w_.add(site_.scope + "/mlp/residual", "Add", {second, feed_forward(second)});
  }

  std::string parallel(const std::string& x) {
    const std::string in = norm("input_layernorm", x);
    const std::string own = m_.residual == LayerShape::Residual::parallel ? norm("post_attention_layernorm", x) : in;
    const std::string attended = attention(in), fed = feed_forward(own);
    return w_.add(site_.scope + "/mlp/residual", "Add", {x, w_.add(site_.scope + "/mlp/both", "Add", {fed, attended})});
  }

  /// "self_attn.q_proj" of this layer.
  Site at(const std::string& part) const { return {site_.scope + scope_of(part), site_.name + "." + part}; }

  std::string norm(const std::string& part, const std::string& x) { return w_.norm(m_.norm, at(part), x, m_.hidden); }

  std::string project(const std::string& part, const std::string& x, std::int64_t in, std::int64_t out, bool bias,
                      const std::string& whole = {}, const Rows& rows = {}) {
    return w_.linear(at(part), x, in, out, bias, {whole.empty() ? whole : site_.name + "." + whole, rows, m_.in_out});
  }

  /// RMSNorm of queries or keys, over each head or over all of them.
  std::string query_norm(const std::string& part, const std::string& x, std::int64_t heads) {
    using Q = LayerShape::QueryNorm;
    if (m_.query_norm == Q::none) return x;
    if (m_.query_norm == Q::width) return w_.norm(m_.norm, at(part), x, heads * m_.head_size);
    const std::string apart = fmt::format("shape.heads_{}", heads), together = fmt::format("shape.width_{}", heads * m_.head_size);
    w_.integers(apart, {0, 0, heads, m_.head_size});
    w_.integers(together, {0, 0, heads * m_.head_size});
    const Site site = at(part);
    const std::string split = w_.add(site.scope + "/heads", "Reshape", {x, apart});
    return w_.add(site.scope + "/width", "Reshape", {w_.norm(m_.norm, site, split, m_.head_size), together});
  }

  std::string rotate(const std::string& part, const std::string& x, std::int64_t heads) {
    if (m_.encoding != Encoding::rotary) return x;
    Attributes attributes{{"num_heads", heads}};
    if (m_.rotary_size != m_.head_size) attributes["rotary_embedding_dim"] = m_.rotary_size;
    return w_.add(at(part).scope, "RotaryEmbedding", {x, sides_.rotary + ".cos", sides_.rotary + ".sin", "position_ids"},
                  attributes);
  }

  /// Queries, keys or values, wherever the file has them. `first`: their first head within one key head's share of a matrix of all.
  std::string head_projection(const char* part, const std::string& x, std::int64_t group, std::int64_t first, bool turned) {
    using Q = LayerShape::Qkv;
    const std::int64_t share = m_.heads / m_.kv_heads + 2, size = m_.head_size, out = m_.kv_heads * group * size;
    Rows rows;
    if (m_.qkv != Q::separate) rows.all = m_.kv_heads * share * size;
    if (m_.qkv == Q::stacked) rows.first = m_.kv_heads * first * size;
    if (m_.qkv == Q::by_head) {
      rows.first = first * size;
      rows.block = group * size;
      rows.stride = share * size;
    }
    if (m_.rotary_pairs && turned) {
      rows.head = size;
      rows.rotated = m_.rotary_size;
    }
    return project(part, x, m_.hidden, out, m_.qkv_bias, m_.qkv == Q::separate ? "" : "self_attn.qkv_proj", rows);
  }

  std::string attention(const std::string& x) {
    const std::int64_t group = m_.heads / m_.kv_heads;
    const std::string projected_q = head_projection("self_attn.q_proj", x, group, 0, true);
    const std::string q = query_norm("self_attn.q_norm", projected_q, m_.heads);
    const std::string projected_k = head_projection("self_attn.k_proj", x, 1, group, true);
    const std::string k = query_norm("self_attn.k_norm", projected_k, m_.kv_heads);
    const std::string v = head_projection("self_attn.v_proj", x, 1, group + 1, false);
    Attributes attributes{{"q_num_heads", m_.heads}, {"kv_num_heads", m_.kv_heads}};
    if (m_.causal) attributes["is_causal"] = std::int64_t{1};
    double scale = m_.attention_scale;
    if (m_.scale_by_layer)
      scale = (scale != 0 ? scale : 1 / std::sqrt(static_cast<double>(m_.head_size))) / static_cast<double>(number_ + 1);
    if (scale != 0) attributes["scale"] = scale;
    if (m_.attention_softcap != 0) attributes["softcap"] = m_.attention_softcap;
    const std::string turned_q = rotate("self_attn.q_rotary", q, m_.heads), turned_k = rotate("self_attn.k_rotary", k, m_.kv_heads);
    const std::string mask = m_.encoding == Encoding::alibi ? biased() : sides_.mask;
    const std::string attended = w_.add(site_.scope + "/self_attn", "Attention", {turned_q, turned_k, v, mask}, attributes);
    return project("self_attn.o_proj", attended, m_.heads * m_.head_size, m_.hidden, m_.out_bias);
  }

  /// The mask with ALiBi's biases, slope · position. With n the largest power of two up to the number of heads, head h < n has the
  /// slope 2^(-8(h + 1)/n); the rest have those between, 2^(-4(2j + 1)/n). What each layer stores are the numerators, as integers:
  /// a cut takes heads from one layer alone, and training leaves them.
  std::string biased() {
    const Site site = at("self_attn.alibi");
    const auto heads = static_cast<std::uint64_t>(m_.heads), n = std::bit_floor(heads);
    std::vector<std::int64_t> numerators;
    for (std::uint64_t h = 0; h < heads; ++h)
      numerators.push_back(static_cast<std::int64_t>(h < n ? 2 * (h + 1) : 2 * (h - n) + 1));
    w_.graph().initializers[site.name] = Tensor::of<std::int64_t>(DType::i64, {m_.heads, 1, 1}, numerators);
    w_.number("alibi.step", -4 * std::numbers::ln2 / static_cast<double>(n));
    const std::string count = w_.add(site.scope, "Cast", {site.name}, {{"to", static_cast<std::int64_t>(DType::f32)}});
    std::string slopes = w_.add(site.scope + "/slopes", "Exp", {w_.add(site.scope + "/slopes", "Mul", {count, "alibi.step"})});
    if (m_.alibi_rounded) slopes = rounded(w_, site.scope + "/slopes", slopes);
    std::string bias = w_.add(site.scope, "Mul", {sides_.distances, slopes});
    if (m_.alibi_rounded) bias = rounded(w_, site.scope, bias);
    if (m_.alibi_scale != 1) {
      w_.number("alibi.scale", m_.alibi_scale);
      bias = w_.add(site.scope + "/scaled", "Mul", {bias, "alibi.scale"});
    }
    return write_biased_mask(w_, site.scope, sides_.mask, bias);
  }

  std::string feed_forward(const std::string& x) { return m_.experts > 0 ? mixture(x) : dense(x); }

  std::string dense(const std::string& x) {
    const Site site = at("mlp");
    const std::int64_t wide = m_.feed_forward;
    std::string inner;
    if (m_.gated) {
      const std::string whole = m_.fused_gate_up ? "mlp.gate_up_proj" : "";
      const auto rows = [&](std::int64_t first) { return m_.fused_gate_up ? Rows{.all = 2 * wide, .first = first} : Rows{}; };
      const std::string gate = project("mlp.gate_proj", x, m_.hidden, wide, m_.mlp_bias, whole, rows(0));
      const std::string up = project("mlp.up_proj", x, m_.hidden, wide, m_.mlp_bias, whole, rows(wide));
      inner = w_.add(site.scope, "Mul", {w_.activation(site.scope + "/act_fn", m_.activation, gate), up});
    } else {
      const std::string up = project("mlp.up_proj", x, m_.hidden, wide, m_.mlp_bias);
      inner = w_.activation(site.scope + "/act_fn", m_.activation, up);
    }
    return project("mlp.down_proj", inner, wide, m_.hidden, m_.mlp_bias);
  }

  /// Experts, each computed for every position and weighted by its gate, which is zero where it was not chosen (Mixtral).
  std::string mixture(const std::string& x) {
    const std::string part = "block_sparse_moe", gate = at(part).scope + "/gate";
    const std::string chances =
        w_.add(gate, "Softmax", {project(part + ".gate", x, m_.hidden, m_.experts, false)}, {{"axis", std::int64_t{-1}}});
    w_.integers("experts.used", {m_.experts_used});
    w_.integers("experts.axis", {-1});
    w_.number("experts.none", 0);
    const auto best = w_.add_many(gate, "TopK", {chances, "experts.used"}, {{"axis", std::int64_t{-1}}}, 2);
    const std::string sum = w_.add(gate, "ReduceSum", {best[0], "experts.axis"}, {{"keepdims", std::int64_t{1}}});
    const std::string shares = w_.add(gate, "Div", {best[0], sum});
    const std::string none = w_.add(gate, "Mul", {chances, "experts.none"});
    const std::string gates = w_.add(gate, "ScatterElements", {none, best[1], shares}, {{"axis", std::int64_t{-1}}});
    const auto each = w_.add_many(gate, "Split", {gates}, {{"axis", std::int64_t{-1}}, {"num_outputs", m_.experts}}, m_.experts);
    std::string all;
    for (std::int64_t e = 0; e < m_.experts; ++e) {
      const std::string expert = fmt::format("{}.experts.{}", part, e), inside = at(expert).scope;
      const std::string first = project(expert + ".w1", x, m_.hidden, m_.feed_forward, false);
      const std::string up = project(expert + ".w3", x, m_.hidden, m_.feed_forward, false);
      const std::string product = w_.add(inside, "Mul", {w_.activation(inside + "/act_fn", m_.activation, first), up});
      const std::string down = project(expert + ".w2", product, m_.feed_forward, m_.hidden, false);
      const std::string weighted = w_.add(inside + "/share", "Mul", {down, each[static_cast<std::size_t>(e)]});
      all = all.empty() ? weighted : w_.add(inside + "/sum", "Add", {all, weighted});
    }
    return all;
  }

  ModelWriter& w_;
  const LayerShape& m_;
  const LayerSides& sides_;
  Site site_;
  std::int64_t number_;
};

}  // namespace

std::string write_layer(ModelWriter& writer, const LayerShape& shape, const LayerSides& sides, const std::string& stream,
                        const Site& site, std::int64_t number) {
  return Layer(writer, shape, sides, site, number).build(stream);
}

std::string write_distances(ModelWriter& w, const std::string& scope, bool round) {
  w.integer("alibi.axis", 1);
  w.integer("alibi.one", 1);
  w.integers("alibi.axes", {1, 2});
  const std::string count = w.add(scope, "CumSum", {"attention_mask", "alibi.axis"});
  const std::string number = w.add(scope, "Mul", {w.add(scope, "Sub", {count, "alibi.one"}), "attention_mask"});
  std::string position = w.add(scope, "Cast", {number}, {{"to", static_cast<std::int64_t>(DType::f32)}});
  if (round) position = rounded(w, scope, position);
  return w.add(scope, "Unsqueeze", {position, "alibi.axes"});
}

}  // namespace espalier
