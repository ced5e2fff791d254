#pragma once
/// Decoder-only language models as graphs. What sets one family apart from another is data (DecoderShape), so that every importer
/// builds with the same code.
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "graph/graph.h"

namespace espalier {

/// How rotary frequencies are stretched for contexts longer than the model was trained on.
struct RotaryScaling {
  enum class Kind {
    none,
    linear,  ///< every frequency over `factor` (Chen et al., 2023)
    llama3,  ///< long waves over `factor`, short ones as they are, a ramp between
    yarn,    ///< ramp by wavelength, and a gain of queries and keys (Peng et al., 2023)
  } kind = Kind::none;
  double factor = 1, low = 1, high = 4, original = 8192;  ///< llama3: low and high frequency factors
  double beta_fast = 32, beta_slow = 1, gain = 1;         ///< yarn; gain: of cosines and sines
};

/// One table of rotary frequencies.
struct RotaryTable {
  double base = 10000;
  RotaryScaling scaling;
};

struct DecoderShape {
  std::int64_t layers = 0, hidden = 0, feed_forward = 0, heads = 0, kv_heads = 0, head_size = 0, positions = 0, vocabulary = 0;
  std::int64_t rotary_size = 0;  ///< elements of a head that are rotated
  double epsilon = 1e-6;
  RotaryTable rotary, local;  ///< local: of layers with a window, where `has_local`
  bool has_local = false;
  enum class Norm {
    rms,      ///< RMSNorm
    rms_one,  ///< RMSNorm whose stored weight is added to 1 (Gemma)
    layer,    ///< LayerNorm with bias
  } norm = Norm::rms;
  enum class Placement {
    before,  ///< of attention and of the feed-forward layer
    after,   ///< of both, before the residual sum (OLMo 2)
    around,  ///< before and after (Gemma 2)
  } placement = Placement::before;
  enum class QueryNorm {
    none,
    head,   ///< queries and keys, over each head (Qwen 3)
    width,  ///< over all heads together (OLMo 2)
  } query_norm = QueryNorm::none;
  enum class Activation { silu, gelu_tanh, gelu, relu } activation = Activation::silu;
  bool gated = true;                                         ///< down(act(gate) · up), else down(act(up))
  std::string up_name = "up_proj", down_name = "down_proj";  ///< of the feed-forward layer's matrices
  bool qkv_bias = false, out_bias = false, mlp_bias = false;
  bool fused = false;  ///< the file has qkv_proj and gate_up_proj, rows one after another
  bool tied = false;   ///< the head is the embedding
  double embedding_scale = 1;
  double attention_scale = 0;  ///< 0: 1/√head_size
  double attention_softcap = 0, final_softcap = 0;
  std::vector<std::int64_t> windows;  ///< by layer: positions that a query sees, its own counted; 0 or absent: all
  std::int64_t experts = 0, experts_used = 0;
};

/// Where a decoder's weights come from; names are Hugging Face's.
class DecoderWeights {
 public:
  virtual ~DecoderWeights() = default;
  /// A vector or table as it lies in the file, with `add` added to each element.
  virtual void plain(const std::string& name, const std::vector<std::int64_t>& shape, double add = 0) = 0;
  /// Rows `first` … `first + out` of the matrix `source` [rows, in], as `name` [in, out]. `rotary_heads`: the rows belong to so
  /// many heads that are rotated (0: to none).
  virtual void linear(const std::string& name, const std::string& source, std::int64_t in, std::int64_t out,
                      std::int64_t rotary_heads, std::int64_t first = 0, std::int64_t rows = 0) = 0;
};

/// An opset-23 graph with Hugging Face's scope names: input_ids, attention_mask, position_ids [batch, sequence] int64 to logits
/// [batch, sequence, vocabulary] f32. Asks `weights` for every initializer that the file has; the others (tables, masks) are made.
/// Throws Error(unsupported) for lengths beyond 1,048,576 positions.
Graph build_decoder(const DecoderShape& shape, DecoderWeights& weights, const std::string& where);

/// Conversions of weights, kept until all of a file is known to be right, then done on two threads.
class WeightJobs {
 public:
  using Fill = std::function<void(float* to)>;
  void add(std::string name, std::vector<std::int64_t> shape, Fill fill);
  /// Into the graph's initializers, as f32.
  void run(Graph& graph);

 private:
  struct Job {
    std::string name;
    std::vector<std::int64_t> shape;
    std::vector<std::byte> values;
    Fill fill;
  };
  std::vector<Job> jobs_;
};

/// [rows, in] → [in, out] for `out` rows, each of which `row(r, to)` writes as f32.
void transpose_rows(std::int64_t in, std::int64_t out, const std::function<void(std::int64_t row, float* to)>& row, float* to);

}  // namespace espalier
