// The steps of a plan, executed.
#include <c10/core/GradMode.h>
#include <c10/util/Exception.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <chrono>

#include "run/narrow_product.h"
#include "run/recompute.h"
#include "run/session_impl.h"
#include "sdk/artifact.h"

namespace espalier {

std::string described(const std::vector<at::Tensor>& tensors) {
  std::string text;
  for (const at::Tensor& tensor : tensors) {
    if (!text.empty()) text += ", ";
    text +=
        tensor.defined() ? fmt::format("{} [{}]", c10::toString(tensor.scalar_type()), fmt::join(tensor.sizes(), ", ")) : "absent";
  }
  return text;
}

namespace {

[[noreturn]] void rethrow(const Node& node, const std::vector<at::Tensor>& inputs, const c10::Error& error) {
  std::string cause = error.what_without_backtrace();
  if (const auto end = cause.find('\n'); end != std::string::npos) cause.resize(end);
  const auto where = fmt::format("node {} ({})", node.name, node.op);
  if (cause.find("can't allocate memory") != std::string::npos)
    throw Error(ErrorCode::resource, "out of memory: " + cause, where, "use shorter sequences or smaller batches");
  const std::string text = fmt::format("{}; inputs: {}", cause, described(inputs));
  constexpr const char* no_kernel = "not implemented for";  // LibTorch's words where it has no kernel for an element type
  if (cause.find(no_kernel) != std::string::npos) throw_unsupported(text, where);
  throw_invalid(text, where);
}

}  // namespace

at::Tensor Session::Impl::accept(const Value& declared, const at::Tensor& given) const {
  if (!given.defined()) throw_invalid(fmt::format("input \"{}\" is an undefined tensor", declared.name), graph.name);
  const auto mismatch = [&] {
    throw_invalid(fmt::format("input \"{}\" has shape [{}], the graph declares {}", declared.name, fmt::join(given.sizes(), ", "),
                              text(declared.shape)),
                  graph.name);
  };
  if (!declared.shape.empty()) {  // an empty shape may also mean that the file said nothing
    if (static_cast<std::size_t>(given.dim()) != declared.shape.size()) mismatch();
    for (std::size_t i = 0; i < declared.shape.size(); ++i)
      if (declared.shape[i].known() && declared.shape[i].value() != given.size(static_cast<std::int64_t>(i))) mismatch();
  }
  if (given.is_floating_point()) return given.to(compute);
  if (declared.dtype == DType::undefined) return given;
  return given.to(is_floating(declared.dtype) ? compute : scalar_type(declared.dtype));
}

RunValue Session::Impl::accept(const Value& declared, const RunValue& given) const {
  if (!given.present()) return given;  // an empty optional
  if (!given.sequence) return accept(declared, given.tensor);
  if (!declared.sequence && declared.dtype != DType::undefined)
    throw_invalid(fmt::format("input \"{}\" is a sequence, the graph declares a tensor", declared.name), graph.name);
  std::vector<at::Tensor> elements = *given.sequence;
  for (at::Tensor& element : elements)
    if (element.is_floating_point()) element = element.to(compute);
  return elements;
}

std::vector<at::Tensor> Session::Impl::execute(const Step& step, const std::vector<at::Tensor>& inputs) const {
  std::vector<at::Tensor> outputs;
  try {
    if (emulates(step)) {
      std::vector<at::Tensor> rounded;
      for (const at::Tensor& input : inputs) rounded.push_back(input.defined() && is_narrow(input) ? input.to(compute) : input);
      outputs = step.run(RunView{graph, *step.node, rounded, compute});
      for (at::Tensor& output : outputs)
        if (output.defined() && output.scalar_type() == compute) output = output.to(scalar_type(options.products));
    } else {
      outputs = step.run(RunView{graph, *step.node, inputs, compute});
    }
  } catch (const c10::Error& error) {
    rethrow(*step.node, inputs, error);
  }
  if (outputs.size() < step.out.size())
    for (std::size_t i = outputs.size(); i < step.out.size(); ++i)
      if (step.out[i] != absent)
        throw_unsupported(fmt::format("output {} of operator {} is not computed by the runner", i, step.node->op),
                          "node " + step.node->name);
  return outputs;
}

void Session::Impl::execute_on_values(const Step& step, std::vector<RunValue> inputs, std::vector<at::Tensor>& values) {
  if (!step.run_values)
    throw_unsupported(fmt::format("operator {} does not take sequences", step.node->op), "node " + step.node->name);
  const std::span<const RunValue> all(inputs);
  const std::size_t own = step.node->inputs.size();
  std::vector<RunValue> outputs;
  try {
    outputs = step.run_values(ValuesView{graph, *step.node, all.first(own), all.subspan(own), *step.bodies, compute});
  } catch (const c10::Error& error) {
    std::vector<at::Tensor> tensors;
    for (const RunValue& input : all.first(own)) tensors.push_back(input.tensor);
    rethrow(*step.node, tensors, error);
  }
  if (outputs.size() < step.out.size())
    throw_unsupported(fmt::format("output {} of operator {} is not computed by the runner", outputs.size(), step.node->op),
                      "node " + step.node->name);
  for (std::size_t i = 0; i < step.out.size(); ++i) {
    if (step.out[i] == absent) continue;
    values[static_cast<std::size_t>(step.out[i])] = outputs[i].tensor;
    if (outputs[i].sequence) sequences[step.out[i]] = outputs[i].sequence;
  }
}

/// An initializer or a value in the products' type; what never changes is cast once.
at::Tensor Session::Impl::narrow(int slot, const at::Tensor& value) {
  const auto type = scalar_type(options.products);
  const auto at = static_cast<std::size_t>(slot);
  if ((!bound[at].defined() && !folded[at].defined()) || value.requires_grad() || hooks[at]) return value.to(type);
  if (!narrowed[at].defined()) {
    narrowed[at] = value.to(type);
    if (options.narrowed) {
      narrowed_kept[at] = options.narrowed(from_aten(narrowed[at]));
      narrowed[at] = to_aten(narrowed_kept[at]);
    }
    if (const Tensor* source = graph.initializer(names[at])) MappedFile::release(source->owner, source->bytes);  // read seldom now
  }
  return narrowed[at];
}

/// x · W with a trainable W that only products read, in a pass that records: its gradient stays in the products' type.
bool Session::Impl::narrows_gradient(const Step& step, const Values& values) const {
  if (!narrow_gradients || step.node->op != "MatMul" || !step.node->domain.empty() || emulates(step) ||
      !c10::GradMode::is_enabled())
    return false;
  if (step.in[0] == absent || step.in[1] == absent) return false;
  const auto at = static_cast<std::size_t>(step.in[1]);
  const at::Tensor& x = values[static_cast<std::size_t>(step.in[0])];
  // In a stretch that is run again the weight is a copy, whose gradient goes its own way.
  return product_weight[at] && values[at].is_same(bound[at]) && values[at].requires_grad() && values[at].dim() == 2 &&
         x.dim() >= 2 && x.is_floating_point();
}

/// An initializer's pages leave memory until it is read again.
void Session::Impl::rest(std::size_t slot) const {
  if (bound[slot].defined()) {
    const Tensor& source = graph.initializers.at(names[slot]);
    MappedFile::release(source.owner, source.bytes);
  }
  MappedFile::release(narrowed_kept[slot].owner, narrowed_kept[slot].bytes);
}

void Session::Impl::advance(const Plan& plan, std::size_t begin, std::size_t end, Values& values) {
  std::vector<at::Tensor> arguments;
  Values low(mixed() ? names.size() : 0);  // each value is cast once, however many products read it
  const auto fitted = [&](const Step& step, int slot) {
    const auto at = static_cast<std::size_t>(slot);
    const at::Tensor& value = values[at];
    if (!mixed() || !value.defined() || !value.is_floating_point() || step.operands == Operands::any) return value;
    if (step.operands == Operands::wide) return is_narrow(value) ? value.to(compute) : value;
    if (value.scalar_type() != compute) return value;
    if (!low[at].defined()) low[at] = narrow(slot, value);
    return low[at];
  };
  for (std::size_t position = begin; position < end; ++position) {
    const Step& step = steps[static_cast<std::size_t>(plan.steps[position])];
    const auto start = timer ? std::chrono::steady_clock::now() : std::chrono::steady_clock::time_point();
    if (!step.run || any_sequence(step)) {
      std::vector<RunValue> given;
      for (int slot : step.in) {
        RunValue& value = given.emplace_back();
        if (slot == absent) continue;
        if (const auto found = sequences.find(slot); found != sequences.end())
          value.sequence = found->second;
        else
          value.tensor = fitted(step, slot);
      }
      execute_on_values(step, std::move(given), values);
    } else if (narrows_gradient(step, values)) {
      const auto slot = static_cast<std::size_t>(step.in[1]);
      values[static_cast<std::size_t>(step.out[0])] =
          narrow_product(fitted(step, step.in[0]), bound[slot], [this, slot](at::Tensor slope) {
            at::Tensor& sum = narrow_slopes[slot];
            sum = sum.defined() ? sum.add(slope) : std::move(slope);
          });
    } else {
      arguments.clear();
      for (int slot : step.in) arguments.push_back(slot == absent ? at::Tensor() : fitted(step, slot));
      std::vector<at::Tensor> outputs = execute(step, arguments);
      for (std::size_t i = 0; i < step.out.size(); ++i)
        if (step.out[i] != absent) values[static_cast<std::size_t>(step.out[i])] = std::move(outputs[i]);
    }
    if (timer) timer(*step.node, std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count());
    if (hooked)
      for (int slot : step.out)
        if (slot != absent && values[static_cast<std::size_t>(slot)].defined()) after(slot, values[static_cast<std::size_t>(slot)]);
    for (int slot : plan.release[position]) {
      values[static_cast<std::size_t>(slot)].reset();
      if (!sequences.empty()) sequences.erase(slot);
      if (!low.empty()) low[static_cast<std::size_t>(slot)].reset();
      if (options.release_weights) rest(static_cast<std::size_t>(slot));
    }
  }
}

void Session::Impl::advance_twice(const std::shared_ptr<const Plan>& plan, const Recomputed& stretch, Values& values) {
  std::vector<at::Tensor> inputs;
  for (int slot : stretch.reads) inputs.push_back(values[static_cast<std::size_t>(slot)]);
  const auto work = [this, plan, &stretch](const std::vector<at::Tensor>& given) {
    Values inner(names.size());
    for (std::size_t i = 0; i < given.size(); ++i) inner[static_cast<std::size_t>(stretch.reads[i])] = given[i];
    advance(*plan, stretch.begin, stretch.end, inner);
    std::vector<at::Tensor> outputs;
    for (int slot : stretch.writes) outputs.push_back(inner[static_cast<std::size_t>(slot)]);
    return outputs;
  };
  std::vector<at::Tensor> outputs = recomputed(inputs, work, stretch.carries);
  for (std::size_t i = 0; i < outputs.size(); ++i) values[static_cast<std::size_t>(stretch.writes[i])] = std::move(outputs[i]);
  for (std::size_t position = stretch.begin; position < stretch.end; ++position)
    for (int slot : plan->release[position]) values[static_cast<std::size_t>(slot)].reset();
}

}  // namespace espalier
