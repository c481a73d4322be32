"""The parameters of diffusion and language models, by name and shape, derived from their published configurations.

Names are those of diffusers and transformers. The numbers of parameters are published with the checkpoints, and tests
compare the sums.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from ..config import DEFAULT_WEIGHT_THRESHOLD

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Layer:
    """One weight: its name and shape, output channels first."""

    name: str
    shape: Shape

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Architecture:
    """A model, by its parameters.

    Attributes
    ----------
    key, title : str
        Short name and full name.
    list_parameters : callable
        Gives name and shape of all parameters.
    published_parameters : int
        Their number in the published checkpoint.
    source : str
        Where configuration and checkpoint are published.
    """

    key: str
    title: str
    list_parameters: Callable[[], dict[str, Shape]]
    published_parameters: int
    source: str

    @cached_property
    def parameters(self) -> dict[str, Shape]:
        """Shape of every parameter, by name."""
        return self.list_parameters()

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        """The weights that are worth compressing: matrices and convolutions above coremltools' threshold of size."""
        layers = (Layer(name, shape) for name, shape in self.parameters.items() if len(shape) >= 2)
        return tuple(layer for layer in layers if layer.size > DEFAULT_WEIGHT_THRESHOLD)

    @cached_property
    def weights(self) -> int:
        """Number of elements of `layers`."""
        return sum(layer.size for layer in self.layers)


class _Parameters(dict[str, Shape]):
    """Parameters by name, with a method for each kind of layer."""

    def linear(self, name: str, outputs: int, inputs: int, *, bias: bool = True) -> None:
        self._affine(name, (outputs, inputs), bias)

    def conv(self, name: str, outputs: int, inputs: int, kernel: int) -> None:
        self._affine(name, (outputs, inputs, kernel, kernel), True)

    def norm(self, name: str, channels: int, *, bias: bool = True) -> None:
        self._affine(name, (channels,), bias)

    def embedding(self, name: str, width: int, inputs: int) -> None:
        """Two layers that bring time, text or guidance to the width of the network."""
        self.linear(f"{name}.linear_1", width, inputs)
        self.linear(f"{name}.linear_2", width, width)

    def feed_forward(self, name: str, width: int, *, gated: bool = False) -> None:
        """To four times the width and back; twice as wide where one half gates the other (GEGLU)."""
        self.linear(f"{name}.net.0.proj", (8 if gated else 4) * width, width)
        self.linear(f"{name}.net.2", width, 4 * width)

    def _affine(self, name: str, shape: Shape, bias: bool) -> None:
        self[f"{name}.weight"] = shape
        if bias:
            self[f"{name}.bias"] = shape[:1]


@dataclass(frozen=True)
class UNetConfig:
    """The fields of diffusers' UNet2DConditionModel that decide about parameters.

    Attributes
    ----------
    block_out_channels : tuple of int
        Channels of each level, the finest first.
    transformer_layers : tuple of int
        Transformer blocks of each attention of a level; 0: the level has none.
    cross_attention_dim : int
        Width of the text embedding.
    added_features : int
        Inputs of the embedding of pooled text and image size; 0: there is none.
    linear_projection : bool
        Whether attentions project by matrices, not by convolutions of one pixel.
    """

    block_out_channels: tuple[int, ...]
    transformer_layers: tuple[int, ...]
    cross_attention_dim: int
    added_features: int = 0
    linear_projection: bool = False
    layers_per_block: int = 2
    latent_channels: int = 4


def unet_parameters(config: UNetConfig) -> dict[str, Shape]:
    """The parameters of a UNet with cross-attention, in the order of its work."""
    unet = _UNet(config)
    widths, last = config.block_out_channels, len(config.block_out_channels) - 1
    unet.conv("conv_in", widths[0], config.latent_channels, 3)
    unet.embedding("time_embedding", unet.time_width, widths[0])
    if config.added_features:
        unet.embedding("add_embedding", unet.time_width, config.added_features)
    skips = [widths[0]]  # channels of what the way up takes from the way down
    inputs = widths[0]
    for level, width in enumerate(widths):
        for index in range(config.layers_per_block):
            unet.layer(f"down_blocks.{level}", index, inputs, width, config.transformer_layers[level])
            inputs = width
            skips.append(width)
        if level != last:
            unet.conv(f"down_blocks.{level}.downsamplers.0.conv", width, width, 3)
            skips.append(width)
    unet.layer("mid_block", 0, inputs, inputs, config.transformer_layers[-1] or 1)
    unet.resnet("mid_block.resnets.1", inputs, inputs)
    for block, level in enumerate(range(last, -1, -1)):
        width = widths[level]
        for index in range(config.layers_per_block + 1):
            unet.layer(f"up_blocks.{block}", index, inputs + skips.pop(), width, config.transformer_layers[level])
            inputs = width
        if level:
            unet.conv(f"up_blocks.{block}.upsamplers.0.conv", width, width, 3)
    unet.norm("conv_norm_out", widths[0])
    unet.conv("conv_out", config.latent_channels, widths[0], 3)
    return dict(unet)


class _UNet(_Parameters):
    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        self.time_width = 4 * config.block_out_channels[0]

    def layer(self, block: str, index: int, inputs: int, outputs: int, transformers: int) -> None:
        self.resnet(f"{block}.resnets.{index}", inputs, outputs)
        if transformers:
            self.attention(f"{block}.attentions.{index}", outputs, transformers)

    def resnet(self, name: str, inputs: int, outputs: int) -> None:
        self.norm(f"{name}.norm1", inputs)
        self.conv(f"{name}.conv1", outputs, inputs, 3)
        self.linear(f"{name}.time_emb_proj", outputs, self.time_width)
        self.norm(f"{name}.norm2", outputs)
        self.conv(f"{name}.conv2", outputs, outputs, 3)
        if inputs != outputs:
            self.conv(f"{name}.conv_shortcut", outputs, inputs, 1)

    def attention(self, name: str, width: int, transformers: int) -> None:
        self.norm(f"{name}.norm", width)
        self._projection(f"{name}.proj_in", width)
        for index in range(transformers):
            block = f"{name}.transformer_blocks.{index}"
            for number, keys_from in ((1, width), (2, self.config.cross_attention_dim)):
                self.norm(f"{block}.norm{number}", width)
                self.linear(f"{block}.attn{number}.to_q", width, width, bias=False)
                self.linear(f"{block}.attn{number}.to_k", width, keys_from, bias=False)
                self.linear(f"{block}.attn{number}.to_v", width, keys_from, bias=False)
                self.linear(f"{block}.attn{number}.to_out.0", width, width)
            self.norm(f"{block}.norm3", width)
            self.feed_forward(f"{block}.ff", width, gated=True)
        self._projection(f"{name}.proj_out", width)

    def _projection(self, name: str, width: int) -> None:
        if self.config.linear_projection:
            self.linear(name, width, width)
        else:
            self.conv(name, width, width, 1)


@dataclass(frozen=True)
class MMDiTConfig:
    """Multimodal diffusion transformers, SD3Transformer2DModel and FluxTransformer2DModel of diffusers.

    Attributes
    ----------
    width, head_width : int
        Width of the network and of a head of its attentions.
    joint_blocks, single_blocks : int
        Blocks with weights for image and text each, and blocks after them with common weights.
    text_width, pooled_width : int
        Widths of the text embeddings.
    patch_inputs : int
        Values of an image patch.
    guidance : bool
        Whether there is an embedding of the guidance scale.
    convolutional_patches : bool
        Whether patches are embedded by a convolution, of 2 x 2 pixels.
    last_block_drops_text : bool
        Whether the last joint block has no text to pass on.
    """

    width: int
    head_width: int
    joint_blocks: int
    single_blocks: int
    text_width: int
    pooled_width: int
    patch_inputs: int
    guidance: bool
    convolutional_patches: bool
    last_block_drops_text: bool


def mmdit_parameters(config: MMDiTConfig) -> dict[str, Shape]:
    """The parameters of a multimodal diffusion transformer, in the order of its work."""
    transformer, width = _Transformer(), config.width
    if config.convolutional_patches:
        transformer.conv("pos_embed.proj", width, config.patch_inputs // 4, 2)
    else:
        transformer.linear("x_embedder", width, config.patch_inputs)
    for name in ("timestep", "guidance") if config.guidance else ("timestep",):
        transformer.embedding(f"time_text_embed.{name}_embedder", width, 256)
    transformer.embedding("time_text_embed.text_embedder", width, config.pooled_width)
    transformer.linear("context_embedder", width, config.text_width)
    for index in range(config.joint_blocks):
        drops_text = config.last_block_drops_text and index == config.joint_blocks - 1
        transformer.joint_block(f"transformer_blocks.{index}", config, drops_text)
    for index in range(config.single_blocks):
        transformer.single_block(f"single_transformer_blocks.{index}", config)
    transformer.linear("norm_out.linear", 2 * width, width)
    transformer.linear("proj_out", config.patch_inputs, width)
    return dict(transformer)


class _Transformer(_Parameters):
    def joint_block(self, name: str, config: MMDiTConfig, drops_text: bool) -> None:
        width = config.width
        self.linear(f"{name}.norm1.linear", 6 * width, width)
        self.linear(f"{name}.norm1_context.linear", (2 if drops_text else 6) * width, width)
        for part in ("to_q", "to_k", "to_v", "add_q_proj", "add_k_proj", "add_v_proj", "to_out.0"):
            self.linear(f"{name}.attn.{part}", width, width)
        for part in ("norm_q", "norm_k", "norm_added_q", "norm_added_k"):
            self.norm(f"{name}.attn.{part}", config.head_width, bias=False)
        self.feed_forward(f"{name}.ff", width)
        if not drops_text:
            self.linear(f"{name}.attn.to_add_out", width, width)
            self.feed_forward(f"{name}.ff_context", width)

    def single_block(self, name: str, config: MMDiTConfig) -> None:
        width = config.width
        self.linear(f"{name}.norm.linear", 3 * width, width)
        self.linear(f"{name}.proj_mlp", 4 * width, width)
        self.linear(f"{name}.proj_out", width, 5 * width)
        for part in ("norm_q", "norm_k"):
            self.norm(f"{name}.attn.{part}", config.head_width, bias=False)
        for part in ("to_q", "to_k", "to_v"):
            self.linear(f"{name}.attn.{part}", width, width)


@dataclass(frozen=True)
class DecoderConfig:
    """The fields of transformers' LlamaConfig that decide about parameters; the head is the embedding.

    Attributes
    ----------
    vocabulary : int
        Rows of the embedding.
    width, feed_forward : int
        Of the hidden states, and within a feed-forward layer.
    layers : int
        Number of blocks.
    heads, key_heads : int
        Heads of queries, and those of keys and values.
    """

    vocabulary: int
    width: int
    layers: int
    heads: int
    key_heads: int
    feed_forward: int


def decoder_parameters(config: DecoderConfig) -> dict[str, Shape]:
    """The parameters of LlamaForCausalLM with a tied head."""
    found, width = _Parameters(), config.width
    shared = width // config.heads * config.key_heads
    found["model.embed_tokens.weight"] = (config.vocabulary, width)
    for index in range(config.layers):
        block = f"model.layers.{index}"
        for name, outputs in (("q", width), ("k", shared), ("v", shared), ("o", width)):
            found.linear(f"{block}.self_attn.{name}_proj", outputs, width, bias=False)
        for name in ("gate", "up"):
            found.linear(f"{block}.mlp.{name}_proj", config.feed_forward, width, bias=False)
        found.linear(f"{block}.mlp.down_proj", width, config.feed_forward, bias=False)
        for name in ("input", "post_attention"):
            found.norm(f"{block}.{name}_layernorm", width, bias=False)
    found.norm("model.norm", width, bias=False)
    return found


SD15 = UNetConfig(
    block_out_channels=(320, 640, 1280, 1280),
    transformer_layers=(1, 1, 1, 0),
    cross_attention_dim=768,
)
SDXL = UNetConfig(
    block_out_channels=(320, 640, 1280),
    transformer_layers=(0, 2, 10),
    cross_attention_dim=2048,
    added_features=2816,
    linear_projection=True,
)
SD35_LARGE = MMDiTConfig(
    width=2432,
    head_width=64,
    joint_blocks=38,
    single_blocks=0,
    text_width=4096,
    pooled_width=2048,
    patch_inputs=64,
    guidance=False,
    convolutional_patches=True,
    last_block_drops_text=True,
)
FLUX1 = MMDiTConfig(
    width=3072,
    head_width=128,
    joint_blocks=19,
    single_blocks=38,
    text_width=4096,
    pooled_width=768,
    patch_inputs=64,
    guidance=True,
    convolutional_patches=False,
    last_block_drops_text=False,
)


LLAMA_1B = DecoderConfig(vocabulary=128_256, width=2048, layers=16, heads=32, key_heads=8, feed_forward=8192)


def _on_the_hub(repository: str, folder: str = "") -> str:
    return f"https://huggingface.co/{repository}/tree/main/{folder}"


ARCHITECTURES: dict[str, Architecture] = {
    each.key: each
    for each in (
        Architecture(
            "sd15",
            "Stable Diffusion 1.5 UNet",
            lambda: unet_parameters(SD15),
            859_520_964,
            _on_the_hub("stable-diffusion-v1-5/stable-diffusion-v1-5", "unet"),
        ),
        Architecture(
            "sdxl",
            "SDXL UNet",
            lambda: unet_parameters(SDXL),
            2_567_463_684,
            _on_the_hub("stabilityai/stable-diffusion-xl-base-1.0", "unet"),
        ),
        Architecture(
            "sd35-large",
            "Stable Diffusion 3.5 Large",
            lambda: mmdit_parameters(SD35_LARGE),
            8_056_627_520,  # without the table of positions, which is no parameter
            _on_the_hub("stabilityai/stable-diffusion-3.5-large", "transformer"),
        ),
        Architecture(
            "flux1-dev",
            "FLUX.1-dev",
            lambda: mmdit_parameters(FLUX1),
            11_901_408_320,
            _on_the_hub("black-forest-labs/FLUX.1-dev", "transformer"),
        ),
        Architecture(
            "llama-1b",
            "Llama 3.2 1B",
            lambda: decoder_parameters(LLAMA_1B),
            1_235_814_400,
            _on_the_hub("meta-llama/Llama-3.2-1B"),
        ),
    )
}
