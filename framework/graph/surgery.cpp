#include "graph/surgery.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <set>
#include <unordered_map>

#include "graph/channels.h"
#include "graph/slicing.h"
#include "sdk/error.h"

namespace espalier {
namespace {

using Element = ChannelClasses::Element;
using Indices = std::vector<std::int64_t>;

struct Chosen {
  const CoupledGroup* group;
  const Indices* units;
};

/// Finds the groups of a removal and refuses what cannot be done.
std::vector<Chosen> choose(const Graph& graph, const std::vector<CoupledGroup>& groups, const Removal& removal,
                           bool allow_inexact) {
  std::map<std::string_view, const CoupledGroup*> by_id;
  for (const auto& group : groups) by_id.emplace(group.id, &group);
  std::vector<Chosen> chosen;
  for (const auto& [id, units] : removal) {
    const auto found = by_id.find(id);
    if (found == by_id.end()) throw_invalid("there is no such group of coupled channels", id, "`model groups FILE` lists them");
    const auto& group = *found->second;
    if (units.empty()) continue;
    const auto count = static_cast<std::int64_t>(group.units.size());
    for (std::size_t i = 0; i < units.size(); ++i) {
      if (units[i] < 0 || units[i] >= count)
        throw_invalid(fmt::format("unit {} does not exist: the group has {}", units[i], count), id);
      if (i > 0 && units[i] <= units[i - 1]) throw_invalid("the units to remove are not in ascending order", id);
    }
    if (group.pinned) throw_invalid("the group may not be cut: " + group.reason, id);
    if (!group.exact && !allow_inexact)
      throw_invalid("cutting the group changes what the model computes: " + group.reason, id,
                    "allow inexact cuts if that is wanted");
    const auto left = count - static_cast<std::int64_t>(units.size());
    if (left < 1) throw_invalid("the group would lose its last unit", id);
    if (group.multiple > 1 && left % group.multiple != 0)
      throw_invalid(fmt::format("{} units would be left, which is no multiple of {}", left, group.multiple), id);
    for (const auto& member : group.members) {
      const auto* tensor = graph.initializer(member.tensor);
      if (!tensor || member.axis >= tensor->shape.size())
        throw_invalid(fmt::format("its member {} is not in this graph", member.tensor), id,
                      "find the groups of the graph that is cut");
    }
    chosen.push_back({&group, &units});
  }
  return chosen;
}

/// Index lists that were cut, by (value, axis).
class Kept {
 public:
  Kept(const ChannelClasses& classes, const std::vector<Chosen>& chosen) : classes_(classes) {
    gone_.assign(classes_.count(), 0);
    for (const auto& [group, units] : chosen) {
      for (auto unit : *units) {
        for (const auto& slice : group->units[static_cast<std::size_t>(unit)]) {
          const auto& member = group->members[slice.member];
          const auto axis = classes_.axis(member.tensor, member.axis);
          for (auto index : slice.indices) {
            if (index < 0 || index >= axis.length)
              throw_invalid(fmt::format("index {} of {} does not exist", index, member.tensor), group->id,
                            "find the groups of the graph that is cut");
            gone_[classes_.find(axis.first + static_cast<Element>(index))] = 1;
          }
        }
      }
    }
  }

  /// nullptr when nothing of the axis goes.
  const Indices* operator()(const std::string& value, std::size_t axis) {
    const auto where = classes_.axis(value, axis);
    if (where.length == 0) return nullptr;
    const auto [at, fresh] = lists_.try_emplace(where.first);
    if (fresh) {
      for (std::int64_t i = 0; i < where.length; ++i)
        if (!gone_[classes_.find(where.first + static_cast<Element>(i))]) at->second.push_back(i);
    }
    return static_cast<std::int64_t>(at->second.size()) == where.length ? nullptr : &at->second;
  }

 private:
  const ChannelClasses& classes_;
  std::vector<char> gone_;
  std::unordered_map<Element, Indices> lists_;
};

/// The stored number that stands for zero: a quantized weight's zero point, by position.
struct Zero {
  const Tensor* point = nullptr;  ///< one element, or one for every index of `axis`
  std::size_t axis = 0;
};

std::map<std::string_view, Zero> zero_points(const Graph& graph) {
  std::map<std::string_view, Zero> zeros;
  for (const auto& node : graph.nodes) {
    if (node.op != "DequantizeLinear" || !node.domain.empty()) continue;
    const auto* weight = graph.initializer(node.input(0));
    const auto* point = graph.initializer(node.input(2));
    if (!weight || !point || bits(weight->dtype) != 8 || bits(point->dtype) != 8) continue;
    const auto rank = static_cast<std::int64_t>(weight->shape.size());
    auto axis = node.integer("axis", 1);
    if (axis < 0) axis += rank;
    const bool single = point->count() == 1;
    const bool along = !single && point->shape.size() == 1 && axis >= 0 && axis < rank &&
                       point->shape[0] == weight->shape[static_cast<std::size_t>(axis)];
    if (single || along) zeros[node.inputs[0]] = {point, static_cast<std::size_t>(std::max<std::int64_t>(axis, 0))};
  }
  return zeros;
}

void fill(std::vector<std::byte>& bytes, const Tensor& tensor, std::size_t axis, const Indices& indices, const Zero& zero) {
  const std::size_t element = static_cast<std::size_t>(bits(tensor.dtype)) / 8;
  std::size_t outer = 1, inner = 1;
  for (std::size_t i = 0; i < axis; ++i) outer *= static_cast<std::size_t>(tensor.shape[i]);
  for (std::size_t i = axis + 1; i < tensor.shape.size(); ++i) inner *= static_cast<std::size_t>(tensor.shape[i]);
  const auto length = static_cast<std::size_t>(tensor.shape[axis]);
  std::size_t along = 1;  // elements between neighbours of the zero point's axis
  if (zero.point)
    for (std::size_t i = zero.axis + 1; i < tensor.shape.size(); ++i) along *= static_cast<std::size_t>(tensor.shape[i]);
  for (std::size_t o = 0; o < outer; ++o) {
    for (auto index : indices) {
      const std::size_t first = (o * length + static_cast<std::size_t>(index)) * inner;
      if (!zero.point) {
        std::memset(bytes.data() + first * element, 0, inner * element);
        continue;
      }
      for (std::size_t i = first; i < first + inner; ++i) {
        const auto count = static_cast<std::size_t>(zero.point->count());
        bytes[i] = zero.point->bytes[count == 1 ? 0 : i / along % count];
      }
    }
  }
}

}  // namespace

Graph cut(const Graph& graph, const std::vector<CoupledGroup>& groups, const Removal& removal, bool allow_inexact,
          CutReport* report, const TensorStore& store) {
  choose(graph, groups, removal, allow_inexact);  // what is wrong with the call is said before anything of the graph
  const ValueMap values = infer(graph);
  return cut(ChannelClasses(graph, values), groups, removal, allow_inexact, report, store);
}

Graph cut(const ChannelClasses& classes, const std::vector<CoupledGroup>& groups, const Removal& removal, bool allow_inexact,
          CutReport* report, const TensorStore& store) {
  const Graph& graph = classes.graph();
  const ValueMap& before = classes.values();
  const auto chosen = choose(graph, groups, removal, allow_inexact);
  Kept kept(classes, chosen);
  Graph result = graph;
  for (auto& [name, tensor] : result.initializers) {
    bool touched = false;
    for (std::size_t axis = 0; axis < tensor.shape.size(); ++axis) touched = touched || kept(name, axis);
    if (!touched) continue;
    const auto kept_of = [&](std::size_t axis) { return kept(name, axis); };
    if (is_shapes_only(store)) {
      tensor = sliced_outline(tensor, name, kept_of);
      continue;
    }
    tensor = sliced(tensor, name, kept_of);
    if (store) tensor = store(std::move(tensor));
  }
  const auto ask = [&kept](const std::string& value, std::size_t axis) { return kept(value, axis); };
  for (std::size_t i = 0; i < result.nodes.size(); ++i) {
    const auto* op = find_operator(result, result.nodes[i]);
    if (!op || !op->adjust) continue;
    Adjust adjust{result, result.nodes[i], before, ask};
    op->adjust(adjust);
  }
  ValueMap after = infer(result);
  result.validate();
  if (report) {
    report->values = std::move(after);
    report->parameters_before = graph.parameter_count();
    report->parameters_after = result.parameter_count();
    report->rows.clear();
    for (const auto& [group, units] : chosen) {
      const auto count = static_cast<std::int64_t>(group->units.size());
      report->rows.push_back({group->id, count, count - static_cast<std::int64_t>(units->size())});
    }
  }
  return result;
}

Graph mask(const Graph& graph, const std::vector<CoupledGroup>& groups, const Removal& removal) {
  const auto chosen = choose(graph, groups, removal, true);
  std::map<std::string, std::map<std::size_t, Indices>> going;
  for (const auto& [group, units] : chosen)
    for (auto unit : *units)
      for (const auto& slice : group->units[static_cast<std::size_t>(unit)]) {
        const auto& member = group->members[slice.member];
        auto& list = going[member.tensor][member.axis];
        list.insert(list.end(), slice.indices.begin(), slice.indices.end());
      }
  const auto zeros = zero_points(graph);
  std::set<std::string_view> divisors;  // a weight of zero is rounded to zero by any scale but that
  for (const auto& node : graph.nodes)
    if (node.op == "QuantizeLinear" && node.domain.empty()) divisors.insert(node.inputs.begin() + 1, node.inputs.end());
  Graph result = graph;
  for (const auto& [name, axes] : going) {
    if (divisors.contains(name)) continue;
    auto& tensor = result.initializers.at(name);
    const int width = bits(tensor.dtype);
    if (width == 0) throw_unsupported("a tensor of strings cannot be masked", name);
    std::vector<std::byte> bytes =
        width == 4 ? unpack_nibbles(tensor) : std::vector<std::byte>(tensor.bytes.begin(), tensor.bytes.end());
    Tensor shape = tensor;
    if (width == 4) shape.dtype = DType::u8;
    const auto zero = zeros.find(name);
    for (const auto& [axis, indices] : axes) {
      for (auto index : indices)
        if (index < 0 || index >= tensor.shape[axis])
          throw_invalid(fmt::format("index {} of axis {} does not exist", index, axis), name,
                        "find the groups of the graph that is masked");
      fill(bytes, shape, axis, indices, width == 8 && zero != zeros.end() ? zero->second : Zero{});
    }
    tensor = Tensor::own(tensor.dtype, tensor.shape, width == 4 ? pack_nibbles(bytes) : std::move(bytes));
  }
  return result;
}

}  // namespace espalier
