import itertools

import numpy as np
import pytest
from operations import call, check_gradients, close, random_array


def direct(x, weight, bias, strides, before, after, dilations, groups):
    """A convolution by its definition, over any number of spatial axes."""
    x = np.pad(x.astype(np.float64), [(0, 0), (0, 0), *zip(before, after, strict=True)])
    spatial = x.ndim - 2
    kernel = weight.shape[2:]
    sizes = [(x.shape[2 + i] - (kernel[i] - 1) * dilations[i] - 1) // strides[i] + 1 for i in range(spatial)]
    outputs = len(weight)
    result = np.zeros((len(x), outputs, *sizes))
    for place in itertools.product(*map(range, sizes)):
        window = x[
            (
                slice(None),
                slice(None),
                *(
                    slice(p * s, p * s + (k - 1) * d + 1, d)
                    for p, s, k, d in zip(place, strides, kernel, dilations, strict=True)
                ),
            )
        ]
        for output in range(outputs):
            group = output * groups // outputs
            inputs = window[:, group * weight.shape[1] : (group + 1) * weight.shape[1]]
            result[(slice(None), output, *place)] = (inputs * weight[output]).reshape(len(x), -1).sum(1)
    return result if bias is None else result + bias.reshape(-1, *[1] * spatial)


def same_pads(sizes, kernel, strides, dilations, lower=False):
    totals = [
        max((-(-n // s) - 1) * s + (k - 1) * d + 1 - n, 0)
        for n, k, s, d in zip(sizes, kernel, strides, dilations, strict=True)
    ]
    small, large = [t // 2 for t in totals], [t - t // 2 for t in totals]
    return (large, small) if lower else (small, large)


SHAPES = {3: ((2, 4, 11), (6, 2, 4)), 4: ((2, 4, 7, 9), (6, 2, 3, 2)), 5: ((1, 4, 5, 6, 6), (6, 2, 2, 3, 2))}


@pytest.mark.parametrize("rank", [3, 4, 5])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("pad_type", ["valid", "custom", "symmetric", "same", "same_lower"])
def test_conv(rank, stride, dilation, pad_type):
    shape, weights = SHAPES[rank]
    x, weight, bias = random_array(*shape), random_array(*weights, seed=1), random_array(6, seed=2)
    spatial = rank - 2
    strides, dilations = [stride] * spatial, [dilation] * spatial
    pad = [[1, 2, 0, 3, 2, 1], [1, 1, 2, 2, 0, 0]][pad_type == "symmetric"][: 2 * spatial]
    kind = "custom" if pad_type == "symmetric" else pad_type
    before, after = [0] * spatial, [0] * spatial
    if kind == "custom":
        before, after = pad[::2], pad[1::2]
    elif kind != "valid":
        before, after = same_pads(shape[2:], weights[2:], strides, dilations, kind == "same_lower")
    expected = direct(x, weight, bias, strides, before, after, dilations, 2)
    options = {"strides": strides, "dilations": dilations, "pad_type": kind, "groups": 2}
    close(call("conv", x, weight, bias, **options, pad=pad), expected, atol=1e-5)
    close(call("conv", x, weight, **options, pad=pad), expected - bias.reshape(-1, *[1] * spatial), atol=1e-5)
    if kind.startswith("same"):
        assert expected.shape[2:] == tuple(-(-size // stride) for size in shape[2:])


def test_conv_has_the_defaults_of_the_operation():
    x, weight = random_array(1, 3, 6, 6), random_array(2, 3, 3, 3)
    close(call("conv", x, weight, pad=[9] * 4), direct(x, weight, None, [1, 1], [0, 0], [0, 0], [1, 1], 1), atol=1e-5)


def test_gradients():
    x, weight, bias = random_array(1, 2, 5), random_array(2, 2, 3), random_array(2)
    check_gradients("conv", x, weight, bias, pad_type="custom", pad=[2, 1], strides=[2])
    check_gradients("conv_transpose", x, weight, bias, strides=[2], pad_type="same")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pad_type": "full"}, "pad_type must be one of"),
        ({"pad_type": "custom", "pad": [1, 1, 1]}, "pad must have two numbers"),
    ],
)
def test_wrong_padding_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        call("conv", random_array(1, 1, 4, 4), random_array(1, 1, 2, 2), **options)
    with pytest.raises(ValueError, match="rank 3, 4 or 5, got 2"):
        call("conv", random_array(1, 4), random_array(1, 1, 2))
    with pytest.raises(ValueError, match="pad_type must be valid, custom or same"):
        call("conv_transpose", random_array(1, 1, 4), random_array(1, 1, 2), pad_type="same_lower")


def test_quantized_weights():
    x = random_array(1, 2, 5, 5)
    levels = np.random.default_rng(0).integers(0, 16, (3, 2, 2, 2), np.uint8)
    scale, shift, bias = np.array([0.5, 0.25, 2], np.float32), np.array([-1, 0, 1], np.float32), random_array(3)
    for each_scale, each_shift in ((scale, shift), (scale[:1], shift[:1]), (scale[0], shift[2])):
        weight = levels * each_scale.reshape(-1, 1, 1, 1) + each_shift.reshape(-1, 1, 1, 1)
        result = call(
            "conv_quantized",
            x,
            levels,
            bias,
            each_scale,
            each_shift,
            quantization_type="linear",
            nbits=4,
            strides=[2, 2],
        )
        close(result, direct(x, weight, bias, [2, 2], [0, 0], [0, 0], [1, 1], 1), atol=1e-4)
    with pytest.raises(ValueError, match="must be linear"):
        call("conv_quantized", x, levels, quantization_type="lut")


def scattered(x, weight, strides, dilations, groups):
    """The full result of a transposed convolution: each element adds its kernel."""
    spatial = x.ndim - 2
    kernel = weight.shape[2:]
    sizes = [(x.shape[2 + i] - 1) * strides[i] + (kernel[i] - 1) * dilations[i] + 1 for i in range(spatial)]
    per_group, inputs = weight.shape[1], x.shape[1] // groups
    result = np.zeros((len(x), per_group * groups, *sizes))
    for place in itertools.product(*map(range, x.shape[2:])):
        target = tuple(
            slice(p * s, p * s + (k - 1) * d + 1, d)
            for p, s, k, d in zip(place, strides, kernel, dilations, strict=True)
        )
        for group in range(groups):
            channels = slice(group * inputs, (group + 1) * inputs)
            values = x[(slice(None), channels, *place)]
            added = np.tensordot(values, weight[channels], 1)
            result[(slice(None), slice(group * per_group, (group + 1) * per_group), *target)] += added
    return result


def window(full, before, sizes):
    """A part of the full result, with zeros behind it."""
    for axis, (start, size) in enumerate(zip(before, sizes, strict=True), start=2):
        full = np.concatenate([full, np.zeros((*full.shape[:axis], size + start, *full.shape[axis + 1 :]))], axis)
        full = full.take(range(start, start + size), axis)
    return full


@pytest.mark.parametrize("rank", [3, 4, 5])
@pytest.mark.parametrize("stride", [1, 2, 4])
@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("case", ["valid", "symmetric", "custom", "same", "shape", "longer", "same shape"])
def test_conv_transpose(rank, stride, dilation, case):
    spatial = rank - 2
    shape, weights = (2, 4, *(5, 4, 3)[:spatial]), (4, 3, *(3, 2, 3)[:spatial])
    x, weight, bias = random_array(*shape), random_array(*weights, seed=1), random_array(6, seed=2)
    strides, dilations = [stride] * spatial, [dilation] * spatial
    full = scattered(x, weight, strides, dilations, 2)
    before, options = [0] * spatial, {}
    sizes = list(full.shape[2:])
    if case in ("symmetric", "custom", "shape", "longer"):
        pad = ([1, 0, 0, 1, 1, 0] if case == "custom" else [1, 1, 0, 0, 1, 1])[: 2 * spatial]
        before = pad[::2]
        sizes = [size - pad[2 * i] - pad[2 * i + 1] for i, size in enumerate(sizes)]
        options = {"pad_type": "custom", "pad": pad}
    if case == "shape":
        sizes = [max(size - 1, 1) for size in sizes]
    if case == "longer":
        sizes = [size + 3 for size in sizes]
    if case.startswith("same"):
        extra = 1 if case == "same shape" else 0
        sizes = [size * stride + extra for size in shape[2:]]
        before = [max(whole - size, 0) // 2 for whole, size in zip(full.shape[2:], sizes, strict=True)]
        options = {"pad_type": "same"}
    if case in ("shape", "longer", "same shape"):
        options["output_shape"] = [2, 6, *sizes]
    expected = window(full, before, sizes) + bias.reshape(-1, *[1] * spatial)
    options |= {"strides": strides, "dilations": dilations, "groups": 2}
    close(call("conv_transpose", x, weight, bias, **options), expected, atol=1e-5)
