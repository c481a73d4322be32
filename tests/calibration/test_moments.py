"""Second moments against plain NumPy: windows made one by one, and all vectors multiplied at once."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from corepress import coreml

torch = pytest.importorskip("torch")
pytest.importorskip("coremltools")


def calibrated(path, samples, **options):
    options = {"candidates": None, "weight_threshold": 0} | options
    return coreml.calibrate(path, samples, **options)


def only(statistics):
    (found,) = [each for each in statistics.weights.values() if each.hessian is not None]
    return found


def fitted(samples):
    """The samples that second moments are taken from."""
    return [each for index, each in enumerate(samples) if index % 4 != 3]


def moments_of(vectors):
    """E[x x^T] of vectors (count, columns)."""
    wide = np.asarray(vectors, np.float64)
    return wide.T @ wide / len(wide)


def windows(x, kernel, strides, dilations, pads, groups):
    """All windows of images (n, channels, ...), with zeros around: (groups, count, columns), by plain loops."""
    spatial = x.ndim - 2
    x = np.pad(x, [(0, 0), (0, 0), *zip(pads[::2], pads[1::2], strict=True)])
    counts = [
        (x.shape[2 + axis] - (kernel[axis] - 1) * dilations[axis] - 1) // strides[axis] + 1 for axis in range(spatial)
    ]
    found = [[] for _ in range(groups)]
    for image in x:
        for place in itertools.product(*map(range, counts)):
            part = image[
                (
                    slice(None),
                    *(
                        slice(
                            place[axis] * strides[axis],
                            place[axis] * strides[axis] + (kernel[axis] - 1) * dilations[axis] + 1,
                            dilations[axis],
                        )
                        for axis in range(spatial)
                    ),
                )
            ]
            for group, channels in enumerate(np.split(part, groups)):
                found[group].append(channels.reshape(-1))
    return np.array(found)


def assert_moments(found, expected):
    """Compare the blocks with those of whole matrices (groups, columns, columns)."""
    groups, blocks, size, _ = found.hessian.shape
    columns = expected.shape[1]
    assert groups == len(expected)
    assert blocks * size >= columns
    scale = np.abs(expected).max()
    for group, block in itertools.product(range(groups), range(blocks)):
        start, stop = block * size, min((block + 1) * size, columns)
        wanted = np.zeros((size, size))
        wanted[: stop - start, : stop - start] = expected[group, start:stop, start:stop]
        np.testing.assert_allclose(found.hessian[group, block], wanted, atol=2e-6 * scale, rtol=2e-5)


CONVOLUTIONS = {
    "plain": ((2, 6, 9, 8), (8, 6, 3, 3), {}),
    "strides": ((1, 6, 9, 8), (8, 6, 3, 2), {"strides": [2, 3]}),
    "dilations": ((1, 4, 9, 8), (8, 4, 3, 2), {"dilations": [2, 1]}),
    "groups": ((1, 6, 7, 5), (8, 3, 3, 3), {"groups": 2}),
    "depthwise": ((1, 6, 7, 5), (6, 1, 3, 3), {"groups": 6}),
    "padded": ((1, 4, 6, 5), (4, 4, 3, 3), {"pad_type": "custom", "pad": [1, 2, 0, 1]}),
    "same": ((1, 4, 6, 5), (4, 4, 3, 2), {"pad_type": "same", "strides": [2, 2]}),
    "one axis": ((1, 3, 40), (5, 3, 16), {"strides": [4]}),
    "three axes": ((1, 3, 5, 4, 4), (4, 3, 2, 2, 3), {}),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
@pytest.mark.parametrize("most", [2048, 7])
def test_convolutions(save, mb, rng, name, most):
    shape, weight_shape, options = CONVOLUTIONS[name]
    weight = rng.standard_normal(weight_shape).astype(np.float32)
    path = save(lambda x: mb.conv(x=x, weight=weight, name="y", **options), inputs={"x": (shape, "float32")})
    samples = [{"x": rng.standard_normal(shape).astype(np.float32)} for _ in range(5)]
    found = only(calibrated(path, samples, block_columns=most))
    spatial = len(shape) - 2
    kernel, strides = weight_shape[2:], options.get("strides", [1] * spatial)
    pads = options.get("pad", [0, 0] * spatial) if options.get("pad_type") == "custom" else [0, 0] * spatial
    if options.get("pad_type") == "same":
        totals = [
            max((-(-size // step) - 1) * step + length - size, 0)
            for size, step, length in zip(shape[2:], strides, kernel, strict=True)
        ]
        pads = [each for total in totals for each in (total // 2, total - total // 2)]
    groups = options.get("groups", 1)
    vectors = np.concatenate(
        [
            windows(each["x"], kernel, strides, options.get("dilations", [1] * spatial), pads, groups)
            for each in fitted(samples)
        ],
        axis=1,
    )
    assert found.count == vectors.shape[1]
    assert_moments(found, np.array([moments_of(each) for each in vectors]))
    # What the layer computes is the view's matrices times these vectors.
    products = np.einsum("grc,gnc->grn", found.view.matrices(weight), vectors)
    expected = np.concatenate(
        [np.asarray(run(path, each)["y"]).reshape(shape[0], weight_shape[0], -1) for each in fitted(samples)]
    )
    computed = expected.transpose(1, 0, 2).reshape(groups, weight_shape[0] // groups, -1)
    np.testing.assert_allclose(products, computed, atol=1e-3)


def run(path, inputs):
    from corepress import runtime

    return runtime.load(path, precision="float32").predict(inputs)


PRODUCTS = {
    "linear": (lambda mb, x, w: mb.linear(x=x, weight=w), (2, 7, 12), (20, 12), lambda x: x.reshape(1, -1, 12)),
    "matmul y": (lambda mb, x, w: mb.matmul(x=x, y=w), (2, 7, 12), (12, 20), lambda x: x.reshape(1, -1, 12)),
    "matmul y turned": (
        lambda mb, x, w: mb.matmul(x=x, y=w, transpose_y=True),
        (7, 12),
        (20, 12),
        lambda x: x.reshape(1, -1, 12),
    ),
    "matmul both turned": (
        lambda mb, x, w: mb.matmul(x=x, y=w, transpose_x=True, transpose_y=True),
        (2, 12, 7),
        (20, 12),
        lambda x: x.transpose(0, 2, 1).reshape(1, -1, 12),
    ),
    "matmul x": (
        lambda mb, x, w: mb.matmul(x=w, y=x),
        (2, 12, 7),
        (20, 12),
        lambda x: x.transpose(0, 2, 1).reshape(1, -1, 12),
    ),
    "matmul x turned": (
        lambda mb, x, w: mb.matmul(x=w, y=x, transpose_x=True, transpose_y=True),
        (2, 7, 12),
        (12, 20),
        lambda x: x.reshape(1, -1, 12),
    ),
    "matmul batch": (
        lambda mb, x, w: mb.matmul(x=x, y=w),
        (3, 7, 12),
        (3, 12, 20),
        lambda x: x,
    ),
    "matmul batch, broadcast": (
        lambda mb, x, w: mb.matmul(x=x, y=w),
        (7, 12),
        (3, 12, 20),
        lambda x: np.stack([x] * 3),
    ),
    "matmul batch turned": (
        lambda mb, x, w: mb.matmul(x=w, y=x),
        (1, 3, 12, 7),
        (1, 3, 20, 12),
        lambda x: x[0].transpose(0, 2, 1),
    ),
    "transposed before": (
        lambda mb, x, w: mb.linear(x=x, weight=mb.transpose(x=w, perm=[1, 0])),
        (7, 12),
        (12, 20),
        lambda x: x.reshape(1, -1, 12),
    ),
    "squeezed and cast before": (
        lambda mb, x, w: mb.linear(
            x=x, weight=mb.cast(x=mb.squeeze(x=mb.transpose(x=w, perm=[2, 1, 0]), axes=[1]), dtype="fp32")
        ),
        (7, 12),
        (12, 1, 20),
        lambda x: x.reshape(1, -1, 12),
    ),
    "transposed convolution": (
        lambda mb, x, w: mb.conv_transpose(x=x, weight=w, strides=[2, 2]),
        (2, 6, 4, 3),
        (6, 5, 3, 3),
        lambda x: x.transpose(0, 2, 3, 1).reshape(1, -1, 6),
    ),
    "transposed convolution in groups": (
        lambda mb, x, w: mb.conv_transpose(x=x, weight=w, groups=2),
        (1, 6, 4, 3),
        (6, 5, 3, 3),
        lambda x: x.transpose(0, 2, 3, 1).reshape(-1, 2, 3).transpose(1, 0, 2),
    ),
}


@pytest.mark.parametrize("name", PRODUCTS)
@pytest.mark.parametrize("half", [False, True])
def test_products(save, mb, rng, name, half):
    build, shape, weight_shape, vectors_of = PRODUCTS[name]
    weight = rng.standard_normal(weight_shape).astype(np.float32)
    path = save(lambda x: build(mb, x, weight), inputs={"x": (shape, "float32")}, half=half)
    samples = [{"x": rng.standard_normal(shape).astype(np.float32)} for _ in range(5)]
    found = only(calibrated(path, samples))
    expected = np.concatenate([vectors_of(each["x"]) for each in fitted(samples)], axis=1)
    assert found.count == expected.shape[1]
    wanted = np.array([moments_of(each) for each in expected])
    if half:  # whose compiler passes transpose weights, and inputs are rounded
        assert found.hessian.shape[0] == len(wanted)
        np.testing.assert_allclose(found.hessian[:, 0], wanted, atol=5e-3 * np.abs(wanted).max())
    else:
        assert_moments(found, wanted)


@pytest.mark.parametrize("equation", ["bik,kj->bij", "ik,bkj->bij", "bnik,nkj->bnij", "ijk,lk->jil"])
def test_einsum(save, mb, rng, equation):
    """coremltools has an operation for few of these."""
    left, right = equation.partition("->")[0].split(",")
    sizes = dict(zip("bnijkl", (2, 3, 5, 7, 12, 4), strict=True))
    shape, weight_shape = ([sizes[letter] for letter in each] for each in (left, right))
    x = rng.standard_normal(shape).astype(np.float32)
    weight = rng.standard_normal(weight_shape).astype(np.float32)
    vectors_of, view = einsum_use(equation, tuple(weight_shape))
    vectors = vectors_of(torch.tensor(x)).numpy()
    output = np.einsum(equation, x, weight)
    products = np.einsum("grc,gnc->grn", view.matrices(weight), vectors)
    np.testing.assert_allclose(np.sort(products.reshape(-1)), np.sort(output.reshape(-1)), atol=1e-4)


def einsum_use(equation, shape):
    from corepress.calibration.moments import Moments
    from corepress.calibration.observers import InputObserver
    from corepress.calibration.uses import _einsum

    class Operation:
        type = "einsum"

    def option(operation, name, default):
        return equation

    reading = _einsum(Operation, 1, shape, option)
    view = reading.view_of(shape, tuple(range(len(shape))))

    class Use:
        operation, place, other = Operation, 1, "values"

    observer = InputObserver(Use, Moments(view.groups, view.columns, view.columns), 10, option)
    return observer._vectors, view


@pytest.mark.parametrize(("groups", "columns", "size"), [(1, 5, 5), (3, 700, 700), (1, 5000, 1700), (2, 513, 257)])
def test_memory_is_known_beforehand(groups, columns, size):
    from corepress.calibration.moments import Moments

    moments = Moments(groups, columns, size)
    needed = sum(each.nbytes for each in moments.state().values())
    assert needed <= Moments.bytes_of(groups, columns, size) <= 1.7 * needed + 1000


@pytest.mark.parametrize(
    ("columns", "of_channel", "most", "size"),
    [
        (100, 1, 2048, 100),
        (2048, 1, 2048, 2048),
        (2049, 1, 2048, 1025),
        (2880, 9, 2048, 1440),
        (257 * 9, 9, 2048, 129 * 9),
        (5000, 5000, 2048, 1667),
        (18, 9, 7, 6),
    ],
)
def test_blocks_have_whole_channels_where_these_fit(columns, of_channel, most, size):
    from corepress.calibration.block_sums import block_columns

    assert block_columns(columns, of_channel, most) == size
    assert size <= most
    assert size % of_channel == 0 or of_channel > most


def test_vectors_are_spread_evenly():
    from corepress.calibration.places import spread

    assert spread(10, 10) is None
    for count, most in ((11, 10), (4096, 1000), (4096, 64), (7, 1)):
        chosen = spread(count, most)
        assert len(chosen) == len(set(chosen)) == most
        assert (np.abs(chosen - np.arange(most) * count / most) <= count / most + 1).all()
        assert (chosen >= 0).all()
        assert (chosen < count).all()
    columns = spread(64 * 64, 64) % 64  # of a square picture
    assert len(set(columns // 8)) == 8


def test_some_of_the_vectors_represent_all(save, mb, rng, monkeypatch):
    from corepress.calibration import second_moments

    monkeypatch.setattr(second_moments, "VECTORS", 50)
    monkeypatch.setattr(second_moments, "VECTORS_OF_COLUMN", 1)
    weight = rng.standard_normal((8, 4, 3, 3)).astype(np.float32)
    path = save(lambda x: mb.conv(x=x, weight=weight, name="y"), inputs={"x": ((2, 4, 32, 32), "float32")})
    samples = [{"x": rng.standard_normal((2, 4, 32, 32)).astype(np.float32) + 1} for _ in range(9)]
    found = only(calibrated(path, samples))
    assert found.count == 7 * 2 * 30 * 30
    vectors = np.concatenate(
        [windows(each["x"], (3, 3), [1, 1], [1, 1], [0] * 4, 1)[0] for each in fitted(samples)]
    ).astype(np.float64)
    expected = moments_of(vectors)
    error = found.hessian[0, 0] - expected
    assert 0 < np.abs(error).max() < 0.5  # of 350 vectors, whose elements have mean 1 and variance 1
    assert abs(error.mean()) < 0.1
