#include "engine/tools/cut_model.h"

#include <fmt/format.h>

#include <algorithm>
#include <thread>

#include "graph/channels.h"
#include "graph/element_count.h"
#include "graph/passes.h"
#include "graph/surgery.h"
#include "prune/group_scope.h"
#include "prune/magnitude.h"
#include "sdk/error.h"

namespace espalier {
namespace {

using Kind = CoupledGroup::Kind;

constexpr std::pair<Kind, const char*> kKinds[] = {{Kind::channels, "channels"}, {Kind::heads, "heads"}};

bool cuttable(const std::vector<CoupledGroup>& groups, Kind kind, bool allow_inexact) {
  return std::any_of(groups.begin(), groups.end(), [&](const CoupledGroup& group) {
    return group.kind == kind && !group.pinned && (group.exact || allow_inexact);
  });
}

/// Of each kind what the patterns mean; a kind that nobody named may be absent.
std::vector<std::vector<CoupledGroup>> in_scope(const Graph& graph, const std::vector<CoupledGroup>& groups,
                                                const CutRequest& request, std::vector<std::string>& warnings) {
  std::vector<std::vector<CoupledGroup>> found;
  for (const auto& [kind, name] : kKinds) {
    const bool named = request.kinds.contains(name);
    if (!request.kinds.empty() && !named) continue;
    if (!named && !cuttable(groups, kind, request.options.allow_inexact)) continue;
    found.push_back(groups_in_scope(graph, groups, kind, request.options, warnings));
  }
  if (found.empty())
    throw_invalid("the model has no channels or heads that can be cut", graph.name, "espalier model groups --pinned says why");
  return found;
}

void add_widths(Json& widths, const std::vector<CoupledGroup>& groups, const Removal& removal) {
  for (const CoupledGroup& group : groups) {
    const auto gone = removal.find(group.id);
    const std::size_t less = gone == removal.end() ? 0 : gone->second.size();
    widths.push_back({{"group", group.id}, {"before", group.units.size()}, {"after", group.units.size() - less}});
  }
}

}  // namespace

CutRequest::CutRequest(const Json& json) {
  options.sparsity = json.at("sparsity").get<double>();
  options.scope = {json.at("scope").get<std::vector<std::string>>(), json.at("exclude").get<std::vector<std::string>>()};
  options.ranking = json.at("global").get<bool>() ? SelectionOptions::Ranking::global : SelectionOptions::Ranking::layer;
  if (options.ranking == SelectionOptions::Ranking::global) options.normalise = SelectionOptions::Normalise::mean;
  options.multiple = json.at("multiple").get<std::int64_t>();
  options.allow_inexact = json.at("allow_inexact").get<bool>();
  kinds = json.at("kinds").get<std::set<std::string>>();
}

Graph cut_by_magnitude(Graph graph, const CutRequest& request, const TensorStore& store, const std::function<void()>& check,
                       Json& told) {
  normal_form(graph);
  const ValueMap values = infer(graph);
  const ChannelClasses classes(graph, values);
  const auto groups = coupled_groups(classes, true);
  std::vector<std::string> warnings;
  Removal removal;
  std::vector<CoupledGroup> scope;
  Json widths = Json::array();
  MagnitudeOptions options;
  options.threads = static_cast<int>(std::thread::hardware_concurrency());
  for (const auto& own : in_scope(graph, groups, request, warnings)) {
    const Scores scores = magnitude(graph, own, options, [&](std::size_t, std::size_t) { check(); });
    const Selection selection = select_units(graph, own, scores, request.options);
    warnings.insert(warnings.end(), selection.warnings.begin(), selection.warnings.end());
    add_widths(widths, own, selection.removal);
    scope.insert(scope.end(), own.begin(), own.end());
    removal.insert(selection.removal.begin(), selection.removal.end());
  }
  ElementCount count(graph, scope);
  const std::int64_t total = count.total();
  if (removal.empty())
    throw_invalid(
        fmt::format("nothing goes: {} of the {} parameters in scope is less than a unit", request.options.sparsity, total),
        "--sparsity", "ask for more, or for a smaller --multiple");
  const std::int64_t before = graph.parameter_count();
  Graph smaller = cut(classes, groups, removal, request.options.allow_inexact, nullptr, store);
  told = {{"sparsity", static_cast<double>(count.taken(removal)) / static_cast<double>(total)},
          {"in_scope", total},
          {"parameters_before", before},
          {"groups", std::move(widths)},
          {"warnings", warnings}};
  return smaller;
}

}  // namespace espalier
