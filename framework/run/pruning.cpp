#include "run/pruning.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <optional>
#include <queue>
#include <set>
#include <tuple>

#include "formats/model_artifact.h"
#include "formats/safetensors.h"
#include "run/compensation.h"
#include "sdk/error.h"

namespace espalier {
namespace {

constexpr double slack = 1e-9;  // shares are decimal fractions: 0.3 · 10 units is 3 units

// The members that decide whose channels these are: the weights that make them. Biases, norms and readers only follow.
std::vector<std::size_t> deciding_members(const Graph& graph, const CoupledGroup& group) {
  std::vector<std::size_t> weights, producers, all(group.members.size());
  std::iota(all.begin(), all.end(), 0);
  for (std::size_t m : all) {
    if (!group.members[m].producer) continue;
    producers.push_back(m);
    const Tensor* tensor = graph.initializer(group.members[m].tensor);
    if (tensor && tensor->shape.size() >= 2) weights.push_back(m);
  }
  if (!weights.empty()) return weights;
  return producers.empty() ? all : producers;
}

using Names = std::vector<std::vector<std::string>>;  // per deciding member: what it answers to

Names deciding_names(const Graph& graph, const Uses& uses, const CoupledGroup& group) {
  Names names;
  for (auto m : deciding_members(graph, group)) names.push_back(scope_names(uses, graph, group.members[m].tensor));
  return names;
}

bool all_match(const Names& names, const std::string& pattern) {
  return std::all_of(names.begin(), names.end(), [&](const auto& answers) {
    return std::any_of(answers.begin(), answers.end(), [&](const auto& name) { return scope_matches(pattern, name); });
  });
}

bool any_match(const Names& names, const std::string& pattern) {
  return std::any_of(names.begin(), names.end(), [&](const auto& answers) {
    return std::any_of(answers.begin(), answers.end(), [&](const auto& name) { return scope_matches(pattern, name); });
  });
}

std::string_view plural(CoupledGroup::Kind kind) { return kind == CoupledGroup::Kind::heads ? "attention heads" : "channels"; }

[[noreturn]] void nothing_in_scope(const std::string& pattern, CoupledGroup::Kind kind, const std::vector<std::string>& names,
                                   const std::string& pinned) {
  auto near = near_scopes(pattern, names);
  std::string hint = near.empty() ? fmt::format("this model has no {} that can be cut", plural(kind))
                                  : fmt::format("{} that can be cut are in: {}", plural(kind), fmt::join(near, ", "));
  throw_invalid(fmt::format("the scope \"{}\" means no {} that can be cut{}", pattern, plural(kind), pinned), "parameter scope",
                hint);
}

/// Elements that removals take, exactly: what is left of a tensor is the product of what is left of its axes.
class ElementCount {
 public:
  ElementCount(const Graph& graph, const std::vector<CoupledGroup>& groups) : groups_(groups) {
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

  /// Elements gone when `units` units of a group go, after all that went before.
  std::int64_t remove(std::size_t group, std::int64_t units) {
    const auto before = touched(group);
    for (std::size_t m = 0; m < groups_[group].members.size(); ++m) {
      const Member& member = groups_[group].members[m];
      left_[member_tensor_[group][m]].at(member.axis) -= units * member.width;
    }
    return before - touched(group);
  }
  void restore(std::size_t group, std::int64_t units) {
    for (std::size_t m = 0; m < groups_[group].members.size(); ++m) {
      const Member& member = groups_[group].members[m];
      left_[member_tensor_[group][m]].at(member.axis) += units * member.width;
    }
  }
  void reset() { left_ = full_; }

 private:
  std::int64_t touched(std::size_t group) const {
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

  const std::vector<CoupledGroup>& groups_;
  std::map<std::string, std::size_t> index_;
  std::vector<std::vector<std::int64_t>> full_, left_;
  std::vector<std::vector<std::size_t>> member_tensor_;
};

// How far one group may go down: the numbers of units it may lose are first + k·step, up to `most`; or none.
struct Steps {
  std::int64_t first = 0, step = 1, most = 0;
};

Steps steps_of(const CoupledGroup& group, const SelectionOptions& options) {
  const auto units = static_cast<std::int64_t>(group.units.size());
  const auto multiple = std::lcm(std::max<std::int64_t>(1, group.multiple), options.multiple);
  auto keep = std::max<std::int64_t>(1, static_cast<std::int64_t>(std::ceil(options.minimum * static_cast<double>(units) - slack)));
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

std::vector<CoupledGroup> groups_in_scope(const Graph& graph, const std::vector<CoupledGroup>& groups, CoupledGroup::Kind kind,
                                          const SelectionOptions& options, std::vector<std::string>& warnings) {
  const Uses uses(graph);
  std::set<std::string> met, excluded;
  std::vector<std::string> names;
  std::string pinned, inexact;
  std::size_t inexact_count = 0;
  std::vector<CoupledGroup> out;
  for (const auto& group : groups) {
    if (group.kind != kind) continue;
    const auto answers = deciding_names(graph, uses, group);
    bool included = true;
    for (const auto& member : answers) included = included && Scope{options.scope.include, {}}.covers(member);
    if (group.pinned) {
      if (included && pinned.empty()) pinned = fmt::format(" (\"{}\" is pinned: {})", group.id, group.reason);
      continue;
    }
    for (const auto& member : answers) names.insert(names.end(), member.begin(), member.end());
    for (const auto& pattern : options.scope.include) {
      if (any_match(answers, pattern)) met.insert(pattern);
    }
    bool out_of_scope = false;
    for (const auto& pattern : options.scope.exclude) {
      if (!any_match(answers, pattern)) continue;
      excluded.insert(pattern);
      out_of_scope = true;
    }
    if (!included || out_of_scope) continue;
    if (!group.exact && !options.allow_inexact) {
      if (inexact_count++ == 0) inexact = fmt::format("\"{}\": {}", group.id, group.reason);
      continue;
    }
    out.push_back(group);
  }
  for (const auto& pattern : options.scope.include) {
    if (!met.count(pattern)) nothing_in_scope(pattern, kind, names, pinned);
  }
  for (const auto& pattern : options.scope.exclude) {
    if (!excluded.count(pattern))
      warnings.push_back(fmt::format("exclude: \"{}\" means no {} of this model", pattern, plural(kind)));
  }
  if (inexact_count > 0) {
    std::string text = fmt::format("{} group{} in scope would change what the kept units compute ({})", inexact_count,
                                   inexact_count == 1 ? "" : "s", inexact);
    if (out.empty()) throw_invalid(text, "parameter scope", "allow_inexact = true cuts them all the same");
    warnings.push_back(text + "; left whole, allow_inexact = true cuts them");
  }
  if (out.empty()) {
    nothing_in_scope(options.scope.include.empty() ? "" : options.scope.include.front(), kind, names,
                     pinned.empty() && !options.scope.exclude.empty() ? " and is not excluded" : pinned);
  }
  return out;
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
  for (std::size_t g = 0; g < groups.size(); ++g)
    selection.total += count.remove(g, static_cast<std::int64_t>(groups[g].units.size()));
  count.reset();

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

namespace {

SelectionOptions options_from(const Params& params) {
  SelectionOptions options;
  options.sparsity = params.number("sparsity");
  options.scope = {params.texts("scope"), params.texts("exclude")};
  if (params.has("per_scope")) options.per_scope = params.numbers("per_scope");
  options.ranking = params.text("ranking") == "global" ? SelectionOptions::Ranking::global : SelectionOptions::Ranking::layer;
  const std::map<std::string, SelectionOptions::Normalise> normalise{{"none", SelectionOptions::Normalise::none},
                                                                     {"mean", SelectionOptions::Normalise::mean},
                                                                     {"max", SelectionOptions::Normalise::max},
                                                                     {"sum", SelectionOptions::Normalise::sum}};
  auto how = normalise.find(params.text("normalise"));
  if (how == normalise.end())
    throw_invalid(fmt::format("normalise \"{}\" is none of none, mean, max, sum", params.text("normalise")));
  options.normalise = how->second;
  options.minimum = params.number("minimum");
  options.multiple = params.integer("multiple");
  options.allow_inexact = params.flag("allow_inexact");
  return options;
}

Artifact save_masks(Context& context, const std::vector<CoupledGroup>& groups, const Removal& removal) {
  std::map<std::string, Tensor> masks;
  for (const auto& group : groups) {
    std::vector<std::uint8_t> kept(group.units.size(), 1);
    if (auto gone = removal.find(group.id); gone != removal.end()) {
      for (auto u : gone->second) kept[static_cast<std::size_t>(u)] = 0;
    }
    masks.emplace(group.id, Tensor::of(DType::u8, {static_cast<std::int64_t>(kept.size())}, kept));
  }
  Artifact artifact;
  artifact.type = ArtifactType::masks;
  artifact.meta = {{"groups", groups.size()}, {"kept", 1}};
  artifact.blobs["masks.safetensors"] = context.put(write_safetensors(masks));
  return artifact;
}

Scores scores_for(Context& context, const Graph& graph, const std::vector<CoupledGroup>& groups) {
  if (context.has_input("scores")) return load_scores(context, context.input("scores"));
  auto metric = context.component("metric");
  std::optional<Artifact> data;
  if (context.has_input("data")) data = context.input("data");
  context.progress({0, 0, "scoring with " + metric.name, {}});
  return metric.as<Metric>().score(context, metric.params, graph, groups, data ? &*data : nullptr);
}

}  // namespace

namespace {

Graph compensated(Context& context, const Graph& graph, const std::vector<CoupledGroup>& groups, const Removal& removal) {
  const Params& params = context.params();
  if (!context.has_input("data"))
    throw_invalid("compensate = true needs data, and the stage has none", "parameter compensate", "give it: data = \"@corpus\"");
  const auto data = open_dataset(context, context.input("data"));
  std::vector<Compensated> report;
  Graph out = compensate(context, graph, groups, removal, *data,
                         {.samples = params.integer("compensation_samples"), .batch = 1, .ridge = params.number("ridge")}, report);
  Json rows = Json::array();
  for (const Compensated& row : report) rows.push_back({row.tensor, row.error_before, row.error_after});
  context.detail("compensation",
                 {{"columns", {"weight", "relative error without", "with compensation"}}, {"rows", std::move(rows)}});
  return out;
}

}  // namespace

void run_pruner(Context& context, CoupledGroup::Kind kind) {
  const auto options = options_from(context.params());
  const Graph graph = load_model(context, context.input("model"));
  const ValueMap values = infer(graph);
  std::vector<std::string> warnings;
  const auto groups = groups_in_scope(graph, coupled_groups(graph, values, true), kind, options, warnings);
  context.check_cancelled();
  const Selection selection = select_units(graph, groups, scores_for(context, graph, groups), options);
  warnings.insert(warnings.end(), selection.warnings.begin(), selection.warnings.end());
  for (const auto& warning : warnings) context.log(LogLevel::warning, warning);
  context.check_cancelled();

  CutReport report;
  const bool refit = context.params().flag("compensate");
  const Graph smaller = cut(refit ? compensated(context, graph, groups, selection.removal) : graph, groups, selection.removal,
                            options.allow_inexact, &report);
  context.output("model", save_model(context, smaller));
  context.output("masks", save_masks(context, groups, selection.removal));
  Json rows = Json::array();
  for (const auto& group : groups) {
    auto gone = selection.removal.find(group.id);
    auto left = group.units.size() - (gone == selection.removal.end() ? 0 : gone->second.size());
    rows.push_back({group.id, group.units.size(), left});
  }
  context.detail("widths", {{"columns", {"group", "before", "after"}}, {"rows", std::move(rows)}});
  context.figure("parameters", static_cast<double>(smaller.parameter_count()));
  context.figure("sparsity", selection.sparsity());
  context.figure("groups", static_cast<double>(groups.size()));
  context.log(LogLevel::info, fmt::format("{} of {} groups cut: {:.2f} % of {} parameters in scope removed, {} left in the model",
                                          selection.removal.size(), groups.size(), 100 * selection.sparsity(), selection.total,
                                          smaller.parameter_count()));
}

}  // namespace espalier
