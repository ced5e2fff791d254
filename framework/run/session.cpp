#include "run/session.h"

#include <c10/core/GradMode.h>
#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <set>

#include "graph/learnable.h"
#include "graph/op.h"
#include "run/session_impl.h"
#include "sdk/artifact.h"
#include "sdk/error.h"

namespace espalier {

Session::Session(const Graph& graph, SessionOptions options) : impl_(std::make_unique<Impl>()) {
  impl_->graph = graph;
  impl_->options = options;
  if (!is_floating(options.compute)) throw Error(ErrorCode::internal, "Session: the compute type must be floating");
  impl_->compute = scalar_type(options.compute);
  impl_->bind();
}
Session::~Session() = default;
Session::Session(Session&&) noexcept = default;

std::vector<std::string> Session::train(const std::vector<std::string>& names) {
  Impl& self = *impl_;
  const std::vector<std::string> all = names.empty() ? learnable(self.graph) : names;
  for (const std::string& name : all) {
    at::Tensor& value = self.bound[static_cast<std::size_t>(self.initializer(name))];
    if (!value.defined() || !value.is_floating_point())
      throw_invalid(fmt::format("initializer \"{}\" holds {}: only floating tensors can be trained", name,
                                to_string(self.graph.initializers.at(name).dtype)),
                    self.graph.name);
    if (value.requires_grad() && value.is_leaf() &&
        std::find(self.trainable.begin(), self.trainable.end(), name) != self.trainable.end())
      continue;
    value = value.detach().clone(at::MemoryFormat::Contiguous).set_requires_grad(true);
    const Tensor& source = self.graph.initializers.at(name);
    MappedFile::release(source.owner, source.bytes);  // the copy is what counts now
    self.trainable.push_back(name);
  }
  self.forget();
  return all;
}

at::Tensor Session::parameter(const std::string& name) const {
  return impl_->bound[static_cast<std::size_t>(impl_->initializer(name))];
}

void Session::set_parameter(const std::string& name, at::Tensor value) {
  Impl& self = *impl_;
  at::Tensor& held = self.bound[static_cast<std::size_t>(self.initializer(name))];
  if (!value.defined() || !held.defined() || value.sizes() != held.sizes())
    throw_invalid(fmt::format("initializer \"{}\" is bound to a value of another shape: {}", name, described({held, value})),
                  self.graph.name);
  value = value.to(held.scalar_type());
  if (std::find(self.trainable.begin(), self.trainable.end(), name) != self.trainable.end()) {
    c10::AutoGradMode off(false);
    held.copy_(value);
  } else {
    held = std::move(value);
    self.forget();
  }
  self.changed.insert(name);
}

const std::vector<std::string>& Session::trainable() const { return impl_->trainable; }

at::Tensor Session::gradient(const std::string& name) const {
  const auto slot = static_cast<std::size_t>(impl_->initializer(name));
  const at::Tensor wide = impl_->bound[slot].grad(), &narrow = impl_->narrow_slopes[slot];
  if (wide.defined() && narrow.defined()) return wide.add(narrow);
  return wide.defined() ? wide : narrow;
}

void Session::forget_gradients() {
  for (const std::string& name : impl_->trainable)
    impl_->bound[static_cast<std::size_t>(impl_->slots.at(name))].mutable_grad().reset();
  std::fill(impl_->narrow_slopes.begin(), impl_->narrow_slopes.end(), at::Tensor());
}

void Session::narrow_gradients(bool on) {
  impl_->narrow_gradients = on;
  forget_gradients();
}

TensorMap Session::run(const TensorMap& inputs, const std::vector<std::string>& wanted) {
  TensorMap out;
  for (auto& [name, value] : run_values({inputs.begin(), inputs.end()}, wanted)) {
    if (value.sequence) throw_unsupported(fmt::format("value \"{}\" is a sequence, a tensor is wanted", name), impl_->graph.name);
    if (!value.tensor.defined()) throw_invalid(fmt::format("value \"{}\" is neither given nor computed", name), impl_->graph.name);
    out[name] = std::move(value.tensor);
  }
  return out;
}

RunValues Session::run_values(const RunValues& inputs, const std::vector<std::string>& wanted) {
  Impl& self = *impl_;
  std::vector<at::Tensor> values(self.names.size());
  self.sequences.clear();
  std::vector<int> given;
  for (const auto& [name, value] : inputs)
    if (const auto found = self.slots.find(name);
        found != self.slots.end() && self.producer[static_cast<std::size_t>(found->second)] != Impl::absent)
      given.push_back(found->second);
  std::vector<std::string> key = wanted;
  if (!given.empty()) {
    key.emplace_back();  // no value has an empty name
    for (int slot : given) key.push_back(self.names[static_cast<std::size_t>(slot)]);
  }
  auto found = self.plans.find(key);
  if (found == self.plans.end())
    found = self.plans.emplace(key, std::make_shared<const Impl::Plan>(self.make_plan(wanted, given))).first;
  const Impl::Plan& plan = *found->second;

  for (std::size_t slot = 0; slot < values.size(); ++slot)
    values[slot] = self.bound[slot].defined() ? self.bound[slot] : self.folded[slot];
  const auto put = [&](int slot, const RunValue& value) {
    values[static_cast<std::size_t>(slot)] = value.tensor;
    if (value.sequence) self.sequences[slot] = value.sequence;
  };
  for (int slot : given) put(slot, inputs.at(self.names[static_cast<std::size_t>(slot)]));
  for (int number : plan.inputs) {
    const Value& declared = self.graph.inputs[static_cast<std::size_t>(number)];
    const auto value = inputs.find(declared.name);
    if (value == inputs.end())
      throw_invalid(fmt::format("input \"{}\" {} is missing", declared.name, text(declared.shape)), self.graph.name);
    put(self.slots.at(declared.name), self.accept(declared, value->second));
  }
  std::optional<c10::AutoGradMode> off;
  if (!self.grad_possible(values)) off.emplace(false);
  // Which values carry gradients was asked of the parameters alone.
  const bool from_inputs = std::any_of(inputs.begin(), inputs.end(), [](const auto& each) {
    return each.second.tensor.defined() && each.second.tensor.requires_grad();
  });
  if (self.hooked)
    for (std::size_t slot = 0; slot < values.size(); ++slot)
      if (self.producer[slot] == Impl::absent && values[slot].defined()) self.after(static_cast<int>(slot), values[slot]);

  std::size_t done = 0;
  if (!self.hooked && !from_inputs && c10::GradMode::is_enabled())
    for (const Impl::Recomputed& stretch : plan.stretches) {
      self.advance(plan, done, stretch.begin, values);
      self.advance_twice(found->second, stretch, values);
      done = stretch.end;
    }
  self.advance(plan, done, plan.steps.size(), values);
  RunValues out;
  for (int slot : plan.wanted) {
    const std::string& name = self.names[static_cast<std::size_t>(slot)];
    if (const auto found_sequence = self.sequences.find(slot); found_sequence != self.sequences.end()) {
      out[name].sequence = found_sequence->second;
      continue;
    }
    at::Tensor& value = values[static_cast<std::size_t>(slot)];
    const auto at = static_cast<std::size_t>(slot);
    // A head's weight that rests is given in the type of the products that it is asked for: its wide pages are not read again.
    const bool resting = self.options.release_weights && self.mixed() && self.bound[at].defined();
    if (value.defined() && value.is_floating_point() && (resting || self.narrow_only[at]))
      value = resting ? self.narrow(slot, value) : value.to(scalar_type(self.options.products));
    out[name].tensor = value;
  }
  self.sequences.clear();
  return out;
}

void Session::hook(const std::string& value, Hook hook) {
  Impl& self = *impl_;
  self.hooks[static_cast<std::size_t>(self.find(value, "value"))] = std::move(hook);
  self.hooked = std::any_of(self.hooks.begin(), self.hooks.end(), [](const Hook& h) { return static_cast<bool>(h); });
  self.forget();
}

void Session::observe(NodeTimer timer) { impl_->timer = std::move(timer); }

Graph Session::graph() const {
  Graph out = impl_->graph;
  std::set<std::string> names = impl_->changed;
  names.insert(impl_->trainable.begin(), impl_->trainable.end());
  for (const std::string& name : names) {
    Tensor& tensor = out.initializers.at(name);
    // A clone: the session may go on training its own copy.
    tensor = from_aten(parameter(name).detach().to(scalar_type(tensor.dtype)).clone());
  }
  return out;
}

}  // namespace espalier
