#include "graph/block_surgery.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>
#include <unordered_map>

#include "graph/passes.h"
#include "sdk/error.h"

namespace espalier {
namespace {

std::string label(const Block& block) { return block.scope.empty() ? fmt::format("block of \"{}\"", block.output) : block.scope; }

/// Something outside of the block that reads a value which only the block has: "node /x", "output y"; "" where there is nothing.
std::string foreign_reader(const Graph& graph, const Uses& uses, const Block& block) {
  std::set<std::size_t> inside(block.nodes.begin(), block.nodes.end());
  inside.insert(block.constants.begin(), block.constants.end());
  for (const std::size_t n : inside)
    for (const std::string& value : graph.nodes[n].outputs) {
      if (value.empty() || value == block.output) continue;
      for (const Uses::Reader& reader : uses.readers_of(value))
        if (!inside.contains(reader.node)) return fmt::format("\"{}\" is read by node {}", value, graph.nodes[reader.node].name);
      for (const Value& output : graph.outputs)
        if (output.name == value) return fmt::format("\"{}\" is an output of the model", value);
    }
  return {};
}

}  // namespace

std::string why_not_removable(const Graph& graph, const ValueMap& values, const Block& block) {
  const auto in = values.find(block.input), out = values.find(block.output);
  if (in == values.end() || out == values.end() || !in->second.rank_known || !out->second.rank_known)
    return "the shape of what enters or leaves it is not known";
  if (in->second.dtype != out->second.dtype || in->second.shape != out->second.shape)
    return fmt::format("{} enters and {} leaves", text(in->second.shape), text(out->second.shape));
  return foreign_reader(graph, Uses(graph), block);
}

Graph without_blocks(const Graph& graph, const std::vector<Block>& blocks, const std::vector<std::size_t>& gone) {
  const ValueMap values = infer(graph);
  std::unordered_map<std::string, std::string> instead;  // what stands for a removed block's output
  for (const std::size_t number : std::set<std::size_t>(gone.begin(), gone.end())) {
    if (number >= blocks.size())
      throw_invalid(fmt::format("there is no block {}", number), "blocks", fmt::format("the model has {}", blocks.size()));
    const Block& block = blocks[number];
    if (const std::string why = why_not_removable(graph, values, block); !why.empty())
      throw_invalid(fmt::format("block {} ({}) cannot be removed: {}", number, label(block), why), "blocks",
                    "leave it out, or name it in keep");
    // Blocks are in the order in which they run: what enters this one may be what an earlier one left behind.
    const auto before = instead.find(block.input);
    instead[block.output] = before == instead.end() ? block.input : before->second;
  }
  Graph result = graph;
  result.outputs.clear();  // so that only readers are renamed
  for (const auto& [from, to] : instead) replace_uses(result, from, to);
  result.outputs = graph.outputs;
  for (const Value& output : graph.outputs) {
    const auto found = instead.find(output.name);
    if (found == instead.end()) continue;
    // The name at the graph's border stays, for a copy of what now answers for it.
    const std::string old = result.fresh(output.name + ".removed");
    for (Node& node : result.nodes) std::replace(node.outputs.begin(), node.outputs.end(), output.name, old);
    Node copy;
    copy.op = "Identity";
    copy.name = "/" + old + "/Identity";
    copy.inputs = {found->second};
    copy.outputs = {output.name};
    result.nodes.push_back(std::move(copy));
  }
  result.sort();
  remove_dead(result);
  result.validate();
  infer(result);
  return result;
}

}  // namespace espalier
