#include "formats/huggingface_draft.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "formats/bounds.h"
#include "sdk/error.h"

namespace espalier {
namespace {

/// The number that a single-precision attribute was made from: its shortest decimal form, and no whole number, which transformers
/// does not take for a fraction.
Json shortest(double value) { return Json::parse(fmt::format("{}", static_cast<float>(value))).get<double>(); }

std::int64_t window_of(const DecoderFacts& facts) { return *std::max_element(facts.windows.begin(), facts.windows.end()); }

Json layer_types(const DecoderFacts& facts) {
  Json types = Json::array();
  for (const std::int64_t window : facts.windows) types.push_back(window > 0 ? "sliding_attention" : "full_attention");
  return types;
}

void one_window(Json& config, const DecoderFacts& facts) {
  config["sliding_window"] = window_of(facts) > 0 ? Json(window_of(facts)) : Json(nullptr);
}

void window_by_layer(Json& config, const DecoderFacts& facts) {
  one_window(config, facts);
  config["layer_types"] = layer_types(facts);
}

void switched_windows(Json& config, const DecoderFacts& facts) {
  window_by_layer(config, facts);
  config["use_sliding_window"] = window_of(facts) > 0;
}

void softcapped(Json& config, const DecoderFacts& facts) {
  window_by_layer(config, facts);
  if (window_of(facts) == 0) config["sliding_window"] = facts.positions;
  config["hidden_activation"] = facts.activation;
  config["attention_bias"] = facts.qkv_bias;
  const double scale = facts.attention_scale > 0 ? 1 / (facts.attention_scale * facts.attention_scale)
                                                 : static_cast<double>(facts.head_size.front());
  const double whole = std::round(scale);
  config["query_pre_attn_scalar"] = std::abs(scale - whole) < 1e-4 * whole ? Json(static_cast<std::int64_t>(whole)) : Json(scale);
  config["attn_logit_softcapping"] = facts.attention_softcap > 0 ? shortest(facts.attention_softcap) : Json(nullptr);
  config["final_logit_softcapping"] = facts.final_softcap > 0 ? shortest(facts.final_softcap) : Json(nullptr);
}

using Facts = DecoderFacts;
using QueryNorm = DecoderFacts::QueryNorm;

bool plain(const Facts& f) { return !f.layer_norm && !f.scaled_embedding && f.query_norm == QueryNorm::none && f.experts == 0; }

/// A family as the importer knows it, written: which graphs may be one, and what its config.json says beyond what all say.
struct Family {
  const char* name;
  const char* architecture;
  const char* epsilon;  ///< key
  bool typed;           ///< "layer_types" says which layers have a window
  bool whole_heads;     ///< transformers wants a hidden size that the number of heads divides, whatever head_dim says
  bool (*fits)(const Facts& facts);
  void (*fill)(Json& config, const Facts& facts);
};

constexpr Family kFamilies[] = {
    {"llama", "LlamaForCausalLM", "rms_norm_eps", false, true, [](const Facts& f) { return plain(f) && f.qkv_bias == f.out_bias; },
     [](Json& config, const Facts& facts) {
       config["attention_bias"] = facts.qkv_bias;
       config["mlp_bias"] = facts.mlp_bias;
     }},
    {"mistral", "MistralForCausalLM", "rms_norm_eps", false, false, [](const Facts& f) { return plain(f) && !f.qkv_bias; },
     one_window},
    {"qwen2", "Qwen2ForCausalLM", "rms_norm_eps", true, false, [](const Facts& f) { return plain(f) && f.qkv_bias; },
     switched_windows},
    {"phi3", "Phi3ForCausalLM", "rms_norm_eps", false, false, [](const Facts& f) { return plain(f) && !f.qkv_bias; },
     [](Json& config, const Facts& facts) {
       one_window(config, facts);
       config["original_max_position_embeddings"] = facts.positions;
       config["pad_token_id"] = nullptr;  // what it is without the key may lie beyond the vocabulary
       config["partial_rotary_factor"] = static_cast<double>(facts.rotary_size) / static_cast<double>(facts.head_size.front());
     }},
    {"qwen3", "Qwen3ForCausalLM", "rms_norm_eps", true, false,
     [](const Facts& f) { return f.query_norm == QueryNorm::head && !f.scaled_embedding; },
     [](Json& config, const Facts& facts) {
       switched_windows(config, facts);
       config["attention_bias"] = facts.qkv_bias;
     }},
    {"olmo2", "Olmo2ForCausalLM", "rms_norm_eps", false, false, [](const Facts& f) { return f.query_norm == QueryNorm::width; },
     [](Json& config, const Facts& facts) { config["attention_bias"] = facts.qkv_bias; }},
    {"gemma", "GemmaForCausalLM", "rms_norm_eps", false, false,
     [](const Facts& f) { return f.scaled_embedding && f.query_norm == QueryNorm::none; },
     [](Json& config, const Facts& facts) {
       config["hidden_activation"] = facts.activation;
       config["attention_bias"] = facts.qkv_bias;
     }},
    {"gemma2", "Gemma2ForCausalLM", "rms_norm_eps", true, true,
     [](const Facts& f) { return f.scaled_embedding && f.query_norm == QueryNorm::none; }, softcapped},
    {"gemma3_text", "Gemma3ForCausalLM", "rms_norm_eps", true, true,
     [](const Facts& f) { return f.scaled_embedding && f.query_norm == QueryNorm::head; },
     [](Json& config, const Facts& facts) {
       softcapped(config, facts);
       const RotaryRule global = facts.rotary.value_or(RotaryRule()), local = facts.local.value_or(global);
       config["rope_parameters"] = {{"full_attention", {{"rope_type", "default"}, {"rope_theta", global.base}}},
                                    {"sliding_attention", {{"rope_type", "default"}, {"rope_theta", local.base}}}};
     }},
    {"starcoder2", "Starcoder2ForCausalLM", "norm_epsilon", false, false, [](const Facts& f) { return f.layer_norm; },
     [](Json& config, const Facts& facts) {
       one_window(config, facts);
       config["use_bias"] = facts.qkv_bias;
     }},
    {"mixtral", "MixtralForCausalLM", "rms_norm_eps", false, false, [](const Facts& f) { return f.experts > 0; }, one_window},
};

const Family* family_of(const std::string& name) {
  const auto found = std::find_if(std::begin(kFamilies), std::end(kFamilies), [&](const Family& f) { return name == f.name; });
  return found == std::end(kFamilies) ? nullptr : found;
}

/// The lengths and settings that all families write alike.
void set_common(Json& config, const Family& family, const DecoderFacts& facts) {
  const std::int64_t heads = facts.heads.front(), size = facts.head_size.front();
  config["model_type"] = family.name;
  config["num_hidden_layers"] = facts.layers();
  config["hidden_size"] = facts.hidden;
  config["num_attention_heads"] = heads;
  config["num_key_value_heads"] = facts.kv_heads.front();
  if (config.contains("head_dim") || facts.hidden / heads != size) config["head_dim"] = size;
  config["vocab_size"] = facts.vocabulary;
  if (facts.positions > 0) config["max_position_embeddings"] = facts.positions;
  if (facts.experts > 0) {
    config["num_local_experts"] = facts.experts;
    config["num_experts_per_tok"] = facts.experts_used;
  }
  config["tie_word_embeddings"] = facts.tied;
  const Json& before = config[family.epsilon];
  if (!before.is_number() || shortest(before.get<double>()) != shortest(facts.epsilon))
    config[family.epsilon] = shortest(facts.epsilon);
  if (!config.contains("architectures")) config["architectures"] = {family.architecture};
}

/// The model's own config.json with what has changed.
Json changed(Json config, const Family& family, const DecoderFacts& facts) {
  for (const char* gone : {"_name_or_path", "transformers_version", "torch_dtype", "dtype"}) config.erase(gone);
  const bool fewer = config.value("num_hidden_layers", Json()) != facts.layers();
  set_common(config, family, facts);
  if (family.typed && fewer) config["layer_types"] = layer_types(facts);
  return config;
}

/// What the graph alone says.
Json found(const Family& family, const DecoderFacts& facts) {
  const RotaryRule rule = facts.rotary.value_or(RotaryRule());
  Json config{{"hidden_act", facts.activation}, {"head_dim", facts.head_size.front()}, {"rope_theta", rule.base}};
  if (rule.factor != 1) config["rope_scaling"] = {{"rope_type", "linear"}, {"factor", rule.factor}};
  set_common(config, family, facts);
  family.fill(config, facts);
  return config;
}

std::string metadata(const Graph& graph, const char* key) {
  const auto entry = graph.metadata.find(key);
  return entry == graph.metadata.end() ? std::string() : entry->second;
}

bool heads_fit(const Family& family, const DecoderFacts& facts) {
  return !family.whole_heads || facts.hidden % facts.heads.front() == 0;
}

/// The family itself, or one with the same layers that takes any number of heads.
const Family& relative(const Family& family, const DecoderFacts& facts) {
  if (heads_fit(family, facts)) return family;
  const Family* other = family_of("mistral");
  if (&family == family_of("llama") && other->fits(facts) && !facts.mlp_bias) return *other;
  throw_unsupported(fmt::format("transformers takes a model of the family \"{}\" only with a hidden size that the number of heads "
                                "divides; they are {} and {}",
                                family.name, facts.hidden, facts.heads.front()),
                    "config.json", "keep another number of heads, or write ONNX: a name that ends in .onnx");
}

}  // namespace

std::vector<HuggingfaceDraft> huggingface_drafts(const Graph& graph, const DecoderFacts& facts) {
  const std::string name = metadata(graph, "source.family"), text = metadata(graph, "source.config");
  const Family* source = family_of(name);
  if (!name.empty() && !source)
    throw_unsupported(fmt::format("the family \"{}\" is not written", name), graph.name,
                      fmt::format("written are {}; or write ONNX: a name that ends in .onnx", written_families()));
  const Family* own = source ? &relative(*source, facts) : nullptr;
  std::vector<HuggingfaceDraft> list;
  if (own && !text.empty()) {
    Json config = parse_json(text, "metadata \"source.config\"");
    if (!config.is_object()) throw_invalid("it is no JSON object", "metadata \"source.config\"", "the file is damaged");
    if (own != source) config.erase("architectures");
    config = changed(std::move(config), *own, facts);
    if (own != source) own->fill(config, facts);
    list.push_back({own->name, std::move(config)});
  }
  for (const Family& family : kFamilies)
    if (own ? &family == own : family.fits(facts) && heads_fit(family, facts)) list.push_back({family.name, found(family, facts)});
  return list;
}

std::string written_families() {
  std::set<std::string> names;
  for (const Family& family : kFamilies) names.insert(family.name);
  return fmt::format("{}", fmt::join(names, ", "));
}

}  // namespace espalier
