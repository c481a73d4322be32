"""The verbs with second moments of the inputs: same forms and sizes, smaller errors of the outputs."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

import corepress as cp
from corepress import NonFiniteError, _core
from corepress.compression import MatrixView, WeightData, apply, apply_measured, error, output_error
from corepress.reference import error_feedback as oracle
from corepress.specs import Palettize, Prune, Quantize
from helpers.arrays import DTYPES

SHAPE = (24, 40)


def inputs(rng, columns, samples=400):
    """Inputs that depend on each other, of different size, one of them always zero."""
    mixed = rng.standard_normal((samples, columns // 3 + 1)) @ rng.standard_normal((columns // 3 + 1, columns))
    drawn = (mixed + 0.5 * rng.standard_normal((samples, columns))) * rng.lognormal(0, 1, columns)
    drawn[:, columns // 2] = 0
    return drawn


def moments(columns, seed=0, dtype=np.float32):
    drawn = inputs(np.random.default_rng(seed), columns)
    return (drawn.T @ drawn / len(drawn)).astype(dtype)


def draw(shape=SHAPE, dtype=np.float16, seed=1):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


CALLS = {
    "1 bit": lambda w, **data: cp.palettize(w, nbits=1, **data),
    "2 bits": lambda w, **data: cp.palettize(w, nbits=2, **data),
    "3 bits": lambda w, **data: cp.palettize(w, nbits=3, **data),
    "4 bits": lambda w, **data: cp.palettize(w, nbits=4, **data),
    "6 bits": lambda w, **data: cp.palettize(w, nbits=6, **data),
    "8 bits": lambda w, **data: cp.palettize(w, nbits=8, **data),
    "groups of outputs": lambda w, **data: cp.palettize(
        w, nbits=3, granularity="per_grouped_channel", group_size=8, **data
    ),
    "scales": lambda w, **data: cp.palettize(w, nbits=3, enable_per_channel_scale=True, **data),
    "scales and groups": lambda w, **data: cp.palettize(
        w, nbits=2, enable_per_channel_scale=True, granularity="per_grouped_channel", group_size=12, **data
    ),
    "given table": lambda w, **data: cp.palettize(w, lut=np.linspace(-2, 2, 8), **data),
    "vectors of 2": lambda w, **data: cp.palettize(w, nbits=4, cluster_dim=2, **data),
    "vectors of 4": lambda w, **data: cp.palettize(w, nbits=6, cluster_dim=4, **data),
    "int8": lambda w, **data: cp.quantize(w, **data),
    "uint8 per tensor": lambda w, **data: cp.quantize(w, dtype="uint8", granularity="per_tensor", **data),
    "int4 linear": lambda w, **data: cp.quantize(w, dtype="int4", mode="linear", **data),
    "int4 blocks": lambda w, **data: cp.quantize(w, dtype="int4", granularity="per_block", block_size=8, **data),
    "uint4 blocks, search": lambda w, **data: cp.quantize(
        w, dtype="uint4", granularity="per_block", block_size=8, scale_search="mse", **data
    ),
    "half of all": lambda w, **data: cp.prune(w, target_sparsity=0.5, **data),
    "2:4": lambda w, **data: cp.prune(w, n_m_ratio=(2, 4), **data),
    "1:4 of outputs": lambda w, **data: cp.prune(w, n_m_ratio=(1, 4), dim=0, **data),
    "blocks": lambda w, **data: cp.prune(w, target_sparsity=0.5, block_size=4, **data),
    "half, palette": lambda w, **data: cp.palettize(cp.prune(w, target_sparsity=0.5, **data), nbits=3, **data),
    "half, int8": lambda w, **data: cp.quantize(cp.prune(w, target_sparsity=0.5, **data), **data),
    "half, int4 blocks": lambda w, **data: cp.quantize(
        cp.prune(w, target_sparsity=0.5, **data),
        dtype="int4", mode="linear", granularity="per_block", block_size=8, **data
    ),
    "half, groups": lambda w, **data: cp.palettize(
        cp.prune(w, target_sparsity=0.5, **data), nbits=2, granularity="per_grouped_channel", group_size=8, **data
    ),
}  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", CALLS)
def test_outputs_change_less_at_the_same_size(name, dtype):
    for seed in range(3):
        weight, hessian = draw(dtype=dtype, seed=seed), moments(40, seed)
        plain, fed = CALLS[name](weight), CALLS[name](weight, hessian=hessian)
        assert type(fed) is type(plain)
        assert (fed.shape, fed.dtype) == (plain.shape, plain.dtype)
        assert abs(fed.nbytes - plain.nbytes) <= (8 if "half" in name else 0)  # magnitudes have ties
        held_back = moments(40, seed)
        assert output_error(weight, fed, held_back) < output_error(weight, plain, held_back)
        assert fed == CALLS[name](weight, hessian=hessian, num_threads=3)


def test_codes_are_the_oracles():
    weight, hessian = draw(), moments(40)
    fed = cp.palettize(weight, nbits=4, hessian=hessian)
    assert (fed.lut == cp.palettize(weight, nbits=4).lut).all()
    tables = fed.lut.reshape(1, -1, 1).astype(np.float64)
    expected, _, _ = oracle.feed_back(weight[None], hessian[None, None], oracle.NearestEntry(tables), sweeps=1)
    assert (fed.codes() == expected[0]).all()
    quantized = cp.quantize(weight, dtype="int4", hessian=hessian)
    grid = oracle.NearestInteger(quantized.scale.ravel().astype(np.float64), np.zeros(24), -7, 7, np.dtype(np.float16))
    expected, _, _ = oracle.feed_back(weight[None], hessian[None, None], grid, row_tables=np.arange(24)[None], sweeps=1)
    assert (quantized.codes() == expected[0]).all()


def test_few_bit_palettes_are_fitted_again():
    weight, hessian = draw((64, 40)), moments(40)
    for nbits in (1, 2, 3):
        fed = cp.palettize(weight, nbits=nbits, hessian=hessian)
        given = cp.palettize(weight, lut=cp.palettize(weight, nbits=nbits).lut.ravel(), nbits=nbits)
        assert (fed.lut.ravel() != given.lut.ravel()).any()
        assert (np.diff(fed.lut.ravel().astype(np.float64)) >= 0).all()


def test_uncorrelated_inputs_need_no_feedback():
    """With equal and uncorrelated inputs the outputs are hurt least by the nearest entries."""
    weight = draw()
    hessian = np.eye(40)
    assert cp.palettize(weight, nbits=4, hessian=hessian) == cp.palettize(weight, nbits=4)
    assert cp.quantize(weight, hessian=hessian) == cp.quantize(weight)
    fed = cp.prune(weight, n_m_ratio=(2, 4), hessian=hessian)
    assert fed == cp.prune(weight, n_m_ratio=(2, 4))


def test_inputs_never_seen_change_nothing():
    weight = draw()
    assert cp.palettize(weight, nbits=4, hessian=np.zeros((40, 40))) == cp.palettize(weight, nbits=4)
    assert cp.prune(weight, n_m_ratio=(2, 4), hessian=np.zeros((40, 40))) == cp.prune(weight, n_m_ratio=(2, 4))


@pytest.mark.parametrize(
    "view",
    [
        MatrixView((8, 12, 3), (0,), (1, 2)),
        MatrixView((8, 12, 3), (1,), (0, 2)),
        MatrixView((8, 12, 3), (0,), (1, 2), groups=4, group_axis=0),
        MatrixView((12, 8, 3), (1, 2), (0,)),
        MatrixView((12, 8, 3), (1, 2), (0,), groups=2, group_axis=0),
    ],
    ids=str,
)
@pytest.mark.parametrize("blocks", [1, 2])
def test_views_and_blocks(view, blocks):
    weight = draw(view.shape)
    size = -(-view.columns // blocks)
    hessian = np.array(
        [[moments(size, seed=10 * group + block) for block in range(blocks)] for group in range(view.groups)]
    )
    data = WeightData(hessian=hessian, view=view)
    for spec in (
        Palettize(nbits=3),
        Palettize(nbits=3, granularity="per_grouped_channel", group_size=4),
        Palettize(nbits=3, granularity="per_grouped_channel", group_size=4, channel_axis=1),
        Palettize(nbits=3, enable_per_channel_scale=True, channel_axis=1),
        Quantize(dtype="int4"),
        Quantize(dtype="int4", granularity="per_block", block_size=(4, 2, 3)),
        Quantize(dtype="int4", granularity="per_tensor", scale_search="mse"),
        Prune(target_sparsity=0.5),
        Prune(n_m_ratio=(1, 2)),
    ):
        plain, fed = apply(weight, spec), apply(weight, spec, data=data)
        assert output_error(weight, fed, hessian, view) < output_error(weight, plain, hessian, view)
        tensor, snr_db = apply_measured(weight, spec, data=data)
        assert tensor == fed
        assert snr_db == pytest.approx(error(weight, fed).snr_db)


def test_a_convolution_of_groups_is_as_many_matrices():
    view = MatrixView((8, 3, 2, 2), (0,), (1, 2, 3), groups=4, group_axis=0)
    weight = draw(view.shape)
    hessians = np.array([moments(12, seed) for seed in range(4)])
    quantized = apply(weight, Quantize(), data=WeightData(hessian=hessians, view=view))
    for group in range(4):
        part = weight[2 * group : 2 * group + 2]
        alone = cp.quantize(part, hessian=hessians[group])
        assert (alone.codes() == quantized.codes()[2 * group : 2 * group + 2]).all()


def test_vectors_along_outputs_of_any_view():
    shape = (6, 8, 3)
    weight = draw(shape)
    outputs_last = MatrixView(shape, (1, 2), (0,))
    spec = Palettize(nbits=4, cluster_dim=4, channel_axis=1)
    hessian = moments(6)
    data = WeightData(hessian=hessian, view=outputs_last)
    fed, plain = apply(weight, spec, data=data), apply(weight, spec)
    assert fed.codes().shape == plain.codes().shape
    assert output_error(weight, fed, hessian, outputs_last) < output_error(weight, plain, hessian, outputs_last)
    with pytest.raises(ValueError, match="needs vectors along the outputs, not along axis 1"):
        apply(weight, spec, data=WeightData(hessian=moments(24), view=MatrixView(shape, (0,), (1, 2))))
    groups = MatrixView((8, 3), (0,), (1,), groups=4, group_axis=0)
    with pytest.raises(ValueError, match="needs vectors within the 4 groups of axis 0 of length 8"):
        apply(draw((8, 3)), Palettize(nbits=1, cluster_dim=4), data=WeightData(hessian=np.eye(3), view=groups))


def test_surplus_of_the_last_block_is_ignored():
    weight = draw()
    blocks = np.array([moments(16, seed) for seed in range(3)])
    changed = blocks.copy()
    changed[2, 8:] = changed[2, :, 8:] = 1e6  # columns 40 to 47 do not exist
    assert cp.palettize(weight, nbits=2, hessian=blocks) == cp.palettize(weight, nbits=2, hessian=changed)


def test_lists_have_a_hessian_each():
    weights, hessians = [draw(), draw((8, 6))], [moments(40), None]
    for call in (
        lambda w, **data: cp.palettize(w, nbits=3, **data),
        cp.quantize,
        lambda w, **data: cp.prune(w, target_sparsity=0.5, **data),
    ):
        assert call(weights, hessian=hessians) == [call(weights[0], hessian=hessians[0]), call(weights[1])]
        with pytest.raises(ValueError, match="hessian must be a list of 2 entries"):
            call(weights, hessian=[moments(40)])
        with pytest.raises(ValueError, match=r"weight 1 of the list: hessian has shape \(40, 40\)"):
            call([weights[0], draw((8, 41))], hessian=[moments(40), moments(40)])


def test_output_error_is_what_the_outputs_lose():
    rng = np.random.default_rng(3)
    weight, drawn = draw(dtype=np.float32), inputs(rng, 40)
    hessian = drawn.T @ drawn / len(drawn)
    fed = cp.palettize(weight, nbits=3, hessian=hessian)
    lost = drawn @ (weight - fed.dense()).T.astype(np.float64)
    assert output_error(weight, fed, hessian) == pytest.approx((lost**2).sum(1).mean())
    assert output_error(weight, weight, hessian) == 0


def test_scalars_rows_and_columns():
    assert cp.palettize(np.float16([1, 2, 4, 9]), nbits=2, hessian=[[2.0]]).dense().tolist() == [1, 2, 4, 9]
    row = draw((1, 9))
    assert cp.quantize(row, hessian=moments(9)).shape == (1, 9)
    with pytest.raises(ValueError, match="not for a scalar"):
        cp.palettize(np.float16(3), nbits=1, hessian=[[1.0]])


def test_values_that_stay_are_finite():
    weight = np.full((4, 8), 60000, np.float16)
    weight[:, ::2] = 65504
    hessian = np.full((8, 8), 1.0) + 0.01 * np.eye(8)
    pruned = cp.prune(weight, n_m_ratio=(7, 8), hessian=hessian).dense()
    assert np.isfinite(pruned).all()
    assert pruned.max() == 65504


W = draw()
REFUSED = [
    (lambda h: cp.palettize(W, mode="unique", hessian=h), "mode 'kmeans' or a given lut, not for mode 'unique'"),
    (lambda h: cp.palettize(W, nbits=4, mode="uniform", hessian=h), "not for mode 'uniform'"),
    (lambda h: cp.palettize(W, nbits=4, nonfinite="table", hessian=h), "cannot go together with nonfinite 'table'"),
    (lambda h: cp.palettize(W, nbits=4, cluster_dim=3, hessian=h), "cluster_dim 1, 2, 4, 8, 16, 32, not 3"),
    (lambda h: cp.palettize(W, nbits=4, importance=abs(W), hessian=h), "importance or hessian, not both"),
    (lambda h: cp.prune(W, threshold=0.1, hessian=h), "no use with threshold"),
    (lambda h: cp.prune(cp.quantize(W), target_sparsity=0.5, hessian=h), "prune: hessian is for arrays"),
    (lambda h: cp.palettize(cp.quantize(W), nbits=4, hessian=h), "palettize: hessian is for arrays"),
    (lambda h: cp.quantize(cp.palettize(W, nbits=4), hessian=h), "quantize: hessian is for arrays"),
    (lambda h: cp.quantize(W, hessian=h[:39, :39]), r"shape \(39, 39\), the weight 40 columns \(shape \(24, 40\)\)"),
    (lambda h: cp.quantize(W, hessian=h[:39]), r"\(groups, blocks, c, c\), not \(39, 40\)"),
    (lambda h: cp.quantize(W, hessian=h * np.nan), "hessian must be finite"),
    (lambda h: cp.quantize(W, hessian=-h), "hessian must have a diagonal of squares"),
    (lambda h: cp.quantize(W, hessian=h, dampening=-1), "dampening must be a number from 0 on, not -1"),
    (lambda h: cp.quantize(W, hessian=h, dampening=np.inf), "dampening must be a number from 0 on, not inf"),
    (
        lambda h: apply(W, Quantize(), data=WeightData(hessian=h, view=MatrixView((40, 24), (0,), (1,)))),
        "has a view of",
    ),
]


@pytest.mark.parametrize(("call", "message"), REFUSED)
def test_what_has_no_use_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(moments(40))


def test_hessians_are_arrays_of_floats():
    with pytest.raises(TypeError, match="quantize: hessian"):
        cp.quantize(W, hessian="moments")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_refused(value):
    weight = draw()
    weight[3, 4] = value
    for call in (
        lambda: cp.palettize(weight, nbits=4, hessian=moments(40)),
        lambda: cp.quantize(weight, hessian=moments(40)),
        lambda: cp.prune(weight, target_sparsity=0.5, hessian=moments(40)),
    ):
        with pytest.raises(NonFiniteError, match="1 of 960 values"):
            call()


def test_a_call_can_be_stopped():
    weight, hessian = draw((2048, 3000)), np.eye(3000, dtype=np.float32)
    source = _core.StopSource()
    stopper = threading.Timer(0.1, source.stop)
    start = time.monotonic()
    with source:
        stopper.start()
        with pytest.raises(KeyboardInterrupt):
            cp.palettize(weight, nbits=4, hessian=hessian, num_threads=1)
    stopper.join()
    assert time.monotonic() - start < 30
