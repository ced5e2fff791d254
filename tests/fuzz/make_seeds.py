"""Writes seeds/: small files of every kind that the fuzz targets read. Names that begin with "good" must be accepted as they are.

python tests/fuzz/make_seeds.py    (the tests' Python)
"""
import io
import json
import pathlib
import tempfile

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

seeds = pathlib.Path(__file__).resolve().parent / "seeds"
random = np.random.default_rng(1)


def put(target, name, data):
    (seeds / target).mkdir(parents=True, exist_ok=True)
    (seeds / target / name).write_bytes(data)


def weight(name, *shape):
    return numpy_helper.from_array(random.standard_normal(shape).astype(np.float32), name)


def numbers(name, values):
    return numpy_helper.from_array(np.array(values, dtype=np.int64), name)


def model(nodes, initializers, inputs, outputs, opset):
    value = lambda name, shape: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
    graph = helper.make_graph(nodes, "seed", [value(n, s) for n, s in inputs], [value(n, s) for n, s in outputs], initializers)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.checker.check_model(proto)
    return proto.SerializeToString()


def layers(opset):
    """Two residual blocks with a norm spelled out and a gated feed-forward layer, and a head."""
    nodes, constants, x = [], [numpy_helper.from_array(np.float32(2), "two"), numpy_helper.from_array(np.float32(1e-5), "eps")], "x"
    if opset >= 18:
        constants.append(numbers("last", [-1]))
    for i in range(2):
        p = f"layer{i}."
        nodes += [
            helper.make_node("Pow", [x, "two"], [p + "square"]),
            helper.make_node("ReduceMean", [p + "square", "last"], [p + "mean"]) if opset >= 18 else
            helper.make_node("ReduceMean", [p + "square"], [p + "mean"], axes=[-1]),
            helper.make_node("Add", [p + "mean", "eps"], [p + "shifted"]), helper.make_node("Sqrt", [p + "shifted"], [p + "root"]),
            helper.make_node("Div", [x, p + "root"], [p + "normal"]), helper.make_node("Mul", [p + "normal", p + "gain"], [p + "scaled"]),
            helper.make_node("MatMul", [p + "scaled", p + "gate"], [p + "g"]), helper.make_node("Sigmoid", [p + "g"], [p + "s"]),
            helper.make_node("MatMul", [p + "scaled", p + "up"], [p + "u"]), helper.make_node("Mul", [p + "s", p + "u"], [p + "m"]),
            helper.make_node("MatMul", [p + "m", p + "down"], [p + "d"]), helper.make_node("Add", [x, p + "d"], [p + "out"])]
        constants += [weight(p + "gain", 4), weight(p + "gate", 4, 6), weight(p + "up", 4, 6), weight(p + "down", 6, 4)]
        x = p + "out"
    nodes.append(helper.make_node("MatMul", [x, "head"], ["y"]))
    return model(nodes, constants + [weight("head", 4, 3)], [("x", ["batch", 5, 4])], [("y", ["batch", 5, 3])], opset)


def pictures():
    nodes = [helper.make_node("Conv", ["x", "w0", "b0"], ["c0"], pads=[1, 1, 1, 1]), helper.make_node("Relu", ["c0"], ["r0"]),
             helper.make_node("Conv", ["r0", "w1"], ["c1"], group=4, pads=[1, 1, 1, 1]), helper.make_node("Add", ["c1", "r0"], ["a"]),
             helper.make_node("GlobalAveragePool", ["a"], ["p"]), helper.make_node("Flatten", ["p"], ["f"]),
             helper.make_node("Gemm", ["f", "w2", "b2"], ["y"], transB=1)]
    return model(nodes, [weight("w0", 4, 3, 3, 3), weight("b0", 4), weight("w1", 4, 1, 3, 3), weight("w2", 5, 4), weight("b2", 5)],
                 [("x", ["n", 3, 8, 8])], [("y", ["n", 5])], 11)


def heads():
    """Packed queries, keys and values; attention over merged batch and heads."""
    constants = [weight("qkv", 8, 24), numbers("five", [0, 0, 3, 2, 4]), numbers("merged", [-1, 5, 4]), numbers("apart", [-1, 2, 5, 4]),
                 numbers("flat", [0, 0, 8]), weight("o", 8, 8), *(numbers(f"n{i}", [i]) for i in range(4))]
    nodes = [helper.make_node("MatMul", ["x", "qkv"], ["packed"]), helper.make_node("Reshape", ["packed", "five"], ["split"])]
    for i, name in enumerate("qkv"):
        nodes += [helper.make_node("Slice", ["split", f"n{i}", f"n{i + 1}", "n2"], [name + "1"]), helper.make_node("Squeeze", [name + "1", "n2"], [name + "2"]),
                  helper.make_node("Transpose", [name + "2"], [name + "3"], perm=[0, 2, 1, 3]), helper.make_node("Reshape", [name + "3", "merged"], [name + "4"])]
    nodes += [helper.make_node("Transpose", ["k4"], ["kt"], perm=[0, 2, 1]), helper.make_node("MatMul", ["q4", "kt"], ["scores"]),
              helper.make_node("Softmax", ["scores"], ["p"], axis=-1), helper.make_node("MatMul", ["p", "v4"], ["mixed"]),
              helper.make_node("Reshape", ["mixed", "apart"], ["again"]), helper.make_node("Transpose", ["again"], ["back"], perm=[0, 2, 1, 3]),
              helper.make_node("Reshape", ["back", "flat"], ["joined"]), helper.make_node("MatMul", ["joined", "o"], ["y"])]
    return model(nodes, constants, [("x", [2, 5, 8])], [("y", [2, 5, 8])], 17)


def bodies():
    branch = lambda op: helper.make_graph([helper.make_node(op, ["x"], ["inside"])], op, [], [helper.make_tensor_value_info("inside", TensorProto.FLOAT, [3])])
    nodes = [helper.make_node("ReduceMax", ["x"], ["m"], keepdims=0), helper.make_node("Cast", ["m"], ["c"], to=TensorProto.BOOL),
             helper.make_node("If", ["c"], ["y"], then_branch=branch("Relu"), else_branch=branch("Neg"))]
    return model(nodes, [], [("x", [3])], [("y", [3])], 13)


def safetensors():
    a, b = random.standard_normal((2, 3)).astype(np.float32).tobytes(), np.arange(4, dtype=np.int64).tobytes()
    header = json.dumps({"__metadata__": {"format": "pt"}, "a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
                         "b": {"dtype": "I64", "shape": [4], "data_offsets": [24, 56]}}).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + a + b


def llama_directory():
    import transformers
    import torch
    torch.manual_seed(1)
    config = transformers.LlamaConfig(vocab_size=7, hidden_size=8, intermediate_size=6, num_hidden_layers=1, num_attention_heads=2,
                                      num_key_value_heads=1, max_position_embeddings=8, tie_word_embeddings=True)
    with tempfile.TemporaryDirectory() as folder:
        transformers.LlamaForCausalLM(config).save_pretrained(folder)
        folder = pathlib.Path(folder)
        return json.dumps(json.loads((folder / "config.json").read_text())).encode() + b"\0" + (folder / "model.safetensors").read_bytes()


def gguf_file():
    import gguf
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "seed.gguf"
        writer = gguf.GGUFWriter(path, "llama")
        writer.add_context_length(8)
        writer.add_token_list(["a", "b"])
        for kind in (gguf.GGMLQuantizationType.F32, gguf.GGMLQuantizationType.Q8_0, gguf.GGMLQuantizationType.Q4_0):
            rows = random.standard_normal((2, 32)).astype(np.float32)
            writer.add_tensor(f"t.{kind.name}", gguf.quants.quantize(rows, kind), raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path.read_bytes()


def byte_symbols():
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    other = iter(range(256, 512))
    return [chr(b) if b in plain else chr(next(other)) for b in range(256)]


def tokenizers():
    added = {"id": 258, "content": "<end>", "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    vocabulary = {symbol: i for i, symbol in enumerate(byte_symbols())} | {"lo": 256, "low": 257}
    yield "good-bytes", {"version": "1.0", "added_tokens": [added], "normalizer": None,
                         "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
                         "post_processor": None, "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
                         "model": {"type": "BPE", "vocab": vocabulary, "merges": [["l", "o"], ["lo", "w"]]}}, "lower <end> low\u00e9"
    yield "good-pieces", {"version": "1.0", "added_tokens": [], "normalizer": {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True,
                                                                              "strip_accents": None, "lowercase": True},
                          "pre_tokenizer": {"type": "BertPreTokenizer"}, "post_processor": None, "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
                          "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100,
                                    "vocab": {"[UNK]": 0, "un": 1, "##aff": 2, "##able": 3, "!": 4}}}, "Unaffable! \u4e2d\u6587"
    yield "good-unigram", {"version": "1.0", "added_tokens": [], "normalizer": {"type": "NFKC"},
                           "pre_tokenizer": {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always", "split": True}, "post_processor": None,
                           "decoder": {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always", "split": True},
                           "model": {"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0.0], ["\u2581a", -1.0], ["b", -1.5], ["ab", -2.0], ["\u2581", -2.5]],
                                     "byte_fallback": False}}, "ab a bab \ufb01"


def main():
    for name, data in {"good-layers-21": layers(21), "good-layers-13": layers(13), "good-pictures": pictures(), "good-heads": heads(), "good-bodies": bodies()}.items():
        put("onnx", name, data)
        put("surgery", name, b"\x2a" + data)
    put("safetensors", "good", safetensors())
    put("huggingface", "good-llama", llama_directory())
    put("gguf", "types", gguf_file())
    for name, document, text in tokenizers():
        put("tokenizer", name, json.dumps(document, ensure_ascii=False).encode() + b"\0" + text.encode())
    for name, array in {"good-f32": random.standard_normal((2, 3)).astype(np.float32), "good-columns": np.asfortranarray(np.arange(6).reshape(2, 3))}.items():
        file = io.BytesIO()
        np.save(file, array)
        put("npy", name, file.getvalue())
    for name, save in {"good-stored": np.savez, "good-deflated": np.savez_compressed}.items():
        file = io.BytesIO()
        save(file, x=np.arange(5, dtype=np.int64), y=np.ones((2, 2), dtype=np.float32))
        put("npz", name, file.getvalue())


if __name__ == "__main__":
    main()
