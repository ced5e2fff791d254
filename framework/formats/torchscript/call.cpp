#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "formats/model_writer.h"
#include "formats/torchscript/lowering.h"
#include "sdk/error.h"

namespace espalier::torchscript {
namespace {

/// bool < integers < floats, which decide before sizes do.
int category(DType type) { return type == DType::boolean ? 0 : is_floating(type) ? 2 : 1; }

struct Operand {
  DType type;
  int priority;  ///< 2: a tensor with axes, 1: one without, 0: a number
};

DType combined(const Operand& a, const Operand& b) {
  if (a.priority == b.priority) return promoted_type(a.type, b.type);
  const Operand &high = a.priority > b.priority ? a : b, &low = a.priority > b.priority ? b : a;
  return category(low.type) > category(high.type) ? low.type : high.type;
}

Tensor turned(const Tensor& tensor) {
  const auto rows = static_cast<std::size_t>(tensor.shape[0]), columns = static_cast<std::size_t>(tensor.shape[1]);
  const std::size_t width = static_cast<std::size_t>(bits(tensor.dtype)) / 8;
  std::vector<std::byte> bytes(tensor.bytes.size());
  for (std::size_t row = 0; row < rows; ++row)
    for (std::size_t column = 0; column < columns; ++column)
      std::memcpy(&bytes[(column * rows + row) * width], &tensor.bytes[(row * columns + column) * width], width);
  return Tensor::own(tensor.dtype, {tensor.shape[1], tensor.shape[0]}, std::move(bytes));
}

}  // namespace

DType promoted_type(DType a, DType b) {
  if (a == b) return a;
  if (category(a) != category(b)) return category(a) > category(b) ? a : b;
  if (bits(a) != bits(b)) return bits(a) > bits(b) ? a : b;
  if (is_floating(a)) return DType::f32;  // f16 with bf16
  return DType::i16;                      // u8 with i8
}

std::optional<DType> numbered_type(std::int64_t number) {
  static constexpr DType types[] = {DType::u8,  DType::i8,  DType::i16,       DType::i32,       DType::i64,       DType::f16,
                                    DType::f32, DType::f64, DType::undefined, DType::undefined, DType::undefined, DType::boolean};
  if (number == 15) return DType::bf16;
  if (number < 0 || number > 11 || types[number] == DType::undefined) return std::nullopt;
  return types[number];
}

Call::Call(Builder& builder, const Operation& of, std::vector<Item> inputs, const std::string& where, std::set<std::string>& shared)
    : operation(of), builder_(builder), inputs_(std::move(inputs)), where_(where), shared_(shared) {}

void Call::refuse(const std::string& why, const std::string& hint) const {
  std::string message = operation.kind + (why.empty() ? "" : ": " + why);
  if (!operation.scope.empty()) message += ", in " + operation.scope;
  if (!operation.place.empty()) message += " (" + operation.place + ")";
  throw_unsupported(std::move(message), where_, hint);
}

const Item* Call::find(std::string_view name) const {
  for (std::size_t i = 0; i < operation.parameters.size() && i < inputs_.size(); ++i)
    if (operation.parameters[i] == name) return &inputs_[i];
  return nullptr;
}

bool Call::given(std::string_view name) const {
  const Item* found = find(name);
  return found && found->kind != Item::Kind::none;
}

const Item& Call::item(std::string_view name) const {
  const Item* found = find(name);
  if (!found) refuse(fmt::format("it has no argument '{}' in this version", name));
  return *found;
}

std::string Call::tensor(std::string_view name) const {
  const Item& found = item(name);
  if (found.kind != Item::Kind::tensor) refuse(fmt::format("argument '{}' is no tensor", name));
  return found.name;
}

std::string Call::tensor_or_none(std::string_view name) const { return given(name) ? tensor(name) : std::string(); }

std::vector<std::string> Call::tensors(std::string_view name) const {
  const Item& found = item(name);
  if (found.kind != Item::Kind::list) refuse(fmt::format("argument '{}' is no list", name));
  std::vector<std::string> values;
  for (const Item& each : found.items) {
    if (each.kind != Item::Kind::tensor) refuse(fmt::format("argument '{}' holds something else than tensors", name));
    values.push_back(each.name);
  }
  return values;
}

std::int64_t Call::integer(std::string_view name) const {
  const Item& found = item(name);
  if (found.kind == Item::Kind::number && found.constant() &&
      found.real == static_cast<double>(static_cast<std::int64_t>(found.real)))
    return static_cast<std::int64_t>(found.real);
  if ((found.kind != Item::Kind::integer && found.kind != Item::Kind::boolean) || !found.constant())
    refuse(fmt::format("argument '{}' is no constant integer", name), "only lists of lengths may be computed from the input's");
  return found.integer;
}

double Call::number(std::string_view name) const {
  const Item& found = item(name);
  if (found.kind == Item::Kind::number && found.constant()) return found.real;
  return static_cast<double>(integer(name));
}

double Call::number_or(std::string_view name, double fallback) const { return given(name) ? number(name) : fallback; }
bool Call::flag(std::string_view name) const { return integer(name) != 0; }
bool Call::flag_or(std::string_view name, bool fallback) const { return given(name) ? flag(name) : fallback; }

std::string Call::text(std::string_view name) const {
  const Item& found = item(name);
  if (found.kind != Item::Kind::text) refuse(fmt::format("argument '{}' is no text", name));
  return found.name;
}

Integers Call::integers(std::string_view name) const {
  const Item& found = item(name);
  if (found.kind == Item::Kind::integer) return {integer(name)};
  if (found.kind != Item::Kind::list) refuse(fmt::format("argument '{}' is no list of integers", name));
  Integers values;
  for (const Item& each : found.items) {
    if (each.kind != Item::Kind::integer || !each.constant())
      refuse(fmt::format("argument '{}' holds something else than constant integers", name));
    values.push_back(each.integer);
  }
  return values;
}

Integers Call::integers(std::string_view name, std::size_t count) const {
  Integers values = integers(name);
  if (values.size() == 1) values.resize(count, values[0]);
  if (values.size() != count) refuse(fmt::format("argument '{}' has {} integers, {} are needed", name, values.size(), count));
  return values;
}

std::optional<DType> Call::type(std::string_view name) const {
  if (!given(name)) return std::nullopt;
  const auto found = numbered_type(integer(name));
  if (!found) refuse(fmt::format("element type {} has no counterpart", integer(name)));
  return found;
}

std::string Call::add(const std::string& op, std::vector<std::string> inputs, Attributes attributes) const {
  return add_many(op, std::move(inputs), std::move(attributes), 1).front();
}

std::vector<std::string> Call::add_many(const std::string& op, std::vector<std::string> inputs, Attributes attributes,
                                        std::size_t outputs) const {
  return builder_.add(operation.scope.empty() ? "" : scope_of(operation.scope), op, std::move(inputs), std::move(attributes),
                      outputs);
}

DType Call::dtype(const std::string& value) const {
  const ValueInfo* info = builder_.info(value);
  if (!info || info->dtype == DType::undefined) refuse("the element type of '" + value + "' is not known here");
  return info->dtype;
}

const Shape& Call::shape(const std::string& value) const {
  const ValueInfo* info = builder_.info(value);
  if (!info || !info->rank_known) refuse("the rank of '" + value + "' is not known here");
  return info->shape;
}

std::size_t Call::wrapped(std::int64_t axis, std::size_t rank) const {
  const auto r = static_cast<std::int64_t>(rank);
  if (r == 0 && (axis == 0 || axis == -1)) return 0;
  if (axis < -r || axis >= r) refuse(fmt::format("axis {} is outside a value of rank {}", axis, rank));
  return static_cast<std::size_t>(axis < 0 ? axis + r : axis);
}

std::size_t Call::axis(std::string_view name, std::size_t rank) const { return wrapped(integer(name), rank); }

std::string Call::cast(const std::string& value, DType type) const {
  const DType from = dtype(value);
  if (from == type) return value;
  if (const Tensor* known = initializer(value);
      known && known->shape.empty() &&
      (is_floating(from) ? bits(from) >= 16 : from == DType::i64 || from == DType::i32 || from == DType::boolean))
    return scalar(is_floating(from) ? known->numbers()[0] : static_cast<double>(known->integers()[0]), type);
  return add("Cast", {value}, {{"to", static_cast<std::int64_t>(type)}});
}

bool Call::never_negative(const std::string& value) const {
  const ValueInfo* info = builder_.info(value);
  if (!info || !info->content) return false;
  return std::all_of(info->content->begin(), info->content->end(), [](const Dim& dim) {
    return dim.constant() >= 0 &&
           std::all_of(dim.terms().begin(), dim.terms().end(), [](const auto& term) { return term.second > 0; });
  });
}

std::string Call::length(const Item& item) const {
  if (item.kind == Item::Kind::tensor) {
    if (rank(item.name) == 0) return add("Unsqueeze", {cast(item.name, DType::i64), list({0})});
    return cast(item.name, DType::i64);
  }
  if (item.kind != Item::Kind::integer) refuse("a length is no integer");
  return item.constant() ? builder_.integers({item.integer}) : item.name;
}

std::string Call::lengths(const std::vector<Item>& items) const {
  std::vector<std::string> parts;
  Integers known;
  const auto flush = [&] {
    if (!known.empty()) parts.push_back(builder_.integers(known));
    known.clear();
  };
  for (const Item& item : items) {
    if (item.kind == Item::Kind::integer && item.constant()) {
      known.push_back(item.integer);
      continue;
    }
    flush();
    parts.push_back(length(item));
  }
  flush();
  if (parts.empty()) return builder_.integers({});
  return parts.size() == 1 ? parts[0] : add("Concat", parts, {{"axis", std::int64_t{0}}});
}

Item Call::length_of(const std::string& value, std::size_t axis) const {
  const Dim& dim = shape(value)[axis];
  if (dim.known()) return Item::of_integer(dim.constant());
  const auto at = static_cast<std::int64_t>(axis);
  return Item::of_computed(add("Shape", {value}, {{"start", at}, {"end", at + 1}}));
}

std::string Call::operand(const Item& item, DType type) const {
  switch (item.kind) {
    case Item::Kind::tensor:
      return cast(item.name, type);
    case Item::Kind::boolean:
      return scalar(static_cast<double>(item.integer), type);
    case Item::Kind::number:
      return item.constant() ? scalar(item.real, type) : cast(item.name, type);
    case Item::Kind::integer:
      if (!item.constant()) return cast(add("Squeeze", {item.name, list({0})}), type);
      if (type == DType::i64) return constant(Tensor::of<std::int64_t>(type, {}, {item.integer}), "number");
      return scalar(static_cast<double>(item.integer), type);
    default:
      refuse("an operand is neither a tensor nor a number");
  }
}

std::pair<std::string, std::string> Call::promoted(const Item& a, const Item& b, DType* type) const {
  const auto described = [&](const Item& item) -> Operand {
    if (item.kind == Item::Kind::tensor) return {dtype(item.name), rank(item.name) > 0 ? 2 : 1};
    if (item.kind == Item::Kind::boolean) return {DType::boolean, 0};
    return {item.kind == Item::Kind::number ? DType::f32 : DType::i64, 0};
  };
  const DType common = combined(described(a), described(b));
  if (type) *type = common;
  return {operand(a, common), operand(b, common)};
}

std::string Call::turned_weight(const std::string& value) const {
  const Tensor* tensor = initializer(value);
  if (tensor && tensor->shape.size() == 2 && bits(tensor->dtype) >= 8 && !shared_.contains(value)) {
    builder_.replace(value, turned(*tensor));
    return value;
  }
  return add("Transpose", {value}, {{"perm", Integers{1, 0}}});
}

}  // namespace espalier::torchscript
