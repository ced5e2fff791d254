/// Parts of tensors: by place, by a tensor of places, by a mask.
#include <algorithm>
#include <limits>

#include "formats/torchscript/lowering.h"

namespace espalier::torchscript {
namespace {

constexpr std::int64_t kFar = std::numeric_limits<std::int64_t>::max();

std::string sliced(const Call& c, const std::string& x, std::size_t axis, const Item& begin, const Item& end, std::int64_t step) {
  const bool all = begin.constant() && begin.integer == 0 && end.constant() && end.integer == kFar && step == 1;
  if (all) return x;
  std::vector<std::string> inputs{x, c.length(begin), c.length(end), c.list({static_cast<std::int64_t>(axis)})};
  if (step != 1) inputs.push_back(c.list({step}));
  return c.add("Slice", std::move(inputs));
}

Item slice(Call& c) {
  if (c.item("self").kind == Item::Kind::list || !c.find("dim")) c.refuse("a part of a list");
  const std::string x = c.tensor("self");
  const Item begin = c.given("start") ? c.item("start") : Item::of_integer(0),
             end = c.given("end") ? c.item("end") : Item::of_integer(kFar);
  return Item::of_tensor(sliced(c, x, c.axis("dim", c.rank(x)), begin, end, c.integer("step")));
}

Item narrow(Call& c) {
  const std::string x = c.tensor("self");
  const std::size_t axis = c.axis("dim", c.rank(x));
  const Item &begin = c.item("start"), &length = c.item("length");
  if (begin.kind != Item::Kind::integer || length.kind != Item::Kind::integer) c.refuse("its start is no number");
  const Item end = begin.constant() && length.constant() ? Item::of_integer(begin.integer + length.integer)
                                                         : Item::of_computed(c.add("Add", {c.length(begin), c.length(length)}));
  return Item::of_tensor(sliced(c, x, axis, begin, end, 1));
}

Item select(Call& c) {
  const std::string x = c.tensor("self");
  const auto axis = static_cast<std::int64_t>(c.axis("dim", c.rank(x)));
  const Item& index = c.item("index");
  const std::string place = index.constant() ? c.constant(Tensor::of<std::int64_t>(DType::i64, {}, {index.integer}), "number")
                                             : c.add("Squeeze", {c.length(index), c.list({0})});
  return Item::of_tensor(c.add("Gather", {x, place}, {{"axis", axis}}));
}

Item index_select(Call& c) {
  const std::string x = c.tensor("self");
  return Item::of_tensor(c.add("Gather", {x, c.tensor("index")}, {{"axis", static_cast<std::int64_t>(c.axis("dim", c.rank(x)))}}));
}

Item gather(Call& c) {
  const std::string x = c.tensor("self"), places = c.tensor("index");
  return Item::of_tensor(c.add("GatherElements", {x, places}, {{"axis", static_cast<std::int64_t>(c.axis("dim", c.rank(x)))}}));
}

Item embedding(Call& c) {
  return Item::of_tensor(c.add("Gather", {c.tensor("weight"), c.tensor("indices")}, {{"axis", std::int64_t{0}}}));
}

/// Places where a mask is set, as lists of indices one an axis.
std::vector<std::string> places(const Call& c, const std::string& mask) {
  const std::string all = c.add("NonZero", {mask});
  std::vector<std::string> lists;
  for (std::size_t i = 0; i < c.rank(mask); ++i)
    lists.push_back(c.add("Gather",
                          {all, c.constant(Tensor::of<std::int64_t>(DType::i64, {}, {static_cast<std::int64_t>(i)}), "number")},
                          {{"axis", std::int64_t{0}}}));
  return lists;
}

struct Indices {
  std::vector<std::string> values;  ///< one behind the other
  std::size_t first = 0;            ///< axis of the first
};

/// The tensors of x[:, a, b]; others than neighbours are refused.
Indices indices_of(const Call& c) {
  Indices found;
  bool ended = false;
  std::size_t axis = 0;
  for (const Item& item : c.item("indices").items) {
    if (item.kind == Item::Kind::none) {
      ended = ended || !found.values.empty();
      ++axis;
      continue;
    }
    if (item.kind != Item::Kind::tensor) c.refuse("an index is no tensor");
    if (ended) c.refuse("indices on axes that are no neighbours");
    if (found.values.empty()) found.first = axis;
    const bool mask = c.dtype(item.name) == DType::boolean;
    for (const std::string& value : mask ? places(c, item.name) : std::vector<std::string>{item.name})
      found.values.push_back(value);
    axis += mask ? c.rank(item.name) : 1;
  }
  return found;
}

/// The places as one tensor with an axis of coordinates behind, for GatherND and ScatterND.
std::string coordinates(const Call& c, const Indices& indices) {
  std::string shape_of = indices.values[0];
  for (std::size_t i = 1; i < indices.values.size(); ++i)
    shape_of = c.add("Add", {c.cast(shape_of, DType::i64), c.cast(indices.values[i], DType::i64)});
  const std::string shape = c.add("Shape", {shape_of});
  std::vector<std::string> parts;
  for (const std::string& value : indices.values)
    parts.push_back(c.add("Unsqueeze", {c.add("Expand", {c.cast(value, DType::i64), shape}), c.list({-1})}));
  return parts.size() == 1 ? parts[0] : c.add("Concat", parts, {{"axis", std::int64_t{-1}}});
}

Item index(Call& c) {
  const std::string x = c.tensor("self");
  const Indices indices = indices_of(c);
  if (indices.values.empty()) return Item::of_tensor(x);
  if (indices.values.size() == 1)
    return Item::of_tensor(c.add("Gather", {x, indices.values[0]}, {{"axis", static_cast<std::int64_t>(indices.first)}}));
  if (indices.first != 0) {
    // The axes in front go behind, and come back in front of what the indices make.
    const std::size_t rank = c.rank(x), count = indices.values.size(), front = indices.first;
    Integers order;
    for (std::size_t i = front; i < rank; ++i) order.push_back(static_cast<std::int64_t>(i));
    for (std::size_t i = 0; i < front; ++i) order.push_back(static_cast<std::int64_t>(i));
    const std::string picked = c.add("GatherND", {c.add("Transpose", {x}, {{"perm", order}}), coordinates(c, indices)});
    const std::size_t made = c.rank(picked) - (rank - count), rest = rank - count - front;
    Integers back;
    for (std::size_t i = 0; i < front; ++i) back.push_back(static_cast<std::int64_t>(made + rest + i));
    for (std::size_t i = 0; i < made + rest; ++i) back.push_back(static_cast<std::int64_t>(i));
    return Item::of_tensor(c.add("Transpose", {picked}, {{"perm", back}}));
  }
  return Item::of_tensor(c.add("GatherND", {x, coordinates(c, indices)}));
}

Item index_put(Call& c) {
  const std::string x = c.tensor("self");
  const Indices indices = indices_of(c);
  if (indices.values.empty() || indices.first != 0) c.refuse("indices that do not begin with the first axis");
  const std::string at = coordinates(c, indices);
  std::vector<Item> lengths;
  for (std::size_t i = 0; i + 1 < c.rank(at); ++i) lengths.push_back(c.length_of(at, i));
  for (std::size_t i = indices.values.size(); i < c.rank(x); ++i) lengths.push_back(c.length_of(x, i));
  const std::string values = c.add("Expand", {c.cast(c.tensor("values"), c.dtype(x)), c.lengths(lengths)});
  Attributes attributes;
  if (c.flag_or("accumulate", false)) attributes["reduction"] = std::string("add");
  return Item::of_tensor(c.add("ScatterND", {x, at, values}, std::move(attributes)));
}

Item scatter(Call& c) {
  const std::string x = c.tensor("self"), at = c.tensor("index");
  if (c.find("reduce")) c.refuse("with a reduction");
  const auto axis = static_cast<std::int64_t>(c.axis("dim", c.rank(x)));
  std::string values;
  if (c.find("src")) {
    values = c.cast(c.tensor("src"), c.dtype(x));
    if (c.shape(values) != c.shape(at)) {
      std::vector<std::string> inputs{values, c.list(Integers(c.rank(at), 0)), c.add("Shape", {at})};
      values = c.add("Slice", inputs);
    }
  } else {
    values = c.add("Expand", {c.operand(c.item("value"), c.dtype(x)), c.add("Shape", {at})});
  }
  Attributes attributes{{"axis", axis}};
  if (c.operation.kind.starts_with("aten::scatter_add")) attributes["reduction"] = std::string("add");
  return Item::of_tensor(c.add("ScatterElements", {x, at, values}, std::move(attributes)));
}

/// What is written over the whole of a tensor.
Item copied(Call& c) { return Item::of_tensor(c.tensor("src")); }
Item filled(Call& c) { return Item::of_tensor(c.operand(c.item("value"), c.dtype(c.tensor("self")))); }
Item zeroed(Call& c) { return Item::of_tensor(c.scalar(0, c.dtype(c.tensor("self")))); }

/// Elements that go out at one end come in at the other.
Item roll(Call& c) {
  std::string x = c.tensor("self");
  const Integers shifts = c.integers("shifts"), axes = c.integers("dims");
  if (axes.size() != shifts.size()) c.refuse("without axes");
  for (std::size_t i = 0; i < axes.size(); ++i) {
    const auto axis = static_cast<std::int64_t>(c.wrapped(axes[i], c.rank(x)));
    if (shifts[i] == 0) continue;
    const Dim& length = c.shape(x)[static_cast<std::size_t>(axis)];
    const std::int64_t by = length.known() && length.constant() > 0
                                ? ((shifts[i] % length.constant()) + length.constant()) % length.constant()
                                : shifts[i];
    if (by == 0) continue;
    const std::string place = c.list({-by}), along = c.list({axis});
    x = c.add("Concat", {c.add("Slice", {x, place, c.list({kFar}), along}), c.add("Slice", {x, c.list({0}), place, along})},
              {{"axis", axis}});
  }
  return Item::of_tensor(x);
}

Item flip(Call& c) {
  std::string x = c.tensor("self");
  Integers axes;
  for (std::int64_t axis : c.integers("dims")) axes.push_back(static_cast<std::int64_t>(c.wrapped(axis, c.rank(x))));
  if (axes.empty()) return Item::of_tensor(x);
  return Item::of_tensor(c.add("Slice", {x, c.list(Integers(axes.size(), -1)), c.list(Integers(axes.size(), -kFar)), c.list(axes),
                                         c.list(Integers(axes.size(), -1))}));
}

template <int upper>
Item triangle(Call& c) {
  const std::string x = c.tensor("self");
  const std::string diagonal = c.constant(Tensor::of<std::int64_t>(DType::i64, {}, {c.integer("diagonal")}), "number");
  return Item::of_tensor(c.add("Trilu", {x, diagonal}, {{"upper", std::int64_t{upper}}}));
}

Item one_hot(Call& c) {
  if (c.integer("num_classes") < 1) c.refuse("as many classes as the input says");
  const std::string values = c.constant(Tensor::of<std::int64_t>(DType::i64, {2}, {0, 1}), "constant");
  return Item::of_tensor(
      c.add("OneHot", {c.tensor("self"), c.list({c.integer("num_classes")}), values}, {{"axis", std::int64_t{-1}}}));
}

Item topk(Call& c) {
  const std::string x = c.tensor("self");
  const auto axis = static_cast<std::int64_t>(c.axis("dim", c.rank(x)));
  return Item::of_tensors(
      c.add_many("TopK", {x, c.length(c.item("k"))},
                 {{"axis", axis}, {"largest", std::int64_t{c.flag("largest")}}, {"sorted", std::int64_t{c.flag("sorted")}}}, 2));
}

const RegisterRule rules[] = {
    {{"aten::slice"}, slice},
    {{"aten::narrow"}, narrow},
    {{"aten::select"}, select},
    {{"aten::index_select"}, index_select},
    {{"aten::gather"}, gather},
    {{"aten::embedding"}, embedding},
    {{"aten::index"}, index},
    {{"aten::index_put"}, index_put},
    {{"aten::scatter", "aten::scatter_add"}, scatter},
    {{"aten::copy"}, copied},
    {{"aten::fill"}, filled},
    {{"aten::zero"}, zeroed},
    {{"aten::roll"}, roll},
    {{"aten::flip"}, flip},
    {{"aten::triu"}, triangle<1>},
    {{"aten::tril"}, triangle<0>},
    {{"aten::one_hot"}, one_hot},
    {{"aten::topk"}, topk},
};

}  // namespace
}  // namespace espalier::torchscript
