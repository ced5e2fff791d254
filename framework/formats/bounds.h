#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "graph/graph.h"
#include "sdk/artifact.h"

namespace espalier {

/// Product of a shape that a file claims; throws Error(invalid_input) for a negative length or a product past 2^63.
std::int64_t checked_count(std::span<const std::int64_t> shape, const std::string& what, const std::string& where);

/// Whether [offset, offset + length) lies within `size`, without overflow.
inline bool within(std::uint64_t offset, std::uint64_t length, std::uint64_t size) {
  return offset <= size && length <= size - offset;
}

/// A tensor over foreign bytes. They must be exactly as many as type and shape say, else Error(invalid_input). Bytes that are not
/// aligned for their type are copied, all others are shared with `owner`.
Tensor checked_tensor(DType dtype, std::vector<std::int64_t> shape, std::span<const std::byte> bytes,
                      std::shared_ptr<const void> owner, const std::string& what, const std::string& where);

/// JSON from a foreign file; throws Error(invalid_input) for what is none, and for nesting deeper than 64, which would overflow the
/// stack of whoever walks it.
Json parse_json(std::string_view text, const std::string& where);

/// A name as one file-name component: bytes outside [A-Za-z0-9._-] as %XX, and a leading dot too.
std::string escaped_name(const std::string& name);

}  // namespace espalier
