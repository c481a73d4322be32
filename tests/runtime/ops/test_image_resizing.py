import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from operations import call, check_gradients, close, random_array

from corepress.coreml.format.versions import IOS15, IOS16

RAMP = np.arange(1, 17, dtype=np.float32).reshape(1, 1, 4, 4)  # 1 + 4 row + column


def positions(size, count, mode):
    """The sampling grids as coremltools' page of `resize_bilinear` defines them."""
    if mode == "ALIGN_CORNERS" and count == 1:
        return [(size - 1) / 2]
    if mode == "OFFSET_CORNERS":
        distance = max(1, size - 1) / count
        places = [0.5 * distance + i * distance for i in range(count)]
    elif mode == "UNALIGN_CORNERS":
        places = [(i + 0.5) * size / count - 0.5 for i in range(count)]
    elif mode == "DEFAULT":
        places = [i * size / count for i in range(count)]
    else:
        places = [i * (size - 1) / max(count - 1, 1) for i in range(count)]
    return [min(size - 1, max(0, place)) for place in places]


def interpolated(x, axis, places):
    x = np.moveaxis(x.astype(np.float64), axis, 0)
    values = []
    for place in places:
        below = int(place)
        above = min(below + 1, len(x) - 1)
        values.append(x[below] + (place - below) * (x[above] - x[below]))
    return np.moveaxis(np.stack(values), 0, axis)


MODES = ("STRICT_ALIGN_CORNERS", "ALIGN_CORNERS", "DEFAULT", "OFFSET_CORNERS", "UNALIGN_CORNERS")
SIZES = [(1, 1), (3, 5), (4, 6), (7, 9), (8, 18), (2, 13)]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("shape", [(4, 6), (1, 4, 6), (2, 3, 4, 6), (2, 1, 3, 4, 6), (2, 3, 1, 1)])
@pytest.mark.parametrize("sizes", SIZES)
def test_linear_resizing(mode, shape, sizes):
    x = random_array(*shape)
    expected = x
    for axis, count in zip((-2, -1), sizes, strict=True):
        expected = interpolated(expected, axis, positions(shape[axis], count, mode))
    close(call("resize", x, shape=list(sizes), resized_dims=2, sampling_mode=mode), expected, atol=1e-5)
    if len(shape) > 2:
        targets = {"target_size_height": sizes[0], "target_size_width": sizes[1]}
        close(call("resize_bilinear", x, **targets, sampling_mode=mode), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("mode", "count", "expected"),
    [
        ("UNALIGN_CORNERS", 5, [0, 0.1, 0.5, 0.9, 1]),
        ("STRICT_ALIGN_CORNERS", 5, [0, 0.25, 0.5, 0.75, 1]),
        ("ALIGN_CORNERS", 5, [0, 0.25, 0.5, 0.75, 1]),
        ("DEFAULT", 5, [0, 0.4, 0.8, 1, 1]),
        ("OFFSET_CORNERS", 5, [0.1, 0.3, 0.5, 0.7, 0.9]),
        ("STRICT_ALIGN_CORNERS", 1, [0]),
        ("ALIGN_CORNERS", 1, [0.5]),
    ],
)
def test_published_grids(mode, count, expected):
    x = np.array([0, 1], np.float32)
    close(call("resize", x, shape=[count], resized_dims=1, sampling_mode=mode), expected)


def test_resize_takes_the_last_numbers_and_keeps_sizes_of_zero():
    x = random_array(2, 3, 4)
    assert call("resize", x, shape=[7, 9, 0, 5], resized_dims=2).shape == (2, 3, 5)
    assert call("resize", x, shape=[7, 9, 0, 5][1:], resized_dims=3).shape == (9, 3, 5)
    close(call("resize", x, shape=[0, 0], resized_dims=2), x)
    close(call("resize", x, shape=[], resized_dims=0), x)


def test_integers_are_resized():
    x = np.array([[0, 10]], np.int32)
    assert call("resize", x, shape=[5], resized_dims=1).to(torch.int32).tolist() == [[0, 4, 8, 10, 10]]
    nearest = call("resize", x, shape=[1, 4], resized_dims=2, interpolation_mode="NEAREST_NEIGHBOR")
    assert nearest.tolist() == [[0, 0, 10, 10]]
    assert nearest.dtype == torch.int32


@pytest.mark.parametrize(("size", "count"), itertools.product([1, 2, 3, 5, 41], [1, 2, 3, 4, 6, 7, 10, 82, 123]))
def test_nearest_neighbors(size, count):
    x = random_array(1, 2, size, size)
    centers = [(2 * i + 1) * size // (2 * count) for i in range(count)]
    expected = x[:, :, centers][..., centers]
    assert np.array_equal(
        call("resize_nearest_neighbor", x, target_size_height=count, target_size_width=count), expected
    )
    options = {"shape": [count, count], "resized_dims": 2, "interpolation_mode": "NEAREST_NEIGHBOR"}
    assert np.array_equal(call("resize", x, **options), expected)
    if count % size == 0:
        factor = count // size
        scaled = call("upsample_nearest_neighbor", x, scale_factor_height=factor, scale_factor_width=factor)
        assert np.array_equal(scaled, x.repeat(factor, 2).repeat(factor, 3))


@pytest.mark.parametrize("mode", MODES)
def test_nearest_neighbors_of_other_grids(mode):
    x = random_array(5)
    options = {"shape": [9], "resized_dims": 1, "interpolation_mode": "NEAREST_NEIGHBOR", "sampling_mode": mode}
    if mode == "DEFAULT":
        expected = [(2 * i + 1) * 5 // 18 for i in range(9)]
    else:
        expected = [math.ceil(round(place - 0.5, 9)) for place in positions(5, 9, mode)]
    assert np.array_equal(call("resize", x, **options), x[expected])


@pytest.mark.parametrize(("factor", "expected"), [(0.67, [1.5, -2.5]), (1.12, [1.5, -2.5, 3.5]), (1, [1.5, -2.5, 3.5])])
def test_fractional_factors_round_sizes_down(factor, expected):
    x = np.array([[[1.5, -2.5, 3.5]]], np.float32)
    result = call("upsample_nearest_neighbor", x, scale_factor_height=3.17, scale_factor_width=factor)
    assert result.tolist() == [[expected] * 3]


def test_sizes_are_computed_in_single_precision():
    x = random_array(1, 1, 10, 10)
    factor = float(np.float32(0.7))  # a little less
    assert call("upsample_bilinear", x, scale_factor_height=factor, scale_factor_width=factor).shape == (1, 1, 7, 7)


@pytest.mark.parametrize("factors", [(2, 3), (2.5, 2.0), (0.5, 0.75), (1.3, 1)])
@pytest.mark.parametrize("align_corners", [True, False])
def test_upsample_bilinear_is_that_of_pytorch_with_factors_of_the_sizes(factors, align_corners):
    x = random_array(2, 3, 10, 8)
    options = {"mode": "bilinear", "align_corners": align_corners, "recompute_scale_factor": True}
    expected = F.interpolate(torch.from_numpy(x), scale_factor=factors, **options)
    options = {"scale_factor_height": factors[0], "scale_factor_width": factors[1], "align_corners": align_corners}
    for version in (IOS15, IOS16):
        close(call("upsample_bilinear", x, version=version, **options), expected, atol=1e-5)
    centered = call("upsample_bilinear", x, half_pixel_centers=not align_corners, **options)
    close(centered, expected, atol=1e-5)


def test_upsample_bilinear_without_centers():
    x = np.array([[[1, 2]]], np.float32)
    options = {"scale_factor_height": 2, "scale_factor_width": 3, "align_corners": False, "half_pixel_centers": False}
    close(call("upsample_bilinear", x, **options), [[[1, 4 / 3, 5 / 3, 2, 2, 2]] * 2])
    with pytest.raises(ValueError, match="half_pixel_centers must be false"):
        call("upsample_bilinear", x, align_corners=True, half_pixel_centers=True)


def test_crop():
    x = random_array(2, 1, 5, 6)
    assert np.array_equal(call("crop", x, crop_height=[1, 2], crop_width=[0, 3]), x[:, :, 1:3, :3])
    assert np.array_equal(call("crop", x, crop_height=[0, 0], crop_width=[0, 0]), x)


def test_gradients():
    x = random_array(1, 1, 3, 4)
    for mode in MODES:
        check_gradients("resize", x, shape=[5, 3], resized_dims=2, sampling_mode=mode)
    places = np.array([[[[0.3, 1.4], [2.6, -0.7], [1.2, 1.7]]]])
    for padding in ("constant", "border", "reflection", "symmetric"):
        check_gradients("resample", x, places, **resampling(padding=padding, mode="unnormalized"))
    check_gradients("affine", x, np.array([[0.7, 0.1, 0.05, -0.2, 0.6, 0.1]]), **affine_options(2, 3))
    check_gradients("crop_resize", x, np.array([[0.3, 0.4, 1.6, 2.3]]), target_height=2, target_width=3)


def resampling(sampling="bilinear", padding="constant", value=0.0, mode="normalized_minus_one_to_one", corners=True):
    return {
        "sampling_mode": sampling,
        "padding_mode": padding,
        "padding_value": value,
        "coordinates_mode": mode,
        "align_corners": corners,
    }


def affine_options(height, width, **options):
    return {"output_height": height, "output_width": width} | resampling(**options)


def reflected(index, size, padding):
    """The index of an element of an image that is mirrored on and on."""
    if padding == "border" or size == 1:
        return min(max(index, 0), size - 1)
    period = 2 * size if padding == "symmetric" else 2 * (size - 1)
    index %= period
    return min(index, period - index - (padding == "symmetric"))


def pixel(image, row, column, padding, value):
    height, width = image.shape
    if padding == "constant":
        return image[row, column] if 0 <= row < height and 0 <= column < width else value
    return image[reflected(row, height, padding), reflected(column, width, padding)]


def placed(coordinate, size, mode, corners):
    if mode == "unnormalized":
        return coordinate
    share = (coordinate + 1) / 2 if mode == "normalized_minus_one_to_one" else coordinate
    return share * (size - 1) if corners else share * size - 0.5


COORDINATES = 2.6 * random_array(2, 3, 4, 2, seed=5)


@pytest.mark.parametrize("padding", ["constant", "border", "reflection", "symmetric"])
@pytest.mark.parametrize("value", [0.0, 6.25])
@pytest.mark.parametrize("mode", ["unnormalized", "normalized_minus_one_to_one", "normalized_zero_to_one"])
@pytest.mark.parametrize("corners", [False, True])
@pytest.mark.parametrize("sampling", ["bilinear", "nearest"])
@pytest.mark.parametrize("size", [(3, 4), (1, 2)])
def test_resample(sampling, padding, value, mode, corners, size):
    x = random_array(2, 2, *size)
    expected = np.zeros((2, 2, 3, 4))
    for image, channel, row, column in np.ndindex(*expected.shape):
        across, down = COORDINATES[image, row, column].astype(np.float64)
        y, x_ = placed(down, size[0], mode, corners), placed(across, size[1], mode, corners)
        plane = x[image, channel]
        if sampling == "nearest":
            if padding in ("reflection", "symmetric", "border"):
                y, x_ = inside(y, size[0], padding), inside(x_, size[1], padding)
            taps = [(round(y), round(x_), 1)]
        else:
            top, left = math.floor(y), math.floor(x_)
            taps = [
                (top + i, left + j, (1 - abs(y - top - i)) * (1 - abs(x_ - left - j))) for i in (0, 1) for j in (0, 1)
            ]
        expected[image, channel, row, column] = sum(pixel(plane, i, j, padding, value) * share for i, j, share in taps)
    result = call("resample", x, COORDINATES, **resampling(sampling, padding, value, mode, corners))
    close(result, expected, atol=1e-4)


def inside(place, size, padding):
    low, high = (-0.5, size - 0.5) if padding == "symmetric" else (0, size - 1)
    if padding == "border" or high <= low:
        return min(max(place, 0), size - 1)
    place = (place - low) % (2 * (high - low))
    return min(max(low + min(place, 2 * (high - low) - place), 0), size - 1)


def test_coordinates_may_be_integers_and_names_ignore_case():
    x = np.array([[[[11, 22], [33, 44]]]], np.float32)
    places = np.array([[[[0, 0], [1, 1], [0, 1]]]], np.int32)
    result = call("resample", x, places, **resampling("NEAREST", "Border", mode="Unnormalized"))
    assert result.tolist() == [[[[11, 44, 33]]]]


def test_coordinates_that_are_no_numbers_do_not_crash():
    x = random_array(1, 1, 2, 2)
    places = np.full((1, 1, 2, 2), np.nan, np.float32)
    places[0, 0, 1] = 1e30
    for mode, padding in itertools.product(("unnormalized", "normalized_minus_one_to_one"), ("constant", "symmetric")):
        assert call("resample", x, places, **resampling("nearest", padding, 1.0, mode)).shape == (1, 1, 1, 2)


@pytest.mark.parametrize("corners", [False, True])
@pytest.mark.parametrize("count", [1, 2])
def test_affine(corners, count):
    x = random_array(2, 3, 4, 5)
    matrices = 0.5 * random_array(count, 6, seed=4)
    grid = F.affine_grid(torch.from_numpy(matrices).reshape(count, 2, 3).expand(2, 2, 3), [2, 3, 3, 2], corners)
    expected = F.grid_sample(torch.from_numpy(x), grid, align_corners=corners)
    close(call("affine", x, matrices, **affine_options(3, 2, corners=corners)), expected)


def test_identity_is_affine():
    x = random_array(1, 1, 3, 4)
    close(call("affine", x, np.array([[1, 0, 0, 0, 1, 0]], np.float32), **affine_options(3, 4)), x)


BOX = np.array([1, 1, 2, 2], np.float32)


@pytest.mark.parametrize(
    ("box", "mode", "normalized", "target", "expected"),
    [
        ([1, 1, 2, 2], "ALIGN_CORNERS", False, 2, [6, 7, 10, 11]),
        ([1, 1, 2, 2], "ALIGN_CORNERS", False, 1, [8.5]),
        ([1, 1, 2, 2], "STRICT_ALIGN_CORNERS", False, 1, [6]),
        ([0, 0, 1 / 3, 1 / 3], "ALIGN_CORNERS", True, 2, [1, 2, 5, 6]),
        ([2, 2, 1, 1], "ALIGN_CORNERS", False, 2, [11, 10, 7, 6]),
        ([0, 0, 1, 1], "UNALIGN_CORNERS", True, 2, [3.5, 5.5, 11.5, 13.5]),
        ([2, 2, 1, 1], "UNALIGN_CORNERS", True, 2, [3.5, 5.5, 11.5, 13.5]),
        ([0, 0, 3, 3], "UNALIGN_CORNERS", False, 2, [3.5, 5.5, 11.5, 13.5]),
        ([0, 0, 3, 3], "DEFAULT", False, 2, [1, 3, 9, 11]),
        ([1, 1, 3, 3], "OFFSET_CORNERS", False, 2, [8.5, 9.5, 12.5, 13.5]),
    ],
)
def test_boxes(box, mode, normalized, target, expected):
    options = {
        "target_height": target,
        "target_width": target,
        "normalized_coordinates": normalized,
        "sampling_mode": mode,
    }
    box = np.array([box], np.float32)
    expected = np.reshape(expected, (1, 1, target, target))
    close(call("crop_resize", RAMP, box, **options), expected, atol=1e-5)
    for version, number in itertools.product((IOS15, IOS16), (4, 5)):
        roi = (box if number == 4 else np.concatenate([[[0]], box], 1)).astype(np.float32).reshape(1, 1, number, 1, 1)
        close(call("crop_resize", RAMP, roi, version=version, **options), expected[None], atol=1e-5)


@pytest.mark.parametrize(
    ("coordinates", "box"),
    [
        ("CORNERS_HEIGHT_FIRST", [0.5, 1, 1.5, 3]),
        ("CORNERS_WIDTH_FIRST", [1, 0.5, 3, 1.5]),
        ("CENTER_SIZE_HEIGHT_FIRST", [1, 2, 1, 2]),
        ("CENTER_SIZE_WIDTH_FIRST", [2, 1, 2, 1]),
    ],
)
def test_coordinates_of_boxes(coordinates, box):
    options = {
        "target_height": 2,
        "target_width": 2,
        "box_coordinate_mode": coordinates,
        "sampling_mode": "ALIGN_CORNERS",
    }
    expected = [[[[4, 6], [8, 10]]]]
    close(call("crop_resize", RAMP, np.array([box], np.float32), **options), expected)
    scaled = np.array([box], np.float32) * 4
    close(call("crop_resize", RAMP, scaled, spatial_scale=0.25, **options), expected)


@pytest.mark.parametrize("pad_value", [0.0, 10.0])
def test_samples_outside_of_the_image_are_padding(pad_value):
    boxes = np.array([[0.1, 0.3, 1.3, 1], [0.5, 1.8, 1, 0.3], [0, 0.4, 0.6, 0.7]], np.float32)
    options = {"target_height": 2, "target_width": 2, "normalized_coordinates": True, "sampling_mode": "ALIGN_CORNERS"}
    p = pad_value
    expected = np.reshape([3.1, 5.2, p, p, p, 7.9, p, 13.9, 2.2, 3.1, 9.4, 10.3], (3, 1, 2, 2))
    result = call("crop_resize", RAMP, boxes, np.zeros(3, np.int32), pad_value=pad_value, **options)
    close(result, expected, atol=1e-5)
    roi = np.concatenate([np.zeros((3, 1), np.float32), boxes], 1).reshape(3, 1, 5, 1, 1)
    result = call("crop_resize", RAMP, roi, version=IOS16, pad_value=pad_value, **options)
    close(result, expected[:, None], atol=1e-5)


def test_boxes_without_an_index_are_cut_from_all_images():
    x = np.concatenate([RAMP, 2 * RAMP])
    boxes = np.array([[0, 0, 3, 3], [1, 1, 2, 2]], np.float32)
    options = {"target_height": 2, "target_width": 2, "sampling_mode": "ALIGN_CORNERS"}
    result = call("crop_resize", x, boxes.reshape(2, 1, 4, 1, 1), version=IOS15, **options)
    whole, part = np.array([[1, 4], [13, 16]]), np.array([[6, 7], [10, 11]])
    close(result, np.reshape([whole, 2 * whole, part, 2 * part], (2, 2, 1, 2, 2)))
    close(call("crop_resize", x, boxes, **options), np.reshape([whole, 2 * part], (2, 1, 2, 2)))
    chosen = call("crop_resize", x, boxes, np.array([1, 9], np.int32), **options)
    close(chosen, np.reshape([2 * whole, 2 * part], (2, 1, 2, 2)))


@pytest.mark.parametrize(
    ("operation", "given", "options", "message"),
    [
        ("crop", [random_array(2, 2)], {"crop_height": [0, 0], "crop_width": [0, 0]}, "rank 3 or more, got 2"),
        ("resize", [RAMP], {"shape": [3], "resized_dims": 2}, "resized_dims must be at most 1, got 2"),
        ("resize", [RAMP], {"shape": [3], "resized_dims": 1, "sampling_mode": "NEAR"}, "sampling_mode must be one of"),
        ("resize", [RAMP], {"shape": [3], "resized_dims": 1, "interpolation_mode": "CUBIC"}, "interpolation_mode must"),
        ("resize", [RAMP[:, :, :0]], {"shape": [3, 3], "resized_dims": 2}, "must not be empty"),
        ("upsample_bilinear", [RAMP], {"scale_factor_height": 0.1}, "sizes of a resized image must be positive"),
        ("resample", [RAMP, BOX], resampling(), "coordinates shape"),
        ("resample", [RAMP, COORDINATES], resampling("cubic"), "sampling_mode must be bilinear or nearest"),
        ("resample", [RAMP, COORDINATES[:1]], resampling(padding="wrap"), "padding_mode must be constant"),
        ("resample", [RAMP, COORDINATES[:1]], resampling(mode="pixels"), "coordinates_mode must be unnormalized"),
        ("affine", [RAMP, BOX], affine_options(1, 1, mode="unnormalized"), "normalized_minus_one_to_one"),
        ("crop_resize", [RAMP, BOX[None]], {"box_coordinate_mode": "CORNERS"}, "box_coordinate_mode must be"),
        ("crop_resize", [RAMP[0], BOX[None]], {}, "x must have rank 4, got 3"),
    ],
)
def test_what_is_undefined_is_refused(operation, given, options, message):
    with pytest.raises(ValueError, match=message):
        call(operation, *given, **options)
    with pytest.raises(ValueError, match="roi must have shape"):
        call("crop_resize", RAMP, BOX, version=IOS15)
