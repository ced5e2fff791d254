// Blocks are found in three steps. (1) The trunk: values through which every path from an earlier one to the output leads, a chain
// in the post-dominator tree (Cooper, Harvey & Kennedy, "A simple, fast dominance algorithm", 2001; one pass is enough in a graph
// without cycles). Masks and positions go around it, so it starts where the longest way through weights does. (2) Each stretch
// between neighbours on the trunk gets a number that is equal for equal structures. (3) Repeats in that sequence of numbers are
// runs of blocks. Where the first block reads a graph input, the trunk may miss its beginning: a run is continued backwards by
// laying a known block over what makes its first value.
#include "graph/blocks.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <optional>
#include <queue>
#include <set>
#include <unordered_map>
#include <unordered_set>

namespace espalier {
namespace {

constexpr int none = -1;

bool quantized(DType type) { return type == DType::i8 || type == DType::u8 || type == DType::i4 || type == DType::u4; }

/// What the nodes of two blocks must have in common: widths, head counts and epsilons may differ after pruning.
std::string kind_of(const Node& node) {
  static const std::set<std::string, std::less<>> follows_widths{"num_heads", "q_num_heads",          "kv_num_heads",
                                                                 "group",     "rotary_embedding_dim", "split"};
  std::string key = node.domain + "::" + node.op;
  for (const auto& [name, value] : node.attributes) {
    if (follows_widths.contains(name)) continue;
    if (const auto* one = std::get_if<std::int64_t>(&value)) key += fmt::format(" {}={}", name, *one);
    if (const auto* word = std::get_if<std::string>(&value)) key += fmt::format(" {}={}", name, *word);
    if (const auto* list = std::get_if<std::vector<std::int64_t>>(&value)) {
      key += fmt::format(" {}=", name);
      for (const auto number : *list) key += fmt::format("{},", number);
    }
  }
  return key;
}

/// The graph with values as numbers, reduced to what its main output needs.
struct Index {
  explicit Index(const Graph& graph);

  struct Val {
    std::string name;
    int producer = none;
    bool constant = false;     ///< no graph input has a say in it
    bool matrix = false;       ///< constant, from a weight of rank two or more
    std::vector<int> readers;  ///< nodes that lead to the target, ascending, each once
    std::vector<int> others;   ///< all other nodes that read it
  };
  const Graph& graph;
  std::vector<Val> values;
  std::vector<std::vector<int>> in, out;  ///< by node; `none` for what is absent; captures of bodies follow the inputs
  std::vector<std::string> kind;          ///< by node
  std::vector<bool> live;                 ///< by node: the target needs it, and it depends on a graph input
  std::vector<bool> weighted;             ///< by node: it reads a weight
  int target = none;

  const Val& value(int id) const { return values[static_cast<std::size_t>(id)]; }
  bool is_live(int node) const { return node != none && !live.empty() && live[static_cast<std::size_t>(node)]; }
  const std::vector<int>& inputs(int node) const { return in[static_cast<std::size_t>(node)]; }
  const std::vector<int>& outputs(int node) const { return out[static_cast<std::size_t>(node)]; }
  int slot(int id) const {
    const auto& list = outputs(value(id).producer);
    return static_cast<int>(std::find(list.begin(), list.end(), id) - list.begin());
  }

 private:
  std::unordered_map<std::string, int> ids_;
  int id(const std::string& name) {
    if (name.empty()) return none;
    const auto [at, fresh] = ids_.try_emplace(name, static_cast<int>(values.size()));
    if (fresh) values.emplace_back().name = name;
    return at->second;
  }
  std::vector<bool> needed_for(int id) const;
};

Index::Index(const Graph& g) : graph(g) {
  for (const auto& input : g.inputs) id(input.name);
  for (const auto& [name, tensor] : g.initializers) {
    auto& value = values[static_cast<std::size_t>(id(name))];
    value.constant = true;
    value.matrix = tensor.shape.size() >= 2 && (is_floating(tensor.dtype) || quantized(tensor.dtype));
  }
  for (const auto& node : g.nodes) {
    const int number = static_cast<int>(in.size());
    std::vector<int> reads;
    for (const auto& name : node.inputs) reads.push_back(id(name));
    for (const auto& name : captures(node)) reads.push_back(id(name));
    bool constant = true, matrix = false;
    for (const int v : reads) {
      if (v == none) continue;
      constant = constant && value(v).constant;
      matrix = matrix || value(v).matrix;
    }
    std::vector<int> makes;
    for (const auto& name : node.outputs) {
      makes.push_back(id(name));
      if (makes.back() == none) continue;
      auto& value = values[static_cast<std::size_t>(makes.back())];
      value.producer = number;
      value.constant = constant;
      value.matrix = constant && matrix;
    }
    in.push_back(std::move(reads));
    out.push_back(std::move(makes));
    kind.push_back(kind_of(node));
    weighted.push_back(matrix && !constant);
  }
  std::ptrdiff_t most = -1;
  for (const auto& output : g.outputs) {
    const int candidate = id(output.name);
    auto needed = needed_for(candidate);
    for (std::size_t n = 0; n < needed.size(); ++n)
      if (std::all_of(out[n].begin(), out[n].end(), [&](int v) { return v == none || value(v).constant; })) needed[n] = false;
    const auto count = std::count(needed.begin(), needed.end(), true);
    if (count <= most) continue;
    most = count;
    target = candidate;
    live = std::move(needed);
  }
  for (std::size_t n = 0; n < in.size(); ++n) {
    for (const int v : in[n]) {
      if (v == none) continue;
      auto& value = values[static_cast<std::size_t>(v)];
      auto& readers = is_live(static_cast<int>(n)) ? value.readers : value.others;
      if (readers.empty() || readers.back() != static_cast<int>(n)) readers.push_back(static_cast<int>(n));
    }
  }
}

std::vector<bool> Index::needed_for(int id) const {
  std::vector<bool> needed(in.size(), false);
  if (value(id).producer == none) return needed;
  needed[static_cast<std::size_t>(value(id).producer)] = true;
  for (std::size_t n = in.size(); n-- > 0;) {
    if (!needed[n]) continue;
    for (const int v : in[n])
      if (v != none && value(v).producer != none) needed[static_cast<std::size_t>(value(v).producer)] = true;
  }
  return needed;
}

/// What lies between two values of the trunk.
struct Segment {
  int entry = none, exit = none;
  int structure = none;    ///< equal numbers, equal structures
  std::vector<int> nodes;  ///< in the order of a walk from the exit: the same for equal structures
  std::vector<int> sides;
  bool weighted = false;
};

class Segments {
 public:
  explicit Segments(const Index& index) : index_(index) {}

  /// Nothing when some path from `entry` to the target avoids `exit`.
  std::optional<Segment> between(int entry, int exit) {
    const int last = index_.value(exit).producer;
    if (!index_.is_live(last)) return std::nullopt;
    std::unordered_set<int> region;
    std::vector<int> open(index_.value(entry).readers);
    while (!open.empty()) {
      const int node = open.back();
      open.pop_back();
      if (node > last) return std::nullopt;
      if (!region.insert(node).second || node == last) continue;
      for (const int v : index_.outputs(node))
        if (v != none) {
          if (v == index_.target) return std::nullopt;
          open.insert(open.end(), index_.value(v).readers.begin(), index_.value(v).readers.end());
        }
    }
    if (!region.contains(last)) return std::nullopt;
    for (const int v : index_.outputs(last))
      if (v != none && v != exit && !index_.value(v).readers.empty()) return std::nullopt;  // two values leave it
    add_private(region, entry);
    Segment segment;
    segment.entry = entry;
    segment.exit = exit;
    std::map<int, int> known;
    segment.structure = number(segment, region, known, exit);
    return segment;
  }

  /// The value that enters the copy of `pattern` which ends in `exit`; nothing when there is no such copy.
  std::optional<int> lay_over(const Segment& pattern, int exit) const {
    const std::unordered_set<int> region(pattern.nodes.begin(), pattern.nodes.end());
    std::map<int, int> laid;
    int entry = none;
    std::vector<std::pair<int, int>> open{{pattern.exit, exit}};
    while (!open.empty()) {
      const auto [known, candidate] = open.back();
      open.pop_back();
      if ((known == none) != (candidate == none)) return std::nullopt;
      if (known == none) continue;
      if (known == pattern.entry) {
        if (entry != none && entry != candidate) return std::nullopt;
        entry = candidate;
        continue;
      }
      const auto &a = index_.value(known), &b = index_.value(candidate);
      if (a.constant != b.constant) return std::nullopt;
      if (a.constant) continue;
      if (a.producer == none || !region.contains(a.producer)) {
        if (known != candidate && (a.producer != none || b.producer != none)) return std::nullopt;
        continue;
      }
      if (!index_.is_live(b.producer) || index_.slot(known) != index_.slot(candidate)) return std::nullopt;
      const auto [at, fresh] = laid.try_emplace(a.producer, b.producer);
      if (at->second != b.producer) return std::nullopt;
      if (!fresh) continue;
      const auto &of_a = index_.inputs(a.producer), &of_b = index_.inputs(b.producer);
      if (of_a.size() != of_b.size() || kind(a.producer) != kind(b.producer)) return std::nullopt;
      for (std::size_t i = 0; i < of_a.size(); ++i) open.emplace_back(of_a[i], of_b[i]);
    }
    if (entry == none || index_.value(entry).constant) return std::nullopt;
    return entry;
  }

 private:
  const std::string& kind(int node) const { return index_.kind[static_cast<std::size_t>(node)]; }

  /// Nodes that work for the region alone (a mask expanded for one layer), the last first: whether all readers are inside is then
  /// known.
  void add_private(std::unordered_set<int>& region, int entry) const {
    std::priority_queue<int> candidates;
    const auto push_inputs = [&](int node) {
      for (const int v : index_.inputs(node))
        if (v != none && v != entry && index_.is_live(index_.value(v).producer)) candidates.push(index_.value(v).producer);
    };
    for (const int node : region) push_inputs(node);
    while (!candidates.empty()) {
      const int node = candidates.top();
      candidates.pop();
      if (region.contains(node)) continue;
      bool all = true;
      for (const int v : index_.outputs(node)) {
        if (v == none) continue;
        all = all && v != entry;
        for (const int reader : index_.value(v).readers) all = all && region.contains(reader);
      }
      if (!all) continue;
      region.insert(node);
      push_inputs(node);
    }
  }

  int intern(const std::string& text) { return numbers_.try_emplace(text, static_cast<int>(numbers_.size())).first->second; }

  int number(Segment& segment, const std::unordered_set<int>& region, std::map<int, int>& known, int id) {
    if (id == none) return intern("absent");
    if (id == segment.entry) return intern("hidden");
    const auto& value = index_.value(id);
    if (value.constant) return intern("constant");
    if (value.producer == none || !region.contains(value.producer)) {
      if (std::find(segment.sides.begin(), segment.sides.end(), id) == segment.sides.end()) segment.sides.push_back(id);
      return value.producer == none ? intern("graph input") : intern("side " + value.name);
    }
    auto found = known.find(value.producer);
    if (found == known.end()) {
      std::string key = kind(value.producer) + " :";
      for (const int input : index_.inputs(value.producer)) key += fmt::format(" {}", number(segment, region, known, input));
      segment.nodes.push_back(value.producer);
      segment.weighted = segment.weighted || index_.weighted[static_cast<std::size_t>(value.producer)];
      found = known.emplace(value.producer, intern(key)).first;
    }
    return intern(fmt::format("output {} of {}", index_.slot(id), found->second));
  }

  const Index& index_;
  std::unordered_map<std::string, int> numbers_;
};

/// The post-dominator tree of the live nodes; the target's producer is its root.
class Trunks {
 public:
  explicit Trunks(const Index& index) : index_(index), parent_(index.in.size(), none), depth_(index.in.size(), 0) {
    std::vector<std::pair<int, int>> longest(index.in.size());  // to the target: weights on the way, then nodes
    for (int node = static_cast<int>(index.in.size()) - 1; node >= 0; --node) {
      if (!index.is_live(node)) continue;
      int meet = none;
      auto& way = at(longest, node);
      for (const int v : index.outputs(node)) {
        if (v == none) continue;
        for (const int reader : index.value(v).readers) {
          way = std::max(way, at(longest, reader));
          meet = meet == none ? reader : common(meet, reader);
        }
      }
      way.first += index.weighted[static_cast<std::size_t>(node)] ? 1 : 0;
      way.second += 1;
      const auto& reads = index.inputs(node);
      if (std::none_of(reads.begin(), reads.end(), [&](int v) { return v != none && index.is_live(index.value(v).producer); }))
        sources_.emplace_back(way, -node);
      if (node == index.value(index.target).producer) continue;
      at(parent_, node) = meet;
      at(depth_, node) = at(depth_, meet) + 1;
    }
    std::sort(sources_.rbegin(), sources_.rend());
  }

  /// Nodes that read nothing but inputs and constants, the one with the longest way before it first.
  std::vector<int> sources() const {
    std::vector<int> nodes;
    for (const auto& [way, node] : sources_)
      if (way.first >= 2) nodes.push_back(-node);
    return nodes;
  }
  /// The values on the trunk from a node to the target: outputs of nodes that hand on one value.
  std::vector<int> from(int node) const {
    std::vector<int> trunk;
    for (; node != none; node = at(parent_, node)) {
      int only = none, count = 0;
      for (const int v : index_.outputs(node))
        if (v != none && (v == index_.target || !index_.value(v).readers.empty())) only = v, ++count;
      if (count == 1) trunk.push_back(only);
    }
    return trunk;
  }

 private:
  template <class T>
  static T& at(std::vector<T>& list, int i) {
    return list[static_cast<std::size_t>(i)];
  }
  template <class T>
  static const T& at(const std::vector<T>& list, int i) {
    return list[static_cast<std::size_t>(i)];
  }
  int common(int a, int b) const {
    while (a != b) {
      int& deeper = at(depth_, a) > at(depth_, b) ? a : b;
      deeper = at(parent_, deeper);
    }
    return a;
  }

  const Index& index_;
  std::vector<int> parent_, depth_;
  std::vector<std::pair<std::pair<int, int>, int>> sources_;
};

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
  RunFinder(const Index& index, Segments& segments) : index_(index), segments_(segments) {}

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

  const Index& index_;
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
void add_constants(const Index& index, Block& block, std::set<std::string>& sides) {
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

std::vector<Block> blocks_of(const Index& index, const Run& run) {
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
  const Index index(graph);
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
