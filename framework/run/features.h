#pragma once
/// Losses on what flows inside a model, for distillation: hidden states after blocks (FitNets: Romero et al., 2015; TinyBERT: Jiao
/// et al., 2020) and attention distributions (MobileBERT: Sun et al., 2020).
#include <cstdint>
#include <string>
#include <vector>

#include "run/layer_map.h"
#include "run/tensor.h"

namespace espalier {

enum class HiddenMeasure {
  /// Squared difference over the teacher's mean square, each position (of images: each image) by itself, then the mean: 1 for a
  /// student that says zero.
  mse,
  cosine,  ///< 1 - cosine along the channels, mean over positions
};

/// A scalar. `student` and `teacher` have one shape; channels lie on `axis`. Computed in f32 (f64 stays). `real` (run/padding.h):
/// the positions that count, where the values are [batch, positions, channels]; undefined: all.
at::Tensor hidden_loss(const at::Tensor& student, const at::Tensor& teacher, std::int64_t axis, HiddenMeasure measure,
                       const at::Tensor& real = {});

/// KL(teacher ‖ student) between attention distributions [batch, heads, queries, keys], nats, mean over batch, heads and queries.
/// Where the numbers of heads differ, each side's distributions are averaged over its heads first. Queries that are not `real` (as
/// above) are left out.
at::Tensor attention_loss(const at::Tensor& student, const at::Tensor& teacher, const at::Tensor& real = {});

struct FeatureOptions {
  bool hidden = false, attention = false;
  HiddenMeasure measure = HiddenMeasure::mse;
  std::vector<std::string> layer_map{"auto"};
  std::uint64_t seed = 0;  ///< of the projections
};

/// The two graphs made ready for these losses. Where a pair of blocks has different widths, the student's hidden state goes through
/// a projection: an initializer of the graph that is trained (names in projections()), an orthogonal matrix at the start, that
/// strip() leaves behind. Attention nodes of mapped blocks also give their distributions: batch · heads · length² elements each,
/// three times in the student while it trains.
class FeatureLosses {
 public:
  /// Throws Error(invalid_input) for a bad layer_map, and where a block has no attention or they do not pair.
  FeatureLosses(const Graph& student, const Graph& teacher, const FeatureOptions& options);

  const Graph& student() const { return student_; }
  const Graph& teacher() const { return teacher_; }
  const std::vector<std::string>& projections() const { return projections_; }
  /// Values of the graphs that the losses read (Session::run's `wanted`).
  const std::vector<std::string>& student_values() const { return student_values_; }
  const std::vector<std::string>& teacher_values() const { return teacher_values_; }

  /// Means over pairs of blocks, and of attentions; padding, by the attention_mask of `batch`, does not count.
  at::Tensor hidden(const TensorMap& student, const TensorMap& teacher, const TensorMap& batch = {}) const;
  at::Tensor attention(const TensorMap& student, const TensorMap& teacher, const TensorMap& batch = {}) const;

  /// The student that came in, with the weights of `trained` (a graph that grew out of student()).
  Graph strip(const Graph& trained) const;

  /// What is compared, for reports: student, teacher, their widths, attentions.
  struct Row {
    std::string student, teacher;
    std::int64_t width = 0, teacher_width = 0;
    std::size_t attentions = 0;
  };
  const std::vector<Row>& rows() const { return rows_; }

 private:
  struct Compared {
    std::string student, teacher;  ///< values
    std::string label;
    std::int64_t axis;
  };
  void compare_hidden(const std::vector<Block>& students, const std::vector<Block>& teachers, const std::vector<LayerPair>& pairs);
  void compare_attention(const std::vector<Block>& students, const std::vector<Block>& teachers,
                         const std::vector<LayerPair>& pairs);

  Graph original_, student_, teacher_;
  FeatureOptions options_;
  std::vector<Compared> hidden_, attention_;
  std::vector<std::string> projections_, student_values_, teacher_values_;
  std::vector<Row> rows_;
};

}  // namespace espalier
