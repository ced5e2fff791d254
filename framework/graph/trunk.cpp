#include "graph/trunk.h"

#include <fmt/format.h>

#include <algorithm>
#include <queue>
#include <set>

namespace espalier::trunk {
namespace {

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
    // Two bodies are not compared: a node with one is like no other.
    if (std::holds_alternative<std::shared_ptr<Graph>>(value) || std::holds_alternative<std::vector<std::shared_ptr<Graph>>>(value))
      key += fmt::format(" {} of {}", name, node.name);
  }
  return key;
}

template <class T>
T& at(std::vector<T>& list, int i) {
  return list[static_cast<std::size_t>(i)];
}
template <class T>
const T& at(const std::vector<T>& list, int i) {
  return list[static_cast<std::size_t>(i)];
}

}  // namespace

LiveGraph::LiveGraph(const Graph& g) : graph(g) {
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

std::vector<bool> LiveGraph::needed_for(int id) const {
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

std::optional<Segment> Segments::between(int entry, int exit) {
  const int last = graph_.value(exit).producer;
  if (!graph_.is_live(last)) return std::nullopt;
  std::unordered_set<int> region;
  std::vector<int> open(graph_.value(entry).readers);
  while (!open.empty()) {
    const int node = open.back();
    open.pop_back();
    if (node > last) return std::nullopt;
    if (!region.insert(node).second || node == last) continue;
    for (const int v : graph_.outputs(node))
      if (v != none) {
        if (v == graph_.target) return std::nullopt;
        open.insert(open.end(), graph_.value(v).readers.begin(), graph_.value(v).readers.end());
      }
  }
  if (!region.contains(last)) return std::nullopt;
  for (const int v : graph_.outputs(last))
    if (v != none && v != exit && !graph_.value(v).readers.empty()) return std::nullopt;  // two values leave it
  add_private(region, entry);
  Segment segment;
  segment.entry = entry;
  segment.exit = exit;
  std::unordered_map<int, int> known;
  segment.structure = number(segment, region, known, exit);
  return segment;
}

std::optional<int> Segments::lay_over(const Segment& pattern, int exit) const {
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
    const auto &a = graph_.value(known), &b = graph_.value(candidate);
    if (a.constant != b.constant) return std::nullopt;
    if (a.constant) continue;
    if (a.producer == none || !region.contains(a.producer)) {
      if (known != candidate && (a.producer != none || b.producer != none)) return std::nullopt;
      continue;
    }
    if (!graph_.is_live(b.producer) || graph_.slot(known) != graph_.slot(candidate)) return std::nullopt;
    const auto [at, fresh] = laid.try_emplace(a.producer, b.producer);
    if (at->second != b.producer) return std::nullopt;
    if (!fresh) continue;
    const auto &of_a = graph_.inputs(a.producer), &of_b = graph_.inputs(b.producer);
    if (of_a.size() != of_b.size() || kind(a.producer) != kind(b.producer)) return std::nullopt;
    for (std::size_t i = 0; i < of_a.size(); ++i) open.emplace_back(of_a[i], of_b[i]);
  }
  if (entry == none || graph_.value(entry).constant) return std::nullopt;
  return entry;
}

/// Nodes that work for the region alone (a mask expanded for one layer), the last first: whether all readers are inside is then
/// known.
void Segments::add_private(std::unordered_set<int>& region, int entry) const {
  std::priority_queue<int> candidates;
  const auto push_inputs = [&](int node) {
    for (const int v : graph_.inputs(node))
      if (v != none && v != entry && graph_.is_live(graph_.value(v).producer)) candidates.push(graph_.value(v).producer);
  };
  for (const int node : region) push_inputs(node);
  while (!candidates.empty()) {
    const int node = candidates.top();
    candidates.pop();
    if (region.contains(node)) continue;
    bool all = true;
    for (const int v : graph_.outputs(node)) {
      if (v == none) continue;
      all = all && v != entry;
      for (const int reader : graph_.value(v).readers) all = all && region.contains(reader);
    }
    if (!all) continue;
    region.insert(node);
    push_inputs(node);
  }
}

int Segments::number(Segment& segment, const std::unordered_set<int>& region, std::unordered_map<int, int>& known, int id) {
  if (id == none) return intern("absent");
  if (id == segment.entry) return intern("hidden");
  const auto& value = graph_.value(id);
  if (value.constant) return intern("constant");
  if (value.producer == none || !region.contains(value.producer)) {
    if (std::find(segment.sides.begin(), segment.sides.end(), id) == segment.sides.end()) segment.sides.push_back(id);
    return value.producer == none ? intern("graph input") : intern("side " + value.name);
  }
  auto found = known.find(value.producer);
  if (found == known.end()) {
    std::string key = kind(value.producer) + " :";
    for (const int input : graph_.inputs(value.producer)) key += fmt::format(" {}", number(segment, region, known, input));
    segment.nodes.push_back(value.producer);
    segment.weighted = segment.weighted || graph_.weighted[static_cast<std::size_t>(value.producer)];
    found = known.emplace(value.producer, intern(key)).first;
  }
  return intern(fmt::format("output {} of {}", graph_.slot(id), found->second));
}

Trunks::Trunks(const LiveGraph& graph) : graph_(graph), parent_(graph.in.size(), none), depth_(graph.in.size(), 0) {
  std::vector<std::pair<int, int>> longest(graph.in.size());  // to the target: weights on the way, then nodes
  for (int node = static_cast<int>(graph.in.size()) - 1; node >= 0; --node) {
    if (!graph.is_live(node)) continue;
    int meet = none;
    auto& way = at(longest, node);
    for (const int v : graph.outputs(node)) {
      if (v == none) continue;
      for (const int reader : graph.value(v).readers) {
        way = std::max(way, at(longest, reader));
        meet = meet == none ? reader : common(meet, reader);
      }
    }
    way.first += graph.weighted[static_cast<std::size_t>(node)] ? 1 : 0;
    way.second += 1;
    const auto& reads = graph.inputs(node);
    if (std::none_of(reads.begin(), reads.end(), [&](int v) { return v != none && graph.is_live(graph.value(v).producer); }))
      sources_.emplace_back(way, -node);
    if (node == graph.value(graph.target).producer) continue;
    at(parent_, node) = meet;
    at(depth_, node) = at(depth_, meet) + 1;
  }
  std::sort(sources_.rbegin(), sources_.rend());
}

std::vector<int> Trunks::sources() const {
  std::vector<int> nodes;
  for (const auto& [way, node] : sources_)
    if (way.first >= 2) nodes.push_back(-node);
  return nodes;
}

std::vector<int> Trunks::from(int node) const {
  std::vector<int> trunk;
  for (; node != none; node = at(parent_, node)) {
    int only = none, count = 0;
    for (const int v : graph_.outputs(node))
      if (v != none && (v == graph_.target || !graph_.value(v).readers.empty())) only = v, ++count;
    if (count == 1) trunk.push_back(only);
  }
  return trunk;
}

int Trunks::common(int a, int b) const {
  while (a != b) {
    int& deeper = at(depth_, a) > at(depth_, b) ? a : b;
    deeper = at(parent_, deeper);
  }
  return a;
}

}  // namespace espalier::trunk
