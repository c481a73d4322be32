"""Models that NumPy computes in a few lines: linear models, feature engineering, and the suppression of boxes.

They are what pipelines have before and after their networks, such as the last model of an object detector.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..coreml.format.messages import parse_message
from ..coreml.format.small_models import SmallModel
from ..errors import FormatError, UnsupportedOperationError
from .backend import State
from .features import Description

Values = Mapping[str, Any]
Function = Callable[[Values], dict[str, Any]]
Build = Callable[[Any, Description], Function]
_BUILDERS: dict[str, Build] = {}


def _builds(kind: str) -> Callable[[Build], Build]:
    def register(build: Build) -> Build:
        _BUILDERS[kind] = build
        return build

    return register


def is_small_model(kind: str) -> bool:
    """Whether models of this kind, the field of their type, are run here."""
    return kind in _BUILDERS


class SmallModelBackend:
    """A small model, run by NumPy; see `Backend`.

    Parameters
    ----------
    data : bytes
        The serialized model.
    description : Description
        What it takes and returns.

    Raises
    ------
    UnsupportedOperationError
        If it uses an option that is not supported.
    FormatError
        If it is damaged.
    """

    name = "numpy"
    module = None

    def __init__(self, data: bytes, description: Description) -> None:
        message = parse_message(data, SmallModel)
        kind = message.WhichOneof("Type")
        try:
            self._run = _BUILDERS[kind](getattr(message, kind), description)
        except IndexError as error:
            raise FormatError(f"the model ({kind}) describes no outputs") from error

    def predict(self, inputs: Values, state: State | None) -> dict[str, Any]:
        """Run once."""
        try:
            return self._run(inputs)
        except KeyError as error:
            raise FormatError(f"the model takes a feature {error}, which it does not describe") from error

    def values(self, inputs: Values, state: State | None) -> Iterator[tuple[str, Any]]:
        """Yield the outputs, which are all there is."""
        yield from self.predict(inputs, state).items()

    def make_state(self) -> None:
        """None: these models have no states."""
        return


def _vector(inputs: Values, names: list[str]) -> NDArray[np.float64]:
    """Several numbers and arrays, one after another."""
    return np.concatenate([np.asarray(inputs[name], np.float64).reshape(-1) for name in names])


def _only(description: Description, kind: str) -> tuple[str, str]:
    """The names of the only input and the only output."""
    if len(description.inputs) != 1 or len(description.outputs) != 1:
        raise FormatError(f"{kind} must have one input and one output")
    return description.inputs[0].name, description.outputs[0].name


def _choice(options: tuple[Any, ...], number: int) -> Any:
    """What an enumeration means."""
    if not 0 <= number < len(options):
        raise FormatError(f"the model has an option {number}, which is unknown here")
    return options[number]


def _normal(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.array([0.5 * math.erfc(-each / math.sqrt(2)) for each in x])


def _logistic(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(0.5 * (1 + np.tanh(x / 2)))


def _linear(message: Any, description: Description) -> Function:
    """Sums of the inputs with each row of weights, in double precision."""
    rows = [np.array(each.value) for each in message.weights]
    if not rows or len({each.size for each in rows}) != 1 or len(message.offset) not in (0, len(rows)):
        raise FormatError("a linear model must have rows of weights of one length, and an offset for each")
    weights, offset = np.stack(rows), np.array(list(message.offset) or [0.0] * len(rows))
    names = [each.name for each in description.inputs]

    def run(inputs: Values) -> dict[str, Any]:
        x = _vector(inputs, names)
        if x.size != weights.shape[1]:
            raise ValueError(f"predict: the inputs have {x.size} values, but the model has {weights.shape[1]} weights")
        return {"": weights @ x + offset}

    return run


@_builds("glmRegressor")
def _regressor(message: Any, description: Description) -> Function:
    linear = _linear(message, description)
    transform = _choice((None, _logistic, _normal), message.postEvaluationTransform)
    name = description.predicted_feature or description.outputs[0].name

    def run(inputs: Values) -> dict[str, Any]:
        y = linear(inputs)[""]
        return {name: y if transform is None else transform(y)}

    return run


@_builds("glmClassifier")
def _classifier(message: Any, description: Description) -> Function:
    linear = _linear(message, description)
    is_probit, one_versus_rest = message.postEvaluationTransform, message.classEncoding
    labels = _labels(message)
    rows = len(message.weights)
    if labels is None or rows != (len(labels) if one_versus_rest else len(labels) - 1):
        raise FormatError(f"a linear classifier with {len(labels or ())} classes has {rows} rows of weights")
    if is_probit and rows > 1 and not one_versus_rest:
        raise UnsupportedOperationError("load: a linear classifier of several classes by probit cannot be run here")
    transform = _normal if is_probit else _logistic

    def probabilities(x: NDArray[np.float64]) -> NDArray[np.float64]:
        if one_versus_rest:
            each = transform(x)
            return np.asarray(each / each.sum())
        if rows == 1:
            second = transform(x)[0]
            return np.array([1 - second, second])
        scores = np.concatenate([[0.0], x])  # the first class is what the others are relative to
        powers = np.exp(scores - scores.max())
        return np.asarray(powers / powers.sum())

    def run(inputs: Values) -> dict[str, Any]:
        found = probabilities(linear(inputs)[""])
        return {
            description.predicted_feature: labels[int(found.argmax())],
            description.predicted_probabilities: dict(zip(labels, found.tolist(), strict=True)),
        }

    return run


def _labels(message: Any) -> list[Any] | None:
    kind = message.WhichOneof("ClassLabels")
    return None if kind is None else list(getattr(message, kind).vector)


@_builds("identity")
def _identity(message: Any, description: Description) -> Function:
    pairs = list(zip(description.inputs, description.outputs, strict=False))
    return lambda inputs: {output.name: inputs[each.name] for each, output in pairs}


@_builds("scaler")
def _scaler(message: Any, description: Description) -> Function:
    given, made = _only(description, "a scaler")
    shift, scale = np.array(message.shiftValue or [0.0]), np.array(message.scaleValue or [1.0])
    return lambda inputs: {made: (np.asarray(inputs[given], np.float64) + shift) * scale}


@_builds("normalizer")
def _normalizer(message: Any, description: Description) -> Function:
    given, made = _only(description, "a normalizer")
    order = _choice((np.inf, 1, 2), message.normType)

    def run(inputs: Values) -> dict[str, Any]:
        x = np.asarray(inputs[given], np.float64)
        norm = np.linalg.norm(x.reshape(-1), order)
        return {made: x / norm if norm else x}

    return run


@_builds("featureVectorizer")
def _vectorizer(message: Any, description: Description) -> Function:
    columns = [(each.inputColumn, int(each.inputDimensions)) for each in message.inputList]
    made = description.outputs[0].name

    def run(inputs: Values) -> dict[str, Any]:
        for name, size in columns:
            found = np.size(inputs[name])
            if found != size:
                raise ValueError(f"predict: input {name!r} has {found} values, but must have {size}")
        return {made: _vector(inputs, [name for name, _ in columns])}

    return run


@_builds("arrayFeatureExtractor")
def _extractor(message: Any, description: Description) -> Function:
    given, made = _only(description, "an array feature extractor")
    indices = np.array(message.extractIndex, np.int64)

    def run(inputs: Values) -> dict[str, Any]:
        x = np.asarray(inputs[given]).reshape(-1)
        if indices.size and indices.max() >= x.size:
            raise ValueError(f"predict: input {given!r} has {x.size} values, but value {indices.max()} is taken")
        return {made: x[indices]}

    return run


@_builds("oneHotEncoder")
def _one_hot(message: Any, description: Description) -> Function:
    given, made = _only(description, "a one-hot encoder")
    kind = message.WhichOneof("CategoryType")
    categories = [] if kind is None else list(getattr(message, kind).vector)
    places = {category: place for place, category in enumerate(categories)}

    def run(inputs: Values) -> dict[str, Any]:
        place = places.get(inputs[given])
        if place is None and not message.handleUnknown:
            raise ValueError(f"predict: input {given!r} is {inputs[given]!r}, which is none of the model's categories")
        if message.outputSparse:
            return {made: {} if place is None else {place: 1.0}}
        return {made: (np.arange(len(categories)) == place).astype(np.float64)}

    return run


@_builds("dictVectorizer")
def _dict_vectorizer(message: Any, description: Description) -> Function:
    given, made = _only(description, "a dictionary vectorizer")
    kind = message.WhichOneof("Map")
    keys = [] if kind is None else list(getattr(message, kind).vector)
    return lambda inputs: {made: np.array([float(inputs[given].get(key, 0.0)) for key in keys])}


@_builds("categoricalMapping")
def _mapping(message: Any, description: Description) -> Function:
    given, made = _only(description, "a categorical mapping")
    kind, unknown = message.WhichOneof("MappingType"), message.WhichOneof("ValueOnUnknown")
    table = {} if kind is None else {each.key: each.value for each in getattr(message, kind).map}

    def run(inputs: Values) -> dict[str, Any]:
        value = inputs[given]
        if value not in table and unknown is None:
            raise ValueError(f"predict: input {given!r} is {value!r}, which the model does not know")
        return {made: table[value] if value in table else getattr(message, unknown)}

    return run


@_builds("imputer")
def _imputer(message: Any, description: Description) -> Function:
    given, made = _only(description, "an imputer")
    kind, replaced = message.WhichOneof("ImputedValue"), message.WhichOneof("ReplaceValue")
    if kind is None:
        raise UnsupportedOperationError("load: an imputer of dictionaries cannot be run here")
    imputed = getattr(message, kind)
    imputed = np.array(imputed.vector) if hasattr(imputed, "vector") else imputed
    sought = math.nan if replaced is None else getattr(message, replaced)

    def run(inputs: Values) -> dict[str, Any]:
        value = inputs[given]
        if isinstance(value, str):
            return {made: imputed if value == sought else value}
        x = np.asarray(value, np.float64)
        is_sought = np.isnan(x) if isinstance(sought, float) and math.isnan(sought) else x == sought
        return {made: np.where(is_sought, imputed, x)}

    return run


@_builds("nonMaximumSuppression")
def _suppression(message: Any, description: Description) -> Function:
    """Keep the boxes of highest confidence, and drop those that overlap one that is kept."""
    names = message.confidenceInputFeatureName, message.coordinatesInputFeatureName
    thresholds = (
        (message.iouThresholdInputFeatureName, message.iouThreshold),
        (message.confidenceThresholdInputFeatureName, message.confidenceThreshold),
    )
    per_class = message.pickTop.perClass

    def run(inputs: Values) -> dict[str, Any]:
        confidence, boxes = (np.asarray(inputs[name], np.float64) for name in names)
        confidence = confidence.reshape(-1, confidence.shape[-1])
        boxes = boxes.reshape(-1, 4)
        if len(confidence) != len(boxes):
            raise ValueError(f"predict: there are {len(boxes)} boxes, but confidences of {len(confidence)}")
        overlap, least = (float(np.ravel(inputs.get(name, default))[0]) for name, default in thresholds)
        kept = _picked(confidence, boxes, overlap, least, per_class)
        return {
            message.confidenceOutputFeatureName: confidence[kept],
            message.coordinatesOutputFeatureName: boxes[kept],
        }

    return run


def _picked(
    confidence: NDArray[np.float64], boxes: NDArray[np.float64], overlap: float, least: float, per_class: bool
) -> list[int]:
    best, classes = confidence.max(axis=1), confidence.argmax(axis=1)
    corners = np.concatenate([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], axis=1)
    areas = boxes[:, 2] * boxes[:, 3]
    left = np.argsort(-best, kind="stable")
    left = left[best[left] >= least]
    kept = []
    while left.size:
        first, left = int(left[0]), left[1:]
        kept.append(first)
        sides = np.minimum(corners[first, 2:], corners[left, 2:]) - np.maximum(corners[first, :2], corners[left, :2])
        shared = np.prod(np.maximum(sides, 0), axis=1)
        union = areas[first] + areas[left] - shared
        overlaps = shared > overlap * union
        left = left[~(overlaps & (classes[left] == classes[first]) if per_class else overlaps)]
    return kept
