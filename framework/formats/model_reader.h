#pragma once
/// Formats whose readers stand in a library that this one does not know: they enter themselves, and model_file.cpp finds them.
#include <array>
#include <filesystem>
#include <string>
#include <vector>

#include "formats/imported_model.h"

namespace espalier {

struct ModelReader {
  std::string format;                ///< "torchscript"
  std::vector<std::string> endings;  ///< ".pt", …
  std::string said;                  ///< how a list of formats names it: "TorchScript (.pt)"
  Graph (*read)(const std::filesystem::path& file);
};

/// Used through a file-static object in the reader's file.
struct RegisterModelReader {
  explicit RegisterModelReader(ModelReader reader);
};

const std::vector<ModelReader>& model_readers();

constexpr std::array<const char*, 3> kTorchScriptEndings = {".pt", ".pth", ".ts"};

}  // namespace espalier
