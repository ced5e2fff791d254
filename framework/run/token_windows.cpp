#include "run/token_windows.h"

#include <ATen/ops/tensor.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "formats/model_artifact.h"
#include "formats/package.h"
#include "sdk/error.h"

namespace espalier {

TokenWindows::TokenWindows(const Context& context, const TokenDataset& data) : tokens_(data.tokens()) {
  const Params& params = context.params();
  const std::int64_t limit = params.integer("limit");
  bos_ = params.integer("bos");
  if (!data.flags().empty()) {
    for (const char* name : {"window", "stride"})
      if (params.has(name))
        throw_invalid(fmt::format("{} = {}, but the data's windows are examples, each with a beginning and an end of its own", name,
                                  params.integer(name)),
                      fmt::format("parameter {}", name), "leave it out, or measure on text of source/text");
    take_examples(data, limit);
    return;
  }
  const std::int64_t length = params.has("window") ? params.integer("window") : data.sequence();
  cut(length, params.has("stride") ? params.integer("stride") : length, limit);
}

void TokenWindows::cut(std::int64_t length, std::int64_t stride, std::int64_t limit) {
  if (stride > length)
    throw_invalid(fmt::format("stride {} is larger than the window of {}", stride, length), "parameter stride",
                  "tokens between windows would be left out");
  const auto held = static_cast<std::int64_t>(tokens_.size());
  for (std::int64_t begin = 0; begin + length <= held; begin += stride) {
    if (limit > 0 && static_cast<std::int64_t>(windows_.size()) == limit) break;
    windows_.push_back({begin, length, begin == 0 ? 1 : std::max<std::int64_t>(1, length - stride), length});
  }
  if (windows_.empty())
    throw_invalid(fmt::format("the data holds {} tokens, not one window of {}", held, length), "port data",
                  "give more text or a smaller window");
}

void TokenWindows::take_examples(const TokenDataset& data, std::int64_t limit) {
  for (std::int64_t w = 0; w < data.count(); ++w) {
    if (limit > 0 && static_cast<std::int64_t>(windows_.size()) == limit) break;
    const auto flags =
        data.flags().subspan(static_cast<std::size_t>(w * data.sequence()), static_cast<std::size_t>(data.sequence()));
    const auto real = std::count_if(flags.begin(), flags.end(), [](std::uint8_t flag) { return (flag & TokenFlag::real) != 0; });
    std::vector<bool> which;
    for (const std::uint8_t flag : flags.subspan(1).first(static_cast<std::size_t>(real - 1)))
      which.push_back((flag & TokenFlag::counted) != 0);
    const auto first = std::find(which.begin(), which.end(), true);
    if (first == which.end()) continue;
    while (!which.back()) which.pop_back();
    const auto end = static_cast<std::int64_t>(which.size()) + 1;
    const std::int64_t skipped = first - which.begin();
    which.erase(which.begin(), first);
    windows_.push_back({w * data.sequence(), real, 1 + skipped, end, std::move(which)});
  }
}

at::Tensor TokenWindows::counted_rows(std::size_t number, const at::Tensor& rows) const {
  const TokenWindow& window = windows_.at(number);
  if (window.counted() == rows.size(0)) return rows;
  std::vector<std::int64_t> places;
  for (std::size_t i = 0; i < window.which.size(); ++i)
    if (window.which[i]) places.push_back(static_cast<std::int64_t>(i));
  return rows.index_select(0, at::tensor(places, at::kLong));
}

at::Tensor TokenWindows::logits(LanguageModel& model, std::size_t number) const {
  const TokenWindow& window = windows_.at(number);
  const auto tokens = tokens_.subspan(static_cast<std::size_t>(window.begin), static_cast<std::size_t>(window.count));
  std::vector<std::int64_t> fed;
  if (bos_ >= 0) fed.push_back(bos_);
  const auto lead = static_cast<std::int64_t>(fed.size());
  fed.insert(fed.end(), tokens.begin(), tokens.end());
  model.reset();
  return counted_rows(number, model.feed(fed, true).narrow(0, lead + window.first - 1, window.end - window.first));
}

at::Tensor TokenWindows::targets(std::size_t number) const {
  const TokenWindow& window = windows_.at(number);
  const auto tokens =
      tokens_.subspan(static_cast<std::size_t>(window.begin + window.first), static_cast<std::size_t>(window.end - window.first));
  return counted_rows(number, at::tensor(std::vector<std::int64_t>(tokens.begin(), tokens.end()), at::kLong));
}

Subject open_subject(Context& context, const std::string& model_port, const std::string& package_port) {
  const bool model = context.has_input(model_port);
  if (model == context.has_input(package_port))
    throw_invalid(fmt::format("give exactly one of {} and {}", model_port, package_port), "the stage's inputs",
                  fmt::format("{} = \"@stage\" or {} = \"@stage\"", model_port, package_port));
  Subject subject;
  subject.artifact = &context.input(model ? model_port : package_port);
  check_tokenizers(*subject.artifact, context.input("data"));
  const OpenOptions options{context.threads(), false};
  if (model) {
    subject.model = language_model(load_model(context, *subject.artifact), options);
  } else {
    subject.backend = context.component_for(*subject.artifact);
    subject.model = subject.backend.as<Runtime>().open_language_model(unpack(context, *subject.artifact), options);
  }
  return subject;
}

std::vector<Samples> sample_windows(Context& context, const TokenWindows& windows, const std::vector<std::string>& names,
                                    const std::string& label, double (*shown)(double mean),
                                    const std::function<std::vector<double>(std::size_t number)>& sums) {
  std::vector<Samples> series(names.size());
  double counted = 0, first = 0;
  for (std::size_t w = 0; w < windows.size(); ++w) {
    context.check_cancelled();
    const std::vector<double> own = sums(w);
    const auto count = static_cast<double>(windows[w].counted());
    for (std::size_t s = 0; s < names.size(); ++s) {
      if (!std::isfinite(own[s]))
        throw Error(ErrorCode::failed, fmt::format("the {} of window {} is not a finite number", names[s], w), "port data",
                    "the logits of a model hold infinities or NaN");
      series[s].values.push_back(own[s] / count);
      series[s].weights.push_back(count);
    }
    counted += count;
    first += own[0];
    context.progress({w + 1, windows.size(), "windows", {{label, shown(first / counted)}}});
  }
  context.figure("tokens", counted);
  context.detail("samples.tokens", series[0].weights);
  return series;
}

void state_quality(Context& context, const std::string& name, const std::string& detail, const Samples& samples,
                   double (*of)(double mean)) {
  context.figure(name, of(samples.mean()));
  if (const std::optional<Interval> interval = bootstrap_mean(samples)) {
    context.figure(name + "_low", of(interval->low));
    context.figure(name + "_high", of(interval->high));
  }
  context.detail("samples." + detail, samples.values);
}

}  // namespace espalier
