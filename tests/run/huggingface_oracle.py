"""Small random models of transformers, and what they answer.

huggingface_oracle.py FOLDER: for each NAME a directory FOLDER/NAME as save_pretrained writes it, with in.NAME.i64 [3, length] for each input and
out.NAME.f32 for each output beside the weights. The second row begins with three positions that are not attended, the third ends with four.
"""
import inspect
import json
import pathlib
import sys
import warnings

import numpy as np
import torch
import transformers

warnings.filterwarnings("ignore")
transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()

TOKENS = dict(pad_token_id=0, bos_token_id=1, eos_token_id=2)
SMALL = dict(TOKENS, vocab_size=61, hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2,
             max_position_embeddings=64, initializer_range=0.3)
ROPE = dict(rope_theta=500.0)
GPT = dict(TOKENS, vocab_size=61, n_embd=32, n_layer=3, n_head=4, n_positions=64, initializer_range=0.3)
OPT = dict(TOKENS, vocab_size=61, hidden_size=32, ffn_dim=48, num_hidden_layers=3, num_attention_heads=4, max_position_embeddings=64, init_std=0.3)
FALCON = dict(TOKENS, vocab_size=61, hidden_size=32, num_hidden_layers=3, num_attention_heads=4, max_position_embeddings=64, initializer_range=0.3)
BLOOM = dict(TOKENS, vocab_size=61, hidden_size=32, n_layer=3, n_head=4, initializer_range=0.3)
NEOX = {key: value for key, value in SMALL.items() if key != "num_key_value_heads"}
BERT = dict(NEOX, layer_norm_eps=1e-3)
ROBERTA = dict(BERT, pad_token_id=1, bos_token_id=0, type_vocab_size=1)
DISTIL = dict(pad_token_id=0, vocab_size=61, dim=32, hidden_dim=48, n_layers=3, n_heads=4, max_position_embeddings=64, initializer_range=0.3)
ELECTRA = dict(BERT, embedding_size=20)
MPNET = dict(BERT, pad_token_id=1, bos_token_id=0, max_position_embeddings=160)
ALBERT = dict(BERT, embedding_size=20, num_hidden_layers=4, num_hidden_groups=2)

# name: class without its end, base configuration or None for SMALL, differences
DECODERS = {
    "llama": ("Llama", None, {}),
    "llama_tied_biases": ("Llama", None, dict(tie_word_embeddings=True, attention_bias=True, mlp_bias=True, head_dim=12)),
    "llama_linear": ("Llama", None, dict(rope_parameters=dict(ROPE, rope_type="linear", factor=4.0))),
    "llama_dynamic": ("Llama", None, dict(rope_parameters=dict(ROPE, rope_type="dynamic", factor=4.0))),
    "llama_llama3": ("Llama", None, dict(rope_parameters=dict(ROPE, rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                                                              original_max_position_embeddings=16))),
    "llama_yarn": ("Llama", None, dict(rope_parameters=dict(ROPE, rope_type="yarn", factor=4.0, original_max_position_embeddings=16))),
    "mistral": ("Mistral", None, dict(sliding_window=5)),
    "mixtral": ("Mixtral", None, dict(num_local_experts=4, num_experts_per_tok=2)),
    "qwen2": ("Qwen2", None, dict(use_sliding_window=True, sliding_window=4, max_window_layers=1)),
    "qwen3": ("Qwen3", None, dict(head_dim=10)),
    "gemma": ("Gemma", None, dict(head_dim=8)),
    "gemma2": ("Gemma2", None, dict(head_dim=8, sliding_window=4, query_pre_attn_scalar=24, attn_logit_softcapping=5.0, final_logit_softcapping=3.0)),
    "gemma3": ("Gemma3Text", None, dict(head_dim=8, sliding_window=4, query_pre_attn_scalar=24,
                                        layer_types=["sliding_attention", "full_attention", "sliding_attention"])),
    "phi3": ("Phi3", None, dict(sliding_window=6)),
    "olmo2": ("Olmo2", None, {}),
    "starcoder2": ("Starcoder2", None, {}),
    "stablelm": ("StableLm", None, dict(use_qkv_bias=True)),
    "stablelm_parallel": ("StableLm", None, dict(use_parallel_residual=True, partial_rotary_factor=0.5)),
    "cohere": ("Cohere", None, dict(logit_scale=0.25)),
    "cohere_biases": ("Cohere", None, dict(attention_bias=True, logit_scale=1.0)),
    "gpt2": ("GPT2", GPT, {}),
    "gpt2_by_layer": ("GPT2", GPT, dict(n_inner=40, scale_attn_by_inverse_layer_idx=True, activation_function="relu")),
    "gpt2_unscaled": ("GPT2", GPT, dict(scale_attn_weights=False)),
    "gptj": ("GPTJ", GPT, dict(rotary_dim=4)),
    "opt": ("OPT", OPT, {}),
    "opt_350m": ("OPT", OPT, dict(do_layer_norm_before=False, word_embed_proj_dim=20)),
    "opt_bare": ("OPT", OPT, dict(enable_bias=False, _remove_final_layer_norm=True)),
    "falcon_7b": ("Falcon", FALCON, {}),
    "falcon_40b": ("Falcon", FALCON, dict(new_decoder_architecture=True, num_kv_heads=2, bias=True)),
    "falcon_11b": ("Falcon", FALCON, dict(new_decoder_architecture=True, num_kv_heads=2, num_ln_in_parallel_attn=1, ffn_hidden_size=56)),
    "falcon_rw": ("Falcon", FALCON, dict(alibi=True, multi_query=False, parallel_attn=False, bias=True, hidden_size=48, num_attention_heads=12)),
    "falcon_heads": ("Falcon", FALCON, dict(multi_query=False)),
    "bloom": ("Bloom", BLOOM, {}),
    "bloom_six": ("Bloom", BLOOM, dict(hidden_size=36, n_head=6, apply_residual_connection_post_layernorm=True)),
    "gpt_neox": ("GPTNeoX", NEOX, dict(rotary_pct=0.5)),
    "gpt_neox_sequential": ("GPTNeoX", NEOX, dict(use_parallel_residual=False, attention_bias=False)),
}
ENCODERS = {
    "bert": ("Bert", BERT),
    "roberta": ("Roberta", ROBERTA),
    "xlm_roberta": ("XLMRoberta", dict(ROBERTA, type_vocab_size=2)),
    "distilbert": ("DistilBert", DISTIL),
    "electra": ("Electra", ELECTRA),
    "mpnet": ("MPNet", MPNET),
    "albert": ("Albert", ALBERT),
}
HEADS = {"": "Model", "_tokens": "ForMaskedLM", "_classes": "ForSequenceClassification"}


def make(kind, config):
    torch.manual_seed(3)
    # Falcon's own code adds ALiBi twice where it does not leave the rest to PyTorch.
    config._attn_implementation = "sdpa" if config.model_type == "falcon" else "eager"
    model = getattr(transformers, kind)(config).eval()
    with torch.no_grad():  # norms and biases begin at one and zero, where mistakes do not show
        for weight in model.parameters():
            if weight.dim() == 1:
                weight.add_(torch.randn_like(weight) * 0.2)
    return model


def save(folder, inputs, outputs):
    for name, value in inputs.items():
        np.ascontiguousarray(value.numpy()).tofile(folder / f"in.{name}.i64")
    for name, value in outputs.items():
        np.ascontiguousarray(value.detach().float().numpy()).tofile(folder / f"out.{name}.f32")


def tokens(length, padding):
    ids = torch.randint(3, 61, (3, length))
    mask = torch.ones_like(ids)
    mask[1, :3] = 0
    mask[2, -4:] = 0
    return torch.where(mask == 1, ids, padding), mask


def decoder(folder, name, family, base, more):
    model = make({"Gemma3Text": "Gemma3ForCausalLM", "GPT2": "GPT2LMHeadModel"}.get(family, f"{family}ForCausalLM"),
                 getattr(transformers, f"{family}Config")(**{**(base or SMALL), **more}))
    if name == "qwen3":  # the weights alone: rotary frequencies stay as they are
        for weight in model.parameters():
            weight.data = weight.data.to(torch.bfloat16)
    model.save_pretrained(folder, max_shard_size="20KB" if name == "qwen2" else "1GB")
    for weight in model.parameters():
        weight.data = weight.data.float()
    ids, mask = tokens(12, 0)
    inputs = dict(input_ids=ids, attention_mask=mask, position_ids=(mask.cumsum(1) - 1).clamp_min(0))
    known = inspect.signature(model.forward).parameters
    with torch.no_grad():
        logits = model(**{key: value for key, value in inputs.items() if key in known}).logits
    save(folder, inputs, dict(logits=logits))


def encoder(folder, name, family, base, head):
    config = getattr(transformers, f"{family}Config")(**base, num_labels=5)
    model = make(family + HEADS[head], config)
    model.save_pretrained(folder)
    ids, mask = tokens(140 if name == "mpnet" else 12, config.pad_token_id)
    inputs = dict(input_ids=ids, attention_mask=mask)
    if getattr(config, "type_vocab_size", 0) > 1 and name != "mpnet":
        inputs["token_type_ids"] = torch.randint(0, config.type_vocab_size, ids.shape)
    with torch.no_grad():
        save(folder, inputs, {key: value for key, value in model(**inputs).items() if value is not None})


def sentence(folder, pooling, normalize, subfolder):
    inner = folder / subfolder
    model = make("BertModel", transformers.BertConfig(**BERT))
    model.save_pretrained(inner)
    kinds = ["Transformer", "Pooling"] + ["Normalize"] * normalize
    paths = [subfolder, "1_Pooling", "2_Normalize"]
    modules = [dict(idx=i, name=str(i), path=path, type="sentence_transformers.models." + kind) for i, (kind, path) in enumerate(zip(kinds, paths))]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    config = {f"pooling_mode_{key}": key == pooling for key in ["cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens"]}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(dict(config, word_embedding_dimension=32)))
    ids, mask = tokens(12, 0)
    inputs = dict(input_ids=ids, attention_mask=mask, token_type_ids=torch.zeros_like(ids))
    with torch.no_grad():
        hidden = model(**inputs).last_hidden_state
    used = mask.unsqueeze(-1)
    embedding = {"cls_token": lambda: hidden[:, 0], "mean_tokens": lambda: (hidden * used).sum(1) / used.sum(1),
                 "max_tokens": lambda: hidden.masked_fill(used == 0, -1e9).max(1).values}[pooling]()
    if normalize:
        embedding = torch.nn.functional.normalize(embedding, dim=1)
    save(folder, inputs, dict(sentence_embedding=embedding))


def main(folder):
    torch.set_num_threads(1)
    for name, case in DECODERS.items():
        decoder(folder / name, name, *case)
    for name, (family, base) in ENCODERS.items():
        for head in HEADS:
            encoder(folder / (name + head), name, family, base, head)
    sentence(folder / "sentence_mean", "mean_tokens", True, "")
    sentence(folder / "sentence_first", "cls_token", False, "0_Transformer")
    sentence(folder / "sentence_largest", "max_tokens", True, "")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
