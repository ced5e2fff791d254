#pragma once
/// What the operators' files share: broadcasting, axis lists, windows, links of whole values.
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "graph/op.h"

namespace espalier::ops {

using Integers = std::vector<std::int64_t>;
using Content = std::optional<std::vector<Dim>>;

ValueInfo value(DType type, Shape shape, Content content = std::nullopt);
/// A dimension that only running tells, named after the node's output so that it equals nothing else.
Dim opaque(const NodeView& view, std::size_t slot, std::size_t axis);

/// What two values that may come out as output `slot` have in common: equal lengths stay, others are opaque, ranks that differ are
/// unknown. Throws where one is a sequence and the other a tensor, or the types differ.
ValueInfo common(const NodeView& view, std::size_t slot, const ValueInfo& a, const ValueInfo& b);

/// An operator that takes sequences or values of unknown rank, and whose axes are all pinned.
void register_on_values(const char* name, int since, std::vector<ValueInfo> (*infer)(const NodeView&));

/// NumPy's broadcasting of two shapes. A symbol against a known length takes the known one.
Shape broadcast(const NodeView& view, const Shape& a, const Shape& b);
/// Throws unless the inputs' element types (where known) are equal.
void same_types(const NodeView& view, const std::vector<std::size_t>& inputs);
/// Refuses input `slot` unless it holds such numbers, as far as its type is known. Types of less than 16 floating or 8 integer bits
/// are for storing alone.
enum class NumberTypes { floats, integers, all };
void check_numbers(const NodeView& view, std::size_t slot, NumberTypes which);
/// Throws unless input i has this rank.
void check_rank(const NodeView& view, std::size_t input, std::size_t rank);
/// Throws when both are known and differ.
void check_equal(const NodeView& view, const Dim& a, const Dim& b, const std::string& what);

/// Negative axes counted from the end, sorted; throws for one outside the rank or given twice.
std::vector<std::size_t> normalized(const NodeView& view, const Integers& axes, std::size_t rank);
/// The list `attribute`, or from opset where it is one, input `slot`. Nothing when neither is there; throws when it is not
/// constant.
std::optional<Integers> attribute_or_input(const NodeView& view, const char* attribute, std::size_t slot);
/// The list `attribute`, or input `slot` of rank 0 or 1, which only running may tell.
struct IntegerList {
  bool given = false;                ///< one of the two is there
  std::optional<Integers> values;    ///< known
  std::optional<std::size_t> count;  ///< known without the values where the input has a known length
};
IntegerList integer_list(const NodeView& view, const char* attribute, std::size_t slot);
/// As many opaque dimensions of output 0 as a shape has axes; throws for more than the highest rank.
Shape opaque_shape(const NodeView& view, std::size_t rank);

/// Links every axis of input `slot` with the same axis of output `out`.
void link_all(const NodeView& view, AxisMaps& maps, std::size_t slot, std::size_t out = 0);
/// Links input `slot`, aligned right by broadcasting, with output 0: an axis of length 1 against n is not linked.
void link_broadcast(const NodeView& view, AxisMaps& maps, std::size_t slot);
void pin_input(const NodeView& view, AxisMaps& maps, std::size_t slot, const std::string& reason);
void pin_output(const NodeView& view, AxisMaps& maps, std::size_t slot, const std::string& reason);

/// How a window slides along one axis (convolutions, pools).
struct Window {
  std::int64_t kernel = 1, stride = 1, dilation = 1, pad_begin = 0, pad_end = 0;
};
/// The windows of a node, from strides, dilations, pads; `kernel` per spatial axis.
std::vector<Window> windows(const NodeView& view, const Integers& kernel);
/// Spatial output lengths for input 0, [batch, channels, spatial…]. Honours auto_pad and ceil_mode.
Shape slide(const NodeView& view, const std::vector<Window>& windows);

/// Elements of a shape under bindings.
double elements(const Shape& shape, const Bindings& bindings);
/// A rank-1 int64 constant.
Tensor index_list(const Integers& values);
/// Length of (value, axis) after a cut; the length before where it is not cut.
Dim kept_length(const Adjust& adjust, const std::string& value, std::size_t axis);

}  // namespace espalier::ops
