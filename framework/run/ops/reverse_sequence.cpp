#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/gather.h>
#include <ATen/ops/where.h>
#include <fmt/format.h>

#include "run/op.h"
#include "run/ops/unsigned.h"

namespace espalier {
namespace {

/// The first `lengths[b]` steps of sample b come in reverse, the others stay.
std::vector<at::Tensor> reverse_sequence(const RunView& v) {
  const at::Tensor& x = v.in(0);
  const std::int64_t time = v.node.integer("time_axis", 0), batch = v.node.integer("batch_axis", 1);
  if (x.dim() < 2) v.fail(fmt::format("the input has rank {}, at least 2 is needed", x.dim()));
  if (time < 0 || time > 1 || batch < 0 || batch > 1 || time == batch)
    v.fail(fmt::format("time_axis is {}, batch_axis {}: one is 0, the other 1", time, batch));
  const at::Tensor lengths = v.in(1).to(at::kLong);
  if (lengths.dim() != 1 || lengths.size(0) != x.size(batch)) v.fail("there is not one length for each sample");
  if (lengths.lt(0).logical_or(lengths.gt(x.size(time))).any().item<bool>())
    v.fail(fmt::format("a length is outside an axis of length {}", x.size(time)));
  const at::Tensor steps = at::arange(x.size(time), at::kLong).unsqueeze(batch), until = lengths.unsqueeze(time);
  at::Tensor from = at::where(steps.lt(until), until - 1 - steps, steps);
  for (std::int64_t i = 2; i < x.dim(); ++i) from = from.unsqueeze(-1);
  return {narrowed(at::gather(as_signed(x), time, from.expand(x.sizes())), x.scalar_type())};
}

const RegisterRun entry{"", "ReverseSequence", reverse_sequence};

}  // namespace
}  // namespace espalier
