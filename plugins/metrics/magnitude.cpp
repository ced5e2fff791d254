// Magnitude of a unit's weights, the oldest measure of what a structure is worth (Li et al., "Pruning Filters for Efficient
// ConvNets", ICLR 2017), over all the slices that live and die together.
#include <fmt/format.h>

#include <cmath>
#include <map>

#include "graph/dtype.h"
#include "run/metric.h"
#include "run/tensor.h"
#include "sdk/plugin.h"

using namespace espalier;

namespace {

/// Σ|w|^p over everything but one axis: a sum for each index of the axis. In doubles, in the order of the bytes, so that thread
/// count and instruction set play no part.
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

class Magnitude final : public MetricComponent {
 public:
  Scores score(Context& context, const Params& params, const Graph& graph, const std::vector<CoupledGroup>& groups,
               const Artifact*) override {
    const int p = static_cast<int>(params.integer("p"));
    const bool producers_only = params.text("members") == "producers";
    const auto normalise = params.text("normalise");
    std::map<std::pair<std::string, std::size_t>, std::vector<double>> sums;
    Scores scores;
    std::uint64_t done = 0;
    for (const auto& group : groups) {
      context.check_cancelled();
      context.progress({done++, groups.size(), "magnitude", {}});
      std::vector<const std::vector<double>*> of_member(group.members.size(), nullptr);
      for (std::size_t m = 0; m < group.members.size(); ++m) {
        const auto& member = group.members[m];
        const Tensor* tensor = graph.initializer(member.tensor);
        if (!tensor || !is_floating(tensor->dtype) || (producers_only && !member.producer)) continue;
        auto [at, fresh] = sums.try_emplace({member.tensor, member.axis});
        if (fresh) at->second = sums_along(*tensor, member.axis, p);
        of_member[m] = &at->second;
      }
      auto& own = scores[group.id];
      for (const auto& unit : group.units) {
        double sum = 0;
        for (const auto& slice : unit) {
          if (!of_member[slice.member]) continue;
          for (auto i : slice.indices) sum += of_member[slice.member]->at(static_cast<std::size_t>(i));
        }
        own.push_back(p == 1 ? sum : std::sqrt(sum));
      }
      normalise_group(own, normalise);
    }
    return scores;
  }

 private:
  static void normalise_group(std::vector<double>& scores, const std::string& how) {
    double by = 0;
    for (double s : scores) by = how == "max" ? std::max(by, s) : by + s / static_cast<double>(scores.size());
    if (how == "none" || by == 0) return;
    for (double& s : scores) s /= by;
  }
};

}  // namespace

ESPALIER_PLUGIN(R"json({
  "name": "magnitude", "version": "0.1.0", "author": "The Espalier authors", "licence": "Apache-2.0",
  "description": "Importance by size of the weights",
  "components": [{
    "name": "metric/magnitude", "version": "0.1.0",
    "summary": "L1 or L2 norm of a unit's weights over all slices that live and die together; needs no data",
    "inputs": [
      {"name": "model", "type": "model", "help": "the model whose units are scored"}
    ],
    "outputs": [
      {"name": "scores", "type": "scores", "help": "a score per unit, by group"}
    ],
    "parameters": [
      {"name": "p", "type": "integer", "default": 2, "min": 1, "max": 2, "help": "which norm: 1 = sum of absolute values, 2 = Euclidean"},
      {"name": "members", "type": "string", "default": "all", "choices": ["all", "producers"], "help": "slices that count: all of a unit's, or only those that make its channel"},
      {"name": "normalise", "type": "string", "default": "none", "choices": ["none", "mean", "max"], "help": "divide a group's scores by their mean or maximum, so that groups of different scale compare"}
    ],
    "depends": {"seed": false, "threads": false, "runtimes": []},
    "byte_exact": true,
    "estimate": {"memory": "2e8 + 1.2 * model.bytes",
                 "seconds": "1 + 4 * model.bytes / machine.bandwidth",
                 "memory_base": 5e8, "memory_per_byte": 1.2, "output_per_byte": 0.01}
  }]
})json",
                ESPALIER_COMPONENT("metric/magnitude", Magnitude));
