// A layer over [batch, positions, width] that an exporter wrote as Reshape to two axes → Gemm → Reshape back. As a product of the
// value itself its axes stay apart: a cut need not write down two unknown lengths, and blocks and norms around it are found.
#include <fmt/format.h>

#include "graph/passes/pattern.h"

namespace espalier {
namespace {

struct Match {
  std::size_t gemm, reshape;  ///< nodes
  std::string x;              ///< what was flattened
};

/// Shapes that differ in their last axis alone.
bool same_but_last(const Shape& a, const Shape& b) {
  return a.size() == b.size() && a.size() > 2 && std::equal(a.begin(), a.end() - 1, b.begin());
}

std::optional<Match> match(const Pattern& p, std::size_t index) {
  const Node& back = p.graph.nodes[index];
  if (back.op != "Reshape" || !back.domain.empty() || !p.read_once(back.inputs[0])) return std::nullopt;
  const Node* gemm = p.made_by(back.inputs[0], "Gemm");
  const Node* flat = gemm ? p.made_by(gemm->inputs[0], "Reshape") : nullptr;
  if (!flat) return std::nullopt;
  if (gemm->integer("transA", 0) != 0 || gemm->number("alpha", 1) != 1 || gemm->number("beta", 1) != 1) return std::nullopt;
  const Shape *x = p.shape(flat->inputs[0]), *rows = p.shape(gemm->inputs[0]), *product = p.shape(gemm->output(0)),
              *out = p.shape(back.output(0));
  if (!x || !rows || !product || !out || rows->size() != 2 || !same_but_last(*x, *out)) return std::nullopt;
  if (x->back() != rows->back() || out->back() != product->back()) return std::nullopt;
  if (const std::string& bias = gemm->input(2); !bias.empty()) {
    const Shape* shape = p.shape(bias);
    if (!shape || shape->size() > 1) return std::nullopt;
  }
  return Match{static_cast<std::size_t>(p.uses.producer_of(back.inputs[0])), index, flat->inputs[0]};
}

std::int64_t run(Graph& graph, std::vector<std::string>& notes) {
  std::vector<Match> found;
  {
    const Pattern p(graph);
    for (std::size_t i = 0; i < graph.nodes.size(); ++i)
      if (auto one = match(p, i)) found.push_back(std::move(*one));
  }
  if (found.empty()) return 0;
  std::vector<Node> turned;
  for (const Match& one : found) {
    Node &gemm = graph.nodes[one.gemm], &back = graph.nodes[one.reshape];
    std::string weight = gemm.inputs[1];
    const std::string bias = gemm.input(2), product = gemm.outputs[0];
    if (gemm.integer("transB", 0) != 0) {
      Node transpose;
      transpose.op = "Transpose";
      transpose.name = gemm.name + "/Transpose";
      transpose.inputs = {weight};
      transpose.outputs = {graph.fresh(product + ".weight")};
      transpose.attributes["perm"] = std::vector<std::int64_t>{1, 0};
      weight = transpose.outputs[0];
      turned.push_back(std::move(transpose));
    }
    become(gemm, "MatMul", {one.x, weight}, {});
    if (bias.empty())
      become(back, "Identity", {product}, {});
    else
      become(back, "Add", {product, bias}, {});
  }
  graph.nodes.insert(graph.nodes.begin(), turned.begin(), turned.end());
  graph.sort();
  remove_dead(graph);
  notes.push_back(fmt::format("{} × Reshape, Gemm, Reshape became a product of what was reshaped", found.size()));
  return static_cast<std::int64_t>(found.size());
}

const RegisterPass registered(27, {"flattened-gemm",
                                   "multiplies values of three axes and more without flattening them for a Gemm first", run});

}  // namespace
}  // namespace espalier
