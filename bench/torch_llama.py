"""A LLaMA-shaped model in plain PyTorch, as a person would write it: the peer of the benchmarks. Weights are [out, in], as nn.Linear's."""
import numpy as np
import torch
from torch.nn import functional
from torch.utils import checkpoint


def read_onnx(folder):
    """Weights, query heads, key-value heads and the norms' epsilon of a model that was exported into a folder."""
    import onnx
    from onnx import numpy_helper
    model = onnx.load(f"{folder}/model.onnx")
    weights = {t.name: torch.from_numpy(np.array(numpy_helper.to_array(t))) for t in model.graph.initializer}
    for name in [n for n in weights if n.endswith("_proj.weight") or n == "lm_head.weight"]:
        weights[name] = weights[name].t().contiguous()
    found = {}
    for node in model.graph.node:
        values = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        if node.op_type == "Attention":
            found["heads"], found["kv_heads"] = values["q_num_heads"], values["kv_num_heads"]
        if node.op_type == "RMSNormalization":
            found["norm_epsilon"] = values.get("epsilon", 1e-5)
    return weights, found


class Llama:
    def __init__(self, weights, heads, kv_heads, norm_epsilon):
        self.weights, self.epsilon = weights, norm_epsilon
        self.layers = 1 + max(int(name.split(".")[2]) for name in weights if name.startswith("model.layers."))
        self.size = weights["model.layers.0.self_attn.q_proj.weight"].shape[0] // heads
        self.heads, self.kv_heads = heads, kv_heads

    def norm(self, x, scope):
        variance = x.float().pow(2).mean(-1, keepdim=True)
        return (x.float() * torch.rsqrt(variance + self.epsilon)).to(x.dtype) * self.weights[f"{scope}.weight"]

    def linear(self, x, scope):
        return functional.linear(x, self.weights[f"{scope}.weight"])

    @staticmethod
    def rotate(x, cos, sin):
        a, b = x.chunk(2, -1)
        return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)

    def block(self, x, layer, cos, sin):
        batch, sequence, _ = x.shape
        scope = f"model.layers.{layer}"
        y = self.norm(x, f"{scope}.input_layernorm")
        q, k, v = (self.linear(y, f"{scope}.self_attn.{p}_proj").view(batch, sequence, -1, self.size).transpose(1, 2) for p in "qkv")
        q, k = self.rotate(q, cos, sin), self.rotate(k, cos, sin)
        attention = functional.scaled_dot_product_attention(q, k.to(q.dtype), v.to(q.dtype), is_causal=True, enable_gqa=True)
        x = x + self.linear(attention.transpose(1, 2).reshape(batch, sequence, -1), f"{scope}.self_attn.o_proj")
        y = self.norm(x, f"{scope}.post_attention_layernorm")
        return x + self.linear(functional.silu(self.linear(y, f"{scope}.mlp.gate_proj")) * self.linear(y, f"{scope}.mlp.up_proj"),
                               f"{scope}.mlp.down_proj")

    def __call__(self, ids, checkpoints=False):
        x = self.weights["model.embed_tokens.weight"][ids]
        cos, sin = self.weights["rotary.cos"][:ids.shape[1]], self.weights["rotary.sin"][:ids.shape[1]]
        for layer in range(self.layers):
            if checkpoints:
                x = checkpoint.checkpoint(self.block, x, layer, cos, sin, use_reentrant=False)
            else:
                x = self.block(x, layer, cos, sin)
        x = self.norm(x, "model.norm")
        return functional.linear(x, self.weights["lm_head.weight" if "lm_head.weight" in self.weights else "model.embed_tokens.weight"])


def transformers_llama(folder):
    """The same weights as a LlamaForCausalLM of transformers, eager attention, f32."""
    import math
    from transformers import LlamaConfig, LlamaForCausalLM
    weights, shape = read_onnx(folder)
    size = 2 * weights["rotary.cos"].shape[1]
    vocabulary, hidden = weights["model.embed_tokens.weight"].shape
    config = LlamaConfig(
        vocab_size=vocabulary, hidden_size=hidden, num_hidden_layers=1 + max(int(n.split(".")[2]) for n in weights if n.startswith("model.layers.")),
        head_dim=size, intermediate_size=weights["model.layers.0.mlp.up_proj.weight"].shape[0],
        num_attention_heads=shape["heads"], num_key_value_heads=shape["kv_heads"], rms_norm_eps=shape["norm_epsilon"],
        max_position_embeddings=weights["rotary.cos"].shape[0], rope_theta=math.acos(float(weights["rotary.cos"][1, 1])) ** (-size / 2),
        tie_word_embeddings="lm_head.weight" not in weights, attn_implementation="eager")
    made = LlamaForCausalLM(config)
    missing, unknown = made.load_state_dict({n: w for n, w in weights.items() if n.startswith(("model.", "lm_head."))}, strict=False)
    assert set(missing) <= {"lm_head.weight"} and not unknown, (missing, unknown)
    made.tie_weights()
    return made
