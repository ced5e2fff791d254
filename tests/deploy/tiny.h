#pragma once
#include <ATen/core/Tensor.h>

#include "deploy/test_context.h"
#include "e2e/tiny_model.h"
#include "formats/model_artifact.h"
#include "run/runtime.h"

namespace espalier::test {

/// The end-to-end test's tiny language model (257 tokens, 64 positions) and its text, imported once by the real sources.
class Tiny {
 public:
  static Tiny& get() {
    static Tiny made;
    return made;
  }
  Workshop workshop;
  Artifact model, tokenizer, heldout;

  Graph graph(const Artifact& artifact) { return load_model(workshop.context(), artifact); }
  Artifact package(const std::string& backend, const Artifact& of, const Json& params = Json::object()) {
    return workshop.run(backend, {{"model", of}}, params).outputs.at("package");
  }
  /// Opens a package as it is deployed; the folder is `workshop.lay_out(package)`.
  std::unique_ptr<LanguageModel> open(const std::string& backend, const std::filesystem::path& folder, bool last_only = false) {
    handles_.push_back(workshop.component(backend));
    return handles_.back().as<Runtime>().open_language_model(folder, {2, last_only});
  }
  Artifact quantized() { return workshop.run("quantizer/rtn", {{"model", model}}).outputs.at("model"); }

 private:
  std::vector<ComponentHandle> handles_;
  Tiny() {
    write_tiny_model(workshop.folder());
    const auto file = [&](const char* name) { return (workshop.folder() / name).string(); };
    const Outcome made = workshop.run(
        "source/onnx", {}, {{"path", file("model.onnx")}, {"task", "causal-lm"}, {"tokenizer_file", file("tokenizer.json")}});
    model = made.outputs.at("model");
    tokenizer = made.outputs.at("tokenizer");
    heldout = workshop.run("source/text", {{"tokenizer", tokenizer}}, {{"files", {file("test.txt")}}, {"sequence", 48}})
                  .outputs.at("data");
  }
};

/// A fixed sequence of tokens of the tiny vocabulary.
inline std::vector<std::int64_t> some_tokens(std::size_t count) {
  std::vector<std::int64_t> tokens;
  for (std::size_t i = 0; i < count; ++i) tokens.push_back(static_cast<std::int64_t>((i * 37 + i * i * 5 + 11) % 257));
  return tokens;
}

}  // namespace espalier::test
