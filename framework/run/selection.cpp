#include "run/selection.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <queue>
#include <set>
#include <tuple>

#include "run/element_count.h"
#include "run/group_scope.h"
#include "sdk/error.h"

namespace espalier {
namespace {

constexpr double slack = 1e-9;  // shares are decimal fractions: 0.3 · 10 units is 3 units

// How far one group may go down: the numbers of units it may lose are first + k·step, up to `most`; or none.
struct Steps {
  std::int64_t first = 0, step = 1, most = 0;
};

Steps steps_of(const CoupledGroup& group, const SelectionOptions& options) {
  const auto units = static_cast<std::int64_t>(group.units.size());
  const auto multiple = std::lcm(std::max<std::int64_t>(1, group.multiple), options.multiple);
  const auto before = options.full.find(group.id);
  const auto full = static_cast<double>(before == options.full.end() ? units : before->second);
  auto keep = std::max<std::int64_t>(1, static_cast<std::int64_t>(std::ceil(options.minimum * full - slack)));
  keep = (keep + multiple - 1) / multiple * multiple;
  Steps steps{units % multiple == 0 ? multiple : units % multiple, multiple, 0};
  if (keep <= units - steps.first) steps.most = units - keep;
  return steps;
}

// The largest removal that the steps allow within `units`.
std::int64_t within(const Steps& steps, std::int64_t units) {
  units = std::min(units, steps.most);
  return units < steps.first ? 0 : steps.first + (units - steps.first) / steps.step * steps.step;
}

double normaliser(const std::vector<double>& scores, SelectionOptions::Normalise how) {
  double sum = 0, max = 0;
  for (double s : scores) {
    sum += std::abs(s);
    max = std::max(max, std::abs(s));
  }
  double by = 1;
  switch (how) {
    case SelectionOptions::Normalise::none:
      break;
    case SelectionOptions::Normalise::mean:
      by = sum / static_cast<double>(scores.size());
      break;
    case SelectionOptions::Normalise::max:
      by = max;
      break;
    case SelectionOptions::Normalise::sum:
      by = sum;
      break;
  }
  return by > 0 ? by : 1;
}

/// Groups that share one budget.
struct Pool {
  double sparsity = 0;
  std::string name;  // the pattern of per_scope, or "" for the rest
  std::vector<std::size_t> groups;
};

std::vector<Pool> pools_of(const Graph& graph, const std::vector<CoupledGroup>& groups, const SelectionOptions& options) {
  const Uses uses(graph);
  std::map<std::string, Pool> pools;
  std::vector<std::string> every_name;
  std::set<std::string> met;
  for (std::size_t g = 0; g < groups.size(); ++g) {
    const auto names = deciding_names(graph, uses, groups[g]);
    for (const auto& answers : names) every_name.insert(every_name.end(), answers.begin(), answers.end());
    std::string best;
    for (const auto& [pattern, sparsity] : options.per_scope) {
      if (!all_match(names, pattern)) continue;
      met.insert(pattern);
      if (pattern.size() > best.size()) best = pattern;
    }
    auto& pool = pools[best];
    pool.name = best;
    pool.sparsity = best.empty() ? options.sparsity : options.per_scope.at(best);
    pool.groups.push_back(g);
  }
  std::vector<Pool> out;
  for (const auto& [pattern, sparsity] : options.per_scope) {
    if (sparsity < 0 || sparsity > 1) {
      throw_invalid(fmt::format("per_scope gives \"{}\" the sparsity {}, which is no share between 0 and 1", pattern, sparsity),
                    "parameter per_scope");
    }
    if (!met.count(pattern)) {
      throw_invalid(fmt::format("the pattern \"{}\" of per_scope means nothing that is in scope", pattern), "parameter per_scope",
                    fmt::format("in scope are: {}", fmt::join(near_scopes(pattern, every_name), ", ")));
    }
  }
  for (auto& [pattern, pool] : pools) out.push_back(std::move(pool));
  return out;
}

// Every group loses the same share; the largest share whose elements stay within the budget. The number of units that goes is a
// step function of the share, so bisection settles on the right side of a step.
std::map<std::size_t, std::int64_t> same_share(const std::vector<CoupledGroup>& groups, const Pool& pool,
                                               const std::vector<Steps>& steps, std::int64_t budget, ElementCount& count) {
  auto plan = [&](double share) {
    std::map<std::size_t, std::int64_t> units;
    for (auto g : pool.groups) {
      units[g] = within(steps[g], static_cast<std::int64_t>(share * static_cast<double>(groups[g].units.size()) + slack));
    }
    return units;
  };
  auto fits = [&](const std::map<std::size_t, std::int64_t>& units) {
    std::int64_t gone = 0;
    for (auto [g, n] : units) gone += count.remove(g, n);
    for (auto [g, n] : units) count.restore(g, n);
    return gone <= budget;
  };
  double low = 0, high = 1;
  if (fits(plan(high))) return plan(high);
  for (int i = 0; i < 50; ++i) {
    double middle = (low + high) / 2;
    (fits(plan(middle)) ? low : high) = middle;
  }
  return plan(low);
}

// The least important units per parameter go first, a whole step of a group at a time, as long as the budget holds.
std::map<std::size_t, std::int64_t> least_important(const std::vector<CoupledGroup>& groups, const Pool& pool,
                                                    const std::vector<Steps>& steps,
                                                    const std::vector<std::vector<double>>& ascending, std::int64_t budget,
                                                    ElementCount& count) {
  struct Candidate {
    double value;
    std::size_t group;
    std::int64_t from, to;
    bool operator>(const Candidate& o) const { return std::tie(value, group) > std::tie(o.value, o.group); }
  };
  std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> queue;
  auto offer = [&](std::size_t g, std::int64_t from) {
    const std::int64_t to = from == 0 ? steps[g].first : from + steps[g].step;
    if (to > steps[g].most) return;
    double sum = std::accumulate(ascending[g].begin() + from, ascending[g].begin() + to, 0.0);
    auto cost = static_cast<double>(std::max<std::int64_t>(1, groups[g].parameters_per_unit));
    queue.push({sum / static_cast<double>(to - from) / cost, g, from, to});
  };
  std::map<std::size_t, std::int64_t> taken;
  for (auto g : pool.groups) offer(g, 0);
  while (!queue.empty()) {
    const Candidate next = queue.top();
    queue.pop();
    const std::int64_t cost = count.remove(next.group, next.to - next.from);
    if (cost > budget) {  // this group's turn is over; a smaller step of another may still fit
      count.restore(next.group, next.to - next.from);
      continue;
    }
    budget -= cost;
    taken[next.group] = next.to;
    offer(next.group, next.to);
  }
  for (auto [g, n] : taken) count.restore(g, n);
  return taken;
}

std::vector<std::int64_t> order_of(const std::vector<double>& scores) {
  std::vector<std::int64_t> order(scores.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) { return scores[std::size_t(a)] < scores[std::size_t(b)]; });
  return order;
}

}  // namespace

const std::vector<double>& scores_of(const Scores& scores, const CoupledGroup& group) {
  auto at = scores.find(group.id);
  if (at == scores.end()) {
    throw_invalid(fmt::format("the scores say nothing of group \"{}\"", group.id), "scores",
                  "score the same model with a scope that takes in all that the pruner's does");
  }
  if (at->second.size() != group.units.size()) {
    throw_invalid(fmt::format("group \"{}\" has {} units, and {} scores", group.id, group.units.size(), at->second.size()),
                  "scores", "score the same model that is pruned");
  }
  for (double score : at->second) {
    if (!std::isfinite(score)) {
      throw_invalid(fmt::format("group \"{}\" has a score that is not finite", group.id), "scores",
                    "look for overflow or NaN in the model and the data");
    }
  }
  return at->second;
}

Selection select_units(const Graph& graph, const std::vector<CoupledGroup>& groups, const Scores& scores,
                       const SelectionOptions& options) {
  if (options.sparsity < 0 || options.sparsity > 1)
    throw_invalid(fmt::format("sparsity {} is no share between 0 and 1", options.sparsity));
  if (options.multiple < 1) throw_invalid(fmt::format("multiple is {}; it must be at least 1", options.multiple));
  std::vector<Steps> steps;
  std::vector<std::vector<std::int64_t>> order;
  std::vector<std::vector<double>> ascending;
  for (const auto& group : groups) {
    steps.push_back(steps_of(group, options));
    const auto& own = scores_of(scores, group);
    order.push_back(order_of(own));
    const double by = normaliser(own, options.normalise);
    auto& sorted = ascending.emplace_back();
    for (auto u : order.back()) sorted.push_back(own[std::size_t(u)] / by);
  }

  Selection selection;
  ElementCount count(graph, groups);
  selection.total = count.total();

  std::map<std::size_t, std::int64_t> units;
  for (const auto& pool : pools_of(graph, groups, options)) {
    std::int64_t total = 0;
    for (auto g : pool.groups) total += count.remove(g, static_cast<std::int64_t>(groups[g].units.size()));
    for (auto g : pool.groups) count.restore(g, static_cast<std::int64_t>(groups[g].units.size()));
    const auto budget = static_cast<std::int64_t>(std::floor(pool.sparsity * static_cast<double>(total) + 1e-6));
    auto taken = options.ranking == SelectionOptions::Ranking::layer
                     ? same_share(groups, pool, steps, budget, count)
                     : least_important(groups, pool, steps, ascending, budget, count);
    std::int64_t gone = 0;
    for (auto [g, n] : taken) gone += count.remove(g, n);
    for (auto [g, n] : taken) count.restore(g, n);
    const double reached = total == 0 ? 0.0 : static_cast<double>(gone) / static_cast<double>(total);
    if (pool.sparsity - reached > 0.01 || (pool.sparsity > 0 && gone == 0)) {
      selection.warnings.push_back(fmt::format(
          "sparsity {:.4g}{} cannot be reached with minimum {}, multiple {} and whole units{}: {:.4f} it is", pool.sparsity,
          pool.name.empty() ? "" : " of \"" + pool.name + "\"", options.minimum, options.multiple,
          options.ranking == SelectionOptions::Ranking::layer ? ", the same share in every group (ranking = \"global\" is freer)"
                                                              : "",
          reached));
    }
    units.insert(taken.begin(), taken.end());
  }
  for (auto [g, n] : units) {
    if (n == 0) continue;
    selection.removed += count.remove(g, n);
    auto& gone = selection.removal[groups[g].id];
    gone.assign(order[g].begin(), order[g].begin() + n);
    std::sort(gone.begin(), gone.end());
  }
  return selection;
}

}  // namespace espalier
