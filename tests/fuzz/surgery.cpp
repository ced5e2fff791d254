// Any graph that is accepted, cut: the first byte says which groups, the rest is the model.
#include "graph/surgery.h"

#include <fmt/format.h>

#include <cmath>

#include "formats/onnx.h"
#include "graph/block_surgery.h"
#include "graph/unit_cost.h"
#include "target.h"

using namespace espalier;

namespace {

/// What a unit costs is what a cut saves.
void check_costs(const Graph& graph, const ValueMap& values, const std::vector<CoupledGroup>& groups) {
  const auto macs = macs_per_unit(ChannelClasses(graph, values), groups);
  const double all = total_cost(graph, values, {}).macs;
  int left = 4;
  for (std::size_t g = 0; g < groups.size() && left > 0; ++g) {
    if (!macs[g] || !groups[g].exact) continue;
    --left;
    Removal removal;
    for (std::int64_t unit = 0; unit < groups[g].multiple; ++unit) removal[groups[g].id].push_back(unit);
    CutReport report;
    const Graph smaller = cut(graph, groups, removal, false, &report);
    const double saved = all - total_cost(smaller, report.values, {}).macs,
                 told = *macs[g] * static_cast<double>(groups[g].multiple);
    if (std::abs(saved - told) > 1e-6 * all)
      throw Error(ErrorCode::internal, fmt::format("a unit costs {} by its nodes and {} by its cut", told, saved), groups[g].id);
  }
}

}  // namespace

ESPALIER_FUZZ(surgery, bytes) {
  if (bytes.empty()) return;
  const auto choice = static_cast<unsigned>(bytes[0]);
  const fuzz::Owned owned(bytes.subspan(1));
  const auto none = [](const std::string&, std::uint64_t, std::uint64_t, const std::string& tensor) -> ExternalBytes {
    throw_invalid("there is no external data here", tensor);
  };
  const Graph graph = parse_onnx(owned.view(), owned.bytes, none, "fuzz");
  const ValueMap values = infer(graph);
  const auto groups = coupled_groups(graph, values, true);
  Removal removal;
  unsigned turn = choice;
  for (const CoupledGroup& group : groups) {
    turn = turn * 5 + 3;
    if (group.pinned || !group.exact || turn % 3 == 0) continue;
    const auto count = static_cast<std::int64_t>(group.units.size());
    for (std::int64_t u = 0; u + group.multiple < count && u < group.multiple * (1 + turn % 2); ++u) removal[group.id].push_back(u);
  }
  // What the groups promise, the surgeon keeps: a cut of free groups is no error of the model's.
  const Graph smaller = cut(graph, groups, removal);
  infer(mask(graph, groups, removal));
  check_costs(graph, values, groups);
  const auto blocks = find_blocks(smaller);
  if (!blocks.empty()) without_blocks(smaller, blocks, {choice % blocks.size()});
}
