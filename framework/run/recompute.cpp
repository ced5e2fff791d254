#include "run/recompute.h"

#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <map>
#include <set>

namespace espalier {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// What the two passes of one stretch share.
struct Work : torch::CustomClassHolder {
  Work(Recomputable f, std::vector<bool> d) : run(std::move(f)), differentiable(std::move(d)) {}
  Recomputable run;
  std::vector<bool> differentiable;
};

struct Recompute : torch::autograd::Function<Recompute> {
  static variable_list forward(AutogradContext* context, at::TensorList inputs, const c10::intrusive_ptr<Work>& work) {
    variable_list outputs;
    {
      c10::AutoGradMode off(false);
      outputs = work->run(inputs.vec());
    }
    context->save_for_backward(inputs.vec());
    context->saved_data["work"] = c10::IValue::make_capsule(work);
    variable_list fixed;
    for (std::size_t i = 0; i < outputs.size(); ++i)
      if (!work->differentiable[i]) fixed.push_back(outputs[i]);
    context->mark_non_differentiable(fixed);
    context->set_materialize_grads(false);
    return outputs;
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const variable_list saved = context->get_saved_variables();
    const auto capsule = context->saved_data["work"].toCapsule();
    auto& work = static_cast<Work&>(*capsule);
    c10::AutoGradMode on(true);
    variable_list inputs, wanted;
    for (const at::Tensor& each : saved) {
      inputs.push_back(each.defined() ? each.detach() : each);
      if (each.defined() && each.requires_grad()) wanted.push_back(inputs.back().set_requires_grad(true));
    }
    const variable_list outputs = work.run(inputs);
    variable_list ends, slopes;
    for (std::size_t i = 0; i < outputs.size(); ++i)
      if (gradients[i].defined() && outputs[i].requires_grad()) {
        ends.push_back(outputs[i]);
        slopes.push_back(gradients[i]);
      }
    variable_list found;
    if (!ends.empty()) found = torch::autograd::grad(ends, wanted, slopes, false, false, /*allow_unused=*/true);
    variable_list result;
    auto next = found.begin();
    for (const at::Tensor& each : saved)
      result.push_back(next != found.end() && each.defined() && each.requires_grad() ? *next++ : at::Tensor());
    result.emplace_back();  // of `work`
    return result;
  }
};

}  // namespace

std::vector<Stretch> repeated_stretches(const std::vector<PlannedStep>& steps, const std::vector<bool>& carries) {
  const std::size_t count = steps.size();
  std::map<int, std::pair<std::size_t, std::size_t>> life;  // value → position of its maker, of its last reader
  for (std::size_t i = 0; i < count; ++i) {
    for (int value : steps[i].in)
      if (const auto at = life.find(value); at != life.end()) at->second.second = i;
    for (int value : steps[i].out)
      if (value >= 0 && carries[static_cast<std::size_t>(value)]) life[value] = {i, i};
  }
  std::vector<int> change(count + 2, 0);  // of the number of carrying values alive between position - 1 and position
  for (const auto& [value, span] : life)
    if (span.second > span.first && span.second - span.first <= count / 2) {
      ++change[span.first + 1];
      --change[span.second + 1];
    }
  std::vector<std::size_t> cuts{0};
  int alive = 0;
  for (std::size_t i = 1; i < count; ++i)
    if ((alive += change[i]) == 1) cuts.push_back(i);
  cuts.push_back(count);

  std::map<std::string, int> seen;
  std::vector<std::pair<Stretch, std::string>> found;
  for (std::size_t i = 0; i + 1 < cuts.size(); ++i) {
    const Stretch stretch{cuts[i], cuts[i + 1]};
    std::string kind;
    bool product = false;
    for (std::size_t k = stretch.begin; k < stretch.end; ++k) {
      kind += steps[k].op + ' ';
      product = product || steps[k].product;
    }
    if (!product) continue;
    ++seen[kind];
    found.emplace_back(stretch, std::move(kind));
  }
  std::vector<Stretch> repeated;
  for (const auto& [stretch, kind] : found)
    if (seen[kind] > 1) repeated.push_back(stretch);
  return repeated;
}

std::vector<Stretch> elementwise_runs(const std::vector<PlannedStep>& steps, const std::vector<bool>& carries) {
  // What the backward pass of each needs: nothing, or its inputs or result (to keep either is to keep a value of that size).
  static const std::set<std::string, std::less<>> keep_nothing = {"Add", "Sub", "Neg"};
  static const std::set<std::string, std::less<>> keep = {
      "Mul",   "Div",      "Pow", "Sqrt",        "Exp",       "Log", "Sigmoid",   "Tanh", "Erf", "Gelu",       "Relu",
      "Swish", "Softplus", "Elu", "HardSigmoid", "HardSwish", "Abs", "LeakyRelu", "Sin",  "Cos", "Reciprocal", "Clip"};
  const auto keeps = [&](std::size_t i) { return keep.contains(steps[i].op); };
  const auto elementwise = [&](std::size_t i) { return keeps(i) || keep_nothing.contains(steps[i].op); };
  std::map<int, std::size_t> last;  // position of a value's last reader
  for (std::size_t i = 0; i < steps.size(); ++i)
    for (int value : steps[i].in) last[value] = i;

  const auto pays = [&](const Stretch& run) {
    std::set<int> made, read, kept;
    for (std::size_t i = run.begin; i < run.end; ++i) {
      for (int value : steps[i].in)
        if (value >= 0 && carries[static_cast<std::size_t>(value)]) {
          if (!made.contains(value)) read.insert(value);
          if (keeps(i)) kept.insert(value);
        }
      for (int value : steps[i].out)
        if (value >= 0 && carries[static_cast<std::size_t>(value)]) {
          made.insert(value);
          if (keeps(i)) kept.insert(value);
        }
    }
    const auto inner = std::count_if(made.begin(), made.end(), [&](int value) {
      return kept.contains(value) && last.contains(value) && last.at(value) < run.end;
    });
    return inner > std::count_if(read.begin(), read.end(), [&](int value) { return !kept.contains(value); });
  };
  std::vector<Stretch> runs;
  for (std::size_t i = 0; i < steps.size();) {
    Stretch run{i, i};
    while (run.end < steps.size() && elementwise(run.end)) ++run.end;
    i = std::max(run.end, i + 1);
    while (run.begin < run.end && !keeps(run.begin)) ++run.begin;
    while (run.begin < run.end && !keeps(run.end - 1)) --run.end;
    if (run.end - run.begin > 1 && pays(run)) runs.push_back(run);
  }
  return runs;
}

std::vector<at::Tensor> recomputed(const std::vector<at::Tensor>& inputs, Recomputable work, std::vector<bool> differentiable) {
  // Only as a TensorList are several inputs seen as inputs.
  return Recompute::apply(at::TensorList(inputs), c10::make_intrusive<Work>(std::move(work), std::move(differentiable)));
}

}  // namespace espalier
