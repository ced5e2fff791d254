#pragma once
/// What operators over heads share: axes that hold whole heads, [heads·size].
#include <cstdint>

#include "graph/op.h"

namespace espalier::ops {

/// The length as a number; throws unless it is known and positive.
std::int64_t positive(const NodeView& view, const Dim& length, const char* what);
/// The size of one of `heads` heads in an axis of length `width`; throws where it does not divide.
std::int64_t head_share(const NodeView& view, const Dim& width, std::int64_t heads, const char* what);
/// Heads that a cut leaves of `before` heads of `size` on an axis of input `slot`; throws where a part of a head would be left.
std::int64_t heads_left(const Adjust& adjust, std::size_t slot, std::size_t axis, std::int64_t size, std::int64_t before);

}  // namespace espalier::ops
