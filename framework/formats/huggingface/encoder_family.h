#pragma once
#include <string>
#include <vector>

#include "formats/encoder.h"
#include "formats/huggingface/family.h"
#include "formats/tensor_names.h"

namespace espalier {

/// What a family of encoders differs in from BERT.
struct EncoderFamily {
  std::string type = {};
  HfConfig::Keys keys = {};
  TensorNames names = {};
  /// Beginnings of the names of heads that a file may have beside the one that is read.
  std::vector<std::string> heads = {};
  const char* epsilon_key = "layer_norm_eps";  ///< "": always 1e-12
  const char* activation = "gelu";
  std::int64_t token_types = 2;        ///< where the config does not say; 0: the family has none
  bool token_head_activation = false;  ///< the head for tokens takes the layers' activation instead of gelu
  Activation class_activation = Activation::tanh;
  std::vector<std::string> token_heads = {"ForMaskedLM"};  ///< ends of the architectures that have one
  void (*differ)(EncoderShape& shape, const HfConfig& config) = nullptr;
};

struct RegisterEncoder {
  explicit RegisterEncoder(EncoderFamily family);
};

}  // namespace espalier
