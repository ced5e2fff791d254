// Losses over a vocabulary: the matrix of logits is large (512 positions over 49,152 tokens: 100 MB), so the only copies made are
// the gradient itself and a few rows at a time; what the backward pass needs besides the logits is one number a row.
#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/exp.h>
#include <ATen/ops/full.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/gather.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/logsumexp.h>
#include <ATen/ops/sum.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <optional>

#include "run/training.h"
#include "sdk/error.h"

namespace espalier {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr std::int64_t unlabelled = -100;

/// Calls `work(first, count)` for pieces of a [rows, columns] matrix of about 2M elements.
template <class Work>
void by_rows(const at::Tensor& matrix, Work work) {
  const std::int64_t rows = matrix.size(0), step = std::max<std::int64_t>(1, (1 << 21) / std::max<std::int64_t>(1, matrix.size(1)));
  for (std::int64_t first = 0; first < rows; first += step) work(first, std::min(step, rows - first));
}

at::Tensor log_sums(const at::Tensor& logits, double temperature) {
  at::Tensor out = at::empty({logits.size(0)}, logits.options());
  by_rows(logits, [&](std::int64_t first, std::int64_t count) {
    const at::Tensor rows = logits.narrow(0, first, count);
    out.narrow(0, first, count).copy_(at::logsumexp(temperature == 1 ? rows : rows / temperature, {1}));
  });
  return out;
}

/// probability = exp(logits / temperature - log_sums), into `out`.
void probabilities(at::Tensor& out, const at::Tensor& logits, const at::Tensor& log_sums, double temperature) {
  out.copy_(logits);
  if (temperature != 1) out.div_(temperature);
  out.sub_(log_sums.unsqueeze(1)).exp_();
}

struct CrossEntropy : torch::autograd::Function<CrossEntropy> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& logits, const at::Tensor& labels, std::int64_t counted) {
    const at::Tensor sums = log_sums(logits, 1);
    const at::Tensor picked = at::gather(logits, 1, labels.clamp_min(0).unsqueeze(1)).squeeze(1);
    context->save_for_backward({logits, labels, sums});
    context->saved_data["counted"] = counted;
    const at::Tensor each = (sums.to(at::kDouble) - picked.to(at::kDouble)) * labels.ge(0);
    return (each.sum() / static_cast<double>(counted)).to(logits.scalar_type());
  }
  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const variable_list saved = context->get_saved_variables();
    const at::Tensor &logits = saved[0], &labels = saved[1], &sums = saved[2];
    const at::Tensor share = gradients[0] / static_cast<double>(context->saved_data["counted"].toInt()) * labels.ge(0);
    at::Tensor out = at::empty_like(logits);
    by_rows(logits, [&](std::int64_t first, std::int64_t count) {
      at::Tensor rows = out.narrow(0, first, count);
      const at::Tensor weight = share.narrow(0, first, count).unsqueeze(1);
      probabilities(rows, logits.narrow(0, first, count), sums.narrow(0, first, count), 1);
      rows.mul_(weight).scatter_add_(1, labels.narrow(0, first, count).clamp_min(0).unsqueeze(1), -weight);
    });
    return {out, at::Tensor(), at::Tensor()};
  }
};

struct SoftTargets : torch::autograd::Function<SoftTargets> {
  /// `which`: 1 or 0 of each row, in the student's type; without it all count.
  static at::Tensor forward(AutogradContext* context, const at::Tensor& student, const at::Tensor& teacher, double temperature,
                            const std::optional<at::Tensor>& which) {
    const at::Tensor counted = which.value_or(at::Tensor());
    at::Tensor loss = at::full({}, 0.0, at::TensorOptions().dtype(at::kDouble));
    by_rows(student, [&](std::int64_t first, std::int64_t count) {
      const at::Tensor of_student = at::log_softmax(student.narrow(0, first, count) / temperature, 1);
      const at::Tensor of_teacher = at::log_softmax(teacher.narrow(0, first, count) / temperature, 1);
      at::Tensor each = (at::exp(of_teacher) * (of_teacher - of_student)).sum(1);
      if (counted.defined()) each = each * counted.narrow(0, first, count);
      loss.add_(each.sum(0, false, at::kDouble));
    });
    const double rows = counted.defined() ? std::max(counted.sum().item<double>(), 1.0) : static_cast<double>(student.size(0));
    context->save_for_backward({student, teacher, log_sums(student, temperature), log_sums(teacher, temperature), counted});
    context->saved_data["temperature"] = temperature;
    context->saved_data["rows"] = rows;
    return (loss * (temperature * temperature / rows)).to(student.scalar_type());
  }
  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const variable_list saved = context->get_saved_variables();
    const double temperature = context->saved_data["temperature"].toDouble();
    const at::Tensor share = gradients[0] * (temperature / context->saved_data["rows"].toDouble()), &counted = saved[4];
    at::Tensor out = at::empty_like(saved[0]);
    by_rows(out, [&](std::int64_t first, std::int64_t count) {
      at::Tensor rows = out.narrow(0, first, count), wanted = at::empty_like(rows);
      probabilities(rows, saved[0].narrow(0, first, count), saved[2].narrow(0, first, count), temperature);
      probabilities(wanted, saved[1].narrow(0, first, count), saved[3].narrow(0, first, count), temperature);
      rows.sub_(wanted).mul_(counted.defined() ? (share * counted.narrow(0, first, count)).unsqueeze(1) : share);
    });
    return {out, at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

/// [batch, sequence, vocabulary] → [positions, vocabulary] in f32 (f64 stays, for gradient checks).
at::Tensor positions(const at::Tensor& logits) {
  if (logits.dim() != 3 || !logits.is_floating_point())
    throw_invalid(fmt::format("logits of shape [{}], expected [batch, sequence, vocabulary]", fmt::join(logits.sizes(), ", ")));
  const at::Tensor flat = logits.reshape({-1, logits.size(2)});
  return flat.scalar_type() == at::kDouble ? flat : flat.to(at::kFloat);
}

}  // namespace

at::Tensor next_tokens(const at::Tensor& input_ids) {
  if (input_ids.dim() != 2 || input_ids.size(1) < 2)
    throw_invalid(fmt::format("input_ids of shape [{}], expected [batch, sequence] with two positions or more",
                              fmt::join(input_ids.sizes(), ", ")));
  const at::Tensor next = input_ids.to(at::kLong).slice(1, 1);
  if (next.numel() > 0 && next.min().item<std::int64_t>() < 0) throw_invalid("input_ids hold negative tokens", "port data");
  return at::cat({next, at::full({next.size(0), 1}, unlabelled, next.options())}, 1).reshape({-1});
}

at::Tensor next_tokens(const TensorMap& batch) {
  const auto labels = batch.find("labels");
  const at::Tensor next = next_tokens(batch.at("input_ids"));
  if (labels == batch.end()) return next;
  if (labels->second.sizes() != batch.at("input_ids").sizes())
    throw_invalid(fmt::format("labels of shape [{}] for input_ids of shape [{}]", fmt::join(labels->second.sizes(), ", "),
                              fmt::join(batch.at("input_ids").sizes(), ", ")),
                  "port data");
  const at::Tensor counted = at::cat({labels->second.slice(1, 1), at::full_like(labels->second.slice(1, 0, 1), unlabelled)}, 1);
  return counted.to(at::kLong).reshape({-1});
}

at::Tensor next_token_cross_entropy(const at::Tensor& logits, const at::Tensor& next) {
  const at::Tensor flat = positions(logits);
  if (next.dim() != 1 || next.size(0) != flat.size(0))
    throw_invalid(fmt::format("{} labels for logits of shape [{}]", next.numel(), fmt::join(logits.sizes(), ", ")));
  if (next.numel() > 0 && next.max().item<std::int64_t>() >= logits.size(2))
    throw_invalid(fmt::format("the labels hold tokens outside the vocabulary of {}", logits.size(2)), "port data");
  return CrossEntropy::apply(flat, next, std::max<std::int64_t>(next.ge(0).sum().item<std::int64_t>(), 1));
}

at::Tensor causal_cross_entropy(const at::Tensor& logits, const at::Tensor& input_ids) {
  const at::Tensor flat = positions(logits);
  if (input_ids.dim() != 2 || input_ids.size(0) != logits.size(0) || input_ids.size(1) != logits.size(1) || input_ids.size(1) < 2)
    throw_invalid(
        fmt::format("input_ids of shape [{}] for logits of shape [{}], expected [batch, sequence] with two positions or more",
                    fmt::join(input_ids.sizes(), ", "), fmt::join(logits.sizes(), ", ")));
  const std::int64_t batch = input_ids.size(0), length = input_ids.size(1);
  const at::Tensor next = input_ids.to(at::kLong).slice(1, 1);
  // LibTorch's kernels check indices while gathering, but name nothing.
  if (next.numel() > 0 && (next.min().item<std::int64_t>() < 0 || next.max().item<std::int64_t>() >= logits.size(2)))
    throw_invalid(fmt::format("input_ids hold tokens outside the vocabulary of {}", logits.size(2)));
  return CrossEntropy::apply(flat, next_tokens(input_ids), batch * (length - 1));
}

at::Tensor soft_target_loss(const at::Tensor& student, const at::Tensor& teacher, double temperature, const at::Tensor& counted) {
  if (student.sizes() != teacher.sizes())
    throw_invalid(fmt::format("the student's logits have shape [{}], the teacher's [{}]", fmt::join(student.sizes(), ", "),
                              fmt::join(teacher.sizes(), ", ")));
  if (!(temperature > 0)) throw_invalid(fmt::format("a temperature of {}, expected more than 0", temperature));
  const at::Tensor flat = positions(student);
  if (counted.defined() && (counted.dim() != 1 || counted.size(0) != flat.size(0)))
    throw_invalid(fmt::format("{} positions are said to count or not, of {}", counted.numel(), flat.size(0)));
  return SoftTargets::apply(flat, positions(teacher.detach()).to(flat.scalar_type()), temperature,
                            counted.defined() ? std::optional(counted.to(flat.scalar_type())) : std::nullopt);
}

}  // namespace espalier
