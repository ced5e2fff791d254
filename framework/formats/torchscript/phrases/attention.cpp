#include <fmt/format.h>

#include <cmath>

#include "formats/torchscript/script.h"

namespace espalier::torchscript {
namespace {

/// Variables that hold [batch, heads, sequence, size], the past joined.
struct Operands {
  std::string q, k, v, past = "0";
  bool flat;

  explicit Operands(NodeScript& s) : q(s.in(0)), k(s.in(1)), v(s.in(2)), flat(s.rank(0) == 3) {
    if (flat) {
      q = apart(s, 0, s.node.integer("q_num_heads", 0));
      k = apart(s, 1, s.node.integer("kv_num_heads", 0));
      v = apart(s, 2, s.node.integer("kv_num_heads", 0));
    }
    if (s.has(4) != s.has(5)) s.refuse("one half of a past");
    if (!s.has(4)) return;
    past = s.let(s.in(4) + ".size(2)", "past");
    k = s.let(fmt::format("torch.cat([{}, {}], 2)", s.in(4), k));
    v = s.let(fmt::format("torch.cat([{}, {}], 2)", s.in(5), v));
  }

 private:
  static std::string apart(NodeScript& s, std::size_t i, std::int64_t heads) {
    if (heads < 1) s.refuse("the number of heads is missing");
    return s.let(
        fmt::format("torch.transpose(torch.reshape({}, [{}, {}, {}, -1]), 1, 2)", s.in(i), s.length(i, 0), s.length(i, 1), heads));
  }
};

/// What may be attended: the given mask filled up to the keys' length, causal order, windows. "None" where everything may.
std::string mask_of(NodeScript& s, const Operands& o, bool& causal) {
  const bool ordered = s.node.integer("is_causal", 0) != 0;
  const std::int64_t left = s.node.integer("left_window_size", -1), right = ordered ? 0 : s.node.integer("right_window_size", -1);
  std::string mask;
  bool boolean = false;
  const std::string keys = fmt::format("{}.size(2)", o.k), queries = fmt::format("{}.size(2)", o.q);
  if (s.has(3)) {
    boolean = s.info(3).dtype == DType::boolean;
    if (!boolean && !s.floating(3)) s.refuse("a mask of integers");
    mask = s.in(3);
    if (s.info(3).shape.back() != s.info(1).shape[o.flat ? 1 : 2] || s.has(4))
      mask = s.let(
          fmt::format("torch.constant_pad_nd({0}, [0, {1} - {0}.size(-1)], {2})", mask, keys, boolean ? "0" : "float(\"-inf\")"));
  }
  if (s.has(6)) s.refuse("nonpad_kv_seqlen");
  if (ordered && left < 0 && mask.empty() && !s.has(4)) {
    causal = true;
    return "None";
  }
  if (right < 0 && left < 0) return mask.empty() ? "None" : mask;
  const std::string place = s.let(fmt::format("torch.add(torch.unsqueeze(torch.arange({}), 1), {})", queries, o.past));
  const std::string column = s.let(fmt::format("torch.arange({})", keys));
  std::string allowed;
  if (right >= 0) allowed = s.let(fmt::format("torch.le({}, torch.add({}, {}))", column, place, right));
  if (left >= 0) {
    const std::string reached = s.let(fmt::format("torch.ge({}, torch.sub({}, {}))", column, place, left));
    allowed = allowed.empty() ? reached : s.let(fmt::format("torch.logical_and({}, {})", allowed, reached));
  }
  if (mask.empty()) return allowed;
  if (boolean) return s.let(fmt::format("torch.logical_and({}, {})", mask, allowed));
  return s.let(fmt::format("torch.where({}, {}, float(\"-inf\"))", allowed, mask));
}

std::string repeated(NodeScript& s, const std::string& x, bool grouped, const std::string& q) {
  return grouped ? s.let(fmt::format("torch.repeat_interleave({0}, {1}.size(1) // {0}.size(1), 1)", x, q)) : x;
}

void attention(NodeScript& s) {
  const Operands o(s);
  bool causal = false;
  std::string mask = mask_of(s, o, causal);
  const double cap = s.node.number("softcap", 0);
  s.only(3);
  const Dim heads = o.flat ? Dim(s.node.integer("q_num_heads", 0)) : s.info(0).shape[1];
  const Dim pairs = o.flat ? Dim(s.node.integer("kv_num_heads", 0)) : s.info(1).shape[1];
  const bool grouped = heads != pairs;
  std::string scale = s.node.has("scale") ? number_text(s.node.number("scale", 1)) : std::string("None");
  std::string y;
  if (cap > 0) {
    if (scale == "None") {
      const Dim width = o.flat ? floor_div(s.info(0).shape[2], heads) : s.info(0).shape[3];
      if (!width.known()) s.refuse("heads of free size");
      scale = number_text(1 / std::sqrt(static_cast<double>(width.value())));
    }
    if (causal) mask = s.let(fmt::format("torch.tril(torch.ones([{}.size(2), {}.size(2)], dtype=11))", o.q, o.k));
    std::string scores = s.let(
        fmt::format("torch.mul(torch.matmul({}, torch.transpose({}, 2, 3)), {})", o.q, repeated(s, o.k, grouped, o.q), scale));
    scores = s.let(fmt::format("torch.mul(torch.tanh(torch.div({0}, {1})), {1})", scores, number_text(cap)));
    if (mask != "None") {
      const bool additive = s.has(3) && s.info(3).dtype != DType::boolean;
      scores = s.let(additive ? fmt::format("torch.add({}, {})", scores, mask)
                              : fmt::format("torch.where({}, {}, float(\"-inf\"))", mask, scores));
    }
    // Rows that may attend to nothing give zeros, not NaN.
    y = s.let(
        fmt::format("torch.matmul(torch.nan_to_num(torch.softmax({}, -1), 0.0), {})", scores, repeated(s, o.v, grouped, o.q)));
  } else {
    y = s.let(fmt::format("torch.scaled_dot_product_attention({}, {}, {}, {}, 0.0, {}, scale={}, enable_gqa={})", o.q, o.k, o.v,
                          mask, flag_text(causal), scale, flag_text(grouped)));
  }
  s.give(0, o.flat ? fmt::format("torch.flatten(torch.transpose({}, 1, 2), 2)", y) : y);
  s.give(1, o.k);
  s.give(2, o.v);
}

void rotary(NodeScript& s) {
  const bool heads_first = s.rank(0) == 4;
  const std::int64_t heads = s.node.integer("num_heads", 0);
  if (!heads_first && heads < 1) s.refuse("num_heads is missing");
  const bool interleaved = s.node.integer("interleaved", 0) != 0;
  const Dim width = heads_first ? s.info(0).shape[3] : floor_div(s.info(0).shape[2], heads);
  if (!width.known()) s.refuse("heads of free size");
  const std::int64_t size = width.value();
  std::int64_t rotated = s.node.integer("rotary_embedding_dim", 0);
  if (rotated == 0) rotated = size;
  const std::int64_t half = rotated / 2;
  const auto rows = [&](std::size_t slot) {
    const std::string picked = s.has(3) ? fmt::format("torch.embedding({}, {})", s.in(slot), s.in(3)) : s.in(slot);
    return s.let(fmt::format("torch.unsqueeze({}, {})", picked, heads_first ? 1 : 2));
  };
  const std::string cos = rows(1), sin = rows(2);
  const std::string x =
      heads_first ? s.in(0)
                  : s.let(fmt::format("torch.reshape({}, [{}, {}, {}, {}])", s.in(0), s.length(0, 0), s.length(0, 1), heads, size));
  const auto part = [&](std::int64_t begin, std::int64_t end, std::int64_t step) {
    return s.let(fmt::format("torch.slice({}, 3, {}, {}, {})", x, begin, end, step));
  };
  const std::string a = interleaved ? part(0, rotated, 2) : part(0, half, 1),
                    b = interleaved ? part(1, rotated, 2) : part(half, rotated, 1);
  const std::string real = s.let(fmt::format("torch.sub(torch.mul({}, {}), torch.mul({}, {}))", cos, a, sin, b));
  const std::string imaginary = s.let(fmt::format("torch.add(torch.mul({}, {}), torch.mul({}, {}))", sin, a, cos, b));
  std::string out = s.let(interleaved ? fmt::format("torch.flatten(torch.stack([{}, {}], -1), 3)", real, imaginary)
                                      : fmt::format("torch.cat([{}, {}], 3)", real, imaginary));
  if (rotated < size) out = s.let(fmt::format("torch.cat([{}, {}], 3)", out, part(rotated, size, 1)));
  s.give(heads_first ? out : fmt::format("torch.flatten({}, 2)", out));
}

const RegisterPhrase entries[] = {{{"Attention"}, attention}, {{"RotaryEmbedding"}, rotary}};

}  // namespace
}  // namespace espalier::torchscript
