"""What a model takes and returns: its description, and the way from a user's values to a backend's and back.

A backend has arrays of the declared shape and type, and images as float32 arrays of shape (1, channels, height, width)
in the declared order of colours. A user has what Core ML's ``predict`` takes and returns: arrays, lists and numbers,
images, text, and dictionaries; float16 arrays are returned as float32.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..coreml.format.descriptions import ARRAY_TYPES, COLOR_SPACES
from ..errors import FormatError
from ..suggestions import suggestion
from .images import channels_of, image_from_planes, is_image, planes_of, planes_of_image

_KINDS = {
    "multiArrayType": "array",
    "imageType": "image",
    "int64Type": "int64",
    "doubleType": "double",
    "stringType": "string",
    "dictionaryType": "dictionary",
    "sequenceType": "sequence",
}
# Types that NumPy has not, and the one in which it holds their values.
_HELD_AS = {
    "bfloat16": "float32",
    **dict.fromkeys(("float8_e4m3fn", "float8_e5m2", "float8_e8m0fnu", "float4_e2m1fn"), "float32"),
    **dict.fromkeys(("int2", "int4"), "int8"),
    **dict.fromkeys(("uint2", "uint4"), "uint8"),
}
Range = tuple[int, int | None]
_MOST_ELEMENTS = 1 << 28  # of an input that a user did not make


@dataclass(frozen=True)
class Feature:
    """An input, an output or a state of a model.

    Attributes
    ----------
    name : str
        Its name.
    kind : str
        "array", "image", "int64", "double", "string", "dictionary" or "sequence".
    dtype : str or None
        Type of the elements of an array or an image, as NumPy calls it.
    shape : tuple of int or None
        Shape of an array, height and width of an image; the default of several. None if the model does not say.
    shapes : tuple of tuple of int
        All shapes, if they are enumerated.
    ranges : tuple of (int, int or None)
        Smallest and largest size of each axis, if these are ranges; None has no limit.
    color : str or None
        Of an image: "RGB", "BGR", "GRAYSCALE" or "GRAYSCALE_FLOAT16".
    optional : bool
        Whether an input may be left out.
    default : int, float or None
        Value of all elements of an array that is left out.
    text : str
        What the model says about it.
    takes_sequences : bool
        Whether an array may have all axes of an old network, which works on five: sequence, batch, channels, height and
        width.
    """

    name: str
    kind: str
    dtype: str | None = None
    shape: tuple[int, ...] | None = None
    shapes: tuple[tuple[int, ...], ...] = ()
    ranges: tuple[Range, ...] = ()
    color: str | None = None
    optional: bool = False
    default: int | float | None = None
    text: str = ""
    takes_sequences: bool = False

    @property
    def held_dtype(self) -> str:
        """The type of NumPy that holds its values: the declared one, or float32 for bfloat16, and the like."""
        dtype = self.dtype or "float32"
        return _HELD_AS.get(dtype, dtype)

    @property
    def allowed(self) -> str:
        """The shapes that it may have, in words."""
        if self.shapes:
            return f"one of {', '.join(map(_in_words, self.shapes))}"
        if self.ranges:
            return f"({', '.join(map(_range_in_words, self.ranges))}{',' if len(self.ranges) == 1 else ''})"
        return "any shape" if self.shape is None else _in_words(self.shape)

    def is_declared(self, shape: tuple[int, ...]) -> bool:
        """Whether an array, or the height and width of an image, has a shape that the model declares."""
        if self.shape is None or shape in self.shapes or shape == self.shape:
            return True
        return len(self.ranges) == len(shape) > 0 and all(
            low <= size and (high is None or size <= high) for size, (low, high) in zip(shape, self.ranges, strict=True)
        )

    def accepts(self, shape: tuple[int, ...]) -> bool:
        """Whether the model takes an array, or an image of this height and width."""
        if self.is_declared(shape):
            return True
        if not self.takes_sequences or self.shape is None:
            return False
        if len(self.shape) == 1:  # a sequence, and batches of these
            return shape[1:] == self.shape or shape[2:] == self.shape or shape[2:] == (*self.shape, 1, 1)
        return len(self.shape) == 3 and len(shape) in (4, 5) and shape[-3:] == self.shape

    def __str__(self) -> str:
        words = {
            "array": f"{self.dtype} array {'of any shape' if self.shape is None else self.allowed}",
            "image": f"{self.color} image {self.allowed}",
        }.get(self.kind, self.kind)
        default = f" ({self.default or 0:g})" if self.kind == "array" else ""
        optional = f", optional{default}" if self.optional else ""
        return f"{self.name}: {words}{optional}"


@dataclass(frozen=True)
class Description:
    """What a model, or a function of one, takes and returns.

    Attributes
    ----------
    inputs, outputs, states : tuple of Feature
        In the order of the file.
    predicted_feature, predicted_probabilities : str
        Names of the outputs of a classifier: its best class, and the probabilities of all; empty for other models.
    """

    inputs: tuple[Feature, ...]
    outputs: tuple[Feature, ...]
    states: tuple[Feature, ...] = ()
    predicted_feature: str = ""
    predicted_probabilities: str = ""

    @classmethod
    def of(cls, message: Any, *, takes_sequences: bool = False) -> Description:
        """Of a message: a ModelDescription or a FunctionDescription.

        Parameters
        ----------
        message : protobuf message
            The description.
        takes_sequences : bool
            Whether arrays may have all five axes of an old network.
        """
        return cls(
            inputs=tuple(_feature(each, takes_sequences) for each in message.input),
            outputs=tuple(_feature(each) for each in message.output),
            states=tuple(_feature(each) for each in message.state),
            predicted_feature=message.predictedFeatureName,
            predicted_probabilities=message.predictedProbabilitiesName,
        )

    def arguments(self, function: str, given: Mapping[str, Any]) -> dict[str, Any]:
        """The complete inputs of a backend, checked.

        Parameters
        ----------
        function : str
            The caller's name, for messages.
        given : dict
            A user's values by name.

        Raises
        ------
        ValueError
            If an input is missing or unknown, or its shape or its values are not what the model takes.
        TypeError
            If it is of another kind.
        """
        names = [each.name for each in self.inputs]
        for name in given:
            if name not in names:
                inputs = f"the inputs are {', '.join(names)}" if names else "it has no inputs"
                raise ValueError(f"{function}: the model has no input {name!r}{suggestion(name, names)}; {inputs}")
        arguments = {}
        for each in self.inputs:
            value = given.get(each.name)
            if value is not None:
                arguments[each.name] = convert(function, each, value)
            elif not (each.optional and each.kind in ("int64", "double", "string")):  # whose defaults the model knows
                arguments[each.name] = _default(function, each)
        return arguments

    def results(self, outputs: Mapping[str, Any], *, as_images: bool = True) -> dict[str, Any]:
        """A user's values for what a backend returned, in the order of the description.

        Parameters
        ----------
        outputs : dict
            By name; others than those of the description are left out.
        as_images : bool
            Whether images are returned as such, and not as arrays of their pixels.
        """
        return {each.name: _result(each, self._find(each, outputs), as_images) for each in self.outputs}

    def _find(self, output: Feature, outputs: Mapping[str, Any]) -> Any:
        if output.name in outputs:
            return outputs[output.name]
        raise FormatError(f"the model describes an output {output.name!r}, but computes {', '.join(outputs) or 'none'}")


def _feature(message: Any, takes_sequences: bool = False) -> Feature:
    kind = message.type.WhichOneof("Type") or ""
    content = message.type
    if kind == "stateType":
        content, kind = message.type.stateType, "multiArrayType"
        array = content.arrayType
    else:
        array = content.multiArrayType if kind == "multiArrayType" else None
    given: dict[str, Any] = {}
    if array is not None:
        given = _array_fields(message.name, array)
    elif kind == "imageType":
        given = _image_fields(message.name, content.imageType)
    if kind not in _KINDS:
        raise FormatError(f"feature {message.name!r} is of a type that is unknown here")
    return Feature(
        name=message.name,
        kind=_KINDS[kind],
        optional=message.type.isOptional,
        text=message.shortDescription,
        takes_sequences=takes_sequences,
        **given,
    )


def _array_fields(name: str, array: Any) -> dict[str, Any]:
    default = array.WhichOneof("defaultOptionalValue")
    shapes = tuple(tuple(each.shape) for each in array.enumeratedShapes.shapes)
    ranges = tuple(_range(each) for each in array.shapeRange.sizeRanges)
    shape = tuple(array.shape) or (shapes[0] if shapes else tuple(low for low, _ in ranges)) or None
    if shape is not None and any(size < 0 for each in (shape, *shapes) for size in each):
        raise FormatError(f"feature {name!r} has the shape {shape}")
    if array.dataType and array.dataType not in ARRAY_TYPES:
        raise FormatError(f"feature {name!r} is an array of a type that is unknown here ({array.dataType})")
    return {
        "dtype": ARRAY_TYPES.get(array.dataType, "float32"),
        "shape": shape,
        "shapes": shapes,
        "ranges": ranges,
        "default": getattr(array, default) if default else None,
    }


def _image_fields(name: str, image: Any) -> dict[str, Any]:
    if image.colorSpace not in COLOR_SPACES:
        raise FormatError(f"feature {name!r} is an image of a colour space that is unknown here ({image.colorSpace})")
    color = COLOR_SPACES[image.colorSpace]
    sizes = image.imageSizeRange
    return {
        "dtype": "float16" if color == "GRAYSCALE_FLOAT16" else "uint8",
        "shape": (image.height, image.width),
        "shapes": tuple((each.height, each.width) for each in image.enumeratedSizes.sizes),
        "ranges": (_range(sizes.heightRange), _range(sizes.widthRange)) if image.HasField("imageSizeRange") else (),
        "color": color,
    }


def _range(message: Any) -> Range:
    return message.lowerBound, None if message.upperBound < 0 else message.upperBound


def _in_words(shape: Sequence[int]) -> str:
    return str(tuple(shape))


def _range_in_words(sizes: Range) -> str:
    low, high = sizes
    return str(low) if low == high else f"{low} or more" if high is None else f"{low} to {high}"


def _default(function: str, feature: Feature) -> Any:
    """The value of an input that is left out."""
    if not feature.optional or feature.kind != "array" or feature.shape is None:
        raise ValueError(f"{function}: input {feature.name!r} is missing; it is: {feature}")
    require_possible(function, feature)
    return np.full(feature.shape, feature.default or 0, feature.held_dtype)


def require_possible(function: str, feature: Feature) -> None:
    """Raise ValueError if an array or an image of the declared shape would be too large to make one.

    Parameters
    ----------
    function : str
        The caller's name, for messages.
    feature : Feature
        An input.
    """
    elements = math.prod(feature.shape or ())
    if elements > _MOST_ELEMENTS:
        raise ValueError(f"{function}: input {feature.name!r} would have {elements} elements; pass one of yours")


def convert(function: str, feature: Feature, value: Any) -> Any:
    """A backend's value for a user's, checked.

    Parameters
    ----------
    function : str
        The caller's name, for messages.
    feature : Feature
        The input.
    value : object
        What a user gave.
    """
    where = f"{function}: input {feature.name!r}"
    if feature.kind == "array":
        return _array(where, feature, value)
    if feature.kind == "image":
        return _planes(where, feature, value)
    if feature.kind == "string":
        value = value.item() if isinstance(value, np.ndarray) and value.size == 1 else value
        if not isinstance(value, str):
            raise TypeError(f"{where} must be text, not {type(value).__name__}")
        return str(value)
    if feature.kind == "dictionary":
        if not isinstance(value, Mapping):
            raise TypeError(f"{where} must be a dictionary, not {type(value).__name__}")
        return dict(value)
    if feature.kind == "sequence":
        if isinstance(value, str) or not isinstance(value, Sequence | np.ndarray):
            raise TypeError(f"{where} must be a list, not {type(value).__name__}")
        return list(value)
    return _number(where, feature.kind, value)


def _number(where: str, kind: str, value: Any) -> int | float:
    array = as_array(where, value)
    if array.size != 1 or array.dtype.kind not in "buif":
        raise TypeError(f"{where} must be a number, not {type(value).__name__}")
    number = array.reshape(()).item()
    if kind == "double":
        return float(number)
    if number != int(number):
        raise ValueError(f"{where} must be a whole number, not {number}")
    return int(number)


def as_array(where: str, value: Any) -> NDArray[Any]:
    """A value as a NumPy array: of numbers, of lists of them, of tensors on any device.

    Parameters
    ----------
    where : str
        What the message begins with.
    value : object
        The value.
    """
    if hasattr(value, "detach"):  # a tensor of torch, which may be on another device and need a gradient
        value = value.detach().cpu()
        value = value.float() if str(value.dtype) == "torch.bfloat16" else value
    try:
        return np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"{where} cannot be used as an array ({error})") from error


def _array(where: str, feature: Feature, value: Any) -> NDArray[Any]:
    if is_image(value) or isinstance(value, str | bytes | Mapping):
        raise TypeError(f"{where} must be an array, not {type(value).__name__}")
    array = as_array(where, value)
    if array.ndim == 0 and (feature.shape is None or feature.accepts((1,))):
        array = array.reshape(1)
    if feature.shape == () and array.shape == (1,):  # as results of rank 0 are returned
        array = array.reshape(())
    if not feature.accepts(array.shape):
        raise ValueError(f"{where} has shape {array.shape}, but must have {feature.allowed}")
    return _cast(where, array, np.dtype(feature.held_dtype))


def _cast(where: str, array: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """An array in another type; fractions are rounded, other values must be kept."""
    if array.dtype == dtype:
        return array
    is_number = array.dtype.kind in "buif" or array.dtype.name == "bfloat16"
    if not is_number:
        raise TypeError(f"{where} has dtype {array.dtype}, but must have {dtype}")
    with np.errstate(invalid="ignore", over="ignore"):
        found = array.astype(dtype)
        if array.dtype.kind == "b" or np.can_cast(array.dtype, dtype):
            return found
        if dtype.kind == "f" and array.dtype.kind not in "ui":
            lost = np.isinf(found) & np.isfinite(array)
        elif dtype.kind == "f":
            lost = found.astype(np.float64) != array
        else:
            lost = found != array
    if lost.any():
        value = array[lost].reshape(-1)[0]
        raise ValueError(f"{where} has dtype {array.dtype} and the value {value}, which {dtype} does not have")
    return found


def _planes(where: str, feature: Feature, value: Any) -> NDArray[np.float32]:
    assert feature.color is not None
    planes = planes_of_image(where, feature.color, value)
    size = planes.shape[-2], planes.shape[-1]
    if not feature.accepts(size):
        raise ValueError(
            f"{where} is an image of {size[1]} x {size[0]} pixels, but its height and width must be {feature.allowed}"
        )
    return planes


def _result(feature: Feature, value: Any, as_images: bool) -> Any:
    if feature.kind == "array":
        array = np.asarray(value)
        dtype = "float32" if feature.dtype == "float16" else feature.held_dtype
        return np.atleast_1d(array.astype(dtype, copy=False))
    if feature.kind == "image":
        assert feature.color is not None
        planes = planes_of(feature.name, np.asarray(value), channels_of(feature.color))
        return image_from_planes(feature.color, planes, as_image=as_images)
    if feature.kind == "dictionary":
        return {_plain(key): float(number) for key, number in value.items()}
    return [_plain(each) for each in value] if feature.kind == "sequence" else _plain_scalar(feature.kind, value)


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _plain_scalar(kind: str, value: Any) -> Any:
    if kind == "string":
        return str(value)
    number = np.asarray(value).reshape(-1)[0].item()
    return int(number) if kind == "int64" else float(number)
