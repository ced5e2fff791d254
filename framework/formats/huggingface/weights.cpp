#include "formats/huggingface/weights.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "formats/float_values.h"
#include "formats/huggingface/config.h"
#include "formats/safetensors.h"
#include "sdk/error.h"

namespace espalier {
namespace fs = std::filesystem;

SafetensorsFolder::SafetensorsFolder(const fs::path& folder) : folder_(folder) {
  const fs::path index = folder / "model.safetensors.index.json";
  if (fs::exists(folder / "model.safetensors")) {
    open("model.safetensors");
    return;
  }
  if (!fs::exists(index))
    throw_invalid("the folder holds no model.safetensors and no index of shards", folder.string(),
                  "weights in pytorch_model.bin are Python code and are not read; save the model as safetensors");
  const Json json = read_json_object(index);
  if (!json.contains("weight_map") || !json["weight_map"].is_object())
    throw_invalid("\"weight_map\" is missing or no object", index.string(), "the file is damaged");
  std::set<std::string> shards;
  for (const auto& [name, file] : json["weight_map"].items()) {
    if (!file.is_string()) throw_invalid("\"weight_map\" names no file for '" + name + "'", index.string(), "the file is damaged");
    shards.insert(file.get<std::string>());
  }
  for (const std::string& shard : shards) {
    if (shard.empty() || fs::path(shard).filename().string() != shard || shard == "." || shard == "..")
      throw_invalid("shard '" + shard + "' is no file of the folder itself", index.string(),
                    "a model from elsewhere may not name other files of this machine");
    open(shard);
  }
}

void SafetensorsFolder::open(const std::string& name) {
  const MappedFile mapped(folder_ / name);
  for (auto& [tensor, value] : parse_safetensors(mapped.bytes(), mapped.owner(), (folder_ / name).string()))
    if (!tensors_.emplace(tensor, std::move(value)).second)
      throw_invalid("tensor '" + tensor + "' is in two files", (folder_ / name).string(), "the folder is damaged");
}

bool SafetensorsWeights::has(const std::string& name) const { return find(name, nullptr) != nullptr; }

void SafetensorsWeights::plain(const std::string& name, const std::vector<std::int64_t>& shape, double add) {
  const Tensor& tensor = need(name, shape);
  jobs_.add(name, shape, [&tensor, add](float* to) {
    const std::int64_t count = tensor.count();
    read_floats(tensor, 0, count, to);
    if (add != 0)
      for (std::int64_t i = 0; i < count; ++i) to[i] += static_cast<float>(add);
  });
}

void SafetensorsWeights::vector(const std::string& name, std::int64_t out, const Origin& origin) {
  const Tensor& tensor = need(origin.whole.empty() ? name : origin.whole, {origin.rows.all > 0 ? origin.rows.all : out});
  jobs_.add(name, {out}, [&tensor, out, rows = origin.rows](float* to) {
    for (std::int64_t i = 0; i < out; ++i) read_floats(tensor, rows.at(i), 1, to + i);
  });
}

void SafetensorsWeights::linear(const std::string& name, std::int64_t in, std::int64_t out, const Origin& origin) {
  const std::int64_t all = origin.rows.all > 0 ? origin.rows.all : out;
  const auto shape = origin.in_out ? std::vector{in, all} : std::vector{all, in};
  const Tensor& tensor = need(origin.whole.empty() ? name : origin.whole, shape);
  if (!origin.in_out) {
    jobs_.add(name, {in, out}, [&tensor, in, out, rows = origin.rows](float* to) {
      transpose_rows(
          in, out, [&](std::int64_t row, float* values) { read_floats(tensor, rows.at(row) * in, in, values); }, to);
    });
    return;
  }
  jobs_.add(name, {in, out}, [&tensor, in, out, all, rows = origin.rows](float* to) {
    std::vector<float> whole(static_cast<std::size_t>(all));
    for (std::int64_t k = 0; k < in; ++k) {
      read_floats(tensor, k * all, all, whole.data());
      for (std::int64_t i = 0; i < out; ++i) to[k * out + i] = whole[static_cast<std::size_t>(rows.at(i))];
    }
  });
}

std::vector<std::string> SafetensorsWeights::check_all_used(const std::vector<std::string>& heads) const {
  std::vector<std::string> left_out;
  for (const auto& [name, tensor] : folder_.tensors()) {
    if (used_.contains(name) || names_.is_unread(name)) continue;
    if (std::none_of(heads.begin(), heads.end(), [&](const std::string& head) { return name.starts_with(head); }))
      throw_unsupported("tensor '" + name + "' has no place in the graph", where_, "the model is no plain one of its family");
    left_out.push_back(name);
  }
  return left_out;
}

const Tensor* SafetensorsWeights::find(const std::string& name, std::string* spelling) const {
  for (const std::string& one : names_.spellings(name)) {
    const auto found = folder_.tensors().find(one);
    if (found == folder_.tensors().end()) continue;
    if (spelling) *spelling = one;
    return &found->second;
  }
  return nullptr;
}

const Tensor& SafetensorsWeights::need(const std::string& name, const std::vector<std::int64_t>& shape) {
  std::string spelling = names_.spellings(name).front();
  const Tensor* found = find(name, &spelling);
  if (!found)
    throw_invalid("tensor '" + spelling + "' is missing", where_, "a shard is missing, or config.json is another model's");
  if (found->shape != shape)
    throw_invalid(fmt::format("tensor '{}' has the shape [{}], config.json asks for [{}]", spelling, fmt::join(found->shape, ", "),
                              fmt::join(shape, ", ")),
                  where_, "config.json is another model's");
  if (found->dtype != DType::f32 && found->dtype != DType::f16 && found->dtype != DType::bf16)
    throw_unsupported(fmt::format("tensor '{}' has the type {}", spelling, to_string(found->dtype)), where_,
                      "f32, f16 and bf16 are read");
  used_.insert(spelling);
  return *found;
}

}  // namespace espalier
