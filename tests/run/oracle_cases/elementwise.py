import numpy as np
from onnx import TensorProto


def cases(add, make):
    for op in ["Relu", "Sigmoid", "Tanh", "Neg", "Abs", "Exp", "Erf", "HardSigmoid", "HardSwish", "LeakyRelu", "Elu", "Softplus",
               "Identity", "Sin", "Cos", "Softmax", "LogSoftmax"]:
        add(op.lower(), op, [make.spread(2, 3, 4)], gradient=True)
    for op in ["Sqrt", "Reciprocal", "Log"]:
        add(op.lower(), op, [make.real(2, 3, 4, low=0.5, high=2)], gradient=True)
    add("gelu", "Gelu", [make.spread(2, 5)], gradient=True)
    add("gelu_tanh", "Gelu", [make.spread(2, 5)], gradient=True, approximate="tanh")
    x = make.spread(2, 5)
    add("swish", "Swish", [x], opset=24, gradient=True, alpha=1.5, given=[(x / (1 + np.exp(-1.5 * x))).astype(np.float32)])
    add("clip", "Clip", [make.spread(3, 4), np.float32(-0.9) * np.ones((), np.float32), np.ones((), np.float32)], gradient=True)
    x = make.spread(3, 4)
    add("clip_6", "Clip", [x], opset=6, min=-0.5, max=0.5, given=[np.clip(x, -0.5, 0.5)])
    add("cast_truncates", "Cast", [np.array([-1.7, 0.2, 2.9], np.float32)], to=TensorProto.INT64)

    for op in ["Add", "Sub", "Mul", "Min", "Max"]:
        add(op.lower(), op, [make.spread(2, 3, 4), make.spread(3, 1) + 0.011], gradient=True)
    add("div", "Div", [make.real(2, 3), make.real(3, low=0.5, high=2)], gradient=True)
    add("div_towards_zero", "Div", [make.i64(-7, 7, -7, 7), make.i64(2, 2, -2, -2)], given=[make.i64(-3, 3, 3, -3)])
    add("pow", "Pow", [make.real(2, 3, low=0.5, high=2), np.array(2.0, np.float32)], gradient=True)
    add("pow_tensor", "Pow", [make.real(2, 3, low=0.5, high=2), make.real(3)], gradient=True)
    add("where", "Where", [np.array([[True], [False]]), make.real(2, 3), make.real(1, 3)], gradient=True)
