/// CausalConvWithState (opset 27): a depthwise convolution that looks back. x [batch, channels, length], weight [channels, 1, k],
/// optional bias [channels] and past_state [batch, channels, k - 1] → output like x, and the state after it.
#include "graph/ops/rules.h"

namespace espalier {
namespace {

using namespace ops;

std::vector<ValueInfo> infer_causal_conv(const NodeView& view) {
  check_rank(view, 0, 3);
  check_rank(view, 1, 3);
  const ValueInfo& x = view.in(0);
  const Shape& w = view.in(1).shape;
  check_equal(view, w[0], x.shape[1], "filters against channels");
  check_equal(view, w[1], 1, "the weight's second axis");
  if (w[2].known() && w[2].value() < 1) view.fail("the kernel is empty");
  same_types(view, {0, 1, 2, 3});
  if (view.has(2)) {
    check_rank(view, 2, 1);
    check_equal(view, view.in(2).shape[0], x.shape[1], "bias against channels");
  }
  const Shape state{x.shape[0], x.shape[1], w[2] - 1};
  if (view.has(3)) {
    check_rank(view, 3, 3);
    for (std::size_t i = 0; i < 3; ++i)
      check_equal(view, view.in(3).shape[i], state[i], "axis " + std::to_string(i) + " of past_state");
  }
  const std::string activation = view.node.text("activation", "none");
  if (activation != "none" && activation != "silu" && activation != "swish") view.fail("activation is '" + activation + "'");
  return {value(x.dtype, x.shape), value(x.dtype, state)};
}

void axes_causal_conv(const NodeView& view, AxisMaps& maps) {
  const auto x = AxisMaps::in(0, 1), filters = AxisMaps::in(1, 0);
  const char* along = "positions of a causal convolution";
  maps.same(filters, AxisMaps::out(0, 1));
  maps.same(x, filters);
  maps.same(AxisMaps::in(0, 0), AxisMaps::out(0, 0));
  for (auto port : {AxisMaps::in(0, 2), AxisMaps::in(1, 2), AxisMaps::out(0, 2)}) maps.pin(port, along);
  if (view.has(2)) {
    maps.same(AxisMaps::in(2, 0), filters);
    maps.same(AxisMaps::in(2, 0), AxisMaps::out(0, 1));
  }
  const auto state = [&](AxisMaps::Port (*port)(std::size_t, std::size_t), std::size_t slot) {
    maps.same(x, port(slot, 1));
    maps.same(AxisMaps::in(0, 0), port(slot, 0));
    maps.pin(port(slot, 2), along);
  };
  if (view.has(3)) state(AxisMaps::in, 3);
  if (view.node.output(1).empty()) return;
  state(AxisMaps::out, 1);
  if (view.has(3)) maps.same(AxisMaps::in(3, 1), AxisMaps::out(1, 1));
}

double macs_causal_conv(const NodeView& view, const Bindings& bindings) {
  return elements(view.in(0).shape, bindings) * static_cast<double>(evaluate(view.in(1).shape[2], bindings));
}

const RegisterOperator causal_conv{
    {"CausalConvWithState", "", 27, infer_causal_conv, axes_causal_conv, macs_causal_conv, nullptr, true}};

}  // namespace
}  // namespace espalier
