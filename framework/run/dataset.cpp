#include "run/dataset.h"

#include <ATen/ops/empty.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <map>
#include <numeric>
#include <utility>

#include "sdk/error.h"

namespace espalier {
namespace {

std::int64_t positive(const Artifact& artifact, const char* key) {
  const auto found = artifact.meta.find(key);
  if (found == artifact.meta.end() || !found->is_number_integer() || found->get<std::int64_t>() < 1)
    throw_invalid(fmt::format("a token data set needs a positive whole number under \"{}\"", key),
                  "data set " + artifact.digest().hex());
  return found->get<std::int64_t>();
}

std::map<std::string, RegisterDataset::Open, std::less<>>& kinds() {
  static std::map<std::string, RegisterDataset::Open, std::less<>> table;
  return table;
}

const RegisterDataset tokens{"tokens", [](const Context& context, const Artifact& artifact) -> std::unique_ptr<Dataset> {
                               return std::make_unique<TokenDataset>(context, artifact);
                             }};

}  // namespace

Dataset::~Dataset() = default;

RegisterDataset::RegisterDataset(const char* kind, Open open) { kinds().emplace(kind, open); }

std::unique_ptr<Dataset> open_dataset(const Context& context, const Artifact& artifact) {
  const std::string kind = artifact.meta.value("kind", "");
  const auto found = kinds().find(kind);
  if (artifact.type == ArtifactType::dataset && found != kinds().end()) return found->second(context, artifact);
  std::vector<std::string> known;
  for (const auto& [name, open] : kinds()) known.push_back(name);
  throw_invalid(fmt::format("expected a data set, this is a {} of kind \"{}\"", to_string(artifact.type), kind),
                "data set " + artifact.digest().hex(), fmt::format("kinds that can be read: {}", fmt::join(known, ", ")));
}

TensorMap inputs_for(const Graph& graph, const TensorMap& batch) {
  TensorMap inputs;
  std::vector<std::string> data;
  for (const auto& [name, tensor] : batch)
    if (name != "labels") data.push_back(name);
  const bool only = graph.inputs.size() == 1 && data.size() == 1;
  for (const Value& input : graph.inputs) {
    const auto at = batch.find(only ? data.front() : input.name);
    if (at == batch.end())
      throw_invalid(fmt::format("the model wants an input \"{}\", which the data does not have", input.name), "port model",
                    fmt::format("the data has: {}", fmt::join(data, ", ")));
    inputs[input.name] = at->second;
  }
  return inputs;
}

std::vector<std::int64_t> spread(std::int64_t count, std::int64_t samples) {
  samples = std::min(samples, count);
  std::vector<std::int64_t> examples;
  for (std::int64_t i = 0; i < samples; ++i) examples.push_back(i * count / samples);
  return examples;
}

TokenDataset::TokenDataset(const Context& context, const Artifact& artifact) {
  const auto where = [&] { return "data set " + artifact.digest().hex(); };
  const std::string kind = artifact.meta.value("kind", "");
  if (artifact.type != ArtifactType::dataset || kind != "tokens")
    throw_invalid(fmt::format("expected a data set of tokens, this is a {} of kind \"{}\"", to_string(artifact.type), kind),
                  where(), "make one with source/text");
  if (artifact.blobs.size() != 1)
    throw_invalid(fmt::format("expected one blob of tokens, found {}", artifact.blobs.size()), where());
  count_ = positive(artifact, "count");
  sequence_ = positive(artifact, "sequence");
  file_ = context.map(artifact.blobs.begin()->second);
  const std::uint64_t held = file_.bytes().size() / sizeof(std::int32_t);
  if (file_.bytes().size() % sizeof(std::int32_t) != 0 || held % static_cast<std::uint64_t>(sequence_) != 0 ||
      held / static_cast<std::uint64_t>(sequence_) != static_cast<std::uint64_t>(count_))
    throw_invalid(fmt::format("{} windows of {} tokens do not match {} bytes", count_, sequence_, file_.bytes().size()), where());
}

std::span<const std::int32_t> TokenDataset::tokens() const {
  return {reinterpret_cast<const std::int32_t*>(file_.bytes().data()), file_.bytes().size() / sizeof(std::int32_t)};
}

TensorMap TokenDataset::batch(const std::vector<std::int64_t>& windows) const {
  const auto rows = static_cast<std::int64_t>(windows.size());
  const auto options = at::TensorOptions().dtype(at::kLong);
  at::Tensor ids = at::empty({rows, sequence_}, options), mask = at::empty({rows, sequence_}, options),
             positions = at::empty({rows, sequence_}, options);
  auto *id = ids.mutable_data_ptr<std::int64_t>(), *position = positions.mutable_data_ptr<std::int64_t>();
  std::fill_n(mask.mutable_data_ptr<std::int64_t>(), rows * sequence_, 1);
  for (std::int64_t window : windows) {
    if (window < 0 || window >= count_) throw_invalid(fmt::format("window {} of a data set with {}", window, count_));
    const auto from = tokens().subspan(static_cast<std::size_t>(window * sequence_), static_cast<std::size_t>(sequence_));
    id = std::copy(from.begin(), from.end(), id);
    std::iota(position, position + sequence_, 0);
    position += sequence_;
  }
  return {{"input_ids", ids}, {"attention_mask", mask}, {"position_ids", positions}};
}

void check_tokenizers(const Artifact& model, const Artifact& data) {
  const std::string left = model.meta.value("tokenizer", ""), right = data.meta.value("tokenizer", "");
  if (left.empty() || right.empty() || left == right) return;  // a model without one (images, say) has nothing to compare
  throw_invalid(fmt::format("the model's tokenizer is {}, the data set was made with {}", left, right), {},
                "make the data set with `tokenizer = \"@MODEL.tokenizer\"` of the same model");
}

std::vector<std::int64_t> shuffled(std::int64_t count, std::uint64_t seed) {
  std::vector<std::int64_t> order(static_cast<std::size_t>(std::max<std::int64_t>(count, 0)));
  std::iota(order.begin(), order.end(), 0);
  const auto next = [&seed] {  // splitmix64 (Steele, Lea, Flood, 2014)
    std::uint64_t z = seed += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  };
  for (std::size_t i = order.size(); i > 1; --i) {
    // The high half of a 128-bit product: even over 0 … i-1 to one part in 2^64.
    const auto pick = static_cast<std::size_t>((static_cast<unsigned __int128>(next()) * i) >> 64);
    std::swap(order[i - 1], order[pick]);
  }
  return order;
}

}  // namespace espalier
