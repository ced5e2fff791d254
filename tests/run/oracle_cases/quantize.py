import numpy as np
from onnx import TensorProto


def cases(add, make):
    add("dequantize_channel", "DequantizeLinear", [np.array([[1, -2, 3], [4, 5, -128]], np.int8), make.real(3), np.array([0, 1, -1], np.int8)],
        gradient=True, axis=1)
    add("dequantize_blocked", "DequantizeLinear", [make.rng.integers(-128, 127, (5, 3)).astype(np.int8), make.real(3, 3)], gradient=True, axis=0,
        block_size=2)
    add("quantize_channel", "QuantizeLinear", [make.real(2, 3) * 90, np.array([0.5, 0.7, 0.3], np.float32), np.array([1, -5, 7], np.int8)], axis=1)
    add("quantize_blocked", "QuantizeLinear", [make.real(4, 3), np.full((2, 3), 0.01, np.float32)], axis=0, block_size=2, output_dtype=TensorProto.INT8)
