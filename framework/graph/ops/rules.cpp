#include "graph/ops/rules.h"

#include <algorithm>

#include "sdk/error.h"

namespace espalier::ops {
namespace {

constexpr std::size_t kHighestRank = 64;  // as in NumPy

}  // namespace

ValueInfo value(DType type, Shape shape, Content content) { return {type, std::move(shape), std::move(content), true}; }

Dim opaque(const NodeView& view, std::size_t slot, std::size_t axis) {
  return Dim::symbol("length(" + view.node.output(slot) + "." + std::to_string(axis) + ")");
}

void register_on_values(const char* name, int since, std::vector<ValueInfo> (*infer)(const NodeView&)) {
  Operator op;
  op.name = name;
  op.since = since;
  op.infer = infer;
  op.sequences = true;
  RegisterOperator(std::move(op));
}

ValueInfo common(const NodeView& view, std::size_t slot, const ValueInfo& a, const ValueInfo& b) {
  ValueInfo out = a;
  out.content.reset();
  if (a.dtype == DType::undefined || b.dtype == DType::undefined) {  // nothing is known of one of them
    out.dtype = DType::undefined;
    out.rank_known = false;
    out.shape.clear();
    return out;
  }
  if (a.sequence != b.sequence) view.fail("a value is a sequence in one place and a tensor in another");
  if (a.dtype != b.dtype)
    view.fail("a value is " + std::string(to_string(a.dtype)) + " in one place and " + std::string(to_string(b.dtype)) +
              " in another");
  if (!a.rank_known || !b.rank_known || a.shape.size() != b.shape.size()) {
    out.rank_known = false;
    out.shape.clear();
    return out;
  }
  for (std::size_t i = 0; i < out.shape.size(); ++i)
    if (a.shape[i] != b.shape[i]) out.shape[i] = opaque(view, slot, i);
  return out;
}

Shape broadcast(const NodeView& view, const Shape& a, const Shape& b) {
  const std::size_t rank = std::max(a.size(), b.size());
  Shape out(rank);
  for (std::size_t i = 0; i < rank; ++i) {
    const Dim x = i < rank - a.size() ? Dim(1) : a[i - (rank - a.size())];
    const Dim y = i < rank - b.size() ? Dim(1) : b[i - (rank - b.size())];
    if (x == y || y == Dim(1)) {
      out[i] = x;
    } else if (x == Dim(1)) {
      out[i] = y;
    } else if (x.known() && y.known()) {
      view.fail("shapes " + text(a) + " and " + text(b) + " do not broadcast");
    } else if (x.known() || y.known()) {
      out[i] = x.known() ? x : y;
    } else {
      out[i] = Dim::symbol("broadcast(" + std::min(x.text(), y.text()) + ", " + std::max(x.text(), y.text()) + ")");
    }
  }
  return out;
}

void same_types(const NodeView& view, const std::vector<std::size_t>& inputs) {
  DType first = DType::undefined;
  for (std::size_t i : inputs) {
    if (!view.has(i)) continue;
    const DType type = view.in(i).dtype;
    if (type == DType::undefined) continue;
    if (first == DType::undefined) first = type;
    if (type != first)
      view.fail("inputs of types " + std::string(to_string(first)) + " and " + std::string(to_string(type)) +
                " do not go together");
  }
}

void check_numbers(const NodeView& view, std::size_t slot, NumberTypes which) {
  const DType type = view.in(slot).dtype;
  if (type == DType::undefined) return;
  const bool floating = is_floating(type) && bits(type) >= 16;
  const bool integer = type == DType::i8 || type == DType::u8 || type == DType::i16 || type == DType::u16 || type == DType::i32 ||
                       type == DType::u32 || type == DType::i64 || type == DType::u64;
  if ((floating && which != NumberTypes::integers) || (integer && which != NumberTypes::floats)) return;
  view.refuse("input " + std::to_string(slot) + " is of type " + std::string(to_string(type)));
}

void check_rank(const NodeView& view, std::size_t input, std::size_t rank) {
  if (view.in(input).shape.size() != rank)
    view.fail("input " + std::to_string(input) + " has shape " + text(view.in(input).shape) + ", rank " + std::to_string(rank) +
              " is needed");
}

void check_equal(const NodeView& view, const Dim& a, const Dim& b, const std::string& what) {
  if (a.known() && b.known() && a != b) view.fail(what + ": " + a.text() + " does not fit " + b.text());
}

std::vector<std::size_t> normalized(const NodeView& view, const Integers& axes, std::size_t rank) {
  std::vector<std::size_t> out;
  const auto r = static_cast<std::int64_t>(rank);
  for (std::int64_t a : axes) {
    if (a < -r || a >= r) view.fail("axis " + std::to_string(a) + " is outside a value of rank " + std::to_string(r));
    out.push_back(static_cast<std::size_t>(a < 0 ? a + r : a));
  }
  std::sort(out.begin(), out.end());
  if (std::adjacent_find(out.begin(), out.end()) != out.end()) view.fail("an axis is named twice");
  return out;
}

IntegerList integer_list(const NodeView& view, const char* attribute, std::size_t slot) {
  IntegerList list;
  if (view.node.has(attribute)) {
    list.values = view.node.integers(attribute, {});
  } else if (view.has(slot)) {
    const Shape& shape = view.in(slot).shape;
    if (shape.size() > 1)
      view.fail("input " + std::to_string(slot) + " (" + attribute + ") has shape " + text(shape) + ", a list is needed");
    list.values = view.integers(slot);
    if (shape.empty()) list.count = 1;
    if (!shape.empty() && shape[0].known()) list.count = static_cast<std::size_t>(shape[0].constant());
  } else {
    return list;
  }
  list.given = true;
  if (list.values) list.count = list.values->size();
  return list;
}

std::optional<Integers> attribute_or_input(const NodeView& view, const char* attribute, std::size_t slot) {
  IntegerList list = integer_list(view, attribute, slot);
  if (list.given && !list.values) view.fail("input " + std::to_string(slot) + " (" + attribute + ") is not a constant");
  return std::move(list.values);
}

Shape opaque_shape(const NodeView& view, std::size_t rank) {
  if (rank > kHighestRank) view.fail("an output of rank " + std::to_string(rank));
  Shape shape;
  for (std::size_t i = 0; i < rank; ++i) shape.push_back(opaque(view, 0, i));
  return shape;
}

void link_all(const NodeView& view, AxisMaps& maps, std::size_t slot, std::size_t out) {
  for (std::size_t i = 0; i < view.in(slot).shape.size(); ++i) maps.same(AxisMaps::in(slot, i), AxisMaps::out(out, i));
}

void link_broadcast(const NodeView& view, AxisMaps& maps, std::size_t slot) {
  const Shape &in = view.in(slot).shape, &out = view.out(0).shape;
  for (std::size_t i = 0; i < in.size(); ++i) {
    const std::size_t o = i + out.size() - in.size();
    if (in[i] == out[o]) {
      if (in[i] != Dim(1)) maps.same(AxisMaps::in(slot, i), AxisMaps::out(0, o));
    } else if (in[i] != Dim(1)) {  // a symbol that may turn out to be 1
      maps.pin(AxisMaps::in(slot, i), "broadcast of " + in[i].text() + " against " + out[o].text() + " is not decided");
      maps.pin(AxisMaps::out(0, o), "broadcast of " + in[i].text() + " against " + out[o].text() + " is not decided");
    }
  }
}

void pin_input(const NodeView& view, AxisMaps& maps, std::size_t slot, const std::string& reason) {
  if (!view.has(slot)) return;
  for (std::size_t i = 0; i < view.in(slot).shape.size(); ++i) maps.pin(AxisMaps::in(slot, i), reason);
}

void pin_output(const NodeView& view, AxisMaps& maps, std::size_t slot, const std::string& reason) {
  if (view.node.output(slot).empty()) return;
  for (std::size_t i = 0; i < view.out(slot).shape.size(); ++i) maps.pin(AxisMaps::out(slot, i), reason);
}

std::vector<Window> windows(const NodeView& view, const Integers& kernel) {
  const std::size_t n = kernel.size();
  const auto strides = view.node.integers("strides", Integers(n, 1)), dilations = view.node.integers("dilations", Integers(n, 1));
  const auto pads = view.node.integers("pads", Integers(2 * n, 0));
  if (strides.size() != n || dilations.size() != n || pads.size() != 2 * n)
    view.fail("strides, dilations or pads do not have the length that " + std::to_string(n) + " spatial axes need");
  std::vector<Window> out(n);
  for (std::size_t i = 0; i < n; ++i) {
    out[i] = {kernel[i], strides[i], dilations[i], pads[i], pads[n + i]};
    if (kernel[i] < 1 || strides[i] < 1 || dilations[i] < 1) view.fail("kernel, strides and dilations must be positive");
    if (pads[i] < 0 || pads[n + i] < 0) view.fail("pads must not be negative");
  }
  return out;
}

Shape slide(const NodeView& view, const std::vector<Window>& windows) {
  const Shape& in = view.in(0).shape;
  if (in.size() != windows.size() + 2)
    view.fail("input 0 has shape " + text(in) + ", the kernel has " + std::to_string(windows.size()) + " spatial axes");
  const std::string pad = view.node.text("auto_pad", "NOTSET");
  const bool ceil = view.node.integer("ceil_mode", 0) != 0;
  Shape out;
  for (std::size_t i = 0; i < windows.size(); ++i) {
    const Window& w = windows[i];
    const Dim& length = in[i + 2];
    if (pad == "SAME_UPPER" || pad == "SAME_LOWER") {
      out.push_back(floor_div(length + (w.stride - 1), w.stride));
      continue;
    }
    if (pad != "NOTSET" && pad != "VALID") view.fail("auto_pad is '" + pad + "'");
    const bool explicit_pads = pad == "NOTSET";
    const Dim reach = Dim(w.dilation) * (w.kernel - 1) + 1;
    const Dim begin(explicit_pads ? w.pad_begin : 0), end(explicit_pads ? w.pad_end : 0);
    Dim steps = floor_div(length + begin + end - reach + (ceil ? w.stride - 1 : 0), w.stride) + 1;
    // A last window that would start in the padding at the end is left out.
    if (ceil && steps.known() && length.known() && ((steps - 1) * w.stride).value() >= (length + begin).value()) steps = steps - 1;
    if (steps.known() && steps.value() < 1)
      view.fail("the window does not fit into spatial axis " + std::to_string(i) + " of " + text(in));
    out.push_back(steps);
  }
  return out;
}

double elements(const Shape& shape, const Bindings& bindings) {
  double n = 1;
  for (const Dim& d : shape) n *= static_cast<double>(evaluate(d, bindings));
  return n;
}

Tensor index_list(const Integers& values) { return Tensor::of(DType::i64, {static_cast<std::int64_t>(values.size())}, values); }

Dim kept_length(const Adjust& adjust, const std::string& name, std::size_t axis) {
  if (auto* kept = adjust.kept(name, axis)) return static_cast<std::int64_t>(kept->size());
  auto it = adjust.before.find(name);
  if (it == adjust.before.end() || axis >= it->second.shape.size())
    throw Error(ErrorCode::internal, "value '" + name + "' has no axis " + std::to_string(axis), adjust.node.name);
  return it->second.shape[axis];
}

}  // namespace espalier::ops
