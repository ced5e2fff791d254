// Exporters turn a transposition of the last two axes of many into Reshape → Transpose → Reshape: leading axes are merged, two are
// turned, the merged ones split again. As one Transpose it keeps every axis apart, which is what channels follow.
#include <fmt/format.h>

#include "graph/passes/pattern.h"

namespace espalier {
namespace {

/// For each axis of `merged` the axes of `shape` that it is made of, neighbours in their order; nothing where it is not so.
std::optional<std::vector<std::vector<std::size_t>>> parts(const Shape& shape, const Shape& merged) {
  std::vector<std::vector<std::size_t>> out;
  std::size_t next = 0;
  for (const Dim& length : merged) {
    out.emplace_back();
    Dim product(1);
    while (next < shape.size() && (out.back().empty() || product != length)) {
      product = product * shape[next];
      out.back().push_back(next++);
    }
    if (product != length) return std::nullopt;
  }
  if (next != shape.size()) return std::nullopt;
  return out;
}

/// The one permutation that Reshape → Transpose → Reshape, the last of them `node`, comes to, and what it is of.
std::optional<std::pair<std::string, std::vector<std::int64_t>>> whole(const Pattern& p, const Node& node) {
  if (node.op != "Reshape" || !node.domain.empty()) return std::nullopt;
  const Node* transpose = p.made_by(node.inputs[0], "Transpose");
  const Node* merge = transpose ? p.made_by(transpose->inputs[0], "Reshape") : nullptr;
  if (!merge) return std::nullopt;
  const Shape *in = p.shape(merge->inputs[0]), *merged = p.shape(merge->output(0)), *out = p.shape(node.output(0));
  if (!in || !merged || !out || in->size() != out->size() || in->size() <= merged->size()) return std::nullopt;
  const auto made_of = parts(*in, *merged);
  if (!made_of) return std::nullopt;
  std::vector<std::int64_t> permutation;
  for (const std::int64_t axis : p.permutation(*transpose))
    for (const std::size_t part : (*made_of)[static_cast<std::size_t>(axis)])
      permutation.push_back(static_cast<std::int64_t>(part));
  for (std::size_t i = 0; i < out->size(); ++i)
    if ((*in)[static_cast<std::size_t>(permutation[i])] != (*out)[i]) return std::nullopt;
  return std::pair(merge->inputs[0], std::move(permutation));
}

std::int64_t run(Graph& graph, std::vector<std::string>& notes) {
  std::vector<std::pair<std::size_t, std::pair<std::string, std::vector<std::int64_t>>>> found;
  {
    const Pattern p(graph);
    for (std::size_t i = 0; i < graph.nodes.size(); ++i)
      if (auto match = whole(p, graph.nodes[i])) found.emplace_back(i, std::move(*match));
  }
  for (const auto& [i, match] : found) become(graph.nodes[i], "Transpose", {match.first}, {{"perm", match.second}});
  if (found.empty()) return 0;
  remove_dead(graph);
  notes.push_back(fmt::format("{} × Reshape, Transpose, Reshape became one Transpose", found.size()));
  return static_cast<std::int64_t>(found.size());
}

const RegisterPass registered(29, {"merged-transposes",
                                   "makes one Transpose of a Transpose between two Reshapes that merge axes and split them again",
                                   run});

}  // namespace
}  // namespace espalier
