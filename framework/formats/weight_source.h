#pragma once
/// Where an importer's weights come from, and how they get into the graph.
#include <cstdint>
#include <functional>
#include <set>
#include <string>
#include <vector>

#include "graph/tensor_store.h"

namespace espalier {

/// Which rows of a matrix in the file a matrix of the graph has, and in which order.
struct Rows {
  std::int64_t all = 0;                ///< rows of the matrix in the file; 0: those that are asked for
  std::int64_t first = 0;              ///< where they begin
  std::int64_t block = 0, stride = 0;  ///< so many lie side by side, each block `stride` behind the last; 0: all lie side by side
  /// Rows of heads of this size, of which the first `rotated` lie as rotary pairs (2i, 2i+1); in the graph they lie in halves.
  std::int64_t head = 0, rotated = 0;

  /// The file's row that is row `row` of the graph.
  std::int64_t at(std::int64_t row) const;
};

/// A matrix or vector of the graph within one of the file. `whole` is the latter's name in the graph's scheme; "": its own.
struct Origin {
  std::string whole = {};
  Rows rows = {};
  bool in_out = false;  ///< the file has the matrix as [in, rows], as the graph does
};

/// Names are the graph's (formats/transformer_layer.h); what the file calls them is its reader's business. Asking twice for one
/// name is asking once: layers may share weights.
class WeightSource {
 public:
  virtual ~WeightSource();
  virtual bool has(const std::string& name) const = 0;
  /// A vector or table as it lies in the file, with `add` added to each element.
  virtual void plain(const std::string& name, const std::vector<std::int64_t>& shape, double add = 0) = 0;
  /// [out].
  virtual void vector(const std::string& name, std::int64_t out, const Origin& origin) = 0;
  /// [in, out].
  virtual void linear(const std::string& name, std::int64_t in, std::int64_t out, const Origin& origin) = 0;
};

/// Conversions of weights, kept until all of a file is known to be right, then done on two threads.
class WeightJobs {
 public:
  using Fill = std::function<void(float* to)>;
  /// Nothing where `name` is there already.
  void add(std::string name, std::vector<std::int64_t> shape, Fill fill);
  /// Into the graph's initializers, as f32. With a store one tensor is made while the one before is put away, so that two of them
  /// stand in memory at a time, however many there are; the store is called from this thread.
  void run(Graph& graph, const TensorStore& store);

 private:
  struct Job {
    std::string name;
    std::vector<std::int64_t> shape;
    Fill fill;
  };
  static Tensor make(const Job& job);
  static Tensor outline(const Job& job);

  std::vector<Job> jobs_;
  std::set<std::string> names_;
};

/// [rows, in] → [in, out] for `out` rows, each of which `row(r, to)` writes as f32.
void transpose_rows(std::int64_t in, std::int64_t out, const std::function<void(std::int64_t row, float* to)>& row, float* to);

}  // namespace espalier
