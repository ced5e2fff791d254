// Blocks are found in three steps. (1) The trunk: values through which every path from an earlier one to the output leads, a chain
// in the post-dominator tree (Cooper, Harvey & Kennedy, "A simple, fast dominance algorithm", 2001; one pass is enough in a graph
// without cycles). Masks and positions go around it, so it starts where the longest way through weights does. (2) Each stretch
// between neighbours on the trunk gets a number that is equal for equal structures. (3) Repeats in that sequence of numbers are
// runs of blocks. Where the first block reads a graph input, the trunk may miss its beginning: a run is continued backwards by
// laying a known block over what makes its first value.
#include "graph/blocks.h"

#include <algorithm>
#include <optional>
#include <queue>
#include <set>
#include <unordered_set>

#include "graph/trunk.h"

namespace espalier {
namespace {

using namespace trunk;

/// A stretch of the trunk that repeats with a period, and how its blocks are cut out of it.
struct Run {
  std::vector<Segment> segments;  ///< whole blocks only
  std::size_t period = 0;
  std::size_t begin = 0, end = 0;  ///< of the trunk's segments
  bool extended = false;           ///< it begins before `begin`, on another way than the trunk's
  std::size_t nodes = 0;
};

class RunFinder {
 public:
  RunFinder(const LiveGraph& index, Segments& segments) : index_(index), segments_(segments) {}

  std::vector<Run> in(const std::vector<Segment>& line) {
    std::vector<Run> found;
    search(line, 0, line.size(), found);
    return found;
  }

 private:
  void search(const std::vector<Segment>& line, std::size_t low, std::size_t high, std::vector<Run>& found) {
    std::optional<Run> best;
    for (std::size_t period = 1; period < high - low; ++period) {
      for (std::size_t i = low; i + period < high; ++i) {
        if (line[i].structure != line[i + period].structure) continue;
        const std::size_t begin = i;
        while (i + period < high && line[i].structure == line[i + period].structure) ++i;
        const std::size_t end = i + period;
        if (end - begin + 1 < 2 * period) continue;  // not even with one segment more in front
        auto run = cut(line, begin, end, period);
        if (run && (!best || run->nodes > best->nodes)) best = std::move(run);
      }
    }
    if (!best) return;
    if (!best->extended) search(line, low, best->begin, found);
    const auto end = best->end;
    found.push_back(std::move(*best));
    search(line, end, high, found);
  }

  /// Continues the stretch backwards, then takes the phase whose blocks start most often where a value goes two ways (a residual
  /// stream), then the one with the most blocks.
  std::optional<Run> cut(const std::vector<Segment>& line, std::size_t begin, std::size_t end, std::size_t period) {
    std::vector<Segment> stretch(line.begin() + std::ptrdiff_t(begin), line.begin() + std::ptrdiff_t(end));
    std::size_t ahead = 0;
    for (;; ++ahead) {
      const Segment& pattern = stretch[period - 1];
      const auto entry = segments_.lay_over(pattern, stretch.front().entry);
      if (!entry) break;
      auto before = segments_.between(*entry, stretch.front().entry);
      if (!before || before->structure != pattern.structure) break;
      stretch.insert(stretch.begin(), std::move(*before));
    }
    std::size_t best_phase = 0;
    std::pair<std::size_t, std::size_t> best{0, 0};
    for (std::size_t phase = 0; phase < period && phase + 2 * period <= stretch.size(); ++phase) {
      const std::size_t count = (stretch.size() - phase) / period;
      std::size_t branching = 0;
      for (std::size_t b = 0; b < count; ++b)
        branching += index_.value(stretch[phase + b * period].entry).readers.size() > 1 ? 1U : 0U;
      if (std::pair(branching, count) > best) best = {branching, count}, best_phase = phase;
    }
    const std::size_t count = best.second;
    if (count < 2) return std::nullopt;
    Run run;
    run.period = period;
    run.extended = ahead > best_phase;
    run.begin = begin + (best_phase > ahead ? best_phase - ahead : 0);
    run.end = begin + best_phase + count * period - ahead;
    run.segments.assign(stretch.begin() + std::ptrdiff_t(best_phase),
                        stretch.begin() + std::ptrdiff_t(best_phase + count * period));
    bool weighted = false;
    for (std::size_t i = 0; i < run.segments.size(); ++i) {
      run.nodes += run.segments[i].nodes.size();
      weighted = weighted || (i < period && run.segments[i].weighted);
    }
    return weighted ? std::optional(std::move(run)) : std::nullopt;
  }

  const LiveGraph& index_;
  Segments& segments_;
};

/// The parts that dotted names have in common from the front.
std::string common_scope(const Graph& graph, const std::vector<std::size_t>& nodes) {
  std::optional<std::string> scope;
  for (const auto n : nodes) {
    std::string name = graph.nodes[n].name;
    std::replace(name.begin(), name.end(), '/', '.');
    name.erase(0, name.find_first_not_of('.'));
    name.resize(std::min(name.size(), name.rfind('.')));
    if (!scope) {
      scope = name;
      continue;
    }
    std::size_t same = 0, whole = 0;
    while (same < scope->size() && same < name.size() && (*scope)[same] == name[same]) {
      if ((*scope)[same] == '.') whole = same;
      ++same;
    }
    const bool ends = (same == scope->size() || (*scope)[same] == '.') && (same == name.size() || name[same] == '.');
    scope->resize(ends ? same : whole);
  }
  return scope.value_or("");
}

/// Adds what makes the block's constants, and the names of constants that others read, too.
void add_constants(const LiveGraph& index, Block& block, std::set<std::string>& sides) {
  std::set<int> inside;
  std::priority_queue<int> open;  // the last first: whether all readers are inside is then known
  const auto push_inputs = [&](int node) {
    for (const int v : index.inputs(node))
      if (v != none && index.value(v).constant && index.value(v).producer != none) open.push(index.value(v).producer);
  };
  for (const auto node : block.nodes) inside.insert(static_cast<int>(node));
  for (const auto node : block.nodes) push_inputs(static_cast<int>(node));
  while (!open.empty()) {
    const int node = open.top();
    open.pop();
    if (inside.contains(node)) continue;
    bool own = true;
    for (const int v : index.outputs(node)) {
      if (v == none) continue;
      for (const auto* list : {&index.value(v).readers, &index.value(v).others})
        for (const int reader : *list) own = own && inside.contains(reader);
      own = own && std::none_of(index.graph.outputs.begin(), index.graph.outputs.end(),
                                [&](const Value& output) { return output.name == index.value(v).name; });
    }
    if (!own) continue;
    inside.insert(node);
    block.constants.push_back(static_cast<std::size_t>(node));
    push_inputs(node);
  }
  std::reverse(block.constants.begin(), block.constants.end());
  for (const int node : inside)
    for (const int v : index.inputs(node))
      if (v != none && index.value(v).constant && index.value(v).producer != none && !inside.contains(index.value(v).producer))
        sides.insert(index.value(v).name);
}

std::vector<Block> blocks_of(const LiveGraph& index, const Run& run) {
  std::vector<Block> blocks;
  for (std::size_t first = 0; first < run.segments.size(); first += run.period) {
    Block block;
    block.input = index.value(run.segments[first].entry).name;
    block.output = index.value(run.segments[first + run.period - 1].exit).name;
    std::set<std::string> sides;
    for (std::size_t i = first; i < first + run.period; ++i) {
      const Segment& segment = run.segments[i];
      block.nodes.insert(block.nodes.end(), segment.nodes.begin(), segment.nodes.end());
      for (const int v : segment.sides) sides.insert(index.value(v).name);
    }
    add_constants(index, block, sides);
    block.sides.assign(sides.begin(), sides.end());
    block.scope = common_scope(index.graph, block.nodes);
    blocks.push_back(std::move(block));
  }
  return blocks;
}

}  // namespace

std::vector<Block> find_blocks(const Graph& graph) {
  const LiveGraph index(graph);
  if (index.target == none || !index.is_live(index.value(index.target).producer)) return {};
  Segments segments(index);
  RunFinder finder(index, segments);
  const Trunks trunks(index);
  std::unordered_set<int> taken;
  std::vector<std::vector<Block>> runs;
  for (const int source : trunks.sources()) {
    const auto trunk = trunks.from(source);
    std::vector<Segment> line;
    const auto search = [&] {
      for (const Run& run : finder.in(line)) {
        for (const auto& segment : run.segments) taken.insert(segment.nodes.begin(), segment.nodes.end());
        runs.push_back(blocks_of(index, run));
      }
      line.clear();
    };
    for (std::size_t i = 1; i < trunk.size(); ++i) {
      if (taken.contains(index.value(trunk[i]).producer)) {
        search();
        continue;
      }
      if (auto segment = segments.between(trunk[i - 1], trunk[i]))
        line.push_back(std::move(*segment));
      else
        search();
    }
    search();
  }
  std::sort(runs.begin(), runs.end(), [](const auto& a, const auto& b) { return a.front().nodes.back() < b.front().nodes.back(); });
  std::vector<Block> blocks;
  for (std::size_t run = 0; run < runs.size(); ++run)
    for (auto& block : runs[run]) {
      block.run = run;
      blocks.push_back(std::move(block));
    }
  return blocks;
}

}  // namespace espalier