// Any graph that is accepted, cut: the first byte says which groups, the rest is the model.
#include "graph/surgery.h"
#include "formats/onnx.h"
#include "graph/block_surgery.h"
#include "target.h"

using namespace espalier;

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
  const auto blocks = find_blocks(smaller);
  if (!blocks.empty()) without_blocks(smaller, blocks, {choice % blocks.size()});
}
