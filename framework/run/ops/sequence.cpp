#include <ATen/ops/cat.h>
#include <ATen/ops/scalar_tensor.h>
#include <ATen/ops/split_with_sizes.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/unbind.h>
#include <fmt/format.h>

#include "run/op.h"

namespace espalier {
namespace {

using Values = std::vector<RunValue>;
using Tensors = std::vector<at::Tensor>;

/// A place in a sequence, counted from the end where negative; `ends` allows the place after the last.
std::size_t place(const ValuesView& v, std::size_t input, std::size_t length, bool ends) {
  const std::int64_t n = static_cast<std::int64_t>(length), given = v.integer(input);
  const std::int64_t at = given < 0 ? given + n : given;
  if (at < 0 || at > n || (at == n && !ends)) v.fail(fmt::format("position {} is outside a sequence of {} elements", given, n));
  return static_cast<std::size_t>(at);
}

std::int64_t wrapped(const ValuesView& v, std::int64_t axis, std::int64_t rank) {
  if (axis < -rank || axis >= rank) v.fail(fmt::format("axis {} is outside a tensor of rank {}", axis, rank));
  return axis < 0 ? axis + rank : axis;
}

Values construct(const ValuesView& v) {
  Tensors elements;
  for (std::size_t i = 0; i < v.inputs.size(); ++i) elements.push_back(v.tensor(i));
  return {RunValue(std::move(elements))};
}

Values empty(const ValuesView&) { return {RunValue(Tensors())}; }

Values insert(const ValuesView& v) {
  Tensors elements = v.sequence(0);
  const std::size_t at = v.has(2) ? place(v, 2, elements.size(), true) : elements.size();
  elements.insert(elements.begin() + static_cast<std::ptrdiff_t>(at), v.tensor(1));
  return {RunValue(std::move(elements))};
}

Values erase(const ValuesView& v) {
  Tensors elements = v.sequence(0);
  if (elements.empty()) v.fail("the sequence is empty");
  const std::size_t at = v.has(1) ? place(v, 1, elements.size(), false) : elements.size() - 1;
  elements.erase(elements.begin() + static_cast<std::ptrdiff_t>(at));
  return {RunValue(std::move(elements))};
}

Values at_place(const ValuesView& v) { return {v.sequence(0)[place(v, 1, v.sequence(0).size(), false)]}; }

Values length(const ValuesView& v) { return {at::scalar_tensor(static_cast<std::int64_t>(v.sequence(0).size()), at::kLong)}; }

/// A scalar `split` gives pieces of that length and a shorter last one; a list gives a piece each; none, slices.
Values split(const ValuesView& v) {
  const at::Tensor& x = v.tensor(0);
  const std::int64_t axis = wrapped(v, v.node.integer("axis", 0), x.dim()), whole = x.size(axis);
  if (!v.has(1)) {
    Tensors slices = at::unbind(x, axis);
    if (v.node.integer("keepdims", 1) != 0)
      for (at::Tensor& slice : slices) slice = slice.unsqueeze(axis);
    return {RunValue(std::move(slices))};
  }
  std::vector<std::int64_t> sizes;
  if (v.tensor(1).dim() == 0) {
    const std::int64_t piece = v.integer(1);
    if (piece < 1) v.fail(fmt::format("pieces of {} elements", piece));
    for (std::int64_t begin = 0; begin < whole; begin += piece) sizes.push_back(std::min(piece, whole - begin));
  } else {
    const at::Tensor list = v.tensor(1).to(at::kLong).contiguous();
    std::int64_t left = whole;
    for (std::int64_t i = 0; i < list.numel(); ++i) {
      sizes.push_back(list.const_data_ptr<std::int64_t>()[i]);
      if (sizes.back() < 0 || sizes.back() > left) v.fail(fmt::format("piece {} of {} elements does not fit", i, sizes.back()));
      left -= sizes.back();
    }
    if (left != 0) v.fail(fmt::format("the pieces leave {} of {} elements over", left, whole));
  }
  return {RunValue(at::split_with_sizes(x, sizes, axis))};
}

Values concat(const ValuesView& v) {
  const Tensors& elements = v.sequence(0);
  if (elements.empty()) v.fail("an empty sequence has nothing to concatenate");
  const bool fresh = v.node.integer("new_axis", 0) != 0;
  const std::int64_t axis = wrapped(v, v.node.integer("axis", 0), elements.front().dim() + (fresh ? 1 : 0));
  return {fresh ? at::stack(elements, axis) : at::cat(elements, axis)};
}

/// The body for each element of the first sequence; other sequences give theirs of the same place, tensors are given each time.
Values map(const ValuesView& v) {
  const std::size_t count = v.sequence(0).size();
  std::vector<Tensors> out(v.node.outputs.size());
  for (std::size_t at = 0; at < count; ++at) {
    Values given;
    for (std::size_t i = 0; i < v.inputs.size(); ++i) {
      if (!v.inputs[i].sequence) {
        given.push_back(v.inputs[i]);
        continue;
      }
      if (v.sequence(i).size() != count)
        v.fail(fmt::format("sequence {} has {} elements, the first {}", i, v.sequence(i).size(), count));
      given.emplace_back(v.sequence(i)[at]);
    }
    const Values made = v.run("body", given);
    if (made.size() < out.size()) v.fail(fmt::format("the body has {} outputs, expected {}", made.size(), out.size()));
    for (std::size_t i = 0; i < out.size(); ++i) {
      if (!made[i].tensor.defined()) v.fail("the body gave no tensor");
      out[i].push_back(made[i].tensor);
    }
  }
  Values results;
  for (Tensors& each : out) results.emplace_back(std::move(each));
  return results;
}

Values same(const ValuesView& v) { return {v.inputs[0]}; }

Values has_element(const ValuesView& v) { return {at::scalar_tensor(v.has(0), at::kBool)}; }

Values get_element(const ValuesView& v) {
  if (!v.has(0)) v.fail("the optional is empty");
  return {v.inputs[0]};
}

const RegisterValuesRun entries[] = {
    {"", "SequenceConstruct", construct},
    {"", "SequenceEmpty", empty},
    {"", "SequenceInsert", insert},
    {"", "SequenceErase", erase},
    {"", "SequenceAt", at_place},
    {"", "SequenceLength", length},
    {"", "SplitToSequence", split},
    {"", "ConcatFromSequence", concat},
    {"", "SequenceMap", map},
    {"", "Optional", same},
    {"", "OptionalHasElement", has_element},
    {"", "OptionalGetElement", get_element},
    {"", "Identity", same},
};

}  // namespace
}  // namespace espalier
