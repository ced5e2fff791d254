#include "formats/huggingface.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <functional>
#include <nlohmann/json.hpp>
#include <set>

#include "formats/bounds.h"
#include "formats/decoder.h"
#include "formats/folder_tokenizer.h"
#include "formats/gguf_blocks.h"
#include "formats/safetensors.h"
#include "graph/op.h"
#include "sdk/artifact.h"
#include "sdk/error.h"

namespace espalier {
namespace {

namespace fs = std::filesystem;

/// config.json, asked with the key's name in every error.
class Config {
 public:
  Config(Json json, std::string where) : json_(std::move(json)), where_(std::move(where)) {}
  const std::string& where() const { return where_; }
  bool has(const char* key) const { return json_.contains(key) && !json_.at(key).is_null(); }
  const Json& at(const char* key) const { return json_.at(key); }

  std::int64_t positive(const char* key, std::int64_t fallback = 0) const {
    if (!has(key) && fallback > 0) return fallback;
    if (!has(key)) fail(key, "is missing");
    if (!json_.at(key).is_number_integer() || json_.at(key).get<std::int64_t>() <= 0 ||
        json_.at(key).get<std::int64_t>() > INT32_MAX)
      fail(key, "is no positive number of 32 bits");
    return json_.at(key).get<std::int64_t>();
  }
  double number(const char* key, double fallback) const {
    if (!has(key)) return fallback;
    if (!json_.at(key).is_number() || !std::isfinite(json_.at(key).get<double>())) fail(key, "is no number");
    return json_.at(key).get<double>();
  }
  bool flag(const char* key, bool fallback) const {
    if (!has(key)) return fallback;
    if (!json_.at(key).is_boolean()) fail(key, "is neither true nor false");
    return json_.at(key).get<bool>();
  }
  std::string text(const char* key, const std::string& fallback) const {
    if (!has(key)) return fallback;
    if (!json_.at(key).is_string()) fail(key, "is no string");
    return json_.at(key).get<std::string>();
  }
  Config part(const char* key) const {
    if (!json_.at(key).is_object()) fail(key, "is no object");
    return {json_.at(key), where_};
  }
  [[noreturn]] void fail(const char* key, const std::string& what) const {
    throw_invalid(fmt::format("\"{}\" {}", key, what), where_, "the file is damaged, or of a model that is not read");
  }

 private:
  Json json_;
  std::string where_;
};

Json read_json(const fs::path& file) {
  constexpr std::uintmax_t most = 64 << 20;
  std::error_code error;
  const auto size = fs::file_size(file, error);
  if (error) throw_invalid("the file cannot be read: " + error.message(), file.string(), "name a folder that holds a whole model");
  if (size > most) throw_unsupported(fmt::format("a JSON file of {} bytes", size), file.string());
  const MappedFile mapped(file);
  Json json = parse_json({reinterpret_cast<const char*>(mapped.bytes().data()), mapped.bytes().size()}, file.string());
  if (!json.is_object()) throw_invalid("this is no JSON object", file.string(), "the file is damaged");
  return json;
}

using Shape = DecoderShape;

Shape::Activation activation(const Config& config, const char* key, const char* fallback) {
  static const std::map<std::string, Shape::Activation, std::less<>> known = {{"silu", Shape::Activation::silu},
                                                                              {"swish", Shape::Activation::silu},
                                                                              {"gelu_pytorch_tanh", Shape::Activation::gelu_tanh},
                                                                              {"gelu_new", Shape::Activation::gelu_tanh},
                                                                              {"gelu", Shape::Activation::gelu},
                                                                              {"relu", Shape::Activation::relu}};
  const std::string name = config.text(key, fallback);
  const auto found = known.find(name);
  if (found == known.end())
    throw_unsupported(fmt::format("\"{}\" is \"{}\"", key, name), config.where(), "silu, gelu and relu are read");
  return found->second;
}

/// Which layers see a window: `layer_types` where the file has them, else what the family does.
void set_windows(Shape& m, const Config& config, std::int64_t window, const std::function<bool(std::int64_t layer)>& slides) {
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

/// Rotary parameters, from "rope_parameters" or the older "rope_theta" and "rope_scaling". Returns the rotated share of a head.
double read_rotary(RotaryTable& table, const Config& model, const Config& rope, double base, std::int64_t positions) {
  using Kind = RotaryScaling::Kind;
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
  return rope.number("partial_rotary_factor", model.number("partial_rotary_factor", 1));
}

/// The old and the new way of writing rotary parameters down; `layers` names a part where each kind of layer has its own.
Config rope_of(const Config& config, const char* layers) {
  if (config.has("rope_parameters")) {
    const Config all = config.part("rope_parameters");
    return all.has(layers) ? all.part(layers) : all;
  }
  if (config.has("rope_scaling")) return config.part("rope_scaling");
  return {Json::object(), config.where()};
}

/// What sets a family apart from LLaMA.
struct Family {
  const char* name;
  double epsilon;
  bool tied;
  void (*differ)(Shape& m, const Config& config);
};

void gemma(Shape& m, const Config& config) {
  m.norm = Shape::Norm::rms_one;
  m.activation = activation(config, config.has("hidden_activation") ? "hidden_activation" : "hidden_act", "gelu_pytorch_tanh");
  m.embedding_scale = std::sqrt(static_cast<double>(m.hidden));
  m.qkv_bias = m.out_bias = config.flag("attention_bias", false);
  if (config.flag("use_bidirectional_attention", false)) throw_unsupported("attention in both directions", config.where());
}

void gemma2(Shape& m, const Config& config) {
  gemma(m, config);
  m.placement = Shape::Placement::around;
  m.attention_scale = 1 / std::sqrt(config.number("query_pre_attn_scalar", 256));
  m.attention_softcap = config.number("attn_logit_softcapping", 0);
  m.final_softcap = config.number("final_logit_softcapping", 0);
  set_windows(m, config, config.positive("sliding_window", 4096), [](std::int64_t layer) { return layer % 2 == 0; });
}

void gemma3(Shape& m, const Config& config) {
  gemma2(m, config);
  m.query_norm = Shape::QueryNorm::head;
  const std::int64_t pattern = config.positive("sliding_window_pattern", 6);
  set_windows(m, config, config.positive("sliding_window", 4096), [&](std::int64_t layer) { return (layer + 1) % pattern != 0; });
  m.has_local = true;
  if (config.has("rope_parameters")) {
    read_rotary(m.local, config, rope_of(config, "sliding_attention"), 10000, m.positions);
  } else {
    m.local.base = config.number("rope_local_base_freq", 10000);
  }
}

void biased(Shape& m, const Config& config) {
  m.qkv_bias = m.out_bias = config.flag("attention_bias", false);
  m.mlp_bias = config.flag("mlp_bias", false);
}

/// Qwen: a window only where it is switched on, from a layer on.
void qwen_windows(Shape& m, const Config& config) {
  if (!config.flag("use_sliding_window", false)) return;
  const std::int64_t first = config.positive("max_window_layers", 28);
  set_windows(m, config, config.positive("sliding_window", 4096), [&](std::int64_t layer) { return layer >= first; });
}

void all_windows(Shape& m, const Config& config) {
  if (config.has("sliding_window")) set_windows(m, config, config.positive("sliding_window"), [](std::int64_t) { return true; });
}

constexpr Family kFamilies[] = {
    {"gemma", 1e-6, true, gemma},
    {"gemma2", 1e-6, true, gemma2},
    {"gemma3_text", 1e-6, true, gemma3},
    {"llama", 1e-6, false, biased},
    {"mistral", 1e-6, false, all_windows},
    {"mixtral", 1e-5, false,
     [](Shape& m, const Config& config) {
       all_windows(m, config);
       m.experts = config.positive("num_local_experts", 8);
       m.experts_used = config.positive("num_experts_per_tok", 2);
       if (m.experts > 4096 || m.experts_used > m.experts) config.fail("num_experts_per_tok", "does not fit the number of experts");
     }},
    {"olmo2", 1e-5, false,
     [](Shape& m, const Config& config) {
       biased(m, config);
       m.placement = Shape::Placement::after;
       m.query_norm = Shape::QueryNorm::width;
     }},
    {"phi3", 1e-5, false,
     [](Shape& m, const Config& config) {
       all_windows(m, config);
       m.fused = true;
     }},
    {"qwen2", 1e-6, false,
     [](Shape& m, const Config& config) {
       m.qkv_bias = true;
       qwen_windows(m, config);
     }},
    {"qwen3", 1e-6, false,
     [](Shape& m, const Config& config) {
       m.qkv_bias = m.out_bias = config.flag("attention_bias", false);
       m.query_norm = Shape::QueryNorm::head;
       qwen_windows(m, config);
     }},
    {"starcoder2", 1e-5, true,
     [](Shape& m, const Config& config) {
       m.norm = Shape::Norm::layer;
       m.epsilon = config.number("norm_epsilon", 1e-5);
       m.gated = false;
       m.up_name = "c_fc";
       m.down_name = "c_proj";
       m.qkv_bias = m.out_bias = m.mlp_bias = config.flag("use_bias", true);
       all_windows(m, config);
     }},
};

Shape read_shape(const Config& config) {
  const std::string type = config.text("model_type", "");
  const auto family = std::find_if(std::begin(kFamilies), std::end(kFamilies), [&](const Family& f) { return type == f.name; });
  if (family == std::end(kFamilies))
    throw_unsupported(
        fmt::format("model_type \"{}\"", type), config.where(),
        "read are " + huggingface_families() + "; torch.onnx exports others to ONNX files, which are read whatever they are");
  if (config.has("quantization_config"))
    throw_unsupported("weights quantized by another tool", config.where(), "take the original model");
  Shape m;
  m.layers = config.positive("num_hidden_layers");
  m.hidden = config.positive("hidden_size");
  m.feed_forward = config.positive("intermediate_size");
  m.heads = config.positive("num_attention_heads");
  m.kv_heads = config.positive("num_key_value_heads", m.heads);
  m.head_size = config.positive("head_dim", std::max<std::int64_t>(m.hidden / m.heads, 1));
  m.positions = config.positive("max_position_embeddings");
  m.vocabulary = config.positive("vocab_size");
  m.epsilon = config.number("rms_norm_eps", family->epsilon);
  m.tied = config.flag("tie_word_embeddings", family->tied);
  m.activation = activation(config, config.has("hidden_activation") ? "hidden_activation" : "hidden_act", "silu");
  const bool gemma3_like = config.has("rope_local_base_freq") || type == std::string("gemma3_text");
  const double share = read_rotary(m.rotary, config, rope_of(config, "full_attention"), gemma3_like ? 1e6 : 1e4, m.positions);
  m.rotary_size = static_cast<std::int64_t>(static_cast<double>(m.head_size) * share);
  if (!(m.epsilon > 0 && m.epsilon < 1)) config.fail("rms_norm_eps", "is not in (0, 1)");
  if (m.layers > 10'000) config.fail("num_hidden_layers", "is more than 10,000");
  if (m.heads % m.kv_heads != 0) config.fail("num_key_value_heads", fmt::format("does not divide {} heads", m.heads));
  if (m.rotary_size < 2 || m.rotary_size % 2 != 0 || m.rotary_size > m.head_size)
    throw_unsupported(fmt::format("{} rotated elements in heads of {}", m.rotary_size, m.head_size), config.where());
  family->differ(m, config);
  return m;
}

/// Tensors of one file or of its shards.
class SafetensorsFolder {
 public:
  explicit SafetensorsFolder(const fs::path& folder) : folder_(folder) {
    const fs::path index = folder / "model.safetensors.index.json";
    if (fs::exists(folder / "model.safetensors")) {
      open("model.safetensors");
      return;
    }
    if (!fs::exists(index))
      throw_invalid("the folder holds no model.safetensors and no index of shards", folder.string(),
                    "weights in pytorch_model.bin are Python code and are not read; save the model as safetensors");
    const Json json = read_json(index);
    if (!json.contains("weight_map") || !json["weight_map"].is_object())
      throw_invalid("\"weight_map\" is missing or no object", index.string(), "the file is damaged");
    std::set<std::string> shards;
    for (const auto& [name, file] : json["weight_map"].items()) {
      if (!file.is_string())
        throw_invalid("\"weight_map\" names no file for '" + name + "'", index.string(), "the file is damaged");
      shards.insert(file.get<std::string>());
    }
    for (const std::string& shard : shards) {
      if (shard.empty() || fs::path(shard).filename().string() != shard || shard == "." || shard == "..")
        throw_invalid("shard '" + shard + "' is no file of the folder itself", index.string(),
                      "a model from elsewhere may not name other files of this machine");
      open(shard);
    }
  }

  const std::map<std::string, Tensor>& tensors() const { return tensors_; }

 private:
  void open(const std::string& name) {
    const MappedFile mapped(folder_ / name);
    for (auto& [tensor, value] : parse_safetensors(mapped.bytes(), mapped.owner(), (folder_ / name).string()))
      if (!tensors_.emplace(tensor, std::move(value)).second)
        throw_invalid("tensor '" + tensor + "' is in two files", (folder_ / name).string(), "the folder is damaged");
  }

  fs::path folder_;
  std::map<std::string, Tensor> tensors_;
};

/// `count` elements from `first` on, as f32.
void read_floats(const Tensor& tensor, std::int64_t first, std::int64_t count, float* to) {
  const std::byte* bytes = tensor.bytes.data();
  if (tensor.dtype == DType::f32) {
    std::memcpy(to, bytes + first * 4, static_cast<std::size_t>(count) * 4);
    return;
  }
  for (std::int64_t i = 0; i < count; ++i) {
    const std::byte* from = bytes + (first + i) * 2;
    to[i] = tensor.dtype == DType::bf16 ? std::bit_cast<float>(static_cast<std::uint32_t>(ggml::load<std::uint16_t>(from)) << 16)
                                        : ggml::half(from);
  }
}

class SafetensorsWeights final : public DecoderWeights {
 public:
  SafetensorsWeights(const SafetensorsFolder& folder, std::string where) : folder_(folder), where_(std::move(where)) {}

  void plain(const std::string& name, const std::vector<std::int64_t>& shape, double add) override {
    const Tensor& tensor = need(name, shape);
    jobs_.add(name, shape, [&tensor, add](float* to) {
      const std::int64_t count = tensor.count();
      read_floats(tensor, 0, count, to);
      if (add != 0)
        for (std::int64_t i = 0; i < count; ++i) to[i] += static_cast<float>(add);
    });
  }

  /// Pairs of rotated heads lie in halves already.
  void linear(const std::string& name, const std::string& source, std::int64_t in, std::int64_t out, std::int64_t,
              std::int64_t first, std::int64_t rows) override {
    const Tensor& tensor = need(source, {rows > 0 ? rows : out, in});
    jobs_.add(name, {in, out}, [&tensor, in, out, first](float* to) {
      transpose_rows(
          in, out, [&](std::int64_t row, float* values) { read_floats(tensor, (first + row) * in, in, values); }, to);
    });
  }

  /// What the graph has no place for; a tied head that is in the file all the same is left out.
  void check_all_used(bool tied) const {
    for (const auto& [name, tensor] : folder_.tensors()) {
      const bool known = used_.contains(name) || name.ends_with("rotary_emb.inv_freq") || (tied && name == "lm_head.weight");
      if (!known)
        throw_unsupported("tensor '" + name + "' has no place in the graph", where_, "the model is no plain one of its family");
    }
  }
  void convert(Graph& graph) { jobs_.run(graph); }

 private:
  const Tensor& need(const std::string& name, const std::vector<std::int64_t>& shape) {
    const auto found = folder_.tensors().find(name);
    if (found == folder_.tensors().end())
      throw_invalid("tensor '" + name + "' is missing", where_, "a shard is missing, or config.json is another model's");
    const Tensor& tensor = found->second;
    if (tensor.shape != shape)
      throw_invalid(fmt::format("tensor '{}' has the shape [{}], config.json asks for [{}]", name, fmt::join(tensor.shape, ", "),
                                fmt::join(shape, ", ")),
                    where_, "config.json is another model's");
    if (tensor.dtype != DType::f32 && tensor.dtype != DType::f16 && tensor.dtype != DType::bf16)
      throw_unsupported(fmt::format("tensor '{}' has the type {}", name, to_string(tensor.dtype)), where_,
                        "f32, f16 and bf16 are read");
    used_.insert(name);
    return tensor;
  }

  const SafetensorsFolder& folder_;
  std::string where_;
  WeightJobs jobs_;
  std::set<std::string> used_;
};

}  // namespace

std::string huggingface_families() {
  std::vector<std::string> names;
  for (const Family& family : kFamilies) names.emplace_back(family.name);
  return fmt::format("{}", fmt::join(names, ", "));
}

Graph build_huggingface(const Json& config, DecoderWeights& weights, const std::string& where) {
  return build_decoder(read_shape(Config(config, where)), weights, where);
}

ImportedModel import_huggingface(const fs::path& folder) {
  const Json json = read_json(folder / "config.json");
  const Config config(json, (folder / "config.json").string());
  const DecoderShape shape = read_shape(config);
  const SafetensorsFolder files(folder);
  SafetensorsWeights weights(files, folder.string());
  ImportedModel model;
  model.graph = build_decoder(shape, weights, config.where());
  weights.check_all_used(shape.tied);
  weights.convert(model.graph);
  model.tokenizer = folder_tokenizer(folder);
  if (model.tokenizer && static_cast<std::int64_t>(model.tokenizer->vocabulary()) > shape.vocabulary)
    throw_invalid(fmt::format("the tokenizer has {} tokens, the embedding {}", model.tokenizer->vocabulary(), shape.vocabulary),
                  folder.string(), "it is another model's");
  Graph& graph = model.graph;
  graph.metadata["espalier.task"] = "causal-lm";
  graph.metadata["source.format"] = "huggingface";
  graph.metadata["source.family"] = config.text("model_type", "");
  graph.metadata["source.config"] = json.dump(-1, ' ', false, Json::error_handler_t::replace);
  graph.sort();
  graph.validate();
  infer(graph);
  return model;
}

}  // namespace espalier
