// A language model and its tokenizer from one GGUF file.
#include "formats/gguf.h"
#include "formats/model_artifact.h"
#include "sdk/plugin.h"

namespace {

class GgufSource final : public espalier::Component {
 public:
  void run(espalier::Context& context) override {
    const auto path = context.params().path("path");
    context.progress({0, 0, "reading " + path.filename().string(), {}});
    espalier::put_out(context, espalier::import_gguf(path, espalier::into_store(context)), path,
                      "convert the model with its vocabulary");
  }
};

}  // namespace

ESPALIER_PLUGIN(R"json({
  "name": "gguf", "version": "0.1.0", "author": "The Espalier authors", "licence": "Apache-2.0",
  "description": "Reads language models from GGUF files",
  "components": [{
    "name": "source/gguf", "version": "0.1.0",
    "summary": "A language model and its tokenizer from a GGUF file (tensors of any legacy or K type, dequantized to f32)",
    "inputs": [],
    "outputs": [
      {"name": "model", "type": "model", "help": "the model as a graph: input_ids, attention_mask, position_ids to logits"},
      {"name": "tokenizer", "type": "tokenizer", "help": "the byte-level BPE tokenizer from the file's metadata"}
    ],
    "parameters": [
      {"name": "path", "type": "path", "required": true, "help": "the .gguf file"}
    ],
    "depends": {"seed": false, "threads": false, "runtimes": []},
    "byte_exact": true,
    "estimate": {"memory": "8e7 + 1.8 * path.bytes",
                 "seconds": "0.5 + path.bytes / 6e7",
                 "memory_base": 1e8, "memory_per_byte": 7, "output_per_byte": 6.5}
  }]
})json",
                ESPALIER_COMPONENT("source/gguf", GgufSource));
