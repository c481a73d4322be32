"""Networks as they are converted in practice, from definitions without trained weights: drawn, and rounded to float16.

Each builder returns a module that takes tensors and returns one, with an example of each input.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


@dataclass
class Architecture:
    """A network to convert.

    Attributes
    ----------
    module : torch.nn.Module
        Takes the inputs in order, and returns a tensor or a tuple of them.
    inputs : dict of str to torch.Tensor
        An example of each input.
    target : str
        Deployment target.
    """

    module: nn.Module
    inputs: dict[str, Tensor]
    target: str = "iOS18"
    options: dict[str, Any] = field(default_factory=dict)


BUILDERS: dict[str, Callable[[], Architecture]] = {}


def architecture(name: str) -> Callable[[Callable[[], Architecture]], Callable[[], Architecture]]:
    def register(builder: Callable[[], Architecture]) -> Callable[[], Architecture]:
        BUILDERS[name] = builder
        return builder

    return register


def build(name: str) -> Architecture:
    """A network with weights on the grid of float16."""
    torch.manual_seed(0)
    found = BUILDERS[name]()
    found.module.eval().requires_grad_(False)
    for tensor in [*found.module.parameters(), *found.module.buffers()]:
        if tensor.is_floating_point():
            tensor.copy_(tensor.half().float())
    return found


class Call(nn.Module):
    """A module called with fixed arguments beside its inputs."""

    def __init__(self, module: nn.Module, names: tuple[str, ...], pick: Callable[[Any], Tensor], **fixed: Any) -> None:
        super().__init__()
        self.module, self.names, self.pick, self.fixed = module, names, pick, fixed

    def forward(self, *values: Tensor) -> Tensor:
        return self.pick(self.module(**dict(zip(self.names, values, strict=True)), **self.fixed))


def _first(result: Any) -> Tensor:
    found: Tensor = result[0]
    return found


def _ids(vocabulary: int, length: int) -> Tensor:
    return torch.randint(0, vocabulary, (1, length), dtype=torch.int32)


def _mask(length: int, *, causal: bool) -> Tensor:
    """A 4-D mask to be added to scores."""
    mask = torch.zeros(1, 1, length, length)
    return mask.masked_fill(torch.ones(length, length).triu(1).bool(), -1e4) if causal else mask


def _settled(module: nn.Module) -> nn.Module:
    """A network whose batch norms have seen something, so that their statistics are not those of a new one."""
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.running_mean.normal_(0, 0.1)  # type: ignore[union-attr]
            norm.running_var.uniform_(0.5, 1.5)  # type: ignore[union-attr]
    return module


def _unet(config: dict[str, Any]) -> Architecture:
    from diffusers import UNet2DConditionModel

    unet = UNet2DConditionModel(**config)
    width = config["cross_attention_dim"]
    inputs = {
        "sample": torch.randn(1, 4, 16, 16),
        "timestep": torch.tensor([10.0]),
        "context": torch.randn(1, 77, width),
    }
    names = "sample", "timestep", "encoder_hidden_states"
    return Architecture(Call(unet, names, _first, return_dict=False), inputs)


@architecture("tiny diffusion UNet")
def tiny_unet() -> Architecture:
    return _unet(
        {
            "sample_size": 16,
            "block_out_channels": (64, 128),
            "layers_per_block": 1,
            "cross_attention_dim": 64,
            "attention_head_dim": 8,
            "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
            "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        }
    )


def _image(size: int = 64) -> dict[str, Tensor]:
    return {"image": torch.rand(1, 3, size, size)}


@architecture("ResNet-18, iOS 18")
def resnet() -> Architecture:
    from torchvision.models import resnet18

    return Architecture(_settled(resnet18(weights=None)), _image())


@architecture("ResNet-18, iOS 15")
def resnet_ios15() -> Architecture:
    return Architecture(resnet().module, _image(), "iOS15")


@architecture("MobileNetV3")
def mobilenet() -> Architecture:
    from torchvision.models import mobilenet_v3_small

    return Architecture(_settled(mobilenet_v3_small(weights=None)), _image())


@architecture("EfficientNet")
def efficientnet() -> Architecture:
    from torchvision.models import efficientnet_b0

    return Architecture(_settled(efficientnet_b0(weights=None)), _image())


@architecture("DeepLabV3")
def deeplab() -> Architecture:
    from torchvision.models.segmentation import deeplabv3_mobilenet_v3_large

    module = _settled(deeplabv3_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=5))
    return Architecture(Call(module, ("x",), lambda found: found["out"]), {"x": torch.rand(1, 3, 96, 96)})


class _Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(24, 32, 2, bidirectional=True)
        self.gru, self.rnn = nn.GRU(64, 48), nn.RNN(48, 20, nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.rnn(self.gru(self.lstm(x)[0])[0])[0]
        return found


@architecture("LSTM, GRU and RNN, iOS 18")
def recurrent() -> Architecture:
    return Architecture(_Recurrent(), {"x": torch.randn(17, 2, 24)})


@architecture("LSTM, GRU and RNN, iOS 15")
def recurrent_ios15() -> Architecture:
    return Architecture(_Recurrent(), {"x": torch.randn(17, 2, 24)}, "iOS15")


class _Upsampler(nn.Module):
    """Transposed convolutions, resizing in several ways, pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.PReLU(16), nn.AvgPool2d(3, 2, 1))
        self.up = nn.Sequential(nn.ConvTranspose2d(16, 16, 4, 2, 1), nn.InstanceNorm2d(16, affine=True), nn.Hardswish())
        self.last = nn.Conv2d(16, 12, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.up(self.down(x))
        x = nn.functional.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
        x = nn.functional.interpolate(x, size=(40, 36), mode="nearest")
        return nn.functional.pixel_shuffle(self.last(x), 2)


@architecture("super-resolution")
def upsampler() -> Architecture:
    return Architecture(_Upsampler(), {"x": torch.rand(1, 3, 64, 64)})


class _CachedAttention(nn.Module):
    """A block of a language model that keeps keys and values in states."""

    def __init__(self, width: int = 64, heads: int = 4, most: int = 16) -> None:
        super().__init__()
        self.heads = heads
        self.embed = nn.Embedding(100, width)
        self.q, self.k, self.v, self.o = (nn.Linear(width, width) for _ in range(4))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 100)
        self.register_buffer("keys", torch.zeros(1, heads, most, width // heads, dtype=torch.float16))
        self.register_buffer("values", torch.zeros(1, heads, most, width // heads, dtype=torch.float16))

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        x = self.embed(ids)
        end, length = mask.shape[-1], ids.shape[-1]
        start = end - length
        q, k, v = (self._split(part(self.norm(x))) for part in (self.q, self.k, self.v))
        self.keys[:, :, start:end] = k
        self.values[:, :, start:end] = v
        k, v = self.keys[:, :, :end].to(q.dtype), self.values[:, :, :end].to(q.dtype)
        x = x + self.o(nn.functional.scaled_dot_product_attention(q, k, v, mask).transpose(1, 2).flatten(2))
        found: Tensor = self.head(x)
        return found

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


@architecture("GPT block with cache")
def cached() -> Architecture:
    return Architecture(
        _CachedAttention(),
        {"ids": _ids(100, 4), "mask": _mask(4, causal=True)},
        options={
            "states": {"keys": (1, 4, 16, 16), "values": (1, 4, 16, 16)},
            "flexible": {"ids": (1, 8), "mask": (1, 16)},
        },
    )


_SMALL = {"hidden_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 192}


@architecture("BERT")
def bert() -> Architecture:
    from transformers import BertConfig, BertModel

    module = BertModel(BertConfig(vocab_size=200, attn_implementation="eager", **_SMALL), add_pooling_layer=False)
    names = "input_ids", "attention_mask", "position_ids", "token_type_ids"
    inputs = {
        "input_ids": _ids(200, 12),
        "attention_mask": _mask(12, causal=False),
        "position_ids": torch.arange(12, dtype=torch.int32)[None],
        "token_type_ids": torch.zeros(1, 12, dtype=torch.int32),
    }
    return Architecture(Call(module, names, _first, return_dict=False), inputs)


@architecture("ViT")
def vit() -> Architecture:
    from transformers import ViTConfig, ViTModel

    module = ViTModel(ViTConfig(image_size=32, patch_size=8, **_SMALL), add_pooling_layer=False)
    return Architecture(
        Call(module, ("pixel_values",), _first, return_dict=False), {"pixel_values": torch.rand(1, 3, 32, 32)}
    )


@architecture("SegFormer")
def segformer() -> Architecture:
    from transformers import SegformerConfig, SegformerForSemanticSegmentation

    config = SegformerConfig(hidden_sizes=[16, 32, 48, 64], depths=[1, 1, 1, 1], decoder_hidden_size=32, num_labels=5)
    module = SegformerForSemanticSegmentation(config)
    names = ("pixel_values",)
    return Architecture(Call(module, names, _first, return_dict=False), {"pixel_values": torch.rand(1, 3, 64, 64)})


@architecture("wav2vec2")
def wav2vec2() -> Architecture:
    from transformers import Wav2Vec2Config, Wav2Vec2Model

    config = Wav2Vec2Config(
        conv_dim=(32, 32, 32),
        conv_stride=(5, 2, 2),
        conv_kernel=(10, 3, 2),
        attn_implementation="eager",
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=4,
        **_SMALL,
    )
    module = Wav2Vec2Model(config)
    return Architecture(
        Call(module, ("input_values",), _first, return_dict=False), {"input_values": torch.randn(1, 800)}
    )


def _whisper() -> Any:
    from transformers import WhisperConfig, WhisperModel

    sizes = {"encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4, "decoder_attention_heads": 4}
    return WhisperModel(
        WhisperConfig(
            d_model=96,
            encoder_ffn_dim=192,
            decoder_ffn_dim=192,
            num_mel_bins=40,
            max_source_positions=50,
            max_target_positions=32,
            vocab_size=200,
            attn_implementation="eager",
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
            decoder_start_token_id=1,
            **sizes,
        )
    )


@architecture("Whisper encoder")
def whisper_encoder() -> Architecture:
    names = ("input_features",)
    inputs = {"input_features": torch.randn(1, 40, 100)}
    return Architecture(Call(_whisper().encoder, names, _first, return_dict=False), inputs)


class _WhisperDecoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.decoder = _whisper().decoder

    def forward(self, ids: Tensor, mask: Tensor, encoded: Tensor, position_ids: Tensor) -> Tensor:
        found: Tensor = self.decoder(
            input_ids=ids,
            attention_mask=mask,
            encoder_hidden_states=encoded,
            position_ids=position_ids,
            use_cache=False,
            return_dict=False,
        )[0]
        return found


@architecture("Whisper decoder")
def whisper_decoder() -> Architecture:
    inputs = {
        "ids": _ids(200, 8),
        "mask": _mask(8, causal=True),
        "encoded": torch.randn(1, 50, 96),
        "position_ids": torch.arange(8, dtype=torch.int32)[None],
    }
    return Architecture(_WhisperDecoder(), inputs)


@architecture("GPT-2")
def gpt2() -> Architecture:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(vocab_size=200, n_positions=32, n_embd=96, n_layer=2, n_head=4, attn_implementation="eager")
    names = "input_ids", "attention_mask", "position_ids"
    inputs = {
        "input_ids": _ids(200, 10),
        "attention_mask": _mask(10, causal=True),
        "position_ids": torch.arange(10, dtype=torch.int32)[None],
    }
    return Architecture(Call(GPT2LMHeadModel(config), names, _first, use_cache=False, return_dict=False), inputs)


@architecture("LLaMA")
def llama() -> Architecture:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(vocab_size=200, num_key_value_heads=2, attn_implementation="eager", **_SMALL)
    names = "input_ids", "attention_mask", "position_ids"
    inputs = {
        "input_ids": _ids(200, 10),
        "attention_mask": _mask(10, causal=True),
        "position_ids": torch.arange(10, dtype=torch.int32)[None],
    }
    return Architecture(Call(LlamaForCausalLM(config), names, _first, use_cache=False, return_dict=False), inputs)


@architecture("T5 encoder")
def t5() -> Architecture:
    from transformers import T5Config, T5EncoderModel

    module = T5EncoderModel(T5Config(vocab_size=200, d_model=96, d_kv=24, d_ff=192, num_layers=2, num_heads=4))
    names = "input_ids", "attention_mask"
    inputs = {"input_ids": _ids(200, 12), "attention_mask": _mask(12, causal=False)}
    return Architecture(Call(module, names, _first, return_dict=False), inputs)


@architecture("CLIP text encoder")
def clip() -> Architecture:
    from transformers import CLIPTextConfig, CLIPTextModel

    config = CLIPTextConfig(vocab_size=200, max_position_embeddings=20, attn_implementation="eager", **_SMALL)
    names = "input_ids", "position_ids"
    inputs = {"input_ids": _ids(200, 20), "position_ids": torch.arange(20, dtype=torch.int32)[None]}
    return Architecture(Call(CLIPTextModel(config), names, _first, return_dict=False), inputs)


def as_array(tensor: Tensor) -> np.ndarray:
    return tensor.numpy().astype(np.int32 if tensor.dtype == torch.int32 else np.float32)
