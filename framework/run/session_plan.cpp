// Which steps run for what is wanted, what is computed once, what is released when, and what runs twice.
#include <c10/core/GradMode.h>

#include "run/recompute.h"
#include "run/session_impl.h"

namespace espalier {

/// Slots whose value no input, trainable parameter or hook can change.
std::vector<bool> Session::Impl::constant_slots() const {
  std::vector<bool> constant(names.size(), false);
  for (std::size_t slot = 0; slot < names.size(); ++slot)
    constant[slot] = bound[slot].defined() && !bound[slot].requires_grad() && !hooks[slot];
  if (!options.fold_constants) return constant;
  for (const Step& step : steps) {
    if (!step.run) continue;
    const bool all =
        std::all_of(step.in.begin(), step.in.end(), [&](int s) { return s == absent || constant[static_cast<std::size_t>(s)]; });
    const bool seen =
        std::any_of(step.out.begin(), step.out.end(), [&](int s) { return s != absent && hooks[static_cast<std::size_t>(s)]; });
    if (all && !seen)
      for (int slot : step.out)
        if (slot != absent) constant[static_cast<std::size_t>(slot)] = true;
  }
  return constant;
}

void Session::Impl::fold(const std::vector<int>& order, const std::vector<int>& targets) {
  c10::AutoGradMode off(false);
  for (int slot : targets) kept[static_cast<std::size_t>(slot)] = true;
  std::vector<at::Tensor> inputs;
  for (int number : order) {
    const Step& step = steps[static_cast<std::size_t>(number)];
    inputs.clear();
    for (int slot : step.in) {
      const auto at = static_cast<std::size_t>(slot);
      inputs.push_back(slot == absent ? at::Tensor() : bound[at].defined() ? bound[at] : folded[at]);
    }
    std::vector<at::Tensor> outputs = execute(step, inputs);
    for (std::size_t i = 0; i < step.out.size(); ++i)
      if (step.out[i] != absent) folded[static_cast<std::size_t>(step.out[i])] = std::move(outputs[i]);
  }
  for (std::size_t slot = 0; slot < folded.size(); ++slot)
    if (!kept[slot]) folded[slot].reset();
}

Session::Impl::Plan Session::Impl::make_plan(const std::vector<std::string>& wanted, const std::vector<int>& given) {
  Plan plan;
  if (wanted.empty())
    for (const Value& output : graph.outputs) plan.wanted.push_back(slots.at(output.name));
  for (const std::string& name : wanted) plan.wanted.push_back(find(name, "value"));

  const std::vector<bool> constant = constant_slots();
  std::vector<bool> needed(names.size(), false), reads(steps.size(), false), stop(names.size(), false);
  for (int slot : given) stop[static_cast<std::size_t>(slot)] = true;
  for (int slot : plan.wanted) needed[static_cast<std::size_t>(slot)] = true;
  std::vector<int> constants, fold_order;
  for (int number = static_cast<int>(steps.size()) - 1; number >= 0; --number) {
    const Step& step = steps[static_cast<std::size_t>(number)];
    const auto read = [&](int slot) {
      return slot != absent && needed[static_cast<std::size_t>(slot)] && !stop[static_cast<std::size_t>(slot)];
    };
    if (std::none_of(step.out.begin(), step.out.end(), read)) continue;
    const bool foldable =
        std::all_of(step.out.begin(), step.out.end(), [&](int s) { return s == absent || constant[static_cast<std::size_t>(s)]; });
    (foldable ? fold_order : plan.steps).push_back(number);
    for (int slot : step.in)
      if (slot != absent) needed[static_cast<std::size_t>(slot)] = true;
    reads[static_cast<std::size_t>(number)] = !foldable;
  }
  std::reverse(plan.steps.begin(), plan.steps.end());
  std::reverse(fold_order.begin(), fold_order.end());

  std::vector<bool> read_at_run(names.size(), false);
  for (int number : plan.steps)
    for (int slot : steps[static_cast<std::size_t>(number)].in)
      if (slot != absent) read_at_run[static_cast<std::size_t>(slot)] = true;
  for (int slot : plan.wanted) read_at_run[static_cast<std::size_t>(slot)] = true;
  for (int number : fold_order)
    for (int slot : steps[static_cast<std::size_t>(number)].out)
      if (slot != absent && read_at_run[static_cast<std::size_t>(slot)]) constants.push_back(slot);
  fold(fold_order, constants);

  for (std::size_t i = 0; i < graph.inputs.size(); ++i) {
    const auto slot = static_cast<std::size_t>(slots.at(graph.inputs[i].name));
    if (read_at_run[slot] && !bound[slot].defined()) plan.inputs.push_back(static_cast<int>(i));
  }
  plan.release.resize(plan.steps.size());
  std::vector<bool> last(names.size(), false);
  for (int slot : plan.wanted) last[static_cast<std::size_t>(slot)] = true;
  for (std::size_t position = plan.steps.size(); position-- > 0;) {
    const Step& step = steps[static_cast<std::size_t>(plan.steps[position])];
    for (const auto* list : {&step.in, &step.out})
      for (int slot : *list)
        if (slot != absent && !last[static_cast<std::size_t>(slot)]) {
          last[static_cast<std::size_t>(slot)] = true;
          plan.release[position].push_back(slot);
        }
  }
  find_stretches(plan);
  return plan;
}

/// Values that a gradient flows through.
std::vector<bool> Session::Impl::carrying(const Plan& plan) const {
  std::vector<bool> carries(names.size(), false);
  for (std::size_t slot = 0; slot < names.size(); ++slot) carries[slot] = bound[slot].defined() && bound[slot].requires_grad();
  for (int number : plan.steps) {
    const Step& step = steps[static_cast<std::size_t>(number)];
    if (std::none_of(step.in.begin(), step.in.end(), [&](int s) { return s != absent && carries[static_cast<std::size_t>(s)]; }))
      continue;
    for (int slot : step.out)
      if (slot != absent) carries[static_cast<std::size_t>(slot)] = true;
  }
  return carries;
}

void Session::Impl::find_stretches(Plan& plan) const {
  if (std::any_of(plan.steps.begin(), plan.steps.end(), [&](int s) { return !steps[static_cast<std::size_t>(s)].run; })) return;
  const std::vector<bool> carries = carrying(plan);
  if (std::none_of(carries.begin(), carries.end(), [](bool each) { return each; })) return;
  std::vector<PlannedStep> planned;
  for (int number : plan.steps) {
    const Step& step = steps[static_cast<std::size_t>(number)];
    planned.push_back({step.node->domain.empty() ? step.node->op : step.node->domain + "::" + step.node->op,
                       step.operands == Operands::narrow, step.in, step.out});
  }
  std::vector<std::size_t> last(names.size(), 0);  // position of a slot's last reader
  for (std::size_t i = 0; i < planned.size(); ++i)
    for (int slot : planned[i].in)
      if (slot != absent) last[static_cast<std::size_t>(slot)] = i;
  for (int slot : plan.wanted) last[static_cast<std::size_t>(slot)] = planned.size();
  for (const Stretch& found : options.recompute ? repeated_stretches(planned, carries) : elementwise_runs(planned, carries)) {
    Recomputed stretch{found.begin, found.end, {}, {}, {}};
    std::set<int> made, read;
    for (std::size_t i = found.begin; i < found.end; ++i) {
      for (int slot : planned[i].in)
        if (slot != absent && !made.contains(slot) && read.insert(slot).second) stretch.reads.push_back(slot);
      for (int slot : planned[i].out)
        if (slot != absent) made.insert(slot);
    }
    for (int slot : made)
      if (last[static_cast<std::size_t>(slot)] >= found.end) {
        stretch.writes.push_back(slot);
        stretch.carries.push_back(carries[static_cast<std::size_t>(slot)]);
      }
    plan.stretches.push_back(std::move(stretch));
  }
}

}  // namespace espalier
