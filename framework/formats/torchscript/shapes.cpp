/// The same elements in another shape or order.
#include <algorithm>
#include <numeric>

#include "formats/torchscript/lowering.h"

namespace espalier::torchscript {
namespace {

std::string reshaped(const Call& c, const std::string& x, const std::vector<Item>& lengths) {
  const bool empty = std::any_of(lengths.begin(), lengths.end(),
                                 [](const Item& i) { return i.kind == Item::Kind::integer && i.constant() && i.integer == 0; });
  Attributes attributes;
  if (empty) attributes["allowzero"] = std::int64_t{1};
  return c.add("Reshape", {x, c.lengths(lengths)}, std::move(attributes));
}

/// view, reshape, view_as: a list of lengths, or (view) another type of the same bits.
Item view(Call& c) {
  const Item* list = c.find("size") ? c.find("size") : c.find("shape");
  if (!list) c.refuse("the same bits as another type");
  return Item::of_tensor(reshaped(c, c.tensor("self"), list->items));
}

std::vector<Item> lengths_of(const Call& c, const std::string& x) {
  std::vector<Item> items;
  for (std::size_t i = 0; i < c.rank(x); ++i) items.push_back(c.length_of(x, i));
  return items;
}

Item view_as(Call& c) { return Item::of_tensor(reshaped(c, c.tensor("self"), lengths_of(c, c.tensor("other")))); }

Item flatten(Call& c) {
  const std::string x = c.tensor("self");
  const std::size_t rank = c.rank(x);
  if (rank == 0) return Item::of_tensor(c.add("Reshape", {x, c.list({1})}));
  const std::size_t first = c.axis("start_dim", rank), last = c.axis("end_dim", rank);
  if (first == last) return Item::of_tensor(x);
  if (last + 1 == rank && first == 1) return Item::of_tensor(c.add("Flatten", {x}, {{"axis", std::int64_t{1}}}));
  std::vector<Item> lengths;
  for (std::size_t i = 0; i < rank; ++i) {
    if (i < first || i > last) lengths.push_back(c.length_of(x, i));
    if (i == first) lengths.push_back(Item::of_integer(-1));
  }
  return Item::of_tensor(reshaped(c, x, lengths));
}

Item unflatten(Call& c) {
  const std::string x = c.tensor("self");
  const std::size_t axis = c.axis("dim", c.rank(x));
  std::vector<Item> lengths;
  for (std::size_t i = 0; i < c.rank(x); ++i) {
    if (i != axis) {
      lengths.push_back(c.length_of(x, i));
      continue;
    }
    for (const Item& item : c.item("sizes").items) lengths.push_back(item);
  }
  return Item::of_tensor(reshaped(c, x, lengths));
}

Item transposed(const Call& c, const std::string& x, Integers order) {
  bool moves = false;
  for (std::size_t i = 0; i < order.size(); ++i) moves = moves || order[i] != static_cast<std::int64_t>(i);
  return Item::of_tensor(moves ? c.add("Transpose", {x}, {{"perm", std::move(order)}}) : x);
}

Integers in_order(std::size_t rank) {
  Integers order(rank);
  std::iota(order.begin(), order.end(), 0);
  return order;
}

Item permute(Call& c) {
  const std::string x = c.tensor("self");
  Integers order;
  for (std::int64_t axis : c.integers("dims")) order.push_back(static_cast<std::int64_t>(c.wrapped(axis, c.rank(x))));
  return transposed(c, x, std::move(order));
}

Item swap(Call& c) {
  const std::string x = c.tensor("self");
  const std::size_t rank = c.rank(x);
  Integers order = in_order(rank);
  const bool axes = c.find("axis0") != nullptr;
  if (rank > 0) std::swap(order[c.axis(axes ? "axis0" : "dim0", rank)], order[c.axis(axes ? "axis1" : "dim1", rank)]);
  return transposed(c, x, std::move(order));
}

/// t, numpy_T, mT
Item turned(Call& c) {
  const std::string x = c.tensor("self");
  Integers order = in_order(c.rank(x));
  if (order.size() < 2) return Item::of_tensor(x);
  if (c.operation.kind == "aten::numpy_T")
    std::reverse(order.begin(), order.end());
  else
    std::swap(order[order.size() - 1], order[order.size() - 2]);
  return transposed(c, x, std::move(order));
}

Item movedim(Call& c) {
  const std::string x = c.tensor("self");
  const std::size_t rank = c.rank(x);
  const Integers from = c.integers("source"), to = c.integers("destination");
  Integers order(rank, -1);
  std::vector<bool> taken(rank, false);
  for (std::size_t i = 0; i < from.size() && i < to.size(); ++i) {
    order[c.wrapped(to[i], rank)] = static_cast<std::int64_t>(c.wrapped(from[i], rank));
    taken[c.wrapped(from[i], rank)] = true;
  }
  std::size_t next = 0;
  for (std::int64_t& place : order) {
    if (place >= 0) continue;
    while (next < rank && taken[next]) ++next;
    if (next == rank) c.refuse("an axis is named twice");
    place = static_cast<std::int64_t>(next++);
  }
  return transposed(c, x, std::move(order));
}

Item unsqueeze(Call& c) {
  const std::string x = c.tensor("self");
  return Item::of_tensor(c.add("Unsqueeze", {x, c.list({static_cast<std::int64_t>(c.axis("dim", c.rank(x) + 1))})}));
}

/// Axes that are no longer than 1; others stay, as in PyTorch.
Item squeeze(Call& c) {
  const std::string x = c.tensor("self");
  const Shape& shape = c.shape(x);
  Integers wanted, gone;
  if (c.find("dim")) wanted = c.integers("dim");
  if (!c.find("dim")) wanted = in_order(shape.size());
  for (std::int64_t given : wanted) {
    if (shape.empty()) continue;
    const std::size_t axis = c.wrapped(given, shape.size());
    if (!shape[axis].known())
      c.refuse("whether axis " + std::to_string(axis) + " of length " + shape[axis].text() + " goes depends on the input");
    if (shape[axis] == Dim(1)) gone.push_back(static_cast<std::int64_t>(axis));
  }
  return Item::of_tensor(gone.empty() ? x : c.add("Squeeze", {x, c.list(gone)}));
}

/// -1 keeps an axis' own length, and so does 1 for ONNX.
std::vector<Item> expansion(const std::vector<Item>& asked) {
  std::vector<Item> lengths = asked;
  for (Item& item : lengths)
    if (item.kind == Item::Kind::integer && item.constant() && item.integer == -1) item.integer = 1;
  return lengths;
}

Item expanded(const Call& c, const std::string& x, const std::vector<Item>& lengths) {
  const bool same = std::all_of(lengths.begin(), lengths.end(),
                                [](const Item& i) { return i.kind == Item::Kind::integer && i.constant() && i.integer == 1; });
  if (same && lengths.size() <= c.rank(x)) return Item::of_tensor(x);
  return Item::of_tensor(c.add("Expand", {x, c.lengths(lengths)}));
}

Item expand(Call& c) { return expanded(c, c.tensor("self"), expansion(c.item(c.find("size") ? "size" : "shape").items)); }
Item expand_as(Call& c) { return expanded(c, c.tensor("self"), lengths_of(c, c.tensor("other"))); }

Item repeat(Call& c) {
  const std::string x = c.tensor("self");
  const auto& times = c.item("repeats").items;
  std::string whole = x;
  if (times.size() > c.rank(x)) {
    Integers added(times.size() - c.rank(x));
    std::iota(added.begin(), added.end(), 0);
    whole = c.add("Unsqueeze", {x, c.list(added)});
  }
  return Item::of_tensor(c.add("Tile", {whole, c.lengths(times)}));
}

/// Each element several times, one behind the other.
Item repeat_interleave(Call& c) {
  const std::string x = c.tensor("self");
  if (!c.find("repeats") || c.item("repeats").kind != Item::Kind::integer || !c.given("dim"))
    c.refuse("repeats that are no number, or no axis");
  const std::size_t axis = c.axis("dim", c.rank(x));
  const std::int64_t times = c.integer("repeats");
  const auto at = static_cast<std::int64_t>(axis);
  Integers wide(c.rank(x) + 1, 1);
  wide[axis + 1] = times;
  const std::string spread = c.add("Expand", {c.add("Unsqueeze", {x, c.list({at + 1})}), c.list(wide)});
  std::vector<Item> lengths;
  for (std::size_t i = 0; i < c.rank(x); ++i) lengths.push_back(i == axis ? Item::of_integer(-1) : c.length_of(x, i));
  return Item::of_tensor(reshaped(c, spread, lengths));
}

Item cat(Call& c) {
  auto tensors = c.tensors("tensors");
  if (tensors.empty()) c.refuse("of no tensors");
  DType type = c.dtype(tensors[0]);
  std::vector<std::string> parts;
  for (const std::string& each : tensors) type = promoted_type(type, c.dtype(each));
  std::size_t rank = 0;
  for (const std::string& each : tensors) rank = std::max(rank, c.rank(each));
  for (const std::string& each : tensors)
    if (!(c.rank(each) == 1 && rank > 1 && c.shape(each)[0] == Dim(0)))
      parts.push_back(c.cast(each, type));  // an empty one is none
  if (parts.size() == 1) return Item::of_tensor(parts[0]);
  return Item::of_tensor(c.add("Concat", parts, {{"axis", static_cast<std::int64_t>(c.axis("dim", rank))}}));
}

Item stack(Call& c) {
  const auto tensors = c.tensors("tensors");
  if (tensors.empty()) c.refuse("of no tensors");
  const auto axis = static_cast<std::int64_t>(c.axis("dim", c.rank(tensors[0]) + 1));
  std::vector<std::string> parts;
  for (const std::string& each : tensors) parts.push_back(c.add("Unsqueeze", {each, c.list({axis})}));
  return Item::of_tensor(parts.size() == 1 ? parts[0] : c.add("Concat", parts, {{"axis", axis}}));
}

Item split_by(const Call& c, const std::string& x, std::size_t axis, const Integers& lengths) {
  if (lengths.size() == 1) return Item::of_tensors({x});
  return Item::of_tensors(c.add_many("Split", {x, c.list(lengths)}, {{"axis", static_cast<std::int64_t>(axis)}}, lengths.size()));
}

Item in_pieces(Call& c, const std::string& x, std::size_t axis, std::int64_t length) {
  const Dim& whole = c.shape(x)[axis];
  if (!whole.known()) c.refuse("the axis has the length " + whole.text() + ", and how many pieces there are depends on it");
  if (length < 1) c.refuse("pieces of no length");
  Integers lengths;
  for (std::int64_t left = whole.constant(); left > 0; left -= length) lengths.push_back(std::min(left, length));
  if (lengths.size() > 4096) c.refuse("more than 4096 pieces");
  return split_by(c, x, axis, lengths);
}

Item chunk(Call& c) {
  const std::string x = c.tensor("self");
  const std::size_t axis = c.axis("dim", c.rank(x));
  const std::int64_t count = c.integer("chunks");
  const Dim& whole = c.shape(x)[axis];
  if (!whole.known() || count < 1) c.refuse("the axis has the length " + whole.text());
  return in_pieces(c, x, axis, std::max<std::int64_t>((whole.constant() + count - 1) / count, 1));
}

Item split(Call& c) {
  const std::string x = c.tensor("self");
  const std::size_t axis = c.axis("dim", c.rank(x));
  const char* name = c.find("split_size") ? "split_size" : "split_sizes";
  if (c.item(name).kind == Item::Kind::integer) return in_pieces(c, x, axis, c.integer(name));
  return split_by(c, x, axis, c.integers(name));
}

Item unbind(Call& c) {
  const std::string x = c.tensor("self");
  const std::size_t axis = c.axis("dim", c.rank(x));
  Item pieces = in_pieces(c, x, axis, 1);
  for (Item& piece : pieces.items) piece.name = c.add("Squeeze", {piece.name, c.list({static_cast<std::int64_t>(axis)})});
  return pieces;
}

const RegisterRule rules[] = {
    {{"aten::view", "aten::reshape", "aten::_unsafe_view", "aten::_reshape_alias"}, view},
    {{"aten::view_as", "aten::reshape_as"}, view_as},
    {{"aten::flatten"}, flatten},
    {{"aten::unflatten"}, unflatten},
    {{"aten::permute"}, permute},
    {{"aten::transpose", "aten::swapaxes", "aten::swapdims"}, swap},
    {{"aten::t", "aten::numpy_T", "aten::mT"}, turned},
    {{"aten::movedim", "aten::moveaxis"}, movedim},
    {{"aten::unsqueeze"}, unsqueeze},
    {{"aten::squeeze"}, squeeze},
    {{"aten::expand", "aten::broadcast_to"}, expand},
    {{"aten::expand_as"}, expand_as},
    {{"aten::repeat"}, repeat},
    {{"aten::repeat_interleave"}, repeat_interleave},
    {{"aten::cat", "aten::concat", "aten::concatenate"}, cat},
    {{"aten::stack"}, stack},
    {{"aten::chunk"}, chunk},
    {{"aten::split", "aten::split_with_sizes"}, split},
    {{"aten::unbind"}, unbind},
};

}  // namespace
}  // namespace espalier::torchscript
