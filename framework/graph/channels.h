#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "graph/op.h"

namespace espalier {

/// Which indices of which value axes live and die together: a union-find over (value, axis, index), fed by the axis maps of every
/// node. Groups list it, surgery derives from it what is kept of every value. Axes of unknown length, of length one, or longer than
/// any channel axis has no elements here; what is linked with such an axis is pinned.
/// `graph` and `values` must outlive the object.
class ChannelClasses {
 public:
  ChannelClasses(const Graph& graph, const ValueMap& values);
  const Graph& graph() const { return graph_; }
  const ValueMap& values() const { return values_; }

  using Element = std::uint32_t;
  struct Axis {
    Element first = 0;
    std::int64_t length = 0;  ///< 0: the axis has no elements
  };
  /// Why a class may not be cut, or is not exact when it is cut. `order` is the place of the first cause in node order.
  struct Verdict {
    std::uint32_t pinned = 0, inexact = 0;  ///< index into reasons(); 0: no
  };

  /// Length 0 when the axis is not tracked.
  Axis axis(std::string_view value, std::size_t axis) const;
  std::size_t rank(std::string_view value) const;
  Element count() const { return static_cast<Element>(parent_.size()); }
  /// The class of an element: its smallest element.
  Element find(Element e) const {
    while (parent_[e] != e) e = parent_[e] = parent_[parent_[e]];
    return e;
  }
  const Verdict& verdict(Element root) const { return verdicts_[root]; }
  const std::string& reason(std::uint32_t index) const { return reasons_[index]; }
  /// The axis maps of node i.
  const AxisMaps& maps(std::size_t node) const { return maps_[node]; }
  /// The tracked axis behind a port of node i.
  Axis at(std::size_t node, const AxisMaps::Port& port) const;

 private:
  void add_value(std::string_view name, const ValueInfo& info);
  void add_node(std::size_t index);
  void add_link(std::size_t index, const AxisMaps::Link& link);
  void unite(Element a, Element b);
  void unite_block(Element first, std::int64_t width);
  void pin_value(std::string_view value, std::string reason);
  void mark(Axis axis, bool pinned, std::string reason);
  void pin_unmapped(std::size_t index);
  void find_inexact_sums();
  bool output_is_zero(std::size_t index, const AxisMaps::Port& out) const;
  bool is_zero(const std::string& value, std::size_t axis) const;
  void settle();

  const Graph& graph_;
  const ValueMap& values_;
  std::unordered_map<std::string_view, std::vector<Axis>> axes_;
  mutable std::vector<Element> parent_;
  std::vector<Verdict> verdicts_;
  std::vector<AxisMaps> maps_;
  std::vector<std::string> reasons_{""};
  struct Marked {
    Axis axis;
    bool pinned;
    std::uint32_t reason;
  };
  std::vector<Marked> marked_;
  std::unordered_map<std::string_view, std::vector<char>> zero_;  ///< by value and axis: zero in channels that a mask took
};

}  // namespace espalier
