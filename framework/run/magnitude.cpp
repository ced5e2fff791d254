#include "run/magnitude.h"

#include <cmath>
#include <map>

#include "graph/dtype.h"
#include "sdk/artifact.h"

namespace espalier {
namespace {

/// Σ|w|^p over everything but one axis: a sum for each index of the axis.
template <class Read>
std::vector<double> sums_along(const std::vector<std::int64_t>& shape, std::size_t axis, int p, Read read) {
  std::int64_t outer = 1, inner = 1;
  for (std::size_t d = 0; d < shape.size(); ++d) (d < axis ? outer : inner) *= d == axis ? 1 : shape[d];
  std::vector<double> sums(static_cast<std::size_t>(shape[axis]), 0.0);
  std::size_t at = 0;
  for (std::int64_t o = 0; o < outer; ++o) {
    for (auto& sum : sums) {
      for (std::int64_t i = 0; i < inner; ++i) {
        const double w = read(at++);
        sum += p == 1 ? std::abs(w) : w * w;
      }
    }
  }
  return sums;
}

std::vector<double> sums_along(const Tensor& tensor, std::size_t axis, int p) {
  if (tensor.dtype == DType::f32) {
    const auto values = tensor.as<float>();
    return sums_along(tensor.shape, axis, p, [&](std::size_t i) { return static_cast<double>(values[i]); });
  }
  const auto values = tensor.numbers();
  return sums_along(tensor.shape, axis, p, [&](std::size_t i) { return values[i]; });
}

}  // namespace

Scores magnitude(const Graph& graph, const std::vector<CoupledGroup>& groups, const MagnitudeOptions& options,
                 const std::function<void(std::size_t, std::size_t)>& each) {
  std::map<std::pair<std::string, std::size_t>, std::vector<double>> sums;
  Scores scores;
  for (std::size_t g = 0; g < groups.size(); ++g) {
    const CoupledGroup& group = groups[g];
    if (each) each(g, groups.size());
    std::vector<const std::vector<double>*> of_member(group.members.size(), nullptr);
    for (std::size_t m = 0; m < group.members.size(); ++m) {
      const auto& member = group.members[m];
      const Tensor* tensor = graph.initializer(member.tensor);
      if (!tensor || !is_floating(tensor->dtype) || (options.producers_only && !member.producer)) continue;
      auto [at, fresh] = sums.try_emplace({member.tensor, member.axis});
      if (fresh) {
        at->second = sums_along(*tensor, member.axis, options.p);
        MappedFile::release(tensor->owner, tensor->bytes);
      }
      of_member[m] = &at->second;
    }
    auto& own = scores[group.id];
    for (const auto& unit : group.units) {
      double sum = 0;
      for (const auto& slice : unit) {
        if (!of_member[slice.member]) continue;
        for (auto i : slice.indices) sum += of_member[slice.member]->at(static_cast<std::size_t>(i));
      }
      own.push_back(options.p == 1 ? sum : std::sqrt(sum));
    }
  }
  return scores;
}

}  // namespace espalier
