#include "formats/model_file.h"

#include <algorithm>
#include <fstream>

#include "formats/gguf.h"
#include "formats/huggingface.h"
#include "formats/model_reader.h"
#include "formats/onnx.h"
#include "sdk/error.h"

namespace espalier {
namespace {

namespace fs = std::filesystem;

struct Found {
  fs::path path;
  std::string format;
};

Found find(const fs::path& path) {
  std::error_code error;
  const auto status = fs::status(path, error);
  if (!fs::exists(status)) throw_invalid("there is no such file", path.string());
  fs::path file = path;
  if (fs::is_directory(status)) {
    file /= "model.onnx";
    if (!fs::is_regular_file(file, error)) {
      if (fs::is_regular_file(path / "config.json", error)) return {path, "huggingface"};
      throw_invalid("the folder holds no model.onnx and no config.json", path.string(),
                    "name a file, a folder that `espalier export` wrote, or a Hugging Face directory");
    }
  }
  char magic[4] = {};
  std::ifstream(file, std::ios::binary).read(magic, sizeof magic);
  if (std::string_view(magic, sizeof magic) == "GGUF") return {file, "gguf"};
  if (file.extension() == ".onnx") return {file, "onnx"};
  for (const ModelReader& reader : model_readers())
    if (std::find(reader.endings.begin(), reader.endings.end(), file.extension()) != reader.endings.end())
      return {file, reader.format};
  std::string others;
  for (const ModelReader& reader : model_readers()) others += ", " + reader.said;
  throw_unsupported("this is no model file that is read", file.string(),
                    "files of ONNX (.onnx)" + others + " and GGUF, and Hugging Face directories are");
}

ImportedModel read(const Found& found, const TensorStore& store) {
  if (found.format == "gguf") return import_gguf(found.path, store);
  if (found.format == "huggingface") return import_huggingface(found.path, store);
  ImportedModel model;
  for (const ModelReader& reader : model_readers())
    if (found.format == reader.format) {
      model.graph = reader.read(found.path);
      return model;
    }
  model.graph = read_onnx(found.path);
  return model;
}

}  // namespace

Graph read_model_file(const fs::path& path, std::string* format, const TensorStore& store) {
  const Found found = find(path);
  if (format) *format = found.format;
  return read(found, store).graph;
}

ImportedModel read_model_and_tokenizer(const fs::path& path, std::string* format, const TensorStore& store) {
  const Found found = find(path);
  if (format) *format = found.format;
  ImportedModel model = read(found, store);
  const fs::path beside = found.path.parent_path() / "tokenizer.json";
  std::error_code error;
  if (found.format != "gguf" && found.format != "huggingface" && fs::is_regular_file(beside, error)) {
    const MappedFile mapped(beside);
    model.tokenizer =
        Tokenizer::from_json({reinterpret_cast<const char*>(mapped.bytes().data()), mapped.bytes().size()}, beside.string());
  }
  return model;
}

}  // namespace espalier
