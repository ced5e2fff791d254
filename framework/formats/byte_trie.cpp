#include "formats/byte_trie.h"

#include <algorithm>
#include <bit>

namespace espalier {

ByteTrie::ByteTrie(std::size_t bytes) : mask_(std::bit_ceil(std::max<std::size_t>(16, 2 * bytes)) - 1), edges_(mask_ + 1) {}

void ByteTrie::insert(std::string_view text, std::int32_t value) {
  std::uint32_t node = kRoot;
  for (const char byte : text) {
    const std::uint64_t key = std::uint64_t{node} << 8 | static_cast<unsigned char>(byte);
    std::size_t at = slot(key);
    while (edges_[at].node != kNone && edges_[at].key != key) at = (at + 1) & mask_;
    if (edges_[at].node == kNone) {
      edges_[at] = {key, static_cast<std::uint32_t>(values_.size())};
      values_.push_back(-1);
    }
    node = edges_[at].node;
  }
  values_[node] = value;
}

}  // namespace espalier
