#pragma once
/// What a session is made of. Only session*.cpp includes this.
#include <algorithm>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "run/session.h"
#include "sdk/error.h"

namespace espalier {

/// Element types and shapes, for messages.
std::string described(const std::vector<at::Tensor>& tensors);

struct Session::Impl {
  static constexpr int absent = -1;

  /// A node with its values as numbers: the loop over nodes looks nothing up by name.
  struct Step {
    const Node* node;
    RunFunction run;            ///< on tensors, or
    ValuesFunction run_values;  ///< on values, where there is no other or an input is a sequence
    std::vector<int> in, out;   ///< what the node's bodies capture follows its inputs
    Operands operands = Operands::wide;
    std::shared_ptr<Bodies> bodies;
  };

  using Values = std::vector<at::Tensor>;
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
  std::vector<bool> product_weight;             ///< by slot: an initializer that nothing but products reads
  bool narrow_gradients = false;                ///< of product weights
  std::vector<at::Tensor> narrow_slopes;        ///< by slot: gradients of product weights, until forgotten
  std::vector<at::Tensor> narrowed;             ///< by slot: initializers that stay as they are, in the products' type
  std::vector<Tensor> narrowed_kept;            ///< the same where options.narrowed has put them
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
    if (found == slots.end()) throw_invalid("the graph has no " + std::string(what) + " \"" + name + "\"", graph.name);
    return found->second;
  }
  int initializer(const std::string& name) const {
    if (!graph.initializers.contains(name)) throw_invalid("the graph has no initializer \"" + name + "\"", graph.name);
    return slots.at(name);
  }

  void bind();
  std::vector<bool> constant_slots() const;
  Plan make_plan(const std::vector<std::string>& wanted, const std::vector<int>& given);
  void fold(const std::vector<int>& order, const std::vector<int>& targets);
  void forget() {  // folded values and plans depend on what is frozen and hooked
    plans.clear();
    std::fill(narrowed.begin(), narrowed.end(), at::Tensor());
    std::fill(narrow_slopes.begin(), narrow_slopes.end(), at::Tensor());
    std::fill(narrowed_kept.begin(), narrowed_kept.end(), Tensor());
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
  bool narrows_gradient(const Step& step, const Values& values) const;
  void rest(std::size_t slot) const;
  std::vector<bool> carrying(const Plan& plan) const;
  void find_stretches(Plan& plan) const;
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

}  // namespace espalier
