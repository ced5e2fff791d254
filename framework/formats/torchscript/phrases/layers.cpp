#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "formats/torchscript/script.h"

namespace espalier::torchscript {
namespace {

using Integers = std::vector<std::int64_t>;

/// Attribute `name`: one number for each spatial axis.
Integers spatial(NodeScript& s, const char* name, std::size_t count, std::int64_t fallback) {
  Integers list = s.node.integers(name, Integers(count, fallback));
  if (list.size() != count) s.refuse(fmt::format("attribute {} has {} entries", name, list.size()));
  return list;
}

/// A window over the spatial axes, with its padding before and behind.
struct Window {
  Integers kernel, strides, dilations, begin, end;
  bool ceil;

  Window(NodeScript& s, Integers given) : kernel(std::move(given)), ceil(s.node.integer("ceil_mode", 0) != 0) {
    const std::size_t rank = s.rank(0);
    if (rank < 3 || rank > 5) s.refuse(fmt::format("an input of rank {}", rank));
    const std::size_t axes = rank - 2;
    if (kernel.empty()) kernel = spatial(s, "kernel_shape", axes, 1);
    strides = spatial(s, "strides", axes, 1);
    dilations = spatial(s, "dilations", axes, 1);
    const Integers pads = spatial(s, "pads", 2 * axes, 0);
    begin.assign(pads.begin(), pads.begin() + static_cast<std::ptrdiff_t>(axes));
    end.assign(pads.begin() + static_cast<std::ptrdiff_t>(axes), pads.end());
    const std::string mode = s.node.text("auto_pad", "NOTSET");
    for (std::size_t i = 0; i < axes; ++i) {
      if (mode == "NOTSET") continue;
      begin[i] = end[i] = 0;
      if (mode == "VALID") continue;
      const Dim& length = s.info(0).shape[i + 2];
      const std::int64_t span = (kernel[i] - 1) * dilations[i] + 1;
      if (!length.known() && strides[i] != 1) s.refuse("auto_pad over an axis of free length");
      const std::int64_t over =
          strides[i] == 1 ? span - 1
                          : std::max<std::int64_t>(
                                ((length.value() + strides[i] - 1) / strides[i] - 1) * strides[i] + span - length.value(), 0);
      begin[i] = mode == "SAME_UPPER" ? over / 2 : over - over / 2;
      end[i] = over - begin[i];
    }
  }
  std::size_t rank() const { return kernel.size(); }
  bool symmetric() const { return begin == end; }
  bool padded() const {
    return std::any_of(begin.begin(), begin.end(), [](auto p) { return p != 0; }) ||
           std::any_of(end.begin(), end.end(), [](auto p) { return p != 0; });
  }
  /// LibTorch counts from the last axis.
  std::string pads() const {
    Integers pads;
    for (std::size_t i = rank(); i-- > 0;) {
      pads.push_back(begin[i]);
      pads.push_back(end[i]);
    }
    return list_text(pads);
  }
};

Integers kernel_of(NodeScript& s) {
  Integers kernel;
  for (std::size_t i = 2; i < s.rank(1); ++i) {
    const Dim& dim = s.info(1).shape[i];
    if (!dim.known()) s.refuse("a kernel of unknown size");
    kernel.push_back(dim.value());
  }
  return kernel;
}

void conv(NodeScript& s) {
  Window w(s, kernel_of(s));
  std::string x = s.in(0);
  Integers padding = w.begin;
  if (!w.symmetric()) {
    x = s.let(fmt::format("torch.constant_pad_nd({}, {}, 0)", x, w.pads()));
    padding.assign(w.rank(), 0);
  }
  s.give(fmt::format("torch.conv{}d({}, {}, {}, {}, {}, {}, {})", w.rank(), x, s.in(1), s.in_or_none(2), list_text(w.strides),
                     list_text(padding), list_text(w.dilations), s.node.integer("group", 1)));
}

void conv_transpose(NodeScript& s) {
  const Window w(s, kernel_of(s));
  if (s.node.text("auto_pad", "NOTSET") != "NOTSET" || s.node.has("output_shape"))
    s.refuse("padding that follows from the output's shape");
  if (!w.symmetric()) s.refuse("unequal padding before and behind");
  const Integers extra = spatial(s, "output_padding", w.rank(), 0);
  for (std::size_t i = 0; i < w.rank(); ++i)
    if (extra[i] >= std::max(w.strides[i], w.dilations[i])) s.refuse("output_padding of a stride or more");
  s.give(fmt::format("torch.conv_transpose{}d({}, {}, {}, {}, {}, {}, {}, {})", w.rank(), s.in(0), s.in(1), s.in_or_none(2),
                     list_text(w.strides), list_text(w.begin), list_text(extra), s.node.integer("group", 1),
                     list_text(w.dilations)));
}

/// Up to half of the kernel LibTorch's pools pad themselves.
bool pool_pads(const Window& w) {
  for (std::size_t i = 0; i < w.rank(); ++i)
    if (2 * w.begin[i] > w.kernel[i]) return false;
  return w.symmetric();
}

void max_pool(NodeScript& s) {
  s.only(1);
  if (s.node.integer("storage_order", 0) != 0) s.refuse("storage_order");
  Window w(s, {});
  std::string x = s.in(0);
  Integers padding = w.begin;
  if (!pool_pads(w)) {
    if (!s.floating(0) || w.ceil) s.refuse("its padding");
    x = s.let(fmt::format("torch.constant_pad_nd({}, {}, float(\"-inf\"))", x, w.pads()));
    padding.assign(w.rank(), 0);
  }
  s.give(fmt::format("torch.max_pool{}d({}, {}, {}, {}, {}, {})", w.rank(), x, list_text(w.kernel), list_text(w.strides),
                     list_text(padding), list_text(w.dilations), flag_text(w.ceil)));
}

void average_pool(NodeScript& s) {
  Window w(s, {});
  const bool counts = s.node.integer("count_include_pad", 0) != 0;
  if (std::any_of(w.dilations.begin(), w.dilations.end(), [](auto each) { return each != 1; })) s.refuse("dilations");
  std::string x = s.in(0);
  Integers padding = w.begin;
  if (!pool_pads(w)) {
    if (!counts || w.ceil) s.refuse("its padding");
    x = s.let(fmt::format("torch.constant_pad_nd({}, {}, 0)", x, w.pads()));
    padding.assign(w.rank(), 0);
  }
  s.give(fmt::format("torch.avg_pool{}d({}, {}, {}, {}, {}, {})", w.rank(), x, list_text(w.kernel), list_text(w.strides),
                     list_text(padding), flag_text(w.ceil), flag_text(counts)));
}

void global_pool(NodeScript& s) {
  Integers axes;
  for (std::size_t i = 2; i < s.rank(0); ++i) axes.push_back(static_cast<std::int64_t>(i));
  if (axes.empty()) return s.give(s.in(0));
  s.give(fmt::format("torch.{}({}, {}, True)", s.node.op == "GlobalMaxPool" ? "amax" : "mean", s.in(0), list_text(axes)));
}

/// Lengths of the axes from `axis` on, which LibTorch's norms want as numbers.
Integers normalized(NodeScript& s) {
  Integers shape;
  for (std::size_t i = s.axis("axis", -1, s.rank(0)); i < s.rank(0); ++i) {
    const Dim& dim = s.info(0).shape[i];
    if (!dim.known()) s.refuse("normalized axes of free length");
    shape.push_back(dim.value());
  }
  return shape;
}

/// Input i in the normalized axes' own shape.
std::string whole(NodeScript& s, std::size_t i, const Integers& shape) {
  Shape wanted(shape.begin(), shape.end());
  if (s.info(i).shape == wanted) return s.in(i);
  if (s.rank(i) > shape.size()) s.refuse("a scale along other axes than the normalized");
  return fmt::format("{}.expand({})", s.in(i), list_text(shape));
}

void layer_norm(NodeScript& s) {
  const Integers shape = normalized(s);
  const std::string scale = whole(s, 1, shape), bias = s.has(2) ? whole(s, 2, shape) : std::string("None");
  if (!s.node.output(1).empty() || !s.node.output(2).empty()) {
    const std::string all = s.let(fmt::format("torch.native_layer_norm({}, {}, {}, {}, {})", s.in(0), list_text(shape), scale, bias,
                                              number_text(s.node.number("epsilon", 1e-5))),
                                  "normed");
    for (std::size_t i = 0; i < 3; ++i) s.give(i, fmt::format("{}[{}]", all, i));
    return;
  }
  s.give(fmt::format("torch.layer_norm({}, {}, {}, {}, {})", s.in(0), list_text(shape), scale, bias,
                     number_text(s.node.number("epsilon", 1e-5))));
}

void rms_norm(NodeScript& s) {
  const Integers shape = normalized(s);
  s.give(fmt::format("torch.rms_norm({}, {}, {}, {})", s.in(0), list_text(shape), whole(s, 1, shape),
                     number_text(s.node.number("epsilon", 1e-5))));
}

void batch_norm(NodeScript& s) {
  s.only(1);
  if (s.node.integer("training_mode", 0) != 0 || (s.opset() < 7 && s.node.integer("is_test", 0) == 0)) s.refuse("training_mode");
  if (s.node.integer("spatial", 1) == 0) s.refuse("statistics of each place");
  if (s.rank(0) < 2) s.refuse("an input without channels");
  s.give(fmt::format("torch.batch_norm({}, {}, {}, {}, {}, False, 0.0, {}, False)", s.in(0), s.in(1), s.in(2), s.in(3), s.in(4),
                     number_text(s.node.number("epsilon", 1e-5))));
}

void instance_norm(NodeScript& s) {
  s.give(fmt::format("torch.instance_norm({}, {}, {}, None, None, True, 0.0, {}, False)", s.in(0), s.in(1), s.in(2),
                     number_text(s.node.number("epsilon", 1e-5))));
}

void group_norm(NodeScript& s) {
  const std::int64_t groups = s.node.integer("num_groups", 1);
  std::string scale = s.in(1), bias = s.in(2);
  if (s.opset() < 21) {  // one for each group
    const Dim& channels = s.info(0).shape.at(1);
    if (!channels.known()) s.refuse("a free number of channels");
    scale = fmt::format("torch.repeat_interleave({}, {})", scale, channels.value() / groups);
    bias = fmt::format("torch.repeat_interleave({}, {})", bias, channels.value() / groups);
  }
  s.give(fmt::format("torch.group_norm({}, {}, {}, {}, {})", s.in(0), groups, scale, bias,
                     number_text(s.node.number("epsilon", 1e-5))));
}

void lp_normalization(NodeScript& s) {
  const std::size_t axis = s.axis("axis", -1, s.rank(0));
  const std::string norm =
      s.let(fmt::format("torch.linalg_vector_norm({}, {}, [{}], True)", s.in(0), s.node.integer("p", 2), axis));
  s.give(fmt::format("torch.where(torch.eq({0}, 0), torch.zeros_like({1}), torch.div({1}, {0}))", norm, s.in(0)));
}

void matmul(NodeScript& s) {
  if (s.floating(0))  // a table that is looked up elsewhere, as a head
    if (const auto table = s.transposed(1)) return s.give(fmt::format("torch.linear({}, {})", s.in(0), *table));
  s.give(fmt::format(fmt::runtime(s.turned(1) ? "torch.linear({}, {})" : "torch.matmul({}, {})"), s.in(0), s.in(1)));
}

/// alpha · A' · B' + beta · C, C broadcast one way.
void gemm(NodeScript& s) {
  const double alpha = s.node.number("alpha", 1), beta = s.node.number("beta", 1);
  if (!s.floating(0)) s.refuse("integers");
  const bool flip = s.node.integer("transB", 0) != 0, turned = s.turned(1);
  const std::string a = s.node.integer("transA", 0) != 0 ? fmt::format("torch.t({})", s.in(0)) : s.in(0);
  const bool plain_bias = !s.has(2) || (s.rank(2) == 1 && s.info(2).shape[0] == s.info(1).shape[flip ? 0 : 1] && beta == 1);
  if ((turned || flip) && alpha == 1 && plain_bias)
    return s.give(fmt::format("torch.linear({}, {}, {})", a, s.in(1), s.in_or_none(2)));
  const std::string b = turned || flip ? fmt::format("torch.t({})", s.in(1)) : s.in(1);
  if (s.has(2))
    return s.give(fmt::format("torch.addmm({}, {}, {}, beta={}, alpha={})", s.in(2), a, b, number_text(beta), number_text(alpha)));
  const std::string product = s.let(fmt::format("torch.mm({}, {})", a, b));
  s.give(alpha == 1 ? product : fmt::format("torch.mul({}, {})", product, number_text(alpha)));
}

/// Where a kernel of LibTorch places its samples just so. Sizes are asked of the shape, or follow from the scales.
void resize(NodeScript& s) {
  const std::string mode = s.node.text("mode", "nearest");
  const bool old = s.node.op == "Upsample" || s.opset() < 11;
  const std::string place = s.node.text("coordinate_transformation_mode", old ? "asymmetric" : "half_pixel");
  const std::string nearest = s.node.text("nearest_mode", old ? "floor" : "round_prefer_floor");
  const std::size_t rank = s.rank(0);
  if (rank < 3 || rank > 5 || s.node.integer("antialias", 0) != 0 || s.node.integer("exclude_outside", 0) != 0 ||
      s.node.text("keep_aspect_ratio_policy", "stretch") != "stretch")
    s.refuse("its attributes");
  if (!s.floating(0)) s.refuse("integers");
  const std::size_t slot = s.node.op == "Upsample" || s.opset() < 11 ? 1 : 2;
  const bool sized = !old && s.has(3);
  const Tensor* scales = sized || (old && s.opset() < 9 && s.node.op == "Upsample") ? nullptr : s.constant(slot);
  Integers places;  // where an axis' size or scale stands; -1: nowhere
  for (std::size_t i = 0; i < rank; ++i) places.push_back(s.node.has("axes") ? -1 : static_cast<std::int64_t>(i));
  const Integers spoken = s.node.integers("axes", {});
  for (std::size_t k = 0; k < spoken.size(); ++k) {
    const std::int64_t axis = spoken[k] < 0 ? spoken[k] + static_cast<std::int64_t>(rank) : spoken[k];
    if (axis < 0 || axis >= static_cast<std::int64_t>(rank)) s.refuse("an axis that the input has not");
    places[static_cast<std::size_t>(axis)] = static_cast<std::int64_t>(k);
  }
  if (!sized && (!scales || scales->count() != static_cast<std::int64_t>(spoken.empty() ? rank : spoken.size())))
    s.refuse("scales that are computed");
  std::vector<std::string> lengths;
  bool whole = true;  // every axis grows by a whole number, as far as it is known
  const auto sizes = sized ? s.integers(3) : std::vector<std::string>();
  for (std::size_t i = 0; i < rank; ++i) {
    const Dim &before = s.info(0).shape[i], &after = s.info_out(0).shape[i];
    if (i < 2) {
      if (before != after) s.refuse("a batch or channels that are resized");
      continue;
    }
    const std::int64_t at = places[i];
    if (at < 0) {
      lengths.push_back(s.length(0, i));
    } else if (scales) {
      const double scale = scales->numbers().at(static_cast<std::size_t>(at));
      whole = whole && scale == std::floor(scale);
      lengths.push_back(after.known() ? std::to_string(after.value())
                                      : fmt::format("int(float({}) * {})", s.length(0, i), number_text(scale)));
      // With sizes alone LibTorch derives the scale anew: the same where no length was rounded down.
      if (scale != std::floor(scale) && !(before.known() && static_cast<double>(before.value()) * scale ==
                                                                std::floor(static_cast<double>(before.value()) * scale)))
        s.refuse("a scale that rounds lengths");
    } else {
      whole = whole && before.known() && after.known() && after.value() % before.value() == 0;
      lengths.push_back(sizes.at(static_cast<std::size_t>(at)));
    }
  }
  const std::size_t axes = rank - 2;
  if (mode == "nearest") {
    const bool floors = (place == "asymmetric" && nearest == "floor") ||
                        (whole && place == "half_pixel" && (nearest == "round_prefer_floor" || nearest == "round_prefer_ceil"));
    if (!floors) s.refuse(fmt::format("mode nearest with {} and {}", place, nearest));
    return s.give(fmt::format("torch.upsample_nearest{}d({}, {})", axes, s.in(0), list_text(lengths)));
  }
  const bool corners = place == "align_corners";
  if (!corners && place != "half_pixel" && place != "pytorch_half_pixel") s.refuse("mode " + mode + " with " + place);
  if (!corners)
    for (std::size_t i = 2; i < rank; ++i)
      if (s.info_out(0).shape[i] == Dim(1) && place == "pytorch_half_pixel") s.refuse("an axis that becomes 1");
  if (mode == "cubic" && axes == 2 && s.node.number("cubic_coeff_a", -0.75) == -0.75)
    return s.give(fmt::format("torch.upsample_bicubic2d({}, {}, {})", s.in(0), list_text(lengths), flag_text(corners)));
  if (mode != "linear") s.refuse("mode " + mode);
  const char* kernels[] = {"linear1d", "bilinear2d", "trilinear3d"};
  s.give(fmt::format("torch.upsample_{}({}, {}, {})", kernels[axes - 1], s.in(0), list_text(lengths), flag_text(corners)));
}

void pad(NodeScript& s) {
  const std::string mode = s.node.text("mode", "constant");
  const char* attribute = s.node.has("paddings") ? "paddings" : "pads";
  std::vector<std::string> given;
  if (s.node.has(attribute)) {
    for (std::int64_t each : s.node.integers(attribute, {})) given.push_back(std::to_string(each));
  } else {
    given = s.integers(1);
  }
  const std::size_t rank = s.rank(0);
  Integers axes;
  for (std::size_t i = 0; i < rank; ++i) axes.push_back(static_cast<std::int64_t>(i));
  if (s.has(3)) {
    const auto known = s.known(3);
    if (!known) s.refuse("axes that are computed");
    axes = *known;
  }
  if (given.size() != 2 * axes.size()) s.refuse(fmt::format("{} pads for {} axes", given.size(), axes.size()));
  std::vector<std::string> begin(rank, "0"), end(rank, "0");
  for (std::size_t i = 0; i < axes.size(); ++i) {
    const auto axis = static_cast<std::size_t>(axes[i] < 0 ? axes[i] + static_cast<std::int64_t>(rank) : axes[i]);
    if (axis >= rank) s.refuse("an axis that the input has not");
    begin[axis] = given[i];
    end[axis] = given[i + axes.size()];
  }
  std::vector<std::string> pads;
  std::size_t outermost = rank;
  for (std::size_t i = rank; i-- > 0;) {
    if (begin[i] != "0" || end[i] != "0") outermost = i;
    pads.push_back(begin[i]);
    pads.push_back(end[i]);
  }
  if (mode == "constant") {
    std::string value = s.floating(0) ? number_text(s.node.number("value", 0)) : std::to_string(0);
    if (s.has(2)) {
      const Tensor* known = s.constant(2);
      if (known && known->count() == 1) {
        value = s.floating(0) ? number_text(known->numbers()[0]) : std::to_string(known->integers()[0]);
      } else {
        value = fmt::format(fmt::runtime(s.floating(0) ? "float({})" : "int({})"), s.in(2));
      }
    }
    return s.give(fmt::format("torch.constant_pad_nd({}, {}, {})", s.in(0), list_text(pads), value));
  }
  const std::size_t padded = rank - outermost;
  if (padded == 0) return s.give(s.in(0));
  if (!s.floating(0) || padded > 3 || (rank != padded + 1 && rank != padded + 2)) s.refuse("mode " + mode + " over these axes");
  for (const std::string& each : pads)
    if (each.starts_with('-')) s.refuse("mode " + mode + " that cuts");
  pads.resize(2 * padded);
  const char* name = mode == "edge" ? "replicate" : mode == "reflect" ? "reflect" : mode == "wrap" ? "circular" : nullptr;
  if (!name) s.refuse("mode " + mode);
  s.give(fmt::format("torch.pad({}, {}, \"{}\")", s.in(0), list_text(pads), name));
}

const RegisterPhrase entries[] = {{{"Conv"}, conv},
                                  {{"ConvTranspose"}, conv_transpose},
                                  {{"MaxPool"}, max_pool},
                                  {{"AveragePool"}, average_pool},
                                  {{"GlobalAveragePool", "GlobalMaxPool"}, global_pool},
                                  {{"LayerNormalization"}, layer_norm},
                                  {{"RMSNormalization"}, rms_norm},
                                  {{"BatchNormalization"}, batch_norm},
                                  {{"InstanceNormalization"}, instance_norm},
                                  {{"GroupNormalization"}, group_norm},
                                  {{"LpNormalization"}, lp_normalization},
                                  {{"MatMul"}, matmul},
                                  {{"Gemm"}, gemm},
                                  {{"Resize", "Upsample"}, resize},
                                  {{"Pad"}, pad}};

}  // namespace
}  // namespace espalier::torchscript
