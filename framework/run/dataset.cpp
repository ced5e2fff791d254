#include "run/dataset.h"

#include <ATen/ops/empty.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
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

/// What flags may say: nothing unknown, padding behind the real tokens, nothing of it counted, and some token that counts.
void check_flags(std::span<const std::uint8_t> flags, std::size_t sequence, const std::string& where) {
  bool any = false;
  for (std::size_t i = 0; i < flags.size(); ++i) {
    const bool real = flags[i] & TokenFlag::real, counted = flags[i] & TokenFlag::counted, first = i % sequence == 0;
    const char* wrong = nullptr;
    if (flags[i] > (TokenFlag::real | TokenFlag::counted)) {
      wrong = "has flags that mean nothing";
    } else if (first && !real) {
      wrong = "is padding, at the front of its window";
    } else if (real && !first && !(flags[i - 1] & TokenFlag::real)) {
      wrong = "is real behind padding";
    } else if (counted && !real) {
      wrong = "is padding that counts in the loss";
    }
    if (wrong)
      throw_invalid(fmt::format("token {} of window {} {} ({})", i % sequence, i / sequence, wrong, flags[i]), where,
                    "the data set is damaged, or its maker is wrong");
    any = any || (counted && !first);
  }
  if (!any) throw_invalid("no token of the data counts in the loss", where, "make it anew, with tokens that count");
}

const RegisterDataset tokens{"tokens", [](const Context& context, const Artifact& artifact) -> std::unique_ptr<Dataset> {
                               return std::make_unique<TokenDataset>(context, artifact);
                             }};

}  // namespace

Dataset::~Dataset() = default;
double Dataset::weight(const std::vector<std::int64_t>& examples) const { return static_cast<double>(examples.size()); }

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

std::vector<std::int64_t> examples_of_part(std::int64_t count, std::string_view part, double share, std::uint64_t seed) {
  std::vector<std::int64_t> order(static_cast<std::size_t>(count));
  std::iota(order.begin(), order.end(), 0);
  if (part == "all") return order;
  order = shuffled(count, seed);
  const auto held = order.begin() + static_cast<std::int64_t>(share * static_cast<double>(count) + 0.5);
  if (part == "heldout") {
    order.erase(held, order.end());
  } else {
    order.erase(order.begin(), held);
  }
  std::sort(order.begin(), order.end());
  return order;
}

TokenDataset::TokenDataset(const Context& context, const Artifact& artifact) {
  const auto where = [&] { return "data set " + artifact.digest().hex(); };
  const std::string kind = artifact.meta.value("kind", "");
  if (artifact.type != ArtifactType::dataset || kind != "tokens")
    throw_invalid(fmt::format("expected a data set of tokens, this is a {} of kind \"{}\"", to_string(artifact.type), kind),
                  where(), "make one with source/text or source/jsonl");
  const auto says = artifact.meta.find("flags");
  const bool flagged = says != artifact.meta.end() && *says == true;
  auto blobs = artifact.blobs;
  const auto marks = blobs.extract("flags.u8");
  if (flagged == marks.empty())
    throw_invalid(flagged ? "the meta tells of flags, but there is no blob \"flags.u8\"" : "flags that the meta does not tell of",
                  where());
  if (blobs.size() != 1) throw_invalid(fmt::format("expected one blob of tokens, found {}", blobs.size()), where());
  count_ = positive(artifact, "count");
  sequence_ = positive(artifact, "sequence");
  file_ = context.map(blobs.begin()->second);
  const std::uint64_t held = file_.bytes().size() / sizeof(std::int32_t);
  if (file_.bytes().size() % sizeof(std::int32_t) != 0 || held % static_cast<std::uint64_t>(sequence_) != 0 ||
      held / static_cast<std::uint64_t>(sequence_) != static_cast<std::uint64_t>(count_))
    throw_invalid(fmt::format("{} windows of {} tokens do not match {} bytes", count_, sequence_, file_.bytes().size()), where());
  if (!flagged) return;
  flags_ = context.map(marks.mapped());
  if (flags_.bytes().size() != held) throw_invalid(fmt::format("{} flags for {} tokens", flags_.bytes().size(), held), where());
  check_flags(flags(), static_cast<std::size_t>(sequence_), where());
}

std::span<const std::int32_t> TokenDataset::tokens() const {
  return {reinterpret_cast<const std::int32_t*>(file_.bytes().data()), file_.bytes().size() / sizeof(std::int32_t)};
}

std::span<const std::uint8_t> TokenDataset::flags() const {
  return {reinterpret_cast<const std::uint8_t*>(flags_.bytes().data()), flags_.bytes().size()};
}

std::span<const std::uint8_t> TokenDataset::flags_of(std::int64_t window) const {
  return flags().subspan(static_cast<std::size_t>(window * sequence_), static_cast<std::size_t>(sequence_));
}

double TokenDataset::weight(const std::vector<std::int64_t>& windows) const {
  if (flags().empty()) return Dataset::weight(windows);
  double counted = 0;
  for (const std::int64_t window : windows)
    for (const std::uint8_t flag : flags_of(window).subspan(1)) counted += (flag & TokenFlag::counted) != 0;
  return counted;
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
  TensorMap batch{{"input_ids", ids}, {"attention_mask", mask}, {"position_ids", positions}};
  if (flags().empty()) return batch;
  at::Tensor labels = ids.clone();
  auto *label = labels.mutable_data_ptr<std::int64_t>(), *open = mask.mutable_data_ptr<std::int64_t>();
  position = positions.mutable_data_ptr<std::int64_t>();
  for (const std::int64_t window : windows) {
    std::int64_t last = 0;  // what looks at the largest position (rotary scaling) sees the example alone
    bool first = true;
    for (const std::uint8_t flag : flags_of(window)) {
      *open = (flag & TokenFlag::real) != 0;
      last = *open ? *position : last;
      *position++ = last;
      if (first || !(flag & TokenFlag::counted)) *label = -1;
      first = false;
      ++open, ++label;
    }
  }
  batch["labels"] = labels;
  return batch;
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
