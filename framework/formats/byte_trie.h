#pragma once
#include <cstdint>
#include <string_view>
#include <vector>

namespace espalier {

/// Texts by their bytes, walked from the front: what begins at a place of a text costs a step for each byte of the longest.
class ByteTrie {
 public:
  static constexpr std::uint32_t kRoot = 0, kNone = ~std::uint32_t{0};

  /// `bytes`: how many all texts together have, at most.
  explicit ByteTrie(std::size_t bytes);
  void insert(std::string_view text, std::int32_t value);
  std::uint32_t step(std::uint32_t node, char byte) const {
    const std::uint64_t key = std::uint64_t{node} << 8 | static_cast<unsigned char>(byte);
    for (std::size_t at = slot(key);; at = (at + 1) & mask_) {
      if (edges_[at].node == kNone || edges_[at].key == key) return edges_[at].node;
    }
  }
  std::uint32_t walk(std::string_view text, std::uint32_t node = kRoot) const {
    for (std::size_t i = 0; i < text.size() && node != kNone; ++i) node = step(node, text[i]);
    return node;
  }
  std::int32_t value(std::uint32_t node) const { return values_[node]; }  ///< -1 where no text ends

 private:
  struct Edge {
    std::uint64_t key = 0;
    std::uint32_t node = kNone;
  };
  std::size_t slot(std::uint64_t key) const { return static_cast<std::size_t>(key * 0x9E3779B97F4A7C15U >> 32) & mask_; }

  std::size_t mask_;
  std::vector<Edge> edges_;  // open addressing, a power of two, at most half full
  std::vector<std::int32_t> values_{-1};
};

}  // namespace espalier
