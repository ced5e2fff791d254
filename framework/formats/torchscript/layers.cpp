/// Convolutions and normalisations.
#include <algorithm>

#include "formats/torchscript/lowering.h"

namespace espalier::torchscript {
namespace {

/// begins, then ends
Integers both_sides(const Integers& padding) {
  Integers pads = padding;
  pads.insert(pads.end(), padding.begin(), padding.end());
  return pads;
}

std::size_t spatial(const Call& c, const std::string& weight) {
  const std::size_t rank = c.rank(weight);
  if (rank < 3) c.refuse("a weight of rank " + std::to_string(rank));
  return rank - 2;
}

void check_batched(const Call& c, const std::string& x, std::size_t axes) {
  if (c.rank(x) != axes + 2)
    c.refuse("an input of rank " + std::to_string(c.rank(x)) + ", which has no batch", "give the model's input its batch axis");
}

/// Padding as numbers, or "same" and "valid".
void pad(const Call& c, std::size_t axes, Attributes& attributes) {
  if (c.item("padding").kind != Item::Kind::text) {
    attributes["pads"] = both_sides(c.integers("padding", axes));
    return;
  }
  const std::string kind = c.text("padding");
  if (kind != "same" && kind != "valid") c.refuse("padding is \"" + kind + "\"");
  attributes["auto_pad"] = kind == "same" ? std::string("SAME_UPPER") : std::string("VALID");
}

std::vector<std::string> operands(const Call& c) {
  std::vector<std::string> inputs{c.tensor("input"), c.tensor("weight")};
  if (c.given("bias")) inputs.push_back(c.tensor("bias"));
  return inputs;
}

Item convolved(Call& c, bool transposed) {
  const std::size_t axes = spatial(c, c.tensor("weight"));
  check_batched(c, c.tensor("input"), axes);
  Attributes attributes{
      {"strides", c.integers("stride", axes)}, {"dilations", c.integers("dilation", axes)}, {"group", c.integer("groups")}};
  pad(c, axes, attributes);
  if (!transposed) return Item::of_tensor(c.add("Conv", operands(c), std::move(attributes)));
  attributes["output_padding"] = c.integers("output_padding", axes);
  return Item::of_tensor(c.add("ConvTranspose", operands(c), std::move(attributes)));
}

/// Numbers for a layer that learns none.
std::string filled(const Call& c, const Shape& shape, DType type, double value) {
  Integers lengths;
  for (const Dim& d : shape) {
    if (!d.known()) c.refuse("a norm without weights over a free length");
    lengths.push_back(d.constant());
  }
  constexpr std::int64_t most = 1 << 24;
  const auto count = element_count(shape);
  if (!count || *count < 0 || *count > most) c.refuse("a norm over " + text(shape));
  Tensor one = Tensor::of<float>(DType::f32, lengths,
                                 std::vector<float>(static_cast<std::size_t>(*element_count(shape)), static_cast<float>(value)));
  return c.cast(c.constant(std::move(one), "constant"), type);
}

std::string or_filled(const Call& c, const char* name, const Shape& shape, DType type, double value) {
  return c.given(name) ? c.tensor(name) : filled(c, shape, type, value);
}

Item batch_norm(Call& c) {
  const std::string x = c.tensor("input");
  if (c.flag_or("training", false) || c.flag_or("use_input_stats", false) || !c.given("running_mean"))
    c.refuse("statistics of the batch", "call model.eval() before the model is traced or scripted");
  const Shape channels{c.shape(x).at(1)};
  const DType type = c.dtype(x);
  return Item::of_tensor(c.add("BatchNormalization",
                               {x, or_filled(c, "weight", channels, type, 1), or_filled(c, "bias", channels, type, 0),
                                c.tensor("running_mean"), c.tensor("running_var")},
                               {{"epsilon", c.number("eps")}}));
}

Item instance_norm(Call& c) {
  if (!c.flag("use_input_stats")) return batch_norm(c);
  const std::string x = c.tensor("input");
  const Shape channels{c.shape(x).at(1)};
  const DType type = c.dtype(x);
  return Item::of_tensor(c.add("InstanceNormalization",
                               {x, or_filled(c, "weight", channels, type, 1), or_filled(c, "bias", channels, type, 0)},
                               {{"epsilon", c.number("eps")}}));
}

Item group_norm(Call& c) {
  const std::string x = c.tensor("input");
  const Shape channels{c.shape(x).at(1)};
  const DType type = c.dtype(x);
  return Item::of_tensor(c.add("GroupNormalization",
                               {x, or_filled(c, "weight", channels, type, 1), or_filled(c, "bias", channels, type, 0)},
                               {{"num_groups", c.integer("num_groups")}, {"epsilon", c.number("eps")}}));
}

/// The normalised axes' lengths: the last ones.
Shape normalised(const Call& c) {
  Shape shape;
  for (std::int64_t length : c.integers("normalized_shape")) shape.push_back(length);
  return shape;
}

Item layer_norm(Call& c) {
  const std::string x = c.tensor("input");
  const Shape shape = normalised(c);
  std::vector<std::string> inputs{x, or_filled(c, "weight", shape, c.dtype(x), 1)};
  if (c.given("bias")) inputs.push_back(c.tensor("bias"));
  return Item::of_tensor(c.add("LayerNormalization", std::move(inputs),
                               {{"axis", -static_cast<std::int64_t>(shape.size())}, {"epsilon", c.number("eps")}}));
}

Item rms_norm(Call& c) {
  const std::string x = c.tensor("input");
  const Shape shape = normalised(c);
  constexpr double smallest = 1.1920928955078125e-07;  // f32's, which is what None means
  return Item::of_tensor(c.add("RMSNormalization", {x, or_filled(c, "weight", shape, c.dtype(x), 1)},
                               {{"axis", -static_cast<std::int64_t>(shape.size())}, {"epsilon", c.number_or("eps", smallest)}}));
}

const RegisterRule rules[] = {
    {{"aten::_convolution", "aten::convolution"}, [](Call& c) { return convolved(c, c.flag("transposed")); }},
    {{"aten::conv1d", "aten::conv2d", "aten::conv3d"}, [](Call& c) { return convolved(c, false); }},
    {{"aten::conv_transpose1d", "aten::conv_transpose2d", "aten::conv_transpose3d"}, [](Call& c) { return convolved(c, true); }},
    {{"aten::batch_norm"}, batch_norm},
    {{"aten::instance_norm"}, instance_norm},
    {{"aten::group_norm"}, group_norm},
    {{"aten::layer_norm"}, layer_norm},
    {{"aten::rms_norm"}, rms_norm},
};

}  // namespace
}  // namespace espalier::torchscript
