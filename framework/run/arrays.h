#pragma once
#include <map>
#include <string>
#include <vector>

#include "run/dataset.h"

namespace espalier {

/// Arrays whose first axis counts the examples: inputs by name, and "labels" where they are known (integers: classes; floats:
/// values). meta.kind == "arrays", "count", "arrays": name → {"dtype", "shape" (of all), "blob"}, perhaps "classes": their names.
class ArrayDataset final : public Dataset {
 public:
  /// Throws Error(invalid_input) when the artifact is of another kind or its bytes do not match its meta.
  ArrayDataset(const Context& context, const Artifact& artifact);
  std::int64_t count() const override { return count_; }
  /// Examples by number: [n, …] of each array, in its own type; labels of classes as int64.
  TensorMap batch(const std::vector<std::int64_t>& examples) const override;
  const std::vector<std::string>& classes() const { return classes_; }  ///< empty when they have no names

 private:
  std::map<std::string, Tensor> arrays_;
  std::vector<std::string> classes_;
  std::int64_t count_ = 0;
};

/// Stores arrays of equal first lengths as a data set. Throws Error(invalid_input) naming an array of another length.
Artifact save_arrays(Context& context, const std::map<std::string, Tensor>& arrays, const std::vector<std::string>& classes);

}  // namespace espalier
