/// Matrix products: MatMul (NumPy's rules for ranks above and below 2) and Gemm.
#include "graph/ops/rules.h"

namespace espalier {
namespace {

using namespace ops;

/// Where rows, columns and the summed axis lie; a rank-1 operand has no row or column of its own.
struct Product {
  std::size_t a_rank, b_rank, out_rank, a_k, b_k;
  bool has_m, has_n;
};

Product product(const NodeView& view) {
  const std::size_t a = view.in(0).shape.size(), b = view.in(1).shape.size();
  if (a == 0 || b == 0) view.fail("a scalar has no matrix product");
  const bool m = a > 1, n = b > 1;
  const std::size_t batch = std::max(a > 2 ? a - 2 : 0, b > 2 ? b - 2 : 0);
  return {a, b, batch + m + n, a - 1, n ? b - 2 : 0, m, n};
}

std::vector<ValueInfo> infer_matmul(const NodeView& view) {
  const Product p = product(view);
  const Shape &a = view.in(0).shape, &b = view.in(1).shape;
  check_equal(view, a[p.a_k], b[p.b_k], "the matrices do not fit");
  same_types(view, {0, 1});
  Shape out = broadcast(view, Shape(a.begin(), a.end() - (p.has_m ? 2 : 1)), Shape(b.begin(), b.end() - (p.has_n ? 2 : 1)));
  if (p.has_m) out.push_back(a[p.a_rank - 2]);
  if (p.has_n) out.push_back(b[p.b_rank - 1]);
  return {value(view.in(0).dtype, std::move(out))};
}

void axes_matmul(const NodeView& view, AxisMaps& maps) {
  const Product p = product(view);
  const Shape& out = view.out(0).shape;
  maps.reduce(AxisMaps::in(0, p.a_k), AxisMaps::in(1, p.b_k));
  if (p.has_m) maps.same(AxisMaps::in(0, p.a_rank - 2), AxisMaps::out(0, p.out_rank - 1 - p.has_n));
  if (p.has_n) maps.same(AxisMaps::in(1, p.b_rank - 1), AxisMaps::out(0, p.out_rank - 1));
  const std::size_t batch = p.out_rank - p.has_m - p.has_n;
  for (std::size_t slot = 0; slot < 2; ++slot) {
    const Shape& in = view.in(slot).shape;
    const std::size_t own = in.size() > 2 ? in.size() - 2 : 0;
    for (std::size_t i = 0; i < own; ++i) {
      const std::size_t o = i + batch - own;
      if (in[i] == out[o])
        maps.same(AxisMaps::in(slot, i), AxisMaps::out(0, o));
      else if (in[i] != Dim(1))  // a symbol that may turn out to be 1: what it meets depends on it
        for (const auto port : {AxisMaps::in(slot, i), AxisMaps::out(0, o)})
          maps.pin(port, "broadcast of " + in[i].text() + " against " + out[o].text() + " is not decided");
    }
  }
}

double macs_matmul(const NodeView& view, const Bindings& bindings) {
  const Product p = product(view);
  return elements(view.out(0).shape, bindings) * static_cast<double>(evaluate(view.in(0).shape[p.a_k], bindings));
}

struct GemmAxes {
  std::size_t m, k_a, k_b, n;
};

GemmAxes gemm_axes(const NodeView& view) {
  const bool ta = view.node.integer("transA", 0) != 0, tb = view.node.integer("transB", 0) != 0;
  return {ta ? 1u : 0u, ta ? 0u : 1u, tb ? 1u : 0u, tb ? 0u : 1u};
}

std::vector<ValueInfo> infer_gemm(const NodeView& view) {
  check_rank(view, 0, 2);
  check_rank(view, 1, 2);
  const GemmAxes g = gemm_axes(view);
  const Shape &a = view.in(0).shape, &b = view.in(1).shape;
  check_equal(view, a[g.k_a], b[g.k_b], "the matrices do not fit");
  same_types(view, {0, 1, 2});
  Shape out{a[g.m], b[g.n]};
  if (view.has(2) && broadcast(view, out, view.in(2).shape) != out)
    view.fail("C of shape " + text(view.in(2).shape) + " does not broadcast to " + text(out));
  return {value(view.in(0).dtype, std::move(out))};
}

void axes_gemm(const NodeView& view, AxisMaps& maps) {
  const GemmAxes g = gemm_axes(view);
  maps.reduce(AxisMaps::in(0, g.k_a), AxisMaps::in(1, g.k_b));
  maps.same(AxisMaps::in(0, g.m), AxisMaps::out(0, 0));
  maps.same(AxisMaps::in(1, g.n), AxisMaps::out(0, 1));
  if (view.has(2)) link_broadcast(view, maps, 2);
}

double macs_gemm(const NodeView& view, const Bindings& bindings) {
  return elements(view.out(0).shape, bindings) * static_cast<double>(evaluate(view.in(0).shape[gemm_axes(view).k_a], bindings));
}

const RegisterOperator matmul{{"MatMul", "", 1, infer_matmul, axes_matmul, macs_matmul, nullptr, true}};
const RegisterOperator gemm{{"Gemm", "", 1, infer_gemm, axes_gemm, macs_gemm, nullptr, true}};

}  // namespace
}  // namespace espalier
