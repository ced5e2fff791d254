#include "graph/ops/rules.h"

namespace espalier {
namespace {

using namespace ops;

/// Rows of [batch, class, box]: as many as are found.
std::vector<ValueInfo> infer_suppression(const NodeView& view) {
  const Shape &boxes = view.in(0).shape, &scores = view.in(1).shape;
  check_rank(view, 0, 3);
  check_rank(view, 1, 3);
  check_equal(view, boxes[2], 4, "corners of a box");
  check_equal(view, boxes[0], scores[0], "the batches of boxes and scores differ");
  check_equal(view, boxes[1], scores[2], "the numbers of boxes and scores differ");
  for (std::size_t slot = 2; slot < 5; ++slot) {
    if (!view.has(slot)) continue;
    if (const auto n = element_count(view.in(slot).shape); n && *n > 1)
      view.fail("input " + std::to_string(slot) + " has shape " + text(view.in(slot).shape) + ", one number is needed");
  }
  return {value(DType::i64, {opaque(view, 0, 0), 3})};
}

const RegisterOperator suppression{{"NonMaxSuppression", "", 10, infer_suppression, nullptr, nullptr, nullptr, false, {2, 3, 4}}};

}  // namespace
}  // namespace espalier
