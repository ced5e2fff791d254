#include "graph/ops/heads.h"

#include <string>

namespace espalier::ops {

std::int64_t positive(const NodeView& view, const Dim& length, const char* what) {
  if (!length.known() || length.value() < 1)
    view.fail(std::string(what) + " is " + length.text() + ", a positive number is needed");
  return length.value();
}

std::int64_t head_share(const NodeView& view, const Dim& width, std::int64_t heads, const char* what) {
  const std::int64_t n = positive(view, width, what);
  if (n % heads != 0)
    view.fail(std::string(what) + " " + width.text() + " does not divide into " + std::to_string(heads) + " heads");
  return n / heads;
}

std::int64_t heads_left(const Adjust& adjust, std::size_t slot, std::size_t axis, std::int64_t size, std::int64_t before) {
  const auto* kept = adjust.kept(adjust.node.input(slot), axis);
  if (!kept) return before;
  const auto n = static_cast<std::int64_t>(kept->size());
  if (n == 0 || n % size != 0)
    NodeView{adjust.graph, adjust.node, adjust.before}.fail(std::to_string(n) + " channels are left, which are no whole heads of " +
                                                            std::to_string(size));
  return n / size;
}

}  // namespace espalier::ops
