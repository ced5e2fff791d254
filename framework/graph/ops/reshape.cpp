/// Values seen under another shape: Reshape, Flatten, Squeeze, Unsqueeze.
#include <algorithm>
#include <numeric>

#include "graph/ops/rules.h"

namespace espalier {
namespace {

using namespace ops;

Dim product(const Shape& shape, std::size_t begin, std::size_t end) {
  Dim n(1);
  for (std::size_t i = begin; i < end; ++i) n = n * shape[i];
  return n;
}

/// The length that -1 stands for: equal dimensions on both sides cancel first, so that symbols survive where they can.
Dim inferred(const NodeView& view, Shape in, Shape out) {
  for (auto o = out.begin(); o != out.end();) {
    auto same = std::find(in.begin(), in.end(), *o);
    if (same == in.end() || *o == Dim(0)) {
      ++o;
      continue;
    }
    in.erase(same);
    o = out.erase(o);
  }
  const Dim total = product(in, 0, in.size()), rest = product(out, 0, out.size());
  if (rest == Dim(0)) view.fail("-1 beside a dimension of length 0");
  const Dim length = floor_div(total, rest);
  if (total.known() && rest.known() && length * rest != total)
    view.fail(total.text() + " elements do not divide into rows of " + rest.text());
  return length;
}

/// What the node asks for: an attribute before opset 5, an input since.
Content wanted_shape(const NodeView& view) {
  if (view.graph.opset() >= 5) {
    check_rank(view, 1, 1);
    return view.in(1).content;
  }
  const Integers shape = view.node.integers("shape", {});
  return std::vector<Dim>(shape.begin(), shape.end());
}

std::vector<ValueInfo> infer_reshape(const NodeView& view) {
  const ValueInfo& x = view.in(0);
  const Content wanted = wanted_shape(view);
  if (!wanted) {  // only its length may be known
    const Dim& rank = view.in(1).shape[0];
    if (!rank.known()) return {{x.dtype, {}, std::nullopt, false}};
    return {value(x.dtype, opaque_shape(view, static_cast<std::size_t>(rank.constant())))};
  }
  const bool zero_is_zero = view.node.integer("allowzero", 0) != 0;
  Shape out, others;
  std::optional<std::size_t> open;
  for (std::size_t i = 0; i < wanted->size(); ++i) {
    Dim d = (*wanted)[i];
    if (d == Dim(-1)) {
      if (open) view.fail("the shape has two entries of -1");
      open = i;
      out.push_back(1);
      continue;
    }
    if (d == Dim(0) && !zero_is_zero) {
      if (i >= x.shape.size())
        view.fail("entry " + std::to_string(i) + " of the shape copies an axis that input 0 of shape " + text(x.shape) +
                  " does not have");
      d = x.shape[i];
    }
    if (d.known() && d.constant() < 0) view.fail("the shape has the entry " + d.text());
    out.push_back(d);
    others.push_back(d);
  }
  if (open) out[*open] = inferred(view, x.shape, others);
  const auto before = element_count(x.shape), after = element_count(out);
  if (before && after && *before != *after) view.fail("shape " + text(x.shape) + " cannot become " + text(out));
  Content content = out.size() <= 1 ? x.content : std::nullopt;
  return {value(x.dtype, std::move(out), std::move(content))};
}

/// A run of neighbouring axes on both sides with the same number of elements, as small as possible.
struct Run {
  std::size_t in_begin, in_end, out_begin, out_end;
};

std::vector<Run> runs(const Shape& in, const Shape& out) {
  std::vector<Run> found;
  std::size_t i = 0, o = 0;
  while (i < in.size() || o < out.size()) {
    Run best{i, in.size(), o, out.size()};
    const std::size_t most = (in.size() - i) + (out.size() - o);
    bool done = false;
    for (std::size_t total = 1; total <= most && !done; ++total) {
      for (std::size_t take = 0; take <= std::min(total, in.size() - i) && !done; ++take) {
        if (total - take > out.size() - o) continue;
        if (product(in, i, i + take) != product(out, o, o + total - take)) continue;
        best = {i, i + take, o, o + total - take};
        done = true;
      }
    }
    found.push_back(best);
    i = best.in_end;
    o = best.out_end;
  }
  return found;
}

std::vector<std::size_t> longer_than_one(const Shape& shape, std::size_t begin, std::size_t end) {
  std::vector<std::size_t> axes;
  for (std::size_t i = begin; i < end; ++i)
    if (shape[i] != Dim(1)) axes.push_back(i);
  return axes;
}

/// One axis on one side, several on the other: the outermost of the several is cut by blocks, the inner ones are not.
void link_run(const Shape& one, std::size_t axis, bool one_is_output, const Shape& several, const std::vector<std::size_t>& axes,
              AxisMaps& maps) {
  auto port = [&](bool output, std::size_t a) { return output ? AxisMaps::out(0, a) : AxisMaps::in(0, a); };
  const Dim width = product(several, axes[0] + 1, axes.back() + 1);
  for (std::size_t k = 1; k < axes.size(); ++k) maps.pin(port(!one_is_output, axes[k]), "inner axis of a reshape");
  if (width.known() && width.constant() > 0 && one[axis].known()) {
    maps.blocks(port(one_is_output, axis), width.constant(), port(!one_is_output, axes[0]), 1);
  } else {
    maps.pin(port(one_is_output, axis), "reshape of symbolic lengths");
    maps.pin(port(!one_is_output, axes[0]), "reshape of symbolic lengths");
  }
}

void link_reshape(const NodeView& view, AxisMaps& maps) {
  const Shape &in = view.in(0).shape, &out = view.out(0).shape;
  for (const Run& run : runs(in, out)) {
    const auto a = longer_than_one(in, run.in_begin, run.in_end), b = longer_than_one(out, run.out_begin, run.out_end);
    if (a.size() == 1 && b.size() == 1) {
      maps.same(AxisMaps::in(0, a[0]), AxisMaps::out(0, b[0]));
    } else if (a.size() == 1 && b.size() > 1) {
      link_run(in, a[0], false, out, b, maps);
    } else if (b.size() == 1 && a.size() > 1) {
      link_run(out, b[0], true, in, a, maps);
    } else {
      for (auto i : a) maps.pin(AxisMaps::in(0, i), "reshape of several axes into several");
      for (auto o : b) maps.pin(AxisMaps::out(0, o), "reshape of several axes into several");
    }
  }
}

/// The shape input after a cut.
struct Target {
  Integers shape;
  bool copies = true;  ///< 0 means the input's own length (allowzero = 0)
};

/// A number where an axis is known, else what copies (0) or infers (-1) it; nothing when a second axis would have to be inferred.
/// Lengths of 0 can be written as they are where nothing is copied.
std::optional<Target> target(const Shape& in, const Shape& out) {
  for (const bool copies : {true, false}) {
    Target target{{}, copies};
    int open = 0;
    bool clash = false;
    for (std::size_t i = 0; i < out.size(); ++i) {
      const bool own = i < in.size() && in[i] == out[i];
      clash = clash || (copies && out[i] == Dim(0) && !own);
      if (out[i].known())
        target.shape.push_back(out[i].constant());
      else
        target.shape.push_back(copies && own ? 0 : (++open, -1));
    }
    const bool empty = std::find(out.begin(), out.end(), Dim(0)) != out.end();
    if (!clash && open <= 1 && (copies || open == 0 || !empty)) return target;
  }
  return std::nullopt;
}

void axes_reshape(const NodeView& view, AxisMaps& maps) {
  pin_input(view, maps, 1, "the shape of a Reshape");
  if (target(view.in(0).shape, view.out(0).shape)) {
    link_reshape(view, maps);
    return;
  }
  pin_input(view, maps, 0, "the shape of this Reshape cannot be written down after a cut");
  pin_output(view, maps, 0, "the shape of this Reshape cannot be written down after a cut");
}

void adjust_reshape(Adjust& adjust) {
  const std::string &x = adjust.node.input(0), &y = adjust.node.output(0);
  Shape in = adjust.before.find(x)->second.shape, out = adjust.before.find(y)->second.shape;
  bool cut = false;
  for (std::size_t i = 0; i < in.size(); ++i) {
    cut = cut || adjust.kept(x, i);
    in[i] = kept_length(adjust, x, i);
  }
  for (std::size_t i = 0; i < out.size(); ++i) {
    cut = cut || adjust.kept(y, i);
    out[i] = kept_length(adjust, y, i);
  }
  if (!cut) return;
  const auto wanted = target(in, out);
  if (!wanted)
    NodeView{adjust.graph, adjust.node, adjust.before}.fail("the shape after the cut cannot be written down: " + text(out));
  if (adjust.graph.opset() < 5) {
    adjust.node.attributes["shape"] = wanted->shape;
    return;
  }
  adjust.set_constant(1, index_list(wanted->shape));
  adjust.node.attributes.erase("allowzero");
  if (!wanted->copies) adjust.node.attributes["allowzero"] = std::int64_t{1};
}

std::size_t flatten_axis(const NodeView& view) {
  const auto rank = static_cast<std::int64_t>(view.in(0).shape.size());
  const std::int64_t axis = view.node.integer("axis", 1);
  if (axis < -rank || axis > rank)
    view.fail("axis " + std::to_string(axis) + " is outside a value of rank " + std::to_string(rank));
  return static_cast<std::size_t>(axis < 0 ? axis + rank : axis);
}

std::vector<ValueInfo> infer_flatten(const NodeView& view) {
  const ValueInfo& x = view.in(0);
  const std::size_t axis = flatten_axis(view);
  return {value(x.dtype, {product(x.shape, 0, axis), product(x.shape, axis, x.shape.size())})};
}

/// The axes that Squeeze removes (of the input) or Unsqueeze makes (of the output); nothing where only running tells.
std::optional<std::vector<std::size_t>> listed(const NodeView& view) {
  const Shape& in = view.in(0).shape;
  const IntegerList axes = integer_list(view, "axes", 1);
  if (view.node.op == "Unsqueeze") {
    if (!axes.given) view.fail("axes are missing");
    if (!axes.values) return std::nullopt;
    return normalized(view, *axes.values, in.size() + axes.values->size());
  }
  std::vector<std::size_t> out;
  if (axes.given) {
    if (!axes.values) return std::nullopt;
    out = normalized(view, *axes.values, in.size());
    for (std::size_t a : out)
      if (in[a].known() && in[a] != Dim(1))
        view.fail("axis " + std::to_string(a) + " of shape " + text(in) + " is not of length 1");
    return out;
  }
  for (std::size_t i = 0; i < in.size(); ++i)
    if (in[i] == Dim(1)) out.push_back(i);
  return out;
}

/// Axes that are an input: their number may be known.
ValueInfo unlisted(const NodeView& view) {
  const ValueInfo& x = view.in(0);
  const auto count = integer_list(view, "axes", 1).count;
  if (!count) return {x.dtype, {}, std::nullopt, false};
  if (view.node.op == "Unsqueeze") return value(x.dtype, opaque_shape(view, x.shape.size() + *count));
  if (*count > x.shape.size()) view.fail(std::to_string(*count) + " axes of a value of shape " + text(x.shape));
  return value(x.dtype, opaque_shape(view, x.shape.size() - *count));
}

/// Pairs of (axis of the longer shape that stays, axis of the shorter one).
std::vector<std::pair<std::size_t, std::size_t>> staying(const std::vector<std::size_t>& listed, std::size_t longer) {
  std::vector<std::pair<std::size_t, std::size_t>> out;
  for (std::size_t i = 0; i < longer; ++i)
    if (!std::binary_search(listed.begin(), listed.end(), i)) out.emplace_back(i, out.size());
  return out;
}

std::vector<ValueInfo> infer_squeeze(const NodeView& view) {
  const ValueInfo& x = view.in(0);
  const auto gone = listed(view);
  if (!gone) return {unlisted(view)};
  Shape out;
  for (auto [from, to] : staying(*gone, x.shape.size())) out.push_back(x.shape[from]);
  return {value(x.dtype, std::move(out), x.content)};
}

std::vector<ValueInfo> infer_unsqueeze(const NodeView& view) {
  const ValueInfo& x = view.in(0);
  const auto made = listed(view);
  if (!made) return {unlisted(view)};
  Shape out(x.shape.size() + made->size(), Dim(1));
  for (auto [to, from] : staying(*made, out.size())) out[to] = x.shape[from];
  Content content = out.size() <= 1 ? x.content : std::nullopt;
  return {value(x.dtype, std::move(out), std::move(content))};
}

/// Squeeze and Unsqueeze are each other seen from the other side.
void axes_squeeze(const NodeView& view, AxisMaps& maps) {
  const bool adds = view.node.op == "Unsqueeze";
  const auto axes = listed(view);
  pin_input(view, maps, 1, "a list of axes");
  if (!axes) {
    pin_input(view, maps, 0, "the axes of this " + view.node.op + " are not constant");
    pin_output(view, maps, 0, "the axes of this " + view.node.op + " are not constant");
    return;
  }
  for (auto [longer, shorter] : staying(*axes, (adds ? view.out(0) : view.in(0)).shape.size()))
    maps.same(AxisMaps::in(0, adds ? shorter : longer), AxisMaps::out(0, adds ? longer : shorter));
}

const RegisterOperator reshape{{"Reshape", "", 1, infer_reshape, axes_reshape, nullptr, adjust_reshape, true}};
const RegisterOperator reshape_5{{"Reshape", "", 5, infer_reshape, axes_reshape, nullptr, adjust_reshape, true}};
const RegisterOperator flatten{{"Flatten", "", 1, infer_flatten, link_reshape, nullptr, nullptr, true}};
// From 13 on the axes are an input; integer_list() takes whichever is there.
const RegisterOperator squeeze{{"Squeeze", "", 1, infer_squeeze, axes_squeeze, nullptr, nullptr, true}};
const RegisterOperator squeeze_13{{"Squeeze", "", 13, infer_squeeze, axes_squeeze, nullptr, nullptr, true}};
const RegisterOperator unsqueeze{{"Unsqueeze", "", 1, infer_unsqueeze, axes_squeeze, nullptr, nullptr, true}};
const RegisterOperator unsqueeze_13{{"Unsqueeze", "", 13, infer_unsqueeze, axes_squeeze, nullptr, nullptr, true}};

}  // namespace
}  // namespace espalier
