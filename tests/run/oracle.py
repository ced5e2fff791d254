"""Cases for the operators of the runner: the ONNX project's own node cases, and cases of ours answered by its reference evaluator.

oracle.py FOLDER OPERATOR… writes FOLDER/cases.json and FOLDER/cases.bin.
"""
import json
import sys
import warnings

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.backend.test.case.node import collect_testcases
from onnx.reference import ReferenceEvaluator

warnings.filterwarnings("ignore")


class Writer:
    def __init__(self, folder):
        self.folder, self.cases = folder, []
        self.blob = open(f"{folder}/cases.bin", "wb")

    def tensor(self, value, name, expected_type=None):
        if value is None:
            return None
        if isinstance(value, TensorProto):
            proto = value
        else:
            proto = numpy_helper.from_array(np.asarray(value))
        raw = proto.raw_data if proto.raw_data else numpy_helper.from_array(numpy_helper.to_array(proto)).raw_data
        at = self.blob.tell()
        self.blob.write(raw)
        return {"name": name, "dtype": proto.data_type, "shape": list(proto.dims), "at": at, "bytes": len(raw)}

    def attribute(self, a):
        value = helper.get_attribute_value(a)
        if isinstance(value, bytes):
            return {"text": value.decode()}
        if isinstance(value, float):
            return {"number": value}
        if isinstance(value, int):
            return {"integer": value}
        if isinstance(value, TensorProto):
            return {"tensor": self.tensor(value, a.name)}
        if a.type == onnx.AttributeProto.INTS:
            return {"integers": list(value)}
        if a.type == onnx.AttributeProto.FLOATS:
            return {"numbers": list(value)}
        return None

    def case(self, name, node, opset, inputs, outputs, gradient=False, rtol=1e-3, atol=1e-5):
        attributes = {a.name: self.attribute(a) for a in node.attribute}
        if any(v is None for v in attributes.values()):
            return False
        self.cases.append({
            "name": name, "op": node.op_type, "opset": opset, "attributes": attributes, "node_inputs": list(node.input),
            "node_outputs": list(node.output), "inputs": [self.tensor(v, n) for n, v in inputs],
            "outputs": [self.tensor(v, n) for n, v in outputs], "gradient": gradient, "rtol": rtol, "atol": atol})
        return True

    def close(self):
        self.blob.close()
        with open(f"{self.folder}/cases.json", "w") as f:
            json.dump(self.cases, f)


def plain(value):
    return isinstance(value, (np.ndarray, np.generic, TensorProto)) and not (isinstance(value, np.ndarray) and value.dtype == object)


def conformance(writer, operators):
    """Every node case of one node whose operator the runner has."""
    for case in collect_testcases(None):
        graph = case.model.graph
        if len(graph.node) != 1 or graph.node[0].op_type not in operators or graph.node[0].domain or graph.initializer:
            continue
        opset = max(o.version for o in case.model.opset_import if o.domain in ("", "ai.onnx"))
        inputs, outputs = case.data_sets[0]
        names_in, names_out = [i.name for i in graph.input], [o.name for o in graph.output]
        if not all(plain(v) for v in list(inputs) + list(outputs)):
            continue
        types = [v.type.tensor_type.elem_type for v in list(graph.input) + list(graph.output)]
        if any(t == TensorProto.STRING or t > TensorProto.INT4 for t in types):  # nothing that the graph has a type for
            continue
        writer.case(case.name, graph.node[0], opset, list(zip(names_in, inputs)), list(zip(names_out, outputs)), False,
                    case.rtol, max(case.atol, 1e-5))


def own(writer):
    """Our cases: answered by the reference evaluator; `gradient` cases are small and away from kinks."""
    rng = np.random.default_rng(5)

    def real(*shape, low=-1.0, high=1.0):
        return rng.uniform(low, high, shape).astype(np.float32)

    def spread(*shape):  # no two elements close, none near 0: safe for max, relu, clip
        count = int(np.prod(shape))
        values = (rng.permutation(count) - count // 2 + 0.37) * (4.0 / count)
        return values.reshape(shape).astype(np.float32)

    def add(name, op, inputs, outputs=1, opset=23, gradient=False, given=None, asked=None, **attributes):
        """`asked`: inputs that the reference evaluator gets instead of `inputs`, where they say the same at more length."""
        names = ["" if v is None else f"x{i}" for i, v in enumerate(inputs)]
        wanted = [f"y{i}" for i in range(outputs)]
        node = helper.make_node(op, names, wanted, **attributes)
        feeds = {n: v for n, v in zip(names, inputs) if v is not None}
        if given is None:
            declared = [helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape) for n, v in feeds.items()]
            results = [helper.make_value_info(n, helper.make_tensor_type_proto(TensorProto.FLOAT, None)) for n in wanted]
            model = helper.make_model(helper.make_graph([node], "case", declared, results), opset_imports=[helper.make_opsetid("", opset)])
            given = ReferenceEvaluator(model).run(None, {**feeds, **(asked or {})})
        assert writer.case(f"own_{name}", node, opset, list(feeds.items()), list(zip(wanted, given)), gradient), name

    i64 = lambda *v: np.array(v, dtype=np.int64)
    for op in ["Relu", "Sigmoid", "Tanh", "Neg", "Abs", "Exp", "Erf", "HardSigmoid", "HardSwish", "LeakyRelu", "Elu", "Softplus",
               "Identity", "Sin", "Cos", "Softmax", "LogSoftmax"]:
        add(op.lower(), op, [spread(2, 3, 4)], gradient=True)
    for op in ["Sqrt", "Reciprocal", "Log"]:
        add(op.lower(), op, [real(2, 3, 4, low=0.5, high=2)], gradient=True)
    add("gelu", "Gelu", [spread(2, 5)], gradient=True)
    add("gelu_tanh", "Gelu", [spread(2, 5)], gradient=True, approximate="tanh")
    x = spread(2, 5)
    add("swish", "Swish", [x], opset=24, gradient=True, alpha=1.5, given=[(x / (1 + np.exp(-1.5 * x))).astype(np.float32)])
    add("clip", "Clip", [spread(3, 4), np.float32(-0.9) * np.ones((), np.float32), np.ones((), np.float32)], gradient=True)
    x = spread(3, 4)
    add("clip_6", "Clip", [x], opset=6, min=-0.5, max=0.5, given=[np.clip(x, -0.5, 0.5)])
    add("cast_truncates", "Cast", [np.array([-1.7, 0.2, 2.9], np.float32)], to=TensorProto.INT64)

    for op in ["Add", "Sub", "Mul", "Min", "Max"]:
        add(op.lower(), op, [spread(2, 3, 4), spread(3, 1) + 0.011], gradient=True)
    add("div", "Div", [real(2, 3), real(3, low=0.5, high=2)], gradient=True)
    add("div_towards_zero", "Div", [i64(-7, 7, -7, 7), i64(2, 2, -2, -2)], given=[i64(-3, 3, 3, -3)])
    add("pow", "Pow", [real(2, 3, low=0.5, high=2), np.array(2.0, np.float32)], gradient=True)
    add("pow_tensor", "Pow", [real(2, 3, low=0.5, high=2), real(3)], gradient=True)
    add("where", "Where", [np.array([[True], [False]]), real(2, 3), real(1, 3)], gradient=True)

    add("matmul", "MatMul", [real(2, 3, 4), real(4, 5)], gradient=True)
    add("matmul_batched", "MatMul", [real(2, 1, 3, 4), real(3, 4, 2)], gradient=True)
    add("gemm", "Gemm", [real(4, 3), real(5, 4), real(5)], gradient=True, transA=1, transB=1, alpha=0.5, beta=2.0)
    add("gemm_no_bias", "Gemm", [real(2, 3), real(3, 4)], gradient=True, alpha=2.0)
    add("gather_negative", "Gather", [real(5, 3), np.array([[0, -1], [2, 2]], np.int64)], gradient=True)
    add("gather_axis1", "Gather", [real(2, 4, 3), np.array(-2, np.int64)], gradient=True, axis=1)
    add("gather_elements", "GatherElements", [real(3, 3), np.array([[0, -1, 2], [1, 1, 0]], np.int64)], gradient=True, axis=0)
    add("transpose", "Transpose", [real(2, 3, 4)], gradient=True, perm=[2, 0, 1])
    add("reshape", "Reshape", [real(2, 3, 4), i64(0, -1)], gradient=True)
    add("reshape_allowzero", "Reshape", [real(0, 3), i64(3, 0)], allowzero=1)
    add("flatten", "Flatten", [real(2, 3, 4)], gradient=True, axis=-1)
    add("squeeze", "Squeeze", [real(2, 1, 3, 1), i64(-1)], gradient=True)
    x = real(2, 1, 3)
    add("squeeze_11", "Squeeze", [x], opset=11, axes=[1], given=[x[:, 0]])
    add("unsqueeze", "Unsqueeze", [real(2, 3), i64(-1, 0)], gradient=True)
    add("expand", "Expand", [real(3, 1), i64(2, 1, 4)], gradient=True)
    add("slice", "Slice", [real(4, 5), i64(1, -1), i64(100, -100), i64(0, 1), i64(2, -2)], gradient=True)
    x = real(4, 5)
    add("slice_1", "Slice", [x], opset=9, starts=[1, -3], ends=[3, 1000], axes=[0, 1], given=[x[1:3, -3:]])
    add("concat", "Concat", [real(2, 3), real(2, 1)], gradient=True, axis=-1)
    add("split", "Split", [real(2, 5), i64(2, 3)], outputs=2, gradient=True, axis=1)
    add("split_uneven", "Split", [real(7, 2)], outputs=3, gradient=True, num_outputs=3)
    x = real(2, 3, 4)
    flat = np.exp(x.reshape(2, 12)) / np.exp(x.reshape(2, 12)).sum(1, keepdims=True)
    add("softmax_11", "Softmax", [x], opset=11, gradient=True, given=[flat.reshape(x.shape)])
    add("logsoftmax_11", "LogSoftmax", [x], opset=11, gradient=True, given=[np.log(flat).reshape(x.shape)])

    add("rms_norm", "RMSNormalization", [real(2, 3, 4), real(4)], gradient=True, epsilon=1e-3)
    add("rms_norm_wide", "RMSNormalization", [real(3, 100), real(100)])
    add("rms_norm_two_axes", "RMSNormalization", [real(2, 3, 4), real(3, 4)], gradient=True, axis=1)
    add("layer_norm", "LayerNormalization", [real(2, 3, 4), real(4), real(4)], outputs=3, gradient=True)
    add("layer_norm_axis", "LayerNormalization", [real(2, 3, 4), real(3, 4)], gradient=True, axis=1)
    add("batch_norm", "BatchNormalization", [real(2, 3, 4, 2), real(3), real(3), real(3), real(3, low=0.5, high=2)], gradient=True)

    for name, attributes in {
            "plain": {}, "strides": dict(strides=[2, 1], pads=[1, 1, 1, 1]), "uneven": dict(pads=[0, 1, 2, 0]),
            "dilated": dict(dilations=[2, 1]), "same_upper": dict(auto_pad="SAME_UPPER", strides=[2, 2]),
            "same_lower": dict(auto_pad="SAME_LOWER", strides=[2, 2])}.items():
        add(f"conv_{name}", "Conv", [real(1, 2, 6, 5), real(3, 2, 3, 2), real(3)], gradient=True, **attributes)
    add("conv_grouped", "Conv", [real(1, 4, 4, 4), real(4, 2, 3, 3)], gradient=True, group=2)
    add("conv_depthwise", "Conv", [real(1, 3, 5, 5), real(3, 1, 3, 3), real(3)], gradient=True, group=3, pads=[1, 1, 1, 1])
    add("conv_1d", "Conv", [real(2, 2, 7), real(3, 2, 3)], gradient=True, pads=[1, 0])
    for name, attributes in {
            "plain": {}, "padded": dict(pads=[1, 1, 1, 1], strides=[2, 2]), "ceil": dict(ceil_mode=1, strides=[2, 2]), "same": dict(auto_pad="SAME_UPPER", strides=[2, 2])}.items():
        add(f"max_pool_{name}", "MaxPool", [spread(1, 2, 6, 6)], gradient=True, kernel_shape=[3, 3], **attributes)
        add(f"average_pool_{name}", "AveragePool", [real(1, 2, 6, 6)], gradient=True, kernel_shape=[3, 3], **attributes)
    x = spread(1, 2, 6, 6)
    padded = np.pad(x, ((0, 0), (0, 0), (0, 1), (0, 2)), constant_values=-np.inf)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (2, 3))
    add("max_pool_uneven", "MaxPool", [x], gradient=True, kernel_shape=[3, 3], pads=[0, 0, 1, 2], given=[windows.max((-1, -2))])
    add("average_pool_counting", "AveragePool", [real(1, 2, 6, 6)], gradient=True, kernel_shape=[3, 3], pads=[1, 0, 1, 1], count_include_pad=1)
    add("average_pool_1d", "AveragePool", [real(1, 2, 7)], gradient=True, kernel_shape=[2], strides=[2])
    add("global_average_pool", "GlobalAveragePool", [real(2, 3, 4, 5)], gradient=True)
    for op in ["ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin"]:
        add(f"{op.lower()}", op, [spread(2, 3, 4), i64(1, -1)], gradient=True, keepdims=0)
    x = real(2, 3, 4)
    add("reducemean_11", "ReduceMean", [x], opset=11, axes=[-1], given=[x.mean(-1, keepdims=True)])

    q, k, v = real(2, 3, 8), real(2, 3, 4), real(2, 3, 4)
    heads = dict(q_num_heads=4, kv_num_heads=2)
    add("attention_causal_grouped", "Attention", [q, k, v], gradient=True, is_causal=1, **heads)
    # The reference evaluator takes the number of queries from the mask when it is causal too: it is asked with the mask spread out.
    def spread_out(mask, queries=3):
        return {"x3": np.broadcast_to(mask, (*mask.shape[:2], queries, mask.shape[3]))}

    open_mask, holes = np.ones((2, 1, 1, 3), bool), np.array([[[[True, True, True]]], [[[True, False, True]]]])
    add("attention_open_mask", "Attention", [q, k, v, open_mask], gradient=True, is_causal=1, asked=spread_out(open_mask), **heads)
    add("attention_holes", "Attention", [q, k, v, holes], gradient=True, is_causal=1, asked=spread_out(holes), **heads)
    shut = np.array([[[[False, True, True]]], [[[True, True, True]]]])
    add("attention_shut_row", "Attention", [q, k, v, shut], is_causal=1, asked=spread_out(shut), **heads)
    add("attention_bias", "Attention", [q, k, v, real(3, 3)], gradient=True, scale=0.3, **heads)
    add("attention_softcap", "Attention", [q, k, v, holes], gradient=True, is_causal=1, softcap=2.0, asked=spread_out(holes), **heads)
    past = [real(2, 2, 5, 2), real(2, 2, 5, 2)]
    add("attention_past", "Attention", [q, k, v, None, *past], outputs=3, is_causal=1, gradient=True, **heads)
    late = np.array([[[[False] * 2 + [True] * 6]]] * 2)
    add("attention_past_mask", "Attention", [q, k, v, late, *past], outputs=3, is_causal=1, asked=spread_out(late), **heads)
    add("attention_one_query", "Attention", [q[:, :1], k[:, :1], v[:, :1], None, *past], outputs=3, is_causal=1, **heads)
    add("attention_one_query_mask", "Attention", [q[:, :1], k[:, :1], v[:, :1], np.array([[[[False] * 2 + [True] * 4]]] * 2), *past],
        outputs=3, is_causal=1, **heads)
    empty = [np.zeros((2, 2, 0, 2), np.float32)] * 2
    add("attention_empty_past", "Attention", [q, k, v, None, *empty], outputs=3, is_causal=1, **heads)
    add("attention_4d", "Attention", [real(1, 2, 3, 4), real(1, 2, 5, 4), real(1, 2, 5, 6)], gradient=True)
    add("attention_scores", "Attention", [real(1, 2, 3, 4), real(1, 2, 5, 4), real(1, 2, 5, 4), real(3, 5), None, None], outputs=4,
        qk_matmul_output_mode=2, given=None)

    cos, sin, positions = real(6, 2), real(6, 2), np.array([[0, 5, 2]], np.int64)
    for interleaved in (0, 1):
        add(f"rotary_3d_{interleaved}", "RotaryEmbedding", [real(1, 3, 8), cos, sin, positions], gradient=True, num_heads=2, interleaved=interleaved)
        add(f"rotary_4d_{interleaved}", "RotaryEmbedding", [real(1, 2, 3, 4), cos, sin, positions], gradient=True, interleaved=interleaved)
        add(f"rotary_partial_{interleaved}", "RotaryEmbedding", [real(1, 2, 3, 6), cos, sin, positions], gradient=True,
            rotary_embedding_dim=4, interleaved=interleaved)
    add("rotary_rows", "RotaryEmbedding", [real(1, 3, 8), real(1, 3, 2), real(1, 3, 2)], gradient=True, num_heads=2)

    add("dequantize_channel", "DequantizeLinear", [np.array([[1, -2, 3], [4, 5, -128]], np.int8), real(3), np.array([0, 1, -1], np.int8)],
        gradient=True, axis=1)
    add("dequantize_blocked", "DequantizeLinear", [rng.integers(-128, 127, (5, 3)).astype(np.int8), real(3, 3)], gradient=True, axis=0,
        block_size=2)
    add("quantize_channel", "QuantizeLinear", [real(2, 3) * 90, np.array([0.5, 0.7, 0.3], np.float32), np.array([1, -5, 7], np.int8)], axis=1)
    add("quantize_blocked", "QuantizeLinear", [real(4, 3), np.full((2, 3), 0.01, np.float32)], axis=0, block_size=2, output_dtype=TensorProto.INT8)


if __name__ == "__main__":
    out = Writer(sys.argv[1])
    own(out)
    conformance(out, set(sys.argv[2:]))
    out.close()
