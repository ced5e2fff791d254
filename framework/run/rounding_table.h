#pragma once
/// What a stage that rounds weights tells the report.
#include <cstdint>
#include <map>
#include <string>
#include <tuple>

#include "sdk/artifact.h"

namespace espalier {

/// Rounding errors by kind of tensor: layer numbers are folded into `*`.
class RoundingTable {
 public:
  struct Entry {
    int bits = 0;
    std::int64_t group = 0;  ///< weights that share a scale along the inputs; 0: no groups
    std::int64_t elements = 0;
    std::uint64_t bytes = 0;   ///< codes, scales and zero points
    double squared_error = 0;  ///< summed over the elements
    double squared = 0;        ///< the weights' own squares, summed
  };
  void add(const std::string& name, const Entry& entry);

  Json json() const;             ///< {"columns", "rows"}
  double bits() const;           ///< bits that a weight takes, its share of scales and zero points included
  double squared_error() const;  ///< mean over all elements

 private:
  struct Row {
    std::int64_t tensors = 0;
    Entry sum;
  };
  Entry total() const;
  std::map<std::tuple<std::string, int, std::int64_t>, Row> rows_;
};

}  // namespace espalier
