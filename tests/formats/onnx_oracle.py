"""The onnx package as an oracle.

  onnx_oracle.py fields DIR   DIR/fields.onnx with a tensor in every field and type, DIR/NAME.bin with its bytes
  onnx_oracle.py hostile DIR  DIR/CASE/model.onnx: files that lie about their external data or their structure
  onnx_oracle.py check FILE   onnx.checker, then every initializer: name, type, shape, sum
"""
import pathlib
import sys

import ml_dtypes
import numpy as np
import onnx
from onnx import TensorProto as T, helper, numpy_helper

INT32_FIELD = {T.INT32: "<i4", T.INT16: "<i2", T.INT8: "i1", T.UINT16: "<u2", T.UINT8: "u1", T.BOOL: "?"}


def typed(name, data_type, dims, field, values, raw, out):
    """One tensor twice: in its typed field and as raw data."""
    a = T(name=name + ".typed", data_type=data_type, dims=dims)
    getattr(a, field).extend(values)
    b = T(name=name + ".raw", data_type=data_type, dims=dims, raw_data=raw)
    for tensor in (a, b):
        (out / (tensor.name + ".bin")).write_bytes(raw)
    return [a, b]


def fields(out):
    tensors = []
    for data_type, code in INT32_FIELD.items():
        values = np.array([1, 0, 1, 1, 0, 1] if data_type == T.BOOL else [1, 0, 100, 7, 5, 3], dtype=code)
        if code in ("<i4", "<i2", "i1"):
            values[1] = -2
        tensors += typed(T.DataType.Name(data_type).lower(), data_type, [2, 3], "int32_data", [int(v) for v in values], values.tobytes(), out)
    for data_type, kind in [(T.FLOAT16, np.float16), (T.BFLOAT16, ml_dtypes.bfloat16), (T.FLOAT8E4M3FN, ml_dtypes.float8_e4m3fn),
                            (T.FLOAT8E5M2, ml_dtypes.float8_e5m2), (T.FLOAT8E4M3FNUZ, ml_dtypes.float8_e4m3fnuz),
                            (T.FLOAT8E5M2FNUZ, ml_dtypes.float8_e5m2fnuz)]:
        raw = np.array([1.5, -0.25, 0, 8], dtype=kind).tobytes()
        bits = np.frombuffer(raw, dtype="<u2" if len(raw) == 8 else "u1")
        tensors += typed(T.DataType.Name(data_type).lower(), data_type, [4], "int32_data", [int(v) for v in bits], raw, out)
    for data_type in (T.INT4, T.UINT4):  # pairs, the first in the low nibble
        tensors += typed(T.DataType.Name(data_type).lower(), data_type, [3], "int32_data", [0x21, 0x03], bytes([0x21, 0x03]), out)
    numbers = [1.5, -2.25, 3e8, -0.0]
    tensors += typed("float", T.FLOAT, [4], "float_data", numbers, np.array(numbers, "<f4").tobytes(), out)
    tensors += typed("double", T.DOUBLE, [2, 2], "double_data", numbers, np.array(numbers, "<f8").tobytes(), out)
    tensors += typed("complex64", T.COMPLEX64, [2], "float_data", numbers, np.array(numbers, "<f4").tobytes(), out)
    tensors += typed("complex128", T.COMPLEX128, [2], "double_data", numbers, np.array(numbers, "<f8").tobytes(), out)
    whole = [1, -2, 1 << 40, 0]
    tensors += typed("int64", T.INT64, [4], "int64_data", whole, np.array(whole, "<i8").tobytes(), out)
    natural = [1, 2, 1 << 31, 0]
    tensors += typed("uint32", T.UINT32, [4], "uint64_data", natural, np.array(natural, "<u4").tobytes(), out)
    tensors += typed("uint64", T.UINT64, [4], "uint64_data", natural, np.array(natural, "<u8").tobytes(), out)
    tensors += typed("empty", T.FLOAT, [0, 3], "float_data", [], b"", out)
    tensors.append(T(name="text.typed", data_type=T.STRING, dims=[3], string_data=[b"a", b"", "ü".encode()]))
    shape = ["n", None, 3]
    inputs = [helper.make_tensor_value_info("x", T.FLOAT, shape), helper.make_tensor_value_info("float.raw", T.FLOAT, [4])]
    nodes = [helper.make_node("Constant", [], ["constant"], value_float=2.5),
             helper.make_node("Constant", [], ["constants"], value=numpy_helper.from_array(np.array([4, 5, 6]), "ignored")),
             helper.make_node("Mul", ["x", "constant"], ["y"])]
    graph = helper.make_graph(nodes, "fields", inputs, [helper.make_tensor_value_info("y", T.FLOAT, shape)], tensors)
    model = helper.make_model(graph, ir_version=3, opset_imports=[helper.make_opsetid("", 13)])
    (out / "fields.onnx").write_bytes(model.SerializeToString())


def small(tensor):
    graph = helper.make_graph([helper.make_node("Add", ["x", "W"], ["y"])], "g",
                              [helper.make_tensor_value_info("x", T.FLOAT, [12])],
                              [helper.make_tensor_value_info("y", T.FLOAT, [12])], [tensor])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)])


def external(dims=(12,), **entries):
    tensor = T(name="W", data_type=T.FLOAT, dims=dims, data_location=T.EXTERNAL)
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def hostile(out):
    top = 2**64 - 1
    cases = {
        "absolute": external(location=str(out / "secret"), length=48),
        "parent": external(location="../secret", length=48),
        "climbs": external(location="sub/../../secret", length=48),
        "link": external(location="link", length=48),
        "link-folder": external(location="folder-link/secret", length=48),
        "empty": external(location="", length=48),
        "none": external(length=48),
        "nul": external(location="w\0", length=48),
        "missing": external(location="absent", length=48),
        "folder": external(location="sub", length=48),
        "short": external(location="w", offset=16, length=48),
        "far": external(location="w", offset=2**40, length=48),
        "overflow": external(location="w", offset=top - 8, length=48),
        "overflow-length": external(location="w", offset=8, length=top),
        "too-long": external(location="w", length=52),
        "too-short": external(location="w", length=44),
        "negative": external(location="w", offset=-1, length=48),
        "word": external(location="w", offset="0x10", length=48),
        "beyond-64": external(location="w", offset=10**30, length=48),
        "shape-overflow": external(dims=(2**62, 4), location="w", length=48),
        "negative-shape": external(dims=(-12,), location="w", length=48),
        "unknown-type": T(name="W", data_type=99, dims=[12], raw_data=bytes(48)),
        "no-type": T(name="W", dims=[12], raw_data=bytes(48)),
        "raw-too-short": T(name="W", data_type=T.FLOAT, dims=[12], raw_data=bytes(47)),
        "typed-too-short": T(name="W", data_type=T.FLOAT, dims=[12], float_data=[1] * 11),
        "strings": T(name="W", data_type=T.STRING, dims=[12], string_data=[b"a"]),
    }
    models = {name: small(tensor) for name, tensor in cases.items()}
    good = T(name="W", data_type=T.FLOAT, dims=[12], raw_data=bytes(48))
    models["twice"] = small(good)
    models["twice"].graph.initializer.append(good)
    models["cycle"] = small(good)
    models["cycle"].graph.node.extend([helper.make_node("Relu", ["W2"], ["W3"]), helper.make_node("Relu", ["W3"], ["W2"])])
    models["undefined"] = small(good)
    models["undefined"].graph.node.append(helper.make_node("Relu", ["W9"], ["W3"]))
    models["redefined"] = small(good)
    models["redefined"].graph.node.append(helper.make_node("Relu", ["x"], ["W"]))
    models["opset"] = small(good)
    models["opset"].opset_import[0].version = -1
    models["no-graph"] = onnx.ModelProto(ir_version=10)
    deep = small(good)
    graph = deep.graph
    for _ in range(200):
        graph.node.append(helper.make_node("If", ["W"], []))
        graph.node[-1].attribute.append(onnx.AttributeProto(name="then_branch", type=onnx.AttributeProto.GRAPH))
        graph = graph.node[-1].attribute[0].g
    models["deep"] = deep
    (out / "secret").write_bytes(bytes(48))
    for name, model in models.items():
        folder = out / name
        (folder / "sub").mkdir(parents=True)
        (folder / "w").write_bytes(bytes(48))
        (folder / "link").symlink_to(out / "secret")
        (folder / "folder-link").symlink_to(out)
        (folder / "model.onnx").write_bytes(model.SerializeToString())


def check(path):
    onnx.checker.check_model(path, full_check=True)
    model = onnx.load(path)
    for tensor in model.graph.initializer:
        array = numpy_helper.to_array(tensor)
        print(tensor.name, array.dtype, list(array.shape), float(array.astype("f8").sum()))


if __name__ == "__main__":
    if sys.argv[1] == "fields":
        fields(pathlib.Path(sys.argv[2]))
    elif sys.argv[1] == "hostile":
        hostile(pathlib.Path(sys.argv[2]))
    else:
        check(sys.argv[2])
