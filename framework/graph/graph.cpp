#include "graph/graph.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <queue>
#include <unordered_map>
#include <unordered_set>

#include "sdk/error.h"

namespace espalier {
namespace {

const std::string kNone;

std::string label(const Node& node) { return "node '" + node.name + "' (" + node.op + ")"; }

template <class T>
const T* find_attribute(const Node& node, std::string_view name, const char* wanted) {
  auto it = node.attributes.find(std::string(name));
  if (it == node.attributes.end()) return nullptr;
  const T* value = std::get_if<T>(&it->second);
  if (!value) throw_invalid("attribute " + std::string(name) + " is not " + wanted, label(node));
  return value;
}

double half_to_double(std::uint16_t h) {
  const int exponent = (h >> 10) & 31;
  const double fraction = h & 1023, sign = h & 0x8000 ? -1.0 : 1.0;
  if (exponent == 0) return sign * std::ldexp(fraction, -24);
  if (exponent == 31)
    return fraction != 0 ? std::numeric_limits<double>::quiet_NaN() : sign * std::numeric_limits<double>::infinity();
  return sign * std::ldexp(1024 + fraction, exponent - 25);
}

/// Reads element i of the bytes, aligned or not.
template <class T>
T element(const Tensor& tensor, std::int64_t i) {
  T value;
  std::memcpy(&value, tensor.bytes.data() + static_cast<std::size_t>(i) * sizeof(T), sizeof(T));
  return value;
}

template <class T, class Out, class Convert>
std::vector<Out> convert(const Tensor& tensor, Convert one) {
  const std::int64_t n = tensor.count();
  if (byte_size(tensor.dtype, n) != tensor.bytes.size()) throw_invalid("a tensor's bytes do not fit its shape");
  std::vector<Out> out(static_cast<std::size_t>(n));
  for (std::int64_t i = 0; i < n; ++i) out[static_cast<std::size_t>(i)] = one(element<T>(tensor, i));
  return out;
}

void collect_captures(const Graph& body, std::vector<std::string>& out, int depth);

void collect_captures(const Node& node, std::vector<std::string>& out, int depth) {
  for (const auto& [name, value] : node.attributes) {
    if (auto* one = std::get_if<std::shared_ptr<Graph>>(&value); one && *one) collect_captures(**one, out, depth);
    if (auto* many = std::get_if<std::vector<std::shared_ptr<Graph>>>(&value))
      for (const auto& g : *many)
        if (g) collect_captures(*g, out, depth);
  }
}

void collect_captures(const Graph& body, std::vector<std::string>& out, int depth) {
  if (depth > 64) throw_invalid("subgraphs are nested more than 64 deep", body.name);
  std::unordered_set<std::string> own;
  for (const auto& v : body.inputs) own.insert(v.name);
  for (const auto& [name, tensor] : body.initializers) own.insert(name);
  for (const auto& node : body.nodes)
    for (const auto& o : node.outputs) own.insert(o);
  std::vector<std::string> used;
  for (const auto& node : body.nodes) {
    used.insert(used.end(), node.inputs.begin(), node.inputs.end());
    collect_captures(node, used, depth + 1);
  }
  for (const auto& v : body.outputs) used.push_back(v.name);
  for (auto& name : used)
    if (!name.empty() && !own.contains(name)) out.push_back(std::move(name));
}

/// Everything a node waits for: its inputs and what its subgraphs capture.
std::vector<std::string> needed(const Node& node) {
  std::vector<std::string> out = node.inputs;
  for (auto& name : captures(node)) out.push_back(std::move(name));
  std::erase(out, "");
  return out;
}

}  // namespace

std::int64_t Tensor::count() const {
  Shape dims(shape.begin(), shape.end());
  for (auto d : shape)
    if (d < 0) throw_invalid("a tensor has the negative dimension " + std::to_string(d));
  return *element_count(dims);
}

const Digest& Tensor::digest() const {
  if (!known) {
    if (dtype == DType::string) {
      KeyEncoder encoder;
      for (const auto& s : strings) encoder.text(s);
      known = encoder.finish();
    } else {
      known = sha256(bytes);
    }
  }
  return *known;
}

Tensor Tensor::own(DType dtype, std::vector<std::int64_t> shape, std::vector<std::byte> bytes) {
  auto kept = std::make_shared<const std::vector<std::byte>>(std::move(bytes));
  Tensor t;
  t.dtype = dtype;
  t.shape = std::move(shape);
  t.bytes = {kept->data(), kept->size()};
  t.owner = std::move(kept);
  if (byte_size(dtype, t.count()) != t.bytes.size())
    throw Error(ErrorCode::internal, std::to_string(t.bytes.size()) + " bytes do not fit a " + std::string(to_string(dtype)) +
                                         " tensor of " + std::to_string(t.count()) + " elements");
  return t;
}

void Tensor::require(std::size_t size, std::size_t align) const {
  if (size * static_cast<std::uint64_t>(count()) != bytes.size() || reinterpret_cast<std::uintptr_t>(bytes.data()) % align != 0)
    throw Error(ErrorCode::internal, "a " + std::string(to_string(dtype)) + " tensor of " + std::to_string(bytes.size()) +
                                         " bytes is read as elements of " + std::to_string(size) + " bytes");
}

std::vector<std::int64_t> Tensor::integers() const {
  auto same = [](auto v) { return static_cast<std::int64_t>(v); };
  switch (dtype) {
    case DType::i64:
      return convert<std::int64_t, std::int64_t>(*this, same);
    case DType::i32:
      return convert<std::int32_t, std::int64_t>(*this, same);
    case DType::boolean:
      return convert<std::uint8_t, std::int64_t>(*this, [](std::uint8_t v) { return std::int64_t{v != 0}; });
    default:
      throw_invalid("a tensor of type " + std::string(to_string(dtype)) + " is read as integers");
  }
}

std::vector<double> Tensor::numbers() const {
  auto same = [](auto v) { return static_cast<double>(v); };
  switch (dtype) {
    case DType::f32:
      return convert<float, double>(*this, same);
    case DType::f64:
      return convert<double, double>(*this, same);
    case DType::f16:
      return convert<std::uint16_t, double>(*this, half_to_double);
    case DType::bf16:
      return convert<std::uint16_t, double>(
          *this, [](std::uint16_t v) { return static_cast<double>(std::bit_cast<float>(std::uint32_t{v} << 16)); });
    default:
      throw_invalid("a tensor of type " + std::string(to_string(dtype)) + " is read as numbers");
  }
}

std::int64_t Node::integer(std::string_view attribute, std::int64_t fallback) const {
  auto* v = find_attribute<std::int64_t>(*this, attribute, "an integer");
  return v ? *v : fallback;
}

double Node::number(std::string_view attribute, double fallback) const {
  auto* v = find_attribute<double>(*this, attribute, "a number");
  return v ? *v : fallback;
}

std::string Node::text(std::string_view attribute, std::string fallback) const {
  auto* v = find_attribute<std::string>(*this, attribute, "a string");
  return v ? *v : std::move(fallback);
}

std::vector<std::int64_t> Node::integers(std::string_view attribute, std::vector<std::int64_t> fallback) const {
  auto* v = find_attribute<std::vector<std::int64_t>>(*this, attribute, "a list of integers");
  return v ? *v : std::move(fallback);
}

bool Node::has(std::string_view attribute) const { return attributes.contains(std::string(attribute)); }
const std::string& Node::input(std::size_t i) const { return i < inputs.size() ? inputs[i] : kNone; }
const std::string& Node::output(std::size_t i) const { return i < outputs.size() ? outputs[i] : kNone; }

std::vector<std::string> captures(const Node& node) {
  std::vector<std::string> out;
  collect_captures(node, out, 0);
  std::sort(out.begin(), out.end());
  out.erase(std::unique(out.begin(), out.end()), out.end());
  return out;
}

std::vector<std::string> captures(const Graph& body) {
  std::vector<std::string> out;
  collect_captures(body, out, 0);
  std::sort(out.begin(), out.end());
  out.erase(std::unique(out.begin(), out.end()), out.end());
  return out;
}

const Tensor* Graph::initializer(const std::string& name) const {
  auto it = initializers.find(name);
  return it == initializers.end() ? nullptr : &it->second;
}

std::int64_t Graph::opset(const std::string& domain) const {
  auto it = opsets.find(domain == "ai.onnx" ? "" : domain);
  if (it == opsets.end() && (domain.empty() || domain == "ai.onnx")) it = opsets.find("ai.onnx");
  return it == opsets.end() ? 0 : it->second;
}

std::int64_t Graph::parameter_count() const {
  // What an initializer is follows from how it is read: the scales and zero points of quantized weights and the tables of rotary
  // embeddings are no parameters, the integers under a DequantizeLinear are.
  std::unordered_set<std::string_view> weights, side;
  for (const Node& node : nodes) {
    const bool quantized = node.op == "DequantizeLinear" || node.op == "QuantizeLinear", rotary = node.op == "RotaryEmbedding";
    for (std::size_t i = 0; i < node.inputs.size(); ++i) ((quantized || rotary) && i > 0 ? side : weights).insert(node.inputs[i]);
  }
  std::unordered_set<std::string_view> dequantized;
  for (const Node& node : nodes)
    if (node.op == "DequantizeLinear") dequantized.insert(node.input(0));
  std::int64_t sum = 0;
  for (const auto& [name, tensor] : initializers) {
    if (!is_floating(tensor.dtype) && !dequantized.contains(name)) continue;
    if (side.contains(name) && !weights.contains(name)) continue;
    const std::int64_t n = tensor.count();
    if (n > 1 && __builtin_add_overflow(sum, n, &sum)) throw_invalid("the parameters overflow 64 bits", name);
  }
  return sum;
}

std::uint64_t Graph::weight_bytes() const {
  std::uint64_t sum = 0;
  for (const auto& [name, tensor] : initializers) sum += tensor.bytes.size();
  return sum;
}

std::string Graph::fresh(const std::string& stem) const {
  std::unordered_set<std::string_view> taken;
  for (const auto& v : inputs) taken.insert(v.name);
  for (const auto& v : outputs) taken.insert(v.name);
  for (const auto& node : nodes) {
    taken.insert(node.outputs.begin(), node.outputs.end());
    taken.insert(node.inputs.begin(), node.inputs.end());
  }
  if (!stem.empty() && !taken.contains(stem) && !initializers.contains(stem)) return stem;
  for (std::int64_t i = 1;; ++i) {
    std::string name = (stem.empty() ? "value" : stem) + "_" + std::to_string(i);
    if (!taken.contains(name) && !initializers.contains(name)) return name;
  }
}

void Graph::sort() {
  std::unordered_map<std::string_view, std::size_t> maker;
  for (std::size_t n = 0; n < nodes.size(); ++n) {
    for (const auto& o : nodes[n].outputs)
      if (!o.empty() && !maker.emplace(o, n).second) throw_invalid("'" + o + "' is also made by another node", label(nodes[n]));
  }
  std::unordered_set<std::string_view> given;
  for (const auto& v : inputs) given.insert(v.name);
  std::vector<std::vector<std::size_t>> readers(nodes.size());
  std::vector<std::size_t> waiting(nodes.size(), 0);
  for (std::size_t n = 0; n < nodes.size(); ++n) {
    for (const auto& name : needed(nodes[n])) {
      if (auto it = maker.find(name); it != maker.end()) {
        readers[it->second].push_back(n);
        ++waiting[n];
      } else if (!given.contains(name) && !initializers.contains(name)) {
        throw_invalid("input '" + name + "' is made by no node and is no input or initializer", label(nodes[n]));
      }
    }
  }
  std::priority_queue<std::size_t, std::vector<std::size_t>, std::greater<>> ready;
  for (std::size_t n = 0; n < nodes.size(); ++n)
    if (waiting[n] == 0) ready.push(n);
  std::vector<std::size_t> order;
  while (!ready.empty()) {
    const std::size_t n = ready.top();
    ready.pop();
    order.push_back(n);
    for (std::size_t r : readers[n])
      if (--waiting[r] == 0) ready.push(r);
  }
  if (order.size() != nodes.size()) {
    const auto stuck = std::find_if(waiting.begin(), waiting.end(), [](std::size_t w) { return w > 0; });
    throw_invalid("the node waits for its own output (a cycle)", label(nodes[static_cast<std::size_t>(stuck - waiting.begin())]));
  }
  std::vector<Node> sorted;
  sorted.reserve(nodes.size());
  for (std::size_t n : order) sorted.push_back(std::move(nodes[n]));
  nodes = std::move(sorted);
}

void Graph::validate() const {
  std::unordered_set<std::string_view> defined, names;
  for (const auto& v : inputs) {
    if (v.name.empty()) throw_invalid("a graph input has no name", name);
    if (!defined.insert(v.name).second) throw_invalid("the input is defined twice", "'" + v.name + "'");
  }
  for (const auto& [key, tensor] : initializers) {
    if (key.empty()) throw_invalid("an initializer has no name", name);
    if (!defined.insert(key).second) throw_invalid("the initializer is also an input", "'" + key + "'");
    try {
      const std::int64_t n = tensor.count();
      if (tensor.dtype == DType::string ? tensor.strings.size() != static_cast<std::size_t>(n)
                                        : byte_size(tensor.dtype, n) != tensor.bytes.size())
        throw_invalid("the bytes do not fit the shape: " + std::to_string(n) + " elements of " +
                      std::string(to_string(tensor.dtype)) + " in " + std::to_string(tensor.bytes.size()) + " bytes");
    } catch (const Error& e) {
      throw Error(e.code(), e.message(), "initializer '" + key + "'", e.hint());
    }
  }
  for (const Node& node : nodes) {
    if (node.op.empty()) throw_invalid("the node names no operator", label(node));
    if (!node.name.empty() && !names.insert(node.name).second) throw_invalid("another node has the same name", label(node));
    for (const auto& i : needed(node))
      if (!defined.contains(i)) throw_invalid("input '" + i + "' is not defined before the node", label(node));
    for (const auto& o : node.outputs)
      if (!o.empty() && !defined.insert(o).second) throw_invalid("output '" + o + "' is defined twice", label(node));
  }
  for (const auto& v : outputs)
    if (!defined.contains(v.name)) throw_invalid("no node makes this output of the graph", "'" + v.name + "'");
}

Uses::Uses(const Graph& graph) {
  for (std::size_t n = 0; n < graph.nodes.size(); ++n) {
    const Node& node = graph.nodes[n];
    for (const auto& o : node.outputs)
      if (!o.empty()) producer.emplace(o, n);
    for (std::size_t i = 0; i < node.inputs.size(); ++i)
      if (!node.inputs[i].empty()) readers[node.inputs[i]].push_back({n, i});
  }
}

std::ptrdiff_t Uses::producer_of(const std::string& value) const {
  auto it = producer.find(value);
  return it == producer.end() ? -1 : static_cast<std::ptrdiff_t>(it->second);
}

const std::vector<Uses::Reader>& Uses::readers_of(const std::string& value) const {
  static const std::vector<Reader> none;
  auto it = readers.find(value);
  return it == readers.end() ? none : it->second;
}

}  // namespace espalier
