#include "graph/memory_plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <numeric>
#include <set>

#include "sdk/error.h"

namespace espalier {
namespace {

constexpr std::int64_t kAlignment = 64;

/// Bytes of every value that a node makes and whose size is known.
std::map<std::string, std::int64_t> sizes_of(const Graph& graph, const ValueMap& values, const Bindings& lengths,
                                             std::vector<std::string>& unknown) {
  std::map<std::string, std::int64_t> sizes;
  for (const Node& node : graph.nodes) {
    for (const std::string& name : node.outputs) {
      if (name.empty()) continue;
      const auto found = values.find(name);
      if (found == values.end() || !found->second.rank_known || found->second.dtype == DType::undefined ||
          found->second.dtype == DType::string) {
        unknown.push_back(name);
        continue;
      }
      std::int64_t elements = 1;
      for (const Dim& dim : found->second.shape) {
        for (const auto& [symbol, factor] : dim.terms())
          if (!lengths.contains(symbol))
            throw_invalid(fmt::format("the length \"{}\" in the shape {} is not given", symbol, text(found->second.shape)), name,
                          "add it to the lengths");
        const auto length = evaluate(dim, lengths);
        if (length < 0 || __builtin_mul_overflow(elements, length, &elements))
          throw_invalid(fmt::format("the shape {} has no size with these lengths", text(found->second.shape)), name);
      }
      const auto bytes = static_cast<std::int64_t>(byte_size(found->second.dtype, elements));
      sizes[name] = (bytes + kAlignment - 1) / kAlignment * kAlignment;
    }
  }
  return sizes;
}

using Reads = std::vector<std::vector<std::string>>;  ///< by node: distinct values, those of bodies too

Reads reads_of(const Graph& graph) {
  Reads reads;
  for (const Node& node : graph.nodes) {
    std::set<std::string> names(node.inputs.begin(), node.inputs.end());
    for (auto& name : captures(node)) names.insert(std::move(name));
    names.erase("");
    reads.emplace_back(names.begin(), names.end());
  }
  return reads;
}

std::vector<PlannedBuffer> lifetimes(const Graph& graph, const Reads& reads, const std::map<std::string, std::int64_t>& sizes,
                                     const std::vector<std::size_t>& order) {
  std::vector<PlannedBuffer> buffers;
  std::map<std::string, std::size_t> index;
  for (std::size_t step = 0; step < order.size(); ++step) {
    for (const auto& name : graph.nodes[order[step]].outputs) {
      const auto size = sizes.find(name);
      if (size == sizes.end()) continue;
      index[name] = buffers.size();
      buffers.push_back({name, size->second, 0, step, step});
    }
    for (const auto& name : reads[order[step]])
      if (const auto found = index.find(name); found != index.end()) buffers[found->second].last = step;
  }
  for (const Value& output : graph.outputs)
    if (const auto found = index.find(output.name); found != index.end()) buffers[found->second].last = order.size() - 1;
  return buffers;
}

std::vector<std::int64_t> live_bytes(const std::vector<PlannedBuffer>& buffers, std::size_t steps) {
  std::vector<std::int64_t> live(steps + 1, 0);
  for (const auto& buffer : buffers) {
    live[buffer.first] += buffer.bytes;
    live[buffer.last + 1] -= buffer.bytes;
  }
  std::partial_sum(live.begin(), live.end(), live.begin());
  live.pop_back();
  return live;
}

/// Of the nodes that are ready, always the one that leaves the fewest bytes alive; the earlier one of equals.
std::vector<std::size_t> frugal_order(const Graph& graph, const Reads& reads, const std::map<std::string, std::int64_t>& sizes) {
  std::map<std::string, std::size_t> producer, readers;
  for (std::size_t i = 0; i < graph.nodes.size(); ++i)
    for (const auto& name : graph.nodes[i].outputs)
      if (!name.empty()) producer[name] = i;
  std::vector<std::size_t> waits(graph.nodes.size(), 0);
  std::vector<std::vector<std::size_t>> after(graph.nodes.size());
  for (std::size_t i = 0; i < reads.size(); ++i) {
    for (const auto& name : reads[i]) {
      ++readers[name];
      const auto made = producer.find(name);
      if (made == producer.end()) continue;
      ++waits[i];
      after[made->second].push_back(i);
    }
  }
  for (const Value& output : graph.outputs) ++readers[output.name];  // never freed
  const auto bytes = [&](const std::string& name) {
    const auto found = sizes.find(name);
    return found == sizes.end() ? std::int64_t{0} : found->second;
  };
  std::set<std::size_t> ready;
  for (std::size_t i = 0; i < waits.size(); ++i)
    if (waits[i] == 0) ready.insert(i);
  std::vector<std::size_t> order;
  while (!ready.empty()) {
    std::size_t best = *ready.begin();
    std::int64_t least = INT64_MAX;
    for (const std::size_t i : ready) {
      std::int64_t growth = 0;
      for (const auto& name : graph.nodes[i].outputs) growth += bytes(name);
      for (const auto& name : reads[i])
        if (readers[name] == 1) growth -= bytes(name);
      if (growth < least) least = growth, best = i;
    }
    ready.erase(best);
    order.push_back(best);
    for (const auto& name : reads[best]) --readers[name];
    for (const std::size_t i : after[best])
      if (--waits[i] == 0) ready.insert(i);
  }
  return order;
}

/// Largest first, each at the lowest offset that is free during its whole life. Returns the arena's size.
std::int64_t place(std::vector<PlannedBuffer>& buffers) {
  std::vector<std::size_t> by_size(buffers.size());
  std::iota(by_size.begin(), by_size.end(), std::size_t{0});
  std::stable_sort(by_size.begin(), by_size.end(), [&](auto a, auto b) { return buffers[a].bytes > buffers[b].bytes; });
  std::vector<std::size_t> placed;  // by offset
  std::int64_t arena = 0;
  for (const std::size_t i : by_size) {
    auto& buffer = buffers[i];
    std::int64_t offset = 0;
    for (const std::size_t k : placed) {
      const auto& other = buffers[k];
      if (other.last < buffer.first || buffer.last < other.first) continue;
      if (other.offset - offset >= buffer.bytes) break;
      offset = std::max(offset, other.offset + other.bytes);
    }
    buffer.offset = offset;
    arena = std::max(arena, offset + buffer.bytes);
    placed.insert(
        std::upper_bound(placed.begin(), placed.end(), i, [&](auto a, auto b) { return buffers[a].offset < buffers[b].offset; }),
        i);
  }
  return arena;
}

}  // namespace

MemoryPlan plan_memory(const Graph& graph, const ValueMap& values, const Bindings& lengths) {
  MemoryPlan plan;
  const auto sizes = sizes_of(graph, values, lengths, plan.unknown);
  for (const auto& [name, bytes] : sizes) plan.peak_before += bytes;
  if (graph.nodes.empty()) return plan;
  const Reads reads = reads_of(graph);
  plan.order.resize(graph.nodes.size());
  std::iota(plan.order.begin(), plan.order.end(), std::size_t{0});
  plan.buffers = lifetimes(graph, reads, sizes, plan.order);
  plan.peak_after = place(plan.buffers);
  plan.live_before = plan.live_after = live_bytes(plan.buffers, plan.order.size());

  auto order = frugal_order(graph, reads, sizes);
  if (order.size() != graph.nodes.size()) throw Error(ErrorCode::internal, "the nodes of the graph are not sorted");
  auto buffers = lifetimes(graph, reads, sizes, order);
  const auto arena = place(buffers);
  if (arena >= plan.peak_after) return plan;
  plan.live_after = live_bytes(buffers, order.size());
  plan.peak_after = arena;
  plan.buffers = std::move(buffers);
  plan.order = std::move(order);
  plan.reordered = true;
  return plan;
}

void apply_order(Graph& graph, const MemoryPlan& plan) {
  if (plan.order.size() != graph.nodes.size()) throw Error(ErrorCode::internal, "the memory plan is of another graph");
  std::vector<Node> nodes;
  for (const std::size_t i : plan.order) nodes.push_back(std::move(graph.nodes[i]));
  graph.nodes = std::move(nodes);
  graph.validate();
}

}  // namespace espalier
