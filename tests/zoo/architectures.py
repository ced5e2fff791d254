"""The zoo: small models with random weights, made from transformers' configurations. One entry a name, nothing is downloaded.

ARCHITECTURES maps a name to a function that returns (module, inputs, batched): `module` takes the inputs in their order and returns
tensors; `inputs` are {name: tensor} with a batch of 2; `batched` are the dynamic axes {name: {axis: "batch" or "sequence"}}.
"""
import torch
import transformers
from torch import nn

BATCH, SEQUENCE, WORDS, LABELS = 2, 12, 97, 7
ARCHITECTURES = {}


def architecture(name):
    def register(make):
        ARCHITECTURES[name] = make
        return make
    return register


class Outputs(nn.Module):
    """A transformers model as an exporter wants it: inputs by position, a tuple of tensors out, no cache."""

    def __init__(self, model, names, wanted, fixed=None):
        super().__init__()
        self.model, self.names, self.wanted, self.fixed = model, names, wanted, fixed or {}

    def forward(self, *values):
        answer = self.model(**dict(zip(self.names, values)), **self.fixed, return_dict=True)
        found = tuple(answer[name] for name in self.wanted)
        return found if len(found) > 1 else found[0]


def randomised(model):
    """Seeded weights away from zero and one: freshly made norms and biases would hide what a wrong graph does to them."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() < 2:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
        for name, buffer in model.named_buffers():
            if name.endswith("running_mean"):
                buffer.copy_(0.1 * torch.randn(buffer.shape, generator=generator))
            if name.endswith("running_var"):
                buffer.copy_(0.5 + torch.rand(buffer.shape, generator=generator))
    return model.eval()


def make(model_class, config, inputs, wanted, batched, **fixed):
    torch.manual_seed(1)
    model = randomised(model_class(config))
    return Outputs(model, list(inputs), wanted, fixed), inputs, batched


def words(batch=BATCH, sequence=SEQUENCE):
    generator = torch.Generator().manual_seed(3)
    return torch.randint(4, WORDS, (batch, sequence), generator=generator)


def mask():
    """The second row is padded on the right."""
    attended = torch.ones(BATCH, SEQUENCE, dtype=torch.int64)
    attended[1, SEQUENCE - 3:] = 0
    return attended


def pixels(size=32, channels=3):
    return torch.randn(BATCH, channels, size, size, generator=torch.Generator().manual_seed(5))


TEXT = {"input_ids": {0: "batch", 1: "sequence"}, "attention_mask": {0: "batch", 1: "sequence"}}
IMAGE = {"pixel_values": {0: "batch"}}
SIZES = dict(vocab_size=WORDS, hidden_size=64, num_hidden_layers=2, num_attention_heads=8, max_position_embeddings=64,
             intermediate_size=80)


def causal(name, family, fixed=None, config=None, model=None, **settings):
    """A decoder-only language model with eight heads over four groups of keys and values, or what the family has instead."""
    def build():
        made = getattr(transformers, config or family + "Config")(
            bos_token_id=1, eos_token_id=2, pad_token_id=0, use_cache=False, **{**SIZES, **settings})
        return make(getattr(transformers, model or family + "ForCausalLM"), made, {"input_ids": words(), "attention_mask": mask()}, ["logits"], TEXT,
                    **(fixed or dict(use_cache=False)))
    architecture(name)(build)


causal("LLaMA", "Llama", num_key_value_heads=4)
causal("Qwen2", "Qwen2", num_key_value_heads=4)
causal("Qwen3", "Qwen3", num_key_value_heads=4, head_dim=8)
causal("Mistral", "Mistral", num_key_value_heads=4, sliding_window=8)
causal("Phi-3", "Phi3", num_key_value_heads=4)
causal("Gemma 2", "Gemma2", num_key_value_heads=4, head_dim=8, sliding_window=8, query_pre_attn_scalar=8)
causal("Gemma 3", "Gemma3", config="Gemma3TextConfig", num_key_value_heads=4, head_dim=8, sliding_window=8, query_pre_attn_scalar=8)
causal("StarCoder2", "Starcoder2", num_key_value_heads=4, sliding_window=8)
causal("OLMo2", "Olmo2", num_key_value_heads=4)
causal("GPT-NeoX", "GPTNeoX")
causal("Mixtral", "Mixtral", num_key_value_heads=4, num_local_experts=4, num_experts_per_tok=2, experts_implementation="batched_mm")
causal("Falcon", "Falcon", new_decoder_architecture=True, num_kv_heads=4, ffn_hidden_size=80)
causal("BLOOM", "Bloom", n_head=8, n_layer=2)
causal("OPT", "OPT", ffn_dim=80, word_embed_proj_dim=64)
causal("GPT-2", "GPT2", model="GPT2LMHeadModel", n_embd=64, n_layer=2, n_head=8, n_positions=64, n_inner=80)
causal("Mamba", "Mamba", state_size=4, expand=2, conv_kernel=4, time_step_rank=8)


def encoder(name, family, wanted="logits", head="ForMaskedLM", token_types=False, **settings):
    def build():
        config = getattr(transformers, family + "Config")(
            pad_token_id=0, **{**SIZES, **settings})
        inputs = {"input_ids": words(), "attention_mask": mask()}
        axes = dict(TEXT)
        if token_types:
            inputs["token_type_ids"] = (torch.arange(SEQUENCE) > 6).long().expand(BATCH, SEQUENCE).contiguous()
            axes["token_type_ids"] = {0: "batch", 1: "sequence"}
        return make(getattr(transformers, family + head), config, inputs, [wanted], axes)
    architecture(name)(build)


encoder("BERT", "Bert", token_types=True)
encoder("RoBERTa", "Roberta")
encoder("DistilBERT", "DistilBert", dim=64, n_layers=2, n_heads=8, hidden_dim=80)
encoder("ALBERT", "Albert", embedding_size=32, num_hidden_groups=1, token_types=True)
encoder("ELECTRA", "Electra", embedding_size=32, token_types=True)
encoder("DeBERTa-v2", "DebertaV2", relative_attention=True, pos_att_type=["p2c", "c2p"], position_buckets=8, norm_rel_ebd="layer_norm",
        share_att_key=True, token_types=True, type_vocab_size=2)
encoder("MPNet", "MPNet")


def paired(name, family, config):
    def build():
        inputs = {"input_ids": words(), "attention_mask": mask(), "decoder_input_ids": words(BATCH, 5)}
        axes = {**TEXT, "decoder_input_ids": {0: "batch", 1: "length"}}
        return make(getattr(transformers, family + "ForConditionalGeneration"), config(), inputs, ["logits"], axes, use_cache=False)
    architecture(name)(build)


paired("T5", "T5", lambda: transformers.T5Config(vocab_size=WORDS, d_model=64, d_kv=8, d_ff=80, num_layers=2, num_heads=8,
                                                 feed_forward_proj="gated-gelu", decoder_start_token_id=0))
paired("BART", "Bart", lambda: transformers.BartConfig(vocab_size=WORDS, d_model=64, encoder_layers=2, decoder_layers=2, encoder_attention_heads=8,
                                                       decoder_attention_heads=8, encoder_ffn_dim=80, decoder_ffn_dim=80, max_position_embeddings=64,
                                                       pad_token_id=0, bos_token_id=1, eos_token_id=2))


def vision(name, family, wanted="logits", head="ForImageClassification", size=32, **settings):
    def build():
        config = getattr(transformers, family + "Config")(num_labels=LABELS, **settings)
        return make(getattr(transformers, family + head), config, {"pixel_values": pixels(size)}, [wanted], IMAGE)
    architecture(name)(build)


PATCHES = dict(image_size=32, patch_size=8, hidden_size=64, num_hidden_layers=2, num_attention_heads=8, intermediate_size=80)
vision("ViT", "ViT", **PATCHES)
vision("DeiT", "DeiT", **PATCHES)
vision("DINOv2", "Dinov2", **{**PATCHES, "mlp_ratio": 2})
vision("BEiT", "Beit", **PATCHES, use_relative_position_bias=True)
vision("Swin", "Swin", image_size=32, patch_size=2, embed_dim=32, depths=[2, 2], num_heads=[4, 8], window_size=4, mlp_ratio=2.0)
vision("ConvNeXt", "ConvNext", hidden_sizes=[16, 32, 48, 64], depths=[1, 1, 2, 1], num_stages=4)
vision("ConvNeXt V2", "ConvNextV2", hidden_sizes=[16, 32, 48, 64], depths=[1, 1, 2, 1], num_stages=4)
vision("ResNet", "ResNet", embedding_size=16, hidden_sizes=[32, 48], depths=[2, 2], layer_type="bottleneck")
vision("ResNet, basic blocks", "ResNet", embedding_size=16, hidden_sizes=[16, 32], depths=[2, 2], layer_type="basic")
vision("RegNet", "RegNet", embedding_size=16, hidden_sizes=[32, 64], depths=[2, 2], groups_width=8)
vision("MobileNetV1", "MobileNetV1", depth_multiplier=0.25, size=64)
vision("MobileNetV2", "MobileNetV2", depth_multiplier=0.35, size=64)
vision("EfficientNet", "EfficientNet", width_coefficient=0.5, depth_coefficient=0.3, image_size=64, hidden_dim=640, size=64)
vision("SegFormer", "Segformer", head="ForSemanticSegmentation", size=64, hidden_sizes=[16, 32, 48, 64], depths=[1, 1, 1, 1],
       num_attention_heads=[2, 4, 4, 8], sr_ratios=[8, 4, 2, 1], decoder_hidden_size=32, mlp_ratios=[2, 2, 2, 2])
vision("PoolFormer", "PoolFormer", size=64, hidden_sizes=[16, 32, 48, 64], depths=[1, 1, 1, 1], mlp_ratio=2.0)
vision("LeViT", "Levit", image_size=64, size=64, hidden_sizes=[32, 48, 64], num_attention_heads=[2, 3, 4], depths=[1, 1, 1], key_dim=[8, 8, 8],
       mlp_ratio=[2, 2, 2], attention_ratio=[2, 2, 2])
vision("CvT", "Cvt", size=64, embed_dim=[16, 32, 64], num_heads=[2, 4, 8], depth=[1, 2, 3], mlp_ratio=[2.0, 2.0, 2.0],
       cls_token=[False, False, True])
vision("MobileViT", "MobileViT", size=64, image_size=64, hidden_sizes=[32, 48, 64], neck_hidden_sizes=[8, 16, 24, 32, 40, 48, 64], num_attention_heads=4)
vision("PVT", "Pvt", size=64, image_size=64, hidden_sizes=[16, 32, 48, 64], depths=[1, 1, 1, 1], num_attention_heads=[2, 4, 4, 8],
       mlp_ratios=[2, 2, 2, 2], num_encoder_blocks=4)


@architecture("CLIP")
def clip():
    shared = dict(hidden_size=64, num_hidden_layers=2, num_attention_heads=8, intermediate_size=80, projection_dim=32)
    config = transformers.CLIPConfig(text_config=dict(vocab_size=WORDS, max_position_embeddings=64, eos_token_id=2, **shared),
                                     vision_config=dict(image_size=32, patch_size=8, **shared), projection_dim=32)
    inputs = {"input_ids": words(), "pixel_values": pixels(), "attention_mask": mask()}
    return make(transformers.CLIPModel, config, inputs, ["text_embeds", "image_embeds", "logits_per_image"], {})


@architecture("SigLIP")
def siglip():
    shared = dict(hidden_size=64, num_hidden_layers=2, num_attention_heads=8, intermediate_size=80)
    config = transformers.SiglipConfig(text_config=dict(vocab_size=WORDS, max_position_embeddings=SEQUENCE, **shared),
                                       vision_config=dict(image_size=32, patch_size=8, **shared))
    return make(transformers.SiglipModel, config, {"input_ids": words(), "pixel_values": pixels()},
                ["text_embeds", "image_embeds", "logits_per_image"], {})


@architecture("BLIP")
def blip():
    shared = dict(hidden_size=64, num_hidden_layers=2, num_attention_heads=8, intermediate_size=80)
    config = transformers.BlipConfig(
        text_config=dict(vocab_size=WORDS, max_position_embeddings=64, encoder_hidden_size=64, bos_token_id=1, eos_token_id=2, pad_token_id=0,
                         sep_token_id=2, projection_dim=32, **shared),
        vision_config=dict(image_size=32, patch_size=8, **shared), projection_dim=32)
    inputs = {"input_ids": words(), "pixel_values": pixels(), "attention_mask": mask()}
    return make(transformers.BlipForConditionalGeneration, config, inputs, ["logits"], {})


@architecture("Whisper")
def whisper():
    config = transformers.WhisperConfig(vocab_size=WORDS, num_mel_bins=16, d_model=64, encoder_layers=2, decoder_layers=2, encoder_attention_heads=8,
                                        decoder_attention_heads=8, encoder_ffn_dim=80, decoder_ffn_dim=80, max_source_positions=30,
                                        max_target_positions=32, pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1)
    features = torch.randn(BATCH, 16, 60, generator=torch.Generator().manual_seed(5))
    return make(transformers.WhisperForConditionalGeneration, config, {"input_features": features, "decoder_input_ids": words(BATCH, 5)},
                ["logits"], {"input_features": {0: "batch"}, "decoder_input_ids": {0: "batch", 1: "length"}}, use_cache=False)


@architecture("Wav2Vec2")
def wav2vec2():
    config = transformers.Wav2Vec2Config(vocab_size=WORDS, hidden_size=64, num_hidden_layers=2, num_attention_heads=8, intermediate_size=80,
                                         conv_dim=(32, 32, 32), conv_stride=(5, 2, 2), conv_kernel=(10, 3, 3), num_feat_extract_layers=3,
                                         num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=4)
    sound = torch.randn(BATCH, 800, generator=torch.Generator().manual_seed(5))
    return make(transformers.Wav2Vec2ForCTC, config, {"input_values": sound}, ["logits"], {"input_values": {0: "batch"}})
