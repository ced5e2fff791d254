/// Look-ups by number: Gather (embeddings, and the elements of shapes), GatherElements, GatherND, ArrayFeatureExtractor.
#include <algorithm>

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

/// Axes of GatherND: `batch` leading ones that data and indices share, then `depth` that an index names.
struct Depth {
  std::size_t batch, depth;
};

/// Nothing where the indices' last length is not known.
std::optional<Depth> depth_of(const NodeView& view) {
  const Shape &data = view.in(0).shape, &indices = view.in(1).shape;
  const std::int64_t batch = view.node.integer("batch_dims", 0);
  if (indices.empty() || data.empty()) view.fail("a scalar has nothing to look up");
  if (batch < 0 || batch >= static_cast<std::int64_t>(std::min(data.size(), indices.size())))
    view.fail("batch_dims is " + std::to_string(batch) + " for shapes " + text(data) + " and " + text(indices));
  for (std::size_t i = 0; i < static_cast<std::size_t>(batch); ++i)
    check_equal(view, data[i], indices[i], "batch axis " + std::to_string(i) + " differs");
  if (!indices.back().known()) return std::nullopt;
  const std::int64_t depth = indices.back().constant();
  if (depth < 1 || depth > static_cast<std::int64_t>(data.size()) - batch)
    view.fail("indices of shape " + text(indices) + " name " + std::to_string(depth) + " axes of data of shape " + text(data));
  return Depth{static_cast<std::size_t>(batch), static_cast<std::size_t>(depth)};
}

std::vector<ValueInfo> infer_nd(const NodeView& view) {
  const ValueInfo &data = view.in(0), &indices = view.in(1);
  const auto d = depth_of(view);
  if (!d) return {{data.dtype, {}, std::nullopt, false}};
  Shape out(indices.shape.begin(), indices.shape.end() - 1);
  out.insert(out.end(), data.shape.begin() + static_cast<std::ptrdiff_t>(d->batch + d->depth), data.shape.end());
  return {value(data.dtype, std::move(out))};
}

void axes_nd(const NodeView& view, AxisMaps& maps) {
  const std::size_t rank = view.in(0).shape.size(), ids = view.in(1).shape.size();
  const auto [batch, depth] = depth_of(view).value();  // the output's rank is known
  maps.pin(AxisMaps::in(1, ids - 1), "numbers of several axes");
  for (std::size_t i = 0; i + 1 < ids; ++i) maps.same(AxisMaps::in(1, i), AxisMaps::out(0, i));
  for (std::size_t i = 0; i < rank; ++i) {
    if (i < batch)
      maps.same(AxisMaps::in(0, i), AxisMaps::out(0, i));
    else if (i < batch + depth)
      maps.pin(AxisMaps::in(0, i), "elements are looked up by number");
    else
      maps.same(AxisMaps::in(0, i), AxisMaps::out(0, i - batch - depth + ids - 1));
  }
}

/// Columns by number: the last axis of X; of a vector it makes a matrix of one row.
std::vector<ValueInfo> infer_features(const NodeView& view) {
  const ValueInfo &x = view.in(0), &indices = view.in(1);
  if (x.shape.empty()) view.fail("a scalar has no columns");
  Dim n(1);
  for (const Dim& d : indices.shape) n = n * d;
  Shape out = x.shape.size() == 1 ? Shape{1, n} : x.shape;
  out.back() = n;
  return {value(x.dtype, std::move(out))};
}

void axes_features(const NodeView& view, AxisMaps& maps) {
  const std::size_t last = view.in(0).shape.size() - 1;
  maps.pin(AxisMaps::in(0, last), "columns are looked up by number");
  pin_input(view, maps, 1, "numbers of columns");
  for (std::size_t i = 0; i < last; ++i) maps.same(AxisMaps::in(0, i), AxisMaps::out(0, i));
  maps.pin(AxisMaps::out(0, view.out(0).shape.size() - 1), "columns are looked up by number");
}

const RegisterOperator gather{{"Gather", "", 1, infer_gather, axes_gather, nullptr, nullptr, true}};
const RegisterOperator gather_elements{{"GatherElements", "", 11, infer_elements, axes_elements, nullptr, nullptr, true}};
const RegisterOperator gather_nd{{"GatherND", "", 11, infer_nd, axes_nd, nullptr, nullptr, true}};
const RegisterOperator features{{"ArrayFeatureExtractor", "ai.onnx.ml", 1, infer_features, axes_features, nullptr, nullptr, true}};

}  // namespace
}  // namespace espalier
