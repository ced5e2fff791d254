#include <fmt/format.h>

#include <algorithm>

#include "formats/torchscript/lowering.h"
#include "graph/infer_node.h"
#include "sdk/error.h"

namespace espalier::torchscript {

Item Item::of_tensor(std::string value) {
  Item item;
  item.kind = Kind::tensor;
  item.name = std::move(value);
  return item;
}
Item Item::of_integer(std::int64_t value) {
  Item item;
  item.kind = Kind::integer;
  item.integer = value;
  return item;
}
Item Item::of_computed(std::string value) {
  Item item = of_integer(0);
  item.name = std::move(value);
  return item;
}
Item Item::of_number(double value) {
  Item item;
  item.kind = Kind::number;
  item.real = value;
  return item;
}
Item Item::of_flag(bool value) {
  Item item;
  item.kind = Kind::boolean;
  item.integer = value;
  return item;
}
Item Item::of_list(std::vector<Item> items) {
  Item item;
  item.kind = Kind::list;
  item.items = std::move(items);
  return item;
}
Item Item::of_tensors(const std::vector<std::string>& values) {
  std::vector<Item> items;
  for (const std::string& value : values) items.push_back(of_tensor(value));
  return of_list(std::move(items));
}

Builder::Builder() { graph.opsets[""] = 23; }

std::string Builder::fresh(const std::string& stem) {
  std::string name = stem;
  while (values_.contains(name)) name = fmt::format("{}_{}", stem, ++numbers_[stem]);
  return name;
}

std::vector<std::string> Builder::add(const std::string& scope, const std::string& op, std::vector<std::string> inputs,
                                      Attributes attributes, std::size_t outputs) {
  Node node;
  node.op = op;
  node.name = fresh(scope + "/" + op);
  node.inputs = std::move(inputs);
  node.attributes = std::move(attributes);
  for (std::size_t i = 0; i < outputs; ++i)
    node.outputs.push_back(outputs == 1 ? node.name + "_output" : fmt::format("{}_output_{}", node.name, i));
  std::vector<ValueInfo> infos = infer_node(graph, values_, node);
  if (outputs == 1 && infos[0].content) {
    const std::string known = folded(infos[0]);
    if (!known.empty()) return {known};
  }
  for (std::size_t i = 0; i < outputs; ++i) values_[node.outputs[i]] = std::move(infos[i]);
  values_.try_emplace(node.name);  // taken
  graph.nodes.push_back(std::move(node));
  return graph.nodes.back().outputs;
}

/// Integers that are all known need no node.
std::string Builder::folded(const ValueInfo& info) {
  const bool known = std::all_of(info.content->begin(), info.content->end(), [](const Dim& d) { return d.known(); });
  if (!known || (info.dtype != DType::i64 && info.dtype != DType::boolean)) return {};
  Integers numbers;
  for (const Dim& d : *info.content) numbers.push_back(d.constant());
  Integers shape;
  if (info.shape.size() == 1) shape = {static_cast<std::int64_t>(numbers.size())};
  if (info.dtype == DType::i64) return constant(Tensor::of<std::int64_t>(DType::i64, shape, numbers), "integers");
  return constant(Tensor::of<std::uint8_t>(DType::boolean, shape, std::vector<std::uint8_t>(numbers.begin(), numbers.end())),
                  "flags");
}

std::string Builder::constant(Tensor tensor, const std::string& hint) {
  std::string key;
  if (tensor.bytes.size() <= 256 && tensor.dtype != DType::string) {
    key = fmt::format("{}{}:", static_cast<int>(tensor.dtype), text(Shape(tensor.shape.begin(), tensor.shape.end())));
    key.append(reinterpret_cast<const char*>(tensor.bytes.data()), tensor.bytes.size());
    // One name for equal numbers; parameters keep their own.
    const bool anonymous = hint == "integers" || hint == "flags" || hint == "number";
    if (const auto found = constants_.find(key); anonymous && found != constants_.end()) return found->second;
    if (!anonymous) key.clear();
  }
  const std::string name = fresh(hint);
  values_[name] = info_of(tensor);
  graph.initializers.emplace(name, std::move(tensor));
  if (!key.empty()) constants_[key] = name;
  return name;
}

std::string Builder::integers(const Integers& values) {
  return constant(Tensor::of<std::int64_t>(DType::i64, {static_cast<std::int64_t>(values.size())}, values), "integers");
}

std::string Builder::scalar(double value, DType type) {
  if (type == DType::i64) return constant(Tensor::of<std::int64_t>(type, {}, {static_cast<std::int64_t>(value)}), "number");
  if (type == DType::i32) return constant(Tensor::of<std::int32_t>(type, {}, {static_cast<std::int32_t>(value)}), "number");
  if (type == DType::boolean)
    return constant(Tensor::of<std::uint8_t>(type, {}, {static_cast<std::uint8_t>(value != 0)}), "number");
  if (type == DType::f64) return constant(Tensor::of<double>(type, {}, {value}), "number");
  const std::string single = constant(Tensor::of<float>(DType::f32, {}, {static_cast<float>(value)}), "number");
  if (type == DType::f32) return single;
  return add("", "Cast", {single}, {{"to", static_cast<std::int64_t>(type)}}, 1).front();
}

const ValueInfo* Builder::info(const std::string& value) const {
  const auto found = values_.find(value);
  return found == values_.end() ? nullptr : &found->second;
}

void Builder::replace(const std::string& value, Tensor tensor) {
  values_[value] = info_of(tensor);
  graph.initializers[value] = std::move(tensor);
}

void Builder::input(const Value& value) {
  if (!values_.emplace(value.name, ValueInfo{value.dtype, value.shape, std::nullopt, true, false}).second)
    throw_invalid("two inputs have the name '" + value.name + "'");
  graph.inputs.push_back(value);
}

}  // namespace espalier::torchscript
