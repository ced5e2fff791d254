#pragma once
#include <filesystem>

#include "store/store.h"

namespace espalier {

/// Writes the packed view of an artifact as a folder: a package's own files; a model as model.onnx, model.data and tokenizer.json;
/// of others the blobs and manifest.json. Written aside and renamed. A folder that is there already is replaced only if it is empty
/// or such a view; Error(invalid_input) otherwise.
void write_packed(const Store& store, const Digest& artifact, const std::filesystem::path& folder);

}  // namespace espalier
