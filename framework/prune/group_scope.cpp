#include "prune/group_scope.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <numeric>
#include <set>

#include "sdk/error.h"

namespace espalier {
namespace {

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

bool any_match(const DecidingNames& names, const std::string& pattern) {
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

}  // namespace

DecidingNames deciding_names(const Graph& graph, const Uses& uses, const CoupledGroup& group) {
  DecidingNames names;
  for (auto m : deciding_members(graph, group)) names.push_back(scope_names(uses, graph, group.members[m].tensor));
  return names;
}

bool all_match(const DecidingNames& names, const std::string& pattern) {
  return std::all_of(names.begin(), names.end(), [&](const auto& answers) {
    return std::any_of(answers.begin(), answers.end(), [&](const auto& name) { return scope_matches(pattern, name); });
  });
}

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

}  // namespace espalier
