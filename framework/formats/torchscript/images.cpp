/// Pools, sizes of images and borders.
#include <algorithm>

#include "formats/torchscript/lowering.h"

namespace espalier::torchscript {
namespace {

/// How many spatial axes an operator of this name has: the digit before its "d".
std::size_t axes_of(const Call& c) {
  const std::string& kind = c.operation.kind;
  for (std::size_t i = 0; i + 1 < kind.size(); ++i)
    if (kind[i] >= '1' && kind[i] <= '3' && kind[i + 1] == 'd') return static_cast<std::size_t>(kind[i] - '0');
  c.refuse("how many axes it has is not known");
}

std::string batched(const Call& c, std::size_t axes) {
  const std::string x = c.tensor(c.find("self") ? "self" : "input");
  if (c.rank(x) != axes + 2)
    c.refuse("an input of rank " + std::to_string(c.rank(x)) + ", which has no batch", "give the model's input its batch axis");
  return x;
}

Attributes window(const Call& c, std::size_t axes) {
  const Integers kernel = c.integers("kernel_size", axes), padding = c.integers("padding", axes);
  // No stride is the kernel's length.
  const bool strided = c.given("stride") && !(c.item("stride").kind == Item::Kind::list && c.item("stride").items.empty());
  Integers pads = padding;
  pads.insert(pads.end(), padding.begin(), padding.end());
  return {{"kernel_shape", kernel},
          {"strides", strided ? c.integers("stride", axes) : kernel},
          {"pads", pads},
          {"ceil_mode", std::int64_t{c.flag("ceil_mode")}}};
}

Item max_pool(Call& c) {
  const std::size_t axes = axes_of(c);
  Attributes attributes = window(c, axes);
  attributes["dilations"] = c.integers("dilation", axes);
  const Item y = Item::of_tensor(c.add("MaxPool", {batched(c, axes)}, std::move(attributes)));
  return c.operation.outputs.size() == 1 ? y : Item::of_list({y, Item{}});  // the places, which no operation may read
}

Item average_pool(Call& c) {
  const std::size_t axes = axes_of(c);
  Attributes attributes = window(c, axes);
  if (c.given("divisor_override")) c.refuse("divisor_override");
  attributes["count_include_pad"] = std::int64_t{c.flag("count_include_pad")};
  return Item::of_tensor(c.add("AveragePool", {batched(c, axes)}, std::move(attributes)));
}

/// To one place, or to a part of the axes' lengths.
std::string adapted(const Call& c, const char* global, const char* pool) {
  const std::size_t axes = axes_of(c);
  const std::string x = batched(c, axes);
  std::vector<Item> asked =
      c.item("output_size").kind == Item::Kind::list ? c.item("output_size").items : std::vector<Item>(axes, c.item("output_size"));
  if (asked.size() == 1) asked.resize(axes, asked[0]);
  const bool one = std::all_of(asked.begin(), asked.end(),
                               [](const Item& i) { return i.kind == Item::Kind::integer && i.constant() && i.integer == 1; });
  if (one) return c.add(global, {x});
  Integers kernel;
  for (std::size_t i = 0; i < axes; ++i) {
    const Dim& length = c.shape(x)[i + 2];
    if (asked[i].kind == Item::Kind::none) {
      kernel.push_back(1);
      continue;
    }
    if (!length.known() || asked[i].kind != Item::Kind::integer || !asked[i].constant() || asked[i].integer < 1 ||
        length.constant() % asked[i].integer != 0)
      c.refuse("from length " + length.text() + " to one that does not divide it");
    kernel.push_back(length.constant() / asked[i].integer);
  }
  return c.add(pool, {x}, {{"kernel_shape", kernel}, {"strides", kernel}});
}

Item adaptive_max(Call& c) {
  const Item y = Item::of_tensor(adapted(c, "GlobalMaxPool", "MaxPool"));
  return c.operation.outputs.size() == 1 ? y : Item::of_list({y, Item{}});
}

struct Scales {
  std::vector<float> values;
};

/// Factors, where the model was written with factors.
std::optional<Scales> scales_of(const Call& c, std::size_t axes) {
  Scales scales;
  if (c.given("scale_factors")) {
    for (const Item& each : c.item("scale_factors").items)
      scales.values.push_back(static_cast<float>(each.kind == Item::Kind::number ? each.real : static_cast<double>(each.integer)));
  } else {
    for (const char* name : {"scales_d", "scales_h", "scales_w", "scales"})
      if (c.given(name)) scales.values.push_back(static_cast<float>(c.number(name)));
  }
  return scales.values.size() == axes ? std::optional(scales) : std::nullopt;
}

Item resized(Call& c, Attributes attributes) {
  const std::size_t axes = axes_of(c);
  const std::string x = batched(c, axes);
  Integers which;
  for (std::size_t i = 0; i < axes; ++i) which.push_back(static_cast<std::int64_t>(i) + 2);
  attributes["axes"] = which;
  if (const auto scales = scales_of(c, axes)) {
    const std::string factors =
        c.constant(Tensor::of<float>(DType::f32, {static_cast<std::int64_t>(axes)}, scales->values), "constant");
    return Item::of_tensor(c.add("Resize", {x, "", factors}, std::move(attributes)));
  }
  if (!c.given("output_size")) c.refuse("neither a size nor factors");
  return Item::of_tensor(c.add("Resize", {x, "", "", c.lengths(c.item("output_size").items)}, std::move(attributes)));
}

Item nearest(Call& c) {
  return resized(c, {{"mode", std::string("nearest")},
                     {"nearest_mode", std::string("floor")},
                     {"coordinate_transformation_mode", std::string("asymmetric")}});
}

Item interpolated(Call& c, const char* mode) {
  const std::string places = c.flag("align_corners") ? "align_corners" : "half_pixel";
  Attributes attributes{{"mode", std::string(mode)}, {"coordinate_transformation_mode", places}};
  if (std::string_view(mode) == "cubic") attributes["cubic_coeff_a"] = -0.75;
  return resized(c, std::move(attributes));
}

/// PyTorch lists borders from the last axis on, begin and end of each.
std::string bordered(const Call& c, const std::string& mode, const Item* value) {
  const std::string x = c.tensor("self");
  const Item& list = c.item(c.find("pad") ? "pad" : "padding");
  if (list.kind != Item::Kind::list || list.items.size() % 2 != 0 || list.items.size() / 2 > c.rank(x))
    c.refuse("its borders do not fit the tensor");
  const std::size_t count = list.items.size() / 2;
  std::vector<Item> begins, ends;
  Integers axes;
  for (std::size_t i = count; i-- > 0;) {
    begins.push_back(list.items[2 * i]);
    ends.push_back(list.items[2 * i + 1]);
    axes.push_back(static_cast<std::int64_t>(c.rank(x) - 1 - i));
  }
  if (count == 0) return x;
  begins.insert(begins.end(), ends.begin(), ends.end());
  const std::string fill = value && value->kind != Item::Kind::none && mode == "constant" ? c.operand(*value, c.dtype(x)) : "";
  return c.add("Pad", {x, c.lengths(begins), fill, c.list(axes)}, {{"mode", mode}});
}

Item pad(Call& c) {
  static const std::map<std::string, std::string> modes{
      {"constant", "constant"}, {"reflect", "reflect"}, {"replicate", "edge"}, {"circular", "wrap"}};
  const auto found = modes.find(c.text("mode"));
  if (found == modes.end()) c.refuse("mode is \"" + c.text("mode") + "\"");
  return Item::of_tensor(bordered(c, found->second, c.find("value")));
}

Item pixel_shuffle(Call& c) {
  return Item::of_tensor(
      c.add("DepthToSpace", {c.tensor("self")}, {{"blocksize", c.integer("upscale_factor")}, {"mode", std::string("CRD")}}));
}

const RegisterRule rules[] = {
    {{"aten::max_pool1d", "aten::max_pool2d", "aten::max_pool3d", "aten::max_pool2d_with_indices", "aten::max_pool1d_with_indices"},
     max_pool},
    {{"aten::avg_pool1d", "aten::avg_pool2d", "aten::avg_pool3d"}, average_pool},
    {{"aten::adaptive_avg_pool1d", "aten::adaptive_avg_pool2d", "aten::adaptive_avg_pool3d"},
     [](Call& c) { return Item::of_tensor(adapted(c, "GlobalAveragePool", "AveragePool")); }},
    {{"aten::adaptive_max_pool1d", "aten::adaptive_max_pool2d"}, adaptive_max},
    {{"aten::upsample_nearest1d", "aten::upsample_nearest2d", "aten::upsample_nearest3d"}, nearest},
    {{"aten::upsample_linear1d", "aten::upsample_bilinear2d", "aten::upsample_trilinear3d"},
     [](Call& c) { return interpolated(c, "linear"); }},
    {{"aten::upsample_bicubic2d"}, [](Call& c) { return interpolated(c, "cubic"); }},
    {{"aten::pad"}, pad},
    {{"aten::constant_pad_nd"}, [](Call& c) { return Item::of_tensor(bordered(c, "constant", c.find("value"))); }},
    {{"aten::reflection_pad1d", "aten::reflection_pad2d"},
     [](Call& c) { return Item::of_tensor(bordered(c, "reflect", nullptr)); }},
    {{"aten::replication_pad1d", "aten::replication_pad2d"}, [](Call& c) { return Item::of_tensor(bordered(c, "edge", nullptr)); }},
    {{"aten::pixel_shuffle"}, pixel_shuffle},
};

}  // namespace
}  // namespace espalier::torchscript
