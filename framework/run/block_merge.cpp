#include "run/block_merge.h"

#include <ATen/TensorOperators.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <map>
#include <set>

#include "run/layer_map.h"
#include "run/tensor.h"
#include "sdk/error.h"

namespace espalier {
namespace {

class Merger {
 public:
  Merger(const Graph& graph, const std::vector<Block>& blocks, std::size_t kept, const std::vector<std::size_t>& gone, Merge how)
      : result_(graph), uses_(graph), blocks_(blocks), kept_(kept), gone_(gone), how_(how) {
    inside_.insert(blocks[kept].nodes.begin(), blocks[kept].nodes.end());
    inside_.insert(blocks[kept].constants.begin(), blocks[kept].constants.end());
  }

  Graph merged() {
    const Block& kept = blocks_[kept_];
    for (std::size_t i = 0; i < kept.nodes.size(); ++i) {
      std::vector<std::size_t> others;
      for (const std::size_t g : gone_) others.push_back(blocks_[g].nodes[i]);
      node(kept.nodes[i], others);
    }
    result_.validate();
    return std::move(result_);
  }

 private:
  /// Corresponding nodes: their weights, and what makes their constants.
  void node(std::size_t own, const std::vector<std::size_t>& others) {
    if (!seen_.insert(own).second) return;
    for (const std::size_t other : others)
      if (result_.nodes[other].op != result_.nodes[own].op ||
          result_.nodes[other].inputs.size() != result_.nodes[own].inputs.size())
        throw_unsupported(
            fmt::format("its counterpart of another block is stored in another way (node {})", result_.nodes[other].name),
            "node " + result_.nodes[own].name, "bring the model into one form first, or give merge = \"none\"");
    for (std::size_t slot = 0; slot < result_.nodes[own].inputs.size(); ++slot) {
      const std::string name = result_.nodes[own].inputs[slot];
      std::vector<std::string> names;
      for (const std::size_t other : others) names.push_back(result_.nodes[other].inputs[slot]);
      if (std::all_of(names.begin(), names.end(), [&](const std::string& n) { return n == name; })) continue;
      if (result_.initializer(name)) {
        weight(own, slot, names);
        continue;
      }
      const auto maker = uses_.producer_of(name);
      if (maker < 0 || !constant(static_cast<std::size_t>(maker))) continue;
      std::vector<std::size_t> makers;
      for (const std::string& n : names) {
        if (uses_.producer_of(n) < 0)
          throw_unsupported("its counterpart is stored in another way", "weight " + n, "give merge = \"none\"");
        makers.push_back(static_cast<std::size_t>(uses_.producer_of(n)));
      }
      node(static_cast<std::size_t>(maker), makers);
    }
  }

  bool constant(std::size_t node) const {
    const auto& constants = blocks_[kept_].constants;
    return std::find(constants.begin(), constants.end(), node) != constants.end();
  }

  void weight(std::size_t own, std::size_t slot, const std::vector<std::string>& names) {
    const std::string name = result_.nodes[own].inputs[slot];
    if (const auto before = done_.find(name); before != done_.end()) {
      result_.nodes[own].inputs[slot] = before->second;
      return;
    }
    const Tensor& tensor = *result_.initializer(name);
    at::Tensor sum;
    bool differ = false;
    for (const std::string& other : names) {
      const Tensor* theirs = result_.initializer(other);
      if (!theirs) throw_unsupported("its counterpart is stored in another way", "weight " + other, "give merge = \"none\"");
      if (theirs->shape != tensor.shape)
        throw_invalid(fmt::format("\"{}\" [{}] and \"{}\" [{}] cannot be merged", name, fmt::join(tensor.shape, ", "), other,
                                  fmt::join(theirs->shape, ", ")),
                      "parameter merge", "blocks of different widths cannot: give merge = \"none\", or remove blocks first");
      if (!is_floating(tensor.dtype) || theirs->dtype != tensor.dtype) {
        if (theirs->digest() == tensor.digest()) continue;  // the same constant
        throw_unsupported(fmt::format("\"{}\" is stored as {}: only floating weights can be merged", name, to_string(tensor.dtype)),
                          "parameter merge", "merge before quantizing, or give merge = \"none\"");
      }
      differ = differ || theirs->digest() != tensor.digest();
      const at::Tensor values = to_aten(*theirs).to(at::kDouble);
      sum = sum.defined() ? sum + values : values;
    }
    if (!differ) return;
    const auto count = static_cast<double>(names.size());
    const at::Tensor mine = to_aten(tensor).to(at::kDouble);
    const at::Tensor merged = how_ == Merge::mean ? (mine + sum) / (count + 1) : mine * (1 - count) + sum;
    Tensor stored = from_aten(merged.to(scalar_type(tensor.dtype)));
    const auto& readers = uses_.readers_of(name);
    const bool alone = std::all_of(readers.begin(), readers.end(), [&](const Uses::Reader& r) { return inside_.contains(r.node); });
    const std::string target = alone ? name : result_.fresh(name + ".merged");
    result_.initializers[target] = std::move(stored);
    result_.nodes[own].inputs[slot] = target;
    done_[name] = target;
  }

  Graph result_;
  Uses uses_;
  const std::vector<Block>& blocks_;
  const std::size_t kept_;
  const std::vector<std::size_t>& gone_;
  const Merge how_;
  std::set<std::size_t> inside_, seen_;
  std::map<std::string, std::string> done_;  // weights that several nodes of the block read are merged once
};

}  // namespace

Graph merge_blocks(const Graph& graph, const std::vector<Block>& blocks, std::size_t kept, const std::vector<std::size_t>& gone,
                   Merge how) {
  for (const std::size_t g : gone)
    if (blocks.at(g).run != blocks.at(kept).run)
      throw_invalid(fmt::format("{} and {} are of different kinds", block_label(blocks, kept), block_label(blocks, g)),
                    "parameter merge", "give merge = \"none\"");
  return Merger(graph, blocks, kept, gone, how).merged();
}

}  // namespace espalier
