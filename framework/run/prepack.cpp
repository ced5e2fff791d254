#include "run/prepack.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros_like.h>

#include "graph/passes.h"
#include "graph/rounded_weights.h"
#include "run/packed.h"
#include "run/tensor.h"

namespace espalier {

using Kind = PackedMatrix::Kind;

/// A constant matrix and how it is written down. Axes are those of the stored tensor.
struct Prepack::Source {
  std::string name;                ///< of the initializer
  const Tensor* stored = nullptr;  ///< numbers, or codes
  const Tensor* scale = nullptr;   ///< with codes
  const Tensor* zero = nullptr;
  std::int64_t axis = 1, block = 0;
  bool rows_stored = false;  ///< its rows are the packed matrix's rows; else its columns are
};

namespace {

/// [outputs, inputs], contiguous.
at::Tensor in_rows(const at::Tensor& stored, bool rows_stored) { return (rows_stored ? stored : stored.t()).contiguous(); }

/// Unsigned nibbles (code + 8) in blocks of 16, as PackedMatrix says.
at::Tensor nibbles(const at::Tensor& codes) {
  const at::Tensor blocks = (codes + 8).to(at::kByte).reshape({codes.size(0), codes.size(1) / 16, 2, 8});
  return (blocks.select(2, 0) + blocks.select(2, 1) * 16).to(at::kByte).reshape({codes.size(0), codes.size(1) / 2}).contiguous();
}

Tensor as_bits(const at::Tensor& halves) {
  Tensor out = from_aten(halves);
  out.dtype = DType::u16;
  return out;
}

}  // namespace

std::optional<Prepack::Source> Prepack::source(const Graph& graph, const Uses& uses, std::string value, bool rows_stored) {
  const auto matrix = [](const Tensor* t) { return t && t->shape.size() == 2 && t->count() > 0; };
  for (;;) {
    if (const Tensor* tensor = graph.initializer(value)) {
      if (!matrix(tensor) || tensor->dtype != DType::f32) return std::nullopt;
      return Source{.name = value, .stored = tensor, .rows_stored = rows_stored};
    }
    const auto producer = uses.producer_of(value);
    if (producer < 0) return std::nullopt;
    const Node& node = graph.nodes[static_cast<std::size_t>(producer)];
    if (!node.domain.empty()) return std::nullopt;
    if (node.op == "Transpose" && node.integers("perm", {1, 0}) == std::vector<std::int64_t>{1, 0}) {
      rows_stored = !rows_stored;
    } else if (node.op == "Cast") {
      const Tensor* tensor = graph.initializer(node.input(0));
      const bool half = matrix(tensor) && (tensor->dtype == DType::f16 || tensor->dtype == DType::bf16);
      if (!half || node.integer("to", 0) != static_cast<std::int64_t>(DType::f32)) return std::nullopt;
      return Source{.name = node.input(0), .stored = tensor, .rows_stored = rows_stored};
    } else if (node.op == "DequantizeLinear") {
      Source s{.name = node.input(0),
               .stored = graph.initializer(node.input(0)),
               .scale = graph.initializer(node.input(1)),
               .zero = graph.initializer(node.input(2)),
               .axis = node.integer("axis", 1),
               .block = node.integer("block_size", 0),
               .rows_stored = rows_stored};
      if (!matrix(s.stored) || !s.scale || s.scale->dtype != DType::f32 || (!node.input(2).empty() && !s.zero)) return std::nullopt;
      if (s.axis < 0) s.axis += 2;
      return s;
    } else {
      return std::nullopt;
    }
    value = node.input(0);
  }
}

Prepack::Form Prepack::make(const Source& s) {
  const at::Tensor stored = to_aten(*s.stored);
  const std::int64_t outputs = stored.size(s.rows_stored ? 0 : 1), inputs = stored.size(s.rows_stored ? 1 : 0);
  Form out;
  const auto put = [&](std::size_t slot, const char* what, Tensor tensor) {
    out.inputs[slot] = {s.name + (s.rows_stored ? "/rows" : "/columns") + what, std::move(tensor)};
  };
  const auto finish = [&](Kind kind, std::int64_t group) {
    out.attributes = {{"kind", static_cast<std::int64_t>(kind)}, {"outputs", outputs}, {"inputs", inputs}, {"group", group}};
    return out;
  };
  if (!s.scale) {
    const at::Tensor rows = in_rows(stored, s.rows_stored);
    const bool single = s.stored->dtype == DType::f32;
    put(1, "", single ? from_aten(rows) : as_bits(rows));
    return finish(single ? Kind::f32 : s.stored->dtype == DType::f16 ? Kind::f16 : Kind::bf16, 0);
  }
  const auto type = s.stored->dtype;
  const bool four = type == DType::i4 || type == DType::u4;
  if (!four && type != DType::i8 && type != DType::u8) return {};
  const std::int64_t shift = type == DType::u8 ? 128 : type == DType::u4 ? 8 : 0;  // unsigned codes become signed ones
  const std::int64_t output_axis = s.rows_stored ? 0 : 1, group = s.block > 0 ? s.block : inputs;
  // One number for each output and group.
  const auto spread = [&](const at::Tensor& t) -> at::Tensor {
    if (s.block > 0) {
      if (s.axis == output_axis || inputs % s.block != 0 || t.dim() != 2) return {};
      return in_rows(t, s.rows_stored);
    }
    if (t.numel() == 1) return at::full({outputs, 1}, t.item(), t.options());
    return s.axis == output_axis && t.numel() == outputs ? t.reshape({outputs, 1}).contiguous() : at::Tensor();
  };
  const at::Tensor scale = spread(to_aten(*s.scale));
  at::Tensor zero = spread(s.zero ? to_aten(*s.zero).to(at::kFloat) : at::zeros_like(to_aten(*s.scale)));
  if (!scale.defined() || !zero.defined()) return {};
  zero = zero - static_cast<double>(shift);
  const at::Tensor codes = in_rows((stored.to(at::kShort) - shift).to(at::kChar), s.rows_stored);
  const bool packs = four && group % 16 == 0;
  put(1, "", from_aten(packs ? nibbles(codes) : codes));
  put(2, ".scale", from_aten(scale));
  if (zero.ne(0).any().item<bool>()) put(3, ".zero", from_aten(zero));
  return finish(packs ? Kind::i4 : Kind::i8, group);
}

const Prepack::Form* Prepack::form(const Source& source) {
  const auto [at, fresh] = forms_.try_emplace(source.name + (source.rows_stored ? "/rows" : "/columns"));
  if (fresh) {
    Form made = make(source);
    if (!made.inputs.empty()) at->second = std::move(made);
  }
  return at->second ? &*at->second : nullptr;
}

Graph Prepack::apply(const Graph& given) {
  Graph graph = given;
  freeze_rounded_weights(graph);
  const Uses uses(graph);
  Graph out = graph;
  for (Node& node : out.nodes) {
    if (!node.domain.empty()) continue;
    const bool gemm =
        node.op == "Gemm" && node.integer("transA", 0) == 0 && node.number("alpha", 1) == 1 && node.number("beta", 1) == 1;
    const bool gather = node.op == "Gather" && node.integer("axis", 0) == 0;
    if (!gemm && !gather && node.op != "MatMul") continue;
    const bool rows_stored = gather || (gemm && node.integer("transB", 0) != 0);
    const auto found = source(graph, uses, node.input(gather ? 0 : 1), rows_stored);
    if (!found || (gather && !found->scale && found->stored->dtype == DType::f32)) continue;
    const Form* packed = form(*found);
    if (!packed) continue;
    std::vector<std::string> inputs{node.input(gather ? 1 : 0), "", "", "", gemm ? node.input(2) : ""};
    for (const auto& [slot, named] : packed->inputs) {
      inputs[slot] = named.first;
      out.initializers.try_emplace(named.first, named.second);
    }
    node.op = gather ? "PackedGather" : "PackedMatMul";
    node.domain = "espalier";
    node.inputs = std::move(inputs);
    node.attributes = packed->attributes;
  }
  remove_dead(out);
  return out;
}

}  // namespace espalier
