#include "formats/model_file.h"

#include <fstream>

#include "formats/gguf.h"
#include "formats/onnx.h"
#include "sdk/error.h"

namespace espalier {

Graph read_model_file(const std::filesystem::path& path, std::string* format) {
  std::error_code error;
  const auto status = std::filesystem::status(path, error);
  if (!std::filesystem::exists(status)) throw_invalid("there is no such file", path.string());
  std::filesystem::path file = path;
  if (std::filesystem::is_directory(status)) {
    file /= "model.onnx";
    if (!std::filesystem::is_regular_file(file, error))
      throw_invalid("the folder holds no model.onnx", path.string(), "name a file, or a folder that `espalier export` wrote");
  }
  char magic[4] = {};
  std::ifstream(file, std::ios::binary).read(magic, sizeof magic);
  const bool gguf = std::string_view(magic, sizeof magic) == "GGUF";
  if (!gguf && file.extension() != ".onnx")
    throw_unsupported("this is no model file that is read", file.string(), "files of ONNX (.onnx) and GGUF are");
  if (format) *format = gguf ? "gguf" : "onnx";
  return gguf ? import_gguf(file).graph : read_onnx(file);
}

}  // namespace espalier
