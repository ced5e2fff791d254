"""Writes the node cases of the ONNX project, as the pinned wheel has them: FOLDER/cases.json, cases.bin,
models/NAME.onnx and pinned.txt (version, number, and digest of all but the numbers in them).

node_cases.py FOLDER [NAME…]

A value is {"dtype", "shape", "at", "bytes"} into cases.bin, {"strings": […], "shape"}, {"sequence": [value…]} or null (an empty optional).
"""
import hashlib
import json
import pathlib
import sys
import warnings

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.backend.test.case.node import collect_testcases

warnings.filterwarnings("ignore")


def structure(graph):
    """What a model is made of, without its numbers: NumPy computes those a little differently on different processors."""
    return [[n.domain, n.op_type, list(n.input), list(n.output), sorted(a.name for a in n.attribute)] for n in graph.node]


def main():
    folder, names = pathlib.Path(sys.argv[1]), set(sys.argv[2:])
    (folder / "models").mkdir(parents=True, exist_ok=True)
    cases, structures = [], []
    with open(folder / "cases.bin", "wb") as blob:

        def value(data, declared):
            if data is None:
                return None
            if isinstance(data, (list, tuple)):
                return {"sequence": [value(each, None) for each in data]}
            if not isinstance(data, TensorProto):
                array = np.asarray(data)
                if array.dtype == object or array.dtype.kind in "US":
                    words = [w.decode() if isinstance(w, bytes) else str(w) for w in array.flatten().tolist()]
                    return {"strings": words, "shape": list(array.shape)}
                data = numpy_helper.from_array(array)
            if data.data_type == TensorProto.STRING:
                return {"strings": [w.decode() for w in data.string_data], "shape": list(data.dims)}
            raw = data.raw_data or numpy_helper.from_array(numpy_helper.to_array(data)).raw_data
            at = blob.tell()
            blob.write(raw)
            return {"dtype": data.data_type, "shape": list(data.dims), "at": at, "bytes": len(raw)}

        for case in sorted(collect_testcases(None), key=lambda c: c.name):
            if names and case.name not in names:
                continue
            graph = case.model.graph
            (folder / "models" / f"{case.name}.onnx").write_bytes(case.model.SerializeToString(deterministic=True))
            structures.append(structure(graph))
            inputs, outputs = case.data_sets[0]
            cases.append({
                "name": case.name, "rtol": case.rtol, "atol": case.atol,
                "operators": sorted({(f"{n.domain}::" if n.domain else "") + n.op_type for n in graph.node}),
                "inputs": [{"name": i.name, "value": value(v, i)} for i, v in zip(graph.input, inputs)],
                "outputs": [{"name": o.name, "value": value(v, o)} for o, v in zip(graph.output, outputs)]})
    (folder / "cases.json").write_text(json.dumps(cases))
    digest = hashlib.sha256(json.dumps(cases).encode() + json.dumps(structures).encode())
    (folder / "pinned.txt").write_text(f"onnx {onnx.__version__}, {len(cases)} cases, sha256 {digest.hexdigest()}\n")


if __name__ == "__main__":
    main()
