#include "run/text_windows.h"

#include <fmt/format.h>

#include <algorithm>

#include "formats/model_artifact.h"
#include "formats/package.h"
#include "sdk/error.h"

namespace espalier {

TextWindows::TextWindows(const Context& context, std::string_view who) : data_(context, context.input("data")) {
  const Params& params = context.params();
  const std::int64_t length = params.has("window") ? params.integer("window") : data_.sequence();
  const std::int64_t stride = params.has("stride") ? params.integer("stride") : length, limit = params.integer("limit");
  const auto all = static_cast<std::int64_t>(data_.tokens().size());
  if (stride > length)
    throw_invalid(fmt::format("stride {} is larger than the window of {}", stride, length), std::string(who),
                  "tokens between windows would be left out");
  for (std::int64_t begin = 0; begin + length <= all; begin += stride) {
    if (limit > 0 && static_cast<std::int64_t>(windows_.size()) == limit) break;
    windows_.push_back({begin, length, begin == 0 ? 1 : std::max<std::int64_t>(1, length - stride)});
  }
  if (windows_.empty())
    throw_invalid(fmt::format("the data holds {} tokens, not one window of {}", all, length), std::string(who),
                  "give more text or a smaller window");
}

std::span<const std::int32_t> TextWindows::tokens(const TextWindow& window) const {
  return data_.tokens().subspan(static_cast<std::size_t>(window.begin), static_cast<std::size_t>(window.count));
}

std::vector<std::int64_t> TextWindows::targets(const TextWindow& window) const {
  const auto all = tokens(window);
  return {all.begin() + window.first, all.end()};
}

TextSubject::TextSubject(Context& context, std::string_view model_port, std::string_view package_port, std::string_view who) {
  const bool model = context.has_input(model_port);
  if (model == context.has_input(package_port))
    throw_invalid(fmt::format("give exactly one of {} and {}", model_port, package_port), std::string(who),
                  fmt::format("{} = \"@stage\" or {} = \"@stage\"", model_port, package_port));
  const Artifact& subject = context.input(model ? model_port : package_port);
  check_tokenizers(subject, context.input("data"));
  const OpenOptions options{context.threads(), false};
  if (model) {
    runner_ = language_model(load_model(context, subject), options);
  } else {
    backend_ = context.component_for(subject);
    runner_ = backend_.as<Runtime>().open_language_model(unpack(context, subject), options);
  }
}

at::Tensor TextSubject::predict(const TextWindows& windows, const TextWindow& window, std::int64_t bos) {
  std::vector<std::int64_t> fed;
  if (bos >= 0) fed.push_back(bos);
  const std::int64_t lead = static_cast<std::int64_t>(fed.size());
  const auto tokens = windows.tokens(window);
  fed.insert(fed.end(), tokens.begin(), tokens.end());
  runner_->reset();
  return runner_->feed(fed, true).narrow(0, lead + window.first - 1, window.counted());
}

void state_mean(Context& context, const std::string& name, const std::string& sample, const Pieces& pieces,
                const std::function<double(double)>& transform) {
  const auto shown = [&](double value) { return transform ? transform(value) : value; };
  const Interval interval = bootstrap(pieces);
  context.figure(name, shown(pieces.mean()));
  context.figure(name + "_low", shown(interval.low));
  context.figure(name + "_high", shown(interval.high));
  Json means = Json::array();
  for (std::size_t i = 0; i < pieces.sums.size(); ++i) means.push_back(pieces.sums[i] / pieces.counts[i]);
  context.detail("samples." + sample, std::move(means));
  context.detail("samples.tokens", Json(pieces.counts));
}

}  // namespace espalier
