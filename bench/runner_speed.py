"""Our own runner against transformers (eager, float32) on the same weights: a prompt of 512 with the head on the last position, then
single tokens behind it. Needs torch, transformers, onnx, numpy.

runner_speed.py F32_PACKAGE BENCH_RUNNER_SPEED [--packages FOLDER…] [--rounds 3] [--threads 2]

F32_PACKAGE is a folder of backend/libtorch: transformers gets its weights. Further packages (INT8, bf16) run beside it. Runs alternate;
medians over the rounds are printed, by the wall and by processor time: on a machine that others use, take one thread and the latter.
"""
import argparse
import json
import pathlib
import statistics
import subprocess
import time

import numpy
import torch
import workers
from torch_llama import transformers_llama

TOKENS = 64


def measure_peer(model):
    ids = (torch.arange(512) * 37 % 20000)[None]
    clocks = {"": time.perf_counter, "cpu_": time.process_time}
    spent = {}
    with torch.no_grad():
        start = {name: clock() for name, clock in clocks.items()}
        out = model(input_ids=ids, use_cache=True, logits_to_keep=1)
        for name, clock in clocks.items():
            spent[name + "prefill_tokens_per_second"] = 512 / (clock() - start[name])
        each = {name: [] for name in clocks}
        for token in range(TOKENS):
            start = {name: clock() for name, clock in clocks.items()}
            out = model(input_ids=torch.tensor([[token * 101 % 20000]]), past_key_values=out.past_key_values, use_cache=True)
            for name, clock in clocks.items():
                each[name].append(clock() - start[name])
    for name, values in each.items():
        spent[name + "decode_tokens_per_second"] = 1 / statistics.median(values)
    return spent


def measure_ours(program, package, threads):
    run = subprocess.run([program, str(package / "model.onnx"), "1", "generate", str(threads)], capture_output=True, text=True, check=True,
                         env=workers.environment())
    return json.loads(run.stdout)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("package", type=pathlib.Path)
    parser.add_argument("program")
    parser.add_argument("--packages", type=pathlib.Path, nargs="*", default=[])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model = transformers_llama(options.package).eval()
    measure_peer(model)  # warm
    results = {}
    for _ in range(options.rounds):
        results.setdefault("transformers", []).append(measure_peer(model))
        for package in [options.package, *options.packages]:
            results.setdefault(package.name, []).append(measure_ours(options.program, package, options.threads))
    medians = {who: {k: statistics.median(r[k] for r in runs) for k in results["transformers"][0]} for who, runs in results.items()}
    for who, figures in medians.items():
        ratios = {k: round(v / medians["transformers"][k], 2) for k, v in figures.items()}
        print(json.dumps({"who": who, **{k: round(v, 1) for k, v in figures.items()}, "against_transformers": ratios}))


if __name__ == "__main__":
    main()
