"""The loop of bench_training_parity in plain PyTorch: losses of each step side by side. Fails when one is more than 1e-3 off.

python bench/training_parity.py FOLDER
"""
import json
import sys

import numpy as np
import torch
from torch.nn import functional

torch.set_num_threads(2)
folder = sys.argv[1]
settings = json.load(open(f"{folder}/settings.json"))
ours = json.load(open(f"{folder}/losses.json"))
raw = np.memmap(f"{folder}/weights.safetensors", np.uint8, "r")
length = int(raw[:8].view("<u8")[0])
header = json.loads(bytes(raw[8:8 + length]))
kinds = {"F32": "<f4", "I64": "<i8"}
weights = {}
for name, entry in header.items():
    if name == "__metadata__" or entry["dtype"] not in kinds:
        continue
    begin, end = (8 + length + at for at in entry["data_offsets"])
    weights[name] = torch.from_numpy(np.array(raw[begin:end]).view(kinds[entry["dtype"]]).reshape(entry["shape"]))
for name in settings["trained"]:
    weights[name] = torch.nn.Parameter(weights[name])
layers = 1 + max(int(name.split(".")[2]) for name in weights if name.startswith("model.layers."))
heads, kv_heads = settings["heads"], settings["kv_heads"]


def norm(x, scope):
    variance = x.pow(2).mean(-1, keepdim=True)
    return x * torch.rsqrt(variance + settings["norm_epsilon"]) * weights[f"{scope}.weight"]


def linear(x, scope):
    return x @ weights[f"{scope}.weight"]


def rotate(x, cos, sin):
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


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
        attention = torch.softmax(q @ k.transpose(-1, -2) / size**0.5 + mask, -1) @ v
        x = x + linear(attention.transpose(1, 2).reshape(batch, sequence, -1), f"{scope}.self_attn.o_proj")
        y = norm(x, f"{scope}.post_attention_layernorm")
        x = x + linear(functional.silu(linear(y, f"{scope}.mlp.gate_proj")) * linear(y, f"{scope}.mlp.up_proj"), f"{scope}.mlp.down_proj")
    x = norm(x, "model.norm")
    return x @ (weights["lm_head.weight"] if "lm_head.weight" in weights else weights["model.embed_tokens.weight"].t())


trained = [weights[name] for name in settings["trained"]]
optimizer = torch.optim.AdamW(trained, lr=1.0, betas=(settings["beta1"], settings["beta2"]), eps=settings["epsilon"],
                              weight_decay=settings["weight_decay"])
tokens = torch.from_numpy(np.fromfile(f"{folder}/tokens.i32", "<i4").astype(np.int64)).view(settings["steps"], 1, settings["sequence"])
worst = 0.0
for step, ids in enumerate(tokens):
    out = logits(ids)
    loss = functional.cross_entropy(out[:, :-1].reshape(-1, out.shape[-1]), ids[:, 1:].reshape(-1))
    loss.backward()
    torch.nn.utils.clip_grad_norm_(trained, settings["clip"])
    optimizer.param_groups[0]["lr"] = settings["rates"][step]
    optimizer.step()
    optimizer.zero_grad()
    worst = max(worst, abs(loss.item() - ours[step]))
    print(f"{step:3d}  ours {ours[step]:.6f}  PyTorch {loss.item():.6f}", flush=True)
print(json.dumps({"steps": len(ours), "largest_difference": worst}))
sys.exit(0 if worst <= 1e-3 else 1)
