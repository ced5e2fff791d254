/// Sequences of tensors and optional values. A sequence is told by what its elements have in common.
#include <algorithm>

#include "graph/ops/rules.h"

namespace espalier {
namespace {

using namespace ops;

const ValueInfo& sequence(const NodeView& view, std::size_t i) {
  const ValueInfo& info = view.in(i);
  if (!info.sequence && info.dtype != DType::undefined) view.fail("input " + std::to_string(i) + " is no sequence");
  return info;
}

ValueInfo element(const NodeView& view, std::size_t i) {
  ValueInfo info = sequence(view, i);
  info.sequence = false;
  return info;
}

ValueInfo as_sequence(ValueInfo info) {
  info.sequence = true;
  info.content.reset();
  return info;
}

ValueInfo unranked(DType type) {
  ValueInfo info;
  info.dtype = type;
  info.rank_known = false;
  return info;
}

std::vector<ValueInfo> infer_construct(const NodeView& view) {
  if (view.node.inputs.empty()) view.fail("a sequence needs an element");
  ValueInfo all = view.in(0);
  for (std::size_t i = 1; i < view.node.inputs.size(); ++i) all = common(view, 0, all, view.in(i));
  std::vector<ValueInfo> out;
  out.push_back(as_sequence(std::move(all)));
  return out;
}

std::vector<ValueInfo> infer_empty(const NodeView& view) {
  const std::int64_t type = view.node.integer("dtype", static_cast<std::int64_t>(DType::f32));
  if (type <= 0 || type > static_cast<std::int64_t>(DType::c128) + 16)
    view.fail("dtype " + std::to_string(type) + " is no element type");
  return {as_sequence(unranked(static_cast<DType>(type)))};
}

std::vector<ValueInfo> infer_insert(const NodeView& view) {
  return {as_sequence(common(view, 0, sequence(view, 0), as_sequence(view.in(1))))};
}

std::vector<ValueInfo> infer_erase(const NodeView& view) { return {sequence(view, 0)}; }
std::vector<ValueInfo> infer_at(const NodeView& view) { return {element(view, 0)}; }
std::vector<ValueInfo> infer_length(const NodeView& view) {
  sequence(view, 0);
  return {value(DType::i64, {})};
}

std::vector<ValueInfo> infer_split(const NodeView& view) {
  const ValueInfo& x = view.in(0);
  if (x.sequence) view.fail("input 0 is a sequence");
  if (!x.rank_known) return {as_sequence(unranked(x.dtype))};
  const std::size_t axis = view.axis("axis", 0, x.shape.size());
  Shape shape = x.shape;
  if (!view.has(1) && view.node.integer("keepdims", 1) == 0) {
    shape.erase(shape.begin() + static_cast<std::ptrdiff_t>(axis));
  } else if (!view.has(1)) {
    shape[axis] = 1;
  } else {
    const auto split = view.integers(1);
    const bool equal =
        split && !split->empty() && std::all_of(split->begin(), split->end(), [&](auto n) { return n == split->front(); });
    const bool even = equal && split->front() > 0 && shape[axis].known() &&
                      (view.in(1).shape.size() == 1 || shape[axis].value() % split->front() == 0);
    shape[axis] = even ? Dim(split->front()) : opaque(view, 0, axis);
  }
  return {as_sequence(value(x.dtype, std::move(shape)))};
}

std::vector<ValueInfo> infer_concat(const NodeView& view) {
  ValueInfo x = element(view, 0);
  if (!view.node.has("axis")) view.fail("attribute axis is missing");
  if (!x.rank_known) return {x};
  const bool fresh = view.node.integer("new_axis", 0) != 0;
  const std::size_t axis = view.axis("axis", 0, x.shape.size() + (fresh ? 1 : 0));
  if (fresh)
    x.shape.insert(x.shape.begin() + static_cast<std::ptrdiff_t>(axis), opaque(view, 0, axis));
  else
    x.shape[axis] = opaque(view, 0, axis);
  return {x};
}

/// The body sees one element of each sequence, and tensors as they are.
std::vector<ValueInfo> infer_map(const NodeView& view) {
  const auto found = view.node.attributes.find("body");
  const auto* body = found == view.node.attributes.end() ? nullptr : std::get_if<std::shared_ptr<Graph>>(&found->second);
  if (!body || !*body) view.fail("attribute body is missing, or no graph");
  std::vector<ValueInfo> inputs, out;
  for (std::size_t i = 0; i < view.node.inputs.size(); ++i) inputs.push_back(view.in(i).sequence ? element(view, i) : view.in(i));
  const ValueMap values = infer_body(**body, inputs, view.values);
  for (const Value& output : (*body)->outputs) {
    ValueInfo info = values.at(output.name);
    for (std::size_t axis = 0; axis < info.shape.size(); ++axis)
      if (!info.shape[axis].known()) info.shape[axis] = opaque(view, out.size(), axis);
    out.push_back(as_sequence(std::move(info)));
  }
  return out;
}

std::vector<ValueInfo> infer_optional(const NodeView& view) {
  if (!view.has(0)) view.refuse("an optional without a value is not supported: its type is in an attribute that is not read");
  return {view.in(0)};
}
std::vector<ValueInfo> infer_has_element(const NodeView&) { return {value(DType::boolean, {})}; }
std::vector<ValueInfo> infer_get_element(const NodeView& view) { return {view.in(0)}; }

const bool registered = [] {
  register_on_values("SequenceConstruct", 11, infer_construct);
  register_on_values("SequenceEmpty", 11, infer_empty);
  register_on_values("SequenceInsert", 11, infer_insert);
  register_on_values("SequenceErase", 11, infer_erase);
  register_on_values("SequenceAt", 11, infer_at);
  register_on_values("SequenceLength", 11, infer_length);
  register_on_values("SplitToSequence", 11, infer_split);
  register_on_values("ConcatFromSequence", 11, infer_concat);
  register_on_values("SequenceMap", 17, infer_map);
  register_on_values("Optional", 15, infer_optional);
  register_on_values("OptionalHasElement", 15, infer_has_element);
  register_on_values("OptionalGetElement", 15, infer_get_element);
  return true;
}();

}  // namespace
}  // namespace espalier
