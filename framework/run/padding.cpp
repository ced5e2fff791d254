#include "run/padding.h"

#include <ATen/TensorOperators.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "sdk/error.h"

namespace espalier {

at::Tensor real_positions(const TensorMap& batch) {
  const auto mask = batch.find("attention_mask");
  if (mask == batch.end() || mask->second.dim() != 2) return {};
  const at::Tensor real = mask->second.ne(0);
  return real.all().item<bool>() ? at::Tensor() : real;
}

at::Tensor without_padding(const at::Tensor& value, const at::Tensor& real, const std::string& what) {
  if (!real.defined()) return value;
  const bool apart = value.dim() >= 2 && value.size(0) == real.size(0) && value.size(1) == real.size(1);
  if (!apart && (value.dim() < 1 || value.size(0) != real.numel()))
    throw_unsupported(fmt::format("the data has padding, which cannot be told apart in values of shape [{}] for [{}] positions",
                                  fmt::join(value.sizes(), ", "), fmt::join(real.sizes(), ", ")),
                      what, "give data without padding, such as windows of source/text");
  return (apart ? value.flatten(0, 1) : value).index_select(0, real.flatten().nonzero().flatten());
}

}  // namespace espalier
