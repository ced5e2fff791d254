#!/usr/bin/env python3
"""Greedy text with a KV cache against full recomputation, over 256 tokens.

    $(./espalier deps-dir)/test-venv/bin/python bench/generate_parity.py PACKAGE [PROMPT] [--tokens N]

`espalier generate` continues PROMPT with its cache. Then OpenVINO's Python API runs the package's model.onnx over the whole text at
once, nothing cached: where its likeliest next token is the generated one at every position, recomputing from scratch gives the same
text. Positions whose top two logits differ by less than 1e-3 are counted apart. Exits 1 on any other difference.
"""
import argparse
import json
import pathlib
import subprocess
import sys

import numpy
import openvino

parser = argparse.ArgumentParser()
parser.add_argument("package")
parser.add_argument("prompt", nargs="?", default="The frame of an espalier is")
parser.add_argument("--tokens", type=int, default=256)
parser.add_argument("--program", default=pathlib.Path(__file__).resolve().parent.parent / "espalier", help="another build of espalier")
arguments = parser.parse_args()

call = [arguments.program, "generate", arguments.package, "--prompt", arguments.prompt, "--tokens", str(arguments.tokens), "--json"]
made = json.loads(subprocess.run(call, check=True, stdout=subprocess.PIPE).stdout.splitlines()[-1])
prompt, ids = made["prompt_ids"], made["ids"]

core = openvino.Core()
compiled = core.compile_model(arguments.package + "/model.onnx", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
text = numpy.array([prompt + ids], numpy.int64)
feed = {"input_ids": text, "attention_mask": numpy.ones_like(text), "position_ids": numpy.arange(text.shape[1], dtype=numpy.int64)[None]}
for value in compiled.inputs:
    name, shape = value.get_any_name(), value.get_partial_shape()
    if name.startswith("past_key_values."):
        feed[name] = numpy.zeros([1, shape[1].get_length(), 0, shape[3].get_length()], numpy.float32)
logits = compiled(feed)["logits"][0]

close, wrong = 0, []
for i, token in enumerate(ids):
    row = logits[len(prompt) - 1 + i]
    second, first = numpy.sort(row)[-2:]
    if int(row.argmax()) == token:
        continue
    if first - second < 1e-3:
        close += 1
    else:
        wrong.append((i, token, int(row.argmax()), float(first - second)))
print(f"{len(ids)} tokens, {made['end']}; {len(ids) - close - len(wrong)} equal, {close} within 1e-3 of a tie, {len(wrong)} different {wrong[:5]}")
print(f"{made['decode_tokens_per_second']:.1f} tokens/s with the cache")
sys.exit(1 if wrong or not ids else 0)
