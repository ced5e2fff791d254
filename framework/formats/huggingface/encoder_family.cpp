#include "formats/huggingface/encoder_family.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "formats/huggingface/weights.h"
#include "sdk/error.h"

namespace espalier {
namespace {

using Head = EncoderShape::Head;

/// By the end of the architecture's name; features where the config names none.
Head read_head(const EncoderFamily& family, const HfConfig& config) {
  if (!config.has("architectures")) return Head::none;
  const Json& list = config.at("architectures");
  if (!list.is_array() || list.size() != 1 || !list[0].is_string()) config.fail("architectures", "is no list of one name");
  const std::string name = list[0].get<std::string>();
  const auto ends = [&](const std::string& end) { return name.ends_with(end); };
  if (std::any_of(family.token_heads.begin(), family.token_heads.end(), ends)) return Head::tokens;
  if (ends("ForSequenceClassification")) return Head::classes;
  if (ends("Model") && !ends("LMHeadModel")) return Head::none;
  throw_unsupported(fmt::format("\"architectures\" is \"{}\"", name), config.where(),
                    fmt::format("read are …Model, …{} and …ForSequenceClassification", family.token_heads.front()));
}

std::int64_t read_labels(const HfConfig& config) {
  if (!config.has("id2label")) return config.size("num_labels", 2);
  const Json& labels = config.at("id2label");
  if (!labels.is_object() || labels.empty()) config.fail("id2label", "names no label");
  return static_cast<std::int64_t>(labels.size());
}

EncoderShape read_shape(const EncoderFamily& family, const HfSource& source, const HfConfig& config) {
  if (config.has("quantization_config"))
    throw_unsupported("weights quantized by another tool", config.where(), "take the original model");
  for (const char* key : {"is_decoder", "add_cross_attention"}) config.refuse(key);
  if (const std::string kind = config.text("position_embedding_type", "absolute"); kind != "absolute")
    throw_unsupported("\"position_embedding_type\" is \"" + kind + "\"", config.where(), "absolute positions are read");
  EncoderShape m;
  m.layers = config.positive("num_hidden_layers");
  if (m.layers > 10'000) config.fail("num_hidden_layers", "is more than 10,000");
  m.hidden = m.embedding_size = config.size("hidden_size");
  m.heads = m.kv_heads = config.size("num_attention_heads");
  if (m.hidden % m.heads != 0) config.fail("num_attention_heads", fmt::format("does not divide a width of {}", m.hidden));
  m.head_size = m.hidden / m.heads;
  m.feed_forward = config.size("intermediate_size");
  m.positions = config.positive("max_position_embeddings");
  m.vocabulary = config.positive("vocab_size");
  m.token_types = family.token_types > 0 ? config.size("type_vocab_size", family.token_types) : 0;
  if (*family.epsilon_key) m.norm.epsilon = config.number(family.epsilon_key, 1e-12);
  if (!(m.norm.epsilon > 0 && m.norm.epsilon < 1)) config.fail(family.epsilon_key, "is not in (0, 1)");
  m.activation = read_activation(config, "hidden_act", family.activation);
  m.token_activation = family.token_head_activation ? m.activation : Activation::gelu;
  m.class_activation = family.class_activation;
  m.head = source.pooling ? Head::sentence : read_head(family, config);
  if (source.pooling) m.pooling = *source.pooling;
  if (m.head == Head::tokens) config.refuse("tie_word_embeddings", false);
  if (m.head == Head::classes) m.labels = read_labels(config);
  if (family.differ) family.differ(m, config);
  return m;
}

HfModel read_encoder(const EncoderFamily& family, const HfSource& source) {
  const HfConfig config = source.config.with(family.keys);
  const EncoderShape shape = read_shape(family, source, config);
  const SafetensorsFolder files(source.folder);
  SafetensorsWeights weights(files, family.names, source.folder.string());
  HfModel model{build_encoder(shape, weights, config.where()), shape.vocabulary, {}};
  model.left_out = weights.check_all_used(family.heads);
  weights.convert(model.graph, source.store);
  model.graph.metadata["espalier.task"] = shape.head == Head::tokens    ? "fill-mask"
                                          : shape.head == Head::classes ? "text-classification"
                                                                        : "feature-extraction";
  return model;
}

}  // namespace

RegisterEncoder::RegisterEncoder(EncoderFamily family) {
  const std::string type = family.type;
  RegisterHuggingFaceFamily({type, [family = std::move(family)](const HfSource& source) { return read_encoder(family, source); }});
}

}  // namespace espalier
