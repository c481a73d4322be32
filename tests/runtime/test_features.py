"""Descriptions of models, and the way from a user's values to a backend's and back."""

from __future__ import annotations

import math

import numpy as np
import pytest

from corepress.coreml.format.descriptions import ARRAY_TYPES, COLOR_SPACES, ModelDescription
from corepress.errors import FormatError
from corepress.runtime.features import Description, convert
from corepress.runtime.samples import draw

NUMBERS = {name: number for number, name in ARRAY_TYPES.items()}
COLORS = {name: number for number, name in COLOR_SPACES.items()}


def describe(*, takes_sequences=False, **features):
    """A description with these inputs, each made by a function of its type, and the same outputs."""
    message = ModelDescription()
    for name, fill in features.items():
        for list_of in (message.input, message.output):
            fill(list_of.add(name=name).type)
    return Description.of(message, takes_sequences=takes_sequences)


def array(*shape, dtype="float32", ranges=(), shapes=(), optional=False, **default):
    def fill(kind):
        kind.isOptional = optional
        content = kind.multiArrayType
        content.dataType = NUMBERS[dtype]
        content.shape.extend(shape)
        for low, high in ranges:
            content.shapeRange.sizeRanges.add(lowerBound=low, upperBound=-1 if high is None else high)
        for each in shapes:
            content.enumeratedShapes.shapes.add(shape=each)
        for field, value in default.items():
            setattr(content, field, value)

    return fill


def image(width, height, color="RGB", sizes=(), ranges=None):
    def fill(kind):
        content = kind.imageType
        content.width, content.height, content.colorSpace = width, height, COLORS[color]
        for each in sizes:
            content.enumeratedSizes.sizes.add(width=each[0], height=each[1])
        if ranges:
            for (low, high), message in zip(
                ranges, (content.imageSizeRange.widthRange, content.imageSizeRange.heightRange), strict=True
            ):
                message.lowerBound, message.upperBound = low, high

    return fill


def of_type(name):
    return lambda kind: getattr(kind, name).SetInParent()


def put_in(features, **values):
    return Description.arguments(features, "predict", values)


def test_the_table_of_messages_is_coremls():
    pytest.importorskip("coremltools")
    from coremltools.proto import FeatureTypes_pb2, Model_pb2

    pending, seen = [(ModelDescription.DESCRIPTOR, Model_pb2.ModelDescription.DESCRIPTOR)], set()
    while pending:
        ours, theirs = pending.pop()
        for field in ours.fields:
            same = theirs.fields_by_name[field.name]
            assert field.number == same.number, field.full_name
            assert field.type == same.type or (same.type, field.type) == (same.TYPE_ENUM, field.TYPE_INT32)
            assert isinstance(field.default_value, list) == isinstance(same.default_value, list), field.full_name
            oneofs = field.containing_oneof, same.containing_oneof
            assert (oneofs[0] and oneofs[0].name) == (oneofs[1] and oneofs[1].name), field.full_name
            if field.message_type and field.message_type.name not in seen:
                seen.add(field.message_type.name)
                if field.message_type.fields:
                    pending.append((field.message_type, same.message_type))
    assert len(seen) > 15
    types = FeatureTypes_pb2.ArrayFeatureType.ArrayDataType
    names = {number: name.lower().replace("double", "float64") for name, number in types.items() if number}
    assert names == ARRAY_TYPES
    spaces = FeatureTypes_pb2.ImageFeatureType.ColorSpace
    assert {number: name for name, number in spaces.items() if number} == COLOR_SPACES


def test_descriptions_say_what_is_allowed():
    found = describe(
        fixed=array(1, 3, dtype="float16"),
        flexible=array(1, 4, ranges=((1, 1), (2, 8), (5, None))),
        several=array(2, 3, shapes=((2, 3), (4, 3))),
        free=array(),
        photo=image(640, 480),
        sizes=image(6, 4, "GRAYSCALE", sizes=((6, 4), (12, 8))),
        spans=image(6, 4, "BGR", ranges=((6, 60), (4, -1))),
        given=array(2, optional=True, floatDefaultValue=0.5),
        count=of_type("int64Type"),
    )
    assert [str(each) for each in found.inputs] == [
        "fixed: float16 array (1, 3)",
        "flexible: float32 array (1, 2 to 8, 5 or more)",
        "several: float32 array one of (2, 3), (4, 3)",
        "free: float32 array of any shape",
        "photo: RGB image (480, 640)",
        "sizes: GRAYSCALE image one of (4, 6), (8, 12)",
        "spans: BGR image (4 or more, 6 to 60)",
        "given: float32 array (2,), optional (0.5)",
        "count: int64",
    ]
    by_name = {each.name: each for each in found.inputs}
    assert by_name["flexible"].ranges == ((1, 1), (2, 8), (5, None))
    assert by_name["several"].shapes == ((2, 3), (4, 3))
    assert (by_name["photo"].shape, by_name["photo"].color, by_name["photo"].dtype) == ((480, 640), "RGB", "uint8")
    assert (by_name["given"].optional, by_name["given"].default) == (True, 0.5)
    with pytest.raises(AttributeError):
        by_name["given"].default = 1


@pytest.mark.parametrize(
    ("fill", "shapes", "refused", "allowed"),
    [
        (array(1, 3), [(1, 3)], [(3,), (2, 3), (1, 1, 3)], r"\(1, 3\)"),
        (array(1, 2, ranges=((1, 1), (2, 8))), [(1, 2), (1, 8)], [(1, 9), (2, 2), (1,)], r"\(1, 2 to 8\)"),
        (array(2, 3, shapes=((2, 3), (4, 3))), [(2, 3), (4, 3)], [(3, 3)], r"one of \(2, 3\), \(4, 3\)"),
        (array(), [(1,), (2, 3, 4)], [], ""),
    ],
)
def test_shapes_are_checked(fill, shapes, refused, allowed):
    features = describe(x=fill)
    for shape in shapes:
        assert put_in(features, x=np.zeros(shape, np.float32))["x"].shape == shape
    for shape in refused:
        with pytest.raises(ValueError, match=rf"predict: input 'x' has shape .*, but must have {allowed}"):
            put_in(features, x=np.zeros(shape, np.float32))


@pytest.mark.parametrize(
    ("dtype", "value", "expected"),
    [
        ("float32", np.float64([[0.1, 2]]), np.float32([[0.1, 2]])),
        ("float32", np.int64([[1, -(2**24)]]), np.float32([[1, -(2**24)]])),
        ("float32", np.array([[True, False]]), np.float32([[1, 0]])),
        ("float32", [[1, 2.5]], np.float32([[1, 2.5]])),
        ("float32", np.float32([[np.inf, np.nan]]), np.float32([[np.inf, np.nan]])),
        ("float16", np.float32([[0.1, np.inf]]), np.float16([[0.1, np.inf]])),
        ("float16", np.uint8([[1, 255]]), np.float16([[1, 255]])),
        ("float64", np.float32([[1, 2]]), np.float64([[1, 2]])),
        ("int32", np.int64([[1, -5]]), np.int32([[1, -5]])),
        ("int32", np.float32([[1, -5]]), np.int32([[1, -5]])),
        ("int32", np.uint16([[1, 65535]]), np.int32([[1, 65535]])),
        ("int8", np.int64([[1, -128]]), np.int8([[1, -128]])),
    ],
)
def test_casts_that_keep_values_are_made(dtype, value, expected):
    found = put_in(describe(x=array(1, 2, dtype=dtype)), x=value)["x"]
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("dtype", "value", "message"),
    [
        ("int32", np.float32([[1, 0.5]]), "has dtype float32 and the value 0.5, which int32 does not have"),
        ("int32", np.int64([[0, 2**31]]), "has dtype int64 and the value 2147483648, which int32 does not have"),
        ("int32", np.float32([[np.nan, 1]]), "the value nan, which int32 does not have"),
        ("float32", np.int64([[0, 2**24 + 1]]), "the value 16777217, which float32 does not have"),
        ("float16", np.float32([[0, 1e5]]), "the value 100000.0, which float16 does not have"),
        ("float16", np.int32([[0, 2049]]), "the value 2049, which float16 does not have"),
        ("float32", np.float64([[0, 1e300]]), "the value 1e.300, which float32 does not have"),
        ("int8", np.int32([[0, 128]]), "the value 128, which int8 does not have"),
    ],
)
def test_casts_that_lose_values_are_refused(dtype, value, message):
    with pytest.raises(ValueError, match=f"predict: input 'x' .*{message}"):
        put_in(describe(x=array(1, 2, dtype=dtype)), x=value)


@pytest.mark.parametrize("value", ["text", {"a": 1}, np.array([["a", "b"]]), np.array([[1j, 2]])])
def test_what_is_no_array_is_refused(value):
    with pytest.raises(TypeError, match="predict: input 'x'"):
        put_in(describe(x=array(1, 2)), x=value)


def test_ragged_lists_are_refused():
    with pytest.raises(TypeError, match="input 'x' cannot be used as an array"):
        put_in(describe(x=array(2, 2)), x=[[1, 2], [3]])


def test_tensors_of_torch_are_arrays():
    torch = pytest.importorskip("torch")
    features = describe(x=array(1, 2))
    for tensor in (torch.ones(1, 2, requires_grad=True), torch.ones(1, 2, dtype=torch.bfloat16)):
        np.testing.assert_array_equal(put_in(features, x=tensor)["x"], np.ones((1, 2), np.float32))


def test_numbers_without_axes_arrive_with_one():
    features = describe(x=array(1))
    for value in (2.5, np.float32(2.5), np.array(2.5), [2.5], np.array([2.5])):
        np.testing.assert_array_equal(put_in(features, x=value)["x"], np.float32([2.5]))


def test_names_are_checked():
    features = describe(tokens=array(1), mask=array(1))
    with pytest.raises(ValueError, match=r"no input 'token'; did you mean 'tokens'\?; the inputs are tokens, mask"):
        put_in(features, token=1)
    with pytest.raises(ValueError, match=r"predict: input 'mask' is missing; it is: mask: float32 array \(1,\)"):
        put_in(features, tokens=1)


def test_optional_inputs_get_their_defaults():
    features = describe(
        x=array(1),
        given=array(2, 3, optional=True, floatDefaultValue=0.5),
        whole=array(2, dtype="int32", optional=True, intDefaultValue=-3),
        double=array(2, dtype="float64", optional=True, doubleDefaultValue=0.1),
        unsaid=array(2, optional=True),
    )
    found = put_in(features, x=1, unsaid=None)
    np.testing.assert_array_equal(found["given"], np.full((2, 3), 0.5, np.float32))
    np.testing.assert_array_equal(found["whole"], np.int32([-3, -3]))
    np.testing.assert_array_equal(found["double"], [0.1, 0.1])
    np.testing.assert_array_equal(found["unsaid"], [0, 0])
    np.testing.assert_array_equal(put_in(features, x=1, unsaid=[1, 2])["unsaid"], [1, 2])


def test_networks_of_five_axes_take_sequences_and_batches():
    features = describe(takes_sequences=True, x=array(4), y=array(3, 5, 6))
    for shape in ((4,), (7, 4), (7, 2, 4), (7, 2, 4, 1, 1)):
        assert put_in(features, x=np.zeros(shape), y=np.zeros((3, 5, 6)))["x"].shape == shape
    for shape in ((2, 3, 5, 6), (7, 2, 3, 5, 6)):
        assert put_in(features, x=np.zeros(4), y=np.zeros(shape))["y"].shape == shape
    for shape in ((5,), (7, 2, 5), (4, 1, 1), (7, 2, 4, 2, 1)):
        with pytest.raises(ValueError, match="input 'x' has shape"):
            put_in(features, x=np.zeros(shape), y=np.zeros((3, 5, 6)))
    with pytest.raises(ValueError, match="input 'x' has shape"):
        put_in(describe(x=array(4)), x=np.zeros((7, 4)))


def test_scalars_text_and_dictionaries():
    features = describe(
        count=of_type("int64Type"),
        weight=of_type("doubleType"),
        word=of_type("stringType"),
        table=of_type("dictionaryType"),
        list=of_type("sequenceType"),
    )
    given = {"count": np.int32(3), "weight": 2, "word": "w", "table": {"a": 1}, "list": ("a", "b")}
    found = put_in(features, **given)
    assert found == {"count": 3, "weight": 2.0, "word": "w", "table": {"a": 1}, "list": ["a", "b"]}
    assert type(found["weight"]) is float
    assert features.results(found) == found
    for name, value, error in (
        ("count", 2.5, ValueError),
        ("count", "3", TypeError),
        ("weight", [1, 2], TypeError),
        ("word", 3, TypeError),
        ("table", [1], TypeError),
        ("list", "ab", TypeError),
    ):
        with pytest.raises(error, match=f"input '{name}' must be"):
            put_in(features, **given | {name: value})


def test_images_arrive_in_the_order_of_colours(image_module):
    pixels = np.random.default_rng(0).integers(0, 256, (4, 6, 3)).astype(np.uint8)
    planes = pixels.transpose(2, 0, 1)[None].astype(np.float32)
    features = describe(rgb=image(6, 4), bgr=image(6, 4, "BGR"), gray=image(6, 4, "GRAYSCALE"))
    given = image_module.fromarray(pixels)
    found = put_in(features, rgb=given, bgr=pixels, gray=given.convert("L"))
    assert all(each.dtype == np.float32 for each in found.values())
    np.testing.assert_array_equal(found["rgb"], planes)
    np.testing.assert_array_equal(found["bgr"], planes[:, ::-1])
    np.testing.assert_array_equal(found["gray"][0, 0], np.asarray(given.convert("L")))


def test_half_precision_images_are_rounded(image_module):
    features = describe(x=image(2, 1, "GRAYSCALE_FLOAT16"))
    values = np.float32([[0.1, 300.0]])
    for given in (image_module.fromarray(values), values):
        np.testing.assert_array_equal(put_in(features, x=given)["x"], np.float16([[[[0.1, 300]]]]))
    (result,) = features.results({"x": np.float32([[[[0.1, 300.0]]]])}).values()
    assert result.mode == "F"
    np.testing.assert_array_equal(np.asarray(result), np.float16([[0.1, 300]]).astype(np.float32))


def test_images_of_other_sizes_and_modes_are_refused(image_module):
    features = describe(x=image(6, 4))
    with pytest.raises(ValueError, match=r"is an image of 5 x 4 pixels, but its height and width must be \(4, 6\)"):
        put_in(features, x=image_module.new("RGB", (5, 4)))
    with pytest.raises(TypeError, match=r"an image of mode L, but must be RGB; convert it with .convert\('RGB'\)"):
        put_in(features, x=image_module.new("L", (6, 4)))
    with pytest.raises(TypeError, match="must be an image, not list"):
        put_in(features, x=[1])
    with pytest.raises(TypeError, match="has dtype float64, but the pixels of a RGB image are uint8"):
        put_in(features, x=np.zeros((4, 6, 3)))
    with pytest.raises(ValueError, match=r"has shape \(3, 4, 6\), but the pixels of a RGB image have"):
        put_in(features, x=np.zeros((3, 4, 6), np.uint8))
    flexible = describe(x=image(6, 4, sizes=((6, 4), (12, 8))), y=image(6, 4, ranges=((6, 60), (4, -1))))
    given = {"x": image_module.new("RGB", (12, 8)), "y": image_module.new("RGB", (60, 100))}
    assert put_in(flexible, **given)["y"].shape == (1, 3, 100, 60)
    with pytest.raises(ValueError, match=r"must be one of \(4, 6\), \(8, 12\)"):
        put_in(flexible, **given | {"x": image_module.new("RGB", (6, 8))})


@pytest.mark.parametrize("color", ["RGB", "BGR", "GRAYSCALE"])
def test_images_are_returned_clipped_and_rounded(image_module, color):
    features = describe(x=image(2, 2, color))
    channels = 1 if color == "GRAYSCALE" else 3
    planes = np.zeros((1, channels, 2, 2), np.float32)
    planes[0, 0] = [[-3, 0.5], [1.5, 254.6]]
    planes[0, -1, 1, 0] = 300
    (result,) = features.results({"x": planes}).values()
    assert (result.mode, result.size) == ("L" if channels == 1 else "RGBA", (2, 2))
    found = np.asarray(result)
    first = {"RGB": 0, "BGR": 2}
    expected = np.array([[0, 0], [255 if channels == 1 else 2, 255]])
    np.testing.assert_array_equal(found if channels == 1 else found[..., first[color]], expected)
    if channels == 3:
        assert (found[..., 3] == 255).all()
        assert found[1, 0, 2 - first[color]] == 255
    pixels = features.results({"x": planes}, as_images=False)["x"]
    np.testing.assert_array_equal(pixels, found if channels == 1 else found[..., :3])
    for shape in ((channels, 2, 2), (1, 1, channels, 2, 2)):
        assert features.results({"x": np.zeros(shape, np.float32)})["x"].size == (2, 2)
    with pytest.raises(FormatError, match="output 'x' is an image of"):
        features.results({"x": np.zeros((1, 7, 2, 2))})


def test_outputs_are_those_of_predict():
    features = describe(
        half=array(1, 2, dtype="float16"),
        scalar=array(1),
        flags=array(2),
        indices=array(2, dtype="int32"),
        double=array(1, dtype="float64"),
    )
    given = {
        "half": np.float16([[1, 2]]),
        "flags": np.array([True, False]),
        "indices": np.int64([1, 2]),
        "scalar": np.float32(3),
        "double": np.float32([1]),
        "internal": np.zeros(3),
    }
    found = features.results(given)
    assert list(found) == ["half", "scalar", "flags", "indices", "double"]
    assert {name: (value.dtype.name, value.shape) for name, value in found.items()} == {
        "half": ("float32", (1, 2)),
        "scalar": ("float32", (1,)),
        "flags": ("float32", (2,)),
        "indices": ("int32", (2,)),
        "double": ("float64", (1,)),
    }
    with pytest.raises(FormatError, match="describes an output 'half', but computes other"):
        features.results({"other": 1})


def test_probabilities_are_numbers_of_python():
    features = describe(p=of_type("dictionaryType"), label=of_type("stringType"), best=of_type("int64Type"))
    found = features.results({"p": {np.int64(3): np.float32(0.5)}, "label": np.str_("a"), "best": np.int64(3)})
    assert found == {"p": {3: 0.5}, "label": "a", "best": 3}
    assert [type(each) for each in (*found["p"], *found["p"].values(), found["label"], found["best"])] == [
        int, float, str, int
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("fill", "message"),
    [
        (lambda kind: None, "of a type that is unknown here"),
        (lambda kind: setattr(kind.multiArrayType, "dataType", 7), "an array of a type that is unknown"),
        (lambda kind: setattr(kind.imageType, "width", 7), "colour space that is unknown"),
        (lambda kind: kind.multiArrayType.shape.extend([-1]), r"has the shape \(-1,\)"),
    ],
)
def test_damaged_descriptions_are_format_errors(fill, message):
    with pytest.raises(FormatError, match=f"feature 'x' .*{message}|feature 'x' {message}"):
        describe(x=fill)


def test_inputs_beyond_all_memory_are_not_made():
    features = describe(x=array(1 << 20, 1 << 20, optional=True))
    with pytest.raises(ValueError, match=r"input 'x' would have 1099511627776 elements; pass one of yours"):
        put_in(features)
    with pytest.raises(ValueError, match="would have"):
        list(draw("compare", features, 1))


def test_a_feature_is_converted_alone():
    (feature,) = describe(x=array(2, dtype="float16")).inputs
    assert math.isclose(convert("read", feature, [0.1, 1])[0], 0.1, rel_tol=1e-3)
