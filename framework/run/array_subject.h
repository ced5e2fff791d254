#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "run/arrays.h"
#include "run/runtime.h"

namespace espalier {

/// A model of any task as an evaluator's ports give it: in the project's own runner, or a package in the runtime that it is
/// deployed with. It is fed batches of an array data set and asked for its first output.
class ArraySubject {
 public:
  /// `port` names it in messages. Throws Error(invalid_input) when the model has no output.
  ArraySubject(Context& context, const Artifact& artifact, std::string port);
  /// [n, …] f32. Throws Error(invalid_input) naming an input that the batch does not have, Error(failed) when an answer is not a
  /// finite number.
  at::Tensor answer(const TensorMap& batch);

 private:
  std::string port_;
  ComponentHandle backend_;  // outlives what it opens
  std::unique_ptr<DeployedModel> model_;
};

/// The artifact of `model` or of `package`, whichever port is connected; nullptr where neither is and `needed` is false. Throws
/// Error(invalid_input) when both are, or neither is and one is needed. `who` names the component in messages.
const Artifact* one_of_ports(Context& context, const std::string& model, const std::string& package, bool needed,
                             const std::string& who);

/// Walks the examples in order, as the parameters `batch` and `limit` (0: all) say. Always whole batches, so that packages of one
/// fixed batch can be measured; `each` is told how many of the batch's examples count, the first ones. Throws Error(invalid_input)
/// when there is no example.
void each_batch(Context& context, const ArrayDataset& data,
                const std::function<void(const TensorMap& batch, std::int64_t held)>& each);

/// How many examples each_batch() walks.
std::int64_t walked(const Context& context, const ArrayDataset& data);

}  // namespace espalier
