"""Cases for the operators of the runner: the ONNX project's own node cases, and cases of ours answered by its reference evaluator.

oracle.py FOLDER OPERATOR… writes FOLDER/cases.json and FOLDER/cases.bin.
"""
import importlib.util
import json
import pathlib
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


class Maker:
    """Inputs of cases, the same at every run."""

    def __init__(self):
        self.rng = np.random.default_rng(5)

    def real(self, *shape, low=-1.0, high=1.0):
        return self.rng.uniform(low, high, shape).astype(np.float32)

    def spread(self, *shape):
        """No two elements close, none near 0: safe for max, relu, clip."""
        count = int(np.prod(shape))
        values = (self.rng.permutation(count) - count // 2 + 0.37) * (4.0 / count)
        return values.reshape(shape).astype(np.float32)

    @staticmethod
    def i64(*values):
        return np.array(values, dtype=np.int64)


def own(writer):
    """Our cases, one file of oracle_cases/ a family: answered by the reference evaluator; `gradient` cases are small and away from kinks."""
    make = Maker()

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

    for file in sorted((pathlib.Path(__file__).parent / "oracle_cases").glob("*.py")):
        spec = importlib.util.spec_from_file_location(file.stem, file)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        module.cases(add, make)


if __name__ == "__main__":
    out = Writer(sys.argv[1])
    own(out)
    conformance(out, set(sys.argv[2:]))
    out.close()
