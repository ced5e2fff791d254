/// Signals: Fourier transforms of [..., length, 1 or 2] (real, or real and imaginary parts), windows, and the mel scale.
#include "graph/ops/rules.h"

namespace espalier {
namespace {

using namespace ops;

/// Element of a scalar input (or a list of one), where it is known.
std::optional<Dim> scalar(const NodeView& view, std::size_t slot) {
  const ValueInfo& info = view.in(slot);
  const auto count = element_count(info.shape);
  if (count && *count != 1) view.fail("input " + std::to_string(slot) + " of shape " + text(info.shape) + " is no single number");
  if (info.content && info.content->size() == 1) return info.content->front();
  const auto known = view.integers(slot);
  return known && known->size() == 1 ? std::optional<Dim>((*known)[0]) : std::nullopt;
}

/// A length that input `slot` says; nothing where it is not known.
std::optional<Dim> length(const NodeView& view, std::size_t slot) {
  const auto given = scalar(view, slot);
  if (given && given->known() && given->value() < 1)
    view.fail("input " + std::to_string(slot) + " is " + given->text() + ", a length is needed");
  return given;
}

bool check_parts(const NodeView& view) {
  const Dim& parts = view.in(0).shape.back();
  if (!parts.known()) view.refuse("it is not known whether the signal of shape " + text(view.in(0).shape) + " is complex");
  if (parts != Dim(1) && parts != Dim(2))
    view.fail("the last axis of shape " + text(view.in(0).shape) + " is neither 1 nor 2 long");
  return parts == Dim(2);
}

/// The axis of a DFT: an attribute until opset 19, then an input, which need not be known.
std::optional<std::size_t> transformed(const NodeView& view) {
  const auto rank = static_cast<std::int64_t>(view.in(0).shape.size());
  if (rank < 2) view.fail("input 0 of shape " + text(view.in(0).shape) + " has no axis for a signal and one for its parts");
  std::int64_t axis = -2;
  if (view.graph.opset() < 20) {
    axis = view.node.integer("axis", 1);
  } else if (view.has(2)) {
    const auto given = scalar(view, 2);
    if (!given || !given->known()) return std::nullopt;
    axis = given->value();
  }
  if (axis < -rank || axis >= rank || axis == -1 || axis == rank - 1)
    view.fail("axis " + std::to_string(axis) + " is no axis of a signal of shape " + text(view.in(0).shape));
  return static_cast<std::size_t>(axis < 0 ? axis + rank : axis);
}

std::vector<ValueInfo> infer_dft(const NodeView& view) {
  const ValueInfo& x = view.in(0);
  const auto axis = transformed(view);
  const bool complex = check_parts(view), one_sided = view.node.integer("onesided", 0) != 0,
             inverse = view.node.integer("inverse", 0) != 0;
  if (one_sided && complex != inverse)
    view.fail(inverse ? "a one-sided inverse transform needs a complex input" : "a one-sided transform needs a real input");
  const auto given = view.has(1) ? length(view, 1) : std::nullopt;
  Shape out = x.shape;
  out.back() = one_sided && inverse ? 1 : 2;
  if (!axis) {
    for (std::size_t i = 0; i + 1 < out.size(); ++i) out[i] = opaque(view, 0, i);
    return {value(x.dtype, std::move(out))};
  }
  Dim points = one_sided && inverse ? (x.shape[*axis] - 1) * 2 : x.shape[*axis];
  if (view.has(1)) points = given.value_or(opaque(view, 0, *axis));
  out[*axis] = one_sided && !inverse ? floor_div(points, 2) + 1 : points;
  return {value(x.dtype, std::move(out))};
}

void axes_dft(const NodeView& view, AxisMaps& maps) {
  const auto axis = transformed(view);
  const std::size_t rank = view.in(0).shape.size();
  for (std::size_t i = 0; i < rank; ++i) {
    if (axis && i != *axis && i != rank - 1) {
      maps.same(AxisMaps::in(0, i), AxisMaps::out(0, i));
      continue;
    }
    maps.pin(AxisMaps::in(0, i), "axis of a Fourier transform");
    maps.pin(AxisMaps::out(0, i), "axis of a Fourier transform");
  }
  pin_input(view, maps, 1, "length of a Fourier transform");
  pin_input(view, maps, 2, "axis of a Fourier transform");
}

/// The signal [batch, length, 1 or 2] in pieces: [batch, frames, frequencies, 2].
std::vector<ValueInfo> infer_stft(const NodeView& view) {
  const ValueInfo& x = view.in(0);
  check_rank(view, 0, 3);
  const bool complex = check_parts(view), one_sided = view.node.integer("onesided", 1) != 0;
  if (complex && one_sided) view.refuse("a one-sided transform of a complex signal is not supported");
  const auto step = length(view, 1);
  Dim frame = x.shape[1];
  if (view.has(2)) {
    check_rank(view, 2, 1);
    frame = view.in(2).shape[0];
  }
  if (view.has(3)) {
    const auto given = length(view, 3);
    if (given && view.has(2)) check_equal(view, *given, frame, "frame_length against the window");
    if (!view.has(2)) frame = given.value_or(opaque(view, 0, 2));
  }
  if (x.shape[1].known() && frame.known() && x.shape[1].value() < frame.value())
    view.fail("a frame of " + frame.text() + " does not fit a signal of " + x.shape[1].text());
  const Dim frames = step ? floor_div(x.shape[1] - frame, *step) + 1 : opaque(view, 0, 1);
  return {value(x.dtype, {x.shape[0], frames, one_sided ? floor_div(frame, 2) + 1 : frame, 2})};
}

void axes_stft(const NodeView& view, AxisMaps& maps) {
  maps.same(AxisMaps::in(0, 0), AxisMaps::out(0, 0));
  for (std::size_t i = 1; i < 3; ++i) maps.pin(AxisMaps::in(0, i), "axis of a Fourier transform");
  for (std::size_t i = 1; i < 4; ++i) maps.pin(AxisMaps::out(0, i), "axis of a Fourier transform");
  for (std::size_t slot = 1; slot < 4; ++slot) pin_input(view, maps, slot, "setting of a Fourier transform");
}

DType made(const NodeView& view) {
  const auto given = view.node.integer("output_datatype", static_cast<std::int64_t>(DType::f32));
  const auto type = given > 0 && given <= static_cast<std::int64_t>(DType::bf16) ? static_cast<DType>(given) : DType::undefined;
  switch (type) {
    case DType::undefined:
    case DType::string:
    case DType::boolean:
    case DType::c64:
    case DType::c128:
      view.fail("output_datatype is " + std::to_string(given));
    default:
      return type;
  }
}

std::vector<ValueInfo> infer_window(const NodeView& view) {
  const auto size = scalar(view, 0);
  if (size && size->known() && size->value() < 0) view.fail("the size is " + size->text());
  return {value(made(view), {size.value_or(opaque(view, 0, 0))})};
}

void axes_made(const NodeView& view, AxisMaps& maps) {
  for (std::size_t slot = 0; slot < view.node.inputs.size(); ++slot) pin_input(view, maps, slot, "a setting of " + view.node.op);
  pin_output(view, maps, 0, "made by " + view.node.op);
}

std::vector<ValueInfo> infer_mel(const NodeView& view) {
  for (std::size_t slot = 3; slot < 5; ++slot) scalar(view, slot);
  const auto bins = length(view, 0), points = length(view, 1);
  length(view, 2);
  return {value(made(view), {points ? floor_div(*points, 2) + 1 : opaque(view, 0, 0), bins.value_or(opaque(view, 0, 1))})};
}

const bool registered = [] {
  for (int since : {17, 20}) RegisterOperator({"DFT", "", since, infer_dft, axes_dft, nullptr, nullptr, true});
  RegisterOperator({"STFT", "", 17, infer_stft, axes_stft, nullptr, nullptr, true});
  for (const char* name : {"BlackmanWindow", "HannWindow", "HammingWindow"})
    RegisterOperator({name, "", 17, infer_window, axes_made, nullptr, nullptr});
  RegisterOperator({"MelWeightMatrix", "", 17, infer_mel, axes_made, nullptr, nullptr, false, {3, 4}});
  return true;
}();

}  // namespace
}  // namespace espalier
