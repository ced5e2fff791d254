"""Writes TorchScript archives and what torch answers: python torchscript_oracle.py FOLDER
With "check FILE FOLDER": loads an archive that was written here and compares it with what torch had answered in FOLDER.

FOLDER/NAME/model.pt, in.N.npy (the model's N-th input, on another batch than the traced one) and out.N.npy; FOLDER/refused/NAME.pt.
"""
import pathlib
import sys
import warnings

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

WORDS = 61


class Residual(nn.Module):
    """What image networks are made of: depthwise and grouped convolutions, joined and added paths, pools, resizing."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(16)
        self.deep = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.wide = nn.Conv2d(16, 16, 1, groups=4)
        self.up = nn.ConvTranspose2d(16, 8, 2, stride=2)
        self.gate = nn.Linear(16, 16)
        self.join = nn.Conv2d(24, 12, 1)
        self.groups = nn.GroupNorm(3, 12)
        self.head = nn.Linear(12 * 4, 5)

    def forward(self, x):
        x = F.relu(self.norm(self.stem(x)), inplace=True)
        y = F.hardswish(self.wide(F.silu(self.deep(x))))
        y += x
        y = y * torch.sigmoid(self.gate(F.adaptive_avg_pool2d(y, 1).flatten(1)))[:, :, None, None]
        z = F.interpolate(F.max_pool2d(self.up(y), 3, 2, 1), scale_factor=2.0, mode="bilinear")
        y = torch.cat([y, F.avg_pool2d(z, 2)], 1)
        y = F.leaky_relu(self.groups(self.join(F.pad(y, (1, 1, 1, 1)))), 0.1)
        return self.head(torch.flatten(F.adaptive_avg_pool2d(y, 2), 1))


class Pieces(nn.Module):
    """Shapes that are computed, parts, lists, and writes in place."""

    def __init__(self):
        super().__init__()
        self.mix = nn.Conv1d(6, 6, 3, padding=1)
        self.register_buffer("bias", torch.tril(torch.ones(12, 12, dtype=torch.bool)))

    def forward(self, x, flags):
        batch, length, width = x.shape
        a, b = self.mix(x.transpose(1, 2)).transpose(1, 2).chunk(2, -1)
        scores = torch.einsum("b i d, b j d -> b i j", a, b) / width ** 0.5
        scores = scores.masked_fill(~self.bias[:length, :length], float("-inf"))
        scores = torch.where(flags[:, None, :] > 0, scores, torch.finfo(scores.dtype).min)
        y = torch.matmul(F.softmax(scores, -1), x).reshape(batch * length, -1)
        y = torch.stack([y.view(batch, length, width), x.roll(1, 1)], 2).mean(2)
        written = torch.zeros_like(y)
        written[:, 1:] = y[:, :-1]
        written[:, 0] = 1.5
        places = torch.arange(length).unsqueeze(0).expand(batch, -1)
        top = y.max(-1)
        return {"written": written, "places": places, "top": top.values + top.indices, "norm": torch.clamp(y.pow(2).sum(-1), 0.1, 4).rsqrt()}


def named(module, names):
    """The module with inputs of these names and tensors out."""
    scope = {}
    exec(f"def forward(self, {', '.join(names)}):\n answer = self.inner({', '.join(f'{n}={n}' for n in names)})\n"
         " return answer[0]", {"torch": torch}, scope)
    kind = type("Named", (nn.Module,), {"forward": scope["forward"]})
    wrapped = kind()
    wrapped.inner = module
    return wrapped


def language(kind):
    import transformers
    transformers.logging.set_verbosity_error()
    sizes = dict(vocab_size=WORDS, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48, max_position_embeddings=32)
    if kind == "bert":
        model = transformers.BertModel(transformers.BertConfig(**sizes), add_pooling_layer=False)
    elif kind == "llama":
        model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes, num_key_value_heads=2))
    else:
        model = transformers.GPT2LMHeadModel(transformers.GPT2Config(vocab_size=WORDS, n_embd=32, n_layer=2, n_head=4, n_positions=32))
    model.config.use_cache = False
    return named(model, ["input_ids", "attention_mask"])


def vision():
    import transformers
    config = transformers.ViTConfig(image_size=16, patch_size=4, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48)
    return named(transformers.ViTModel(config, add_pooling_layer=False), ["pixel_values"])


def tokens(batch, length):
    mask = torch.ones(batch, length, dtype=torch.int64)
    mask[-1, length - 2:] = 0
    return torch.randint(1, WORDS, (batch, length)), mask


def image(batch, size):
    return (torch.randn(batch, 3, size, size),)


CASES = {
    "residual": (Residual, lambda: image(2, 16), lambda: image(3, 16)),
    "pieces": (Pieces, lambda: (torch.randn(2, 8, 6), torch.ones(2, 8, dtype=torch.int64)),
               lambda: (torch.randn(3, 8, 6), torch.randint(0, 2, (3, 8)) | torch.tensor([1] + [0] * 7))),
    "bert": (lambda: language("bert"), lambda: tokens(2, 9), lambda: tokens(3, 7)),
    "llama": (lambda: language("llama"), lambda: tokens(2, 9), lambda: tokens(3, 7)),
    "gpt2": (lambda: language("gpt2"), lambda: tokens(2, 9), lambda: tokens(3, 7)),
    "vit": (vision, lambda: image(2, 16), lambda: image(3, 16)),
}


def shaken(module):
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape))
    return module.eval()


def write(folder, name):
    torch.manual_seed(1)
    make, example, other = CASES[name]
    module = shaken(make())
    folder.mkdir(parents=True)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(module, example(), strict=False, check_trace=False)
        traced.save(str(folder / "model.pt"))
        inputs = other()
        answer = module(*inputs)
    outputs = list(answer.values()) if isinstance(answer, dict) else list(answer) if isinstance(answer, tuple) else [answer]
    for kind, values in (("in", inputs), ("out", outputs)):
        for n, value in enumerate(values):
            np.save(folder / f"{kind}.{n}.npy", value.numpy())


class Branching(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if bool(x.sum() > 0):
            return x * 2
        return x - 1


class Rare(nn.Module):
    def forward(self, x):
        return torch.linalg.inv(x)


def refused(folder):
    folder.mkdir()
    torch.save(nn.Linear(3, 3).state_dict(), folder / "weights.pt")
    torch.save(nn.Linear(3, 3).state_dict(), folder / "old.pt", _use_new_zipfile_serialization=False)
    torch.jit.script(Branching()).save(str(folder / "branch.pt"), _extra_files={"espalier.inputs": "x: f32[batch,3]"})
    torch.jit.script(nn.Linear(3, 3).eval()).save(str(folder / "untold.pt"))
    torch.jit.trace(Rare(), torch.eye(3)).save(str(folder / "rare.pt"))
    whole = (folder / "rare.pt").read_bytes()
    (folder / "short.pt").write_bytes(whole[:len(whole) // 2])
    (folder / "other.pt").write_bytes(b"no archive at all")


def check(file, folder):
    """As a user would: load, look at the weights, run, train."""
    module = torch.jit.load(file)
    inputs = [torch.from_numpy(np.load(folder / f"in.{n}.npy")) for n in range(len(list(folder.glob("in.*.npy"))))]
    answers = module.eval()(*inputs)
    answers = answers if isinstance(answers, tuple) else (answers,)
    for n, answer in enumerate(answers):
        expected = torch.from_numpy(np.load(folder / f"out.{n}.npy"))
        torch.testing.assert_close(answer, expected, rtol=1e-4, atol=1e-5)
    assert len(answers) == len(list(folder.glob("out.*.npy")))
    sum(answer.sum() for answer in answers if answer.is_floating_point()).backward()
    trained = dict(module.named_parameters())
    assert trained and all(p.grad is not None and p.grad.shape == p.shape for p in trained.values())
    original = {name: w.shape for name, w in torch.jit.load(str(folder / "model.pt")).named_parameters()}
    same = [name for name in trained if name in original]
    assert len(same) > len(trained) / 2, (list(trained), list(original))
    turned = "c_attn", "c_proj", "c_fc"  # GPT-2 alone holds linear weights as [in, out]
    for name in same:
        shape = original[name][::-1] if any(part in name for part in turned) else original[name]
        assert trained[name].shape == shape, name
    torch.jit.freeze(module.eval())


if __name__ == "__main__":
    torch.set_num_threads(1)
    if sys.argv[1] == "check":
        sys.exit(check(sys.argv[2], pathlib.Path(sys.argv[3])))
    root = pathlib.Path(sys.argv[1])
    for case in CASES:
        write(root / case, case)
    refused(root / "refused")
