/// Tensors made of nothing but lengths and numbers.
#include "formats/torchscript/lowering.h"

namespace espalier::torchscript {
namespace {

DType type_of(const Item& number) {
  return number.kind == Item::Kind::number ? DType::f32 : number.kind == Item::Kind::boolean ? DType::boolean : DType::i64;
}

/// One number in a shape. Its value stands in the node where it is constant.
std::string filled(const Call& c, const std::string& shape, const Item& number, DType type) {
  const std::string scalar = c.operand(number, type);
  const Tensor* known = c.initializer(scalar);
  if (!known) return c.add("Expand", {scalar, shape});
  Tensor value = *known;
  value.shape = {1};
  return c.add("ConstantOfShape", {shape}, {{"value", std::move(value)}});
}

std::string asked_shape(const Call& c) {
  const Item* list = c.find("size") ? c.find("size") : c.find("names");
  if (!list || list->kind != Item::Kind::list) c.refuse("its shape is no list");
  return c.lengths(list->items);
}

std::string same_shape(const Call& c, const std::string& x) {
  std::vector<Item> lengths;
  for (std::size_t i = 0; i < c.rank(x); ++i) lengths.push_back(c.length_of(x, i));
  return c.lengths(lengths);
}

template <int number>
Item made(Call& c) {
  return Item::of_tensor(filled(c, asked_shape(c), Item::of_integer(number), c.type("dtype").value_or(DType::f32)));
}

Item full(Call& c) {
  const Item& number = c.item("fill_value");
  return Item::of_tensor(filled(c, asked_shape(c), number, c.type("dtype").value_or(type_of(number))));
}

template <int number>
Item like(Call& c) {
  const std::string x = c.tensor("self");
  return Item::of_tensor(filled(c, same_shape(c, x), Item::of_integer(number), c.type("dtype").value_or(c.dtype(x))));
}

Item full_like(Call& c) {
  const std::string x = c.tensor("self");
  return Item::of_tensor(filled(c, same_shape(c, x), c.item("fill_value"), c.type("dtype").value_or(c.dtype(x))));
}

template <int number>
Item new_of(Call& c) {
  return Item::of_tensor(filled(c, asked_shape(c), Item::of_integer(number), c.type("dtype").value_or(c.dtype(c.tensor("self")))));
}

Item new_full(Call& c) {
  return Item::of_tensor(filled(c, asked_shape(c), c.item("fill_value"), c.type("dtype").value_or(c.dtype(c.tensor("self")))));
}

Item arange(Call& c) {
  const Item first = c.find("start") ? c.item("start") : Item::of_integer(0), &last = c.item("end");
  const Item step = c.find("step") ? c.item("step") : Item::of_integer(1);
  DType type = DType::i64;
  for (const Item* each : {&first, &last, &step}) {
    if (each->kind == Item::Kind::number) type = DType::f32;
    if (each->kind == Item::Kind::tensor && is_floating(c.dtype(each->name))) type = DType::f32;
  }
  const DType wanted = c.type("dtype").value_or(type);
  const auto bound = [&](const Item& item) {
    const std::string value = c.operand(item, type);
    return c.rank(value) == 0 ? value : c.add("Squeeze", {value});
  };
  return Item::of_tensor(c.cast(c.add("Range", {bound(first), bound(last), bound(step)}), wanted));
}

Item linspace(Call& c) {
  const double first = c.number("start"), last = c.number("end");
  const std::int64_t steps = c.integer("steps");
  if (steps < 1 || steps > 1 << 20) c.refuse("that many steps");
  std::vector<float> values;
  for (std::int64_t i = 0; i < steps; ++i)
    values.push_back(
        static_cast<float>(steps == 1 ? first : first + (last - first) * static_cast<double>(i) / static_cast<double>(steps - 1)));
  return Item::of_tensor(
      c.cast(c.constant(Tensor::of<float>(DType::f32, {steps}, values), "constant"), c.type("dtype").value_or(DType::f32)));
}

/// Each vector along an axis of its own. "xy" exchanges the first two.
Item meshgrid(Call& c) {
  const auto tensors = c.tensors("tensors");
  const bool exchanged = c.given("indexing") && c.text("indexing") == "xy" && tensors.size() > 1;
  std::vector<Item> lengths;
  for (const std::string& each : tensors) lengths.push_back(c.rank(each) == 0 ? Item::of_integer(1) : c.length_of(each, 0));
  if (exchanged) std::swap(lengths[0], lengths[1]);
  const std::string shape = c.lengths(lengths);
  std::vector<std::string> out;
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    Integers along(tensors.size(), 1);
    along[exchanged && i < 2 ? 1 - i : i] = -1;
    out.push_back(c.add("Expand", {c.add("Reshape", {tensors[i], c.list(along)}), shape}));
  }
  return Item::of_tensors(out);
}

Item eye(Call& c) {
  const std::int64_t rows = c.integer("n"), columns = c.find("m") ? c.integer("m") : rows;
  const DType type = c.type("dtype").value_or(DType::f32);
  const std::string zeros = filled(c, c.list({rows, columns}), Item::of_integer(0), type);
  return Item::of_tensor(c.add("EyeLike", {zeros}, {{"dtype", static_cast<std::int64_t>(type)}}));
}

const RegisterRule rules[] = {
    {{"aten::zeros", "aten::empty"}, made<0>},
    {{"aten::ones"}, made<1>},
    {{"aten::full"}, full},
    {{"aten::zeros_like", "aten::empty_like"}, like<0>},
    {{"aten::ones_like"}, like<1>},
    {{"aten::full_like"}, full_like},
    {{"aten::new_zeros", "aten::new_empty"}, new_of<0>},
    {{"aten::new_ones"}, new_of<1>},
    {{"aten::new_full"}, new_full},
    {{"aten::arange"}, arange},
    {{"aten::linspace"}, linspace},
    {{"aten::meshgrid"}, meshgrid},
    {{"aten::eye"}, eye},
    {{"aten::_shape_as_tensor"}, [](Call& c) { return Item::of_tensor(c.add("Shape", {c.tensor("self")})); }},
    {{"aten::nonzero"},
     [](Call& c) {
       return Item::of_tensor(c.add("Transpose", {c.add("NonZero", {c.tensor("self")})}, {{"perm", Integers{1, 0}}}));
     }},
};

}  // namespace
}  // namespace espalier::torchscript
