"""Convolutions, pooling, resizing, products and normalization, from their definitions."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

RANDOM = np.random.default_rng(6)
X = RANDOM.normal(size=(2, 4, 5, 6)).astype(np.float32)


def borders(top, bottom, left, right):
    edges = [{"startEdgeSize": top, "endEdgeSize": bottom}, {"startEdgeSize": left, "endEdgeSize": right}]
    return {"paddingAmounts": {"borderAmounts": edges}}


def convolve(x, weights, strides, pads, dilations, groups=1):
    """A convolution of any number of axes, window by window; `pads` has a pair for each axis."""
    axes = len(strides)
    x = np.pad(x, [(0, 0), (0, 0), *pads])
    spans = [(size - 1) * dilation + 1 for size, dilation in zip(weights.shape[2:], dilations, strict=True)]
    sizes = [(n - span) // s + 1 for n, span, s in zip(x.shape[2:], spans, strides, strict=True)]
    result = np.zeros((x.shape[0], weights.shape[0], *sizes))
    inputs, outputs = x.shape[1] // groups, weights.shape[0] // groups
    for place in itertools.product(*map(range, sizes)):
        each = zip(place, strides, spans, dilations, strict=True)
        window = x[(slice(None), slice(None), *(slice(at * s, at * s + span, d) for at, s, span, d in each))]
        for group in range(groups):
            part = window[:, group * inputs : (group + 1) * inputs]
            chosen = weights[group * outputs : (group + 1) * outputs]
            summed = np.tensordot(part, chosen, (range(1, axes + 2), range(1, axes + 2)))
            result[(slice(None), slice(group * outputs, (group + 1) * outputs), *place)] = summed
    return result


@pytest.mark.parametrize(
    ("params", "pads"),
    [
        ({"valid": {}}, [(0, 0), (0, 0)]),
        ({}, [(0, 0), (0, 0)]),
        ({"valid": borders(1, 0, 2, 1)}, [(1, 0), (2, 1)]),
        ({"same": {}}, [(0, 1), (1, 1)]),
        ({"same": {"asymmetryMode": 1}}, [(1, 0), (1, 1)]),
    ],
)
@pytest.mark.parametrize("groups", [1, 2])
def test_convolution(check, weight, params, pads, groups):
    """Kernels of 2 x 3, strides of 1 x 1."""
    weights, bias = RANDOM.normal(size=(6, 4 // groups, 2, 3)), RANDOM.normal(size=6)
    shape = {"outputChannels": 6, "kernelChannels": 4 // groups, "nGroups": groups, "kernelSize": [2, 3]}
    stored = {"weights": weight(weights), "bias": weight(bias), "hasBias": True}
    expected = convolve(X, weights, (1, 1), pads, (1, 1), groups) + bias[:, None, None]
    check("convolution", {**params, **shape, **stored}, [X], expected, 1e-5)


def test_convolution_has_kernels_of_3_by_default(check, weight):
    weights = RANDOM.normal(size=(2, 4, 3, 3))
    params = {"outputChannels": 2, "kernelChannels": 4, "valid": {}, "weights": weight(weights)}
    check("convolution", params, [X], convolve(X, weights, (1, 1), [(0, 0)] * 2, (1, 1)), 1e-5)


def test_convolution_of_rank_5_with_strides_and_dilations(check, weight):
    weights = RANDOM.normal(size=(2, 4, 2, 2))
    params = {"outputChannels": 2, "kernelChannels": 4, "kernelSize": [2, 2], "valid": {}, "weights": weight(weights)}
    expected = convolve(X, weights, (2, 1), [(0, 0)] * 2, (1, 3))
    check("convolution", {**params, "stride": [2, 1], "dilationFactor": [1, 3]}, [X[None]], expected[None], 1e-5)


def test_convolution_by_weights_that_are_an_input(check):
    weights = RANDOM.normal(size=(3, 4, 2, 2))
    params = {"outputChannels": 3, "kernelChannels": 4, "kernelSize": [2, 2], "same": {}}
    check("convolution", params, [X, weights], convolve(X, weights, (1, 1), [(0, 1)] * 2, (1, 1)), 1e-5)


def deconvolve(x, weights, strides, pads, groups=1):
    """A transposed convolution: every input element adds the kernel to the output."""
    batch, channels, *sizes = x.shape
    kernel = weights.shape[2:]
    full = [(n - 1) * s + k for n, s, k in zip(sizes, strides, kernel, strict=True)]
    outputs = weights.shape[1]
    result = np.zeros((batch, outputs * groups, *full))
    for channel in range(channels):
        group = channel // (channels // groups)
        for place in itertools.product(*map(range, sizes)):
            value = x[(slice(None), channel, *place)].reshape(batch, *(1,) * (len(sizes) + 1))
            window = tuple(slice(at * s, at * s + k) for at, s, k in zip(place, strides, kernel, strict=True))
            result[(slice(None), slice(group * outputs, (group + 1) * outputs), *window)] += value * weights[channel]
    crop = tuple(slice(before, size - after) for (before, after), size in zip(pads, full, strict=True))
    return result[(slice(None), slice(None), *crop)]


@pytest.mark.parametrize(
    ("params", "pads"),
    [
        ({"valid": {}}, [(0, 0), (0, 0)]),
        ({"valid": borders(1, 0, 0, 1)}, [(1, 0), (0, 1)]),
        ({"same": {}}, [(0, 1), (1, 1)]),
        ({"same": {"asymmetryMode": 1}}, [(1, 0), (1, 1)]),
        ({"valid": {}, "outputShape": [11, 13]}, [(0, 0), (0, 0)]),
        ({"valid": {}, "outputShape": [10, 12]}, [(0, 1), (0, 1)]),
    ],
)
@pytest.mark.parametrize("groups", [1, 2])
def test_deconvolution(check, weight, params, pads, groups):
    """Kernels of 3 x 3 and 3 x 4 with strides of 2."""
    kernel = [3, 3] if "outputShape" in params else [3, 4]
    weights, bias = RANDOM.normal(size=(4, 6 // groups, *kernel)), RANDOM.normal(size=6)
    shape = {"outputChannels": 6, "kernelChannels": 4, "nGroups": groups, "kernelSize": kernel, "stride": [2, 2]}
    stored = {"weights": weight(weights), "bias": weight(bias), "hasBias": True, "isDeconvolution": True}
    expected = deconvolve(X, weights, (2, 2), pads, groups) + bias[:, None, None]
    check("convolution", {**params, **shape, **stored}, [X], expected, 1e-5)


EDGES = ("Front", "Back", "Top", "Bottom", "Left", "Right")


@pytest.mark.parametrize(
    ("params", "pads"),
    [
        ({}, [(0, 0)] * 3),
        ({f"customPadding{edge}": index % 3 for index, edge in enumerate(EDGES)}, [(0, 1), (2, 0), (1, 2)]),
        ({"paddingType": 1, "customPaddingTop": 5}, [(0, 0)] * 3),
        ({"paddingType": 2}, [(0, 1), (0, 1), (1, 1)]),
    ],
)
def test_convolution_3d(check, weight, params, pads):
    x, weights = RANDOM.normal(size=(1, 2, 3, 4, 5)), RANDOM.normal(size=(4, 1, 2, 2, 3))
    shape = {"outputChannels": 4, "inputChannels": 2, "nGroups": 2}
    kernel = {"kernelDepth": 2, "kernelHeight": 2, "kernelWidth": 3}
    expected = convolve(x, weights, (1, 1, 1), pads, (1, 1, 1), 2)
    check("convolution3d", {**params, **shape, **kernel, "weights": weight(weights)}, [x], expected, 1e-5)


def test_deconvolution_3d(check, weight):
    x, weights, bias = RANDOM.normal(size=(1, 2, 2, 3, 2)), RANDOM.normal(size=(2, 3, 2, 2, 2)), [1.0, 2.0, 3.0]
    shape = {"outputChannels": 3, "inputChannels": 2, "kernelDepth": 2, "kernelHeight": 2, "kernelWidth": 2}
    params = {"isDeconvolution": True, "paddingType": 1, "strideDepth": 2, "hasBias": True, "bias": weight(bias)}
    expected = deconvolve(x, weights, (2, 1, 1), [(0, 0)] * 3) + np.reshape(bias, (3, 1, 1, 1))
    check("convolution3d", {**params, **shape, "weights": weight(weights)}, [x], expected, 1e-5)


def pool(x, kernel, strides, pads, kind, exclude=True):
    """Pooling window by window: the largest, the mean, or the length of the vector of its elements."""
    axes = tuple(range(2, x.ndim))
    filler = -np.inf if kind == 0 else 0
    padded = np.pad(x, [(0, 0), (0, 0), *pads], constant_values=filler)
    inside = np.pad(np.ones(x.shape), [(0, 0), (0, 0), *pads])
    sizes = [(n - k) // s + 1 for n, k, s in zip(padded.shape[2:], kernel, strides, strict=True)]
    result = np.zeros((*x.shape[:2], *sizes))
    for place in itertools.product(*map(range, sizes)):
        window = tuple(slice(at * s, at * s + k) for at, s, k in zip(place, strides, kernel, strict=True))
        part = padded[(slice(None), slice(None), *window)]
        count = inside[(slice(None), slice(None), *window)].sum(axes) if exclude else np.prod(kernel)
        values = (part.max(axes), part.sum(axes) / count, np.sqrt((part**2).sum(axes)))
        result[(slice(None), slice(None), *place)] = values[kind]
    return result


@pytest.mark.parametrize("kind", range(3))
@pytest.mark.parametrize(
    ("params", "pads"),
    [
        ({"valid": {}}, [(0, 0), (0, 0)]),
        ({"valid": borders(1, 0, 1, 1)}, [(1, 0), (1, 1)]),
        ({"same": {}}, [(0, 1), (0, 1)]),
        ({"same": {"asymmetryMode": 1}}, [(1, 0), (1, 0)]),
        ({"includeLastPixel": {}}, [(0, 1), (0, 0)]),
    ],
)
def test_pooling(check, kind, params, pads):
    shape = {"type": kind, "kernelSize": [2, 2], "stride": [2, 2], "avgPoolExcludePadding": True}
    if "same" in params:  # which of an even size pads only for odd inputs
        pads = [pads[0], (0, 0)]
    check("pooling", {**params, **shape}, [X], pool(X, (2, 2), (2, 2), pads, kind), 1e-5)


def test_average_pooling_that_counts_the_padding(check):
    params = {"type": 1, "kernelSize": [3, 3], "valid": borders(1, 1, 1, 1)}
    check("pooling", params, [X], pool(X, (3, 3), (1, 1), [(1, 1)] * 2, 1, exclude=False), 1e-5)


def test_pooling_has_kernels_of_3_and_strides_of_1_by_default(check):
    check("pooling", {"valid": {}}, [X], pool(X, (3, 3), (1, 1), [(0, 0)] * 2, 0))


@pytest.mark.parametrize("kind", range(3))
def test_global_pooling(check, kind):
    check("pooling", {"type": kind, "globalPooling": True}, [X], pool(X, (5, 6), (1, 1), [(0, 0)] * 2, kind), 1e-5)


@pytest.mark.parametrize("kind", range(2))
def test_pooling_3d(check, kind):
    x = RANDOM.normal(size=(1, 2, 4, 5, 4))
    size = {
        "kernelDepth": 2,
        "kernelHeight": 3,
        "kernelWidth": 2,
        "strideDepth": 2,
        "strideHeight": 1,
        "strideWidth": 1,
    }
    custom = {f"customPadding{edge}": 1 for edge in ("Top", "Right")}
    expected = pool(x, (2, 3, 2), (2, 1, 1), [(0, 0), (1, 0), (0, 1)], kind)
    check("pooling3d", {"type": kind, "countExcludePadding": True, **size, **custom}, [x], expected, 1e-5)
    expected = pool(x, (2, 3, 2), (2, 1, 1), [(0, 0), (1, 1), (0, 1)], kind)
    check("pooling3d", {"type": kind, "countExcludePadding": True, "paddingType": 2, **size}, [x], expected, 1e-5)
    whole = pool(x, (4, 5, 4), (1, 1, 1), [(0, 0)] * 3, kind)
    check("globalPooling3d", {"type": kind}, [x], whole, 1e-5)


def interpolate(x, rows, columns):
    """Linear interpolation at rows and columns, which lie within the image."""

    def along(x, places, axis):
        places = np.clip(np.asarray(places, np.float64), 0, x.shape[axis] - 1)
        low = np.floor(places).astype(int)
        high = np.minimum(low + 1, x.shape[axis] - 1)
        shape = [1] * x.ndim
        shape[axis] = -1
        part = (places - low).reshape(shape)
        return np.take(x, low, axis) * (1 - part) + np.take(x, high, axis) * part

    return along(along(x, rows, -2), columns, -1)


def test_upsample_nearest(check):
    check("upsample", {"scalingFactor": [2, 3]}, [X], X.repeat(2, -2).repeat(3, -1))
    check("upsample", {}, [X], X)


@pytest.mark.parametrize("mode", range(3))
def test_upsample_bilinear(check, mode):
    def grid(size, count):
        spacing = ((size - size / count) / (count - 1), (size - 1) / (count - 1), size / count)[mode]
        return np.arange(count) * spacing + (0.5 * spacing - 0.5 if mode == 2 else 0)

    expected = interpolate(X, grid(5, 10), grid(6, 18))
    check("upsample", {"scalingFactor": [2, 3], "mode": 1, "linearUpsampleMode": mode}, [X], expected, 1e-5)
    expected = interpolate(X, grid(5, 7), grid(6, 15))
    params = {"fractionalScalingFactor": [1.5, 2.5], "mode": 1, "linearUpsampleMode": mode}
    check("upsample", params, [X], expected, 1e-5)


def sampling_grid(mode, first, last, size, count):
    """The points of ``SamplingMode`` between two places of an axis."""
    length = last - first + 1
    if mode == 0 or (mode == 1 and count > 1):
        return np.linspace(first, last, count)
    if mode == 1:
        return np.array([(first + last) / 2])
    if mode == 2:
        return np.minimum(last, np.linspace(first, first + length - length / count, count))
    spacing = max(1, length - 1) / count
    return np.minimum(last, first + 0.5 * spacing + np.arange(count) * spacing)


@pytest.mark.parametrize("mode", range(4))
@pytest.mark.parametrize("size", [(3, 4), (1, 9), (8, 1)])
def test_resize_bilinear(check, mode, size):
    rows, columns = (sampling_grid(mode, 0, n - 1, n, m) for n, m in zip((5, 6), size, strict=True))
    params = {"targetSize": size, "mode": {"samplingMethod": mode}}
    check("resizeBilinear", params, [X], interpolate(X, rows, columns), 1e-5)


def test_resize_bilinear_to_1_by_default(check):
    check("resizeBilinear", {}, [X], X[..., :1, :1])


@pytest.mark.parametrize("mode", [0, 1, 3])
def test_crop_and_resize(check, mode):
    """Boxes as corners, in pixels; all of all images, and each of the image that it names."""
    boxes = np.array([[1, 1, 3, 4], [0, 2, 4, 5]], np.float32)
    params = {"targetSize": [3, 2], "mode": {"samplingMethod": mode}}
    expected = [
        interpolate(
            X,
            sampling_grid(mode, top, bottom, 5, 3),
            sampling_grid(mode, left, right, 6, 2),
        )
        for top, left, bottom, right in boxes
    ]
    check("cropResize", params, [X[None], boxes[:, None, :, None, None]], np.stack(expected), 1e-5)
    named = np.concatenate([[[1], [0]], boxes], 1)[:, None, :, None, None]
    check("cropResize", params, [X[None], named], np.stack([expected[0][1:], expected[1][:1]]), 1e-5)


def test_crop_and_resize_of_normalized_centers(check):
    boxes = np.array([[0.5, 0.5, 0.5, 0.4]], np.float32)[:, None, :, None, None]  # height first
    params = {"targetSize": [2, 2], "normalizedCoordinates": True, "boxIndicesMode": {"boxMode": 2}}
    expected = interpolate(X, [1, 3], [1.5, 3.5])[None]
    check("cropResize", params, [X[None], boxes], expected, 1e-5)
    boxes = boxes[:, :, [1, 0, 3, 2]]
    check("cropResize", {**params, "boxIndicesMode": {"boxMode": 3}}, [X[None], boxes], expected, 1e-5)


@pytest.mark.parametrize("rank", range(1, 6))
def test_inner_product(check, weight, rank):
    x = RANDOM.normal(size=[(24,), (3, 24), (2, 3, 24), (3, 2, 3, 4), (2, 3, 4, 3, 2)][rank - 1])
    weights, bias = RANDOM.normal(size=(5, 24)), RANDOM.normal(size=5)
    flat = x.reshape(*x.shape[: rank - 3], 24) if rank > 3 else x
    expected = flat @ weights.T + bias
    params = {
        "inputChannels": 24,
        "outputChannels": 5,
        "hasBias": True,
        "bias": weight(bias),
        "weights": weight(weights),
    }
    check("innerProduct", params, [x], expected[..., None, None] if rank > 3 else expected, 1e-5)


def test_inner_product_that_quantizes_its_input(run_layer):
    weights = np.array([[3, -127, 5], [100, 0, -4]], np.int8)
    quantization = {"numberOfBits": 8, "linearQuantization": {"scale": [0.5]}}
    stored = {"int8RawValue": weights.tobytes(), "quantization": quantization}
    params = {"inputChannels": 3, "outputChannels": 2, "int8DynamicQuantize": True, "weights": stored}
    x = np.array([1.0, -0.3, 0.126], np.float32)
    rounded = np.round(x * 127) / 127
    np.testing.assert_allclose(run_layer("innerProduct", params, x), rounded @ weights.T * 0.5, rtol=1e-5)
    assert not run_layer("innerProduct", params, np.zeros(3)).any()


def test_batched_matmul(check, weight):
    x, y = RANDOM.normal(size=(2, 3, 4)), RANDOM.normal(size=(4, 5))
    check("batchedMatmul", {}, [x, y], x @ y, 1e-5)
    check("batchedMatmul", {"transposeB": True}, [x, y.T], x @ y, 1e-5)
    check("batchedMatmul", {"transposeA": True}, [x.swapaxes(1, 2), y], x @ y, 1e-5)
    check("batchedMatmul", {}, [y[:, 0], y], (y[:, 0] @ y)[None], 1e-5)
    check("batchedMatmul", {}, [x, y[:, 0]], (x @ y[:, 0])[..., None], 1e-5)
    params = {"weightMatrixFirstDimension": 4, "weightMatrixSecondDimension": 5, "weights": weight(y.T)}
    check("batchedMatmul", params, [x], x @ y, 1e-5)
    check("batchedMatmul", params, [x[0, 0]], x[0, 0] @ y, 1e-5)
    check("batchedMatmul", {**params, "hasBias": True, "bias": weight(y[0])}, [x], x @ y + y[0], 1e-5)


def test_embedding(check, weight):
    table, bias = RANDOM.normal(size=(3, 5)), RANDOM.normal(size=3)
    numbers = np.array([4, 0, 2, 2])
    stored = {"weights": weight(table), "bias": weight(bias), "hasBias": True}
    rows = table.T[numbers] + bias
    sizes = {"inputDim": 5, "outputChannels": 3}
    check("embedding", {**sizes, **stored}, [numbers.reshape(4, 1, 1, 1)], rows[..., None, None])
    check("embedding", {**sizes, **stored}, [numbers.reshape(2, 2, 1, 1, 1)], rows.reshape(2, 2, 3, 1, 1))
    sizes = {"vocabSize": 5, "embeddingSize": 3}
    check("embeddingND", {**sizes, **stored}, [numbers.reshape(2, 2, 1)], rows.reshape(2, 2, 3))
    check("embeddingND", {**sizes, "weights": weight(table)}, [[[-1], [9]]], table.T[[0, 4]])


CHANNELS = [1.0, 2.0, -1.0, 0.5]


def test_batchnorm(check, weight):
    mean, variance = np.array([0.5, -1, 2, 0]), np.array([1.0, 4, 0.25, 9])
    gamma, beta = np.array(CHANNELS), np.array(CHANNELS[::-1])
    stored = {"gamma": gamma, "beta": beta, "mean": mean, "variance": variance}
    params = {"channels": 4, **{name: weight(values) for name, values in stored.items()}}
    wide = {name: values[:, None, None] for name, values in stored.items()}

    def normalized(mean, variance, epsilon):
        return (X - mean) / np.sqrt(variance + epsilon) * wide["gamma"] + wide["beta"]

    check("batchnorm", params, [X], normalized(wide["mean"], wide["variance"], 1e-5), 1e-5)
    check(
        "batchnorm", {**params, "epsilon": 0.5}, [X[None]], normalized(wide["mean"], wide["variance"], 0.5)[None], 1e-5
    )
    params["computeMeanVar"] = True
    check(
        "batchnorm",
        params,
        [X],
        normalized(X.mean((0, 2, 3), keepdims=True), X.var((0, 2, 3), keepdims=True), 1e-5),
        1e-5,
    )
    params["instanceNormalization"] = True
    check("batchnorm", params, [X], normalized(X.mean((2, 3), keepdims=True), X.var((2, 3), keepdims=True), 1e-5), 1e-5)


@pytest.mark.parametrize("across", [False, True])
def test_mean_variance_normalization(check, across):
    axes = (-3, -2, -1) if across else (-2, -1)
    centered = X - X.mean(axes, keepdims=True)
    check("mvn", {"acrossChannels": across}, [X], centered, 1e-5)
    expected = centered / np.sqrt(X.var(axes, keepdims=True) + 1e-6)
    check("mvn", {"acrossChannels": across, "normalizeVariance": True}, [X], expected, 1e-5)
    expected = centered / np.sqrt(X.var(axes, keepdims=True) + 0.5)
    check("mvn", {"acrossChannels": across, "normalizeVariance": True, "epsilon": 0.5}, [X], expected, 1e-5)


def test_l2_normalization(check):
    squares = (X**2).sum((1, 2, 3), keepdims=True)
    check("l2normalize", {}, [X], X / np.sqrt(squares + 1e-6), 1e-5)
    check("l2normalize", {"epsilon": 2}, [X], X / np.sqrt(squares + 2), 1e-5)
    check("l2normalize", {}, [np.full((1, 1, 1), 1e-3)], [[[1e-3 / np.sqrt(2e-6)]]], 1e-5)


@pytest.mark.parametrize("k", [0, 2])
def test_local_response_normalization(check, k):
    padded = np.pad(X**2, ((0, 0), (1, 1), (0, 0), (0, 0)))
    sums = padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:]
    expected = X / ((k or 1) + 0.5 / 3 * sums) ** 0.75
    check("lrn", {"alpha": 0.5, "beta": 0.75, "localSize": 3, "k": k}, [X], expected, 1e-5)
    check("lrn", {"alpha": 0.5, "beta": 0.75, "localSize": 3, "k": k}, [X[0]], expected[0], 1e-5)


def test_layer_normalization(check, weight):
    gamma, beta = RANDOM.normal(size=(2, 5, 6))
    mean, variance = X.mean((2, 3), keepdims=True), X.var((2, 3), keepdims=True)
    params = {"normalizedShape": [5, 6], "eps": 0.1, "gamma": weight(gamma), "beta": weight(beta)}
    check("layerNormalization", params, [X], (X - mean) / np.sqrt(variance + 0.1) * gamma + beta, 1e-5)


@pytest.mark.parametrize(
    ("shape", "wide"), [((1,), ()), ((4,), (4, 1, 1)), ((1, 5, 6), (1, 5, 6)), ((4, 5, 6), (4, 5, 6))]
)
def test_scale_and_bias(check, weight, shape, wide):
    factors, bias = RANDOM.normal(size=(2, *shape))
    check("bias", {"shape": shape, "bias": weight(bias)}, [X], X + bias.reshape(wide))
    params = {"shapeScale": shape, "scale": weight(factors)}
    check("scale", params, [X], X * factors.reshape(wide))
    params |= {"hasBias": True, "shapeBias": [1], "bias": weight([0.5])}
    check("scale", params, [X], X * factors.reshape(wide) + 0.5)
