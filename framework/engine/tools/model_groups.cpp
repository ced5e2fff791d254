// What `espalier model groups` lists of a model file.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <optional>

#include "engine/tools/tools.h"
#include "formats/model_file.h"
#include "graph/block_surgery.h"
#include "graph/element_count.h"
#include "graph/experts.h"
#include "graph/groups.h"
#include "graph/op.h"
#include "graph/passes.h"
#include "graph/unit_cost.h"

namespace espalier {
namespace {

/// Elements that lie in a unit of some free group, one that lies in two once.
std::int64_t free_elements(const Graph& graph, std::vector<CoupledGroup> groups) {
  std::erase_if(groups, [](const CoupledGroup& group) { return group.pinned; });
  return ElementCount(graph, groups).total();
}

Json listed(const Graph& graph, const CoupledGroup& group, std::optional<double> macs) {
  Json members = Json::array();
  for (const Member& member : group.members)
    members.push_back({{"tensor", member.tensor},
                       {"shape", graph.initializers.at(member.tensor).shape},
                       {"axis", member.axis},
                       {"width", member.width},
                       {"makes", member.producer}});
  return {{"id", group.id},
          {"kind", group.kind == CoupledGroup::Kind::heads ? "heads" : "channels"},
          {"units", group.units.size()},
          {"parameters_per_unit", group.parameters_per_unit},
          {"macs_per_unit", macs ? Json(*macs) : Json()},
          {"exact", group.exact},
          {"pinned", group.pinned},
          {"multiple", group.multiple},
          {"reason", group.reason},
          {"members", std::move(members)},
          {"scopes", group.scopes}};
}

/// What leaves whole: `smaller` is the graph without the first unit, null where that cannot be.
Json listed_whole(std::string id, const char* kind, std::size_t units, std::int64_t parameters, const Graph* smaller, double all,
                  std::vector<std::string> scopes) {
  Json macs;
  if (smaller) macs = all - total_cost(*smaller, infer(*smaller), {}).macs;
  return {{"id", std::move(id)},
          {"kind", kind},
          {"units", units},
          {"parameters_per_unit", parameters},
          {"macs_per_unit", std::move(macs)},
          {"exact", true},
          {"pinned", false},
          {"multiple", 1},
          {"reason", ""},
          {"members", Json::array()},
          {"scopes", std::move(scopes)}};
}

/// Experts of mixtures: of the router a unit takes slices, of its own weights everything.
void list_experts(const Graph& graph, double all, Json& list) {
  const std::vector<Mixture> mixtures = find_mixtures(graph);
  for (std::size_t i = 0; i < mixtures.size(); ++i) {
    const Mixture& mixture = mixtures[i];
    std::optional<Graph> smaller;
    if (mixture.experts.size() > 1) smaller = without_experts(graph, mixtures, {{i, {0}}});
    list.push_back(listed_whole("experts:" + mixture.scope, "experts", mixture.experts.size(), mixture.experts.at(0).parameters,
                                smaller ? &*smaller : nullptr, all, {mixture.scope}));
    for (const Mixture::Slices& slices : mixture.router)
      list.back()["members"].push_back({{"tensor", slices.tensor},
                                        {"shape", graph.initializers.at(slices.tensor).shape},
                                        {"axis", slices.axis},
                                        {"width", 1},
                                        {"makes", true}});
    Json experts = Json::array();
    for (const Expert& expert : mixture.experts)
      experts.push_back({{"weights", expert.weights}, {"parameters", expert.parameters}});
    list.back()["experts"] = std::move(experts);
    list.back()["chosen"] = mixture.used;
  }
}

/// Runs of repeated blocks: one leaves whole, and the residual stream stays.
void list_blocks(const Graph& graph, const ValueMap& values, double all, Json& list) {
  const std::vector<Block> blocks = find_blocks(graph);
  const auto parameters = [](const Graph& of) { return of.parameter_count(); };
  for (std::size_t first = 0; first < blocks.size();) {
    std::size_t end = first;
    std::vector<std::string> scopes, kept;
    std::optional<std::size_t> gone;
    for (; end < blocks.size() && blocks[end].run == blocks[first].run; ++end) {
      scopes.push_back(blocks[end].scope);
      const std::string why = why_not_removable(graph, values, blocks[end]);
      if (!why.empty()) {
        kept.push_back(blocks[end].scope + ": " + why);
      } else if (!gone) {
        gone = end;
      }
    }
    std::optional<Graph> smaller;
    if (gone) smaller = without_blocks(graph, blocks, {*gone});
    Json row = listed_whole("blocks:" + blocks[first].scope, "blocks", end - first,
                            smaller ? parameters(graph) - parameters(*smaller) : 0, smaller ? &*smaller : nullptr, all, scopes);
    row["pinned"] = !gone;
    row["reason"] = fmt::format("{}", fmt::join(kept, "; "));
    list.push_back(std::move(row));
    first = end;
  }
}

int model_groups(int argc, char** argv) {
  const Json request = tool_request(argc, argv);
  Graph graph = read_model_file(request.at("file").get<std::string>(), nullptr, shapes_only());
  normal_form(graph);
  const ValueMap values = infer(graph);
  const double all = total_cost(graph, values, {}).macs;
  const bool pinned = request.value("pinned", false);
  const ChannelClasses classes(graph, values);
  auto groups = coupled_groups(classes, pinned);
  const auto macs = macs_per_unit(classes, groups);
  Json list = Json::array();
  for (std::size_t g = 0; g < groups.size(); ++g) list.push_back(listed(graph, groups[g], macs[g]));
  list_experts(graph, all, list);
  list_blocks(graph, values, all, list);
  if (!pinned) std::erase_if(list.get_ref<Json::array_t&>(), [](const Json& row) { return row["pinned"].get<bool>(); });
  print_answer({{"groups", list},
                {"parameters", graph.parameter_count()},
                {"parameters_free", free_elements(graph, std::move(groups))},
                {"macs", all}});
  return 0;
}

const RegisterTool tool{"model-groups", model_groups};

}  // namespace
}  // namespace espalier
