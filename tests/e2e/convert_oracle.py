"""What `espalier model convert` writes, against the runtimes that read it.

convert_oracle.py make DIR: DIR/model.onnx, DIR/large.onnx, DIR/hostile.onnx (names that climb), their input x.npy.
convert_oracle.py huge DIR: DIR/huge.onnx, which takes its time.
convert_oracle.py same DIR A.onnx B.onnx TOLERANCE: both give the same in ONNX Runtime, on DIR/x.npy.
convert_oracle.py script DIR A.onnx B.pt: torch.jit.load answers from B what ONNX Runtime does from A, on DIR/x.npy.
convert_oracle.py pruned DIR A.onnx B.onnx N: B answers as A does without the N units of the smallest norm.
convert_oracle.py tokens DIR FOLDER: FOLDER through AutoTokenizer and AutoModelForCausalLM: DIR/input_ids.npy, attention_mask.npy,
position_ids.npy and what the model answers, expected.npy.
convert_oracle.py answer DIR OUT: OUT/logits.npy against expected.npy.
"""
import pathlib
import sys
import warnings

import numpy as np


def save(file, up, down, up_name="up"):
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    nodes = [helper.make_node("MatMul", ["x", up_name], ["h"], "up"), helper.make_node("Relu", ["h"], ["r"], "act"),
             helper.make_node("MatMul", ["r", "down"], ["y"], "down")]
    graph = helper.make_graph(nodes, "small", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3])],
                              [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2])],
                              [numpy_helper.from_array(up, up_name), numpy_helper.from_array(down, "down")])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), file)


def make(folder):
    rng = np.random.default_rng(5)
    for name, width, up_name in (("model", 8, "up"), ("large", 1_000_000, "up"), ("hostile", 1_000_000, "../../../../tmp/up")):
        save(folder / f"{name}.onnx", rng.normal(size=(3, width)).astype(np.float32), rng.normal(size=(width, 2)).astype(np.float32), up_name)
    np.save(folder / "x.npy", rng.normal(size=(5, 3)).astype(np.float32))


def huge(folder):
    save(folder / "huge.onnx", np.ones((3, 8_000_000), np.float32), np.ones((8_000_000, 2), np.float32))


def pruned(folder, a, b, count):
    import onnx
    import onnxruntime
    from onnx import numpy_helper

    weights = {t.name: numpy_helper.to_array(t) for t in onnx.load(folder / a).graph.initializer}
    up, down = weights["up"], weights["down"]
    norms = np.square(up.astype(np.float64)).sum(0) + np.square(down.astype(np.float64)).sum(1)
    kept = np.sort(np.argsort(norms, kind="stable")[int(str(count)):])
    x = np.load(folder / "x.npy")
    expected = np.maximum(x @ up[:, kept], 0) @ down[kept]
    onnx.checker.check_model(str(folder / b), full_check=True)
    given, = onnxruntime.InferenceSession(str(folder / b)).run(None, {"x": x})
    np.testing.assert_allclose(given, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def same(folder, a, b, tolerance):
    import onnx
    import onnxruntime

    onnx.checker.check_model(b)
    x = np.load(folder / "x.npy")
    first, second = (onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"]).run(None, {"x": x})[0] for file in (a, b))
    assert np.abs(first - second).max() <= float(str(tolerance)) * np.abs(first).max(), np.abs(first - second).max()


def script(folder, a, b):
    import onnxruntime
    import torch

    x = np.load(folder / "x.npy")
    expected, = onnxruntime.InferenceSession(str(a), providers=["CPUExecutionProvider"]).run(None, {"x": x})
    module = torch.jit.load(str(b))
    assert sorted(tuple(p.shape) for p in module.parameters()) == [(2, 8), (8, 3)], [p.shape for p in module.parameters()]
    np.testing.assert_allclose(module(torch.from_numpy(x)).detach().numpy(), expected, rtol=1e-5, atol=1e-6)


def tokens(folder, model):
    import torch
    import transformers

    warnings.filterwarnings("ignore")
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    assert tokenizer.bos_token and tokenizer.eos_token, tokenizer
    ids = tokenizer("the end of the", return_tensors="pt").input_ids
    assert tokenizer.decode(ids[0], skip_special_tokens=True).strip() == "the end of the", tokenizer.decode(ids[0])
    network, info = transformers.AutoModelForCausalLM.from_pretrained(model, output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")), info
    assert network.generation_config.eos_token_id == tokenizer.eos_token_id
    mask, positions = torch.ones_like(ids), torch.arange(ids.shape[1])[None]
    with torch.no_grad():
        logits = network.float()(input_ids=ids, attention_mask=mask, position_ids=positions).logits
    for name, value in {"input_ids": ids, "attention_mask": mask, "position_ids": positions, "expected": logits}.items():
        np.save(folder / f"{name}.npy", value.numpy())


def answer(folder, out):
    expected, got = np.load(folder / "expected.npy"), np.load(out / "logits.npy")
    assert got.shape == expected.shape and np.abs(got - expected).max() <= 2e-5 * np.abs(expected).max(), np.abs(got - expected).max()


if __name__ == "__main__":
    {"make": make, "huge": huge, "same": same, "script": script, "pruned": pruned, "tokens": tokens, "answer": answer}[sys.argv[1]](*map(pathlib.Path, sys.argv[2:]))
