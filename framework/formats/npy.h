#pragma once
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "graph/graph.h"

namespace espalier {

/// An array of NumPy's .npy format (versions 1 to 3, https://numpy.org/neps/nep-0001-npy-format.html): booleans, integers and
/// floats of either byte order, rows or columns first. Little-endian arrays in C order share their bytes with `owner`; others are
/// turned into that form. Throws Error(invalid_input) for a damaged file, Error(unsupported) for element types that are no numbers.
Tensor parse_npy(std::span<const std::byte> bytes, std::shared_ptr<const void> owner, const std::string& where);

/// What stands before an array's elements (little-endian, rows first) in a .npy file of version 1; a multiple of 64 bytes. Throws
/// Error(unsupported) for element types that NumPy does not have.
std::string npy_header(DType type, const std::vector<std::int64_t>& shape);

/// The arrays of an .npz file (a ZIP archive of .npy files, stored or deflated) by name without ".npy", in the archive's order.
/// Names are only names: nothing is written anywhere. A member may not unpack to more than its bytes can hold (deflate's 1032:1),
/// nor to more than 256 MiB at more than 100:1.
std::vector<std::pair<std::string, Tensor>> parse_npz(std::span<const std::byte> bytes, std::shared_ptr<const void> owner,
                                                      const std::string& where);

}  // namespace espalier
