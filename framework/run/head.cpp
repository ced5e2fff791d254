#include "run/head.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/zeros.h>
#include <c10/core/GradMode.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>

#include "graph/rounded_weights.h"
#include "run/precision.h"
#include "sdk/error.h"

namespace espalier {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// Of logits at a time: a third of the matrix, but from 16 to 34 MB of f32. With a vocabulary of 49,152 products of fewer rows than
/// about 170 run at 0.7 of full speed.
std::int64_t chunk_elements(std::int64_t all) { return std::clamp<std::int64_t>((all + 2) / 3, 4'000'000, 8'500'000); }

at::Tensor flat(const at::Tensor& t) { return t.reshape({-1, t.size(-1)}); }

/// [positions, …], or [n, …] of those that are compared.
at::Tensor compared(const at::Tensor& t, const HeadTargets& targets) {
  return targets.positions.defined() ? flat(t).index_select(0, targets.positions) : flat(t);
}

/// [width, vocabulary], a view.
at::Tensor across(const at::Tensor& weight, bool transposed) { return transposed ? weight.t() : weight; }

/// What a product of `type` takes. Without kernels for bf16, rounded operands are multiplied in f32.
at::Tensor operand(const at::Tensor& value, c10::ScalarType type) {
  const at::Tensor rounded = value.to(type);
  return type == at::kBFloat16 && !has_bf16_kernels() ? rounded.to(at::kFloat) : rounded;
}

/// rows · weight, a strip of the vocabulary at a time: over all 49,152 words at once MKL runs at two thirds of the speed.
at::Tensor answers(const at::Tensor& rows, const at::Tensor& weight) {
  constexpr std::int64_t strip = 1024;
  const std::int64_t words = weight.size(1);
  if (words < 4 * strip) return at::mm(rows, weight);
  at::Tensor out = at::empty({rows.size(0), words}, rows.options());
  for (std::int64_t first = 0; first < words; first += strip) {
    const std::int64_t count = std::min(strip, words - first);
    at::Tensor part = out.narrow(1, first, count);
    at::mm_out(part, rows, weight.narrow(1, first, count));
  }
  return out;
}

bool plain_gemm(const Node& node) {
  return node.op == "Gemm" && node.input(2).empty() && node.integer("transA", 0) == 0 && node.number("alpha", 1) == 1;
}

/// Where a chunk's teacher logits come from.
struct Teacher {
  at::Tensor hidden, weight, logits;
  at::Tensor positions;  ///< rows of `logits`; undefined: all
  at::Tensor rows(std::int64_t first, std::int64_t count, c10::ScalarType type) const {
    if (logits.defined() && positions.defined()) return logits.index_select(0, positions.narrow(0, first, count)).to(type);
    if (logits.defined()) return logits.narrow(0, first, count).to(type);
    return answers(hidden.narrow(0, first, count), weight).to(type);
  }
};

struct Walk {
  at::Tensor hidden, weight;  ///< [n, width], [width, vocabulary]; of one type
  bool transposed = false;    ///< the leaf is [vocabulary, width]
  const HeadTargets* targets;
  Teacher teacher;
  c10::ScalarType wide;  ///< type of losses
  std::int64_t counted = 1;
  double hard = 0, soft = 0;

  /// Adds the losses of some positions; returns d loss / d logits when `grad`.
  at::Tensor chunk(std::int64_t first, std::int64_t count, bool grad);

 private:
  /// The same for rows of logits, the student's and perhaps the teacher's, which stay as they are.
  at::Tensor slopes(std::int64_t first, const at::Tensor& logits, const at::Tensor& guide, bool grad);
};

at::Tensor Walk::chunk(std::int64_t first, std::int64_t count, bool grad) {
  if (targets->hard <= 0 && targets->soft <= 0) return {};
  at::Tensor logits = answers(hidden.narrow(0, first, count), weight).to(wide), guide;
  if (targets->soft > 0) guide = teacher.rows(first, count, wide);
  // A few rows at a time: what lies between logits and gradient stays in the cache, and the gradient takes the logits' place.
  const std::int64_t step = std::max<std::int64_t>((1 << 20) / std::max<std::int64_t>(logits.size(1), 1), 1);
  for (std::int64_t begin = 0; begin < count; begin += step) {
    const std::int64_t rows = std::min(step, count - begin);
    at::Tensor part = logits.narrow(0, begin, rows);
    const at::Tensor slope = slopes(first + begin, part, guide.defined() ? guide.narrow(0, begin, rows) : guide, grad);
    if (slope.defined()) part.copy_(slope);
  }
  return grad ? logits : at::Tensor();
}

at::Tensor Walk::slopes(std::int64_t first, const at::Tensor& logits, const at::Tensor& guide, bool grad) {
  at::Tensor out, logs;
  const double temperature = targets->temperature;
  if (targets->hard > 0) {
    logs = at::log_softmax(logits, 1);
    const at::Tensor labels = targets->labels.narrow(0, first, logits.size(0)), asked = labels.ge(0);
    const at::Tensor column = labels.clamp_min(0).unsqueeze(1);
    hard -= (logs.gather(1, column).squeeze(1).to(at::kDouble) * asked).sum().item<double>() / static_cast<double>(counted);
    if (grad) {
      const at::Tensor share = (asked.to(wide) * (targets->hard / static_cast<double>(counted))).unsqueeze(1);
      out = logs.exp().mul_(share).scatter_add_(1, column, -share);
    }
  }
  if (targets->soft > 0) {
    const double positions = static_cast<double>(hidden.size(0));
    if (temperature != 1 || !logs.defined()) logs = at::log_softmax(temperature == 1 ? logits : logits / temperature, 1);
    at::Tensor wanted = at::log_softmax(temperature == 1 ? guide : guide / temperature, 1), likely = wanted.exp();
    wanted.sub_(logs).mul_(likely);
    soft += wanted.sum(1).sum(at::kDouble).item<double>() * temperature * temperature / positions;
    if (grad) {
      logs.exp_().sub_(likely).mul_(targets->soft * temperature / positions);
      out = out.defined() ? out.add_(logs) : logs;
    }
  }
  return out;
}

/// Gradients are made while walking forward and only scaled in the backward pass.
struct Loss : torch::autograd::Function<Loss> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& hidden, const at::Tensor& weight, Walk* walk,
                            std::int64_t step, bool to_hidden, bool to_weight) {
    const std::int64_t positions = hidden.size(0);
    at::Tensor of_hidden, of_weight;
    if (to_hidden) of_hidden = at::zeros(hidden.sizes(), hidden.options());
    // As the leaf is, and no view: so it becomes the leaf's gradient, and takes an embedding's, without a copy.
    if (to_weight) of_weight = at::zeros(weight.sizes(), weight.options());
    for (std::int64_t first = 0; first < positions; first += step) {
      const std::int64_t count = std::min(step, positions - first);
      at::Tensor slope = walk->chunk(first, count, to_hidden || to_weight);
      if (!slope.defined()) continue;
      slope = slope.to(walk->hidden.scalar_type());
      if (to_hidden) of_hidden.narrow(0, first, count).copy_(at::mm(slope, walk->weight.t()));
      if (!to_weight) continue;
      const at::Tensor rows = walk->hidden.narrow(0, first, count);
      const at::Tensor left = walk->transposed ? slope.t() : rows.t(), right = walk->transposed ? rows : slope;
      if (slope.scalar_type() == of_weight.scalar_type()) {
        of_weight.addmm_(left, right);
      } else {
        of_weight.add_(at::mm(left, right));
      }
    }
    context->save_for_backward({of_hidden, of_weight});
    return at::zeros({}, hidden.options().dtype(walk->wide)) +
           (walk->targets->hard * walk->hard + walk->targets->soft * walk->soft);
  }
  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const variable_list saved = context->get_saved_variables();
    const double factor = gradients[0].item<double>();
    variable_list out{saved[0], saved[1], {}, {}, {}, {}};
    if (factor != 1)  // not in place: the graph may be kept for another pass
      for (at::Tensor& each : out)
        if (each.defined()) each = each * factor;
    return out;
  }
};

void check(const HeadValues& student, const HeadTargets& targets) {
  const std::int64_t positions = student.hidden.numel() / std::max<std::int64_t>(student.hidden.size(-1), 1);
  if (student.hidden.size(-1) != across(student.weight, student.transposed).size(0))
    throw_invalid(fmt::format("a hidden state of shape [{}] does not go with a head of shape [{}]",
                              fmt::join(student.hidden.sizes(), ", "), fmt::join(student.weight.sizes(), ", ")));
  const at::Tensor& picked = targets.positions;
  if (picked.defined() && picked.numel() > 0 &&
      (picked.min().item<std::int64_t>() < 0 || picked.max().item<std::int64_t>() >= positions))
    throw_invalid(fmt::format("a position outside the {} that there are is to be compared", positions));
  if (targets.hard > 0) {
    const at::Tensor& labels = targets.labels;
    const std::int64_t asked = picked.defined() ? picked.numel() : positions;
    if (labels.dim() != 1 || labels.size(0) != asked)
      throw_invalid(fmt::format("{} labels for {} positions", labels.numel(), asked));
    if (labels.numel() > 0 && labels.max().item<std::int64_t>() >= student.vocabulary())
      throw_invalid(fmt::format("the data holds tokens outside the vocabulary of {}", student.vocabulary()), "port data");
  }
  if (targets.soft <= 0) return;
  if (!(targets.temperature > 0)) throw_invalid(fmt::format("a temperature of {}, expected more than 0", targets.temperature));
  const bool whole = targets.teacher_logits.defined();
  const at::Tensor& given = whole ? targets.teacher_logits : targets.teacher.hidden;
  const std::int64_t words = whole ? given.size(-1) : targets.teacher.vocabulary();
  if (words != student.vocabulary() || given.numel() / std::max<std::int64_t>(given.size(-1), 1) != positions)
    throw_invalid(fmt::format("the student answers {} positions over {} tokens, the teacher [{}] over {}", positions,
                              student.vocabulary(), fmt::join(given.sizes(), ", "), words),
                  "ports student, teacher", "take a teacher with the same vocabulary");
}

}  // namespace

std::optional<Head> find_head(const Graph& graph, const std::string& logits) {
  const Uses uses(graph);
  const auto maker = [&](const std::string& value) -> const Node* {
    const auto at = uses.producer_of(value);
    return at < 0 ? nullptr : &graph.nodes[static_cast<std::size_t>(at)];
  };
  const Node* node = maker(logits);
  // A Gemm works on flat positions.
  if (node && node->op == "Reshape" && maker(node->input(0)) && maker(node->input(0))->op == "Gemm") node = maker(node->input(0));
  if (!node || !node->domain.empty() || !(node->op == "MatMul" || plain_gemm(*node))) return std::nullopt;
  Head head{node->input(0), node->input(1), node->integer("transB", 0) != 0};
  if (const Node* turn = maker(head.weight); turn && turn->op == "Transpose") {
    if (turn->integers("perm", {1, 0}) != std::vector<std::int64_t>{1, 0}) return std::nullopt;
    head.weight = turn->input(0);
    head.transposed = !head.transposed;
  }
  const auto rounded = rounded_weight(graph, uses, head.weight);
  const Tensor* weight = graph.initializer(rounded ? rounded->weight : head.weight);
  if (!weight || weight->shape.size() != 2 || !is_floating(weight->dtype) || graph.initializer(head.hidden)) return std::nullopt;
  return head;
}

std::int64_t HeadValues::vocabulary() const { return weight.size(transposed ? 0 : 1); }

at::Tensor HeadValues::logits() const {
  const auto type = hidden.scalar_type();
  return operand(hidden, type).matmul(operand(across(weight, transposed), type)).to(type);
}

HeadLoss head_loss(const HeadValues& student, const HeadTargets& targets, std::int64_t positions) {
  check(student, targets);
  const bool grad = c10::GradMode::is_enabled();
  const auto type = student.hidden.scalar_type();
  const at::Tensor hidden = operand(compared(student.hidden, targets), type), &weight = student.weight;
  Walk walk;
  walk.targets = &targets;
  walk.hidden = hidden.detach();
  walk.weight = operand(across(weight.detach(), student.transposed), type);
  walk.transposed = student.transposed;
  walk.wide = type == at::kDouble ? at::kDouble : at::kFloat;
  if (targets.hard > 0) walk.counted = std::max<std::int64_t>(targets.labels.ge(0).sum().item<std::int64_t>(), 1);
  if (targets.soft > 0 && targets.teacher_logits.defined()) {
    walk.teacher.logits = flat(targets.teacher_logits.detach());
    walk.teacher.positions = targets.positions;
  } else if (targets.soft > 0) {
    const HeadValues& teacher = targets.teacher;
    walk.teacher.hidden = operand(compared(teacher.hidden.detach(), targets), teacher.hidden.scalar_type());
    walk.teacher.weight = operand(across(teacher.weight.detach(), teacher.transposed), teacher.hidden.scalar_type());
  }
  if (positions <= 0) {  // pieces of about one size
    const std::int64_t all = hidden.size(0) * student.vocabulary(), chunk = chunk_elements(all), pieces = (all + chunk - 1) / chunk;
    positions = (hidden.size(0) + pieces - 1) / std::max<std::int64_t>(pieces, 1);
  }
  HeadLoss loss;
  loss.sum = Loss::apply(hidden, weight, &walk, std::max<std::int64_t>(positions, 1), grad && hidden.requires_grad(),
                         grad && weight.requires_grad());
  if (targets.hard > 0) loss.hard = walk.hard;
  if (targets.soft > 0) loss.soft = walk.soft;
  return loss;
}

}  // namespace espalier
