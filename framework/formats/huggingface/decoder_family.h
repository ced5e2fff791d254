#pragma once
#include <functional>
#include <string>

#include "formats/decoder.h"
#include "formats/huggingface/family.h"
#include "formats/tensor_names.h"

namespace espalier {

/// What a family of decoder-only language models differs in from LLaMA.
struct DecoderFamily {
  std::string type = {};
  HfConfig::Keys keys = {};
  TensorNames names = {.base = "model."};
  const char* epsilon_key = "rms_norm_eps";  ///< "": always the default
  double epsilon = 1e-6;
  bool tied = false;
  const char* activation = "silu";
  std::int64_t feed_forward = 0;  ///< times the hidden size where the config does not say; 0: it must say
  std::int64_t positions = 0;     ///< longest text where the config does not say; 0: it must say
  double rotary_base = 1e4, rotary_share = 1;
  void (*differ)(DecoderShape& shape, const HfConfig& config) = nullptr;
};

struct RegisterDecoder {
  explicit RegisterDecoder(DecoderFamily family);
};

/// Rotary parameters, from "rope_parameters" or the older "rope_theta" and "rope_scaling"; `layers` names a part where each kind of
/// layer has its own. Returns the rotated share of a head.
double read_rotary(RotaryTable& table, const HfConfig& config, const char* layers, double base, double share,
                   std::int64_t positions);

/// Which layers see a window: `layer_types` where the file has them, else what the family does.
void set_windows(DecoderShape& shape, const HfConfig& config, std::int64_t window,
                 const std::function<bool(std::int64_t layer)>& slides);
/// All layers see "sliding_window" positions, where that is given.
void set_windows_everywhere(DecoderShape& shape, const HfConfig& config);

}  // namespace espalier
