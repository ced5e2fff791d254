#include "formats/huggingface.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "formats/folder_tokenizer.h"
#include "formats/huggingface/family.h"
#include "graph/op.h"
#include "sdk/error.h"

namespace espalier {
namespace {

namespace fs = std::filesystem;

std::map<std::string, HuggingFaceFamily>& families() {
  static std::map<std::string, HuggingFaceFamily> all;
  return all;
}

HfSource open(const fs::path& folder) {
  const auto modules = read_sentence_modules(folder);
  const fs::path model = modules ? modules->model : folder;
  HfSource source{model, HfConfig(read_json_object(model / "config.json"), (model / "config.json").string()), std::nullopt, {}};
  if (modules) source.pooling = modules->pooling;
  return source;
}

const HuggingFaceFamily& family_of(const HfConfig& config) {
  const std::string type = config.text("model_type", "");
  const auto found = families().find(type);
  if (found == families().end())
    throw_unsupported(
        fmt::format("model_type \"{}\"", type), config.where(),
        "read are " + huggingface_families() + "; torch.onnx exports others to ONNX files, which are read whatever they are");
  return found->second;
}

/// What is not read of tokenizers is no reason to refuse the model.
void read_tokenizer(ImportedModel& model, const fs::path& folder, std::int64_t vocabulary) {
  try {
    model.tokenizer = folder_tokenizer(folder);
  } catch (const Error& error) {
    if (error.code() != ErrorCode::unsupported) throw;
    model.no_tokenizer = fmt::format("the tokenizer is of a kind that is not read: {}", error.message());
    return;
  }
  if (!model.tokenizer) {
    model.no_tokenizer = "the folder holds no tokenizer.json (tokenizer.save_pretrained writes it)";
    return;
  }
  if (static_cast<std::int64_t>(model.tokenizer->vocabulary()) > vocabulary)
    throw_invalid(fmt::format("the tokenizer has {} tokens, the embedding {}", model.tokenizer->vocabulary(), vocabulary),
                  folder.string(), "it is another model's");
}

}  // namespace

RegisterHuggingFaceFamily::RegisterHuggingFaceFamily(HuggingFaceFamily family) {
  const std::string type = family.type;
  if (!families().emplace(type, std::move(family)).second) throw Error(ErrorCode::internal, "two families are called " + type);
}

Activation read_activation(const HfConfig& config, const char* key, const char* fallback) {
  static const std::map<std::string, Activation, std::less<>> known = {
      {"silu", Activation::silu},          {"swish", Activation::silu},          {"gelu_pytorch_tanh", Activation::gelu_tanh},
      {"gelu_new", Activation::gelu_tanh}, {"gelu_fast", Activation::gelu_tanh}, {"gelu", Activation::gelu},
      {"relu", Activation::relu}};
  const std::string name = config.text(key, fallback);
  const auto found = known.find(name);
  if (found == known.end())
    throw_unsupported(fmt::format("\"{}\" is \"{}\"", config.name(key), name), config.where(), "silu, gelu and relu are read");
  return found->second;
}

std::string huggingface_families() {
  std::string names;
  for (const auto& [name, family] : families()) names += (names.empty() ? "" : ", ") + name;
  return names;
}

BuiltModel build_huggingface(const Json& config, WeightSource& weights, const std::string& where) {
  const HfConfig asked(config, where);
  const HuggingFaceFamily& family = family_of(asked);
  if (!family.build) throw_unsupported(fmt::format("models of model_type \"{}\" are not written", family.type), where);
  return {family.build(asked, weights), family.names};
}

ImportedModel import_huggingface(const fs::path& folder, const TensorStore& store) {
  HfSource source = open(folder);
  source.store = store;
  const HuggingFaceFamily& family = family_of(source.config);
  HfModel read = family.read(source);
  ImportedModel model;
  model.graph = std::move(read.graph);
  if (!read.left_out.empty())
    model.notes.push_back(fmt::format("left out: {} tensors of other heads, such as {}", read.left_out.size(), read.left_out[0]));
  const bool above = fs::exists(folder / "tokenizer.json") || fs::exists(folder / "vocab.txt");
  read_tokenizer(model, above ? folder : source.folder, read.vocabulary);
  Graph& graph = model.graph;
  graph.metadata["source.format"] = "huggingface";
  graph.metadata["source.family"] = family.type;
  graph.metadata["source.config"] = source.config.text();
  graph.sort();
  graph.validate();
  infer(graph);
  return model;
}

}  // namespace espalier
