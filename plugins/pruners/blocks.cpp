// Depth pruning: whole blocks leave, the residual stream stays.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <optional>
#include <set>

#include "formats/model_artifact.h"
#include "formats/safetensors.h"
#include "graph/block_surgery.h"
#include "run/block_importance.h"
#include "run/block_merge.h"
#include "run/layer_map.h"
#include "sdk/plugin.h"

using namespace espalier;

namespace {

/// What a block got, for the report.
struct Row {
  double distance = std::numeric_limits<double>::quiet_NaN();  ///< not measured where the recipe names the blocks
  std::string held;                                            ///< why it may not go
  std::string remark;
};

class BlockPruner final : public Component {
 public:
  void run(Context& context) override {
    const Params& params = context.params();
    graph_ = load_model(context, context.input("model"));
    blocks_ = find_blocks(graph_);
    if (blocks_.empty())
      throw_invalid("the model has no repeated blocks", "port model", "pruner/channels and pruner/heads cut inside of layers");
    rows_.resize(blocks_.size());
    hold(params.texts("keep"));
    const auto named = params.texts("blocks");
    const auto count = static_cast<std::size_t>(params.integer("count"));
    if (named.empty() == (count == 0)) throw_invalid("give either count or blocks", "parameters count, blocks");
    gone_.clear();
    if (named.empty())
      choose(context, count);
    else
      for (const std::string& name : named) take_named(name);
    Graph source = graph_;
    if (params.text("merge") != "none") merge(source, params.text("merge") == "mean" ? Merge::mean : Merge::difference);
    const Graph smaller = without_blocks(source, blocks_, {gone_.begin(), gone_.end()});
    put_out(context, smaller);
  }

 private:
  /// Notes which blocks may not go.
  void hold(const std::vector<std::string>& keep) {
    for (const std::string& name : keep) rows_[block_named(blocks_, name, "keep: the model", "parameter keep")].held = "kept";
    const ValueMap values = infer(graph_);
    for (std::size_t b = 0; b < blocks_.size(); ++b)
      if (rows_[b].held.empty()) rows_[b].held = why_not_removable(graph_, values, blocks_[b]);
  }

  void take_named(const std::string& name) {
    const std::size_t block = block_named(blocks_, name, "blocks: the model", "parameter blocks");
    if (rows_[block].held == "kept")
      throw_invalid(fmt::format("{} stands in blocks and in keep", block_label(blocks_, block)), "parameters blocks, keep");
    gone_.insert(block);
  }

  std::vector<std::size_t> candidates() const {
    std::vector<std::size_t> list;
    for (std::size_t b = 0; b < blocks_.size(); ++b)
      if (rows_[b].held.empty() && !gone_.contains(b)) list.push_back(b);
    return list;
  }

  void choose(Context& context, std::size_t count) {
    const std::size_t possible = candidates().size();
    if (count > possible)
      throw_invalid(fmt::format("{} blocks are to go, and {} of {} can", count, possible, blocks_.size()), "parameter count",
                    possible == 0 ? rows_.front().held : "");
    std::optional<Artifact> data;
    if (context.has_input("data")) data = context.input("data");
    const MetricExamples examples(context, context.params(), data ? &*data : nullptr, "pruner/blocks");
    const std::string how = context.params().text("choose");
    if (how == "loss") {
      by_loss(context, count, examples);
      return;
    }
    const BlockDistances distances(context, graph_, blocks_, examples);
    for (std::size_t b = 0; b < blocks_.size(); ++b) rows_[b].distance = distances.between(b, b);
    if (how == "run")
      by_run(count, distances);
    else
      by_influence(count);
  }

  void by_influence(std::size_t count) {
    auto list = candidates();
    std::stable_sort(list.begin(), list.end(), [&](auto a, auto b) { return rows_[a].distance < rows_[b].distance; });
    gone_.insert(list.begin(), list.begin() + static_cast<std::ptrdiff_t>(count));
  }

  void by_run(std::size_t count, const BlockDistances& distances) {
    double least = std::numeric_limits<double>::infinity();
    std::size_t begin = blocks_.size();
    for (std::size_t first = 0; first + count <= blocks_.size(); ++first) {
      bool whole = blocks_[first + count - 1].run == blocks_[first].run;
      for (std::size_t b = first; b < first + count; ++b) whole = whole && rows_[b].held.empty();
      if (!whole || distances.between(first, first + count - 1) >= least) continue;
      least = distances.between(first, first + count - 1);
      begin = first;
    }
    if (begin == blocks_.size())
      throw_invalid(fmt::format("there are no {} blocks in a row that may go", count), "parameter count",
                    "give less, or choose = \"influence\"");
    for (std::size_t b = begin; b < begin + count; ++b) gone_.insert(b);
  }

  void by_loss(Context& context, std::size_t count, const MetricExamples& examples) {
    context.figure("loss_before", mean_loss(context, graph_, examples, "the whole model's loss"));
    double least = 0;
    for (std::size_t round = 1; round <= count; ++round) {
      least = std::numeric_limits<double>::infinity();
      std::optional<std::size_t> best;
      for (const std::size_t b : candidates()) {
        std::vector<std::size_t> tried(gone_.begin(), gone_.end());
        tried.push_back(b);
        const double loss = mean_loss(context, without_blocks(graph_, blocks_, tried), examples,
                                      fmt::format("round {} of {}, without {}", round, count, block_label(blocks_, b)));
        if (best && !(loss < least)) continue;
        least = loss;
        best = b;
      }
      gone_.insert(*best);
      rows_[*best].remark = fmt::format("round {}, loss {:.4f}", round, least);
    }
    context.figure("loss_after", least);
  }

  /// Each stretch of blocks that go, into the block before it, or the one after where it begins its run.
  void merge(Graph& source, Merge how) {
    for (std::size_t first = 0; first < blocks_.size(); ++first) {
      if (!gone_.contains(first)) continue;
      std::size_t last = first;
      while (last + 1 < blocks_.size() && gone_.contains(last + 1) && blocks_[last + 1].run == blocks_[first].run) ++last;
      const bool before = first > 0 && blocks_[first - 1].run == blocks_[first].run;
      const bool after = last + 1 < blocks_.size() && blocks_[last + 1].run == blocks_[first].run;
      if (!before && !after)
        throw_invalid(fmt::format("no block like {} stays, so there is none to merge it into", block_label(blocks_, first)),
                      "parameter merge", "give merge = \"none\"");
      const std::size_t kept = before ? first - 1 : last + 1;
      std::vector<std::size_t> gone;
      for (std::size_t b = first; b <= last; ++b) {
        gone.push_back(b);
        rows_[b].remark += fmt::format("{}merged into {}", rows_[b].remark.empty() ? "" : ", ", block_label(blocks_, kept));
      }
      source = merge_blocks(source, blocks_, kept, gone, how);
      first = last;
    }
  }

  void put_out(Context& context, const Graph& smaller) {
    Json table = Json::array();
    std::map<std::string, std::vector<std::uint8_t>> kept;
    for (std::size_t b = 0; b < blocks_.size(); ++b) {
      const bool gone = gone_.contains(b);
      kept[fmt::format("blocks:{}", blocks_[b].run)].push_back(gone ? 0 : 1);
      table.push_back({b, blocks_[b].scope, std::isfinite(rows_[b].distance) ? Json(rows_[b].distance) : Json(),
                       gone ? "removed" : "stays", rows_[b].remark.empty() ? rows_[b].held : rows_[b].remark});
    }
    context.detail("blocks", {{"columns", {"block", "scope", "angular distance", "", "remark"}}, {"rows", std::move(table)}});
    std::map<std::string, Tensor> masks;
    for (const auto& [run, bytes] : kept)
      masks.emplace(run, Tensor::of(DType::u8, {static_cast<std::int64_t>(bytes.size())}, bytes));
    Artifact artifact;
    artifact.type = ArtifactType::masks;
    artifact.meta = {{"groups", masks.size()}, {"kept", 1}};
    artifact.blobs["masks.safetensors"] = context.put(write_safetensors(masks));
    context.output("model", save_model(context, smaller));
    context.output("masks", std::move(artifact));
    const auto before = static_cast<double>(graph_.parameter_count()), after = static_cast<double>(smaller.parameter_count());
    context.figure("parameters", after);
    context.figure("sparsity", before > 0 ? 1 - after / before : 0);
    context.figure("blocks", static_cast<double>(blocks_.size() - gone_.size()));
    std::vector<std::string> names;
    for (const std::size_t b : gone_) names.push_back(block_label(blocks_, b));
    context.log(LogLevel::info, fmt::format("{} of {} blocks removed: {}", gone_.size(), blocks_.size(), fmt::join(names, ", ")));
  }

  Graph graph_;
  std::vector<Block> blocks_;
  std::vector<Row> rows_;
  std::set<std::size_t> gone_;
};

}  // namespace

ESPALIER_PLUGIN(R"json({
  "name": "blocks", "version": "0.1.0", "author": "The Espalier authors", "licence": "Apache-2.0",
  "description": "Depth pruning",
  "components": [{
    "name": "pruner/blocks", "version": "0.1.0",
    "summary": "Removes whole blocks (layers of a transformer, residual blocks of a CNN), those that do least on data; the residual stream stays",
    "inputs": [
      {"name": "model", "type": "model", "help": "the model to cut"},
      {"name": "data", "type": "dataset", "required": false, "help": "what blocks are judged on; not needed where the recipe names them"}
    ],
    "outputs": [
      {"name": "model", "type": "model", "help": "the smaller model"},
      {"name": "masks", "type": "masks", "help": "for each run of equal blocks, one byte a block: 1 = kept"}
    ],
    "parameters": [
      {"name": "count", "type": "integer", "default": 0, "min": 0, "max": 100000, "unit": "blocks", "help": "how many go, chosen by `choose`; or name them with `blocks`"},
      {"name": "blocks", "type": "list<string>", "default": [], "help": "the blocks that go, by number from 0 or by scope: [\"3\", \"model.layers.7\"]"},
      {"name": "choose", "type": "string", "default": "influence", "choices": ["influence", "run", "loss"], "help": "influence: those that turn the hidden state least (ShortGPT); run: neighbours that together turn it least (Gromov et al.); loss: one after another whose removal costs the least loss (SLEB), which takes a pass over the samples for every block left"},
      {"name": "keep", "type": "list<string>", "default": [], "help": "blocks that stay, by number or scope"},
      {"name": "merge", "type": "string", "default": "none", "choices": ["none", "difference", "mean"], "help": "what becomes of the weights that go: difference adds how they differ to the block before (LaCo), mean takes the mean with it"},
      {"name": "samples", "type": "integer", "default": 16, "min": 1, "unit": "examples", "help": "examples used, spread evenly over the data"},
      {"name": "batch", "type": "integer", "default": 1, "min": 1, "unit": "examples", "help": "examples of a pass"}
    ],
    "depends": {"seed": false, "threads": true, "runtimes": ["torch"]},
    "estimate": {"memory": "1e8 + 1.05 * model.bytes",
                 "seconds": "2 + min(samples, data.count) * data.sequence * 2 * model.macs / (0.75 * machine.flops)",
                 "memory_base": 8e8, "memory_per_byte": 2.2, "output_per_byte": 1}
  }]
})json",
                ESPALIER_COMPONENT("pruner/blocks", BlockPruner));
