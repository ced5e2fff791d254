/// Look-ups by number: Gather (embeddings, and the elements of shapes) and GatherElements.
#include "graph/ops/rules.h"

namespace espalier {
namespace {

using namespace ops;

void check_indices(const NodeView& view, const Dim& length) {
  const DType type = view.in(1).dtype;
  if (type != DType::i64 && type != DType::i32 && type != DType::undefined)
    view.fail("the indices are of type " + std::string(to_string(type)));
  const auto known = view.in(1).content ? view.integers(1) : std::nullopt;
  if (!known || !length.known()) return;
  for (std::int64_t i : *known)
    if (i < -length.constant() || i >= length.constant())
      view.fail("index " + std::to_string(i) + " is outside an axis of length " + length.text());
}

std::vector<ValueInfo> infer_gather(const NodeView& view) {
  const ValueInfo &data = view.in(0), &indices = view.in(1);
  const std::size_t axis = view.axis("axis", 0, data.shape.size());
  check_indices(view, data.shape[axis]);
  Shape out(data.shape.begin(), data.shape.begin() + static_cast<std::ptrdiff_t>(axis));
  out.insert(out.end(), indices.shape.begin(), indices.shape.end());
  out.insert(out.end(), data.shape.begin() + static_cast<std::ptrdiff_t>(axis) + 1, data.shape.end());
  Content content;
  if (data.content && data.shape.size() == 1 && indices.content) {
    if (const auto known = view.integers(1)) {
      content.emplace();
      const auto n = static_cast<std::int64_t>(data.content->size());
      for (std::int64_t i : *known) content->push_back((*data.content)[static_cast<std::size_t>(i < 0 ? i + n : i)]);
    }
  }
  return {value(data.dtype, std::move(out), std::move(content))};
}

void axes_gather(const NodeView& view, AxisMaps& maps) {
  const std::size_t rank = view.in(0).shape.size(), ids = view.in(1).shape.size();
  const std::size_t axis = view.axis("axis", 0, rank);
  for (std::size_t i = 0; i < rank; ++i) {
    if (i == axis)
      maps.pin(AxisMaps::in(0, i), "rows are looked up by number");
    else
      maps.same(AxisMaps::in(0, i), AxisMaps::out(0, i < axis ? i : i + ids - 1));
  }
  for (std::size_t i = 0; i < ids; ++i) maps.same(AxisMaps::in(1, i), AxisMaps::out(0, axis + i));
}

std::vector<ValueInfo> infer_elements(const NodeView& view) {
  const ValueInfo &data = view.in(0), &indices = view.in(1);
  const std::size_t axis = view.axis("axis", 0, data.shape.size());
  check_rank(view, 1, data.shape.size());
  check_indices(view, data.shape[axis]);
  for (std::size_t i = 0; i < data.shape.size(); ++i)
    if (i != axis && data.shape[i].known() && indices.shape[i].known() && indices.shape[i].constant() > data.shape[i].constant())
      view.fail("indices of shape " + text(indices.shape) + " reach past data of shape " + text(data.shape));
  return {value(data.dtype, indices.shape)};
}

void axes_elements(const NodeView& view, AxisMaps& maps) {
  const Shape &data = view.in(0).shape, &indices = view.in(1).shape;
  const std::size_t axis = view.axis("axis", 0, data.size());
  for (std::size_t i = 0; i < data.size(); ++i) {
    maps.same(AxisMaps::in(1, i), AxisMaps::out(0, i));
    if (i == axis || data[i] != indices[i])
      maps.pin(AxisMaps::in(0, i), "elements are looked up by number");
    else
      maps.same(AxisMaps::in(0, i), AxisMaps::out(0, i));
  }
}

const RegisterOperator gather{{"Gather", "", 1, infer_gather, axes_gather, nullptr, nullptr, true}};
const RegisterOperator gather_elements{{"GatherElements", "", 11, infer_elements, axes_elements, nullptr, nullptr, true}};

}  // namespace
}  // namespace espalier
