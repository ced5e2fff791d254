#include "prune/selection.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <optional>
#include <queue>
#include <set>
#include <tuple>

#include "graph/element_count.h"
#include "prune/group_scope.h"
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

/// `units` of each group, its least important, into the selection.
void take(Selection& selection, const std::vector<CoupledGroup>& groups, const std::map<std::size_t, std::int64_t>& units,
          const std::vector<std::vector<std::int64_t>>& order, ElementCount& count) {
  for (auto [g, n] : units) {
    if (n == 0) continue;
    selection.removed += count.remove(g, n);
    auto& gone = selection.removal[groups[g].id];
    gone.assign(order[g].begin(), order[g].begin() + n);
    std::sort(gone.begin(), gone.end());
  }
}

std::string_view name_of(ThresholdOptions::Relative relative) {
  return relative == ThresholdOptions::Relative::mean ? "mean" : "largest";
}

/// Per group, what the threshold is a share of; 1 where it is none.
std::vector<double> references_of(const std::vector<CoupledGroup>& groups, const Scores& scores, const ThresholdOptions& options) {
  using Relative = ThresholdOptions::Relative;
  if (options.relative_to == Relative::none) return std::vector<double>(groups.size(), 1.0);
  const bool all = options.across == ThresholdOptions::Across::all;
  std::vector<double> references;
  double sum = 0, units = 0, max = -std::numeric_limits<double>::infinity();
  for (const auto& group : groups) {
    if (!all) sum = units = 0, max = -std::numeric_limits<double>::infinity();
    for (double score : scores_of(scores, group)) {
      sum += score;
      max = std::max(max, score);
      ++units;
    }
    references.push_back(options.relative_to == Relative::mean ? sum / units : max);
  }
  if (all) std::fill(references.begin(), references.end(), references.empty() ? 1.0 : references.back());
  for (std::size_t g = 0; g < groups.size(); ++g)
    if (references[g] < 0)
      throw_invalid(
          fmt::format("the {} score {} is {:.4g}: a threshold cannot be a share of a negative number", name_of(options.relative_to),
                      all ? "of all groups" : fmt::format("of group \"{}\"", groups[g].id), references[g]),
          "parameter relative_to", "relative_to = \"none\" compares the scores themselves");
  return references;
}

/// Units below the threshold that stay, and why.
struct Held {
  std::int64_t free = 0, by_minimum = 0;
  std::vector<std::size_t> groups;  ///< that minimum holds
};

/// How far the smallest score is from the threshold; nothing where every reference is 0.
std::string nothing_below(const ThresholdOptions& threshold, const std::vector<double>& references,
                          const std::vector<BelowThreshold>& report) {
  std::optional<std::size_t> nearest;
  const auto nearness = [&](std::size_t g) { return report[g].smallest / references[g]; };
  for (std::size_t g = 0; g < report.size(); ++g)
    if (references[g] > 0 && (!nearest || nearness(g) < nearness(*nearest))) nearest = g;
  if (!nearest) return {};
  const auto& row = report[*nearest];
  auto text = fmt::format("threshold {} takes nothing: the smallest score is {:.4g} (group \"{}\")", threshold.threshold,
                          row.smallest, row.group);
  if (threshold.relative_to == ThresholdOptions::Relative::none) return text;
  return text + fmt::format(", {:.4g} times the {} score {}, {:.4g}", nearness(*nearest), name_of(threshold.relative_to),
                            threshold.across == ThresholdOptions::Across::all ? "of all groups" : "of its group",
                            references[*nearest]);
}

void warn(Selection& selection, const SelectionOptions& options, const ThresholdOptions& threshold, const Held& held,
          const std::vector<double>& references, const std::vector<BelowThreshold>& report) {
  const bool all = threshold.across == ThresholdOptions::Across::all;
  std::int64_t below = 0, removed = 0;
  std::vector<std::string> empty;
  for (std::size_t g = 0; g < report.size(); ++g) {
    below += report[g].below;
    removed += report[g].removed;
    if (references[g] == 0) empty.push_back(report[g].group);
  }
  if (!empty.empty())
    selection.warnings.push_back(fmt::format(
        "the {} score of {} is 0, and nothing is below a share of 0: {}relative_to = \"none\" with a small threshold takes units "
        "that score 0",
        name_of(threshold.relative_to),
        all                 ? "all groups"
        : empty.size() == 1 ? fmt::format("group \"{}\"", empty.front())
                            : fmt::format("{} groups (\"{}\")", empty.size(), empty.front()),
        all ? "" : "across = \"all\" or "));
  if (below == 0)
    if (auto text = nothing_below(threshold, references, report); !text.empty()) selection.warnings.push_back(std::move(text));
  if (held.by_minimum > 0)
    selection.warnings.push_back(fmt::format(
        "{} of {} units below the threshold stay, because {} keep{} the share minimum = {}, one unit at least{}: \"{}\"{}",
        held.by_minimum, below, held.groups.size() == 1 ? "a group" : fmt::format("{} groups", held.groups.size()),
        held.groups.size() == 1 ? "s" : "", options.minimum,
        options.multiple > 1 ? fmt::format(", rounded up to multiple = {}", options.multiple) : "",
        report[held.groups.front()].group, held.groups.size() == 1 ? "" : " and others"));
  if (removed < held.free)
    selection.warnings.push_back(
        fmt::format("{} of {} units below the threshold stay, because no more than maximum = {} of the "
                    "parameters in scope may go",
                    held.free - removed, below, threshold.maximum));
  if (below > 0 && held.free == 0 && held.by_minimum == 0)
    selection.warnings.push_back(
        fmt::format("{} units are below the threshold, and all stay: fewer than a step of multiple = {} in "
                    "every group",
                    below, options.multiple));
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
  take(selection, groups, units, order, count);
  return selection;
}

void check_threshold(const SelectionOptions& options, const ThresholdOptions& threshold) {
  const auto share = [](std::string_view name, double value) {
    if (!(value >= 0 && value <= 1))
      throw_invalid(fmt::format("{} {} is no share between 0 and 1", name, value), fmt::format("parameter {}", name));
  };
  share("minimum", options.minimum);
  share("maximum", threshold.maximum);
  if (options.multiple < 1)
    throw_invalid(fmt::format("multiple is {}; it must be at least 1", options.multiple), "parameter multiple");
  if (!std::isfinite(threshold.threshold))
    throw_invalid(fmt::format("threshold {} is no finite number", threshold.threshold), "parameter threshold");
  if (threshold.threshold < 0 && threshold.relative_to != ThresholdOptions::Relative::none)
    throw_invalid(fmt::format("threshold {} is negative, and relative to the {} score it must be 0 or more", threshold.threshold,
                              name_of(threshold.relative_to)),
                  "parameter threshold", "relative_to = \"none\" compares the scores themselves");
}

Selection select_below(const Graph& graph, const std::vector<CoupledGroup>& groups, const Scores& scores,
                       const SelectionOptions& options, const ThresholdOptions& threshold, std::vector<BelowThreshold>& report) {
  check_threshold(options, threshold);
  const auto references = references_of(groups, scores, threshold);
  Pool pool;
  std::vector<Steps> steps;
  std::vector<std::vector<std::int64_t>> order;
  std::vector<std::vector<double>> ascending;
  report.clear();
  for (std::size_t g = 0; g < groups.size(); ++g) {
    const auto& own = scores_of(scores, groups[g]);
    order.push_back(order_of(own));
    BelowThreshold row{groups[g].id, static_cast<std::int64_t>(own.size()), 0, 0, 0, threshold.threshold * references[g]};
    row.below = std::count_if(own.begin(), own.end(), [&](double score) { return score < row.bound; });
    row.smallest = own[static_cast<std::size_t>(order.back().front())];
    auto& sorted = ascending.emplace_back();
    for (auto u : order.back()) sorted.push_back(own[std::size_t(u)] / (references[g] > 0 ? references[g] : 1));
    report.push_back(std::move(row));
    steps.push_back(steps_of(groups[g], options));
    pool.groups.push_back(g);
  }
  Selection selection;
  ElementCount count(graph, groups);
  selection.total = count.total();
  Held held;
  for (std::size_t g = 0; g < groups.size(); ++g) {
    const auto free = within(steps[g], report[g].below);
    if (report[g].below > steps[g].most) {
      held.by_minimum += report[g].below - steps[g].most;
      held.groups.push_back(g);
    }
    held.free += free;
    steps[g].most = free;
  }
  const auto budget = static_cast<std::int64_t>(std::floor(threshold.maximum * static_cast<double>(selection.total) + 1e-6));
  const auto units = least_important(groups, pool, steps, ascending, budget, count);
  for (auto [g, n] : units) report[g].removed = n;
  take(selection, groups, units, order, count);
  warn(selection, options, threshold, held, references, report);
  return selection;
}

}  // namespace espalier
