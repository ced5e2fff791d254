#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "formats/torchscript/script.h"

namespace espalier::torchscript {
namespace {

using Integers = std::vector<std::int64_t>;

constexpr std::int64_t kFar = std::numeric_limits<std::int32_t>::max();

/// Attribute or input `slot`: both have been where axes stand.
std::optional<Integers> axes_of(NodeScript& s, std::size_t slot, std::size_t rank) {
  std::optional<Integers> axes;
  if (s.node.has("axes")) {
    axes = s.node.integers("axes", {});
  } else if (s.has(slot)) {
    axes = s.known(slot);
    if (!axes) s.refuse("axes that are computed");
  }
  if (axes)
    for (std::int64_t& axis : *axes)
      if (axis < 0) axis += static_cast<std::int64_t>(rank);
  return axes;
}

void shape(NodeScript& s) {
  const auto rank = static_cast<std::int64_t>(s.rank(0));
  const auto bound = [&](const char* name, std::int64_t fallback) {
    const std::int64_t given = s.node.integer(name, fallback);
    return std::clamp<std::int64_t>(given < 0 ? given + rank : given, 0, rank);
  };
  const std::int64_t begin = bound("start", 0), end = bound("end", rank);
  std::vector<std::string> lengths;
  for (std::int64_t i = begin; i < end; ++i) lengths.push_back(s.length(0, static_cast<std::size_t>(i)));
  if (lengths.empty()) return s.give("torch.zeros([0], dtype=4)");
  s.give(fmt::format("torch.tensor({}, dtype=4)", list_text(lengths)));
}
void size(NodeScript& s) { s.give(fmt::format("torch.tensor(torch.numel({}), dtype=4)", s.in(0))); }

/// Zero stands for the input's own length, unless `allowzero` says that it is zero.
void reshape(NodeScript& s) {
  std::vector<std::string> lengths = s.node.has("shape") ? std::vector<std::string>() : s.integers(1);
  for (std::int64_t each : s.node.integers("shape", {})) lengths.push_back(std::to_string(each));
  const bool own = s.node.integer("allowzero", 0) == 0;
  for (std::size_t i = 0; own && i < lengths.size() && i < s.rank(0); ++i) {
    if (lengths[i] == "0") {
      lengths[i] = s.length(0, i);
    } else if (lengths[i].ends_with("]")) {  // an element of a computed list
      lengths[i] = fmt::format("{0} if {0} != 0 else {1}", lengths[i], s.length(0, i));
    }
  }
  if (lengths.empty()) return s.give(fmt::format("torch.select(torch.flatten({}), 0, 0)", s.in(0)));
  s.give(fmt::format("torch.reshape({}, {})", s.in(0), list_text(lengths)));
}

void flatten(NodeScript& s) {
  const std::size_t rank = s.rank(0);
  std::int64_t axis = s.node.integer("axis", 1);
  if (axis < 0) axis += static_cast<std::int64_t>(rank);
  if (axis == 1 && rank >= 1)
    return s.give(rank == 1 ? fmt::format("torch.unsqueeze({}, 1)", s.in(0)) : fmt::format("torch.flatten({}, 1)", s.in(0)));
  std::string front;
  for (std::int64_t i = 0; i < axis; ++i) front += (i == 0 ? "" : " * ") + s.length(0, static_cast<std::size_t>(i));
  s.give(fmt::format("torch.reshape({}, [{}, {}])", s.in(0), front.empty() ? "1" : front,
                     axis == static_cast<std::int64_t>(rank) ? "1" : "-1"));
}

void transpose(NodeScript& s) {
  Integers order = s.node.integers("perm", {});
  if (order.empty())
    for (std::size_t i = s.rank(0); i-- > 0;) order.push_back(static_cast<std::int64_t>(i));
  if (order.empty()) return s.give(s.in(0));
  s.give(fmt::format("torch.permute({}, {})", s.in(0), list_text(order)));
}

void squeeze(NodeScript& s) {
  auto axes = axes_of(s, 1, s.rank(0));
  if (!axes) {
    axes.emplace();
    for (std::size_t i = 0; i < s.rank(0); ++i) {
      const Dim& dim = s.info(0).shape[i];
      if (dim == Dim(1)) axes->push_back(static_cast<std::int64_t>(i));
    }
    if (s.rank(0) - axes->size() != s.info_out(0).shape.size()) s.refuse("which axes have length 1 is not known");
  }
  std::sort(axes->rbegin(), axes->rend());
  std::string x = s.in(0);
  for (std::int64_t axis : *axes) x = s.let(fmt::format("torch.squeeze({}, {})", x, axis));
  s.give(x);
}

void unsqueeze(NodeScript& s) {
  if (s.has(1) && !s.known(1)) {
    const std::vector<std::string> computed = s.integers(1);
    if (computed.size() != 1) s.refuse("several axes that are computed");
    return s.give(fmt::format("torch.unsqueeze({}, {})", s.in(0), computed[0]));
  }
  auto axes = axes_of(s, 1, s.info_out(0).shape.size());
  if (!axes) s.refuse("no axes");
  std::sort(axes->begin(), axes->end());
  std::string x = s.in(0);
  for (std::int64_t axis : *axes) x = s.let(fmt::format("torch.unsqueeze({}, {})", x, axis));
  s.give(x);
}

void concat(NodeScript& s) {
  std::vector<std::string> parts;
  for (std::size_t i = 0; i < s.node.inputs.size(); ++i) parts.push_back(s.in(i));
  s.give(fmt::format("torch.cat({}, {})", list_text(parts), s.axis("axis", 1, s.rank(0))));
}

/// Lengths as attribute or input; else equal parts, the last one shorter where the length does not divide.
void split(NodeScript& s) {
  const std::size_t axis = s.axis("axis", 0, s.rank(0)), parts = s.node.outputs.size();
  std::vector<std::string> lengths;
  if (s.node.has("split")) {
    for (std::int64_t each : s.node.integers("split", {})) lengths.push_back(std::to_string(each));
  } else if (s.has(1)) {
    lengths = s.integers(1);
  }
  std::string made;
  if (!lengths.empty()) {
    made = fmt::format("torch.split_with_sizes({}, {}, {})", s.in(0), list_text(lengths), axis);
  } else {
    const std::string length = s.length(0, axis);
    made = fmt::format("torch.split({0}, ({1} + {2}) // {3}, {4})", s.in(0), length, parts - 1, parts, axis);
  }
  const std::string list = s.let(made, "parts");
  for (std::size_t i = 0; i < parts; ++i) s.give(i, fmt::format("{}[{}]", list, i));
}

struct Range {
  std::vector<std::string> starts, ends, axes;
  Integers steps;
};

Range range_of(NodeScript& s) {
  Range range;
  const auto texts = [](const Integers& values) {
    std::vector<std::string> out;
    for (std::int64_t each : values) out.push_back(std::to_string(each));
    return out;
  };
  if (s.node.has("starts")) {
    range.starts = texts(s.node.integers("starts", {}));
    range.ends = texts(s.node.integers("ends", {}));
  } else {
    range.starts = s.integers(1);
    range.ends = s.integers(2);
  }
  if (!s.node.has("axes") && s.has(3) && !s.known(3)) {
    range.axes = s.integers(3);
  } else if (auto axes = axes_of(s, 3, s.rank(0))) {
    range.axes = texts(*axes);
  } else {
    for (std::size_t i = 0; i < range.starts.size(); ++i) range.axes.push_back(std::to_string(i));
  }
  range.steps.assign(range.starts.size(), 1);
  if (s.has(4)) {
    const auto steps = s.known(4);
    if (!steps) s.refuse("steps that are computed");
    range.steps = *steps;
  }
  if (range.ends.size() != range.starts.size() || range.axes.size() != range.starts.size() ||
      range.steps.size() != range.starts.size())
    s.refuse("starts, ends, axes and steps differ in number");
  return range;
}

bool is_number(const std::string& text, std::int64_t& value) {
  const bool sign = text.starts_with('-');
  if (text.size() == sign || text.size() > 19) {
    value = sign ? std::numeric_limits<std::int64_t>::min() : std::numeric_limits<std::int64_t>::max();
    return std::all_of(text.begin() + sign, text.end(), [](char c) { return c >= '0' && c <= '9'; });
  }
  if (!std::all_of(text.begin() + sign, text.end(), [](char c) { return c >= '0' && c <= '9'; })) return false;
  value = std::stoll(text);
  return true;
}

/// Backwards: LibTorch has no negative steps, so the places are listed.
std::string backwards(NodeScript& s, const std::string& x, const Range& range, std::size_t i) {
  std::int64_t start = 0, end = 0;
  if (!is_number(range.starts[i], start) || !is_number(range.ends[i], end)) s.refuse("a negative step from a computed start");
  std::int64_t axis = 0;
  if (!is_number(range.axes[i], axis) || axis < 0 || axis >= static_cast<std::int64_t>(s.rank(0)))
    s.refuse("a negative step along a computed axis");
  const Dim& dim = s.info(0).shape[static_cast<std::size_t>(axis)];
  if (dim.known()) {
    const std::int64_t length = dim.value();
    if (start < 0) start = std::max(start, -length - 1) + length;
    start = std::min(start, length - 1);
    end = end < 0 ? (end < -length ? -1 : end + length) : std::min(end, length);
    Integers places;
    for (std::int64_t at = start; at > end && at >= 0; at += range.steps[i]) places.push_back(at);
    if (places.empty()) return fmt::format("torch.slice({}, {}, 0, 0, 1)", x, axis);
    return fmt::format("torch.index_select({}, {}, torch.tensor({}, dtype=4))", x, axis, list_text(places));
  }
  if (range.steps[i] != -1 || (start != -1 && start < kFar) || end > -kFar) s.refuse("a negative step over an axis of free length");
  return fmt::format("torch.flip({}, [{}])", x, axis);
}

void slice(NodeScript& s) {
  const Range range = range_of(s);
  std::string x = s.in(0);
  for (std::size_t i = 0; i < range.starts.size(); ++i) {
    if (range.steps[i] == 0) s.refuse("a step of 0");
    if (range.steps[i] < 0) {
      x = s.let(backwards(s, x, range, i));
      continue;
    }
    std::int64_t end = 0;
    const bool far = is_number(range.ends[i], end) && end >= kFar;
    x = s.let(fmt::format("torch.slice({}, {}, {}, {}, {})", x, range.axes[i], range.starts[i],
                          far ? "9223372036854775807" : range.ends[i], range.steps[i]));
  }
  s.give(x);
}

/// Both ways: a length of one in the shape leaves the input's.
void expand(NodeScript& s) {
  if (const auto lengths = s.lengths_out(0)) return s.give(fmt::format("{}.expand({})", s.in(0), list_text(*lengths)));
  const std::string like =
      s.let(fmt::format("torch.zeros([1], dtype={}).expand({})", *type_number(s.info(0).dtype), list_text(s.integers(1))));
  s.give(fmt::format("torch.broadcast_tensors([{}, {}])[0]", s.in(0), like));
}

void tile(NodeScript& s) {
  if (s.opset() < 6) s.refuse("opset 5 and older");
  const auto times = s.integers(1);
  if (times.empty()) return s.give(s.in(0));
  s.give(fmt::format("{}.repeat({})", s.in(0), list_text(times)));
}

void constant_of_shape(NodeScript& s) {
  const auto found = s.node.attributes.find("value");
  const Tensor* value = found == s.node.attributes.end() ? nullptr : std::get_if<Tensor>(&found->second);
  std::string fill = "0.0";
  if (value) fill = is_floating(value->dtype) ? number_text(value->numbers().at(0)) : std::to_string(value->integers().at(0));
  const auto lengths = s.integers(0);
  const int type = *type_number(s.info_out(0).dtype);
  if (lengths.empty()) return s.give(fmt::format("torch.scalar_tensor({}, dtype={})", fill, type));
  s.give(fmt::format("torch.full({}, {}, dtype={})", list_text(lengths), fill, type));
}

void range(NodeScript& s) {
  const int type = *type_number(s.info_out(0).dtype);
  std::vector<std::string> bounds;
  for (std::size_t i = 0; i < 3; ++i) {
    if (s.floating(0)) {
      const Tensor* known = s.constant(i);
      bounds.push_back(known ? number_text(known->numbers().at(0)) : fmt::format("float({})", s.in(i)));
    } else {
      bounds.push_back(s.integers(i).at(0));
    }
  }
  s.give(fmt::format("torch.arange({}, {}, {}, dtype={})", bounds[0], bounds[1], bounds[2], type));
}

/// A channel's own number is the innermost part of the deep side's (DCR) or the outermost (CRD).
void depth_to_space(NodeScript& s) {
  const std::int64_t b = s.node.integer("blocksize", 0);
  if (s.node.text("mode", "DCR") == "CRD") return s.give(fmt::format("torch.pixel_shuffle({}, {})", s.in(0), b));
  const std::string n = s.length(0, 0), h = s.length(0, 2), w = s.length(0, 3), c = s.length(0, 1);
  const std::string apart =
      s.let(fmt::format("torch.reshape({}, [{}, {}, {}, {} // {}, {}, {}])", s.in(0), n, b, b, c, b * b, h, w));
  s.give(fmt::format("torch.reshape(torch.permute({}, [0, 3, 4, 1, 5, 2]), [{}, {} // {}, {} * {}, {} * {}])", apart, n, c, b * b,
                     h, b, w, b));
}
void space_to_depth(NodeScript& s) {
  const std::int64_t b = s.node.integer("blocksize", 0);
  const std::string n = s.length(0, 0), h = s.length(0, 2), w = s.length(0, 3), c = s.length(0, 1);
  const std::string apart =
      s.let(fmt::format("torch.reshape({0}, [{1}, {2}, {3} // {5}, {5}, {4} // {5}, {5}])", s.in(0), n, c, h, w, b));
  const bool last = s.node.text("mode", "DCR") == "DCR";
  s.give(fmt::format("torch.reshape(torch.permute({}, {}), [{}, {} * {}, {} // {}, {} // {}])", apart,
                     last ? "[0, 3, 5, 1, 2, 4]" : "[0, 1, 3, 5, 2, 4]", n, c, b * b, h, b, w, b));
}

void trilu(NodeScript& s) {
  const std::string k = s.has(1) ? s.integers(1).at(0) : "0";
  const bool upper = s.node.integer("upper", 1) != 0;
  s.give(fmt::format("torch.{}({}, {})", upper ? "triu" : "tril", s.in(0), k));
}

void einsum(NodeScript& s) {
  std::vector<std::string> operands;
  for (std::size_t i = 0; i < s.node.inputs.size(); ++i) operands.push_back(s.in(i));
  std::string equation;
  for (char c : s.node.text("equation", ""))
    if (c != ' ') equation += c;
  for (char c : equation)
    if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == ',' || c == '-' || c == '>' || c == '.'))
      s.refuse("its equation");
  s.give(fmt::format("torch.einsum(\"{}\", {})", equation, list_text(operands)));
}

const RegisterPhrase entries[] = {{{"Shape"}, shape},
                                  {{"Size"}, size},
                                  {{"Reshape"}, reshape},
                                  {{"Flatten"}, flatten},
                                  {{"Transpose"}, transpose},
                                  {{"Squeeze"}, squeeze},
                                  {{"Unsqueeze"}, unsqueeze},
                                  {{"Concat"}, concat},
                                  {{"Split"}, split},
                                  {{"Slice"}, slice},
                                  {{"Expand"}, expand},
                                  {{"Tile"}, tile},
                                  {{"ConstantOfShape"}, constant_of_shape},
                                  {{"Range"}, range},
                                  {{"DepthToSpace"}, depth_to_space},
                                  {{"SpaceToDepth"}, space_to_depth},
                                  {{"Trilu"}, trilu},
                                  {{"Einsum"}, einsum}};

}  // namespace
}  // namespace espalier::torchscript
