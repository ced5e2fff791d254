"""Resize, Upsample, GridSample, AffineGrid, RoiAlign, DeformConv, ConvTranspose, and the pools that vision.py does not have."""
import numpy as np


def floats(*values):
    return np.array(values, np.float32)


def resizes(add, make):
    x = make.real(1, 2, 4, 5)
    nothing = np.array([], np.float32)
    up, down = floats(1, 1, 2, 1.7), floats(1, 1, 0.6, 0.7)
    for mode in ["linear", "cubic"]:
        for transform in ["half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric", "half_pixel_symmetric"]:
            for way, scales in {"up": up, "down": down}.items():
                add(f"resize_{mode}_{transform}_{way}", "Resize", [x, None, scales], gradient=transform == "half_pixel", mode=mode,
                    coordinate_transformation_mode=transform)
        add(f"resize_{mode}_antialias", "Resize", [x, None, down], gradient=True, mode=mode, antialias=1)
        add(f"resize_{mode}_antialias_up", "Resize", [x, None, up], mode=mode, antialias=1)
        add(f"resize_{mode}_excluding", "Resize", [x, None, None, make.i64(1, 2, 7, 3)], gradient=True, mode=mode, exclude_outside=1,
            cubic_coeff_a=-0.5)
    for rounding in ["floor", "ceil", "round_prefer_floor", "round_prefer_ceil"]:
        for transform in ["half_pixel", "align_corners", "asymmetric"]:
            add(f"resize_nearest_{rounding}_{transform}", "Resize", [x, None, None, make.i64(1, 2, 7, 3)], gradient=rounding == "floor",
                mode="nearest", nearest_mode=rounding, coordinate_transformation_mode=transform)
    add("resize_nearest_integers", "Resize", [make.rng.integers(-9, 9, (1, 1, 3, 4)), None, floats(1, 1, 2, 3)], mode="nearest")
    roi = floats(0.1, 0.4, 0.9, 1.3)
    add("resize_crop", "Resize", [x, roi, None, make.i64(3, 4)], opset=19, gradient=True, mode="linear", axes=[2, 3],
        coordinate_transformation_mode="tf_crop_and_resize", extrapolation_value=0.5)
    for policy in ["not_larger", "not_smaller"]:
        add(f"resize_{policy}", "Resize", [x, None, None, make.i64(6, 7)], mode="linear", axes=[3, 2], keep_aspect_ratio_policy=policy)
    add("resize_volume", "Resize", [make.real(1, 2, 2, 3, 2), None, floats(1, 1, 2, 1.5, 2)], gradient=True, mode="linear")
    add("resize_line_11", "Resize", [make.real(1, 2, 4), nothing, nothing, make.i64(1, 2, 6)], opset=11, gradient=True, mode="cubic")
    # One pixel out: the spec says 0, the evaluator -0.5.
    line = make.real(1, 1, 4)
    add("resize_pytorch_one", "Resize", [line, None, None, make.i64(1, 1, 1)], mode="cubic", given=[line[:, :, :1]],
        coordinate_transformation_mode="pytorch_half_pixel")
    # The old forms sample at x / scale, rounded down or between two.
    doubled = np.repeat(line, 2, 2)
    between = np.stack([line, np.concatenate([(line[:, :, :-1] + line[:, :, 1:]) / 2, line[:, :, -1:]], 2)], 3).reshape(1, 1, 8)
    add("resize_10", "Resize", [line, floats(1, 1, 2)], opset=10, gradient=True, given=[doubled])
    add("resize_10_linear", "Resize", [line, floats(1, 1, 2)], opset=10, gradient=True, mode="linear", given=[between])
    add("upsample_7", "Upsample", [line], opset=7, gradient=True, scales=[1.0, 1.0, 2.0], given=[doubled])
    add("upsample_9", "Upsample", [line, floats(1, 1, 2)], opset=9, gradient=True, mode="linear", given=[between])
    add("upsample_9_part", "Upsample", [line, floats(1, 1, 1.5)], opset=9, given=[line[:, :, [0, 0, 1, 2, 2, 3]]])
    picture = make.real(1, 2, 2, 3)
    add("upsample_1", "Upsample", [picture], opset=1, height_scale=3.0, width_scale=2.0, given=[np.repeat(np.repeat(picture, 3, 2), 2, 3)])


def grids(add, make):
    x = make.real(2, 2, 4, 3)
    inside, wide = make.real(2, 2, 3, 2, low=-0.9, high=0.9), make.real(2, 2, 3, 2, low=-2.6, high=2.6)
    for mode in ["nearest", "linear", "cubic"]:
        for outside in ["zeros", "border", "reflection"]:
            for corners in [0, 1]:
                add(f"grid_{mode}_{outside}_{corners}", "GridSample", [x, wide], mode=mode, padding_mode=outside, align_corners=corners)
        add(f"grid_{mode}_gradient", "GridSample", [x, inside], gradient=True, mode=mode, padding_mode="border")
    add("grid_default", "GridSample", [x, wide])
    add("grid_volume", "GridSample", [make.real(1, 2, 3, 2, 4), make.real(1, 2, 2, 1, 3, low=-1.2, high=1.2)], gradient=True, mode="linear")
    add("grid_line", "GridSample", [make.real(1, 2, 5), make.real(1, 4, 1)], gradient=True, mode="linear")
    add("affine_grid", "AffineGrid", [make.real(2, 2, 3), make.i64(2, 1, 3, 4)], gradient=True)
    add("affine_grid_corners", "AffineGrid", [make.real(1, 3, 4), make.i64(1, 1, 2, 3, 4)], gradient=True, align_corners=1)


def regions(add, make):
    x = make.spread(2, 3, 6, 7)
    rois = np.array([[0.3, 0.7, 4.2, 5.1], [1.5, 2.5, 9.0, 3.1], [-4.0, -3.0, 2.2, 1.4]], np.float32)
    numbers = make.i64(0, 1, 1)
    for mode in ["avg", "max"]:
        for pixels in ["half_pixel", "output_half_pixel"]:
            for ratio in [0, 2]:
                add(f"roi_{mode}_{pixels}_{ratio}", "RoiAlign", [x, rois, numbers], gradient=mode == "avg", mode=mode, output_height=2,
                    output_width=3, sampling_ratio=ratio, spatial_scale=0.8, coordinate_transformation_mode=pixels)
    # Between the elements of a slope lies what one expects; until opset 15 nothing is shifted by half an element.
    slope = (np.arange(4)[:, None] * 10 + np.arange(4)).astype(np.float32)[None, None]
    add("roi_10", "RoiAlign", [slope, np.array([[1, 1, 5, 5]], np.float32), make.i64(0)], opset=10, output_height=2, output_width=2,
        sampling_ratio=2, spatial_scale=0.5, given=[np.array([[[[11, 12], [21, 22]]]], np.float32)])


def transposed(x, w, strides, group=1, dilations=(1, 1)):
    """All that two spatial axes spread to, without padding."""
    batch, channels, rows, columns = x.shape
    _, each, high, wide = w.shape
    spans = [(k - 1) * d + 1 for k, d in zip((high, wide), dilations)]
    y = np.zeros((batch, each * group, (rows - 1) * strides[0] + spans[0], (columns - 1) * strides[1] + spans[1]), x.dtype)
    for c in range(channels):
        made = slice(c // (channels // group) * each, (c // (channels // group) + 1) * each)
        for i in range(rows):
            for j in range(columns):
                part = y[:, made, i * strides[0]:i * strides[0] + spans[0]:dilations[0], j * strides[1]:j * strides[1] + spans[1]:dilations[1]]
                part += x[:, c, i, j].reshape(-1, 1, 1, 1) * w[c]
    return y


def convolutions(add, make):
    x, w, bias = make.real(2, 4, 3, 3), make.real(4, 2, 3, 2), make.real(2)
    full = transposed(x, w, (2, 1))
    column = bias.reshape(1, 2, 1, 1)
    add("conv_transpose", "ConvTranspose", [x, w, bias], gradient=True, strides=[2, 1], given=[full + column])
    add("conv_transpose_pads", "ConvTranspose", [x, w, bias], gradient=True, strides=[2, 1], pads=[1, 0, 2, 1],
        given=[full[:, :, 1:-2, :-1] + column])
    padded = np.pad(full, ((0, 0), (0, 0), (0, 1), (0, 0)))
    add("conv_transpose_output_padding", "ConvTranspose", [x, w, bias], gradient=True, strides=[2, 1], output_padding=[1, 0],
        given=[padded + column])
    add("conv_transpose_output_padding_in_pads", "ConvTranspose", [x, w, bias], strides=[2, 1], output_padding=[1, 0], pads=[1, 1, 2, 0],
        given=[padded[:, :, 1:-2, 1:] + column])
    # Seven rows are made, six are asked for: the odd one is cut off at the beginning, but for SAME_UPPER.
    add("conv_transpose_output_shape", "ConvTranspose", [x, w], strides=[2, 1], output_shape=[6, 4], given=[full[:, :, 1:]])
    add("conv_transpose_longer", "ConvTranspose", [x, w, bias], strides=[2, 1], output_shape=[8, 4], given=[padded + column])
    add("conv_transpose_same_lower", "ConvTranspose", [x, w], strides=[2, 1], auto_pad="SAME_LOWER", given=[full[:, :, 1:, 1:]])
    add("conv_transpose_same_upper", "ConvTranspose", [x, w], strides=[2, 1], auto_pad="SAME_UPPER", given=[full[:, :, :-1, :-1]])
    add("conv_transpose_grouped", "ConvTranspose", [x, w, make.real(4) * 0], gradient=True, group=2, dilations=[2, 1],
        given=[transposed(x, w, (1, 1), 2, (2, 1))])
    add("conv_transpose_depthwise", "ConvTranspose", [x, w[:, :1]], gradient=True, group=4, given=[transposed(x, w[:, :1], (1, 1), 4)])
    add("conv_transpose_1d", "ConvTranspose", [make.real(1, 2, 4), make.real(2, 3, 3)], gradient=True, strides=[2], pads=[1, 0])
    add("conv_transpose_3d", "ConvTranspose", [make.real(1, 1, 2, 2, 2), make.real(1, 2, 2, 2, 2)], gradient=True, strides=[1, 2, 1])
    x, w = make.real(1, 4, 4, 4), make.real(2, 4, 2, 2)
    offsets, mask = make.real(1, 8, 3, 3, low=0.1, high=0.9), make.real(1, 4, 3, 3)
    add("deform_conv", "DeformConv", [x, w, offsets, make.real(2), mask], gradient=True)
    add("deform_conv_groups", "DeformConv", [x, w[:, :2], make.real(1, 16, 3, 3, low=-0.9, high=-0.1)], gradient=True, group=2, offset_group=2)
    add("deform_conv_window", "DeformConv", [x, w, make.real(1, 8, 2, 3)], strides=[2, 1], pads=[1, 0, 0, 1], dilations=[1, 2])


def pools(add, make):
    x = make.spread(2, 2, 6, 5)
    for name, attributes in {
            "pads": dict(strides=[2, 2], pads=[1, 0, 1, 1]), "columns": dict(strides=[2, 1], pads=[1, 1, 1, 1], storage_order=1),
            "dilated": dict(dilations=[2, 1], strides=[1, 2]), "ceil": dict(strides=[2, 3], ceil_mode=1),
            "even": dict(strides=[2, 2], pads=[1, 1, 1, 1])}.items():
        add(f"max_pool_places_{name}", "MaxPool", [x], outputs=2, gradient=True, kernel_shape=[3, 2], **attributes)
    add("max_pool_places_3d", "MaxPool", [make.spread(1, 2, 4, 3, 4)], outputs=2, kernel_shape=[2, 2, 2], strides=[2, 1, 1], storage_order=1)
    add("max_pool_places_1d", "MaxPool", [make.spread(1, 2, 7)], outputs=2, kernel_shape=[3], strides=[2], pads=[1, 0])
    bytes_ = make.rng.integers(-128, 128, (1, 2, 5, 5)).astype(np.int8)
    add("max_pool_bytes", "MaxPool", [bytes_], outputs=2, kernel_shape=[2, 3], strides=[2, 1], pads=[1, 1, 0, 1])
    add("max_pool_valid", "MaxPool", [x], kernel_shape=[3, 2], strides=[2, 2], auto_pad="VALID")
    add("average_pool_dilated", "AveragePool", [x], gradient=True, kernel_shape=[2, 2], dilations=[2, 3], pads=[1, 0, 0, 1])
    add("average_pool_dilated_counting", "AveragePool", [x], kernel_shape=[2, 2], dilations=[2, 2], pads=[1, 1, 1, 1], count_include_pad=1)
    add("average_pool_3d_dilated", "AveragePool", [make.real(1, 1, 5, 4, 5)], gradient=True, kernel_shape=[2, 2, 2], dilations=[2, 1, 3])
    for p in [1, 2, 3]:
        add(f"lp_pool_{p}", "LpPool", [x], gradient=True, kernel_shape=[3, 2], strides=[2, 1], pads=[1, 0, 1, 1], p=p)
        add(f"global_lp_pool_{p}", "GlobalLpPool", [x], gradient=True, p=p, given=[(np.abs(x)**p).sum((2, 3), keepdims=True)**(1 / p)])
    add("lp_pool_1", "LpPool", [x], opset=1, kernel_shape=[6, 5], p=2.0, given=[np.sqrt((x**2).sum((2, 3), keepdims=True))])
    add("lp_pool_dilated", "LpPool", [make.real(1, 2, 7)], gradient=True, kernel_shape=[3], dilations=[2])
    add("global_max_pool", "GlobalMaxPool", [x], gradient=True)
    volume = make.spread(1, 2, 2, 3, 2)
    add("global_max_pool_3d", "GlobalMaxPool", [volume], given=[volume.max((2, 3, 4), keepdims=True)])
    pooled, places = make.real(1, 2, 2, 2), np.array([[[[0, 3], [9, 15]], [[16, 18], [28, 27]]]], np.int64)
    add("max_unpool", "MaxUnpool", [pooled, places], gradient=True, kernel_shape=[2, 2], strides=[2, 2])
    add("max_unpool_larger", "MaxUnpool", [pooled, places, make.i64(1, 2, 5, 6)], kernel_shape=[2, 2], strides=[2, 2])


def cases(add, make):
    resizes(add, make)
    grids(add, make)
    regions(add, make)
    convolutions(add, make)
    pools(add, make)
