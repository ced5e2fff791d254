#include "run/session.h"

#include <c10/core/GradMode.h>
#include <c10/util/Exception.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <chrono>
#include <optional>
#include <set>
#include <unordered_map>

#include "graph/op.h"
#include "run/op.h"
#include "run/precision.h"
#include "run/recompute.h"
#include "sdk/artifact.h"
#include "sdk/error.h"

namespace espalier {
namespace {

constexpr int absent = -1;

/// A node with its values as numbers: the loop over nodes looks nothing up by name.
struct Step {
  const Node* node;
  RunFunction run;            ///< on tensors, or
  ValuesFunction run_values;  ///< on values, where there is no other or an input is a sequence
  std::vector<int> in, out;   ///< what the node's bodies capture follows its inputs
  Operands operands = Operands::wide;
  std::shared_ptr<Bodies> bodies;
};

using Sequence = std::shared_ptr<const std::vector<at::Tensor>>;

/// A stretch of a plan that is run again in the backward pass.
struct Recomputed {
  std::size_t begin, end;          ///< positions in the plan
  std::vector<int> reads, writes;  ///< slots from before it; slots for after it
  std::vector<bool> carries;       ///< by `writes`
};

/// What to run for one set of wanted values.
struct Plan {
  std::vector<int> steps;
  std::vector<std::vector<int>> release;  ///< by position in `steps`: slots not read any more
  std::vector<int> inputs;                ///< graph inputs that the steps read, as indices into graph.inputs
  std::vector<int> wanted;
  std::vector<Recomputed> stretches;  ///< in order
};

/// A floating constant at this input is no weight.
bool reads_constant(const Graph& graph, const Node& node, std::size_t input, const Tensor& tensor) {
  if (const Operator* op = find_operator(graph, node);
      op && std::find(op->settings.begin(), op->settings.end(), input) != op->settings.end())
    return true;
  static const std::set<std::string, std::less<>> elementwise = {"Add",   "Sub", "Mul", "Div",  "Min", "Max",
                                                                 "Where", "Pow", "Sum", "Mean", "Mod"};
  return tensor.count() == 1 && elementwise.contains(node.op);
}

std::string shapes(const std::vector<at::Tensor>& tensors) {
  std::string text;
  for (const at::Tensor& tensor : tensors) {
    if (!text.empty()) text += ", ";
    text +=
        tensor.defined() ? fmt::format("{} [{}]", c10::toString(tensor.scalar_type()), fmt::join(tensor.sizes(), ", ")) : "absent";
  }
  return text;
}

[[noreturn]] void rethrow(const Node& node, const std::vector<at::Tensor>& inputs, const c10::Error& error) {
  std::string cause = error.what_without_backtrace();
  if (const auto end = cause.find('\n'); end != std::string::npos) cause.resize(end);
  const auto where = fmt::format("node {} ({})", node.name, node.op);
  if (cause.find("can't allocate memory") != std::string::npos)
    throw Error(ErrorCode::resource, "out of memory: " + cause, where, "use shorter sequences or smaller batches");
  const std::string text = fmt::format("{}; inputs: {}", cause, shapes(inputs));
  constexpr const char* no_kernel = "not implemented for";  // LibTorch's words where it has no kernel for an element type
  if (cause.find(no_kernel) != std::string::npos) throw_unsupported(text, where);
  throw_invalid(text, where);
}

}  // namespace

std::vector<std::string> learnable(const Graph& graph) {
  std::set<std::string> names;
  for (const Node& node : graph.nodes)
    for (std::size_t i = 0; i < node.inputs.size(); ++i)
      if (const Tensor* tensor = graph.initializer(node.inputs[i]);
          tensor && is_floating(tensor->dtype) && !reads_constant(graph, node, i, *tensor))
        names.insert(node.inputs[i]);
  return {names.begin(), names.end()};
}

/// A subgraph as a session of its own: what it captures are more of its inputs. Types and lengths are those of what comes in,
/// whatever the body declares, as each round of a loop may bring others.
class SessionBody final : public Body {
 public:
  SessionBody(const Graph& body, const std::vector<std::string>& captured, const SessionOptions& options)
      : session_(opened(body), options) {
    for (const Value& input : body.inputs) inputs_.push_back(input.name);
    for (const Value& output : body.outputs) outputs_.push_back(output.name);
    for (const std::string& name : captures(body))
      captured_.emplace_back(std::lower_bound(captured.begin(), captured.end(), name) - captured.begin(), name);
  }

  std::size_t inputs() const override { return inputs_.size(); }

  std::vector<RunValue> run(const std::vector<RunValue>& inputs, std::span<const RunValue> captured) override {
    RunValues given;
    for (std::size_t i = 0; i < inputs_.size(); ++i) given[inputs_[i]] = inputs[i];
    for (const auto& [at, name] : captured_) given[name] = captured[static_cast<std::size_t>(at)];
    const RunValues made = session_.run_values(given, outputs_);
    std::vector<RunValue> out;
    for (const std::string& name : outputs_) out.push_back(made.at(name));
    return out;
  }

 private:
  static Graph opened(const Graph& body) {
    Graph graph = body;
    for (Value& input : graph.inputs) input = {input.name, DType::undefined, {}, input.sequence};
    for (const std::string& name : captures(body)) graph.inputs.push_back({name, DType::undefined, {}});
    return graph;
  }

  Session session_;
  std::vector<std::string> inputs_, outputs_;
  std::vector<std::pair<std::ptrdiff_t, std::string>> captured_;  ///< place among the node's captures
};

struct Session::Impl {
  Graph graph;
  SessionOptions options;
  c10::ScalarType compute;
  std::unordered_map<std::string, int> slots;
  std::vector<std::string> names;  ///< by slot
  std::vector<Step> steps;
  std::vector<int> producer;       ///< by slot: step, or absent
  std::vector<at::Tensor> bound;   ///< by slot: initializers
  std::vector<at::Tensor> folded;  ///< by slot: values that depend on frozen initializers alone, when a plan reads them
  std::vector<bool> kept;          ///< by slot: some plan reads the folded value
  std::vector<Hook> hooks;
  std::vector<std::string> trainable;
  std::set<std::string> changed;                                          ///< set by set_parameter()
  std::map<std::vector<std::string>, std::shared_ptr<const Plan>> plans;  ///< shared with backward passes to come
  std::vector<bool> narrow_only;                                          ///< by slot: nothing but products reads it
  std::vector<at::Tensor> narrowed;             ///< by slot: initializers that stay as they are, in the products' type
  std::unordered_map<int, Sequence> sequences;  ///< by slot, during a run
  bool hooked = false;
  NodeTimer timer;

  int slot_of(const std::string& name) {
    const auto [at, fresh] = slots.try_emplace(name, static_cast<int>(names.size()));
    if (fresh) names.push_back(name);
    return at->second;
  }
  int find(const std::string& name, const char* what) const {
    const auto found = slots.find(name);
    if (found == slots.end()) throw_invalid(fmt::format("the graph has no {} \"{}\"", what, name), graph.name);
    return found->second;
  }
  int initializer(const std::string& name) const {
    if (!graph.initializers.contains(name)) throw_invalid(fmt::format("the graph has no initializer \"{}\"", name), graph.name);
    return slots.at(name);
  }

  void bind();
  std::vector<bool> constant_slots() const;
  Plan make_plan(const std::vector<std::string>& wanted, const std::vector<int>& given);
  void fold(const std::vector<int>& order, const std::vector<int>& targets);
  void forget() {  // folded values and plans depend on what is frozen and hooked
    plans.clear();
    std::fill(narrowed.begin(), narrowed.end(), at::Tensor());
    std::fill(folded.begin(), folded.end(), at::Tensor());
    std::fill(kept.begin(), kept.end(), false);
  }
  at::Tensor accept(const Value& declared, const at::Tensor& given) const;
  RunValue accept(const Value& declared, const RunValue& given) const;
  bool any_sequence(const Step& step) const {
    return !sequences.empty() && std::any_of(step.in.begin(), step.in.end(), [&](int slot) { return sequences.contains(slot); });
  }
  void execute_on_values(const Step& step, std::vector<RunValue> inputs, std::vector<at::Tensor>& values);
  std::vector<at::Tensor> execute(const Step& step, const std::vector<at::Tensor>& inputs) const;
  bool mixed() const { return options.products != DType::undefined && options.products != options.compute; }
  bool is_narrow(const at::Tensor& value) const { return value.scalar_type() == scalar_type(options.products); }
  bool emulates(const Step& step) const {
    return mixed() && options.products == DType::bf16 && options.emulate_bf16 && step.operands == Operands::narrow;
  }
  at::Tensor narrow(int slot, const at::Tensor& value);
  std::vector<bool> carrying(const Plan& plan) const;
  void find_stretches(Plan& plan) const;
  using Values = std::vector<at::Tensor>;
  void advance(const Plan& plan, std::size_t begin, std::size_t end, Values& values);
  void advance_twice(const std::shared_ptr<const Plan>& plan, const Recomputed& stretch, Values& values);
  void after(int slot, at::Tensor& value) {
    const Hook& hook = hooks[static_cast<std::size_t>(slot)];
    if (!hook) return;
    if (at::Tensor replaced = hook(names[static_cast<std::size_t>(slot)], value); replaced.defined()) value = std::move(replaced);
  }
  bool grad_possible(const std::vector<at::Tensor>& values) const {
    return hooked || !trainable.empty() ||
           std::any_of(values.begin(), values.end(), [](const at::Tensor& t) { return t.defined() && t.requires_grad(); });
  }
};

void Session::Impl::bind() {
  for (const Value& input : graph.inputs) slot_of(input.name);
  for (const auto& [name, tensor] : graph.initializers) {
    const auto slot = static_cast<std::size_t>(slot_of(name));
    bound.resize(names.size());
    if (tensor.dtype == DType::string) continue;  // carried, not computed with
    at::Tensor value = to_aten(tensor);
    bound[slot] = is_floating(tensor.dtype) ? value.to(compute) : value;
  }
  for (const Node& node : graph.nodes) {
    const RunFunction run = find_run(node.domain, node.op);
    const ValuesFunction run_values = find_values_run(node.domain, node.op);
    if (!run && !run_values)
      throw_unsupported(
          fmt::format("operator {}{} is not supported by the runner", node.domain.empty() ? "" : node.domain + "::", node.op),
          fmt::format("node {}", node.name));
    Step step{&node, run, run_values, {}, {}, operands_of(node), std::make_shared<Bodies>()};
    for (const std::string& name : node.inputs) step.in.push_back(name.empty() ? absent : find(name, "value"));
    const std::vector<std::string> captured = captures(node);
    for (const std::string& name : captured) step.in.push_back(find(name, "value"));
    for (const auto& [name, attribute] : node.attributes)
      if (const auto* body = std::get_if<std::shared_ptr<Graph>>(&attribute); body && *body)
        step.bodies->emplace(name, std::make_unique<SessionBody>(**body, captured, options));
    for (const std::string& name : node.outputs) step.out.push_back(name.empty() ? absent : slot_of(name));
    steps.push_back(std::move(step));
  }
  for (const Value& output : graph.outputs) find(output.name, "output");
  producer.assign(names.size(), absent);
  for (std::size_t i = 0; i < steps.size(); ++i)
    for (int slot : steps[i].out)
      if (slot != absent) producer[static_cast<std::size_t>(slot)] = static_cast<int>(i);
  bound.resize(names.size());
  folded.resize(names.size());
  kept.resize(names.size());
  hooks.resize(names.size());
  narrowed.resize(names.size());
  narrow_only.assign(names.size(), mixed());
  std::vector<bool> read(names.size(), false);
  for (const Step& step : steps)
    for (int slot : step.in)
      if (slot != absent) {
        read[static_cast<std::size_t>(slot)] = true;
        if (step.operands != Operands::narrow) narrow_only[static_cast<std::size_t>(slot)] = false;
      }
  for (std::size_t slot = 0; slot < names.size(); ++slot)
    if (!read[slot] || bound[slot].defined()) narrow_only[slot] = false;
}

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

Plan Session::Impl::make_plan(const std::vector<std::string>& wanted, const std::vector<int>& given) {
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

/// An initializer or a value in the products' type; what never changes is cast once.
at::Tensor Session::Impl::narrow(int slot, const at::Tensor& value) {
  const auto type = scalar_type(options.products);
  const auto at = static_cast<std::size_t>(slot);
  if ((!bound[at].defined() && !folded[at].defined()) || value.requires_grad() || hooks[at]) return value.to(type);
  if (!narrowed[at].defined()) {
    narrowed[at] = value.to(type);
    if (const Tensor* source = graph.initializer(names[at])) MappedFile::release(source->owner, source->bytes);  // read seldom now
  }
  return narrowed[at];
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
      if (options.release_weights && bound[static_cast<std::size_t>(slot)].defined()) {
        const Tensor& source = graph.initializers.at(names[static_cast<std::size_t>(slot)]);
        MappedFile::release(source.owner, source.bytes);
      }
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
    throw_invalid(fmt::format("initializer \"{}\" is bound to a value of another shape: {}", name, shapes({held, value})),
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
        found != self.slots.end() && self.producer[static_cast<std::size_t>(found->second)] != absent)
      given.push_back(found->second);
  std::vector<std::string> key = wanted;
  if (!given.empty()) {
    key.emplace_back();  // no value has an empty name
    for (int slot : given) key.push_back(self.names[static_cast<std::size_t>(slot)]);
  }
  auto found = self.plans.find(key);
  if (found == self.plans.end()) found = self.plans.emplace(key, std::make_shared<const Plan>(self.make_plan(wanted, given))).first;
  const Plan& plan = *found->second;

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
      if (self.producer[slot] == absent && values[slot].defined()) self.after(static_cast<int>(slot), values[slot]);

  std::size_t done = 0;
  if (!self.hooked && !from_inputs && c10::GradMode::is_enabled())
    for (const Recomputed& stretch : plan.stretches) {
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
    const bool cast = self.narrow_only[static_cast<std::size_t>(slot)] && value.defined() && value.is_floating_point();
    out[name].tensor = cast ? value.to(scalar_type(self.options.products)) : value;
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
