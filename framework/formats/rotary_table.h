#pragma once
#include <cstdint>
#include <string>

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

/// Initializers NAME.cos and NAME.sin of position × frequency: [positions, size/2], computed in f64, rounded to f32.
void add_rotary_tables(Graph& graph, const std::string& name, const RotaryTable& table, std::int64_t positions, std::int64_t size);

}  // namespace espalier
