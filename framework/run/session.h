#pragma once
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "graph/tensor_store.h"
#include "run/op.h"
#include "run/precision.h"
#include "run/tensor.h"

namespace espalier {

struct SessionOptions {
  /// Floating compute type: f32, f64 (gradient checks), bf16. Initializers of floating type are converted when the graph is bound.
  DType compute = DType::f32;
  /// Values that depend on frozen initializers alone (dequantized weights, say) are computed once and kept.
  bool fold_constants = true;
  /// Type of products (MatMul, Gemm, Conv, Attention) and of what only passes their results on (run/precision.h); undefined: as
  /// `compute`. Parameters stay in `compute`, and so do their gradients. A value that only products read is returned in this type.
  DType products = DType::undefined;
  /// Products of bf16 are computed in f32 from rounded operands, and rounded again: where no kernels exist (precision.h).
  bool emulate_bf16 = !has_bf16_kernels();
  /// Repeated stretches keep only their inputs for the backward pass and run again in it, not only runs of elementwise operators
  /// (run/recompute.h); neither does while a hook is set.
  bool recompute = false;
  /// Initializers in mapped files leave this process's memory when the last operator that reads them has run; the next run reads
  /// them again (from the system's cache, where there is room). For a model that runs beside a larger consumer of memory. An
  /// initializer that is asked for by name is given in the type of `products`.
  bool release_weights = false;
  /// Where initializers go that were cast to `products` and stay as they are; in memory when empty. With formats/spilled_tensors.h
  /// `release_weights` reaches them, too.
  TensorStore narrowed{};
};

/// A graph bound to LibTorch: each node is one or a few ATen calls, so autograd records them when a trainable parameter takes part.
/// Not thread-safe. Mapped weights are never written; a trainable parameter is a copy.
class Session {
 public:
  /// Throws Error(unsupported) naming the first operator that has no `run`.
  explicit Session(const Graph& graph, SessionOptions options = {});
  ~Session();
  Session(Session&&) noexcept;

  /// Makes initializers trainable (leaf tensors with requires_grad); the learnable() ones when `names` is empty. Returns their
  /// names. Throws Error(invalid_input) for a name that is no floating initializer.
  std::vector<std::string> train(const std::vector<std::string>& names = {});
  at::Tensor parameter(const std::string& name) const;  ///< a bound initializer
  /// Binds another value to an initializer; that of a trainable one is copied into the leaf. Shapes must agree.
  void set_parameter(const std::string& name, at::Tensor value);
  const std::vector<std::string>& trainable() const;

  /// What backward passes have left at a trainable initializer; undefined where no loss reached it.
  at::Tensor gradient(const std::string& name) const;
  void forget_gradients();
  /// From now on the gradient of an initializer that only products read stays in their type, as they make it: half the memory.
  /// Between two forget_gradients() the initializer must not change, and one backward pass be taken (more would add up in that
  /// type). Ask gradient(), not parameter().grad().
  void narrow_gradients(bool on);

  /// Runs the graph. `wanted`: values to return (any value by name); the graph's outputs when empty. Only what they need is run;
  /// a value is released after its last use unless autograd or `wanted` holds it. `inputs` may also name the output of a node: it
  /// is taken as given and what makes it is not run. Inputs that the graph does not have are ignored. The session must live until a
  /// backward pass through what it returned is over. Throws Error(invalid_input) naming a missing input, or the node that does not
  /// take its inputs' shapes.
  TensorMap run(const TensorMap& inputs, const std::vector<std::string>& wanted = {});
  /// The same where inputs or outputs are sequences or may be absent (an empty optional).
  RunValues run_values(const RunValues& inputs, const std::vector<std::string>& wanted = {});

  /// Called with a value when it has been computed; a defined return value replaces it. One hook per value; empty removes it.
  using Hook = std::function<at::Tensor(const std::string& name, const at::Tensor& value)>;
  void hook(const std::string& value, Hook hook);

  /// Called after each node of a run with the milliseconds that it took; an empty one removes it. What was folded is not run.
  using NodeTimer = std::function<void(const Node& node, double milliseconds)>;
  void observe(NodeTimer timer);

  /// The graph with its trainable and its set parameters written back (f32 → the initializer's storage type).
  Graph graph() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace espalier
