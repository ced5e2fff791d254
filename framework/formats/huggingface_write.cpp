#include "formats/huggingface_write.h"

#include <fmt/format.h>

#include <algorithm>

#include "formats/file_aside.h"
#include "formats/float_values.h"
#include "formats/huggingface_plan.h"
#include "formats/safetensors.h"
#include "sdk/error.h"

namespace espalier {
namespace {

namespace fs = std::filesystem;

constexpr std::int64_t kPiece = 1 << 20;  // elements that are turned and converted at a time

struct Stored {
  const std::string* name;
  const SourceTensor* tensor;
  DType dtype;
  std::uint64_t bytes;
};

/// Files and what is in each, in the order of the names.
struct Shard {
  std::string file;
  std::vector<Stored> tensors;
  std::uint64_t bytes = 0;
};

DType stored_as(const Graph& graph, const SourceTensor& tensor, const std::optional<DType>& wanted) {
  if (wanted) return *wanted;
  DType type = graph.initializers.at(tensor.pieces.front().initializer).dtype;
  for (const auto& piece : tensor.pieces)
    if (graph.initializers.at(piece.initializer).dtype != type) type = DType::f32;
  return type;
}

std::vector<Shard> shards(const Graph& graph, const HuggingfacePlan& plan, const HuggingfaceOptions& options) {
  std::vector<Shard> list(1);
  for (const auto& [name, tensor] : plan.tensors) {
    std::int64_t count = 1;
    for (const std::int64_t length : tensor.shape) count *= length;
    const DType type = stored_as(graph, tensor, options.dtype);
    const std::uint64_t bytes = byte_size(type, count);
    if (!list.back().tensors.empty() && bytes + list.back().bytes > options.max_shard) list.emplace_back();
    list.back().tensors.push_back({&name, &tensor, type, bytes});
    list.back().bytes += bytes;
  }
  for (std::size_t i = 0; i < list.size(); ++i) {
    // Wide elements first keeps every tensor aligned.
    std::stable_sort(list[i].tensors.begin(), list[i].tensors.end(),
                     [](const Stored& a, const Stored& b) { return bits(a.dtype) > bits(b.dtype); });
    list[i].file = list.size() == 1 ? "model.safetensors" : fmt::format("model-{:05}-of-{:05}.safetensors", i + 1, list.size());
  }
  return list;
}

/// Rows [first, first + count) of a matrix that the graph holds as [in, rows]; a few at a time, so that both sides stay in the
/// cache.
void turned_rows(const Tensor& matrix, std::int64_t rows, std::int64_t first, std::int64_t count, float* to) {
  constexpr std::int64_t kRows = 32;
  const std::int64_t in = matrix.shape[0];
  float strip[kRows];
  for (std::int64_t block = 0; block < count; block += kRows) {
    const std::int64_t some = std::min(kRows, count - block);
    for (std::int64_t k = 0; k < in; ++k) {
      read_floats(matrix, k * rows + first + block, some, strip);
      for (std::int64_t r = 0; r < some; ++r) to[(block + r) * in + k] = strip[r];
    }
  }
}

/// Writes weights one after another and tells how far it is.
class WeightWriter {
 public:
  WeightWriter(const Graph& graph, const HuggingfaceOptions& options, std::uint64_t all)
      : graph_(graph), options_(options), all_(all) {}

  void write(const Stored& stored, FileAside& file) {
    for (const auto& piece : stored.tensor->pieces) {
      const Tensor& tensor = graph_.initializers.at(piece.initializer);
      const std::int64_t width = piece.rows > 0 ? tensor.count() / piece.rows : 0;
      if (width == 0) continue;
      const std::int64_t step = std::max<std::int64_t>(kPiece / width, 32);
      for (std::int64_t first = 0; first < piece.rows; first += step) {
        const std::int64_t rows = std::min(step, piece.rows - first);
        values_.resize(static_cast<std::size_t>(rows * width));
        if (piece.turned)
          turned_rows(tensor, piece.rows, first, rows, values_.data());
        else
          read_floats(tensor, first * width, rows * width, values_.data());
        if (piece.factor != 1)
          for (float& value : values_) value = static_cast<float>(value * piece.factor);
        if (stored.tensor->added != 0)
          for (float& value : values_) value -= static_cast<float>(stored.tensor->added);
        bytes_.resize(values_.size() * static_cast<std::size_t>(bits(stored.dtype) / 8));
        write_floats(values_, stored.dtype, bytes_.data(), piece.initializer);
        file.write(bytes_);
        done_ += bytes_.size();
        if (options_.progress) options_.progress(done_, all_);
      }
      MappedFile::release(tensor.owner, tensor.bytes);
    }
  }

 private:
  const Graph& graph_;
  const HuggingfaceOptions& options_;
  std::uint64_t all_, done_ = 0;
  std::vector<float> values_;
  std::vector<std::byte> bytes_;
};

class Folder {
 public:
  explicit Folder(fs::path path) : path_(std::move(path)) {}

  void put(const std::string& name, const std::function<void(FileAside&)>& fill) {
    FileAside file(path_ / name);
    fill(file);
    file.finish();
    file.commit();
    written.emplace_back(name, file.size());
  }
  void put(const std::string& name, const Json& json) {
    put_text(name, json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n");
  }
  void put_text(const std::string& name, const std::string& text) {
    put(name, [&](FileAside& file) { file.write(std::as_bytes(std::span(text))); });
  }

  std::vector<std::pair<std::string, std::uint64_t>> written;

 private:
  fs::path path_;
};

void put_weights(Folder& folder, const Graph& graph, const std::vector<Shard>& list, const HuggingfaceOptions& options) {
  std::uint64_t all = 0;
  for (const Shard& shard : list) all += shard.bytes;
  WeightWriter writer(graph, options, all);
  Json places = Json::object();
  for (const Shard& shard : list) {
    std::vector<SafetensorsEntry> entries;
    for (const Stored& stored : shard.tensors) {
      entries.push_back({*stored.name, stored.dtype, stored.tensor->shape});
      places[*stored.name] = shard.file;
    }
    folder.put(shard.file, [&](FileAside& file) {
      file.write(safetensors_header(entries, {{"format", "pt"}}));  // readers ask for the key
      for (const Stored& stored : shard.tensors) writer.write(stored, file);
    });
  }
  if (list.size() > 1)
    folder.put("model.safetensors.index.json", Json{{"metadata", {{"total_size", all}}}, {"weight_map", std::move(places)}});
}

/// One type for all weights, or float32 where they differ, so that loading loses nothing.
std::string common_type(const std::vector<Shard>& list) {
  const DType first = list.front().tensors.front().dtype;
  for (const Shard& shard : list)
    for (const Stored& stored : shard.tensors)
      if (stored.dtype != first) return std::string(to_string(DType::f32));
  return std::string(to_string(first));
}

/// Where texts begin and end: the model's own config says so, or its tokenizer does.
Json marks(const Json& config, const Tokenizer* tokenizer) {
  Json found = Json::object();
  const auto mark = [&](const char* key, std::int32_t id) {
    if (config.contains(key) && !config[key].is_null())
      found[key] = config[key];
    else if (id >= 0)
      found[key] = id;
  };
  mark("bos_token_id", tokenizer ? tokenizer->bos() : -1);
  mark("eos_token_id", tokenizer ? tokenizer->eos() : -1);
  mark("pad_token_id", -1);
  return found;
}

/// What AutoTokenizer asks for beside tokenizer.json: a class that reads it, and the texts of the marks.
Json tokenizer_config(const Tokenizer& tokenizer, const Json& config) {
  Json settings{{"tokenizer_class", "PreTrainedTokenizerFast"},
                {"clean_up_tokenization_spaces", false},
                {"model_max_length", config.at("max_position_embeddings")}};
  const Json tokens = Json::parse(tokenizer.json()).value("added_tokens", Json::array());
  for (const Json& token : tokens) {
    if (token.value("id", -1) == tokenizer.bos()) settings["bos_token"] = token.at("content");
    if (token.value("id", -1) == tokenizer.eos()) settings["eos_token"] = token.at("content");
  }
  return settings;
}

}  // namespace

HuggingfaceFiles write_huggingface(const Graph& graph, const Tokenizer* tokenizer, const fs::path& path,
                                   const HuggingfaceOptions& options) {
  HuggingfacePlan plan = plan_huggingface(graph);
  Json& config = plan.config;
  if (tokenizer && static_cast<std::int64_t>(tokenizer->vocabulary()) > config.at("vocab_size").get<std::int64_t>())
    throw_invalid(fmt::format("the tokenizer has {} tokens, the embedding {}", tokenizer->vocabulary(),
                              config.at("vocab_size").get<std::int64_t>()),
                  "tokenizer.json", "it is another model's");
  const std::vector<Shard> list = shards(graph, plan, options);
  HuggingfaceFiles files{config.at("model_type").get<std::string>(), common_type(list), {}};
  const Json ends = marks(config, tokenizer);
  config.update(ends);
  config["dtype"] = config["torch_dtype"] = files.dtype;  // the key's new and its old name

  Folder folder(path);
  put_weights(folder, graph, list, options);
  folder.put("config.json", config);
  folder.put("generation_config.json", ends);
  if (tokenizer) {
    folder.put_text("tokenizer.json", tokenizer->json());
    folder.put("tokenizer_config.json", tokenizer_config(*tokenizer, config));
  }
  files.written = std::move(folder.written);
  return files;
}

}  // namespace espalier
