#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/stack.h>
#include <c10/core/GradMode.h>
#include <fmt/format.h>
#include <torch/csrc/autograd/custom_function.h>

#include <utility>

#include "run/op.h"
#include "run/parallel.h"

namespace espalier {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// X as [batch, sequence, heads, head size] or [batch, heads, sequence, head size], whichever the rank says.
struct Layout {
  std::int64_t batch, sequence, heads, size, rotated;
  bool heads_first, interleaved;

  explicit Layout(const RunView& v) {
    const at::Tensor& x = v.in(0);
    heads_first = x.dim() == 4;
    if (x.dim() != 3 && x.dim() != 4) v.fail(fmt::format("the input has rank {}, expected 3 or 4", x.dim()));
    heads = heads_first ? x.size(1) : v.node.integer("num_heads", 0);
    if (heads < 1 || (!heads_first && x.size(2) % heads != 0))
      v.fail(fmt::format("num_heads = {} does not divide the input", heads));
    batch = x.size(0);
    sequence = x.size(heads_first ? 2 : 1);
    size = heads_first ? x.size(3) : x.size(2) / heads;
    rotated = v.node.integer("rotary_embedding_dim", 0);
    if (rotated == 0) rotated = size;
    if (rotated < 2 || rotated > size || rotated % 2 != 0)
      v.fail(fmt::format("{} of {} elements of a head cannot be rotated", rotated, size));
    interleaved = v.node.integer("interleaved", 0) != 0;
  }

  using Saved = ska::flat_hash_map<std::string, c10::IValue>;  // what autograd keeps for a function
  explicit Layout(const Saved& from) {
    const std::vector<std::int64_t> list = from.at("layout").toIntVector();
    batch = list.at(0), sequence = list.at(1), heads = list.at(2), size = list.at(3), rotated = list.at(4);
    heads_first = list.at(5) != 0, interleaved = list.at(6) != 0;
  }
  void save(Saved& to) const {
    to["layout"] = std::vector<std::int64_t>{batch, sequence, heads, size, rotated, heads_first, interleaved};
  }
};

/// The caches' rows for every (batch, sequence) position: numbers of rows of a [rows, half] matrix.
struct Rows {
  at::Tensor cos, sin, numbers;

  Rows(at::Tensor c, at::Tensor s, at::Tensor n) : cos(std::move(c)), sin(std::move(s)), numbers(std::move(n)) {}
  Rows(const RunView& v, const Layout& l) : cos(v.in(1)), sin(v.in(2)) {
    const std::int64_t half = l.rotated / 2;
    if (cos.sizes() != sin.sizes()) v.fail("the caches of cosines and sines differ in shape");
    if (cos.dim() < 1 || cos.size(-1) != half)
      v.fail(fmt::format("a row of the caches has {} elements, expected {}", cos.dim() < 1 ? 0 : cos.size(-1), half));
    if (!v.has(3)) {
      if (cos.dim() != 3 || cos.size(0) != l.batch || cos.size(1) != l.sequence)
        v.fail("without position_ids the caches have the shape [batch, sequence, half]");
    } else {
      if (cos.dim() != 2) v.fail("with position_ids the caches are matrices");
      if (v.in(3).dim() != 2 || v.in(3).size(0) != l.batch || v.in(3).size(1) != l.sequence)
        v.fail("position_ids do not have the shape [batch, sequence]");
      numbers = v.in(3).to(at::kLong).contiguous();
      const auto* position = numbers.const_data_ptr<std::int64_t>();
      for (std::int64_t i = 0; i < numbers.numel(); ++i)
        if (position[i] < 0 || position[i] >= cos.size(0))
          v.fail(fmt::format("position {} is outside the caches, which have {} rows", position[i], cos.size(0)));
    }
  }
  at::Tensor rows(const at::Tensor& cache, const Layout& l) const {
    const at::Tensor picked = numbers.defined() ? at::index_select(cache, 0, numbers.flatten()) : cache;
    return picked.reshape({l.batch, l.heads_first ? 1 : l.sequence, l.heads_first ? l.sequence : 1, l.rotated / 2});
  }
};

at::Tensor rotate(const at::Tensor& x, const Rows& rows, const Layout& l) {
  const std::int64_t half = l.rotated / 2;
  const at::Tensor heads = l.heads_first ? x : x.reshape({l.batch, l.sequence, l.heads, l.size});
  const at::Tensor turned = heads.slice(-1, 0, l.rotated), cos = rows.rows(rows.cos, l), sin = rows.rows(rows.sin, l);
  const at::Tensor a = l.interleaved ? turned.slice(-1, 0, l.rotated, 2) : turned.slice(-1, 0, half);
  const at::Tensor b = l.interleaved ? turned.slice(-1, 1, l.rotated, 2) : turned.slice(-1, half, l.rotated);
  const at::Tensor real = cos * a - sin * b, imaginary = sin * a + cos * b;
  at::Tensor out = l.interleaved ? at::stack({real, imaginary}, -1).flatten(-2) : at::cat({real, imaginary}, -1);
  if (l.rotated < l.size) out = at::cat({out, heads.slice(-1, l.rotated)}, -1);
  return out.reshape(x.sizes());
}

/// The same in one pass; `back` turns the other way, which is what the slopes of a rotation are.
template <class T>
at::Tensor rotate_rows(const at::Tensor& x, const Rows& rows, const Layout& l, bool back) {
  at::Tensor out = at::empty_like(x, at::MemoryFormat::Contiguous);
  const std::int64_t half = l.rotated / 2, pairs = l.interleaved ? 2 : 1, far = l.interleaved ? 1 : half;
  const T *from = x.const_data_ptr<T>(), *cosines = rows.cos.const_data_ptr<T>(), *sines = rows.sin.const_data_ptr<T>();
  const T sign = back ? -1 : 1;
  const std::int64_t* numbers = rows.numbers.defined() ? rows.numbers.const_data_ptr<std::int64_t>() : nullptr;
  T* to = out.mutable_data_ptr<T>();
  parallel_for(0, l.batch * l.sequence, 1 + 16384 / (l.heads * l.size), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t at = begin; at < end; ++at) {
      const std::int64_t row = numbers ? numbers[at] : at, batch = at / l.sequence, place = at % l.sequence;
      const T *cos = cosines + row * half, *sin = sines + row * half;
      for (std::int64_t head = 0; head < l.heads; ++head) {
        const std::int64_t start = (l.heads_first ? (batch * l.heads + head) * l.sequence + place : at * l.heads + head) * l.size;
        const T* in = from + start;
        T* result = to + start;
        for (std::int64_t i = 0; i < half; ++i) {
          const T a = in[i * pairs], b = in[i * pairs + far], s = sign * sin[i];
          result[i * pairs] = cos[i] * a - s * b;
          result[i * pairs + far] = s * a + cos[i] * b;
        }
        for (std::int64_t i = l.rotated; i < l.size; ++i) result[i] = in[i];
      }
    }
  });
  return out;
}

at::Tensor rotate_plain(const at::Tensor& x, const Rows& rows, const Layout& l, bool back = false) {
  return x.scalar_type() == at::kDouble ? rotate_rows<double>(x, rows, l, back) : rotate_rows<float>(x, rows, l, back);
}

/// A rotation is linear in x: nothing of x is kept for the backward pass.
struct Rotation : torch::autograd::Function<Rotation> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const Rows* rows, const Layout* layout) {
    context->save_for_backward({rows->cos, rows->sin, rows->numbers});
    layout->save(context->saved_data);
    return rotate_plain(x, *rows, *layout);
  }
  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const variable_list saved = context->get_saved_variables();
    return {rotate_plain(gradients[0].contiguous(), Rows(saved[0], saved[1], saved[2]), Layout(context->saved_data), true), {}, {}};
  }
};

std::vector<at::Tensor> rotary_embedding(const RunView& v) {
  const at::Tensor& x = v.in(0);
  const Layout layout(v);
  const Rows rows(v, layout);
  const bool turning = rows.cos.requires_grad() || rows.sin.requires_grad();  // the angles themselves are learned
  bool plain = x.numel() > 0 && !(c10::GradMode::is_enabled() && turning);
  for (const at::Tensor* t : {&x, &rows.cos, &rows.sin})
    plain = plain && t->device().is_cpu() && t->is_contiguous() && t->scalar_type() == x.scalar_type() &&
            (t->scalar_type() == at::kFloat || t->scalar_type() == at::kDouble);
  if (!plain) return {rotate(x, rows, layout)};
  if (c10::GradMode::is_enabled() && x.requires_grad()) return {Rotation::apply(x, &rows, &layout)};
  return {rotate_plain(x, rows, layout)};
}

const RegisterRun entry{"", "RotaryEmbedding", rotary_embedding};

}  // namespace
}  // namespace espalier
