// Text files as windows of tokens.
#include <fmt/format.h>

#include <algorithm>

#include "formats/model_artifact.h"
#include "formats/tokenizer.h"
#include "run/dataset.h"
#include "sdk/plugin.h"

using namespace espalier;

namespace {

/// All files as one stream of tokens, in the order of the recipe. Where the tokenizer allows it, files are encoded in pieces of a
/// few mebibytes, so that a long file is not beyond cancellation; cut only after a newline between two visible ASCII characters.
std::vector<std::int32_t> token_stream(Context& context, const Tokenizer& tokenizer,
                                       const std::vector<std::filesystem::path>& files) {
  constexpr std::size_t piece = std::size_t{4} << 20;
  const auto visible = [](char c) { return c > 0x20 && c < 0x7f; };
  std::vector<std::int32_t> stream;
  std::uint64_t done = 0, total = 0;
  std::vector<MappedFile> maps;
  for (const auto& path : files) total += maps.emplace_back(path).bytes().size();
  for (std::size_t f = 0; f < maps.size(); ++f) {
    std::string_view text(reinterpret_cast<const char*>(maps[f].bytes().data()), maps[f].bytes().size());
    while (!text.empty()) {
      context.check_cancelled();
      std::size_t length = text.size();
      for (std::size_t at = piece; tokenizer.cuts_at_newlines() && at < text.size(); ++at) {
        if (text[at - 1] == '\n' && visible(text[at]) && visible(text[at - 2])) {
          length = at;
          break;
        }
      }
      const auto ids = tokenizer.encode(text.substr(0, length));
      stream.insert(stream.end(), ids.begin(), ids.end());
      text.remove_prefix(length);
      done += length;
      context.progress({done, total, "tokenizing " + files[f].filename().string(), {}});
    }
  }
  return stream;
}

class TextSource final : public Component {
 public:
  void run(Context& context) override {
    const auto& params = context.params();
    const auto sequence = params.integer("sequence");
    const auto stride = params.integer("stride") == 0 ? sequence : params.integer("stride");
    const auto part = params.text("part");
    if (stride < sequence && part != "all") {
      throw_invalid(fmt::format("windows overlap (stride {} < sequence {}), so \"{}\" would share text with the other part", stride,
                                sequence, part),
                    "parameter stride", "give stride = 0, or part = \"all\"");
    }
    const Artifact& tokenizer_artifact = context.input("tokenizer");
    const auto tokenizer = load_tokenizer(context, tokenizer_artifact);
    const bool bos = params.flag("bos");
    if (bos && tokenizer->bos() < 0) throw_invalid("the tokenizer has no BOS token", "parameter bos", "give bos = false");

    const auto files = params.paths("files");
    if (files.empty()) throw_invalid("no files are given", "parameter files");
    const auto stream = token_stream(context, *tokenizer, files);
    const std::int64_t text_tokens = sequence - (bos ? 1 : 0);  // of each window
    const auto length = static_cast<std::int64_t>(stream.size());
    const std::int64_t count = length < text_tokens ? 0 : (length - text_tokens) / stride_of(stride, bos) + 1;
    auto windows = examples_of_part(count, part, params.number("share"), context.seed());
    if (const auto limit = params.integer("limit"); limit > 0 && limit < static_cast<std::int64_t>(windows.size())) {
      windows.resize(static_cast<std::size_t>(limit));
    }
    if (windows.empty()) {
      throw_invalid(fmt::format("the text has {} tokens, which makes {} windows of {}, none of them in part \"{}\"", length, count,
                                sequence, part),
                    "parameter files", "give more text, a shorter sequence or another share");
    }
    std::vector<std::int32_t> tokens;
    tokens.reserve(windows.size() * static_cast<std::size_t>(sequence));
    for (auto w : windows) {
      if (bos) tokens.push_back(tokenizer->bos());
      const auto begin = stream.begin() + w * stride_of(stride, bos);
      tokens.insert(tokens.end(), begin, begin + text_tokens);
    }
    save(context, tokens, sequence, tokenizer_artifact);
    context.log(LogLevel::info, fmt::format("{} tokens of text, {} windows of {}", length, windows.size(), sequence));
  }

 private:
  // A BOS token takes the place of a token of text; windows that did not overlap still leave nothing out.
  static std::int64_t stride_of(std::int64_t stride, bool bos) { return std::max<std::int64_t>(1, stride - (bos ? 1 : 0)); }

  static void save(Context& context, const std::vector<std::int32_t>& tokens, std::int64_t sequence, const Artifact& tokenizer) {
    Artifact dataset;
    dataset.type = ArtifactType::dataset;
    dataset.meta = {{"kind", "tokens"},
                    {"sequence", sequence},
                    {"count", static_cast<std::int64_t>(tokens.size()) / sequence},
                    {"tokens", tokens.size()},
                    {"tokenizer", tokenizer.digest().hex()}};
    dataset.blobs["tokens.i32"] = context.put(std::as_bytes(std::span(tokens)));
    context.output("data", std::move(dataset));
  }
};

}  // namespace

ESPALIER_PLUGIN(R"json({
  "name": "text", "version": "0.1.0", "author": "The Espalier authors", "licence": "Apache-2.0",
  "description": "Makes data sets from text files",
  "components": [{
    "name": "source/text", "version": "0.1.0",
    "summary": "Text files as windows of tokens: one stream, cut into windows of equal length, whole or split into two parts",
    "inputs": [
      {"name": "tokenizer", "type": "tokenizer", "help": "the tokenizer of the model that is to read the text"}
    ],
    "outputs": [
      {"name": "data", "type": "dataset", "help": "windows of tokens (kind \"tokens\")"}
    ],
    "parameters": [
      {"name": "files", "type": "list<path>", "required": true, "help": "UTF-8 text files, read in this order as one stream"},
      {"name": "sequence", "type": "integer", "default": 512, "min": 2, "max": 1048576, "unit": "tokens", "help": "length of a window"},
      {"name": "stride", "type": "integer", "default": 0, "min": 0, "max": 1048576, "unit": "tokens", "help": "from the start of a window to the next; 0: windows follow each other without overlap"},
      {"name": "bos", "type": "boolean", "default": false, "help": "begin every window with the tokenizer's BOS token, in the place of a token of text"},
      {"name": "part", "type": "string", "default": "all", "choices": ["all", "train", "heldout"], "help": "which windows: all, or one side of the split that share and seed make"},
      {"name": "share", "type": "number", "default": 0.1, "min": 0, "max": 1, "help": "share of the windows that the split holds out"},
      {"name": "limit", "type": "integer", "default": 0, "min": 0, "unit": "windows", "help": "keep only the first windows of the part; 0: all"}
    ],
    "depends": {"seed": true, "threads": false, "runtimes": []},
    "byte_exact": true,
    "estimate": {"memory": "1e8 + 6 * files.bytes",
                 "seconds": "0.2 + files.bytes / 4e6",
                 "memory_base": 1e8, "memory_per_byte": 6, "output_per_byte": 1.5}
  }]
})json",
                ESPALIER_COMPONENT("source/text", TextSource));
