#pragma once
/// What find_blocks() looks for blocks in: the part of a graph that its main output needs, the trunk through it, and the stretches
/// between neighbours on the trunk.
#include <algorithm>
#include <optional>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "graph/graph.h"

namespace espalier::trunk {

inline constexpr int none = -1;

/// The graph with values as numbers, reduced to what its main output needs.
struct LiveGraph {
  explicit LiveGraph(const Graph& graph);

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
  explicit Segments(const LiveGraph& graph) : graph_(graph) {}
  /// Nothing when some path from `entry` to the target avoids `exit`.
  std::optional<Segment> between(int entry, int exit);
  /// The value that enters the copy of `pattern` which ends in `exit`; nothing when there is no such copy.
  std::optional<int> lay_over(const Segment& pattern, int exit) const;

 private:
  const std::string& kind(int node) const { return graph_.kind[static_cast<std::size_t>(node)]; }
  void add_private(std::unordered_set<int>& region, int entry) const;
  int intern(const std::string& text) { return numbers_.try_emplace(text, static_cast<int>(numbers_.size())).first->second; }
  int number(Segment& segment, const std::unordered_set<int>& region, std::unordered_map<int, int>& known, int id);

  const LiveGraph& graph_;
  std::unordered_map<std::string, int> numbers_;
};

/// The post-dominator tree of the live nodes; the target's producer is its root.
class Trunks {
 public:
  explicit Trunks(const LiveGraph& graph);
  /// Nodes that read nothing but inputs and constants, the one with the longest way before it first.
  std::vector<int> sources() const;
  /// The values on the trunk from a node to the target: outputs of nodes that hand on one value.
  std::vector<int> from(int node) const;

 private:
  int common(int a, int b) const;

  const LiveGraph& graph_;
  std::vector<int> parent_, depth_;
  std::vector<std::pair<std::pair<int, int>, int>> sources_;
};

}  // namespace espalier::trunk
