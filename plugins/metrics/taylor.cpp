// First-order Taylor importance (Molchanov et al., "Importance Estimation for Neural Network Pruning", CVPR 2019): how much the
// loss would change, to first order, if a unit's weights became zero: |Σ w·∂L/∂w|. Summed over a coupled group's slices as one
// vector before the absolute value (LLM-Pruner; Ma et al., NeurIPS 2023).
#include <ATen/core/Tensor.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/sum.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "run/metric.h"
#include "run/objective.h"
#include "run/session.h"
#include "sdk/plugin.h"

using namespace espalier;

namespace {

/// A member whose slices count, and its axis: w·∂L/∂w is summed over all other axes.
using Counted = std::pair<std::string, std::size_t>;

/// Members of a group that `which` names and that can have a gradient; all such members when there is none of the kind.
std::vector<bool> counted_members(const Graph& graph, const CoupledGroup& group, const std::string& which) {
  auto choose = [&](const std::string& kind) {
    std::vector<bool> chosen;
    for (const auto& member : group.members) {
      const Tensor* tensor = graph.initializer(member.tensor);
      const bool weight = tensor && is_floating(tensor->dtype);
      chosen.push_back(weight && (kind == "all" || (kind == "producers") == member.producer));
    }
    return chosen;
  };
  auto chosen = choose(which);
  return std::find(chosen.begin(), chosen.end(), true) == chosen.end() ? choose("all") : chosen;
}

class Taylor final : public MetricComponent {
 public:
  Scores score(Context& context, const Params& params, const Graph& graph, const std::vector<CoupledGroup>& groups,
               const Artifact* data) override {
    if (!data)
      throw_invalid("metric/taylor needs data, and the stage has none", {}, "give the stage a data set: data = \"@corpus\"");
    if (context.has_input("model")) check_tokenizers(context.input("model"), *data);
    const auto dataset = open_dataset(context, *data);
    const auto objective = objective_for(graph, *dataset);
    const auto windows = spread(dataset->count(), params.integer("samples"));
    if (static_cast<std::int64_t>(windows.size()) < params.integer("samples")) {
      context.log(LogLevel::warning,
                  fmt::format("the data has {} windows; samples = {} takes them all", windows.size(), params.integer("samples")));
    }

    std::vector<std::vector<bool>> counted;
    std::map<Counted, std::vector<double>> along;  // w·∂L/∂w per index of the axis, of one pass or of all
    std::set<std::string> tensors;
    for (const auto& group : groups) {
      counted.push_back(counted_members(graph, group, params.text("members")));
      for (std::size_t m = 0; m < group.members.size(); ++m) {
        if (!counted.back()[m]) continue;
        along[{group.members[m].tensor, group.members[m].axis}];
        tensors.insert(group.members[m].tensor);
      }
    }
    if (tensors.empty())
      throw_invalid("no group has floating-point weights, so nothing has a gradient", {}, "prune before quantizing");

    Scores scores;
    for (const auto& group : groups) scores[group.id].assign(group.units.size(), 0.0);
    Session session(graph);
    session.train({tensors.begin(), tensors.end()});
    const bool per_pass = params.text("absolute") == "pass";
    const auto batch = params.integer("batch");
    std::uint64_t done = 0;
    for (std::size_t begin = 0; begin < windows.size(); begin += static_cast<std::size_t>(batch)) {
      context.check_cancelled();
      const auto end = std::min(windows.size(), begin + static_cast<std::size_t>(batch));
      const double share = static_cast<double>(end - begin) / static_cast<double>(windows.size());
      const double loss = backward(session, graph, *dataset, *objective,
                                   {windows.begin() + std::ptrdiff_t(begin), windows.begin() + std::ptrdiff_t(end)});
      accumulate(session, along, share);
      if (per_pass) add_absolute(groups, counted, along, scores);
      done += end - begin;
      context.progress({done, windows.size(), "Taylor importance", {{"loss", loss}}});
    }
    if (!per_pass) add_absolute(groups, counted, along, scores);
    return scores;
  }

 private:
  static double backward(Session& session, const Graph& graph, const Dataset& dataset, const Objective& objective,
                         const std::vector<std::int64_t>& windows) {
    const auto batch = dataset.batch(windows);
    auto out = session.run(inputs_for(graph, batch), objective.values());
    auto loss = objective.hard(out, batch);
    out.clear();
    loss.backward();
    return loss.item<double>();
  }

  static void accumulate(Session& session, std::map<Counted, std::vector<double>>& along, double share) {
    std::set<std::string> cleared;
    for (auto& [member, sums] : along) {
      auto weight = session.parameter(member.first);
      if (!weight.grad().defined()) continue;  // a value that gradients do not reach (running statistics)
      auto product = at::mul(weight.detach(), weight.grad());
      std::vector<std::int64_t> others;
      for (std::int64_t d = 0; d < product.dim(); ++d) {
        if (d != static_cast<std::int64_t>(member.second)) others.push_back(d);
      }
      if (!others.empty()) product = at::sum(product, others, false, at::kDouble);
      product = product.to(at::kDouble).contiguous();
      const double* values = product.const_data_ptr<double>();
      sums.resize(static_cast<std::size_t>(product.numel()), 0.0);
      for (std::size_t i = 0; i < sums.size(); ++i) sums[i] += share * values[i];
      cleared.insert(member.first);
    }
    for (const auto& name : cleared) session.parameter(name).mutable_grad().reset();
  }

  static void add_absolute(const std::vector<CoupledGroup>& groups, const std::vector<std::vector<bool>>& counted,
                           std::map<Counted, std::vector<double>>& along, Scores& scores) {
    for (std::size_t g = 0; g < groups.size(); ++g) {
      const auto& group = groups[g];
      auto& own = scores[group.id];
      for (std::size_t u = 0; u < group.units.size(); ++u) {
        double sum = 0;
        for (const auto& slice : group.units[u]) {
          if (!counted[g][slice.member]) continue;
          const auto& member = group.members[slice.member];
          const auto& values = along.at({member.tensor, member.axis});
          if (values.empty()) continue;
          for (auto i : slice.indices) sum += values.at(static_cast<std::size_t>(i));
        }
        own[u] += std::abs(sum);
      }
    }
    for (auto& [member, sums] : along) std::fill(sums.begin(), sums.end(), 0.0);
  }
};

}  // namespace

ESPALIER_PLUGIN(R"json({
  "name": "taylor", "version": "0.1.0", "author": "The Espalier authors", "licence": "Apache-2.0",
  "description": "Importance by gradients",
  "components": [{
    "name": "metric/taylor", "version": "0.1.0",
    "summary": "How far the loss would move, to first order, without a unit: |Σ w·∂L/∂w| over its slices and over data",
    "inputs": [
      {"name": "model", "type": "model", "help": "the model whose units are scored"},
      {"name": "data", "type": "dataset", "help": "windows of tokens that stand for what the model must stay good at"}
    ],
    "outputs": [
      {"name": "scores", "type": "scores", "help": "a score per unit, by group"}
    ],
    "parameters": [
      {"name": "samples", "type": "integer", "default": 16, "min": 1, "unit": "windows", "help": "windows used, spread evenly over the data"},
      {"name": "batch", "type": "integer", "default": 1, "min": 1, "unit": "windows", "help": "windows in one forward and backward pass"},
      {"name": "members", "type": "string", "default": "readers", "choices": ["readers", "producers", "all"], "help": "slices that count: those that read the unit's channel (a down projection's), those that make it, or both"},
      {"name": "absolute", "type": "string", "default": "pass", "choices": ["pass", "data"], "help": "take the absolute value of every pass and add them up, or of the sum over all data"}
    ],
    "depends": {"seed": false, "threads": true, "runtimes": ["torch"]},
    "estimate": {"memory": "2e8 + 1.2 * model.bytes + batch * data.sequence * model.activation_bytes",
                 "seconds": "1 + min(samples, data.count) * data.sequence * 6 * model.macs / (0.75 * machine.flops)",
                 "memory_base": 8e8, "memory_per_byte": 3, "output_per_byte": 0.01}
  }]
})json",
                ESPALIER_COMPONENT("metric/taylor", Taylor));
