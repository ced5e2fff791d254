"""Runs every case of a folder through onnx.checker, ONNX Runtime and OpenVINO and compares the outputs with the expected ones.

A case is FOLDER/NAME/model.onnx with inputs/*.npy and expected/*.npy. Exits 1 when anything disagrees or nothing was checked.
"""
import pathlib
import sys

import numpy as np
import onnx
import onnxruntime
import openvino

TOLERANCE = 1e-3  # relative to the largest expected element


def load(folder):
    return {path.name.removesuffix(".npy"): np.load(path) for path in sorted(folder.glob("*.npy"))}


def onnx_runtime(path, inputs):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    wanted = {i.name for i in session.get_inputs()}
    names = [o.name for o in session.get_outputs()]
    return dict(zip(names, session.run(names, {k: v for k, v in inputs.items() if k in wanted})))


def open_vino(path, inputs):
    core = openvino.Core()
    model = core.read_model(str(path))
    wanted = {name for port in model.inputs for name in port.names}
    compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    results = compiled({k: v for k, v in inputs.items() if k in wanted})
    return {name: results[port] for port in compiled.outputs for name in port.names}


def main():
    cases = sorted(p.parent for p in pathlib.Path(sys.argv[1]).glob("*/model.onnx"))
    failures = 0
    for case in cases:
        inputs, expected = load(case / "inputs"), load(case / "expected")
        if not expected:
            print(f"{case.name}: nothing is expected")
            failures += 1
        onnx.checker.check_model(str(case / "model.onnx"), full_check=True)
        for run in (onnx_runtime, open_vino):
            try:
                outputs = run(case / "model.onnx", inputs)
            except Exception as error:  # each case is judged on its own
                print(f"{case.name}: {run.__name__}: {error}")
                failures += 1
                continue
            for name, want in expected.items():
                got = outputs[name]
                worst = np.abs(got - want).max() / max(np.abs(want).max(), 1e-12) if got.shape == want.shape and want.size else 0.0
                if got.shape != want.shape or not worst <= TOLERANCE:
                    print(f"{case.name}: {run.__name__}: {name} {got.shape} differs from {want.shape} by {worst}")
                    failures += 1
    print(f"checked {len(cases)} cases with onnx {onnx.__version__}, ONNX Runtime {onnxruntime.__version__}, OpenVINO {openvino.__version__}")
    return 1 if failures or not cases else 0


if __name__ == "__main__":
    sys.exit(main())
