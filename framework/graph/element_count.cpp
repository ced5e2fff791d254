#include "graph/element_count.h"

#include <set>

#include "sdk/error.h"

namespace espalier {

ElementCount::ElementCount(const Graph& graph, const std::vector<CoupledGroup>& groups) : groups_(groups) {
  for (const auto& group : groups) {
    for (const auto& member : group.members) {
      auto [at, fresh] = index_.try_emplace(member.tensor, left_.size());
      if (!fresh) continue;
      const Tensor* tensor = graph.initializer(member.tensor);
      if (!tensor) throw Error(ErrorCode::internal, "a coupled group names an initializer that does not exist", member.tensor);
      full_.push_back(tensor->shape);
      left_.push_back(tensor->shape);
    }
  }
  member_tensor_.resize(groups.size());
  for (std::size_t g = 0; g < groups.size(); ++g) {
    for (const auto& member : groups[g].members) member_tensor_[g].push_back(index_.at(member.tensor));
  }
}

std::int64_t ElementCount::remove(std::size_t group, std::int64_t units) {
  const auto before = touched(group);
  for (std::size_t m = 0; m < groups_[group].members.size(); ++m) {
    const Member& member = groups_[group].members[m];
    left_[member_tensor_[group][m]].at(member.axis) -= units * member.width;
  }
  return before - touched(group);
}

void ElementCount::restore(std::size_t group, std::int64_t units) {
  for (std::size_t m = 0; m < groups_[group].members.size(); ++m) {
    const Member& member = groups_[group].members[m];
    left_[member_tensor_[group][m]].at(member.axis) += units * member.width;
  }
}

std::int64_t ElementCount::touched(std::size_t group) const {
  std::int64_t sum = 0;
  std::set<std::size_t> seen;
  for (auto t : member_tensor_[group]) {
    if (!seen.insert(t).second) continue;
    std::int64_t product = 1;
    for (auto d : left_[t]) product *= d;
    sum += product;
  }
  return sum;
}

std::int64_t ElementCount::total() {
  std::int64_t sum = 0;
  for (std::size_t g = 0; g < groups_.size(); ++g) sum += remove(g, static_cast<std::int64_t>(groups_[g].units.size()));
  reset();
  return sum;
}

std::int64_t ElementCount::taken(const Removal& removal) {
  std::int64_t sum = 0;
  for (std::size_t g = 0; g < groups_.size(); ++g)
    if (auto gone = removal.find(groups_[g].id); gone != removal.end())
      sum += remove(g, static_cast<std::int64_t>(gone->second.size()));
  reset();
  return sum;
}

}  // namespace espalier
