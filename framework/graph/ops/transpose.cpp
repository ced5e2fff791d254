#include "graph/ops/rules.h"

namespace espalier {
namespace {

using namespace ops;

std::vector<std::size_t> permutation(const NodeView& view) {
  const std::size_t rank = view.in(0).shape.size();
  Integers reversed;
  for (std::size_t i = rank; i-- > 0;) reversed.push_back(static_cast<std::int64_t>(i));
  const Integers perm = view.node.integers("perm", reversed);
  if (perm.size() != rank)
    view.fail("perm has " + std::to_string(perm.size()) + " entries for a value of rank " + std::to_string(rank));
  normalized(view, perm, rank);  // in range, none twice
  std::vector<std::size_t> out;
  for (std::int64_t p : perm) out.push_back(static_cast<std::size_t>(p < 0 ? p + static_cast<std::int64_t>(rank) : p));
  return out;
}

std::vector<ValueInfo> infer_transpose(const NodeView& view) {
  const ValueInfo& x = view.in(0);
  Shape out;
  for (std::size_t p : permutation(view)) out.push_back(x.shape[p]);
  return {value(x.dtype, std::move(out), x.content)};  // content has rank 0 or 1: nothing moves
}

void axes_transpose(const NodeView& view, AxisMaps& maps) {
  const auto perm = permutation(view);
  for (std::size_t i = 0; i < perm.size(); ++i) maps.same(AxisMaps::in(0, perm[i]), AxisMaps::out(0, i));
}

const RegisterOperator transpose{{"Transpose", "", 1, infer_transpose, axes_transpose, nullptr, nullptr, true}};

}  // namespace
}  // namespace espalier
