/// Functions of two values, element by element, and arithmetic of lengths.
#include <cmath>

#include "formats/torchscript/lowering.h"

namespace espalier::torchscript {
namespace {

bool plain(const Item& item) { return item.kind != Item::Kind::tensor && item.kind != Item::Kind::list; }

/// Python's: rounded down. A file's numbers may be anything: sums wrap.
std::int64_t wrapped(std::uint64_t value) { return static_cast<std::int64_t>(value); }

std::int64_t floor_quotient(std::int64_t a, std::int64_t b) {
  if (b == -1) return wrapped(0 - static_cast<std::uint64_t>(a));
  const std::int64_t q = a / b;
  return a % b != 0 && (a < 0) != (b < 0) ? q - 1 : q;
}

/// ONNX divides integers towards zero, which is the same where neither is negative.
std::string floored(const Call& c, const std::string& x, const std::string& y) {
  if (c.never_negative(x) && c.never_negative(y)) return c.add("Div", {x, y});
  return c.add("Div", {c.add("Sub", {x, c.add("Mod", {x, y})}), y});
}

/// Numbers of the program itself: constants are computed, lengths become nodes.
std::optional<Item> of_numbers(Call& c, const std::string& op, const Item& a, const Item& b) {
  if (!plain(a) || !plain(b)) return std::nullopt;
  const bool real = a.kind == Item::Kind::number || b.kind == Item::Kind::number || op == "TrueDiv";
  if (!a.constant() || !b.constant()) {
    if (!real && op == "FloorDiv") return Item::of_computed(floored(c, c.length(a), c.length(b)));
    if (!real) return Item::of_computed(c.add(op, {c.length(a), c.length(b)}));
    if (op == "FloorDiv" || op == "Mod") c.refuse("a quotient of numbers that depend on the input");
    Item item = Item::of_number(0);
    item.name = c.add(op == "TrueDiv" ? "Div" : op, {c.operand(a, DType::f32), c.operand(b, DType::f32)});
    return item;
  }
  const auto value = [](const Item& item) {
    return item.kind == Item::Kind::number ? item.real : static_cast<double>(item.integer);
  };
  const double x = value(a), y = value(b);
  if (op == "Add")
    return real ? Item::of_number(x + y)
                : Item::of_integer(wrapped(static_cast<std::uint64_t>(a.integer) + static_cast<std::uint64_t>(b.integer)));
  if (op == "Sub")
    return real ? Item::of_number(x - y)
                : Item::of_integer(wrapped(static_cast<std::uint64_t>(a.integer) - static_cast<std::uint64_t>(b.integer)));
  if (op == "Mul")
    return real ? Item::of_number(x * y)
                : Item::of_integer(wrapped(static_cast<std::uint64_t>(a.integer) * static_cast<std::uint64_t>(b.integer)));
  if (op == "Pow")
    return real ? Item::of_number(std::pow(x, y)) : Item::of_integer(static_cast<std::int64_t>(std::llround(std::pow(x, y))));
  if (y == 0) c.refuse("division by zero");
  if (op == "TrueDiv") return Item::of_number(x / y);
  if (op == "FloorDiv") return real ? Item::of_number(std::floor(x / y)) : Item::of_integer(floor_quotient(a.integer, b.integer));
  if (op == "Mod")
    return real ? Item::of_number(x - std::floor(x / y) * y)
                : Item::of_integer(b.integer == -1 ? 0 : a.integer - floor_quotient(a.integer, b.integer) * b.integer);
  return std::nullopt;
}

Item times(Call& c, const Item& item, double factor) {
  if (factor == 1) return item;
  if (item.kind == Item::Kind::integer && item.constant())
    return Item::of_integer(static_cast<std::int64_t>(static_cast<double>(item.integer) * factor));
  if (item.kind == Item::Kind::number && item.constant()) return Item::of_number(item.real * factor);
  const DType type = item.kind == Item::Kind::tensor ? c.dtype(item.name) : DType::i64;
  if (!is_floating(type) && factor != std::floor(factor)) c.refuse("alpha is no integer and the tensors are");
  return Item::of_tensor(c.add("Mul", {c.operand(item, type), c.scalar(factor, type)}));
}

/// Lists are joined.
std::optional<Item> of_lists(const Item& a, const Item& b) {
  if (a.kind != Item::Kind::list || b.kind != Item::Kind::list) return std::nullopt;
  std::vector<Item> items = a.items;
  items.insert(items.end(), b.items.begin(), b.items.end());
  return Item::of_list(std::move(items));
}

Item binary(Call& c, const char* op, const Item& a, const Item& b) {
  if (const auto known = of_numbers(c, op, a, b)) return *known;
  DType type{};
  const auto [x, y] = c.promoted(a, b, &type);
  if (type != DType::boolean) return Item::of_tensor(c.add(op, {x, y}));
  if (std::string_view(op) == "Mul") return Item::of_tensor(c.add("And", {x, y}));
  if (std::string_view(op) == "Add") return Item::of_tensor(c.add("Or", {x, y}));
  c.refuse("arithmetic of booleans");
}

Item add(Call& c) {
  const Item &a = c.inputs().at(0), &b = c.inputs().at(1);
  if (const auto joined = of_lists(a, b)) return *joined;
  return binary(c, "Add", a, times(c, b, c.number_or("alpha", 1)));
}
Item sub(Call& c) { return binary(c, "Sub", c.inputs().at(0), times(c, c.inputs().at(1), c.number_or("alpha", 1))); }
Item rsub(Call& c) { return binary(c, "Sub", c.inputs().at(1), times(c, c.inputs().at(0), c.number_or("alpha", 1))); }
Item mul(Call& c) { return binary(c, "Mul", c.inputs().at(0), c.inputs().at(1)); }

/// Integers are divided as floats.
Item true_quotient(Call& c, const Item& a, const Item& b) {
  if (const auto known = of_numbers(c, "TrueDiv", a, b)) return *known;
  DType type{};
  auto [x, y] = c.promoted(a, b, &type);
  if (!is_floating(type)) x = c.cast(x, DType::f32), y = c.cast(y, DType::f32);
  return Item::of_tensor(c.add("Div", {x, y}));
}

Item rounded_down(Call& c, const Item& a, const Item& b) {
  if (const auto known = of_numbers(c, "FloorDiv", a, b)) return *known;
  DType type{};
  const auto [x, y] = c.promoted(a, b, &type);
  if (is_floating(type)) return Item::of_tensor(c.add("Floor", {c.add("Div", {x, y})}));
  return Item::of_tensor(floored(c, x, y));
}

Item div(Call& c) {
  const Item &a = c.inputs().at(0), &b = c.inputs().at(1);
  const std::string mode = c.given("rounding_mode") ? c.text("rounding_mode") : "";
  if (mode == "floor") return rounded_down(c, a, b);
  if (mode.empty()) return true_quotient(c, a, b);
  if (mode != "trunc") c.refuse("rounding_mode is \"" + mode + "\"");
  DType type{};
  const auto [x, y] = c.promoted(a, b, &type);
  if (!is_floating(type)) return Item::of_tensor(c.add("Div", {x, y}));
  const std::string q = c.add("Div", {x, y});
  return Item::of_tensor(c.add("Mul", {c.add("Sign", {q}), c.add("Floor", {c.add("Abs", {q})})}));
}

Item remainder(Call& c) {
  if (const auto known = of_numbers(c, "Mod", c.inputs().at(0), c.inputs().at(1))) return *known;
  DType type{};
  const auto [x, y] = c.promoted(c.inputs().at(0), c.inputs().at(1), &type);
  if (!is_floating(type)) return Item::of_tensor(c.add("Mod", {x, y}));
  return Item::of_tensor(c.add("Sub", {x, c.add("Mul", {c.add("Floor", {c.add("Div", {x, y})}), y})}));
}

Item pow(Call& c) {
  const Item &a = c.inputs().at(0), &b = c.inputs().at(1);
  if (const auto known = of_numbers(c, "Pow", a, b)) return *known;
  DType type{};
  const auto [x, y] = c.promoted(a, b, &type);
  if (b.kind == Item::Kind::number && b.constant() && b.real == 0.5) return Item::of_tensor(c.add("Sqrt", {x}));
  return Item::of_tensor(c.add("Pow", {x, y}));
}

template <int which>
Item compared(Call& c) {
  static constexpr const char* kOps[] = {"Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual"};
  const Item &a = c.inputs().at(0), &b = c.inputs().at(1);
  if (plain(a) && plain(b) && a.constant() && b.constant() && a.kind != Item::Kind::text && a.kind != Item::Kind::none &&
      b.kind != Item::Kind::none) {
    const double x = a.kind == Item::Kind::number ? a.real : static_cast<double>(a.integer),
                 y = b.kind == Item::Kind::number ? b.real : static_cast<double>(b.integer);
    const bool results[] = {x == y, x<y, x <= y, x> y, x >= y};
    return Item::of_flag(results[which]);
  }
  if (plain(a) && plain(b))
    c.refuse("a decision that depends on the input's size", "trace the model (torch.jit.trace) with inputs of the kind you mean");
  DType type{};
  auto [x, y] = c.promoted(a, b, &type);
  if (type == DType::boolean && which != 0) x = c.cast(x, DType::i64), y = c.cast(y, DType::i64);
  return Item::of_tensor(c.add(kOps[which], {x, y}));
}

Item not_equal(Call& c) {
  const Item equal = compared<0>(c);
  if (equal.kind == Item::Kind::boolean) return Item::of_flag(equal.integer == 0);
  return Item::of_tensor(c.add("Not", {equal.name}));
}

template <int which>
Item logical(Call& c) {
  static constexpr const char* kOps[] = {"And", "Or", "Xor"};
  static constexpr const char* kBits[] = {"BitwiseAnd", "BitwiseOr", "BitwiseXor"};
  DType type{};
  auto [x, y] = c.promoted(c.inputs().at(0), c.inputs().at(1), &type);
  const bool bits = c.operation.kind.find("logical") == std::string::npos && type != DType::boolean;
  if (bits) return Item::of_tensor(c.add(kBits[which], {x, y}));
  return Item::of_tensor(c.add(kOps[which], {c.cast(x, DType::boolean), c.cast(y, DType::boolean)}));
}

template <int which>
Item extreme(Call& c) {
  DType type{};
  const auto [x, y] = c.promoted(c.inputs().at(0), c.inputs().at(1), &type);
  return Item::of_tensor(c.add(which == 0 ? "Min" : "Max", {x, y}));
}

Item where(Call& c) {
  if (!c.find("self")) c.refuse("with a condition alone the number of results depends on the input");
  const auto [x, y] = c.promoted(c.item("self"), c.item("other"));
  return Item::of_tensor(c.add("Where", {c.cast(c.tensor("condition"), DType::boolean), x, y}));
}

Item masked_fill(Call& c) {
  const std::string self = c.tensor("self");
  return Item::of_tensor(c.add("Where", {c.tensor("mask"), c.operand(c.item("value"), c.dtype(self)), self}));
}

/// input + value · a · b, or a / b.
template <int which>
Item fused(Call& c) {
  const std::string self = c.tensor("self");
  const DType type = c.dtype(self);
  std::string product = c.add(which == 0 ? "Mul" : "Div", {c.cast(c.tensor("tensor1"), type), c.cast(c.tensor("tensor2"), type)});
  if (c.number("value") != 1) product = c.add("Mul", {product, c.scalar(c.number("value"), type)});
  return Item::of_tensor(c.add("Add", {self, product}));
}

Item lerp(Call& c) {
  const std::string a = c.tensor("self"), b = c.tensor("end");
  return Item::of_tensor(c.add("Add", {a, c.add("Mul", {c.add("Sub", {b, a}), c.operand(c.item("weight"), c.dtype(a))})}));
}

const RegisterRule rules[] = {
    {{"aten::add"}, add},
    {{"aten::sub", "aten::subtract"}, sub},
    {{"aten::rsub"}, rsub},
    {{"aten::mul", "aten::multiply"}, mul},
    {{"aten::div", "aten::divide", "aten::true_divide"}, div},
    {{"aten::floor_divide", "aten::floordiv"}, [](Call& c) { return rounded_down(c, c.inputs().at(0), c.inputs().at(1)); }},
    {{"aten::remainder", "aten::__mod__"}, remainder},
    {{"aten::pow"}, pow},
    {{"aten::eq"}, compared<0>},
    {{"aten::lt"}, compared<1>},
    {{"aten::le"}, compared<2>},
    {{"aten::gt"}, compared<3>},
    {{"aten::ge"}, compared<4>},
    {{"aten::ne"}, not_equal},
    {{"aten::logical_and", "aten::bitwise_and", "aten::__and__"}, logical<0>},
    {{"aten::logical_or", "aten::bitwise_or", "aten::__or__"}, logical<1>},
    {{"aten::logical_xor", "aten::bitwise_xor", "aten::__xor__"}, logical<2>},
    {{"aten::minimum"}, extreme<0>},
    {{"aten::maximum"}, extreme<1>},
    {{"aten::where"}, where},
    {{"aten::masked_fill"}, masked_fill},
    {{"aten::addcmul"}, fused<0>},
    {{"aten::addcdiv"}, fused<1>},
    {{"aten::lerp"}, lerp},
};

}  // namespace
}  // namespace espalier::torchscript
