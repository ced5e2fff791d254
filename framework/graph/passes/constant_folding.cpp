#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "graph/passes/pattern.h"

namespace espalier {
namespace {

// A constant that is folded is stored: shape arithmetic and small tables, not second copies of weights.
constexpr std::uint64_t most_bytes = 1 << 20;

std::optional<std::vector<std::int64_t>> known(const ValueInfo& info) {
  if (!info.content) return std::nullopt;
  std::vector<std::int64_t> elements;
  for (const auto& dim : *info.content) {
    if (!dim.known()) return std::nullopt;
    elements.push_back(dim.value());
  }
  return elements;
}

template <class T>
Tensor store(DType type, std::vector<std::int64_t> shape, const std::vector<double>& numbers) {
  std::vector<T> out;
  out.reserve(numbers.size());
  for (auto x : numbers) out.push_back(static_cast<T>(x));
  return Tensor::of<T>(type, std::move(shape), out);
}

std::optional<Tensor> from_integers(DType type, std::vector<std::int64_t> shape, const std::vector<std::int64_t>& elements) {
  if (type == DType::i64) return Tensor::of<std::int64_t>(type, std::move(shape), elements);
  std::vector<double> numbers(elements.begin(), elements.end());
  if (type == DType::i32) return store<std::int32_t>(type, std::move(shape), numbers);
  if (type == DType::boolean) {
    std::vector<std::uint8_t> flags;
    for (auto x : elements) flags.push_back(x != 0);
    return Tensor::of<std::uint8_t>(type, std::move(shape), flags);
  }
  if (type == DType::f32) return store<float>(type, std::move(shape), numbers);
  if (type == DType::f64) return store<double>(type, std::move(shape), numbers);
  return std::nullopt;
}

bool is_integer(DType type) { return type == DType::i64 || type == DType::i32 || type == DType::boolean; }
bool is_real(DType type) { return type == DType::f32 || type == DType::f64; }

std::vector<std::int64_t> strides(const std::vector<std::int64_t>& shape) {
  std::vector<std::int64_t> result(shape.size(), 1);
  for (std::size_t i = shape.size(); i-- > 1;) result[i - 1] = result[i] * shape[i];
  return result;
}

/// What the evaluator sees of a node whose inputs are all constants and whose output shape is known.
struct Call {
  const NodeView& view;
  std::vector<const Tensor*> in;  ///< nullptr for an absent input
  std::vector<std::int64_t> shape;
  DType type;
};

/// Copies elements: out[i] = in[source(i)].
template <class Source>
std::optional<Tensor> rearrange(const Call& call, const Tensor& from, Source source) {
  const auto width = static_cast<std::size_t>(bits(from.dtype)) / 8;
  if (width == 0 || bits(from.dtype) % 8 != 0) return std::nullopt;
  std::int64_t count = 1;
  for (auto length : call.shape) count *= length;
  std::vector<std::byte> out(static_cast<std::size_t>(count) * width);
  const auto limit = from.count();
  for (std::int64_t i = 0; i < count; ++i) {
    const std::int64_t at = source(i);
    if (at < 0 || at >= limit) return std::nullopt;
    std::memcpy(out.data() + static_cast<std::size_t>(i) * width, from.bytes.data() + static_cast<std::size_t>(at) * width, width);
  }
  return Tensor::own(from.dtype, call.shape, std::move(out));
}

/// Position in a tensor of `from` (right-aligned, length 1 repeats) of element i of `to`.
std::int64_t broadcast_index(std::int64_t i, const std::vector<std::int64_t>& to, const std::vector<std::int64_t>& from) {
  std::int64_t at = 0, step = 1;
  for (std::size_t k = 0; k < to.size(); ++k) {
    const auto length = to[to.size() - 1 - k], index = i % length;
    i /= length;
    if (k >= from.size()) break;
    const auto own = from[from.size() - 1 - k];
    if (own != 1) at += index * step;
    step *= own;
  }
  return at;
}

std::optional<Tensor> transpose(const Call& call) {
  const auto& from = *call.in[0];
  std::vector<std::int64_t> reversed;
  for (std::size_t i = from.shape.size(); i-- > 0;) reversed.push_back(static_cast<std::int64_t>(i));
  const auto perm = call.view.node.integers("perm", reversed);
  if (perm.size() != from.shape.size()) return std::nullopt;
  const auto in_strides = strides(from.shape), out_strides = strides(call.shape);
  return rearrange(call, from, [&](std::int64_t i) {
    std::int64_t at = 0;
    for (std::size_t k = 0; k < perm.size(); ++k) {
      at += i / out_strides[k] * in_strides[static_cast<std::size_t>(perm[k])];
      i %= out_strides[k];
    }
    return at;
  });
}

std::optional<Tensor> concat(const Call& call) {
  const auto axis = call.view.axis("axis", 0, call.shape.size());
  std::vector<std::byte> out;
  std::size_t outer = 1;
  for (std::size_t i = 0; i < axis; ++i) outer *= static_cast<std::size_t>(call.shape[i]);
  for (const auto* part : call.in)
    if (!part || part->dtype != call.type || bits(part->dtype) % 8 != 0 ||
        part->bytes.size() % std::max<std::size_t>(outer, 1) != 0)
      return std::nullopt;
  for (std::size_t o = 0; o < outer; ++o)
    for (const auto* part : call.in) {
      const auto row = part->bytes.size() / outer;
      const auto piece = part->bytes.subspan(o * row, row);
      out.insert(out.end(), piece.begin(), piece.end());
    }
  return Tensor::own(call.type, call.shape, std::move(out));
}

std::optional<Tensor> gather(const Call& call) {
  const auto& from = *call.in[0];
  if (!call.in[1] || from.shape.empty()) return std::nullopt;
  const auto axis = call.view.axis("axis", 0, from.shape.size());
  const auto indices = call.in[1]->integers();
  const auto count = static_cast<std::int64_t>(indices.size()), length = from.shape[axis];
  const auto inner = strides(from.shape)[axis];
  if (count == 0) return std::nullopt;
  return rearrange(call, from, [&](std::int64_t i) {
    auto index = indices[static_cast<std::size_t>(i / inner % count)];
    if (index < 0) index += length;
    if (index < 0 || index >= length) return std::int64_t{-1};
    return (i / (inner * count) * length + index) * inner + i % inner;
  });
}

std::optional<Tensor> slice(const Call& call) {
  const auto& from = *call.in[0];
  const auto starts = call.view.integers(1), ends = call.view.integers(2);
  if (!starts || !ends) return std::nullopt;
  std::vector<std::int64_t> axes, steps(starts->size(), 1);
  for (std::size_t i = 0; i < starts->size(); ++i) axes.push_back(static_cast<std::int64_t>(i));
  if (call.view.has(3)) {
    const auto given = call.view.integers(3);
    if (!given) return std::nullopt;
    axes = *given;
  }
  if (call.view.has(4)) {
    const auto given = call.view.integers(4);
    if (!given) return std::nullopt;
    steps = *given;
  }
  if (axes.size() != starts->size() || steps.size() != starts->size()) return std::nullopt;
  std::vector<std::int64_t> begin(from.shape.size(), 0), step(from.shape.size(), 1);
  for (std::size_t i = 0; i < axes.size(); ++i) {
    const auto rank = static_cast<std::int64_t>(from.shape.size());
    const auto axis = static_cast<std::size_t>(axes[i] < 0 ? axes[i] + rank : axes[i]);
    if (axis >= from.shape.size() || steps[i] == 0) return std::nullopt;
    const auto length = from.shape[axis];
    const auto start = (*starts)[i] < 0 ? (*starts)[i] + length : (*starts)[i];
    begin[axis] = std::clamp<std::int64_t>(start, 0, steps[i] < 0 ? length - 1 : length);
    step[axis] = steps[i];
  }
  const auto in_strides = strides(from.shape), out_strides = strides(call.shape);
  return rearrange(call, from, [&](std::int64_t i) {
    std::int64_t at = 0;
    for (std::size_t k = 0; k < begin.size(); ++k) {
      at += (begin[k] + i / out_strides[k] * step[k]) * in_strides[k];
      i %= out_strides[k];
    }
    return at;
  });
}

std::optional<double> real(const std::string& op, double a, double b) {
  if (op == "Add") return a + b;
  if (op == "Sub") return a - b;
  if (op == "Mul") return a * b;
  if (op == "Div") return a / b;
  if (op == "Min") return std::min(a, b);
  if (op == "Max") return std::max(a, b);
  return std::nullopt;
}

std::optional<std::int64_t> integer(const std::string& op, std::int64_t a, std::int64_t b) {
  std::int64_t r = 0;
  if (op == "Add") return __builtin_add_overflow(a, b, &r) ? std::nullopt : std::optional(r);
  if (op == "Sub") return __builtin_sub_overflow(a, b, &r) ? std::nullopt : std::optional(r);
  if (op == "Mul") return __builtin_mul_overflow(a, b, &r) ? std::nullopt : std::optional(r);
  if (op == "Div") return b == 0 || (b == -1 && a == INT64_MIN) ? std::nullopt : std::optional(a / b);
  if (op == "Min") return std::min(a, b);
  if (op == "Max") return std::max(a, b);
  return std::nullopt;
}

std::optional<Tensor> binary(const Call& call) {
  const auto& node = call.view.node;
  if (call.in.size() != 2 || !call.in[0] || !call.in[1] || call.in[0]->dtype != call.type || call.in[1]->dtype != call.type)
    return std::nullopt;
  const auto& a = *call.in[0];
  const auto& b = *call.in[1];
  std::int64_t count = 1;
  for (auto length : call.shape) count *= length;
  const auto each = [&](const auto& left, const auto& right, auto operation) {
    using Number = std::decay_t<decltype(left.front())>;
    std::optional<std::vector<Number>> out(std::in_place);
    for (std::int64_t i = 0; i < count && out; ++i) {
      const auto r = operation(node.op, left[static_cast<std::size_t>(broadcast_index(i, call.shape, a.shape))],
                               right[static_cast<std::size_t>(broadcast_index(i, call.shape, b.shape))]);
      if (r)
        out->push_back(*r);
      else
        out.reset();
    }
    return out;
  };
  if (call.type == DType::i64 || call.type == DType::i32) {
    const auto out = each(a.integers(), b.integers(), integer);
    const bool fits = out && (call.type == DType::i64 ||
                              std::all_of(out->begin(), out->end(), [](auto x) { return x == static_cast<std::int32_t>(x); }));
    return fits ? from_integers(call.type, call.shape, *out) : std::nullopt;
  }
  if (!is_real(call.type)) return std::nullopt;
  // Rounding f64 to f32 once more gives the f32 result of + - * / exactly.
  const auto out = each(a.numbers(), b.numbers(), real);
  if (!out) return std::nullopt;
  return call.type == DType::f32 ? store<float>(call.type, call.shape, *out) : store<double>(call.type, call.shape, *out);
}

std::optional<Tensor> unary(const Call& call, double (*function)(double)) {
  if (!is_real(call.type) || call.in[0]->dtype != call.type) return std::nullopt;
  auto numbers = call.in[0]->numbers();
  for (auto& x : numbers) x = function(x);
  return call.type == DType::f32 ? store<float>(call.type, call.shape, numbers) : store<double>(call.type, call.shape, numbers);
}

std::optional<Tensor> cast(const Call& call) {
  const auto from = call.in[0]->dtype;
  if (from == call.type) return *call.in[0];
  // Weights stored narrower than they are computed with: that is what makes the file small.
  if (is_floating(from) && is_floating(call.type) && bits(from) < bits(call.type) && call.in[0]->count() > 1) return std::nullopt;
  if (is_integer(from) && (is_integer(call.type) || is_real(call.type))) {
    const auto elements = call.in[0]->integers();
    const bool fits = call.type != DType::i32 ||
                      std::all_of(elements.begin(), elements.end(), [](auto x) { return x == static_cast<std::int32_t>(x); });
    return fits ? from_integers(call.type, call.shape, elements) : std::nullopt;
  }
  if (!is_floating(from) || bits(from) < 16) return std::nullopt;
  const auto numbers = call.in[0]->numbers();
  if (call.type == DType::f32) return store<float>(call.type, call.shape, numbers);
  if (call.type == DType::f64) return store<double>(call.type, call.shape, numbers);
  if (!is_integer(call.type) || call.type == DType::boolean) return std::nullopt;
  std::vector<std::int64_t> elements;
  const double limit = call.type == DType::i32 ? 2147483000.0 : 9.0e18;
  for (auto x : numbers) {
    if (!(std::abs(x) < limit)) return std::nullopt;
    elements.push_back(static_cast<std::int64_t>(x));
  }
  return from_integers(call.type, call.shape, elements);
}

std::optional<Tensor> evaluate(const Call& call) {
  const auto& op = call.view.node.op;
  if (op == "Concat") return concat(call);
  if (call.in.empty() || !call.in[0]) return std::nullopt;
  if (op == "Identity" || op == "Reshape" || op == "Flatten" || op == "Squeeze" || op == "Unsqueeze") {
    Tensor same = *call.in[0];
    same.shape = call.shape;
    return same;
  }
  if (op == "Transpose") return transpose(call);
  if (op == "Gather") return gather(call);
  if (op == "Slice") return slice(call);
  if (op == "Expand")
    return rearrange(call, *call.in[0], [&](std::int64_t i) { return broadcast_index(i, call.shape, call.in[0]->shape); });
  if (op == "Cast") return cast(call);
  if (op == "Neg") return unary(call, [](double x) { return -x; });
  if (op == "Abs") return unary(call, [](double x) { return std::abs(x); });
  if (op == "Sqrt") return unary(call, [](double x) { return std::sqrt(x); });
  if (op == "Reciprocal") return unary(call, [](double x) { return 1.0 / x; });
  return binary(call);
}

std::optional<Tensor> fold(const Pattern& p, const std::map<std::string, Tensor>& folded, const Node& node) {
  if (!node.domain.empty() || node.outputs.size() != 1) return std::nullopt;
  const auto found = p.values.find(node.outputs[0]);
  if (found == p.values.end() || !found->second.rank_known) return std::nullopt;
  const auto& info = found->second;
  const auto count = element_count(info.shape);
  std::vector<std::int64_t> shape;
  for (const auto& dim : info.shape) shape.push_back(dim.value_or(-1));
  if (!count || *count <= 0 || bits(info.dtype) == 0 || byte_size(info.dtype, *count) > most_bytes) return std::nullopt;
  if (const auto elements = known(info); elements && is_integer(info.dtype)) return from_integers(info.dtype, shape, *elements);
  const NodeView view{p.graph, node, p.values};
  Call call{view, {}, shape, info.dtype};
  for (const auto& input : node.inputs) {
    const auto earlier = folded.find(input);
    call.in.push_back(earlier != folded.end() ? &earlier->second : p.graph.initializer(input));
    if (!call.in.back() && !input.empty()) return std::nullopt;
  }
  if (call.in.empty()) return std::nullopt;
  if (node.op == "Transpose" && !p.read_once(node.inputs[0])) return std::nullopt;  // a tied weight stays one
  for (const auto* tensor : call.in)
    if (tensor && (tensor->dtype == DType::string || tensor->count() == 0)) return std::nullopt;
  return evaluate(call);
}

std::int64_t run(Graph& graph, std::vector<std::string>& notes) {
  std::map<std::string, Tensor> folded;
  {
    const Pattern p(graph);
    for (const auto& node : graph.nodes) {
      const bool border =
          std::any_of(graph.outputs.begin(), graph.outputs.end(), [&](const Value& v) { return v.name == node.output(0); });
      if (border) continue;
      if (auto tensor = fold(p, folded, node)) folded[node.outputs[0]] = std::move(*tensor);
    }
  }
  if (folded.empty()) return 0;
  std::erase_if(graph.nodes, [&](const Node& node) { return node.outputs.size() == 1 && folded.contains(node.outputs[0]); });
  const auto count = folded.size();
  for (auto& [name, tensor] : folded) graph.initializers[name] = std::move(tensor);
  remove_dead(graph);
  notes.push_back(fmt::format("computed {} values that depend on constants alone", count));
  return static_cast<std::int64_t>(count);
}

const RegisterPass registered(10, {"constant-folding", "computes what depends on constants alone", run});

}  // namespace
}  // namespace espalier
