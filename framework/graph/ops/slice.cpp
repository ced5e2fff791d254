#include <algorithm>
#include <limits>

#include "graph/ops/rules.h"

namespace espalier {
namespace {

using namespace ops;

/// One sliced axis. Nothing where only running tells.
struct Part {
  std::size_t axis;
  std::optional<Dim> start, end;
  std::optional<std::int64_t> step;
};

Content list(const NodeView& view, const char* attribute, std::size_t slot) {
  if (view.node.has(attribute)) {
    const auto values = view.node.integers(attribute, {});
    return std::vector<Dim>(values.begin(), values.end());
  }
  return view.has(slot) ? view.in(slot).content : std::nullopt;
}

/// The axes that are sliced, in the order of the bounds; nothing where only running tells.
std::optional<Integers> sliced(const NodeView& view) {
  const IntegerList axes = integer_list(view, "axes", 3);
  if (axes.given) return axes.values;
  const auto n = integer_list(view, "starts", 1).count;
  if (!n) return std::nullopt;
  if (*n > view.in(0).shape.size()) view.fail(std::to_string(*n) + " bounds for a value of shape " + text(view.in(0).shape));
  Integers all(*n);
  for (std::size_t i = 0; i < *n; ++i) all[i] = static_cast<std::int64_t>(i);
  return all;
}

/// Nothing where it is not known which axes are sliced.
std::optional<std::vector<Part>> parts(const NodeView& view) {
  const std::size_t rank = view.in(0).shape.size();
  const IntegerList begins = integer_list(view, "starts", 1), stops = integer_list(view, "ends", 2);
  if (!begins.given || !stops.given) view.fail("starts or ends are missing");
  if (begins.count && stops.count && begins.count != stops.count) view.fail("starts and ends are of different lengths");
  const Content starts = list(view, "starts", 1), ends = list(view, "ends", 2);
  const auto axes = sliced(view);
  if (!axes) return std::nullopt;
  const std::size_t n = axes->size();
  IntegerList steps;
  if (view.has(4)) steps = integer_list(view, "steps", 4);
  for (const auto& count : {begins.count, stops.count, steps.count})
    if (count && *count != n) view.fail("axes or steps are not as long as starts");
  normalized(view, *axes, rank);
  std::vector<Part> out;
  for (std::size_t i = 0; i < n; ++i) {
    const std::int64_t axis = (*axes)[i];
    Part part{static_cast<std::size_t>(axis < 0 ? axis + static_cast<std::int64_t>(rank) : axis), std::nullopt, std::nullopt,
              std::nullopt};
    if (steps.values || !steps.given) part.step = steps.values ? (*steps.values)[i] : 1;
    if (part.step == 0 || part.step == std::numeric_limits<std::int64_t>::min())
      view.fail("a step of " + std::to_string(*part.step));
    if (starts) part.start = (*starts)[i];
    if (ends) part.end = (*ends)[i];
    out.push_back(part);
  }
  return out;
}

/// First index and number of indices, for an axis and bounds that are numbers (NumPy's rules).
struct Range {
  std::int64_t first, count;
};

std::optional<Range> numbers(const Part& part, const Dim& length) {
  if (!part.step || !part.start || !part.end || !part.start->known() || !part.end->known() || !length.known()) return std::nullopt;
  const std::int64_t n = length.constant(), step = *part.step;
  auto clamp = [&](std::int64_t v, std::int64_t low, std::int64_t high) { return std::clamp(v < 0 ? v + n : v, low, high); };
  if (step > 0) {
    const std::int64_t first = clamp(part.start->constant(), 0, n), last = clamp(part.end->constant(), 0, n);
    return Range{first, last > first ? (last - first - 1) / step + 1 : 0};
  }
  const std::int64_t first = clamp(part.start->constant(), -1, n - 1), last = clamp(part.end->constant(), -1, n - 1);
  return Range{first, first > last ? (first - last - 1) / -step + 1 : 0};
}

constexpr std::int64_t kToTheEnd = std::numeric_limits<std::int32_t>::max();  // what exporters write for "until the end"

/// The axis is taken as a whole, in order.
bool everything(const Part& part, const Dim& length) {
  if (part.step != 1 || !part.start || !part.end) return false;
  return *part.start == Dim(0) && (*part.end == length || (part.end->known() && part.end->constant() >= kToTheEnd));
}

/// Length after slicing, where symbols take part; they are taken to be at least 1 and bounds made of them to lie inside.
Dim symbolic_count(const NodeView& view, const Part& part, const Dim& length) {
  if (everything(part, length)) return length;
  if (!part.step || !part.start || !part.end) return opaque(view, 0, part.axis);
  const std::int64_t step = *part.step;
  auto inside = [&](const Dim& bound) { return bound.known() && bound.constant() < 0 ? length + bound : bound; };
  if (step < 0) {
    const bool reversed = step == -1 && part.start->known() &&
                          (part.start->constant() == -1 || part.start->constant() >= kToTheEnd) && part.end->known() &&
                          part.end->constant() <= -kToTheEnd;
    return reversed ? length : opaque(view, 0, part.axis);
  }
  const Dim start = inside(*part.start);
  Dim end = inside(*part.end);
  if (end.known() && end.constant() >= kToTheEnd)
    end = length;
  else if (part.end->known() && part.end->constant() > 1 && !length.known())
    return opaque(view, 0, part.axis);  // may be clipped
  const Dim count = floor_div(end - start + (step - 1), step);
  return count.known() && count.constant() < 0 ? Dim(0) : count;
}

std::vector<ValueInfo> infer_slice(const NodeView& view) {
  const ValueInfo& x = view.in(0);
  const auto all = parts(view);
  if (!all) return {value(x.dtype, opaque_shape(view, x.shape.size()))};
  Shape out = x.shape;
  Content content = x.content;
  for (const Part& part : *all) {
    const auto range = numbers(part, x.shape[part.axis]);
    out[part.axis] = range ? Dim(range->count) : symbolic_count(view, part, x.shape[part.axis]);
    if (!x.content || x.shape.size() != 1 || !range) {
      content.reset();
      continue;
    }
    content.emplace();
    for (std::int64_t i = 0; i < range->count; ++i)
      content->push_back((*x.content)[static_cast<std::size_t>(range->first + i * *part.step)]);
  }
  return {value(x.dtype, std::move(out), std::move(content))};
}

void axes_slice(const NodeView& view, AxisMaps& maps) {
  const Shape& in = view.in(0).shape;
  for (std::size_t i = 1; i < view.node.inputs.size(); ++i) pin_input(view, maps, i, "a bound of a Slice");
  const auto all = parts(view);
  if (!all) {
    pin_input(view, maps, 0, "which axes are sliced is not constant");
    pin_output(view, maps, 0, "which axes are sliced is not constant");
    return;
  }
  std::vector<bool> done(in.size(), false);
  for (const Part& part : *all) {
    done[part.axis] = true;
    const auto range = numbers(part, in[part.axis]);
    const auto a = AxisMaps::in(0, part.axis), b = AxisMaps::out(0, part.axis);
    if (everything(part, in[part.axis])) {
      maps.same(a, b);
    } else if (range && part.step == 1) {
      maps.range(a, range->first, b, 0, range->count);
    } else {
      maps.pin(a, "sliced with bounds that are not constant, or with a step");
      maps.pin(b, "sliced with bounds that are not constant, or with a step");
    }
  }
  for (std::size_t i = 0; i < in.size(); ++i)
    if (!done[i]) maps.same(AxisMaps::in(0, i), AxisMaps::out(0, i));
}

void adjust_slice(Adjust& adjust) {
  const NodeView view{adjust.graph, adjust.node, adjust.before};
  const Shape& in = view.in(0).shape;
  const auto all = parts(view);
  if (!all) return;  // every axis is pinned
  Integers starts, ends;
  bool cut = false;
  for (const Part& part : *all) {
    const auto* kept = adjust.kept(adjust.node.input(0), part.axis);
    const auto range = numbers(part, in[part.axis]);
    if (!part.start || !part.end || !part.start->known() || !part.end->known()) return;  // pinned or whole: nothing here was cut
    starts.push_back(part.start->constant());
    ends.push_back(part.end->constant());
    if (!kept || everything(part, in[part.axis]) || !range) continue;
    auto before = [&](std::int64_t bound) { return std::lower_bound(kept->begin(), kept->end(), bound) - kept->begin(); };
    starts.back() = before(range->first);
    ends.back() = before(range->first + range->count);
    cut = true;
  }
  if (!cut) return;
  if (adjust.node.has("starts")) {
    adjust.node.attributes["starts"] = starts;
    adjust.node.attributes["ends"] = ends;
    return;
  }
  // The bounds keep the index type of the other inputs.
  const bool narrow = view.in(1).dtype == DType::i32;
  auto constant = [&](const Integers& values) {
    return narrow ? Tensor::of(DType::i32, {static_cast<std::int64_t>(values.size())},
                               std::vector<std::int32_t>(values.begin(), values.end()))
                  : index_list(values);
  };
  adjust.set_constant(1, constant(starts));
  adjust.set_constant(2, constant(ends));
}

const RegisterOperator slice{{"Slice", "", 1, infer_slice, axes_slice, nullptr, adjust_slice, true}};      // bounds are attributes
const RegisterOperator slice_10{{"Slice", "", 10, infer_slice, axes_slice, nullptr, adjust_slice, true}};  // bounds are inputs

}  // namespace
}  // namespace espalier
