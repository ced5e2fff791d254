/// Pools over spatial axes: x [batch, C, spatial…].
#include "graph/ops/rules.h"

namespace espalier {
namespace {

using namespace ops;

std::vector<ValueInfo> infer_pool(const NodeView& view) {
  const ValueInfo& x = view.in(0);
  if (x.shape.size() < 3) view.fail("input 0 of shape " + text(x.shape) + " has no spatial axis");
  if (!view.node.has("kernel_shape")) view.fail("kernel_shape is missing");
  Shape out{x.shape[0], x.shape[1]};
  for (const Dim& d : slide(view, windows(view, view.node.integers("kernel_shape", {})))) out.push_back(d);
  std::vector<ValueInfo> result{value(x.dtype, out)};
  if (view.node.op == "MaxPool") result.push_back(value(DType::i64, std::move(out)));  // where the maxima lie
  return result;
}

std::vector<ValueInfo> infer_global(const NodeView& view) {
  const ValueInfo& x = view.in(0);
  if (x.shape.size() < 3) view.fail("input 0 of shape " + text(x.shape) + " has no spatial axis");
  Shape out{x.shape[0], x.shape[1]};
  out.resize(x.shape.size(), Dim(1));
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

const bool registered = [] {
  for (int since : {1, 8, 10, 11, 12}) RegisterOperator({"MaxPool", "", since, infer_pool, axes_pool, nullptr, nullptr, true});
  for (int since : {7, 10, 11, 19}) RegisterOperator({"AveragePool", "", since, infer_pool, axes_pool, nullptr, nullptr, true});
  RegisterOperator({"GlobalAveragePool", "", 1, infer_global, axes_pool, nullptr, nullptr, true});
  return true;
}();

}  // namespace
}  // namespace espalier
