"""Compares quantized models with what our runner computed: FOLDER/NAME/model.onnx, inputs.json, expected.bin (f32), tolerance.txt.

Each model passes onnx.checker and runs in ONNX Runtime and OpenVINO with float32 arithmetic. Exits 1 when anything disagrees.
"""
import json
import pathlib
import sys

import numpy as np
import onnx
import onnxruntime
import openvino


def onnx_runtime(path, inputs):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    # Blocked weights become MatMulNBits, which rounds activations to 8 bits unless told that float32 is wanted.
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"]).run(None, inputs)[0]


def open_vino(path, inputs):
    hints = {"INFERENCE_PRECISION_HINT": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0"}
    return openvino.Core().compile_model(path, "CPU", hints)(inputs)[0]


failures = 0
cases = sorted(p.parent for p in pathlib.Path(sys.argv[1]).glob("*/model.onnx"))
for case in cases:
    path = str(case / "model.onnx")
    onnx.checker.check_model(path, full_check=True)
    described = json.loads((case / "inputs.json").read_text())
    inputs = {n: np.array(i["values"], i["type"]).reshape(i["shape"]) for n, i in described.items()}
    tolerance = float((case / "tolerance.txt").read_text())
    for run in (onnx_runtime, open_vino):
        try:
            got = run(path, inputs)
        except Exception as error:  # each case is judged on its own
            print(f"{case.name}: {run.__name__}: {error}")
            failures += 1
            continue
        want = np.fromfile(case / "expected.bin", np.float32).reshape(got.shape)
        worst = np.abs(got - want).max() / np.abs(want).max()
        print(f"{case.name}: {run.__name__}: {worst:.1e}")
        failures += not worst <= tolerance
sys.exit(1 if failures or not cases else 0)
