"""A small diffusion UNet as a Core ML package, with weights that are distributed like trained ones."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .program import ProgramBuilder, Variable

SEED = 20260101
LATENT_CHANNELS, LATENT_SIZE = 4, 32
TEXT_TOKENS, TEXT_WIDTH = 77, 256
TIME_FEATURES, TIME_WIDTH = 64, 256
BLOCK_CHANNELS = (64, 128, 256)
NORM_GROUPS = 16
HEAD_WIDTH = 32


@dataclass
class TrainedLikeWeights:
    """Draws weights from a fixed seed and remembers their number and the energy (sum of squares) of each, by name."""

    generator: np.random.Generator = field(default_factory=lambda: np.random.default_rng(SEED))
    energies: dict[str, float] = field(default_factory=dict)
    count: int = 0

    def matrix(self, name: str, shape: tuple[int, ...]) -> NDArray[np.float16]:
        """Rows of differing scale and tails a little heavier than a normal distribution's."""
        rows = shape[0]
        values = self.generator.standard_normal((rows, math.prod(shape[1:])), np.float32)
        values *= 1.0 + 0.06 * values**2
        row_scale = np.exp(0.35 * self.generator.standard_normal((rows, 1), np.float32))
        values *= row_scale / np.float32(1.2 * math.sqrt(math.prod(shape[1:])))
        return self._remember(name, values.reshape(shape))

    def vector(self, name: str, size: int, mean: float) -> NDArray[np.float16]:
        return self._remember(name, mean + 0.05 * self.generator.standard_normal(size, np.float32))

    def _remember(self, name: str, values: NDArray[np.float32]) -> NDArray[np.float16]:
        half = values.astype(np.float16)
        self.count += half.size
        self.energies[name] = float(np.square(half, dtype=np.float64).sum())
        return half


class UNet:
    """The layers of a latent-diffusion UNet as MIL operations, named as diffusers names them."""

    def __init__(self, program: ProgramBuilder, weights: TrainedLikeWeights) -> None:
        self.op = program
        self.weights = weights

    def _const(self, name: str, values: NDArray[np.float16]) -> Variable:
        return self.op.const(name, values)

    def _matrix(self, name: str, shape: tuple[int, ...]) -> Variable:
        return self._const(f"{name}_weight", self.weights.matrix(f"{name}_weight", shape))

    def _bias(self, name: str, size: int) -> Variable:
        return self._const(f"{name}_bias", self.weights.vector(f"{name}_bias", size, 0.0))

    def conv(self, name: str, x: Variable, channels: int, kernel: int = 3, stride: int = 1) -> Variable:
        return self.op(
            "conv",
            x=x,
            weight=self._matrix(name, (channels, x.shape[1], kernel, kernel)),
            bias=self._bias(name, channels),
            strides=[stride, stride],
            pad_type="custom",
            pad=[kernel // 2] * 4,
            dilations=[1, 1],
            groups=1,
            name=name,
        )

    def linear(self, name: str, x: Variable, width: int, bias: bool = True) -> Variable:
        weight = self._matrix(name, (width, x.shape[-1]))
        added = self._bias(name, width) if bias else np.zeros(width, np.float16)
        return self.op("linear", x=x, weight=weight, bias=added, name=name)

    def group_norm(self, name: str, x: Variable) -> Variable:
        op, (_, channels, height, width) = self.op, x.shape
        grouped = op("reshape", x=x, shape=[1, NORM_GROUPS, channels // NORM_GROUPS, height, width])
        axes = [2, 3, 4]
        centred = op("sub", x=grouped, y=op("reduce_mean", x=grouped, axes=axes, keep_dims=True))
        variance = op("reduce_mean", x=op("mul", x=centred, y=centred), axes=axes, keep_dims=True)
        normed = op("mul", x=centred, y=op("rsqrt", x=variance, epsilon=np.float16(1e-5)))
        flat = op("reshape", x=normed, shape=[1, channels, height, width])
        gamma = self.weights.vector(f"{name}_weight", channels, 1.0).reshape(1, channels, 1, 1)
        beta = self.weights.vector(f"{name}_bias", channels, 0.0).reshape(1, channels, 1, 1)
        scaled = op("mul", x=flat, y=self._const(f"{name}_weight", gamma))
        return op("add", x=scaled, y=self._const(f"{name}_bias", beta), name=name)

    def layer_norm(self, name: str, x: Variable) -> Variable:
        width = x.shape[-1]
        gamma = self._const(f"{name}_weight", self.weights.vector(f"{name}_weight", width, 1.0))
        epsilon = np.float16(1e-5)
        return self.op(
            "layer_norm", x=x, axes=[-1], gamma=gamma, beta=self._bias(name, width), epsilon=epsilon, name=name
        )

    def resnet(self, name: str, x: Variable, time: Variable, channels: int) -> Variable:
        op = self.op
        hidden = self.conv(f"{name}_conv1", op("silu", x=self.group_norm(f"{name}_norm1", x)), channels)
        shift = self.linear(f"{name}_time_emb_proj", op("silu", x=time), channels)
        hidden = op("add", x=hidden, y=op("reshape", x=shift, shape=[1, channels, 1, 1]))
        hidden = self.conv(f"{name}_conv2", op("silu", x=self.group_norm(f"{name}_norm2", hidden)), channels)
        shortcut = x if x.shape[1] == channels else self.conv(f"{name}_conv_shortcut", x, channels, kernel=1)
        return op("add", x=shortcut, y=hidden, name=name)

    def attention(self, name: str, x: Variable, context: Variable) -> Variable:
        op, width = self.op, x.shape[-1]
        heads = width // HEAD_WIDTH

        def split(projected: Variable) -> Variable:
            by_head = op("reshape", x=projected, shape=[1, -1, heads, HEAD_WIDTH])
            return op("transpose", x=by_head, perm=[0, 2, 1, 3])

        query = split(self.linear(f"{name}_to_q", x, width, bias=False))
        key = split(self.linear(f"{name}_to_k", context, width, bias=False))
        value = split(self.linear(f"{name}_to_v", context, width, bias=False))
        scaled = op("mul", x=query, y=np.float16(HEAD_WIDTH**-0.5))
        scores = op("matmul", x=scaled, y=key, transpose_y=True, transpose_x=False)
        mixed = op("matmul", x=op("softmax", x=scores, axis=-1), y=value, transpose_x=False, transpose_y=False)
        merged = op("reshape", x=op("transpose", x=mixed, perm=[0, 2, 1, 3]), shape=[1, -1, width])
        return self.linear(f"{name}_to_out_0", merged, width)

    def transformer(self, name: str, x: Variable, text: Variable) -> Variable:
        op, (_, channels, height, width) = self.op, x.shape
        tokens = self.conv(f"{name}_proj_in", self.group_norm(f"{name}_norm", x), channels, kernel=1)
        tokens = op("transpose", x=op("reshape", x=tokens, shape=[1, channels, height * width]), perm=[0, 2, 1])
        block = f"{name}_transformer_blocks_0"
        normed = self.layer_norm(f"{block}_norm1", tokens)
        tokens = op("add", x=tokens, y=self.attention(f"{block}_attn1", normed, normed))
        normed = self.layer_norm(f"{block}_norm2", tokens)
        tokens = op("add", x=tokens, y=self.attention(f"{block}_attn2", normed, text))
        normed = self.layer_norm(f"{block}_norm3", tokens)
        wide = self.linear(f"{block}_ff_net_0_proj", normed, 8 * channels)
        hidden, gate = op.split(wide, 2)
        gated = op("mul", x=hidden, y=op("gelu", x=gate, mode="TANH_APPROXIMATION"))
        tokens = op("add", x=tokens, y=self.linear(f"{block}_ff_net_2", gated, channels))
        image = op("reshape", x=op("transpose", x=tokens, perm=[0, 2, 1]), shape=[1, channels, height, width])
        return op("add", x=x, y=self.conv(f"{name}_proj_out", image, channels, kernel=1), name=name)

    def time_embedding(self, timestep: Variable) -> Variable:
        op, half = self.op, TIME_FEATURES // 2
        frequencies = np.exp(-math.log(10000.0) * np.arange(half) / half).astype(np.float16)
        row = self._const("time_proj_frequencies", frequencies.reshape(1, half))
        angles = op("mul", x=op("expand_dims", x=timestep, axes=[1]), y=row)
        features = op("concat", values=[op("cos", x=angles), op("sin", x=angles)], axis=-1, interleave=False)
        hidden = op("silu", x=self.linear("time_embedding_linear_1", features, TIME_WIDTH))
        return self.linear("time_embedding_linear_2", hidden, TIME_WIDTH)

    def __call__(self, sample: Variable, timestep: Variable, text: Variable) -> Variable:
        op, last = self.op, len(BLOCK_CHANNELS) - 1
        time = self.time_embedding(timestep)
        x = self.conv("conv_in", sample, BLOCK_CHANNELS[0])
        skips = [x]
        for level, channels in enumerate(BLOCK_CHANNELS):
            block = f"down_blocks_{level}"
            x = self.resnet(f"{block}_resnets_0", x, time, channels)
            if 0 < level < last:
                x = self.transformer(f"{block}_attentions_0", x, text)
            skips.append(x)
            if level < last:
                x = self.conv(f"{block}_downsamplers_0_conv", x, channels, stride=2)
                skips.append(x)

        x = self.resnet("mid_block_resnets_0", x, time, BLOCK_CHANNELS[last])
        x = self.transformer("mid_block_attentions_0", x, text)
        x = self.resnet("mid_block_resnets_1", x, time, BLOCK_CHANNELS[last])

        for level, channels in enumerate(reversed(BLOCK_CHANNELS)):
            block = f"up_blocks_{level}"
            for index in range(2):
                x = op("concat", values=[x, skips.pop()], axis=1, interleave=False)
                x = self.resnet(f"{block}_resnets_{index}", x, time, channels)
                if 0 < level < last:
                    x = self.transformer(f"{block}_attentions_{index}", x, text)
            if level < last:
                x = op("upsample_nearest_neighbor", x=x, scale_factor_height=2, scale_factor_width=2)
                x = self.conv(f"{block}_upsamplers_0_conv", x, channels)
        x = op("silu", x=self.group_norm("conv_norm_out", x))
        return op("identity", x=self.conv("conv_out", x, LATENT_CHANNELS), name="noise_pred")


def build_unet(destination: Path) -> TrainedLikeWeights:
    """Write the demo's UNet to `destination`, a new ``.mlpackage``.

    The package has specification version 9 (iOS 18) and float16 weights, about 12 million.

    Returns
    -------
    TrainedLikeWeights
        The number of weights and the energy of each.
    """
    weights = TrainedLikeWeights()
    description = "A small diffusion UNet with random weights, made by corepress demo"
    with ProgramBuilder(destination, 9, description) as program:
        sample = program.input("sample", (1, LATENT_CHANNELS, LATENT_SIZE, LATENT_SIZE))
        timestep = program.input("timestep", (1,))
        text = program.input("encoder_hidden_states", (1, TEXT_TOKENS, TEXT_WIDTH))
        program.output(UNet(program, weights)(sample, timestep, text))
    return weights
