#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "graph/blocks.h"

namespace espalier {

/// Which block of the teacher a block of the student is compared with; numbers as find_blocks() counts, from 0.
struct LayerPair {
  std::size_t student, teacher;
};

/// Pairs of blocks. `asked` is {"auto"}: the k-th of n blocks goes with the teacher's at the same share of the depth, the last with
/// the last (the uniform mapping of TinyBERT; Jiao et al., 2020), run by run; or "STUDENT:TEACHER" pairs; or one teacher's block
/// for every block of the student. A block is named by its number or its scope. Throws Error(invalid_input) where there are no
/// blocks, for a name that is none, and for a map that gives one block of the student two teachers.
std::vector<LayerPair> map_layers(const std::vector<Block>& student, const std::vector<Block>& teacher,
                                  const std::vector<std::string>& asked);

/// The block that `name` means: a number, or a scope. Throws Error(invalid_input) with `place` for a name that is none or of
/// several blocks; messages begin with `whose` ("layer_map: the teacher").
std::size_t block_named(const std::vector<Block>& blocks, std::string_view name, const std::string& whose,
                        const std::string& place);

/// What messages call block `number`: "block 3 (model.layers.3)".
std::string block_label(const std::vector<Block>& blocks, std::size_t number);

}  // namespace espalier
