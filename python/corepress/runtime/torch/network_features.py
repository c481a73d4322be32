"""The features of a neural network as the tensors that its layers see, and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor

from ...errors import FormatError
from .schedule import OperationError

_RANK5 = 0  # of both mappings
_RGB, _BGR = 20, 30  # color spaces; the others are gray


@dataclass(frozen=True)
class Kind:
    """Whether a feature is an image, and the shape of an array that has one."""

    is_image: bool = False
    shape: tuple[int, ...] = ()

    @classmethod
    def of(cls, message: Any) -> Kind:
        """Of a ``FeatureType``."""
        kind = message.WhichOneof("Type")
        return cls(kind == "imageType", tuple(message.multiArrayType.shape) if kind == "multiArrayType" else ())


_ARRAY = Kind()


class NetworkInputs:
    """Checks and prepares the inputs of a network.

    Images are scaled, or the mean image is subtracted from them, before their axes are mapped to those that the layers
    see: (sequence, batch, channels, height, width), or their own shape where the network says so.
    """

    def __init__(self, network: Any, description: Any) -> None:
        self._exact_arrays = network.arrayInputShapeMapping != _RANK5
        self._rank4_images = network.imageInputShapeMapping != _RANK5
        self._kinds: dict[str, Kind] = {each.name: Kind.of(each.type) for each in description.input}
        self._spaces = {feature.name: feature.type.imageType.colorSpace for feature in description.input}
        self._steps: dict[str, list[Callable[[Tensor], Tensor]]] = {}
        for step in network.preprocessing:
            name = self._preprocessed(step.featureName)
            self._steps.setdefault(name, []).append(self._preprocessor(name, step))

    def _preprocessed(self, name: str) -> str:
        """The input that a step is for; the only image if it names none."""
        images = [each for each, kind in self._kinds.items() if kind.is_image]
        if not name and len(images) == 1:
            return images[0]
        if name not in self._kinds:
            raise FormatError(f"preprocessing is for {name!r}, which is no input of the model")
        return name

    def _preprocessor(self, name: str, step: Any) -> Callable[[Tensor], Tensor]:
        space = self._spaces[name] if self._kinds[name].is_image else _RGB
        if step.WhichOneof("preprocessor") == "meanImage":
            return _mean_subtraction(name, list(step.meanImage.meanImage))
        return _scaling(step.scaler, space)

    def environment(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The first values of a run."""
        found = {}
        for name, kind in self._kinds.items():
            if name not in inputs:
                raise ValueError(f"input {name!r} is missing")
            value = inputs[name].to(torch.float32)
            for step in self._steps.get(name, ()):
                value = step(value)
            found[name] = self._mapped(name, kind, value)
        return found

    def _mapped(self, name: str, kind: Kind, value: Tensor) -> Tensor:
        if kind.is_image:
            if value.dim() not in (3, 4):
                raise ValueError(f"{name}: images have 3 or 4 axes, not {value.dim()} (shape {tuple(value.shape)})")
            value = value if value.dim() == 4 else value[None]
            return value if self._rank4_images else value[None]
        if self._exact_arrays:
            return value if value.dim() else value.reshape(1)
        return _rank5(name, value, len(kind.shape))


def _rank5(name: str, value: Tensor, declared_rank: int) -> Tensor:
    """An array of shape (sequence, batch, channels, height, width).

    One axis is the channels, three are channels, height and width, and a fourth before these is the batch. Where the
    model declares channels only, further axes before these are the sequence, and the sequence and the batch.
    """
    rank = value.dim()
    if rank <= 1:
        return value.reshape(1, 1, -1, 1, 1)
    if rank == 5:
        return value
    if declared_rank == 1 and rank in (2, 3):
        return value.reshape(value.shape[0], value.shape[1] if rank == 3 else 1, value.shape[-1], 1, 1)
    if rank == 2:
        raise ValueError(f"{name}: arrays have 1, 3, 4 or 5 axes in this network, not 2 (shape {tuple(value.shape)})")
    if rank > 5:
        raise ValueError(f"{name}: arrays have at most 5 axes, not {rank} (shape {tuple(value.shape)})")
    return value[(None,) * (5 - rank)]


def _scaling(scaler: Any, space: int) -> Callable[[Tensor], Tensor]:
    """Channels times one factor, plus a bias for each color, in the order of the image's colors."""
    factor = float(scaler.channelScale)
    colors = [scaler.blueBias, scaler.greenBias, scaler.redBias]
    colors = colors if space == _BGR else colors[::-1]

    def scale(image: Tensor) -> Tensor:
        channels = image.shape[-3] if image.dim() >= 3 else 1
        biases = colors if channels == 3 else [scaler.grayBias]
        y = image * factor
        return y + image.new_tensor(biases)[:, None, None] if any(biases) else y

    return scale


def _mean_subtraction(name: str, mean: list[float]) -> Callable[[Tensor], Tensor]:
    def subtract(image: Tensor) -> Tensor:
        shape = image.shape[-3:]
        if shape.numel() != len(mean):
            raise ValueError(f"{name}: the mean image has {len(mean)} values, but the image has shape {tuple(shape)}")
        return image - image.new_tensor(mean).reshape(shape)

    return subtract


class NetworkOutputs:
    """Collects the outputs of a network.

    An array that the description declares with another rank, but as many elements, gets the declared shape. Where the
    layers see five axes and no such shape is declared, an output loses sequence and batch if both are 1, and then
    height and width if both are 1 too.

    Attributes
    ----------
    blobs : dict of str to str
        Names of outputs, and of the values that they are.
    class_labels : tuple of str or int, or None
        Labels of a classifier.
    label_name, scores_name : str
        Outputs of a classifier: the best label, and the scores.
    """

    def __init__(self, network: Any, description: Any) -> None:
        self._exact = network.arrayInputShapeMapping != _RANK5
        self._kinds = {feature.name: Kind.of(feature.type) for feature in description.output}
        self.blobs = {name: name for name in self._kinds}
        self.class_labels: tuple[Any, ...] | None = None
        self.label_name = self.scores_name = ""
        kind = network.WhichOneof("ClassLabels")
        if kind is None:
            return
        self.class_labels = tuple(getattr(network, kind).vector)
        scores = network.labelProbabilityLayerName
        if not scores:
            outputs = [name for layer in network.layers for name in layer.output]
            scores = outputs[-1] if outputs else ""
        self.label_name = description.predictedFeatureName
        self.blobs.pop(self.label_name, None)
        self.scores_name = description.predictedProbabilitiesName or scores
        self.blobs[self.scores_name] = scores

    def collect(self, environment: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The outputs of a run."""
        found = {}
        for name, blob in self.blobs.items():
            if blob not in environment:
                raise OperationError(f"no layer has computed {blob!r}, the output {name!r} of the model")
            found[name] = self._mapped(self._kinds.get(name, _ARRAY), environment[blob])
        return found

    def _mapped(self, kind: Kind, value: Tensor) -> Tensor:
        if kind.is_image:
            return value.reshape(value.shape[-4:]) if value.dim() == 5 and value.shape[0] == 1 else value
        declared = kind.shape
        if declared and len(declared) != value.dim() and prod(declared) == value.numel():
            return value.reshape(declared)
        if self._exact or value.dim() != 5 or value.shape[:2] != (1, 1):
            return value
        if value.shape[3:] == (1, 1) and len(declared) != 3:
            return value[0, 0, :, 0, 0]
        return value[0, 0]

    def classify(self, scores: Tensor) -> tuple[Any, dict[Any, float]]:
        """The label with the highest score, the first of several, and all scores by label."""
        labels = self.class_labels
        if labels is None:
            raise ValueError("the network is no classifier")
        values = scores.detach().reshape(-1).tolist()
        if len(values) != len(labels):
            raise OperationError(f"a classifier of {len(labels)} labels has {len(values)} scores")
        best = max(range(len(values)), key=values.__getitem__)
        return labels[best], dict(zip(labels, values, strict=True))
