#pragma once
/// Where the weights downstream read units: what metrics observe of values instead of weights.
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "run/metric.h"

namespace espalier {

/// An axis of a value that some weight reads, and whose indices belong to units.
struct UnitAxis {
  static constexpr std::int32_t nobody = -1;

  std::string value;
  std::size_t axis;
  std::vector<std::int32_t> unit;  ///< by index: number of the unit among those of all groups, or nobody
};

/// All places where units of `groups` are used up: axes of values that come into a node, meet a constant there (a weight, perhaps
/// dequantized or transposed) and do not come out: the products and convolutions. What only passes a unit on (norms, activations,
/// depthwise convolutions) is none.
class UnitReaders {
 public:
  /// Throws Error(invalid_input) where no unit is read. `groups` must outlive the object.
  UnitReaders(const Graph& graph, const std::vector<CoupledGroup>& groups);

  const std::vector<UnitAxis>& axes() const { return axes_; }
  std::size_t units() const { return read_.size(); }  ///< of all groups

  /// Scores out of one number for each unit. A group with a unit that nothing reads gets none, and a warning names one.
  Scores scores(Context& context, std::span<const double> by_unit) const;
  /// Ids of the groups with units on an axis, without those that get no score.
  std::vector<std::string> groups_on(const UnitAxis& axis) const;

 private:
  struct Units {
    std::size_t first, end;
    bool read;  ///< each of them
  };

  const std::vector<CoupledGroup>& groups_;
  std::vector<UnitAxis> axes_;
  std::vector<bool> read_;    ///< by unit
  std::vector<Units> spans_;  ///< by group
};

}  // namespace espalier
