"""Differentiable k-means: the same as PyTorch's own gradient of the formulas in double precision."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from corepress import _core, simd_levels
from corepress.reference.clustering import kmeans1d
from corepress.reference.soft_kmeans import SoftKMeans
from corepress.training import soft_kmeans_of_device
from corepress.training.soft_kmeans import hard_assignment, initial_centroids, nearest_codes, soft_kmeans

CASES = [
    {"k": 1},
    {"k": 2},
    {"k": 16},
    {"k": 256, "n": 6000},
    {"k": 4, "std": 0.2},
    {"k": 16, "std": 1.0},  # a temperature far too small: nearly hard assignments
    {"k": 16, "prune_threshold": 1e-3},
    {"k": 8, "enforce_zero": True},
    {"k": 16, "iterations": 1},
    {"k": 16, "iterations": 8},
    {"k": 16, "smallest_weight": 0.0},
    {"k": 16, "temperature": 1e-2},
    {"k": 4, "n": 33},
]


def unrolled(weight, centroids, options):
    """All rounds with a number for each value and entry, for PyTorch to differentiate."""
    points, entries, last = weight.double(), centroids.double(), None
    for _ in range(options.iterations):
        distances = (points[:, None] - entries).square().sum(-1)
        distances = torch.cat((distances[:, :1] - options.prune_threshold, distances[:, 1:]), 1)
        weights = torch.softmax(-distances / options.temperature, 1).clamp(min=options.smallest_weight)
        entries = weights.T @ points / weights.sum(0)[:, None]
        if options.enforce_zero:
            entries = torch.cat((torch.zeros_like(entries[:1]), entries[1:]))
        inertia = distances.amin(1).sum()
        if last is not None and (last - inertia).abs() <= options.tolerance:
            break
        last = inertia
    return weights @ entries


def drawn(k, n=20_000, std=0.05, d=1, dtype=torch.float32, **options):
    generator = torch.Generator().manual_seed(k)
    weight = (torch.randn(n, d, generator=generator) * std).to(dtype)
    places = ((torch.arange(k) + 0.5) / k * n).long()
    centroids = weight.float()[weight[:, 0].float().argsort()[places]]
    slopes = torch.randn(n, d, generator=generator).to(dtype)
    return weight, centroids, slopes, SoftKMeans(**options)


def expected(weight, centroids, slopes, options):
    given = weight.double().requires_grad_()
    means = unrolled(given, centroids, options)
    means.backward(slopes.double())
    return means.detach(), given.grad


def found(weight, centroids, slopes, options, **more):
    given = weight[None].clone().requires_grad_()
    means, _ = soft_kmeans(given, centroids[None], **vars(options), **more)
    means.backward(slopes[None])
    return means.detach()[0], given.grad[0]


def distance(found, expected):
    return float((found.double() - expected).norm() / expected.norm().clamp_min(1e-30))


def name(case):
    return ",".join(f"{key}={value}" for key, value in case.items())


@pytest.mark.parametrize("case", CASES, ids=name)
@pytest.mark.parametrize("exact", [True, False], ids=["exact", "points"])
def test_floats(case, exact):
    given = drawn(**case)
    for got, want in zip(found(*given, exact=exact), expected(*given), strict=True):
        assert distance(got, want) < (2e-7 if exact else 4e-5)


@pytest.mark.parametrize("case", CASES, ids=name)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_halves_are_computed_by_value(case, dtype):
    """Nothing but the rounding of the result, for all weights of a value at once."""
    given = drawn(**case, dtype=dtype)
    for got, want in zip(found(*given), expected(*given), strict=True):
        assert (got.double() - want).abs().max() <= want.abs().max() * torch.finfo(dtype).eps
        assert distance(got, want) < torch.finfo(dtype).eps


@pytest.mark.parametrize(
    ("entries", "options"),
    [
        (torch.linspace(-1e-3, 1e-3, 4), {}),
        (torch.tensor([0.0, 0.0, 0.0, 1e-5]), {}),
        (torch.linspace(-1e-4, 1e-4, 16), {"iterations": 8}),
        (torch.linspace(-0.1, 0.1, 16), {"prune_threshold": -1e-3}),  # the first entry is nearest to nothing
        (torch.linspace(-0.1, 0.1, 16), {"prune_threshold": 5e-2}),  # and to nearly all
    ],
    ids=["close", "equal", "close-8", "ruled-out", "all"],
)
def test_points_follow_entries_that_move_apart(entries, options):
    """Steps of means are the steeper the farther apart entries are, and rounds move them."""
    weight, _, slopes, options = drawn(4, std=0.2, **options)
    given = (weight, entries[:, None], slopes, options)
    for got, want in zip(found(*given), expected(*given), strict=True):
        assert distance(got, want) < 3e-4


@pytest.mark.parametrize("d", [1, 2])
def test_reference_by_differences(d):
    """The twin's gradient is that of its own means."""
    weight, centroids, slopes, options = drawn(4, n=60, d=d, temperature=1e-3)
    values, given = weight.double().numpy(), slopes.double().numpy()
    gradient = options.gradient(values, given, *options.means(values, centroids)[1:])
    for place in ((0, 0), (17, d - 1), (59, 0)):
        losses = []
        for step in (1e-6, -1e-6):
            moved = values.copy()
            moved[place] += step
            losses.append((options.means(moved, centroids)[0] * given).sum())
        assert np.isclose(gradient[place], (losses[0] - losses[1]) / 2e-6, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("d", [2, 3, 4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize(
    "options", [{"n": 3000}, {"n": 9001}, {"n": 9001, "prune_threshold": 1e-3}, {"n": 9001, "k": 64}]
)
def test_vectors(d, dtype, options):
    """Few, and so many that they are sorted."""
    given = drawn(**({"k": 16} | options), d=d, dtype=dtype)
    limit = 2e-7 if dtype == torch.float32 else 2e-3
    for got, want in zip(found(*given), expected(*given), strict=True):
        assert distance(got, want) < limit


@pytest.mark.parametrize("case", CASES, ids=name)
@pytest.mark.parametrize("d", [1, 2])
def test_reference(case, d):
    weight, centroids, slopes, options = drawn(**{"n": 2000} | case, d=d)
    means, tape, sums = options.means(weight, centroids)
    gradient = options.gradient(weight, slopes, tape, sums)
    for got, want in zip((means, gradient), expected(weight, centroids, slopes, options), strict=True):
        assert distance(torch.from_numpy(got), want) < 1e-7


@pytest.mark.parametrize("case", CASES, ids=name)
def test_other_devices(case, monkeypatch):
    """What runs on a GPU, run on the CPU, in blocks."""
    weight, centroids, slopes, options = drawn(**{"n": 5000} | case, d=2)
    monkeypatch.setattr(soft_kmeans_of_device, "NUMBERS_OF_BLOCK", 1 << 12)
    given = (options.temperature, options.smallest_weight, options.prune_threshold)
    given += (options.tolerance, options.iterations, options.enforce_zero, False)
    means, *kept = soft_kmeans_of_device.means(weight[None], centroids[None], given)
    gradient = soft_kmeans_of_device.gradient(weight[None], slopes[None], *kept, given)
    for got, want in zip((means[0], gradient[0]), expected(weight, centroids, slopes, options), strict=True):
        assert distance(got, want) < 2e-7


def test_groups_are_apart():
    cases = [drawn(8, n=5000, std=std) for std in (0.02, 0.05, 0.1)]
    weight, centroids, slopes = (torch.stack([case[i] for case in cases])[..., 0] for i in range(3))
    given = weight.clone().requires_grad_()
    means, entries = soft_kmeans(given, centroids)
    means.backward(slopes)
    assert entries.shape == (3, 8)
    assert not entries.requires_grad
    for group, case in enumerate(cases):
        single, gradient = found(*case)
        assert torch.equal(means[group], single[:, 0])
        assert torch.equal(given.grad[group], gradient[:, 0])


@pytest.mark.parametrize("d", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_same_bytes(dtype, d, monkeypatch):
    """At every level, for every number of threads."""
    given = drawn(16, n=140_001 // d, d=d, dtype=dtype)
    results = []
    level = _core.simd_level()
    try:
        for each in simd_levels():
            _core.set_simd_level(each)
            for threads in ("1", "2", "5"):
                monkeypatch.setenv("COREPRESS_NUM_THREADS", threads)
                results.append(found(*given))
    finally:
        _core.set_simd_level(level)
    for result in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(result, results[0], strict=True))


def test_entries_that_nothing_is_near_stay():
    weight = torch.full((1, 100), 0.5)
    means, entries = soft_kmeans(weight, torch.tensor([[0.5, 3.0]]), smallest_weight=0.0)
    assert torch.equal(means, weight)
    assert entries.tolist() == [[0.5, 3.0]]


def test_equal_values_and_entries():
    weight = torch.full((1, 5000), 0.25, requires_grad=True)
    means, entries = soft_kmeans(weight, torch.full((1, 4), 0.25))
    means.sum().backward()
    assert torch.allclose(means, weight)
    assert torch.allclose(entries, torch.tensor(0.25))
    assert torch.isfinite(weight.grad).all()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_seen_in_the_result(value):
    weight = torch.randn(1, 6000) * 0.05
    weight[0, 7] = value
    means, _ = soft_kmeans(weight.requires_grad_(), torch.linspace(-0.1, 0.1, 8)[None])
    assert not torch.isfinite(means).all()
    vectors = (torch.randn(1, 6000, 2) * 0.05).index_fill(1, torch.tensor([7]), value)
    means, _ = soft_kmeans(vectors, torch.randn(1, 16, 2) * 0.05)
    assert not torch.isfinite(means).all()
    slopes = torch.zeros(1, 6000)
    slopes[0, 3] = value
    given = (torch.randn(1, 6000) * 0.05).requires_grad_()
    soft_kmeans(given, torch.linspace(-0.1, 0.1, 8)[None])[0].backward(slopes)
    assert not torch.isfinite(given.grad).all()


@pytest.mark.filterwarnings("ignore")  # PyTorch's own, about gradients of copies
def test_operators_are_what_compilers_need():
    weight = torch.randn(2, 50, 1)
    arguments = (weight.requires_grad_(), torch.randn(2, 4, 1), 1e-2, 3, 1e-4, 1e-7, 1e-7, False, False)
    torch.library.opcheck(torch.ops.corepress.soft_kmeans.default, arguments)


@pytest.mark.filterwarnings("ignore")
def test_graphs_have_no_breaks():
    weight, centroids = torch.randn(2, 500), torch.randn(2, 8)

    def loss(weight):
        means, _ = soft_kmeans(weight * 1.5, centroids, temperature=1e-2)
        return means.square().sum()

    gradients = []
    for function in (loss, torch.compile(loss, fullgraph=True, backend="aot_eager")):
        given = weight.clone().requires_grad_()
        function(given).backward()
        gradients.append(given.grad)
    assert torch.equal(*gradients)

    class Means(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("centroids", centroids)

        def forward(self, weight):
            return soft_kmeans(weight, self.centroids)[0] + hard_assignment(weight, self.centroids)

    exported = torch.export.export(Means(), (weight,)).module()
    assert torch.equal(exported(weight), Means()(weight))


def test_calls_of_threads_are_apart():
    cases = [drawn(4, n=9000, std=0.01 * (1 + i)) for i in range(4)]
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda case: found(*case), cases))
    for case, result in zip(cases, results, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(result, found(*case), strict=True))


def test_no_gradient_is_needed():
    with torch.no_grad():
        means, _ = soft_kmeans(torch.randn(1, 50), torch.randn(1, 4))
    assert not means.requires_grad


@pytest.mark.parametrize(
    ("weight", "centroids", "options", "rule"),
    [
        ((5,), (4,), {}, "weight must be"),
        ((1, 5), (2, 4), {}, "weight must be"),
        ((1, 5, 2), (1, 4, 3), {}, "vectors of 2"),
        ((1, 5), (1, 4), {"temperature": 0.0}, "temperature must be positive"),
        ((1, 5), (1, 4), {"smallest_weight": 1.0}, "smallest_weight"),
        ((1, 5), (1, 4), {"iterations": 0}, "iterations"),
    ],
)
def test_wrong_arguments(weight, centroids, options, rule):
    with pytest.raises(ValueError, match=rule):
        soft_kmeans(torch.zeros(weight), torch.zeros(centroids), **options)


def test_wrong_dtype():
    with pytest.raises(TypeError, match="float64"):
        soft_kmeans(torch.zeros(1, 5, dtype=torch.float64), torch.zeros(1, 4))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("d", [1, 2, 4])
@pytest.mark.parametrize("k", [1, 2, 7, 40, 300])
@pytest.mark.parametrize("drawing", ["normal", "ties"])
def test_hard_assignment(k, d, dtype, drawing):
    """The first of equally near entries; a threshold favours the first entry, or rules it out."""
    torch.manual_seed(k + d)
    if drawing == "ties":
        weight = (torch.randint(-8, 9, (2, 700, d)) * 0.25).to(dtype)
        centroids = torch.randint(-8, 9, (2, k, d)) * 0.125
    else:
        weight, centroids = torch.randn(2, 700, d).to(dtype), torch.randn(2, k, d)
    for threshold in (0.0, 1e-7, 0.1, -0.1, 5.0):
        distances = (weight.double()[:, :, None] - centroids.double()[:, None]).square().sum(-1)
        distances[..., 0] -= threshold
        given = (weight, centroids) if d > 1 else (weight[..., 0], centroids[..., 0])
        codes = nearest_codes(*given, prune_threshold=threshold).long()
        values = hard_assignment(*given, prune_threshold=threshold)
        if k <= 256 if d == 1 else threshold == 0:
            assert torch.equal(codes, soft_kmeans_of_device.nearest_codes(weight, centroids, threshold))
        if d == 1 and k <= 256 and (drawing == "normal" or threshold in (0.0, 5.0)):  # compared in double
            assert torch.equal(codes, distances.argmin(-1))
        chosen = distances.gather(-1, codes[..., None])[..., 0]
        assert (chosen - distances.amin(-1) <= 1e-5).all()
        expected = centroids.gather(1, codes[..., None].expand(-1, -1, d)).to(dtype)
        assert torch.equal(values.reshape(expected.shape), expected)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_hard_assignment_of_what_is_not_finite(value):
    """Values become an entry, whatever they are; entries that are not finite are nearest to nothing else."""
    weight = torch.randn(1, 100)
    weight[0, 5] = value
    entries = torch.tensor([[-1.0, 0.5, 2.0]])
    assert torch.isin(hard_assignment(weight, entries), entries).all()
    codes = nearest_codes(torch.randn(1, 100), torch.tensor([[-1.0, value, 2.0]]))
    assert (codes != 1).all()


def test_a_nan_among_entries_is_seen_in_the_result():
    weight = torch.randn(1, 9000) * 0.05
    means, entries = soft_kmeans(weight, torch.tensor([[-0.1, float("nan"), 0.1, 0.2]]))
    assert means.isnan().all()
    assert entries.isnan().any()


@pytest.mark.parametrize("n", [1, 5])
def test_fewer_values_than_entries_in_a_round(n):
    given = drawn(16, n=64)
    given = (given[0][:n], given[1], given[2][:n], given[3])
    for got, want in zip(found(*given), expected(*given), strict=True):
        assert distance(got, want) < 2e-7


@pytest.mark.parametrize("temperature", [1e-300, 1e-12, 1e6, 1e300])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_temperatures_out_of_proportion(temperature, dtype):
    weight, centroids, slopes, _ = drawn(8, n=9000, dtype=dtype)
    results = found(weight, centroids, slopes, SoftKMeans(temperature=temperature))
    assert all(torch.isfinite(result).all() for result in results)
    hard = hard_assignment(results[0][None, :, 0], torch.unique(results[0].float())[None])
    assert len(torch.unique(hard)) <= (8 if temperature < 1 else 9000)


def test_many_small_groups():
    weight, centroids = torch.randn(3000, 32) * 0.05, torch.randn(3000, 4) * 0.05
    means, entries = soft_kmeans(weight, centroids)
    for group in (0, 1777, 2999):
        single, own = soft_kmeans(weight[group : group + 1], centroids[group : group + 1])
        assert torch.equal(means[group], single[0])
        assert torch.equal(entries[group], own[0])


def test_first_palettes_are_optimal():
    weight = torch.randn(2, 400).to(torch.float16)
    entries = initial_centroids(weight, 4)
    assert entries.shape == (2, 4)
    for group in range(2):
        centroids, _ = kmeans1d(weight[group, :60].float().tolist(), 4)
        assert np.allclose(initial_centroids(weight[group : group + 1, :60], 4)[0], centroids)


def test_fewer_values_than_entries():
    entries = initial_centroids(torch.tensor([[0.5, 0.25, 0.5]]), 4)
    assert entries.tolist() == [[0.25, 0.5, 0.5, 0.5]]
    vectors = initial_centroids(torch.tensor([[[0.5, 0.25], [0.5, 0.25]]]), 2)
    assert vectors.tolist() == [[[0.5, 0.25], [0.5, 0.25]]]
