"""Training speed and peak memory beside plain PyTorch: same weights, tokens, AdamW, clipping; runs in turns, medians of their steps.

python bench/training_speed.py PROGRAM MODEL.gguf FOLDER [STEPS [ROUNDS]]

PROGRAM is build/release/bin/bench_training_speed, FOLDER was written by bench_training_parity with windows of 512 tokens.
PyTorch runs eager f32 with its fused attention, norm, loss and AdamW ("strong") and with the model of bench/training_parity.py ("plain");
our side has the environment that the host gives its workers.
"""
import json
import resource
import statistics
import subprocess
import sys
import time

import workers

OURS = [("f32", "plain"), ("f32", "checkpoint"), ("bf16", "plain"), ("bf16", "checkpoint")]


def torch_side(folder, kind, steps):
    import numpy as np
    import torch
    from torch.nn import functional

    torch.set_num_threads(2)
    settings = json.load(open(f"{folder}/settings.json"))
    raw = np.memmap(f"{folder}/weights.safetensors", np.uint8, "r")
    length = int(raw[:8].view("<u8")[0])
    header = json.loads(bytes(raw[8:8 + length]))
    weights = {}
    for name, entry in header.items():
        if name == "__metadata__" or entry["dtype"] != "F32":
            continue
        begin, end = (8 + length + at for at in entry["data_offsets"])
        weights[name] = torch.from_numpy(np.fromfile(f"{folder}/weights.safetensors", "<f4", (end - begin) // 4, offset=begin).reshape(entry["shape"]))
    del raw
    for name in settings["trained"]:
        weights[name] = torch.nn.Parameter(weights[name])
    layers = 1 + max(int(name.split(".")[2]) for name in weights if name.startswith("model.layers."))
    heads, kv_heads, epsilon = settings["heads"], settings["kv_heads"], settings["norm_epsilon"]

    def norm(x, scope):
        if kind == "strong":
            return functional.rms_norm(x, x.shape[-1:], weights[f"{scope}.weight"], epsilon)
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + epsilon) * weights[f"{scope}.weight"]

    def linear(x, scope):
        return x @ weights[f"{scope}.weight"]

    def rotate(x, cos, sin):
        a, b = x.chunk(2, -1)
        return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)

    def attend(q, k, v, mask):
        if kind == "strong":
            return functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return torch.softmax(q @ k.transpose(-1, -2) / q.shape[-1]**0.5 + mask, -1) @ v

    def logits(ids):
        batch, sequence = ids.shape
        x = weights["model.embed_tokens.weight"][ids]
        size = weights["model.layers.0.self_attn.q_proj.weight"].shape[1] // heads
        cos, sin = weights["rotary.cos"][:sequence], weights["rotary.sin"][:sequence]
        mask = torch.full((sequence, sequence), float("-inf")).triu(1)
        for layer in range(layers):
            scope = f"model.layers.{layer}"
            y = norm(x, f"{scope}.input_layernorm")
            q, k, v = (linear(y, f"{scope}.self_attn.{p}_proj").view(batch, sequence, -1, size).transpose(1, 2) for p in "qkv")
            q, k = rotate(q, cos, sin), rotate(k, cos, sin)
            k, v = (t.repeat_interleave(heads // kv_heads, 1) for t in (k, v))
            x = x + linear(attend(q, k, v, mask).transpose(1, 2).reshape(batch, sequence, -1), f"{scope}.self_attn.o_proj")
            y = norm(x, f"{scope}.post_attention_layernorm")
            x = x + linear(functional.silu(linear(y, f"{scope}.mlp.gate_proj")) * linear(y, f"{scope}.mlp.up_proj"), f"{scope}.mlp.down_proj")
        x = norm(x, "model.norm")
        return x @ (weights["lm_head.weight"] if "lm_head.weight" in weights else weights["model.embed_tokens.weight"].t())

    trained = [weights[name] for name in settings["trained"]]
    optimizer = torch.optim.AdamW(trained, lr=2e-4, weight_decay=settings["weight_decay"], fused=kind == "strong" or None)
    tokens = torch.from_numpy(np.fromfile(f"{folder}/tokens.i32", "<i4").astype(np.int64)).view(-1, 1, settings["sequence"])
    seconds, losses = [], []
    for ids in tokens[:steps]:
        start = time.perf_counter()
        out = logits(ids)
        loss = functional.cross_entropy(out[:, :-1].reshape(-1, out.shape[-1]), ids[:, 1:].reshape(-1))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, settings["clip"])
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        del out, loss
        seconds.append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"seconds": seconds, "losses": losses, "peak_rss_bytes": peak}))


def main(program, model, folder, steps=4, rounds=2):
    runs = {}
    calls = {f"ours {p} {c}": [program, model, folder, p, c, str(steps)] for p, c in OURS}
    calls |= {f"PyTorch f32 {kind}": [sys.executable, __file__, "--torch", folder, kind, str(steps)] for kind in ("plain", "strong")}
    for _ in range(int(rounds)):
        for name, call in calls.items():
            environment = None if name.startswith("PyTorch") else workers.environment()
            out = subprocess.run(call, check=True, capture_output=True, text=True, env=environment).stdout
            result = json.loads(out.splitlines()[-1])
            seen = runs.setdefault(name, {"seconds": [], "peak": 0, "loss": result["losses"][-1]})
            seen["seconds"] += result["seconds"][1:]  # the first step allocates
            seen["peak"] = max(seen["peak"], result["peak_rss_bytes"])
    sequence = json.load(open(f"{folder}/settings.json"))["sequence"]
    speed = {name: sequence / statistics.median(run["seconds"]) for name, run in runs.items()}
    for name, run in runs.items():
        print(f"{name:24s} {speed[name]:7.1f} tokens/s  peak {run['peak'] / 1e6:7.0f} MB  last loss {run['loss']:.4f}")
    for kind in ("plain", "strong"):
        peer = f"PyTorch f32 {kind}"
        for name in calls:
            if name.startswith("ours"):
                print(f"{name} / {peer}: speed {speed[name] / speed[peer]:.2f}, memory {runs[name]['peak'] / runs[peer]['peak']:.2f}")
    print(f"bf16 / f32, ours: speed {speed['ours bf16 plain'] / speed['ours f32 plain']:.2f}")


if __name__ == "__main__":
    if sys.argv[1] == "--torch":
        torch_side(sys.argv[2], sys.argv[3], int(sys.argv[4]))
    else:
        main(*sys.argv[1:])
