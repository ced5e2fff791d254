#include "run/unit_gradients.h"

#include <ATen/ops/sum.h>

#include <algorithm>
#include <set>

#include "run/trainer.h"
#include "sdk/error.h"

namespace espalier {
namespace {

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

}  // namespace

UnitGradients::UnitGradients(const Graph& graph, const std::vector<CoupledGroup>& groups, const Params& params)
    : graph_(graph), groups_(groups), options_(session_options(params)) {
  const std::string members = params.text("members");
  for (const auto& group : groups) {
    counted_.push_back(counted_members(graph, group, members));
    for (std::size_t m = 0; m < group.members.size(); ++m)
      if (counted_.back()[m]) along_[{group.members[m].tensor, group.members[m].axis}];
  }
  if (along_.empty())
    throw_invalid("no group has floating-point weights, so nothing has a gradient", {}, "prune before quantizing");
}

void UnitGradients::walk(Context& context, const MetricExamples& examples, std::string_view label, Term term, Share share,
                         const std::function<void()>& after) {
  const auto objective = objective_for(graph_, examples.dataset());
  std::set<std::string> tensors;
  for (const auto& [place, sums] : along_) tensors.insert(place.first);
  Session session(graph_, options_);
  session.train({tensors.begin(), tensors.end()});
  const auto all = static_cast<double>(examples.count());
  examples.walk(context, label, [&](const std::vector<std::int64_t>& numbers, double worth) {
    const double loss = backward(session, examples, *objective, numbers);
    add(session, term, share(worth, all));
    if (after) after();
    return loss;
  });
}

double UnitGradients::backward(Session& session, const MetricExamples& examples, const Objective& objective,
                               const std::vector<std::int64_t>& numbers) const {
  const auto batch = examples.dataset().batch(numbers);
  auto out = session.run(inputs_for(graph_, batch), objective.values());
  auto loss = objective.hard(out, batch);
  out.clear();
  loss.backward();
  return loss.item<double>();
}

void UnitGradients::add(Session& session, Term term, double share) {
  std::set<std::string> cleared;
  for (auto& [place, sums] : along_) {
    const auto weight = session.parameter(place.first);
    if (!weight.grad().defined()) continue;  // a value that gradients do not reach (running statistics)
    auto terms = term(weight.detach(), weight.grad());
    std::vector<std::int64_t> others;
    for (std::int64_t d = 0; d < terms.dim(); ++d)
      if (d != static_cast<std::int64_t>(place.second)) others.push_back(d);
    if (!others.empty()) terms = at::sum(terms, others, false, at::kDouble);
    terms = terms.to(at::kDouble).contiguous();
    const double* values = terms.const_data_ptr<double>();
    sums.resize(static_cast<std::size_t>(terms.numel()), 0.0);
    for (std::size_t i = 0; i < sums.size(); ++i) sums[i] += share * values[i];
    cleared.insert(place.first);
  }
  for (const auto& name : cleared) session.parameter(name).mutable_grad().reset();
}

Scores UnitGradients::take() {
  Scores result;
  for (std::size_t g = 0; g < groups_.size(); ++g) {
    const auto& group = groups_[g];
    auto& own = result[group.id];
    for (const auto& unit : group.units) {
      double sum = 0;
      for (const auto& slice : unit) {
        if (!counted_[g][slice.member]) continue;
        const auto& member = group.members[slice.member];
        const auto& values = along_.at({member.tensor, member.axis});
        if (values.empty()) continue;
        for (auto i : slice.indices) sum += values.at(static_cast<std::size_t>(i));
      }
      own.push_back(sum);
    }
  }
  for (auto& [place, sums] : along_) std::fill(sums.begin(), sums.end(), 0.0);
  return result;
}

}  // namespace espalier
