#include "formats/model_reader.h"

namespace espalier {
namespace {

std::vector<ModelReader>& registry() {
  static std::vector<ModelReader> readers;
  return readers;
}

}  // namespace

RegisterModelReader::RegisterModelReader(ModelReader reader) { registry().push_back(std::move(reader)); }

const std::vector<ModelReader>& model_readers() { return registry(); }

}  // namespace espalier
