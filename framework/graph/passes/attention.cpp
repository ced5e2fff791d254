#include <fmt/format.h>

#include "graph/passes/pattern.h"

namespace espalier {
namespace {

struct Attention {
  std::string query, key, value, mask;  ///< [batch, heads, positions, size]
  double scale = 1;
};

bool is_permutation(const Pattern& p, const Node& node, std::vector<std::int64_t> wanted) { return p.permutation(node) == wanted; }

/// Multiplications and divisions by constants, taken off a value.
std::string unscaled(const Pattern& p, std::string value, double& scale) {
  for (;;) {
    const auto* node = p.made_by(value);
    if (!node || (node->op != "Mul" && node->op != "Div")) return value;
    const auto x = p.with_number(*node);
    if (!x || (node->op == "Div" && x->first != node->input(0)) || x->second == 0) return value;
    scale = node->op == "Mul" ? scale * x->second : scale / x->second;
    value = x->first;
  }
}

/// Reshape(Expand(Unsqueeze(kv, 2))): every key and value head for several query heads → kv.
std::string ungrouped(const Pattern& p, const std::string& value, const Dim& batch, const Dim& size) {
  const auto* reshape = p.made_by(value, "Reshape");
  const auto* expand = reshape ? p.made_by(reshape->inputs[0], "Expand") : nullptr;
  const auto* unsqueeze = expand ? p.made_by(expand->inputs[0], "Unsqueeze") : nullptr;
  if (!unsqueeze || p.axes(*unsqueeze) != std::vector<std::int64_t>{2}) return value;
  const auto* kv = p.shape(unsqueeze->inputs[0]);
  const auto* wide = p.shape(reshape->inputs[0]);
  const auto* out = p.shape(value);
  if (!kv || !wide || !out || kv->size() != 4 || wide->size() != 5 || out->size() != 4) return value;
  const bool repeats = (*wide)[0] == (*kv)[0] && (*wide)[1] == (*kv)[1] && (*wide)[3] == (*kv)[2] && (*wide)[4] == (*kv)[3] &&
                       (*out)[0] == batch && (*out)[1] == (*wide)[1] * (*wide)[2] && (*out)[2] == (*kv)[2] && (*out)[3] == size;
  return repeats ? unsqueeze->inputs[0] : value;
}

/// softmax(Q Kᵀ · scale + mask) V, made by `node`.
std::optional<Attention> match(const Pattern& p, const Node& node) {
  if (node.op != "MatMul" || !node.domain.empty()) return std::nullopt;
  const auto& weights = p.past_casts(node.input(0));
  const auto* softmax = p.made_by(weights, "Softmax");
  if (!softmax || !p.is_last_axis(softmax->integer("axis", -1), weights) || weights != node.input(0)) return std::nullopt;
  Attention a;
  std::string scores = softmax->inputs[0];
  if (const auto* add = p.made_by(scores, "Add")) {
    for (std::size_t i = 0; i < 2 && a.mask.empty(); ++i) {
      double ignored = 1;
      if (!p.made_by(unscaled(p, add->input(i), ignored), "MatMul")) continue;
      scores = add->inputs[i];
      a.mask = add->inputs[1 - i];
    }
    if (a.mask.empty()) return std::nullopt;
  }
  const auto* product = p.made_by(unscaled(p, scores, a.scale), "MatMul");
  if (!product) return std::nullopt;
  a.query = unscaled(p, product->input(0), a.scale);
  const auto turned = unscaled(p, product->input(1), a.scale);
  const auto* transpose = p.made_by(turned, "Transpose");
  if (!transpose || !is_permutation(p, *transpose, {0, 1, 3, 2})) return std::nullopt;
  a.key = unscaled(p, transpose->inputs[0], a.scale);
  a.value = node.input(1);
  if (!(a.scale > 0)) return std::nullopt;

  const auto *q = p.shape(a.query), *k = p.shape(a.key), *v = p.shape(a.value);
  if (!q || !k || !v || q->size() != 4 || k->size() != 4 || v->size() != 4) return std::nullopt;
  const bool fits = (*q)[0] == (*k)[0] && (*q)[0] == (*v)[0] && (*q)[1] == (*k)[1] && (*q)[1] == (*v)[1] && (*k)[2] == (*v)[2] &&
                    (*q)[3] == (*k)[3];
  if (!fits || !is_floating(p.dtype(a.query)) || p.dtype(a.query) != p.dtype(a.key)) return std::nullopt;
  if (!a.mask.empty()) {
    // Not every runtime broadcasts the mask over queries.
    const auto* mask = p.shape(a.mask);
    if (!mask || (mask->size() != 4 && mask->size() != 2) || p.dtype(a.mask) != p.dtype(a.query)) return std::nullopt;
    if ((*mask)[mask->size() - 2] != (*q)[2] || mask->back() != (*k)[2]) return std::nullopt;
    if (mask->size() == 4 && ((*mask)[0] != (*q)[0] && (*mask)[0] != Dim(1))) return std::nullopt;
    if (mask->size() == 4 && ((*mask)[1] != (*q)[1] && (*mask)[1] != Dim(1))) return std::nullopt;
  }
  const auto key = ungrouped(p, a.key, (*k)[0], (*k)[3]), value = ungrouped(p, a.value, (*v)[0], (*v)[3]);
  if (key != a.key && value != a.value && (*p.shape(key))[1] == (*p.shape(value))[1]) a.key = key, a.value = value;
  return a;
}

std::int64_t run(Graph& graph, std::vector<std::string>& notes) {
  if (graph.opset() < 23) return 0;
  std::vector<std::pair<std::size_t, Attention>> found;
  {
    const Pattern p(graph);
    for (std::size_t i = 0; i < graph.nodes.size(); ++i)
      if (auto attention = match(p, graph.nodes[i])) found.emplace_back(i, std::move(*attention));
  }
  for (const auto& [i, a] : found) {
    std::vector<std::string> inputs{a.query, a.key, a.value};
    if (!a.mask.empty()) inputs.push_back(a.mask);
    become(graph.nodes[i], "Attention", inputs, {{"scale", a.scale}});
  }
  if (found.empty()) return 0;
  remove_dead(graph);
  notes.push_back(fmt::format("fused {} × softmax(Q·Kᵀ + mask)·V into Attention", found.size()));
  return static_cast<std::int64_t>(found.size());
}

const RegisterPass registered(53, {"attention", "fuses exploded attention into Attention", run});

}  // namespace
}  // namespace espalier
