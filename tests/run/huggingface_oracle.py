"""Small random models of transformers, and what they answer.

huggingface_oracle.py FOLDER: for each NAME a directory FOLDER/NAME as save_pretrained writes it, with ids.i64, mask.i64, positions.i64 [2, 12] and
logits.f32 [2, 12, vocabulary] beside the weights; the second row begins with three positions that are not attended.
"""
import pathlib
import sys
import warnings

import numpy as np
import torch
import transformers

warnings.filterwarnings("ignore")
transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()

SMALL = dict(vocab_size=61, hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2,
             max_position_embeddings=64, pad_token_id=0, bos_token_id=1, eos_token_id=2, initializer_range=0.3)
ROPE = dict(rope_theta=500.0)
CASES = {
    "llama": ("Llama", {}),
    "llama_tied_biases": ("Llama", dict(tie_word_embeddings=True, attention_bias=True, mlp_bias=True, head_dim=12)),
    "llama_linear": ("Llama", dict(rope_parameters=dict(ROPE, rope_type="linear", factor=4.0))),
    "llama_dynamic": ("Llama", dict(rope_parameters=dict(ROPE, rope_type="dynamic", factor=4.0))),
    "llama_llama3": ("Llama", dict(rope_parameters=dict(ROPE, rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                                                        original_max_position_embeddings=16))),
    "llama_yarn": ("Llama", dict(rope_parameters=dict(ROPE, rope_type="yarn", factor=4.0, original_max_position_embeddings=16))),
    "mistral": ("Mistral", dict(sliding_window=5)),
    "mixtral": ("Mixtral", dict(num_local_experts=4, num_experts_per_tok=2)),
    "qwen2": ("Qwen2", dict(use_sliding_window=True, sliding_window=4, max_window_layers=1)),
    "qwen3": ("Qwen3", dict(head_dim=10)),
    "gemma": ("Gemma", dict(head_dim=8)),
    "gemma2": ("Gemma2", dict(head_dim=8, sliding_window=4, query_pre_attn_scalar=24, attn_logit_softcapping=5.0, final_logit_softcapping=3.0)),
    "gemma3": ("Gemma3Text", dict(head_dim=8, sliding_window=4, query_pre_attn_scalar=24, layer_types=["sliding_attention", "full_attention", "sliding_attention"])),
    "phi3": ("Phi3", dict(sliding_window=6)),
    "olmo2": ("Olmo2", {}),
    "starcoder2": ("Starcoder2", {}),
}
CAUSAL = {"Gemma3Text": "Gemma3ForCausalLM"}


def main(folder):
    torch.set_num_threads(1)
    for name, (family, more) in CASES.items():
        torch.manual_seed(3)
        config = getattr(transformers, f"{family}Config")(**{**SMALL, **more})
        config._attn_implementation = "eager"
        model = getattr(transformers, CAUSAL.get(family, f"{family}ForCausalLM"))(config).eval()
        with torch.no_grad():  # norms and biases begin at one and zero, where mistakes do not show
            for weight in model.parameters():
                if weight.dim() == 1:
                    weight.add_(torch.randn_like(weight) * 0.2)
        if name == "qwen3":  # the weights alone: rotary frequencies stay as they are
            for weight in model.parameters():
                weight.data = weight.data.to(torch.bfloat16)
        model.save_pretrained(folder / name, max_shard_size="20KB" if name == "qwen2" else "1GB")
        for weight in model.parameters():
            weight.data = weight.data.float()
        ids = torch.randint(3, 61, (2, 12))
        mask = torch.ones_like(ids)
        mask[1, :3] = 0
        positions = (mask.cumsum(1) - 1).clamp_min(0)
        with torch.no_grad():
            logits = model(input_ids=ids, attention_mask=mask, position_ids=positions).logits.float()
        for part, value in {"ids.i64": ids, "mask.i64": mask, "positions.i64": positions, "logits.f32": logits}.items():
            np.ascontiguousarray(value.numpy()).tofile(folder / name / part)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
