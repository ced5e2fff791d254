#pragma once
/// The attributes of LSTM, GRU and RNN, read in one way by both sides of the operator table.
#include <cstdint>
#include <vector>

#include "graph/graph.h"

namespace espalier::ops {

/// One of the functions that a recurrent layer may name, with the numbers that it takes.
struct Activation {
  enum Kind {
    relu,
    tanh,
    sigmoid,
    affine,
    leaky_relu,
    thresholded_relu,
    scaled_tanh,
    hard_sigmoid,
    elu,
    softsign,
    softplus,
  } kind;
  double alpha = 0, beta = 0;
  bool keeps_zero() const;
};

struct Recurrent {
  /// Throws Error(invalid_input) or Error(unsupported) naming the node.
  explicit Recurrent(const Node& node);

  std::int64_t gates;                                ///< blocks of W and R along their second axis: iofc, zrh, or one
  std::int64_t directions;                           ///< 2 when bidirectional
  bool reverse;                                      ///< the only direction runs from the end
  bool batch_first;                                  ///< layout 1
  std::vector<std::vector<Activation>> activations;  ///< by direction: f, g, h
  double clip;                                       ///< limit of what activations get; 0: none
  bool coupled;                                      ///< LSTM: the forget gate is one minus the input gate
  bool linear_before_reset;                          ///< GRU
  /// What a unit without weights gives is zero.
  bool keeps_zero() const;
};

/// Input slots that the three operators share, and those of LSTM alone.
struct RecurrentSlots {
  static constexpr std::size_t x = 0, w = 1, r = 2, b = 3, lengths = 4, h = 5, c = 6, p = 7;
};

}  // namespace espalier::ops
