"""The layer tables are those of the published models."""

from __future__ import annotations

import math
from collections import Counter

import pytest

from corepress.benchmark.architectures import (
    ARCHITECTURES,
    FLUX1,
    LLAMA_1B,
    SD15,
    SD35_LARGE,
    SDXL,
    DecoderConfig,
    MMDiTConfig,
    UNetConfig,
)
from corepress.config import DEFAULT_WEIGHT_THRESHOLD


@pytest.mark.parametrize("key", ARCHITECTURES)
def test_the_number_of_parameters_is_the_published_one(key):
    model = ARCHITECTURES[key]
    assert sum(math.prod(shape) for shape in model.parameters.values()) == model.published_parameters
    assert model.source.startswith("https://huggingface.co/")


@pytest.mark.parametrize("key", ARCHITECTURES)
def test_layers_are_the_matrices_and_convolutions_worth_compressing(key):
    model = ARCHITECTURES[key]
    assert model.weights == sum(layer.size for layer in model.layers)
    assert 0.999 < model.weights / model.published_parameters < 1  # the rest are biases and factors
    assert all(layer.size > DEFAULT_WEIGHT_THRESHOLD and len(layer.shape) in (2, 4) for layer in model.layers)
    assert {layer.name: layer.shape for layer in model.layers}.items() <= model.parameters.items()


def test_shapes_that_people_know():
    shapes = {key: Counter(layer.shape for layer in model.layers) for key, model in ARCHITECTURES.items()}
    assert shapes["sd15"][320, 4, 3, 3] == 1
    assert shapes["sd15"][1280, 2560, 3, 3] == 5
    assert shapes["sdxl"][10240, 1280] == 60  # a gated feed-forward layer per transformer block of that width
    assert shapes["sd35-large"][14592, 2432] == 2 * 38 - 1
    assert shapes["flux1-dev"][18432, 3072] == 2 * 19
    assert shapes["flux1-dev"][3072, 15360] == 38
    assert shapes["llama-1b"][128_256, 2048] == 1  # the head too
    assert shapes["llama-1b"][512, 2048] == 2 * 16


def _diffusers_models():
    diffusers = pytest.importorskip("diffusers")

    def unet(config: UNetConfig):
        kinds = ["CrossAttn" if layers else "" for layers in config.transformer_layers]
        return diffusers.UNet2DConditionModel(
            in_channels=config.latent_channels,
            out_channels=config.latent_channels,
            block_out_channels=config.block_out_channels,
            layers_per_block=config.layers_per_block,
            cross_attention_dim=config.cross_attention_dim,
            down_block_types=[f"{kind}DownBlock2D" for kind in kinds],
            up_block_types=[f"{kind}UpBlock2D" for kind in reversed(kinds)],
            transformer_layers_per_block=[max(layers, 1) for layers in config.transformer_layers],
            use_linear_projection=config.linear_projection,
            attention_head_dim=8,
            addition_embed_type="text_time" if config.added_features else None,
            addition_time_embed_dim=256 if config.added_features else None,
            projection_class_embeddings_input_dim=config.added_features or None,
        )

    def sd3(config: MMDiTConfig):
        return diffusers.SD3Transformer2DModel(
            sample_size=128,
            patch_size=2,
            in_channels=config.patch_inputs // 4,
            out_channels=config.patch_inputs // 4,
            num_layers=config.joint_blocks,
            attention_head_dim=config.head_width,
            num_attention_heads=config.width // config.head_width,
            joint_attention_dim=config.text_width,
            caption_projection_dim=config.width,
            pooled_projection_dim=config.pooled_width,
            pos_embed_max_size=192,
            qk_norm="rms_norm",
        )

    def flux(config: MMDiTConfig):
        return diffusers.FluxTransformer2DModel(
            in_channels=config.patch_inputs,
            num_layers=config.joint_blocks,
            num_single_layers=config.single_blocks,
            attention_head_dim=config.head_width,
            num_attention_heads=config.width // config.head_width,
            joint_attention_dim=config.text_width,
            pooled_projection_dim=config.pooled_width,
            guidance_embeds=config.guidance,
        )

    return {"sd15": (unet, SD15), "sdxl": (unet, SDXL), "sd35-large": (sd3, SD35_LARGE), "flux1-dev": (flux, FLUX1)}


def _llama(config: DecoderConfig):
    transformers = pytest.importorskip("transformers")
    return transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=config.vocabulary,
            hidden_size=config.width,
            intermediate_size=config.feed_forward,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            num_key_value_heads=config.key_heads,
            tie_word_embeddings=True,
        )
    )


@pytest.mark.parametrize("key", ARCHITECTURES)
@pytest.mark.filterwarnings("ignore")
def test_every_parameter_is_that_of_the_published_code(key):
    make, config = (_llama, LLAMA_1B) if key == "llama-1b" else _diffusers_models()[key]
    import torch

    with torch.device("meta"):
        model = make(config)
    assert {name: tuple(each.shape) for name, each in model.named_parameters()} == ARCHITECTURES[key].parameters
