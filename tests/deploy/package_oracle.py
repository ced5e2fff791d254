"""Checks a package's model.onnx with ONNX's own checker, runs it in ONNX Runtime token by token with its cache, and compares with
logits.bin (f32, [tokens, vocabulary]). Arguments: the folder, then the tokens."""
import sys

import numpy
import onnx
import onnxruntime

folder, tokens = sys.argv[1], [int(t) for t in sys.argv[2:]]
onnx.checker.check_model(folder + "/model.onnx", full_check=True)
session = onnxruntime.InferenceSession(folder + "/model.onnx", providers=["CPUExecutionProvider"])
expected = numpy.fromfile(folder + "/logits.bin", dtype=numpy.float32).reshape(len(tokens), -1)
past = {i.name: numpy.zeros([1, i.shape[1], 0, i.shape[3]], numpy.float32) for i in session.get_inputs() if i.name.startswith("past_key_values.")}
outputs = [o.name for o in session.get_outputs()]
worst, position = 0.0, 0
for count in [9] + [1] * (len(tokens) - 9):
    feed = {
        "input_ids": numpy.array([tokens[position : position + count]], numpy.int64),
        "attention_mask": numpy.ones([1, position + count], numpy.int64),
        "position_ids": numpy.arange(position, position + count, dtype=numpy.int64)[None],
    }
    result = dict(zip(outputs, session.run(outputs, {**feed, **past})))
    worst = max(worst, float(numpy.abs(result["logits"][0] - expected[position : position + count]).max()))
    past = {name: result[name.replace("past_key_values.", "present.")] for name in past}
    position += count
print("largest difference of logits:", worst)
sys.exit(0 if worst < 1e-4 else 1)
