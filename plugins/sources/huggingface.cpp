// A language model or an encoder, and its tokenizer, from a Hugging Face directory.
#include "formats/huggingface.h"
#include "formats/model_artifact.h"
#include "sdk/plugin.h"

namespace {

class HuggingfaceSource final : public espalier::Component {
 public:
  void run(espalier::Context& context) override {
    const auto path = context.params().path("path");
    context.progress({0, 0, "reading " + path.filename().string(), {}});
    espalier::put_out(context, espalier::import_huggingface(path, espalier::into_store(context)), path,
                      "save the model with its fast tokenizer (tokenizer.save_pretrained)");
  }
};

}  // namespace

ESPALIER_PLUGIN(R"json({
  "name": "huggingface", "version": "0.1.0", "author": "The Espalier authors", "licence": "Apache-2.0",
  "description": "Reads language models and encoders from Hugging Face directories",
  "components": [{
    "name": "source/huggingface", "version": "0.1.0",
    "summary": "A decoder-only language model or an encoder, and its tokenizer, from a Hugging Face or sentence-transformers directory (safetensors, whole or in shards)",
    "inputs": [],
    "outputs": [
      {"name": "model", "type": "model", "help": "the model as a graph: input_ids, attention_mask and position_ids or token_type_ids to logits, last_hidden_state or sentence_embedding"},
      {"name": "tokenizer", "type": "tokenizer", "help": "the tokenizer from tokenizer.json; empty, with the reason, where there is none or it is not read"}
    ],
    "parameters": [
      {"name": "path", "type": "path", "required": true, "help": "the folder with config.json, model.safetensors (or its shards and their index) and tokenizer.json"}
    ],
    "depends": {"seed": false, "threads": false, "runtimes": []},
    "byte_exact": true,
    "estimate": {"memory": "8e7 + path.bytes",
                 "seconds": "0.5 + path.bytes / 2e8",
                 "memory_base": 1e8, "memory_per_byte": 3, "output_per_byte": 2}
  }]
})json",
                ESPALIER_COMPONENT("source/huggingface", HuggingfaceSource));
