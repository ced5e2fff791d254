#pragma once
/// Writes a model's nodes down in order, and asks for the weights that they read. Names have dots ("model.layers.3.mlp.up_proj"),
/// scopes of nodes the same with slashes ("/model/layers.3/mlp/up_proj").
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "formats/weight_source.h"
#include "graph/graph.h"

namespace espalier {

enum class Norm {
  rms,      ///< RMSNorm
  rms_one,  ///< RMSNorm whose stored weight is added to 1 (Gemma)
  layer,    ///< LayerNorm
};

struct NormShape {
  Norm kind = Norm::rms;
  double epsilon = 1e-6;
  bool bias = true;  ///< of LayerNorm
};

enum class Activation { silu, gelu_tanh, gelu, relu, tanh };

/// "model.layers.3.mlp" → "/model/layers.3/mlp".
std::string scope_of(const std::string& name);

/// Where nodes stand and what their weights are called: mostly one thing, but layers may share weights.
struct Site {
  std::string scope, name;
  Site(std::string dotted) : scope(scope_of(dotted)), name(std::move(dotted)) {}
  Site(const char* dotted) : Site(std::string(dotted)) {}
  Site(std::string where, std::string dotted) : scope(std::move(where)), name(std::move(dotted)) {}
};

class ModelWriter {
 public:
  using Attributes = std::map<std::string, Attribute>;

  ModelWriter(Graph& graph, WeightSource& weights) : graph_(graph), weights_(weights) {}
  Graph& graph() { return graph_; }
  WeightSource& weights() { return weights_; }

  /// A node SCOPE/OP; its output, which is named after it unless `output` names it.
  std::string add(const std::string& scope, const std::string& op, std::vector<std::string> inputs, Attributes attributes = {},
                  const std::string& output = {});
  std::vector<std::string> add_many(const std::string& scope, const std::string& op, std::vector<std::string> inputs,
                                    Attributes attributes, std::int64_t outputs, const std::string& output = {});

  /// Constants; of a name that is there already, nothing.
  void integers(const std::string& name, const std::vector<std::int64_t>& values);
  void integer(const std::string& name, std::int64_t value);
  void number(const std::string& name, double value);

  /// x · NAME.weight (+ NAME.bias).
  std::string linear(const Site& site, const std::string& x, std::int64_t in, std::int64_t out, bool bias,
                     const Origin& origin = {});
  /// A norm over the last axis, of length `width`.
  std::string norm(const NormShape& shape, const Site& site, const std::string& x, std::int64_t width);
  std::string activation(const std::string& scope, Activation kind, const std::string& x);
  /// Rows of NAME.weight [rows, width].
  std::string lookup(const std::string& name, const std::string& indices, std::int64_t rows, std::int64_t width);
  /// x · NAME.weightᵀ, a table that is looked up elsewhere.
  std::string tied(const std::string& scope, const std::string& name, const std::string& x, const std::string& output = {});
  /// The length of an input's second axis, as a scalar.
  std::string length(const std::string& scope, const std::string& input);

 private:
  Graph& graph_;
  WeightSource& weights_;
};

/// attention_mask [batch, keys] → [batch, 1, queries, keys] booleans, `queries` the length of that input. The operator would
/// broadcast the third axis itself; ONNX Runtime does not.
std::string write_mask(ModelWriter& writer, const std::string& scope, const std::string& queries);

/// Biases of attention's scores where the mask allows, else the lowest number: rows without a key stay finite.
std::string write_biased_mask(ModelWriter& writer, const std::string& scope, const std::string& mask, const std::string& bias);

}  // namespace espalier
