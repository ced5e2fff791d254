#include "graph/groups.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <numeric>
#include <set>

#include "graph/channels.h"

namespace espalier {
namespace {

using Element = ChannelClasses::Element;

/// An (initializer, axis) that may be a member of groups, in the order in which nodes read it.
struct Place {
  const std::string* tensor;
  std::size_t axis;
  bool producer;
};

/// Values that depend on initializers alone (transposed or dequantized weights): what reads them reads the weight.
std::set<std::string_view> constant_values(const Graph& graph) {
  std::set<std::string_view> constant;
  for (const auto& [name, tensor] : graph.initializers) constant.insert(name);
  for (const auto& node : graph.nodes) {
    const bool all = !node.inputs.empty() && std::all_of(node.inputs.begin(), node.inputs.end(), [&](const auto& input) {
      return input.empty() || constant.contains(input);
    });
    if (all && captures(node).empty()) constant.insert(node.outputs.begin(), node.outputs.end());
  }
  return constant;
}

/// (value, axis) of constants whose channel appears in what their reader computes: the axis makes the channel. Readers of constants
/// that are constant themselves pass the question on.
std::set<std::pair<std::string_view, std::size_t>> producing_axes(const Graph& graph, const ChannelClasses& classes,
                                                                  const std::set<std::string_view>& constant) {
  std::set<std::pair<std::string_view, std::size_t>> producing;
  using Port = std::pair<std::size_t, std::size_t>;  // input slot, axis
  for (std::size_t i = graph.nodes.size(); i-- > 0;) {
    const auto& node = graph.nodes[i];
    const auto& links = classes.maps(i).links;
    std::set<Port> made;  // what the node's output has: directly, or (a bias beside its kernel) through another input
    for (const auto& link : links) {
      if (link.a.output == link.b.output) continue;
      const auto& from = link.a.output ? link.b : link.a;
      const auto& to = link.a.output ? link.a : link.b;
      const auto& output = node.output(to.slot);
      if (!constant.contains(output) || producing.contains({output, to.axis})) made.insert({from.slot, from.axis});
    }
    for (bool more = !made.empty(); more;) {
      more = false;
      for (const auto& link : links) {
        if (link.a.output || link.b.output) continue;
        const Port a{link.a.slot, link.a.axis}, b{link.b.slot, link.b.axis};
        if (made.contains(a) != made.contains(b)) more = made.insert(a).second || made.insert(b).second || more;
      }
    }
    for (const auto& [slot, axis] : made)
      if (constant.contains(node.input(slot))) producing.insert({node.input(slot), axis});
  }
  return producing;
}

std::vector<Place> places(const Graph& graph, const ChannelClasses& classes) {
  const auto constant = constant_values(graph);
  const auto producing = producing_axes(graph, classes, constant);
  std::vector<Place> result;
  std::set<std::string_view> seen;
  for (const auto& node : graph.nodes) {
    for (const auto& input : node.inputs) {
      const auto found = graph.initializers.find(input);
      if (found == graph.initializers.end() || !seen.insert(found->first).second) continue;
      for (std::size_t axis = 0; axis < found->second.shape.size(); ++axis)
        if (classes.axis(input, axis).length > 0) result.push_back({&found->first, axis, producing.contains({found->first, axis})});
    }
  }
  return result;
}

struct Entry {
  Element unit;
  std::uint32_t place;
  std::int64_t index;
};

/// All (class, place, index), by class, then place, then index.
std::vector<Entry> entries(const ChannelClasses& classes, const std::vector<Place>& places, bool include_pinned) {
  std::vector<Entry> found;
  std::vector<std::size_t> next(classes.count() + 1, 0);  // by class: of how many lower ones there are entries, in the end
  for (std::uint32_t p = 0; p < places.size(); ++p) {
    const auto axis = classes.axis(*places[p].tensor, places[p].axis);
    for (std::int64_t i = 0; i < axis.length; ++i) {
      const auto unit = classes.find(axis.first + static_cast<Element>(i));
      if (!include_pinned && classes.verdict(unit).pinned != 0) continue;
      found.push_back({unit, p, i});
      ++next[unit + 1];
    }
  }
  std::partial_sum(next.begin(), next.end(), next.begin());
  std::vector<Entry> sorted(found.size());
  for (const Entry& entry : found) sorted[next[entry.unit]++] = entry;
  return sorted;
}

/// Counts for the size of a model (Graph::parameter_count): floating and quantized elements.
bool is_parameter(const Tensor& tensor) {
  return is_floating(tensor.dtype) || (bits(tensor.dtype) > 0 && bits(tensor.dtype) <= 8 && tensor.dtype != DType::boolean);
}

std::int64_t parameters_per_unit(const Graph& graph, const std::vector<Member>& members) {
  std::map<std::string_view, std::vector<const Member*>> by_tensor;
  for (const auto& member : members) by_tensor[member.tensor].push_back(&member);
  std::int64_t total = 0;
  for (const auto& [name, list] : by_tensor) {
    const auto& tensor = graph.initializers.find(std::string(name))->second;
    if (!is_parameter(tensor)) continue;
    auto left = tensor.shape;
    for (const auto* member : list) left[member->axis] -= member->width;
    std::int64_t rest = 1;
    for (auto length : left) rest *= length;
    total += tensor.count() - rest;
  }
  return total;
}

struct Draft {
  CoupledGroup group;
  std::vector<std::uint32_t> member_places;
};

/// Groups whose channels a node touches get its name; heads where an Attention operator bundles them.
void name_scopes(const Graph& graph, const ChannelClasses& classes, const std::vector<std::int32_t>& group_of,
                 std::vector<Draft>& drafts) {
  std::vector<std::size_t> last(drafts.size(), graph.nodes.size());
  for (std::size_t i = 0; i < graph.nodes.size(); ++i) {
    const auto& node = graph.nodes[i];
    const auto touch = [&](const AxisMaps::Port& port) {
      const auto axis = classes.at(i, port);
      const auto rank = classes.rank(port.output ? node.output(port.slot) : node.input(port.slot));
      const bool heads =
          node.op == "Attention" && node.domain.empty() && ((rank == 3 && port.axis == 2) || (rank == 4 && port.axis == 1));
      std::int32_t before = -1;
      for (std::int64_t e = 0; e < axis.length; ++e) {
        const auto g = group_of[classes.find(axis.first + static_cast<Element>(e))];
        if (g == before || g < 0) continue;
        before = g;
        const auto at = static_cast<std::size_t>(g);
        if (heads) drafts[at].group.kind = CoupledGroup::Kind::heads;
        if (last[at] == i) continue;
        last[at] = i;
        drafts[at].group.scopes.push_back(node.name);
      }
    };
    for (const auto& link : classes.maps(i).links) touch(link.a), touch(link.b);
    for (const auto& mark : classes.maps(i).marks) touch(mark.port);
  }
}

}  // namespace

std::vector<CoupledGroup> coupled_groups(const Graph& graph, const ValueMap& values, bool include_pinned) {
  return coupled_groups(ChannelClasses(graph, values), include_pinned);
}

std::vector<CoupledGroup> coupled_groups(const ChannelClasses& classes, bool include_pinned) {
  const Graph& graph = classes.graph();
  const auto all_places = places(graph, classes);
  const auto all = entries(classes, all_places, include_pinned);

  // Units with the same members, widths and verdict form a group.
  std::vector<Draft> drafts;
  std::map<std::vector<std::uint64_t>, std::size_t> by_signature;
  std::vector<std::int32_t> group_of(classes.count(), -1);
  std::vector<std::uint64_t> signature;
  for (std::size_t begin = 0, end = 0; begin < all.size(); begin = end) {
    const auto unit = all[begin].unit;
    const auto& verdict = classes.verdict(unit);
    signature.assign({verdict.pinned, verdict.inexact});
    for (end = begin; end < all.size() && all[end].unit == unit; ++end) {
      if (end == begin || all[end].place != all[end - 1].place) signature.insert(signature.end(), {all[end].place, 0});
      ++signature.back();
    }
    std::vector<Slice> slices(signature.size() / 2 - 1);
    for (std::size_t m = 0, at = begin; m < slices.size(); ++m) {
      slices[m].member = static_cast<std::uint32_t>(m);
      slices[m].indices.resize(signature[2 * m + 3]);
      for (auto& index : slices[m].indices) index = all[at++].index;
    }
    auto found = by_signature.find(signature);
    const bool fresh = found == by_signature.end();
    if (fresh) found = by_signature.emplace(signature, drafts.size()).first;
    if (fresh) {
      Draft draft;
      for (const auto& slice : slices) {
        const auto place = static_cast<std::uint32_t>(signature[2 * slice.member + 2]);
        const auto& p = all_places[place];
        draft.member_places.push_back(place);
        draft.group.members.push_back({*p.tensor, p.axis, static_cast<std::int64_t>(slice.indices.size()), p.producer});
      }
      draft.group.pinned = verdict.pinned != 0;
      draft.group.exact = verdict.inexact == 0;
      draft.group.reason = classes.reason(verdict.pinned ? verdict.pinned : verdict.inexact);
      drafts.push_back(std::move(draft));
    }
    drafts[found->second].group.units.push_back(std::move(slices));
    group_of[unit] = static_cast<std::int32_t>(found->second);
  }

  name_scopes(graph, classes, group_of, drafts);
  std::vector<std::size_t> order;
  const auto leader = [&](const Draft& draft) {  // the first producer, or the first reader where nothing produces
    const auto& members = draft.group.members;
    const auto found = std::find_if(members.begin(), members.end(), [](const Member& m) { return m.producer; });
    return static_cast<std::size_t>(found == members.end() ? 0 : found - members.begin());
  };
  for (std::size_t i = 0; i < drafts.size(); ++i) {
    auto& draft = drafts[i];
    if (draft.group.units.size() < 2) continue;
    const auto first = leader(draft);
    std::sort(draft.group.units.begin(), draft.group.units.end(),
              [first](const auto& a, const auto& b) { return a[first].indices.front() < b[first].indices.front(); });
    const auto& member = draft.group.members[first];
    draft.group.id = fmt::format("{}:{}:{}", member.tensor, member.axis, draft.group.units.front()[first].indices.front());
    draft.group.parameters_per_unit = parameters_per_unit(graph, draft.group.members);
    order.push_back(i);
  }
  const auto key = [&](std::size_t i) {
    const auto first = leader(drafts[i]);
    return std::pair(drafts[i].member_places[first], drafts[i].group.units.front()[first].indices.front());
  };
  std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return key(a) < key(b); });
  std::vector<CoupledGroup> result;
  for (auto i : order) result.push_back(std::move(drafts[i].group));
  return result;
}

}  // namespace espalier
