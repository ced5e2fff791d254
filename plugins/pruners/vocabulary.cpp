// Words that nobody uses leave: rows of the embedding, columns of the head, entries and merges of the tokenizer (vocabulary
// trimming; Abdaoui et al., "Load What You Need: Smaller Versions of Multilingual BERT", 2020).
#include <fmt/format.h>

#include <algorithm>

#include "formats/model_artifact.h"
#include "formats/safetensors.h"
#include "formats/vocabulary_cut.h"
#include "graph/surgery.h"
#include "run/dataset.h"
#include "sdk/plugin.h"

using namespace espalier;

namespace {

using Ids = std::vector<std::int32_t>;

/// The table whose rows are looked up by token.
std::string embedding_of(const Graph& graph, std::int64_t tokens) {
  std::string found;
  for (const Node& node : graph.nodes) {
    if (node.op != "Gather" || !node.domain.empty() || node.integer("axis", 0) != 0) continue;
    const Tensor* table = graph.initializer(node.input(0));
    const bool by_token =
        std::any_of(graph.inputs.begin(), graph.inputs.end(), [&](const Value& input) { return input.name == node.input(1); });
    if (!table || !by_token || table->shape.size() != 2 || !is_floating(table->dtype) || table->shape[0] < tokens) continue;
    if (!found.empty() && found != node.inputs[0])
      throw_unsupported(fmt::format("tokens are looked up in two tables, \"{}\" and \"{}\"", found, node.inputs[0]), "port model");
    found = node.inputs[0];
  }
  if (found.empty())
    throw_unsupported(fmt::format("no Gather of an input looks up rows of a table with {} rows or more", tokens), "port model",
                      "the vocabulary of quantized models is cut before they are quantized");
  return found;
}

/// How often each token comes up in the data, padding left out.
std::vector<std::int64_t> counts_of(const TokenDataset& data, std::int64_t size) {
  std::vector<std::int64_t> counts(static_cast<std::size_t>(size), 0);
  const auto tokens = data.tokens();
  const auto flags = data.flags();
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    if (!flags.empty() && !(flags[i] & TokenFlag::real)) continue;  // padding
    const std::int32_t token = tokens[i];
    if (token < 0 || token >= size)
      throw_invalid(fmt::format("the data holds token {}, the tokenizer has {}", token, size), "port data");
    ++counts[static_cast<std::size_t>(token)];
  }
  return counts;
}

class VocabularyPruner final : public Component {
 public:
  void run(Context& context) override {
    const Params& params = context.params();
    const Artifact& model = context.input("model");
    check_tokenizers(model, context.input("data"));
    const Artifact& given = context.input("tokenizer");
    if (model.meta.value("tokenizer", std::string()) != given.digest().hex())
      throw_invalid("the model names another tokenizer", "port tokenizer", "give the tokenizer that the model came with");
    const auto tokenizer = load_tokenizer(context, given);
    const VocabularyCut vocabulary(tokenizer->json(), "tokenizer");
    const auto counts = counts_of(TokenDataset(context, context.input("data")), vocabulary.size());
    const Ids kept = choose(vocabulary, counts, params);
    context.check_cancelled();

    const Graph graph = load_model(context, model);
    Graph smaller = cut_rows(graph, embedding_of(graph, vocabulary.size()), kept);
    const Artifact renewed = save_tokenizer(context, *Tokenizer::from_json(vocabulary.json(kept), "tokenizer"));
    smaller.metadata["espalier.tokenizer"] = renewed.digest().hex();
    context.output("tokenizer", renewed);
    context.output("model", save_model(context, smaller));
    context.output("masks", masks(context, kept, vocabulary.size()));
    state(context, graph, smaller, counts, kept);
  }

 private:
  /// Tokens that come up often enough, the most frequent ones first where there are too many, and what they need.
  static Ids choose(const VocabularyCut& vocabulary, const std::vector<std::int64_t>& counts, const Params& params) {
    Ids order;
    for (std::size_t id = 0; id < counts.size(); ++id)
      if (vocabulary.has(static_cast<std::int32_t>(id))) order.push_back(static_cast<std::int32_t>(id));
    std::stable_sort(order.begin(), order.end(),
                     [&](auto a, auto b) { return counts[static_cast<std::size_t>(a)] > counts[static_cast<std::size_t>(b)]; });
    const auto enough = [&](std::int32_t id) { return counts[static_cast<std::size_t>(id)] >= params.integer("minimum"); };
    const auto seen = static_cast<std::size_t>(std::find_if_not(order.begin(), order.end(), enough) - order.begin());
    const auto size = static_cast<std::size_t>(params.integer("size"));
    // Adding a token adds what its merges go through: the longest beginning of the order that fits.
    std::size_t low = 0, high = seen;
    Ids kept = vocabulary.closed({});
    if (size > 0 && kept.size() > size)
      throw_invalid(fmt::format("{} tokens have to stay, {} may", kept.size(), size), "parameter size", "give more");
    while (low < high) {
      const std::size_t middle = size == 0 ? seen : (low + high + 1) / 2;
      Ids tried = vocabulary.closed({order.begin(), order.begin() + static_cast<std::ptrdiff_t>(middle)});
      if (size == 0 || tried.size() <= size) {
        kept = std::move(tried);
        low = middle;
      } else {
        high = middle - 1;
      }
    }
    // Rounded up to what the target likes, with the next ones in order.
    const auto multiple = static_cast<std::size_t>(params.integer("multiple"));
    for (std::size_t next = low; kept.size() % multiple != 0 && next < order.size(); ++next) {
      Ids more = kept;
      more.push_back(order[next]);
      kept = vocabulary.closed(more);
    }
    return kept;
  }

  /// Rows of the embedding and all that is coupled with them, up to the model's outputs.
  static Graph cut_rows(const Graph& graph, const std::string& table, const Ids& kept) {
    const std::int64_t rows = graph.initializer(table)->shape[0];
    const ValueMap values = infer(graph);
    auto groups = coupled_groups(graph, values, true);
    std::vector<bool> stays(static_cast<std::size_t>(rows), false);
    for (const std::int32_t id : kept) stays[static_cast<std::size_t>(id)] = true;
    Removal removal;
    for (CoupledGroup& group : groups) {
      if (!speaks_of_tokens(graph, values, group, table, rows)) continue;
      group.pinned = false;  // a token's number is what this stage gives anew
      group.exact = true;
      for (std::size_t unit = 0; unit < group.units.size(); ++unit) {
        const auto& slice = group.units[unit].front();
        if (slice.indices.size() != 1) throw_unsupported("rows are coupled in blocks", group.members[slice.member].tensor);
        if (!stays[static_cast<std::size_t>(slice.indices[0])]) removal[group.id].push_back(static_cast<std::int64_t>(unit));
      }
    }
    Graph smaller = cut(graph, groups, removal);
    const ValueMap after = infer(smaller);
    for (Value& output : smaller.outputs)
      if (const auto found = after.find(output.name); found != after.end() && found->second.rank_known)
        output.shape = found->second.shape;
    return smaller;
  }

  /// The embedding's own rows, and an untied head's columns: what reaches an output's last axis of as many elements.
  static bool speaks_of_tokens(const Graph& graph, const ValueMap& values, const CoupledGroup& group, const std::string& table,
                               std::int64_t rows) {
    if (static_cast<std::int64_t>(group.units.size()) != rows) return false;
    for (const Member& member : group.members)
      if (member.tensor == table && member.axis == 0) return true;
    if (!group.pinned) return false;
    for (const Value& output : graph.outputs) {
      const auto found = values.find(output.name);
      const bool answers = found != values.end() && found->second.rank_known && !found->second.shape.empty() &&
                           found->second.shape.back() == Dim(rows);
      if (answers && group.reason.find("output " + output.name) != std::string::npos) return true;
    }
    return false;
  }

  static Artifact masks(Context& context, const Ids& kept, std::int64_t size) {
    std::vector<std::uint8_t> bytes(static_cast<std::size_t>(size), 0);
    for (const std::int32_t id : kept) bytes[static_cast<std::size_t>(id)] = 1;
    Artifact artifact;
    artifact.type = ArtifactType::masks;
    artifact.meta = {{"groups", 1}, {"kept", 1}};
    artifact.blobs["masks.safetensors"] = context.put(write_safetensors({{"vocabulary", Tensor::of(DType::u8, {size}, bytes)}}));
    return artifact;
  }

  static void state(Context& context, const Graph& graph, const Graph& smaller, const std::vector<std::int64_t>& counts,
                    const Ids& kept) {
    std::int64_t all = 0, covered = 0;
    for (const std::int64_t count : counts) all += count;
    for (const std::int32_t id : kept) covered += counts[static_cast<std::size_t>(id)];
    const auto before = static_cast<double>(graph.parameter_count()), after = static_cast<double>(smaller.parameter_count());
    context.figure("vocabulary", static_cast<double>(kept.size()));
    context.figure("parameters", after);
    context.figure("sparsity", before > 0 ? 1 - after / before : 0);
    context.figure("coverage", all > 0 ? static_cast<double>(covered) / static_cast<double>(all) : 1);
    context.log(LogLevel::info,
                fmt::format("{} of {} tokens stay, {:.3f} % of the data's; {:.0f} of {:.0f} parameters", kept.size(), counts.size(),
                            all > 0 ? 100.0 * static_cast<double>(covered) / static_cast<double>(all) : 100.0, after, before));
  }
};

}  // namespace

ESPALIER_PLUGIN(R"json({
  "name": "vocabulary", "version": "0.1.0", "author": "The Espalier authors", "licence": "Apache-2.0",
  "description": "Vocabulary trimming",
  "components": [{
    "name": "pruner/vocabulary", "version": "0.1.0",
    "summary": "Removes tokens that the data does not use from embedding, head and tokenizer; text of the others is cut and answered as before",
    "inputs": [
      {"name": "model", "type": "model", "help": "the language model to cut; before quantization"},
      {"name": "tokenizer", "type": "tokenizer", "help": "the model's own"},
      {"name": "data", "type": "dataset", "help": "windows of tokens that stand for the text to come"}
    ],
    "outputs": [
      {"name": "model", "type": "model", "help": "the smaller model"},
      {"name": "tokenizer", "type": "tokenizer", "help": "the smaller tokenizer: later stages read text with it"},
      {"name": "masks", "type": "masks", "help": "one byte a token: 1 = kept"}
    ],
    "parameters": [
      {"name": "minimum", "type": "integer", "default": 1, "min": 0, "help": "how often a token must come up in the data to stay"},
      {"name": "size", "type": "integer", "default": 0, "min": 0, "unit": "tokens", "help": "at most so many stay, the most frequent ones; 0: all that come up often enough"},
      {"name": "multiple", "type": "integer", "default": 1, "min": 1, "max": 4096, "unit": "tokens", "help": "rounded up to a multiple that the target likes, with further tokens of the vocabulary"}
    ],
    "depends": {"seed": false, "threads": false, "runtimes": []},
    "byte_exact": true,
    "estimate": {"memory": "1e8 + 0.4 * model.bytes", "seconds": "2 + model.bytes / 5e8",
                 "memory_base": 3e8, "memory_per_byte": 2.2, "output_per_byte": 1}
  }]
})json",
                ESPALIER_COMPONENT("pruner/vocabulary", VocabularyPruner));
