/// Lists, tuples, and the numbers of shape arithmetic.
#include <cmath>

#include "formats/torchscript/lowering.h"

namespace espalier::torchscript {
namespace {

Item listed(Call& c) { return Item::of_list(c.inputs()); }

Item unpacked(Call& c) {
  if (c.inputs().empty() || c.inputs()[0].kind != Item::Kind::list) c.refuse("what is unpacked is no list");
  return c.operation.outputs.size() == 1 ? c.inputs()[0].items.at(0) : c.inputs()[0];
}

Item dictionary(Call& c) {
  Item item = Item::of_list({});
  for (std::size_t i = 0; i + 1 < c.inputs().size(); i += 2) {
    if (c.inputs()[i].kind != Item::Kind::text) c.refuse("its keys are no texts");
    item.keys.push_back(c.inputs()[i].name);
    item.items.push_back(c.inputs()[i + 1]);
  }
  return item;
}

Item element(Call& c) {
  const Item& list = c.inputs().at(0);
  const Item& key = c.inputs().at(1);
  if (list.kind != Item::Kind::list) c.refuse("it is no list");
  for (std::size_t i = 0; i < list.keys.size(); ++i)
    if (key.kind == Item::Kind::text && list.keys[i] == key.name) return list.items[i];
  if (key.kind != Item::Kind::integer || !key.constant()) c.refuse("the place is not constant");
  const auto size = static_cast<std::int64_t>(list.items.size());
  const std::int64_t at = key.integer < 0 ? key.integer + size : key.integer;
  if (at < 0 || at >= size) c.refuse("the place is outside the list");
  return list.items[static_cast<std::size_t>(at)];
}

Item size(Call& c) {
  const std::string x = c.tensor("self");
  if (c.find("dim")) return c.length_of(x, c.axis("dim", c.rank(x)));
  std::vector<Item> items;
  for (std::size_t i = 0; i < c.rank(x); ++i) items.push_back(c.length_of(x, i));
  return Item::of_list(std::move(items));
}

/// A number as a tensor without axes.
Item to_tensor(Call& c) {
  const Item& number = c.inputs().at(0);
  if (number.kind == Item::Kind::tensor) return c.given("dtype") ? Item::of_tensor(c.cast(number.name, *c.type("dtype"))) : number;
  if (c.given("dtype")) return Item::of_tensor(c.operand(number, *c.type("dtype")));
  const DType type = number.kind == Item::Kind::number    ? DType::f32
                     : number.kind == Item::Kind::boolean ? DType::boolean
                                                          : DType::i64;
  return Item::of_tensor(c.operand(number, type));
}

/// The one element of a tensor as an integer, constant where it is known.
Item to_integer(Call& c) {
  const Item& x = c.inputs().at(0);
  if (x.kind == Item::Kind::boolean || x.kind == Item::Kind::integer) return x.constant() ? Item::of_integer(x.integer) : x;
  if (x.kind == Item::Kind::number && x.constant()) return Item::of_integer(static_cast<std::int64_t>(x.real));
  if (x.kind != Item::Kind::tensor) c.refuse("it is no number");
  if (is_floating(c.dtype(x.name)) && c.initializer(x.name) && c.initializer(x.name)->count() == 1)
    return Item::of_integer(static_cast<std::int64_t>(c.initializer(x.name)->numbers()[0]));
  const std::string value = c.cast(x.name, DType::i64);
  if (const Tensor* known = c.initializer(value); known && known->count() == 1) return Item::of_integer(known->integers()[0]);
  if (c.rank(value) == 0) return Item::of_computed(c.length(Item::of_tensor(value)));
  return Item::of_computed(c.add("Reshape", {value, c.list({1})}));
}

Item to_number(Call& c) {
  const Item& x = c.inputs().at(0);
  if (x.kind == Item::Kind::number) return x;
  if (x.kind == Item::Kind::tensor) {
    const Tensor* known = c.initializer(x.name);
    if (known && known->count() == 1)
      return Item::of_number(is_floating(known->dtype) ? known->numbers()[0] : static_cast<double>(known->integers()[0]));
    Item item = Item::of_number(0);
    item.name = c.cast(c.rank(x.name) == 0 ? x.name : c.add("Reshape", {x.name, c.list({})}), DType::f32);
    return item;
  }
  if (x.constant()) return Item::of_number(static_cast<double>(x.integer));
  Item item = Item::of_number(0);
  item.name = c.operand(x, DType::f32);
  return item;
}

Item to_flag(Call& c) {
  const Item& x = c.inputs().at(0);
  if (x.kind == Item::Kind::tensor) {
    const Tensor* known = c.initializer(x.name);
    if (!known || known->count() != 1 || is_floating(known->dtype)) c.refuse("a decision that depends on the input");
    return Item::of_flag(known->integers()[0] != 0);
  }
  if (!x.constant()) c.refuse("a decision that depends on the input's size");
  return Item::of_flag(x.kind == Item::Kind::number ? x.real != 0 : x.integer != 0);
}

Item any_number(Call& c) {
  const Item& x = c.inputs().at(0);
  if (x.kind != Item::Kind::tensor) return x;
  return is_floating(c.dtype(x.name)) ? to_number(c) : to_integer(c);
}

Item count(Call& c) {
  const std::string x = c.inputs().at(0).kind == Item::Kind::tensor ? c.inputs()[0].name : std::string();
  if (x.empty()) return Item::of_integer(static_cast<std::int64_t>(c.inputs()[0].items.size()));
  return c.length_of(x, 0);
}

Item numel(Call& c) { return Item::of_computed(c.add("Reshape", {c.add("Size", {c.tensor("self")}), c.list({1})})); }

Item number_of_type(Call& c) {
  const DType type = c.dtype(c.inputs().at(0).name);
  for (std::int64_t number = 0; number < 16; ++number)
    if (numbered_type(number) == type) return Item::of_integer(number);
  c.refuse("the element type has no number");
}

const RegisterRule rules[] = {
    {{"prim::ListConstruct", "prim::TupleConstruct"}, listed},
    {{"prim::ListUnpack", "prim::TupleUnpack"}, unpacked},
    {{"prim::DictConstruct"}, dictionary},
    {{"aten::__getitem__", "prim::TupleIndex"}, element},
    {{"aten::size"}, size},
    {{"aten::len"}, count},
    {{"aten::numel"}, numel},
    {{"aten::dim"}, [](Call& c) { return Item::of_integer(static_cast<std::int64_t>(c.rank(c.tensor("self")))); }},
    {{"prim::NumToTensor", "aten::scalar_tensor", "aten::tensor", "aten::as_tensor"}, to_tensor},
    {{"aten::Int", "aten::IntImplicit"}, to_integer},
    {{"aten::Float", "aten::FloatImplicit"}, to_number},
    {{"aten::Bool"}, to_flag},
    {{"aten::ScalarImplicit", "aten::item"}, any_number},
    {{"prim::dtype"}, number_of_type},
    {{"prim::device", "prim::layout"}, [](Call&) { return Item{}; }},
    {{"prim::is_cuda", "prim::is_quantized", "prim::is_sparse", "prim::requires_grad"}, [](Call&) { return Item::of_flag(false); }},
};

}  // namespace
}  // namespace espalier::torchscript
