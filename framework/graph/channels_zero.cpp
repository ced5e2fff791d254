// Which sums over channels are exact. A mask zeroes weights, so a channel is zero right behind the layer that makes it; but a
// function with f(0) ≠ 0 brings it back, and where such channels are then summed without weights of their own (a product of two
// activations) or enter a norm, the mask is not the cut.
#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "graph/channels.h"

namespace espalier {
namespace {

/// Not zero at zero.
bool lifts_zero(const NodeView& view) {
  static const std::set<std::string_view> lifting{"Acos",
                                                  "BitwiseNot",
                                                  "Cos",
                                                  "Cosh",
                                                  "CumProd",
                                                  "Equal",
                                                  "Exp",
                                                  "Hardmax",
                                                  "HardSigmoid",
                                                  "GreaterOrEqual",
                                                  "LessOrEqual",
                                                  "Log",
                                                  "LogSoftmax",
                                                  "Not",
                                                  "OneHot",
                                                  "QuantizeLinear",
                                                  "Reciprocal",
                                                  "ReduceLogSum",
                                                  "ReduceLogSumExp",
                                                  "Sigmoid",
                                                  "Softmax",
                                                  "Softplus"};
  if (view.node.op == "Pad") {
    const auto* value = view.has(2) ? view.constant(2) : nullptr;
    const bool zero = view.has(2) ? value && is_floating(value->dtype) && value->count() == 1 && value->numbers()[0] == 0
                                  : view.node.number("value", 0) == 0;
    return view.node.text("mode", "constant") == "constant" && !zero;
  }
  if (view.node.op != "Clip") return lifting.contains(view.node.op);
  const auto bound = [&](std::size_t slot, const char* attribute) -> std::optional<double> {
    if (view.node.has(attribute)) return view.node.number(attribute, 0);
    if (!view.has(slot)) return 0;
    const auto* constant = view.constant(slot);
    return constant && is_floating(constant->dtype) && constant->count() == 1 ? std::optional(constant->numbers()[0])
                                                                              : std::nullopt;
  };
  const auto low = bound(1, "min"), high = bound(2, "max");
  return !low || !high || *low > 0 || *high < 0;
}

bool same_port(const AxisMaps::Port& a, const AxisMaps::Port& b) {
  return a.output == b.output && a.slot == b.slot && a.axis == b.axis;
}

}  // namespace

bool ChannelClasses::is_zero(const std::string& value, std::size_t axis) const {
  if (graph_.initializer(value)) return true;  // a member, or of no channel
  const auto found = zero_.find(value);
  return found != zero_.end() && axis < found->second.size() && found->second[axis];
}

/// The channels of an output's axis are zero under the mask, as far as its inputs are.
bool ChannelClasses::output_is_zero(std::size_t index, const AxisMaps::Port& out) const {
  const auto& node = graph_.nodes[index];
  if (node.op == "Attention") return out.slot == 0 && is_zero(node.input(2), out.axis);  // weights sum to one, values count
  // A weight that is rounded for training: its codes stand for zero, and the DequantizeLinear behind them gives it.
  const bool rounds = node.op == "QuantizeLinear" && graph_.initializer(node.input(0));
  if (!rounds && lifts_zero(NodeView{graph_, node, values_})) return false;
  std::vector<std::optional<bool>> inputs(node.inputs.size());  // linked: zero or not
  for (const auto& link : maps_[index].links) {
    const bool forth = same_port(link.b, out) && !link.a.output, back = same_port(link.a, out) && !link.b.output;
    if (!forth && !back) continue;
    const auto& from = forth ? link.a : link.b;
    if (from.slot >= inputs.size()) continue;
    auto& zero = inputs[from.slot];
    zero = zero.value_or(true) && is_zero(node.inputs[from.slot], from.axis);
  }
  const auto zero = [&](std::size_t slot) { return slot < inputs.size() && inputs[slot].value_or(false); };
  const auto absent_or_zero = [&](std::size_t slot) { return node.input(slot).empty() || zero(slot); };
  const auto& op = node.op;
  if (op == "Mul" || op == "RMSNormalization") return zero(0) || zero(1);
  if (op == "Div" || op == "Pow") return zero(0);
  if (op == "BatchNormalization") return zero(1) && zero(2);
  if (op == "LayerNormalization") return zero(1) && absent_or_zero(2);
  if (op == "Where") return zero(1) && zero(2);
  if (op == "Gemm" && !absent_or_zero(2)) return false;
  if (op == "Add" || op == "Sub" || op == "Min" || op == "Max" || op == "Sum" || op == "Mean") {
    for (std::size_t i = 0; i < node.inputs.size(); ++i)
      if (!zero(i)) return false;
    return true;
  }
  bool any = false;
  for (const auto& input : inputs) {
    if (input && !*input) return false;
    any = any || input;
  }
  return any;
}

void ChannelClasses::find_inexact_sums() {
  for (std::size_t i = 0; i < graph_.nodes.size(); ++i) {
    const auto& node = graph_.nodes[i];
    const auto& maps = maps_[i];
    for (std::size_t slot = 0; slot < node.outputs.size(); ++slot) {
      if (node.outputs[slot].empty()) continue;
      auto& zero = zero_[node.outputs[slot]];
      for (std::size_t axis = 0; axis < rank(node.outputs[slot]); ++axis)
        zero.push_back(output_is_zero(i, AxisMaps::out(slot, axis)));
    }
    const auto makes_output = [&](const AxisMaps::Port& port) {
      return std::any_of(maps.links.begin(), maps.links.end(), [&](const auto& link) {
        return (same_port(link.a, port) && link.b.output) || (same_port(link.b, port) && link.a.output);
      });
    };
    for (const auto& link : maps.links) {
      if (link.a.output || link.b.output || same_port(link.a, link.b) || at(i, link.a).length == 0) continue;
      if (makes_output(link.a) || makes_output(link.b)) continue;
      if (is_zero(node.input(link.a.slot), link.a.axis) || is_zero(node.input(link.b.slot), link.b.axis)) continue;
      mark(at(i, link.a), false,
           fmt::format("{} ({}) sums over channels that are not zero when they are masked", node.name, node.op));
    }
    for (const auto& m : maps.marks) {
      if (m.kind != AxisMaps::Mark::rewrite || m.port.output || !makes_output(m.port) ||
          is_zero(node.input(m.port.slot), m.port.axis))
        continue;
      mark(at(i, m.port), false,
           fmt::format("{} ({}) sums over channels that are not zero when they are masked", node.name, node.op));
    }
  }
}

}  // namespace espalier
