"""What `espalier model` looks at and runs, and what other runtimes say of it.

model_oracle.py make DIR: DIR/model.onnx, its inputs as .npy, refused.onnx.
model_oracle.py mixture DIR: DIR/mixture, a Mixtral of two blocks with four experts each.
model_oracle.py check DIR OUT: OUT's arrays against ONNX Runtime.
"""
import pathlib
import sys

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper


def make(folder):
    rng = np.random.default_rng(2)
    up, down = rng.normal(size=(3, 8)).astype(np.float32), rng.normal(size=(8, 2)).astype(np.float32)
    nodes = [helper.make_node("MatMul", ["x", "up"], ["h"], "up"), helper.make_node("Relu", ["h"], ["r"], "act"),
             helper.make_node("MatMul", ["r", "down"], ["y/out:0"], "down"), helper.make_node("Shape", ["x"], ["lengths"], "shape"),
             helper.make_node("Cast", ["y/out:0"], ["half"], "half", to=TensorProto.FLOAT16)]
    graph = helper.make_graph(
        nodes, "small", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3])],
        [helper.make_tensor_value_info("y/out:0", TensorProto.FLOAT, ["n", 2]), helper.make_tensor_value_info("lengths", TensorProto.INT64, [2]),
         helper.make_tensor_value_info("half", TensorProto.FLOAT16, ["n", 2])],
        [numpy_helper.from_array(up, "up"), numpy_helper.from_array(down, "down")])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), folder / "model.onnx")
    np.save(folder / "x.npy", rng.normal(size=(5, 3)).astype(np.float32))
    strange = helper.make_graph([helper.make_node("ImageDecoder", ["x"], ["y"], "look")], "strange",
                                [helper.make_tensor_value_info("x", TensorProto.UINT8, ["n"])],
                                [helper.make_tensor_value_info("y", TensorProto.UINT8, ["h", "w", 3])])
    onnx.save(helper.make_model(strange, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), folder / "refused.onnx")
    np.save(folder / "bytes.npy", np.zeros(4, np.uint8))


def mixture(folder):
    import transformers

    transformers.utils.logging.disable_progress_bar()
    config = transformers.MixtralConfig(vocab_size=61, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
                                        num_key_value_heads=2, num_local_experts=4, num_experts_per_tok=2, max_position_embeddings=32)
    transformers.MixtralForCausalLM(config).save_pretrained(folder / "mixture")


def check(folder, out):
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    names = {"y/out:0": "y%2Fout%3A0.npy", "lengths": "lengths.npy", "half": "half.npy"}
    for name, expected in zip(names, session.run(list(names), {"x": np.load(folder / "x.npy")})):
        got = np.load(out / names[name])
        assert got.dtype == expected.dtype and got.shape == expected.shape, (name, got.dtype, got.shape)
        np.testing.assert_allclose(got.astype(np.float64), expected.astype(np.float64), 1e-3, 1e-5)
    assert len(list(out.iterdir())) == len(names)


if __name__ == "__main__":
    {"make": make, "mixture": mixture, "check": check}[sys.argv[1]](*map(pathlib.Path, sys.argv[2:]))
