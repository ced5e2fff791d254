#pragma once
#include <filesystem>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "formats/tensor_names.h"
#include "formats/weight_source.h"

namespace espalier {

/// Tensors of model.safetensors or of its shards. Shard names may not leave the folder. Throws Error(invalid_input).
class SafetensorsFolder {
 public:
  explicit SafetensorsFolder(const std::filesystem::path& folder);
  const std::map<std::string, Tensor>& tensors() const { return tensors_; }

 private:
  void open(const std::string& name);

  std::filesystem::path folder_;
  std::map<std::string, Tensor> tensors_;
};

/// A graph's weights (f32, f16, bf16, which become f32) in such a folder, under a family's names.
class SafetensorsWeights final : public WeightSource {
 public:
  SafetensorsWeights(const SafetensorsFolder& folder, TensorNames names, std::string where)
      : folder_(folder), names_(std::move(names)), where_(std::move(where)) {}

  bool has(const std::string& name) const override;
  void plain(const std::string& name, const std::vector<std::int64_t>& shape, double add) override;
  void vector(const std::string& name, std::int64_t out, const Origin& origin) override;
  void linear(const std::string& name, std::int64_t in, std::int64_t out, const Origin& origin) override;

  /// Throws Error(unsupported) naming a tensor that the graph has no place for. Those that begin with one of `heads` are other
  /// heads': they are left out, and returned.
  std::vector<std::string> check_all_used(const std::vector<std::string>& heads) const;
  void convert(Graph& graph, const TensorStore& store) { jobs_.run(graph, store); }

 private:
  const Tensor& need(const std::string& name, const std::vector<std::int64_t>& shape);
  const Tensor* find(const std::string& name, std::string* spelling) const;

  const SafetensorsFolder& folder_;
  TensorNames names_;
  std::string where_;
  WeightJobs jobs_;
  std::set<std::string> used_;
};

}  // namespace espalier
