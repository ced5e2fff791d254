"""Products of integer codes, and the types and precisions of QuantizeLinear."""
import numpy as np
from onnx import TensorProto


def products(add, make):
    def codes(type_, *shape):
        info = np.iinfo(type_)
        return make.rng.integers(info.min, info.max + 1, shape).astype(type_)

    def single(value, type_):
        return np.array(value, type_)

    x, w = codes(np.uint8, 1, 4, 5, 4), codes(np.int8, 6, 2, 3, 2)
    zero_x, zeros_w = single(120, np.uint8), codes(np.int8, 6)
    add("conv_integer", "ConvInteger", [x, w[:, :, :, :1].repeat(2, 1), zero_x], pads=[1, 0, 0, 1], strides=[2, 1])
    add("conv_integer_grouped", "ConvInteger", [x, w, None, single(3, np.int8)], group=2, dilations=[1, 2])
    kernels = np.lib.stride_tricks.sliding_window_view(x.astype(np.int64) - 120, (3, 2), (2, 3))  # [batch, channels, rows, columns, 3, 2]
    wide = w.astype(np.int64) - zeros_w.reshape(6, 1, 1, 1)
    sums = np.concatenate([np.einsum("nchwij,mcij->nmhw", kernels[:, 2 * g:2 * g + 2], wide[3 * g:3 * g + 3]) for g in range(2)], 1)
    add("conv_integer_filters", "ConvInteger", [x, w, zero_x, zeros_w], group=2, given=[sums.astype(np.int32)])
    scales, bias = make.real(6, low=0.01, high=0.02), make.rng.integers(-900, 900, 6).astype(np.int32)
    factor = np.float64(np.float32(0.02)) * scales.astype(np.float64) / np.float64(np.float32(0.9))
    y = np.rint((sums + bias.reshape(1, 6, 1, 1)) * factor.reshape(1, 6, 1, 1)) - 5
    add("qlinear_conv", "QLinearConv", [x, single(0.02, np.float32), zero_x, w, scales, zeros_w, single(0.9, np.float32), single(-5, np.int8), bias],
        group=2, given=[np.clip(y, -128, 127).astype(np.int8)])
    a, b = codes(np.uint8, 2, 3, 4), codes(np.int8, 4, 5)
    rows, columns = codes(np.uint8, 2, 3, 1), codes(np.int8, 5)
    add("matmul_integer", "MatMulInteger", [a, b, single(7, np.uint8), single(-3, np.int8)])
    product = (a.astype(np.int64) - rows) @ (b.astype(np.int64) - columns)
    add("matmul_integer_lines", "MatMulInteger", [a, b, rows, columns], given=[product.astype(np.int32)])
    add("matmul_integer_rows", "MatMulInteger", [a[0], b, rows[0, :, 0]], given=[((a[0].astype(np.int64) - rows[0]) @ b).astype(np.int32)])
    of_a, of_b = make.real(2, 3, 1, low=0.01, high=0.02), make.real(5, low=0.01, high=0.02)
    y = np.rint(product * (of_a.astype(np.float64) * of_b / np.float64(np.float32(0.3)))) + 100
    add("qlinear_matmul", "QLinearMatMul", [a, of_a, rows, b, of_b, columns, single(0.3, np.float32), single(100, np.uint8)],
        given=[np.clip(y, 0, 255).astype(np.uint8)])


def quantization(add, make):
    x = np.array([-1e6, -449, -3.3, -0.017, 0, 0.4, 5.55, 447, 460, 1e6], np.float32)
    one = np.array(1, np.float32)
    for name in ["FLOAT8E4M3FN", "FLOAT8E4M3FNUZ", "FLOAT8E5M2", "FLOAT8E5M2FNUZ"]:
        add(f"quantize_{name.lower()}", "QuantizeLinear", [x, one], output_dtype=getattr(TensorProto, name))
    for name in ["UINT16", "INT16", "UINT8", "INT8"]:
        add(f"quantize_{name.lower()}", "QuantizeLinear", [x, np.array(0.7, np.float32)], output_dtype=getattr(TensorProto, name))
    # 1001.3 is 1001.5 in half precision.
    add("quantize_half", "QuantizeLinear", [np.array([1001.3], np.float32), np.array(1, np.float32), np.array(0, np.int16)],
        precision=TensorProto.FLOAT16, given=[np.array([1002], np.int16)])
    add("quantize_integers", "QuantizeLinear", [np.array([10, -7, 300], np.int32), np.array(4, np.float32), np.array(1, np.int8)],
        given=[np.array([3, -1, 76], np.int8)])
    codes = np.array([[0, 65535], [7, 40000]], np.uint16)
    add("dequantize_uint16", "DequantizeLinear", [codes, np.array([0.5, 2], np.float32), np.array([1, 40000], np.uint16)], gradient=True, axis=1)


def cases(add, make):
    products(add, make)
    quantization(add, make)
