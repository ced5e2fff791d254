#include <fmt/format.h>

#include <algorithm>

#include "graph/passes/pattern.h"

namespace espalier {
namespace {

/// Slice of one range of the last axis: (x, begin, end).
struct Half {
  std::string x;
  std::int64_t begin, end;
};

std::optional<Half> match_half(const Pattern& p, const std::string& value) {
  const auto* node = p.made_by(value, "Slice");
  const auto* shape = node ? p.shape(node->input(0)) : nullptr;
  if (!shape || shape->empty() || !shape->back().known()) return std::nullopt;
  const NodeView view{p.graph, *node, p.values};
  const auto starts = view.integers(1), ends = view.integers(2), axes = view.integers(3);
  const auto steps = view.has(4) ? view.integers(4) : std::optional(std::vector<std::int64_t>{1});
  if (!starts || !ends || !axes || !steps || starts->size() != 1 || ends->size() != 1 || *steps != std::vector<std::int64_t>{1})
    return std::nullopt;
  if (axes->size() != 1 || !p.is_last_axis((*axes)[0], node->input(0))) return std::nullopt;
  const auto length = shape->back().value();
  const auto clip = [&](std::int64_t i) { return std::clamp<std::int64_t>(i < 0 ? i + length : i, 0, length); };
  return Half{node->inputs[0], clip((*starts)[0]), clip((*ends)[0])};
}

/// Concat(-x[D/2:], x[:D/2]) over the last axis → x.
std::optional<std::string> match_rotated(const Pattern& p, const std::string& value) {
  const auto* concat = p.made_by(value, "Concat");
  if (!concat || concat->inputs.size() != 2 || !p.is_last_axis(concat->integer("axis", 0), value)) return std::nullopt;
  const auto* neg = p.made_by(concat->inputs[0], "Neg");
  if (!neg) return std::nullopt;
  const auto second = match_half(p, neg->inputs[0]), first = match_half(p, concat->inputs[1]);
  if (!second || !first || first->x != second->x) return std::nullopt;
  const auto length = p.shape(first->x)->back().value();
  const bool halves =
      length % 2 == 0 && first->begin == 0 && first->end == length / 2 && second->begin == length / 2 && second->end == length;
  return halves ? std::optional(first->x) : std::nullopt;
}

/// [batch, sequence, D] whose two halves of the last axis are equal because they are one value, joined with itself.
bool halves_equal(const Pattern& p, const std::string& value, int depth = 0) {
  if (depth > 8) return false;
  const auto* node = p.made_by(value);
  if (!node) return false;
  if (node->op == "Concat")
    return node->inputs.size() == 2 && node->inputs[0] == node->inputs[1] && p.is_last_axis(node->integer("axis", 0), value);
  for (const auto* op : {"Cos", "Sin", "Cast", "Identity"})
    if (node->op == op) return halves_equal(p, node->inputs[0], depth + 1);
  if (node->op == "Mul")
    if (const auto scaled = p.with_number(*node)) return halves_equal(p, scaled->first, depth + 1);
  return false;
}

/// Unsqueeze(c, 1) → c.
std::optional<std::string> match_table(const Pattern& p, const std::string& value) {
  const auto* node = p.made_by(value, "Unsqueeze");
  if (!node || p.axes(*node) != std::vector<std::int64_t>{1}) return std::nullopt;
  const auto* shape = p.shape(node->inputs[0]);
  return shape && shape->size() == 3 && halves_equal(p, node->inputs[0]) ? std::optional(node->inputs[0]) : std::nullopt;
}

struct Rotary {
  std::string x, cos, sin;
};

/// x · cos + rotate_half(x) · sin.
std::optional<Rotary> match(const Pattern& p, const Node& node) {
  if (node.op != "Add" || !node.domain.empty() || node.inputs.size() != 2) return std::nullopt;
  for (std::size_t i = 0; i < 2; ++i) {
    const auto* plain = p.made_by(node.inputs[i], "Mul");
    const auto* turned = p.made_by(node.inputs[1 - i], "Mul");
    if (!plain || !turned || plain->inputs.size() != 2 || turned->inputs.size() != 2) continue;
    for (std::size_t k = 0; k < 2; ++k) {
      const auto x = match_rotated(p, turned->inputs[k]);
      const auto* cosine = x ? p.other(*plain, *x) : nullptr;
      if (!cosine) continue;
      const auto cos = match_table(p, *cosine), sin = match_table(p, turned->inputs[1 - k]);
      if (!cos || !sin) continue;
      const auto* shape = p.shape(*x);
      const auto* table = p.shape(*cos);
      // [batch, heads, sequence, D] with [batch, sequence, D]: the operator does not broadcast.
      const bool fits = shape->size() == 4 && table && p.shape(*sin) && *table == *p.shape(*sin) && (*table)[0] == (*shape)[0] &&
                        (*table)[1] == (*shape)[2] && (*table)[2] == (*shape)[3] && p.dtype(*x) == p.dtype(*cos);
      if (fits) return Rotary{*x, *cos, *sin};
    }
  }
  return std::nullopt;
}

std::int64_t run(Graph& graph, std::vector<std::string>& notes) {
  if (graph.opset() < 23) return 0;
  std::vector<Node> tables;
  std::map<std::string, std::string> half_of;
  std::int64_t fused = 0;
  {
    const Pattern p(graph);
    std::vector<std::pair<std::size_t, Rotary>> found;
    for (std::size_t i = 0; i < graph.nodes.size(); ++i)
      if (auto rotary = match(p, graph.nodes[i])) found.emplace_back(i, std::move(*rotary));
    const auto half = [&](const std::string& table) {
      if (auto known = half_of.find(table); known != half_of.end()) return known->second;
      const auto length = p.shape(table)->back().value() / 2;
      const auto constant = [&](const char* what, std::int64_t value) {
        const auto name = graph.fresh(table + "." + what);
        graph.initializers[name] = Tensor::of<std::int64_t>(DType::i64, {1}, {value});
        return name;
      };
      Node slice;
      slice.op = "Slice";
      slice.name = "/" + table + "/half";
      slice.inputs = {table, constant("begin", 0), constant("end", length), constant("axis", 2)};
      slice.outputs = {graph.fresh(table + ".half")};
      tables.push_back(slice);
      return half_of[table] = slice.outputs[0];
    };
    for (const auto& [i, rotary] : found) {
      become(graph.nodes[i], "RotaryEmbedding", {rotary.x, half(rotary.cos), half(rotary.sin)}, {});
      ++fused;
    }
  }
  if (fused == 0) return 0;
  graph.nodes.insert(graph.nodes.end(), tables.begin(), tables.end());
  graph.sort();
  remove_dead(graph);
  notes.push_back(fmt::format("fused {} × x · cos + rotate_half(x) · sin into RotaryEmbedding", fused));
  return fused;
}

const RegisterPass registered(52, {"rotary-embedding", "fuses exploded rotary embeddings into RotaryEmbedding", run});

}  // namespace
}  // namespace espalier
