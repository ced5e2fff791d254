/// Pools over spatial axes: x [batch, C, spatial…].
#include "graph/ops/rules.h"

namespace espalier {
namespace {

using namespace ops;

void check_spatial(const NodeView& view) {
  if (view.in(0).shape.size() < 3) view.fail("input 0 of shape " + text(view.in(0).shape) + " has no spatial axis");
}

Integers kernel_shape(const NodeView& view) {
  if (!view.node.has("kernel_shape")) view.fail("kernel_shape is missing");
  return view.node.integers("kernel_shape", {});
}

std::vector<ValueInfo> infer_pool(const NodeView& view) {
  const ValueInfo& x = view.in(0);
  check_spatial(view);
  Shape out{x.shape[0], x.shape[1]};
  for (const Dim& d : slide(view, windows(view, kernel_shape(view)))) out.push_back(d);
  std::vector<ValueInfo> result{value(x.dtype, out)};
  if (view.node.op == "MaxPool") result.push_back(value(DType::i64, std::move(out)));  // where the maxima lie
  return result;
}

std::vector<ValueInfo> infer_global(const NodeView& view) {
  const ValueInfo& x = view.in(0);
  check_spatial(view);
  Shape out{x.shape[0], x.shape[1]};
  out.resize(x.shape.size(), Dim(1));
  return {value(x.dtype, std::move(out))};
}

/// The shape that a MaxPool with these windows was given, or a larger one that input 2 asks for.
std::vector<ValueInfo> infer_unpool(const NodeView& view) {
  const ValueInfo& x = view.in(0);
  check_spatial(view);
  check_rank(view, 1, x.shape.size());
  for (std::size_t i = 0; i < x.shape.size(); ++i) check_equal(view, view.in(1).shape[i], x.shape[i], "indices against input 0");
  const auto w = windows(view, kernel_shape(view));
  if (w.size() + 2 != x.shape.size()) view.fail("kernel_shape does not fit input 0 of shape " + text(x.shape));
  Shape out{x.shape[0], x.shape[1]};
  for (std::size_t i = 0; i < w.size(); ++i)
    out.push_back(Dim(w[i].stride) * (x.shape[i + 2] - 1) + w[i].kernel - w[i].pad_begin - w[i].pad_end);
  if (!view.has(2)) return {value(x.dtype, std::move(out))};
  check_rank(view, 2, 1);
  check_equal(view, view.in(2).shape[0], static_cast<std::int64_t>(x.shape.size()), "output_shape");
  const Content& asked = view.in(2).content;
  for (std::size_t i = 0; i < out.size(); ++i) out[i] = asked ? (*asked)[i] : opaque(view, 0, i);
  return {value(x.dtype, std::move(out))};
}

void axes_pool(const NodeView& view, AxisMaps& maps) {
  for (std::size_t i = 0; i < 2; ++i) maps.same(AxisMaps::in(0, i), AxisMaps::out(0, i));
  for (std::size_t i = 2; i < view.in(0).shape.size(); ++i) {
    maps.pin(AxisMaps::in(0, i), "spatial axis of a pool");
    maps.pin(AxisMaps::out(0, i), "spatial axis of a pool");
  }
  // Indices count through the whole batch and all channels.
  pin_output(view, maps, 1, "places of maxima");
  if (!view.node.output(1).empty()) maps.pin(AxisMaps::in(0, 1), "places of maxima count through the channels");
}

void axes_unpool(const NodeView& view, AxisMaps& maps) {
  for (std::size_t slot = 0; slot < 3; ++slot)
    pin_input(view, maps, slot, "places of maxima count through the batch and all channels");
  pin_output(view, maps, 0, "places of maxima count through the batch and all channels");
}

const bool registered = [] {
  struct Row {
    const char* name;
    std::initializer_list<int> since;
  };
  for (const Row& row :
       std::initializer_list<Row>{{"MaxPool", {1, 8, 10, 11, 12}}, {"AveragePool", {1, 7, 10, 11, 19}}, {"LpPool", {1, 2, 11, 18}}})
    for (int since : row.since) RegisterOperator({row.name, "", since, infer_pool, axes_pool, nullptr, nullptr, true});
  for (const char* name : {"GlobalAveragePool", "GlobalMaxPool"})
    RegisterOperator({name, "", 1, infer_global, axes_pool, nullptr, nullptr, true});
  for (int since : {1, 2}) RegisterOperator({"GlobalLpPool", "", since, infer_global, axes_pool, nullptr, nullptr, true});
  for (int since : {9, 11}) RegisterOperator({"MaxUnpool", "", since, infer_unpool, axes_unpool, nullptr, nullptr, true});
  return true;
}();

}  // namespace
}  // namespace espalier
