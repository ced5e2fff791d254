#include "graph/rounded_weights.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "graph/passes.h"
#include "sdk/error.h"

namespace espalier {
namespace {

bool is_code(DType type) { return type == DType::i8 || type == DType::u8 || type == DType::i4 || type == DType::u4; }

bool same_bytes(const Tensor* a, const Tensor* b) {
  return a == b || (a && b && a->dtype == b->dtype && a->shape == b->shape && a->digest() == b->digest());
}

bool is_output(const Graph& graph, const std::string& name) {
  return std::any_of(graph.outputs.begin(), graph.outputs.end(), [&](const Value& v) { return v.name == name; });
}

/// The type of a QuantizeLinear's codes.
DType code_type(const Graph& graph, const Node& quantize) {
  if (const Tensor* zero = graph.initializer(quantize.input(2))) return zero->dtype;
  const auto stated = quantize.integer("output_dtype", 0);
  return stated == 0 ? DType::u8 : static_cast<DType>(stated);
}

/// Which element of scale and zero point belongs to an element of the weight.
class Shares {
 public:
  Shares(const Tensor& weight, const Tensor& scale, std::int64_t axis, std::int64_t block) : single_(scale.count() == 1) {
    if (single_) return;
    const auto rank = static_cast<std::int64_t>(weight.shape.size());
    if (axis < 0) axis += rank;
    if (axis < 0 || axis >= rank) throw_invalid(fmt::format("axis {} of a weight of rank {}", axis, rank));
    length_ = weight.shape[static_cast<std::size_t>(axis)];
    for (auto d = static_cast<std::size_t>(axis) + 1; d < weight.shape.size(); ++d) inner_ *= weight.shape[d];
    block_ = block;
    blocks_ = block > 0 ? (length_ + block - 1) / block : length_;
    const std::int64_t expected = block > 0 ? weight.count() / std::max<std::int64_t>(length_, 1) * blocks_ : length_;
    if (scale.count() != expected) throw_invalid(fmt::format("{} scales, expected {}", scale.count(), expected));
  }
  std::size_t operator()(std::int64_t i) const {
    if (single_) return 0;
    const std::int64_t along = i / inner_ % length_;
    if (block_ == 0) return static_cast<std::size_t>(along);
    return static_cast<std::size_t>((i / inner_ / length_ * blocks_ + along / block_) * inner_ + i % inner_);
  }

 private:
  bool single_;
  std::int64_t length_ = 1, inner_ = 1, block_ = 0, blocks_ = 1;
};

/// Integers of an 8- or 4-bit tensor; the first of a pair of nibbles lies in the low half.
std::vector<float> code_numbers(const Tensor& tensor) {
  std::vector<float> out(static_cast<std::size_t>(tensor.count()));
  const bool with_sign = tensor.dtype == DType::i8 || tensor.dtype == DType::i4;
  for (std::size_t i = 0; i < out.size(); ++i) {
    int code = bits(tensor.dtype) == 8
                   ? static_cast<int>(tensor.bytes[i])
                   : static_cast<int>(i % 2 == 0 ? tensor.bytes[i / 2] & std::byte{15} : tensor.bytes[i / 2] >> 4);
    const int half = 1 << (bits(tensor.dtype) - 1);
    if (with_sign && code >= half) code -= 2 * half;
    out[i] = static_cast<float>(code);
  }
  return out;
}

/// The codes of `weight`, packed as ONNX packs them; adds up the errors.
Tensor codes_of(const Graph& graph, const Node& quantize, FrozenWeight& report) {
  const Tensor &weight = *graph.initializer(quantize.input(0)), &scale = *graph.initializer(quantize.input(1));
  const DType type = code_type(graph, quantize);
  const int width = bits(type);
  const bool with_sign = type == DType::i8 || type == DType::i4;
  const float low = with_sign ? static_cast<float>(-(1 << (width - 1))) : 0,
              high = static_cast<float>(with_sign ? (1 << (width - 1)) - 1 : (1 << width) - 1);
  const Tensor* zero = graph.initializer(quantize.input(2));
  const std::vector<float> zeros = zero ? code_numbers(*zero) : std::vector<float>(static_cast<std::size_t>(scale.count()), 0);
  const auto values = weight.as<float>(), scales = scale.as<float>();
  const Shares share(weight, scale, quantize.integer("axis", 1), report.block);
  if (zeros.size() != scales.size()) throw_invalid(fmt::format("{} zero points for {} scales", zeros.size(), scales.size()));
  std::vector<std::byte> bytes((values.size() * static_cast<std::size_t>(width) + 7) / 8);
  for (std::size_t i = 0; i < values.size(); ++i) {
    const std::size_t s = share(static_cast<std::int64_t>(i));
    const float scaled = values[i] / scales[s];
    if (!std::isfinite(scaled))
      throw_invalid(fmt::format("element {} is {} with the scale {}, so it has no code", i, values[i], scales[s]),
                    quantize.input(0), "look at how the model was trained");
    const float code = std::clamp(std::nearbyint(scaled) + zeros[s], low, high);
    const double off = static_cast<double>(code - zeros[s]) * static_cast<double>(scales[s]) - static_cast<double>(values[i]);
    report.squared_error += off * off;
    report.squared += static_cast<double>(values[i]) * static_cast<double>(values[i]);
    const auto bits_of_code = static_cast<std::byte>(static_cast<int>(code));
    if (width == 8)
      bytes[i] = bits_of_code;
    else
      bytes[i / 2] |= i % 2 == 0 ? bits_of_code & std::byte{15} : bits_of_code << 4;
  }
  return Tensor::own(type, weight.shape, std::move(bytes));
}

}  // namespace

std::optional<RoundedWeight> rounded_weight(const Graph& graph, const Uses& uses, const std::string& value) {
  const auto maker = [&](const std::string& name, const char* op) -> std::ptrdiff_t {
    const auto at = uses.producer_of(name);
    if (at < 0) return -1;
    const Node& node = graph.nodes[static_cast<std::size_t>(at)];
    return node.op == op && node.domain.empty() ? at : -1;
  };
  const auto second = maker(value, "DequantizeLinear");
  if (second < 0) return std::nullopt;
  const Node& dequantize = graph.nodes[static_cast<std::size_t>(second)];
  const auto first = maker(dequantize.input(0), "QuantizeLinear");
  if (first < 0) return std::nullopt;
  const Node& quantize = graph.nodes[static_cast<std::size_t>(first)];
  const Tensor *weight = graph.initializer(quantize.input(0)), *scale = graph.initializer(quantize.input(1));
  if (!weight || weight->dtype != DType::f32 || !scale || scale->dtype != DType::f32) return std::nullopt;
  if (!same_bytes(scale, graph.initializer(dequantize.input(1)))) return std::nullopt;
  const Tensor *zero = graph.initializer(quantize.input(2)), *other = graph.initializer(dequantize.input(2));
  if (quantize.input(2).empty() != !zero || dequantize.input(2).empty() != !other || !same_bytes(zero, other)) return std::nullopt;
  for (const auto& [attribute, fallback] : {std::pair("axis", 1), {"block_size", 0}})
    if (quantize.integer(attribute, fallback) != dequantize.integer(attribute, fallback)) return std::nullopt;
  if (!is_code(code_type(graph, quantize))) return std::nullopt;
  const auto& codes = quantize.output(0);
  if (uses.readers_of(codes).size() != 1 || is_output(graph, codes)) return std::nullopt;
  return RoundedWeight{quantize.input(0), value, static_cast<std::size_t>(first), static_cast<std::size_t>(second)};
}

std::vector<RoundedWeight> rounded_weights(const Graph& graph) {
  const Uses uses(graph);
  std::vector<RoundedWeight> found;
  for (const Node& node : graph.nodes)
    if (node.op == "DequantizeLinear" && node.domain.empty())
      if (auto rounded = rounded_weight(graph, uses, node.output(0))) found.push_back(std::move(*rounded));
  return found;
}

std::vector<FrozenWeight> freeze_rounded_weights(Graph& graph) {
  std::vector<FrozenWeight> reports;
  const auto found = rounded_weights(graph);
  for (const RoundedWeight& rounded : found) {
    FrozenWeight report{.weight = rounded.weight, .block = graph.nodes[rounded.quantize].integer("block_size", 0)};
    Tensor codes = codes_of(graph, graph.nodes[rounded.quantize], report);
    const auto name = graph.fresh(rounded.weight + ".q");
    Node& dequantize = graph.nodes[rounded.dequantize];
    dequantize.inputs[0] = name;
    report.bits = bits(codes.dtype);
    report.count = codes.count();
    report.bytes = codes.bytes.size();
    for (const std::size_t slot : {1u, 2u})
      if (const Tensor* beside = graph.initializer(dequantize.input(slot))) report.bytes += beside->bytes.size();
    graph.initializers.emplace(name, std::move(codes));
    reports.push_back(std::move(report));
  }
  if (found.empty()) return reports;
  remove_dead(graph);
  // Where nothing else reads the numbers, what is made of the codes takes their name, as in a model that was rounded once.
  const Uses uses(graph);
  std::set<std::string> renamed;  // a weight may have more than one pair
  for (const RoundedWeight& rounded : found) {
    const auto maker = uses.producer_of(rounded.value);
    if (maker < 0 || graph.initializer(rounded.weight) || is_output(graph, rounded.value)) continue;
    if (!renamed.insert(rounded.weight).second) continue;
    replace_uses(graph, rounded.value, rounded.weight);
    graph.nodes[static_cast<std::size_t>(maker)].outputs[0] = rounded.weight;
  }
  return reports;
}

}  // namespace espalier
