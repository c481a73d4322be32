"""Large models: candidates are judged by some rows of each weight, and what is known of a weight is made once."""

from __future__ import annotations

import mmap
from dataclasses import replace

import numpy as np
import pytest

from corepress import compression, coreml
from corepress.calibration import sensitivities
from corepress.calibration.references import references_of
from corepress.calibration.rows import JUDGED_ROWS, Part, has_part
from corepress.compression.matrix_view import MatrixView
from corepress.compression.weight_data import WeightData
from corepress.config.candidates import candidate_key
from corepress.mapped_files import GuardedMap
from corepress.specs import Palettize, Prune, Quantize

torch = pytest.importorskip("torch")

ROWS, COLUMNS = 512, 40


@pytest.fixture
def view():
    return MatrixView((ROWS, COLUMNS), (0,), (1,))


@pytest.fixture
def hessian(rng):
    inputs = rng.standard_normal((400, COLUMNS)) @ rng.standard_normal((COLUMNS, COLUMNS))
    return (inputs.T @ inputs / len(inputs)).astype(np.float32)


def test_entries_are_taken_as_often_as_their_probabilities_say(rng, view):
    squares = rng.gamma(0.3, size=ROWS) ** 2
    squares[[3, 77]] = 1e6
    part = Part.of(view, squares)
    assert part.axis == 0
    assert {3, 77} <= set(part.entries.tolist())
    assert (np.diff(part.entries) > 0).all()
    assert 0.95 * JUDGED_ROWS <= part.entries.size <= JUDGED_ROWS
    assert ((part.probabilities > 0) & (part.probabilities <= 1)).all()
    # Numbers that are as large as was thought have the right total but for the even part.
    likely = squares + 0.25 * squares.mean()
    assert (likely[part.entries] / part.probabilities).sum() == pytest.approx(likely.sum(), rel=0.03)


def test_rows_without_gradients_are_taken_evenly(view):
    part = Part.of(view, np.zeros(ROWS))
    assert part.entries.size == JUDGED_ROWS
    assert (np.diff(part.entries) == ROWS // JUDGED_ROWS).all()
    assert part.probabilities == pytest.approx(JUDGED_ROWS / ROWS)


def test_variance_is_that_of_the_choice(rng, view):
    values = rng.gamma(2.0, size=ROWS)
    estimates, variances = [], []
    for _ in range(200):
        order = rng.permutation(ROWS)
        part = Part.of(view, np.ones(ROWS))
        sums = values[order][part.entries]
        estimates.append((sums / part.probabilities).sum())
        variances.append(part.variance(sums))
    assert np.mean(estimates) == pytest.approx(values.sum(), rel=0.02)
    assert np.mean(variances) == pytest.approx(np.var(estimates), rel=0.3)


def test_which_weights_have_a_part(view):
    assert has_part(view)
    assert not has_part(None)
    assert not has_part(MatrixView((2 * JUDGED_ROWS - 1, 4), (0,), (1,)))
    assert not has_part(MatrixView((ROWS, 4, 3, 3), (0,), (1, 2, 3), groups=4))


class _Weight:
    """What references need of a weight of a program, for steps that need no more."""


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_rows_of_a_part_are_those_of_the_weight(rng, view, hessian, dtype):
    stored = rng.standard_normal((ROWS, COLUMNS)).astype(dtype)
    candidates = [(Palettize(nbits=4),), (Palettize(nbits=8),), (Prune(target_sparsity=0.5),)]
    data = WeightData(hessian=hessian, view=view)
    whole, some = (references_of(_Weight(), stored, candidates, data, 1, each) for each in (None, np.ones(ROWS)))
    for steps in candidates[:2]:
        ours, all_rows = some[candidate_key(steps)], whole[candidate_key(steps)]
        part = ours.part
        assert part is not None
        assert ours.stored.shape == (part.entries.size, COLUMNS)
        assert np.array_equal(ours.error(1), all_rows.error(1)[part.entries])
    pruned = candidate_key(candidates[2])
    assert some[pruned].part is None
    assert np.array_equal(some[pruned].error(1), whole[pruned].error(1))


def test_palettes_of_few_bits_are_fitted_to_rows_of_the_part(rng, view, hessian):
    stored = rng.standard_normal((ROWS, COLUMNS)).astype(np.float16)
    steps, data = (Palettize(nbits=2),), WeightData(hessian=hessian, view=view)
    made = [references_of(_Weight(), stored, [steps], data, 1, each) for each in (None, np.ones(ROWS))]
    whole, some = (each[candidate_key(steps)] for each in made)
    assert some.part is not None
    of_all, of_part = (np.einsum("ri,ij,rj->r", each.error(1), hessian, each.error(1)) for each in (whole, some))
    assert (of_part / some.part.probabilities).sum() == pytest.approx(of_all.sum(), rel=0.1)


def test_rows_with_large_errors_are_taken(rng, view, hessian):
    stored = rng.standard_normal((ROWS, COLUMNS)).astype(np.float16)
    stored[[5, 300]] *= 4
    for dtype in ("float16", "float32"):
        found = references_of(
            _Weight(),
            stored.astype(dtype),
            [(Palettize(nbits=4),)],
            WeightData(hessian=hessian, view=view),
            1,
            np.ones(ROWS),
        )
        (only,) = found.values()
        assert only.part is not None
        assert {5, 300} <= set(only.part.entries.tolist())


@pytest.mark.parametrize(
    "steps",
    [
        (Palettize(nbits=2),),
        (Palettize(nbits=3),),
        (Palettize(nbits=8),),
        (Palettize(nbits=4, cluster_dim=2),),
        (Palettize(nbits=4, granularity="per_grouped_channel", group_size=16),),
        (Quantize(),),
        (Quantize(dtype="int4", granularity="per_block", block_size=8),),
        (Prune(target_sparsity=0.5),),
        (Prune(target_sparsity=0.5), Palettize(nbits=4)),
        (Prune(target_sparsity=0.5), Quantize()),
    ],
    ids=str,
)
@pytest.mark.parametrize("size", [COLUMNS, 16])
def test_factors_that_are_kept_give_the_same_bytes(rng, view, hessian, steps, size):
    stored = rng.standard_normal((ROWS, COLUMNS)).astype(np.float16)
    blocks = -(-COLUMNS // size)
    divided = np.zeros((blocks, size, size), np.float32)
    for block in range(blocks):
        part = hessian[block * size : (block + 1) * size, block * size : (block + 1) * size]
        divided[block, : len(part), : len(part)] = part
    data = WeightData(hessian=divided, view=view)
    plain = compression.apply_steps(stored, steps, data=data, num_threads=1)
    prepared = data.prepared(stored.shape)
    for threads in (1, 2):
        again = compression.apply_steps(stored, steps, data=prepared, num_threads=threads)
        assert np.array_equal(plain.dense(), again.dense())


def test_factors_of_other_moments_are_refused(rng, hessian):
    from corepress import _core

    factors = _core.kept_factors(COLUMNS, hessian[None, None], 0.01, 1 << 20)
    assert _core.kept_factors(COLUMNS, hessian[None, None], 0.01, 10) is None
    with pytest.raises(ValueError, match="factors must be of this hessian"):
        _core.column_pivots((1, 4, COLUMNS), hessian[None, None], 0.02, 1, factors)


def test_a_large_model(save, mb, rng, monkeypatch):
    """Sensitivities of some rows are those of all, within what is said of their errors."""
    first = rng.standard_normal((ROWS, 24)) * (1 + 3 * rng.random((ROWS, 1)) ** 8)
    second = rng.standard_normal((6, ROWS)) * rng.gamma(0.5, size=ROWS)
    first, second = first.astype(np.float32), second.astype(np.float32)

    def body(x):
        hidden = mb.relu(x=mb.linear(x=x, weight=first, name="a"))
        return mb.linear(x=hidden, weight=second, name="y")

    path = save(body, inputs={"x": ((10, 24), "float32")}, half=True)
    samples = [{"x": rng.standard_normal((10, 24)).astype(np.float32)} for _ in range(32)]
    options = {"candidates": [2, 3, 4], "weight_threshold": 0, "probes": 12}
    whole = coreml.calibrate(path, samples, **options)
    monkeypatch.setattr(sensitivities, "LARGE", 1000)
    some = coreml.calibrate(path, samples, **options)
    for name, each in whole.weights.items():
        for key, expected in each.sensitivities.items():
            found = some.weights[name].sensitivities[key]
            spread = np.hypot(found.standard_error, expected.standard_error)
            assert abs(found.mean - expected.mean) < 4 * spread + 0.05 * expected.mean
            if each.shape[0] == ROWS:
                assert found.standard_error < expected.standard_error


def test_a_large_model_continues(save, mb, rng, monkeypatch, tmp_path):
    weight = rng.standard_normal((ROWS, 24)).astype(np.float32)
    path = save(lambda x: mb.linear(x=x, weight=weight, name="y"), inputs={"x": ((10, 24), "float32")})
    samples = [{"x": rng.standard_normal((10, 24)).astype(np.float32)} for _ in range(12)]
    monkeypatch.setattr(sensitivities, "LARGE", 1000)
    monkeypatch.setattr("corepress.calibration.unfinished.CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr("corepress.calibration.unfinished.CHECKPOINT_SHARE", 0)
    options = {"candidates": [3, 4], "weight_threshold": 0, "probes": 3}
    expected = coreml.calibrate(path, samples, **options)

    class StopError(Exception):
        pass

    calls = []

    def stop(progress):
        calls.append(progress.stage)
        if calls.count("sensitivities") == 3:
            raise StopError

    with pytest.raises(StopError):
        coreml.calibrate(path, samples, tmp_path / "c", progress=stop, **options)
    found = coreml.calibrate(path, samples, tmp_path / "c", **options)
    (one,), (other,) = expected.weights.values(), found.weights.values()
    assert dict(one.sensitivities) == dict(other.sensitivities)


@pytest.mark.skipif(not hasattr(mmap, "MADV_DONTNEED"), reason="the system has no such advice")
def test_pages_of_second_moments_are_dropped_after_use(save, mb, rng, tmp_path, monkeypatch):
    weight = rng.standard_normal((16, 64)).astype(np.float32)
    path = save(lambda x: mb.linear(x=x, weight=weight, name="y"), inputs={"x": ((10, 64), "float32")})
    samples = [{"x": rng.standard_normal((10, 64)).astype(np.float32)} for _ in range(8)]
    dropped = []
    monkeypatch.setattr(GuardedMap, "madvise", lambda self, *arguments: dropped.append(arguments), raising=False)
    coreml.calibrate(path, samples, tmp_path / "c", candidates=[4], weight_threshold=0, probes=2)
    assert any(option == mmap.MADV_DONTNEED and length >= 4 * 64 * 64 for option, _, length in dropped)


def test_what_was_made_to_try_a_recipe_is_what_compress_makes(save, mb, rng, tmp_path, monkeypatch):
    weights = [rng.standard_normal((32, 32)).astype(np.float32) for _ in range(3)]

    def body(x):
        for number, weight in enumerate(weights):
            x = mb.relu(x=mb.linear(x=x, weight=weight, name=f"l{number}"))
        return x

    path = save(body, inputs={"x": ((10, 32), "float32")}, half=True)
    samples = [{"x": rng.standard_normal((10, 32)).astype(np.float32)} for _ in range(16)]
    found = coreml.calibrate(path, samples, weight_threshold=0, probes=4)
    allocation = coreml.allocate(path, target_bits=5, calibration=found, weight_threshold=0)
    assert allocation.made
    first, second = tmp_path / "first.mlpackage", tmp_path / "second.mlpackage"
    coreml.compress(path, first, target_bits=5, calibration=found, weight_threshold=0)
    coreml.compress(path, second, replace(allocation, made={}), calibration=found)
    files = [sorted(each.rglob("weight.bin")) for each in (first, second)]
    assert [each.read_bytes() for each in files[0]] == [each.read_bytes() for each in files[1]]
