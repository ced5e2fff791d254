#pragma once
/// Elements of initializers that groups of coupled channels reach.
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "graph/surgery.h"

namespace espalier {

/// Elements that removals take, exactly: what is left of a tensor is the product of what is left of its axes.
class ElementCount {
 public:
  /// Throws Error(internal) for a group of another graph.
  ElementCount(const Graph& graph, const std::vector<CoupledGroup>& groups);

  /// Elements gone when `units` units of a group go, after all that went before.
  std::int64_t remove(std::size_t group, std::int64_t units);
  void restore(std::size_t group, std::int64_t units);
  void reset() { left_ = full_; }
  /// Elements that some unit of the groups reaches, one that two groups reach once. From the full graph, as reset() leaves it.
  std::int64_t total();
  /// Those of them that a removal takes. From the full graph, too.
  std::int64_t taken(const Removal& removal);

 private:
  std::int64_t touched(std::size_t group) const;

  const std::vector<CoupledGroup>& groups_;
  std::map<std::string, std::size_t> index_;
  std::vector<std::vector<std::int64_t>> full_, left_;
  std::vector<std::vector<std::size_t>> member_tensor_;
};

}  // namespace espalier
