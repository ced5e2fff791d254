// Token ids of a text, for the comparison with Hugging Face's tokenizers: one little-endian int32 each on the standard output.
//   tokenizer_ids MODEL.gguf|tokenizer.json TEXT_FILE    (the time that encoding took goes to standard error)
//   tokenizer_ids MODEL.gguf --json                      (the tokenizer.json that we write)
#include <fmt/format.h>

#include <chrono>
#include <cstdio>

#include "formats/gguf.h"
#include "formats/gguf_tokenizer.h"
#include "sdk/artifact.h"
#include "sdk/error.h"

namespace {

std::string_view text_of(const espalier::MappedFile& file) {
  return {reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()};
}

}  // namespace

int main(int argc, char** argv) try {
  if (argc != 3) {
    fmt::print(stderr, "usage: tokenizer_ids MODEL.gguf|tokenizer.json TEXT_FILE|--json\n");
    return 2;
  }
  const std::filesystem::path model(argv[1]);
  std::shared_ptr<espalier::Tokenizer> tokenizer;
  if (model.extension() == ".gguf") {
    tokenizer = espalier::gguf_tokenizer(espalier::GgufFile::open(model));
  } else {
    const espalier::MappedFile file(model);
    tokenizer = espalier::Tokenizer::from_json(text_of(file), model.string());
  }
  if (std::string_view(argv[2]) == "--json") {
    const std::string json = tokenizer->json();
    return std::fwrite(json.data(), 1, json.size(), stdout) == json.size() ? 0 : 1;
  }
  const espalier::MappedFile text(argv[2]);
  const auto begin = std::chrono::steady_clock::now();
  const auto ids = tokenizer->encode(text_of(text));
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
  fmt::print(stderr, "{} bytes, {} ids, {:.3f} s\n", text.bytes().size(), ids.size(), seconds.count());
  return std::fwrite(ids.data(), sizeof(std::int32_t), ids.size(), stdout) == ids.size() ? 0 : 1;
} catch (const espalier::Error& error) {
  fmt::print(stderr, "{}\n", error.what());
  return espalier::exit_code(error.code());
}
