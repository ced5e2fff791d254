#include <ATen/TensorOperators.h>
#include <ATen/ops/gather.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/ones_like.h>
#include <fmt/format.h>

#include "run/op.h"

namespace espalier {
namespace {

using Results = std::vector<at::Tensor>;

/// -weight·log p of each label, 0 for the label that is ignored; a mean divides by the weights that count. Labels outside the
/// classes are found by LibTorch's own check.
at::Tensor loss_of(const RunView& v, const at::Tensor& logs) {
  const at::Tensor& given = v.in(1);
  if (logs.dim() < 2) v.fail(fmt::format("the input has rank {}, expected at least 2", logs.dim()));
  std::vector<std::int64_t> shape = logs.sizes().vec();
  shape.erase(shape.begin() + 1);
  if (given.sizes() != at::IntArrayRef(shape)) v.fail("the labels do not have the shape of the input without its classes");
  if (!c10::isIntegralType(given.scalar_type(), false)) v.fail("the labels are not integers");
  at::Tensor labels = given.to(at::kLong), ignored, weights;
  if (v.node.has("ignore_index")) {
    ignored = labels.eq(v.node.integer("ignore_index", 0));
    labels = labels.masked_fill(ignored, 0);
  }
  at::Tensor losses = -at::gather(logs, 1, labels.unsqueeze(1)).squeeze(1);
  if (v.has(2)) {
    if (v.in(2).dim() != 1 || v.in(2).size(0) != logs.size(1))
      v.fail(fmt::format("the weights do not hold one number for each of {} classes", logs.size(1)));
    weights = at::index_select(v.in(2), 0, labels.flatten()).reshape(shape);
  } else if (ignored.defined()) {
    weights = at::ones_like(losses);
  }
  if (ignored.defined()) {
    losses = losses.masked_fill(ignored, 0);
    weights = weights.masked_fill(ignored, 0);
  }
  if (weights.defined()) losses = losses * weights;
  const std::string reduction = v.node.text("reduction", "mean");
  if (reduction == "none") return losses;
  if (reduction == "sum") return losses.sum();
  if (reduction != "mean") v.fail(fmt::format("reduction is '{}'", reduction));
  return weights.defined() ? losses.sum() / weights.sum() : losses.mean();
}

Results negative_log_likelihood(const RunView& v) { return {loss_of(v, v.in(0))}; }

Results softmax_cross_entropy(const RunView& v) {
  if (v.in(0).dim() < 2) v.fail(fmt::format("the input has rank {}, expected at least 2", v.in(0).dim()));
  const at::Tensor logs = at::log_softmax(v.in(0), 1, std::nullopt);
  return {loss_of(v, logs), logs};
}

const RegisterRun entries[] = {{"", "NegativeLogLikelihoodLoss", negative_log_likelihood},
                               {"", "SoftmaxCrossEntropyLoss", softmax_cross_entropy}};

}  // namespace
}  // namespace espalier
