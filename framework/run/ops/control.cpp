#include <ATen/ops/empty.h>
#include <ATen/ops/scalar_tensor.h>
#include <ATen/ops/select.h>
#include <ATen/ops/stack.h>
#include <fmt/format.h>

#include "run/op.h"

namespace espalier {
namespace {

using Values = std::vector<RunValue>;

bool truth(const ValuesView& v, const RunValue& value, const char* what) {
  if (!value.tensor.defined() || value.tensor.numel() != 1) v.fail(fmt::format("{} is not one boolean", what));
  return value.tensor.item().toBool();
}

Values run_if(const ValuesView& v) { return v.run(truth(v, v.inputs[0], "the condition") ? "then_branch" : "else_branch", {}); }

/// What the rounds brought, side by side along `axis`.
RunValue stacked(const ValuesView& v, const std::vector<at::Tensor>& rounds, std::int64_t axis) {
  if (rounds.empty()) return at::empty({0}, at::TensorOptions().dtype(v.compute));
  const std::int64_t rank = rounds.front().dim() + 1;
  if (axis < -rank || axis >= rank) v.fail(fmt::format("scan_output_axes names axis {} of rank {}", axis, rank));
  for (const at::Tensor& each : rounds)
    if (each.sizes() != rounds.front().sizes()) v.fail("rounds gave tensors of different shapes, which do not stack");
  return at::stack(rounds, axis);
}

const at::Tensor& made(const ValuesView& v, const RunValue& value) {
  if (!value.tensor.defined()) v.fail("a round gave a sequence where tensors are stacked");
  return value.tensor;
}

/// Rounds until the trip count is reached or the body says no more.
Values loop(const ValuesView& v) {
  const bool counted = v.has(0), asked = v.inputs.size() > 1 && v.has(1);
  const std::int64_t most = counted ? v.integer(0) : 0;
  bool going = !asked || truth(v, v.inputs[1], "the condition");
  Values carried(v.inputs.begin() + std::min<std::ptrdiff_t>(2, static_cast<std::ptrdiff_t>(v.inputs.size())), v.inputs.end());
  const std::size_t outputs = v.node.outputs.size();
  if (outputs < carried.size()) v.fail(fmt::format("{} outputs for {} carried values", outputs, carried.size()));
  std::vector<std::vector<at::Tensor>> scans(outputs - carried.size());
  for (std::int64_t round = 0; going && (!counted || round < most); ++round) {
    Values given{at::scalar_tensor(round, at::kLong), at::scalar_tensor(going, at::kBool)};
    given.insert(given.end(), carried.begin(), carried.end());
    Values out = v.run("body", given);
    if (out.size() != 1 + outputs) v.fail(fmt::format("the body has {} outputs, expected {}", out.size(), 1 + outputs));
    going = truth(v, out[0], "what the body gives as condition");
    for (std::size_t i = 0; i < scans.size(); ++i) scans[i].push_back(made(v, out[1 + carried.size() + i]));
    for (std::size_t i = 0; i < carried.size(); ++i) carried[i] = std::move(out[1 + i]);
  }
  for (const auto& rounds : scans) carried.push_back(stacked(v, rounds, 0));
  return carried;
}

/// Slices of the last inputs, one a round; forwards or backwards.
Values scan(const ValuesView& v) {
  using Integers = std::vector<std::int64_t>;
  if (v.graph.opset() < 9) v.refuse("Scan of opset 8, with batches, is not supported");
  const std::int64_t scanned = v.node.integer("num_scan_inputs", 0);
  if (scanned < 1 || scanned > static_cast<std::int64_t>(v.inputs.size())) v.fail(fmt::format("num_scan_inputs is {}", scanned));
  const auto count = static_cast<std::size_t>(scanned), carried_count = v.inputs.size() - count;
  if (v.node.outputs.size() < carried_count) v.fail("fewer outputs than carried values");
  const std::size_t results = v.node.outputs.size() - carried_count;
  const auto list = [&](const char* attribute, std::size_t length) {
    Integers values = v.node.integers(attribute, Integers(length, 0));
    if (values.size() != length) v.fail(fmt::format("{} has {} entries, expected {}", attribute, values.size(), length));
    return values;
  };
  const Integers axes = list("scan_input_axes", count), backwards = list("scan_input_directions", count);
  const Integers places = list("scan_output_axes", results), reversed = list("scan_output_directions", results);
  std::int64_t rounds = -1;
  for (std::size_t i = 0; i < count; ++i) {
    const at::Tensor& x = v.tensor(carried_count + i);
    if (axes[i] < -x.dim() || axes[i] >= x.dim()) v.fail(fmt::format("scan_input_axes names axis {} of rank {}", axes[i], x.dim()));
    if (rounds >= 0 && x.size(axes[i]) != rounds) v.fail("the scanned inputs have different lengths");
    rounds = x.size(axes[i]);
  }
  Values carried(v.inputs.begin(), v.inputs.begin() + static_cast<std::ptrdiff_t>(carried_count));
  std::vector<std::vector<at::Tensor>> scans(results);
  for (std::int64_t round = 0; round < rounds; ++round) {
    Values given = carried;
    for (std::size_t i = 0; i < count; ++i)
      given.emplace_back(at::select(v.tensor(carried_count + i), axes[i], backwards[i] ? rounds - 1 - round : round));
    Values out = v.run("body", given);
    if (out.size() != carried_count + results)
      v.fail(fmt::format("the body has {} outputs, expected {}", out.size(), carried_count + results));
    for (std::size_t i = 0; i < results; ++i) scans[i].push_back(made(v, out[carried_count + i]));
    for (std::size_t i = 0; i < carried_count; ++i) carried[i] = std::move(out[i]);
  }
  for (std::size_t i = 0; i < results; ++i) {
    if (reversed[i]) std::reverse(scans[i].begin(), scans[i].end());
    carried.push_back(stacked(v, scans[i], places[i]));
  }
  return carried;
}

const RegisterValuesRun entries[] = {{"", "If", run_if}, {"", "Loop", loop}, {"", "Scan", scan}};

}  // namespace
}  // namespace espalier
