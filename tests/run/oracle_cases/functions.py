import ml_dtypes
import numpy as np
from onnx import TensorProto, numpy_helper

FLOAT8 = {TensorProto.FLOAT8E4M3FN: ml_dtypes.float8_e4m3fn, TensorProto.FLOAT8E4M3FNUZ: ml_dtypes.float8_e4m3fnuz,
          TensorProto.FLOAT8E5M2: ml_dtypes.float8_e5m2, TensorProto.FLOAT8E5M2FNUZ: ml_dtypes.float8_e5m2fnuz}


def numbers_around(dtype, count):
    """Every number of a narrow type, all that lie half-way between two, and what is just beside those."""
    values = np.unique(np.arange(count, dtype=np.uint8).view(dtype).astype(np.float32))
    values = values[np.isfinite(values)]
    middle = (values[1:] + values[:-1]) / 2
    far = np.array([np.inf, -np.inf, np.nan, 1e30, -1e30, 0.0, -0.0, values[-1] * 1.0624, values[-1] * 1.0626], np.float32)
    return np.concatenate([values, middle, np.nextafter(middle, np.float32(1e9)), np.nextafter(middle, np.float32(-1e9)), far])


def smooth(add, make):
    for op, low, high in [("Acos", -0.9, 0.9), ("Asin", -0.9, 0.9), ("Atanh", -0.9, 0.9), ("Acosh", 1.5, 3), ("Atan", -2, 2),
                          ("Asinh", -2, 2), ("Sinh", -2, 2), ("Cosh", -2, 2), ("Tan", -1, 1)]:
        add(op.lower(), op, [make.real(2, 3, low=low, high=high)], gradient=True)
    for op in ["Softsign", "Selu", "Celu", "Mish", "Dropout"]:
        add(op.lower(), op, [make.spread(2, 3, 4)], gradient=True)
    add("celu_alpha", "Celu", [make.spread(2, 3, 4)], gradient=True, alpha=-1.5)
    add("selu_alpha", "Selu", [make.spread(2, 3, 4)], gradient=True, alpha=0.7, gamma=1.2)
    x = make.spread(2, 3, 4)
    add("selu_1", "Selu", [x], opset=1, given=[np.where(x > 0, 1.0507 * x, 1.0507 * 1.6732 * np.expm1(x)).astype(np.float32)])
    add("thresholded_relu", "ThresholdedRelu", [x], gradient=True, alpha=0.3)
    add("shrink", "Shrink", [x], gradient=True, lambd=0.45, bias=0.2)
    add("prelu", "PRelu", [x, make.real(3, 1)], gradient=True)
    add("prelu_one", "PRelu", [x, make.real(1)], gradient=True)
    a, b = make.real(2, 3), make.real(2, 3)
    add("swiglu", "SwiGLU", [a, b], opset=28, gradient=True, alpha=1.5, given=[(a / (1 + np.exp(-1.5 * a)) * b).astype(np.float32)])
    for op in ["Sum", "Mean", "Max", "Min"]:
        add(f"{op.lower()}_three", op, [make.spread(2, 3, 4), make.spread(3, 1) + 0.011, make.spread(4) + 0.023], gradient=True)
        add(f"{op.lower()}_one", op, [make.spread(2, 3)], gradient=True)
    add("fmod", "Mod", [make.real(3, 4, low=0.1, high=0.4), np.array(0.5, np.float32)], gradient=True, fmod=1)
    add("mod_28", "Mod", [make.real(3, 4, low=-0.4, high=-0.1), np.array([0.5], np.float32)], opset=28, gradient=True)
    add("trilu", "Trilu", [make.real(2, 3, 4), np.array(1, np.int64)], gradient=True, upper=0)
    add("cast_like", "CastLike", [make.real(2, 3), np.zeros(0, np.float32)], gradient=True)


def integers(add, make):
    least, most = np.iinfo(np.int64).min, 2**64 - 1
    for dtype in [np.int32, np.int64]:
        info = np.iinfo(dtype)
        a, b = np.array([info.min, 7, -7], dtype), np.array([-1, -1, 2], dtype)
        add(f"div_least_{np.dtype(dtype).name}", "Div", [a, b], given=[np.array([info.min, -7, -3], dtype)])
        add(f"mod_least_{np.dtype(dtype).name}", "Mod", [a, b], given=[np.array([0, 0, 1], dtype)])
        add(f"fmod_least_{np.dtype(dtype).name}", "Mod", [a, b], fmod=1, given=[np.array([0, 0, -1], dtype)])
    a = np.array([2**63 + 5, 7, most, most, 2**63, 0, most - 1], np.uint64)
    b = np.array([3, 2**63 + 1, most, 2, 2**63 + 1, 5, most], np.uint64)
    add("div_uint64", "Div", [a, b], given=[a // b])
    add("mod_uint64", "Mod", [a, b], given=[a % b])
    add("fmod_uint64", "Mod", [a, b], fmod=1, given=[a % b])
    with np.errstate(over="ignore"):
        for op, result in [("Add", a + b), ("Sub", a - b), ("Mul", a * b), ("Max", np.maximum(a, b)), ("Min", np.minimum(a, b)),
                           ("Less", a < b), ("LessOrEqual", a <= b), ("Greater", a > b), ("GreaterOrEqual", a >= b),
                           ("Equal", a == b), ("BitwiseAnd", a & b), ("BitwiseOr", a | b), ("BitwiseXor", a ^ b)]:
            add(f"{op.lower()}_uint64", op, [a, b], given=[result])
            for dtype in [np.uint16, np.uint32]:
                x, y = (a >> np.uint64(48)).astype(dtype), (b & np.uint64(0xffff)).astype(dtype)
                if op in ["Add", "Sub", "Mul", "Max", "Min"]:
                    y = (y * dtype(40000)).astype(dtype)
                    given = {"Add": x + y, "Sub": x - y, "Mul": x * y, "Max": np.maximum(x, y), "Min": np.minimum(x, y)}[op]
                    add(f"{op.lower()}_{np.dtype(dtype).name}", op, [x, y], given=[given])
    add("where_uint64", "Where", [np.array([True, False, True, False, True, True, False]), a, b],
        given=[np.where([1, 0, 1, 0, 1, 1, 0], a, b)])
    add("clip_uint64", "Clip", [a, np.array(9, np.uint64), np.array(2**63 + 1, np.uint64)],
        given=[np.clip(a, np.uint64(9), np.uint64(2**63 + 1))])
    add("clip_crossed", "Clip", [np.array([-3, 0, 9], np.int16), np.array(5, np.int16), np.array(2, np.int16)],
        given=[np.full(3, 2, np.int16)])
    for width in [8, 16, 32, 64]:
        dtype = np.dtype(f"uint{width}")
        x = np.array([2**width - 1, 2**(width - 1) + 1, 3, 1, 2**width - 1, 5], dtype)
        y = np.array([1, width - 1, 0, width, 2**width - 1, 2], dtype)
        steps = [int(s) for s in y]
        left = np.array([int(v) << s & (2**width - 1) if s < width else 0 for v, s in zip(x, steps)], dtype)
        right = np.array([int(v) >> s if s < width else 0 for v, s in zip(x, steps)], dtype)
        add(f"shift_left_{width}", "BitShift", [x, y], direction="LEFT", given=[left])
        add(f"shift_right_{width}", "BitShift", [x, y], direction="RIGHT", given=[right])
        add(f"bitwise_not_{width}", "BitwiseNot", [x], given=[~x])
        add(f"sign_{width}", "Sign", [np.array([0, 1, 2**width - 1], dtype)], given=[np.array([0, 1, 1], dtype)])
        add(f"abs_{width}", "Abs", [x], given=[x])
    add("sign_nan", "Sign", [np.array([np.nan, -np.inf, -0.5, 0, 3], np.float32)], given=[np.array([np.nan, -1, -1, 0, 1], np.float32)])
    add("relu_int8", "Relu", [np.array([-128, 0, 5], np.int8)], given=[np.array([0, 0, 5], np.int8)])
    add("shrink_int8", "Shrink", [np.array([-3, -1, 0, 1, 3], np.int8)], lambd=1.5, bias=1.0, given=[np.array([-2, 0, 0, 0, 2], np.int8)])
    add("pow_int_float", "Pow", [np.array([2, 3, -4], np.int32), np.array([10.5, 2, 3], np.float32)],
        given=[np.array([1448, 9, -64], np.int32)])
    add("pow_float_uint", "Pow", [np.array([2, -3, 0.5], np.float32), np.array([10, 3, 2], np.uint32)],
        given=[np.array([1024, -27, 0.25], np.float32)])
    add("pow_uint16", "Pow", [np.array([2, 3, 300], np.uint16), np.array([15, 2, 2], np.uint16)],
        given=[np.array([32768, 9, 90000 - 65536], np.uint16)])
    add("pow_scalar_int64", "Pow", [make.i64(3, -5), np.array(20, np.int64)], given=[make.i64(3**20, 5**20)])
    add("identity_uint16", "Identity", [np.array([65535, 1], np.uint16)], given=[np.array([65535, 1], np.uint16)])
    add("trilu_far", "Trilu", [np.arange(12, dtype=np.uint16).reshape(3, 4), np.array(least, np.int64)], upper=1,
        given=[np.arange(12, dtype=np.uint16).reshape(3, 4)])
    add("trilu_flags", "Trilu", [np.ones((3, 3), bool), make.i64(-1)], upper=0, given=[np.tril(np.ones((3, 3), bool), -1)])
    add("eye_far", "EyeLike", [np.zeros((2, 3), np.float32)], k=-100, dtype=TensorProto.UINT16, given=[np.zeros((2, 3), np.uint16)])
    add("eye_flags", "EyeLike", [np.zeros((2, 3), np.float32)], k=1, dtype=TensorProto.BOOL, given=[np.eye(2, 3, 1, dtype=bool)])


def logic(add, make):
    special = np.array([np.nan, np.inf, -np.inf, 0, 1e30], np.float32)
    add("is_inf_neither", "IsInf", [special], detect_positive=0, detect_negative=0, given=[np.zeros(5, bool)])
    add("is_nan", "IsNaN", [special], given=[np.isnan(special)])
    for dtype in [bool, np.int8, np.uint16]:
        x, y = np.array([0, 1, 1, 0], dtype), np.array([0, 1, 0, 1], dtype)
        add(f"equal_{np.dtype(dtype).name}", "Equal", [x, y], given=[x == y])
    zero = np.array([0.0, -0.0, 3, -3, 5, 1], np.float32)
    by = np.array([-2, 2, np.inf, np.inf, 0, np.nan], np.float32)
    with np.errstate(invalid="ignore"):
        add("mod_special", "Mod", [zero, by], opset=28, given=[np.mod(zero, by)])
    x = make.real(2, 3, 4)
    rows = (x.reshape(2, 12) == x.reshape(2, 12).max(1, keepdims=True)).astype(np.float32)
    add("hardmax_11", "Hardmax", [x], opset=11, given=[rows.reshape(x.shape)])
    add("hardmax_11_last", "Hardmax", [x], opset=11, axis=-1, given=[(x == x.max(-1, keepdims=True)).astype(np.float32)])
    add("dropout_7", "Dropout", [x], outputs=2, opset=7, ratio=0.3, given=[x, np.ones_like(x)])
    add("dropout_10", "Dropout", [x], outputs=2, opset=10, given=[x, np.ones(x.shape, bool)])
    add("dropout_is_test", "Dropout", [x], opset=6, is_test=1, given=[x])
    add("dropout_nothing", "Dropout", [x, np.array(0, np.float32), np.array(True)], outputs=2, given=[x, np.ones(x.shape, bool)])


def casts(add, make):
    x32 = np.array([1.5, -0.0, np.inf, 2.0**-149], np.float32)
    add("bit_cast_i32", "BitCast", [x32], opset=26, to=TensorProto.INT32, given=[x32.view(np.int32)])
    add("bit_cast_u32", "BitCast", [x32], opset=26, to=TensorProto.UINT32, given=[x32.view(np.uint32)])
    x16 = np.array([1.5, -0.0, np.inf, 6e-8], np.float16)
    add("bit_cast_i16", "BitCast", [x16], opset=26, to=TensorProto.INT16, given=[x16.view(np.int16)])
    add("bit_cast_f16", "BitCast", [x16.view(np.uint16)], opset=26, to=TensorProto.FLOAT16, given=[x16])
    codes = np.arange(256, dtype=np.uint8)
    for name, dtype in FLOAT8.items():
        label = TensorProto.DataType.Name(name).lower()
        x = numbers_around(dtype, 256)
        add(f"cast_{label}", "Cast", [x], opset=24, to=name, given=[numpy_helper.saturate_cast(x, np.dtype(dtype))])
        add(f"cast_{label}_infinite", "Cast", [x], opset=24, to=name, saturate=0, given=[x.astype(dtype)])
        add(f"cast_from_{label}", "Cast", [codes.view(dtype)], opset=24, to=TensorProto.FLOAT, given=[codes.view(dtype).astype(np.float32)])
        add(f"bit_cast_{label}", "BitCast", [codes], opset=26, to=name, given=[codes.view(dtype)])
    nan = np.float32(np.nan)
    infinite = np.array([np.inf, -np.inf, 1e9], np.float32)
    add("cast_fnuz_19", "Cast", [infinite], opset=19, to=TensorProto.FLOAT8E4M3FNUZ, given=[np.array([nan, nan, 240], np.float32)])
    powers = np.concatenate([make.real(40, low=1e-3, high=1e3), 2.0 ** np.arange(-20, 21)]).astype(np.float32)
    for mode in ["up", "down", "nearest"]:
        add(f"cast_e8m0_{mode}", "Cast", [powers], opset=24, to=TensorProto.FLOAT8E8M0, round_mode=mode,
            given=[numpy_helper.to_float8e8m0(powers, True, mode).astype(np.float32)])
    edges = np.array([0, np.nan, np.inf, 1.5 * 2.0**127, 2.0**-127, 3], np.float32)
    add("cast_e8m0_saturates", "Cast", [edges], opset=24, to=TensorProto.FLOAT8E8M0,
        given=[np.array([2.0**-127, np.nan, 2.0**127, 2.0**127, 2.0**-127, 4], np.float32)])
    add("cast_e8m0_infinite", "Cast", [edges], opset=24, to=TensorProto.FLOAT8E8M0, saturate=0, round_mode="nearest",
        given=[np.array([nan, nan, nan, nan, 2.0**-127, 4], np.float32)])
    x = np.array([0, 0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5, 7, 100, -0.3, -2.5, -5.1, -np.inf], np.float32)
    add("cast_float4", "Cast", [x], opset=24, to=TensorProto.FLOAT4E2M1,
        given=[np.array([0, 0, 1, 1, 2, 2, 4, 4, 6, 6, -0.5, -2, -6, -6], np.float32)])
    add("cast_uint2", "Cast", [np.array([0, 1, 2, 3, 6], np.int32)], opset=25, to=TensorProto.UINT2,
        given=[np.array([0, 1, 2, 3, 2], np.uint8)])
    add("cast_int2", "Cast", [np.array([-2, -1, 0, 1, 2], np.int32)], opset=25, to=TensorProto.INT2,
        given=[np.array([-2, -1, 0, 1, -2], np.int8)])
    add("cast_wraps", "Cast", [np.array([200, -1, 300], np.int16)], to=TensorProto.INT8, given=[np.array([-56, -1, 44], np.int8)])
    add("cast_uint64", "Cast", [np.array([2**63, 2**64 - 1], np.uint64)], to=TensorProto.FLOAT, given=[np.array([2.0**63, 2.0**64], np.float32)])
    add("cast_flags", "Cast", [np.array([0.0, -0.0, np.nan, 0.1], np.float32)], to=TensorProto.BOOL, given=[np.array([0, 0, 1, 1], bool)])


def cases(add, make):
    smooth(add, make)
    integers(add, make)
    logic(add, make)
    casts(add, make)
