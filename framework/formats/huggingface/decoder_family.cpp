#include "formats/huggingface/decoder_family.h"

#include <fmt/format.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "formats/huggingface/weights.h"
#include "sdk/error.h"

namespace espalier {
namespace {

HfConfig rope_of(const HfConfig& config, const char* layers) {
  if (!config.has("rope_parameters")) return config.part("rope_scaling");
  const HfConfig all = config.part("rope_parameters");
  return all.has(layers) ? all.part(layers) : all;
}

DecoderShape read_shape(const DecoderFamily& family, const HfConfig& config) {
  if (config.has("quantization_config"))
    throw_unsupported("weights quantized by another tool", config.where(), "take the original model");
  DecoderShape m;
  m.layers = config.positive("num_hidden_layers");
  if (m.layers > 10'000) config.fail("num_hidden_layers", "is more than 10,000");
  m.hidden = config.size("hidden_size");
  m.heads = config.size("num_attention_heads");
  m.kv_heads = config.size("num_key_value_heads", m.heads);
  m.head_size = config.size("head_dim", std::max<std::int64_t>(m.hidden / m.heads, 1));
  m.feed_forward = config.size("intermediate_size", family.feed_forward * m.hidden);
  m.vocabulary = config.positive("vocab_size");
  m.norm.epsilon = *family.epsilon_key ? config.number(family.epsilon_key, family.epsilon) : family.epsilon;
  m.tied = config.flag("tie_word_embeddings", family.tied);
  m.activation = read_activation(config, config.has("hidden_activation") ? "hidden_activation" : "hidden_act", family.activation);
  m.positions = config.positive("max_position_embeddings", family.positions);
  if (family.differ) family.differ(m, config);
  if (m.encoding == Encoding::rotary) {
    const double share = read_rotary(m.rotary, config, "full_attention", family.rotary_base, family.rotary_share, m.positions);
    if (!(share > 0 && share <= 1)) config.fail("partial_rotary_factor", "is not in (0, 1]");
    if (m.rotary_size == 0) m.rotary_size = static_cast<std::int64_t>(static_cast<double>(m.head_size) * share);
    if (m.rotary_size < 2 || m.rotary_size % 2 != 0 || m.rotary_size > m.head_size)
      throw_unsupported(fmt::format("{} rotated elements in heads of {}", m.rotary_size, m.head_size), config.where());
  }
  if (!(m.norm.epsilon > 0 && m.norm.epsilon < 1)) config.fail(family.epsilon_key, "is not in (0, 1)");
  if (m.heads % m.kv_heads != 0) config.fail("num_key_value_heads", fmt::format("does not divide {} heads", m.heads));
  return m;
}

HfModel read_decoder(const DecoderFamily& family, const HfSource& source) {
  const HfConfig config = source.config.with(family.keys);
  if (source.pooling)
    throw_unsupported("sentence embeddings of a " + family.type + " model", source.folder.string(),
                      "encoders give them; without modules.json the folder is read as a language model");
  const DecoderShape shape = read_shape(family, config);
  const SafetensorsFolder files(source.folder);
  SafetensorsWeights weights(files, family.names, source.folder.string());
  HfModel model{build_decoder(shape, weights, config.where()), shape.vocabulary, {}};
  // A tied head that is in the file all the same is the embedding.
  weights.check_all_used(shape.tied ? family.names.spellings("lm_head.weight") : std::vector<std::string>{});
  weights.convert(model.graph, source.store);
  model.graph.metadata["espalier.task"] = "causal-lm";
  return model;
}

}  // namespace

RegisterDecoder::RegisterDecoder(DecoderFamily family) {
  const auto build = [family](const HfConfig& config, WeightSource& weights) {
    return build_decoder(read_shape(family, config.with(family.keys)), weights, config.where());
  };
  const auto read = [family](const HfSource& source) { return read_decoder(family, source); };
  RegisterHuggingFaceFamily({family.type, read, family.names, build});
}

double read_rotary(RotaryTable& table, const HfConfig& model, const char* layers, double base, double share,
                   std::int64_t positions) {
  using Kind = RotaryScaling::Kind;
  const HfConfig rope = rope_of(model, layers);
  table.base = rope.number("rope_theta", model.number("rope_theta", base));
  if (!(table.base > 1)) model.fail("rope_theta", "is no number above 1");
  RotaryScaling& s = table.scaling;
  const std::string kind = rope.text("rope_type", rope.text("type", "default"));
  if (kind == "linear") {
    s.kind = Kind::linear;
  } else if (kind == "llama3") {
    s.kind = Kind::llama3;
    s.low = rope.number("low_freq_factor", 1);
    s.high = rope.number("high_freq_factor", 4);
  } else if (kind == "yarn") {
    s.kind = Kind::yarn;
    s.beta_fast = rope.number("beta_fast", 32);
    s.beta_slow = rope.number("beta_slow", 1);
    if (!rope.flag("truncate", true)) throw_unsupported("yarn without \"truncate\"", model.where());
  } else if (kind != "default" && kind != "dynamic") {  // dynamic scaling begins beyond the positions that the tables cover
    throw_unsupported(fmt::format("rope_type \"{}\"", kind), model.where(), "default, linear, dynamic, yarn and llama3 are read");
  }
  s.factor = rope.number("factor", 1);
  s.original = rope.number("original_max_position_embeddings",
                           model.number("original_max_position_embeddings", static_cast<double>(positions)));
  if (!(s.factor >= 1) || !(s.original > 0) || !(s.high > s.low) || !(s.low > 0) || !(s.beta_slow > 0))
    throw_invalid("the parameters of rope scaling are out of range", model.where());
  if (s.kind == Kind::yarn) {
    const auto gain = [&](double m) { return s.factor <= 1 ? 1.0 : 0.1 * m * std::log(s.factor) + 1; };
    const double top = rope.number("mscale", 0), all = rope.number("mscale_all_dim", 0);
    s.gain = rope.number("attention_factor", top != 0 && all != 0 ? gain(top) / gain(all) : gain(1));
  }
  return rope.number("partial_rotary_factor", model.number("partial_rotary_factor", share));
}

void set_windows(DecoderShape& m, const HfConfig& config, std::int64_t window,
                 const std::function<bool(std::int64_t layer)>& slides) {
  if (window <= 0) return;
  m.windows.assign(static_cast<std::size_t>(m.layers), 0);
  if (config.has("layer_types")) {
    const Json& types = config.at("layer_types");
    if (!types.is_array() || static_cast<std::int64_t>(types.size()) != m.layers)
      config.fail("layer_types", fmt::format("has not one entry for each of {} layers", m.layers));
    for (std::size_t i = 0; i < types.size(); ++i) {
      if (types[i] != "sliding_attention" && types[i] != "full_attention")
        config.fail("layer_types", "names a kind that is not known");
      if (types[i] == "sliding_attention") m.windows[i] = window;
    }
    return;
  }
  for (std::int64_t i = 0; i < m.layers; ++i)
    if (slides(i)) m.windows[static_cast<std::size_t>(i)] = window;
}

void set_windows_everywhere(DecoderShape& m, const HfConfig& config) {
  if (config.has("sliding_window")) set_windows(m, config, config.positive("sliding_window"), [](std::int64_t) { return true; });
}

}  // namespace espalier
