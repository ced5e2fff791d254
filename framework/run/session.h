#pragma once
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "run/tensor.h"

namespace espalier {

struct SessionOptions {
  /// Floating compute type: f32, f64 (gradient checks), bf16. Initializers of floating type are converted when the graph is bound.
  DType compute = DType::f32;
};

/// A graph bound to LibTorch: each node is one or a few ATen calls, so autograd records them when a trainable parameter takes part.
/// Not thread-safe. Mapped weights are never written; a trainable parameter is a copy.
class Session {
 public:
  /// Throws Error(unsupported) naming the first operator that has no `run`.
  explicit Session(const Graph& graph, SessionOptions options = {});
  ~Session();
  Session(Session&&) noexcept;

  /// Makes initializers trainable (leaf tensors with requires_grad); all floating ones when `names` is empty. Returns their names.
  std::vector<std::string> train(const std::vector<std::string>& names = {});
  at::Tensor parameter(const std::string& name) const;  ///< a bound initializer
  void set_parameter(const std::string& name, at::Tensor value);
  const std::vector<std::string>& trainable() const;

  /// Runs the graph. `wanted`: values to return (any value by name); the graph's outputs when empty. Only what they need is run;
  /// a value is released after its last use unless autograd or `wanted` holds it.
  TensorMap run(const TensorMap& inputs, const std::vector<std::string>& wanted = {});

  /// Called with a value when it has been computed; a defined return value replaces it. One hook per value; empty removes it.
  using Hook = std::function<at::Tensor(const std::string& name, const at::Tensor& value)>;
  void hook(const std::string& value, Hook hook);

  /// The graph with its trainable parameters written back (f32 → the initializer's storage type).
  Graph graph() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace espalier
