"""`corepress.accelerate` in the optimizers of PyTorch models: equal masks, palettes and errors that are never worse."""

from __future__ import annotations

import copy
import inspect
import logging
import subprocess
import sys
from importlib.util import find_spec

import pytest

from corepress import accelerate
from corepress.acceleration import internals
from helpers.processes import TIMEOUT

torch = pytest.importorskip("torch")
nn = torch.nn


@pytest.fixture(autouse=True)
def seeded(caplog):
    torch.manual_seed(0)
    caplog.set_level(logging.ERROR, "coremltools")


def both(function):
    """What coremltools does by itself, and with the kernels."""
    torch.manual_seed(1)
    theirs = function()
    torch.manual_seed(1)
    with accelerate():
        ours = function()
    return theirs, ours


@pytest.fixture(scope="module")
def optimizers(ct):
    from coremltools.optimize.torch import layerwise_compression, palettization, pruning

    return {"layerwise": layerwise_compression, "palettization": palettization, "pruning": pruning}


class TestMasks:
    @pytest.mark.parametrize("shape", [(37,), (24, 18), (8, 6, 5), (12, 4, 3, 3), (4, 2, 2, 3, 2)], ids=str)
    @pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.5, 0.99, 1.0])
    @pytest.mark.parametrize(
        ("block", "granularity"),
        [(1, "per_scalar"), (2, "per_scalar"), (5, "per_scalar"), (1, "per_kernel"), (1, "per_channel")],
    )
    def test_of_magnitudes(self, optimizers, shape, sparsity, block, granularity):
        from coremltools.optimize.torch.pruning import _utils

        if len(shape) == 1 and granularity != "per_scalar":
            pytest.skip("one axis has no slices")
        weight = torch.randn(shape)
        theirs, ours = both(lambda: _utils.magnitude_ranked_mask(weight, sparsity, block, granularity))
        assert torch.equal(theirs, ours)
        assert ours.dtype == theirs.dtype

    @pytest.mark.parametrize("shape", [(24, 18), (8, 6, 5), (12, 4, 3, 3), (4, 2, 2, 3, 2)], ids=str)
    @pytest.mark.parametrize("ratio", [(1, 2), (2, 4), (3, 7)])
    @pytest.mark.parametrize("dim", [0, 1])
    def test_of_n_of_m(self, optimizers, shape, ratio, dim):
        from coremltools.optimize.torch.pruning import _utils

        weight = torch.randn(shape)
        theirs, ours = both(lambda: _utils.n_m_mask(weight, ratio, dim))
        assert torch.equal(theirs, ours)
        assert ours.dtype == theirs.dtype

    def test_in_the_pruner(self, optimizers):
        pruning = optimizers["pruning"]
        config = pruning.MagnitudePrunerConfig().set_global(pruning.ModuleMagnitudePrunerConfig(target_sparsity=0.6))
        model = nn.Sequential(nn.Linear(32, 16), nn.Conv2d(4, 4, 1))

        def run():
            pruner = pruning.MagnitudePruner(copy.deepcopy(model), config)
            pruner.prepare(inplace=True)
            pruner.step()
            return pruner.finalize()

        for theirs, ours in zip(*(each.parameters() for each in both(run)), strict=True):
            assert torch.equal(theirs, ours)


def weighted_error(before, after, importance=None):
    squares = (before.double() - after.double()).square()
    return float((squares if importance is None else squares * importance).sum())


class TestPalettes:
    @pytest.mark.parametrize(
        "options",
        [
            {"n_bits": 4},
            {"n_bits": 2, "enable_fast_kmeans_mode": False},
            {"n_bits": 3, "granularity": "per_grouped_channel", "group_size": 8},
            {"n_bits": 4, "enable_per_channel_scale": True},
            {"n_bits": 8},
        ],
        ids=str,
    )
    def test_after_training(self, optimizers, options):
        palettization = optimizers["palettization"]
        model = nn.Sequential(nn.Linear(48, 64))
        config = palettization.PostTrainingPalettizerConfig.from_dict({"global_config": options})
        theirs, ours = both(lambda: palettization.PostTrainingPalettizer(model, config).compress())
        errors = [weighted_error(model[0].weight.data, each[0].weight.data) for each in (theirs, ours)]
        assert errors[1] <= errors[0] * (1 + 1e-5)
        for name, value in theirs[0].named_buffers():
            assert ours[0].get_buffer(name).shape == value.shape

    @pytest.mark.parametrize("masked", [False, True])
    @pytest.mark.parametrize("weighted", [False, True])
    def test_by_importance_and_of_what_a_mask_leaves(self, optimizers, masked, weighted):
        from coremltools.optimize.torch._utils.k_means import KMeans, KMeansConfig

        weight = torch.randn(40, 30)
        importance = torch.rand(40, 30) ** 4 if weighted else None
        mask = (torch.rand(40, 30) < 0.6).flatten()
        config = KMeansConfig(n_bits=3, block_size=40, enable_fast_kmeans_mode=False)

        def run():
            if masked:
                return KMeans._cluster_weights_with_masking(weight, importance, mask, config)
            return KMeans._cluster_weights_1d(weight, importance, config)

        (their_entries, their_codes), (our_entries, our_codes) = both(run)
        assert (our_entries.dtype, our_codes.dtype) == (their_entries.dtype, their_codes.dtype)
        values, shares = (weight.flatten(), None if importance is None else importance.flatten())
        if masked:
            values, shares = values[mask], None if shares is None else shares[mask]
        theirs = weighted_error(values, their_entries[their_codes], shares)
        assert weighted_error(values, our_entries[our_codes], shares) <= theirs * (1 + 1e-6)

    @pytest.mark.parametrize("weighted", [False, True])
    def test_of_vectors(self, optimizers, weighted):
        """Each result is a local optimum, which single draws may favour; over many draws ours must be no worse."""
        from coremltools.optimize.torch.palettization._efficient_kmeans import _EfficientKMeans

        errors = []
        for seed in range(12):
            torch.manual_seed(seed)
            vectors, shares = torch.randn(600, 2), torch.rand(600, 1) if weighted else None
            runs = both(lambda v=vectors, s=shares: _EfficientKMeans(16, "kmeans++", 5, max_iter=300).fit(v, s))
            errors.append([weighted_error(vectors, each.cluster_centers_[each.labels_], shares) for each in runs])
        theirs, ours = map(sum, zip(*errors, strict=True))
        assert ours <= theirs
        assert all(our <= their * 1.03 for their, our in errors)

    def test_more_starts_of_vectors_are_never_worse(self, optimizers):
        from coremltools.optimize.torch.palettization._efficient_kmeans import _EfficientKMeans

        errors = []
        for seed in range(4):
            torch.manual_seed(seed)
            vectors = torch.randn(2000, 4)
            with accelerate():
                runs = [_EfficientKMeans(16, "kmeans++", starts, max_iter=300).fit(vectors) for starts in (1, 3, 5)]
            errors.append([weighted_error(vectors, each.cluster_centers_[each.labels_]) for each in runs])
            assert errors[-1] == sorted(errors[-1], reverse=True)
        assert sum(five for *_, five in errors) < sum(one for one, *_ in errors)

    def test_what_is_not_finite_is_left_to_coremltools(self, optimizers):
        from coremltools.optimize.torch._utils.k_means import KMeans, KMeansConfig

        weight, calls = torch.full((4, 4), float("nan")), []
        before = KMeans._cluster_weights_1d.__func__
        with accelerate():
            found = KMeans.__dict__["_cluster_weights_1d"].__func__.__wrapped__
        assert found is before
        with accelerate(), pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                "coremltools.optimize.torch._utils.k_means._kmeans1d.cluster", lambda *_, **__: calls.append(1)
            )
            with pytest.raises(AttributeError):
                KMeans._cluster_weights_1d(weight, torch.ones(4, 4), KMeansConfig(n_bits=2))
        assert calls == [1]


class TestDKM:
    @pytest.mark.parametrize("options", [{"n_bits": 2}, {"n_bits": 4}, {"n_bits": 2, "cluster_dim": 2}], ids=str)
    def test_outputs_and_gradients(self, optimizers, options):
        """Closer to coremltools' than these are to the formula in double precision."""
        palettization = optimizers["palettization"]
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(64, 48, bias=False))
        config = palettization.DKMPalettizerConfig.from_dict({"global_config": {"weight_threshold": 1} | options})
        prepared = palettization.DKMPalettizer(model, config).prepare()
        x = torch.randn(8, 64)
        prepared(x)  # finds the first palettes

        def step():
            run = copy.deepcopy(prepared)
            run.zero_grad()
            y = run(x)
            y.square().sum().backward()
            return y.detach(), run[0].weight.grad

        (their_output, their_gradient), (our_output, our_gradient) = both(step)
        assert float((our_output - their_output).norm() / their_output.norm()) < 1e-4
        assert float((our_gradient - their_gradient).norm() / their_gradient.norm()) < 2e-2

    @pytest.mark.parametrize("options", [{"palett_mode": "gsm"}, {"lut_dtype": "f16"}], ids=str)
    def test_other_modes_are_left_to_coremltools(self, optimizers, options):
        palettization = optimizers["palettization"]
        config = palettization.DKMPalettizerConfig.from_dict(
            {"global_config": {"weight_threshold": 1, "n_bits": 2} | options}
        )
        prepared = palettization.DKMPalettizer(nn.Sequential(nn.Linear(16, 8)), config).prepare()
        x = torch.randn(2, 16)
        prepared(x)
        theirs, ours = both(lambda: copy.deepcopy(prepared)(x))
        assert torch.equal(theirs, ours)


@pytest.mark.parametrize(
    "config",
    [
        {"algorithm": "gptq", "weight_dtype": "uint4"},
        {"algorithm": "gptq", "weight_dtype": "uint4", "granularity": "per_block", "block_size": 16},
        {"algorithm": "gptq", "weight_dtype": "uint3", "enable_normal_float": True},
        {"algorithm": "sparse_gpt", "weight_dtype": "float32"},
        {"algorithm": "sparse_gpt", "weight_dtype": "uint8", "n_m_ratio": [2, 4]},
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", ["linear", "conv"])
def test_layerwise_loops(optimizers, config, kind):
    layerwise = optimizers["layerwise"]
    model = nn.Sequential(nn.Linear(64, 48, bias=False) if kind == "linear" else nn.Conv2d(16, 24, 3, bias=False))
    x = torch.randn(200, 20) @ torch.randn(20, 64) if kind == "linear" else torch.randn(2, 16, 12, 12)
    x = torch.relu(x + 0.3 * torch.randn_like(x))
    whole = layerwise.LayerwiseCompressorConfig.from_dict({"global_config": config})
    theirs, ours = both(lambda: layerwise.LayerwiseCompressor(model, whole).compress([x], "cpu"))
    with torch.no_grad():
        errors = [float((each(x) - model(x)).norm()) for each in (theirs, ours)]
    assert errors[1] < errors[0]
    buffers = {name: value.shape for name, value in theirs[0].named_buffers()}
    assert {name: value.shape for name, value in ours[0].named_buffers()} == buffers


def test_all_is_undone_and_looks_like_what_it_replaces(ct):
    from coremltools.optimize.torch._utils.k_means import KMeans
    from coremltools.optimize.torch.pruning import _utils

    before = vars(KMeans)["_cluster_weights_1d"], _utils.n_m_mask
    with accelerate():
        inside = vars(KMeans)["_cluster_weights_1d"], _utils.n_m_mask
        assert isinstance(inside[0], classmethod)
        assert inspect.signature(inside[1]) == inspect.signature(before[1])
        assert all(new is not old for new, old in zip(inside, before, strict=True))
    assert before == (vars(KMeans)["_cluster_weights_1d"], _utils.n_m_mask)


def test_nothing_of_torch_is_replaced_without_it(monkeypatch):
    monkeypatch.setattr(internals, "find_spec", lambda name: None if name == "torch" else find_spec(name))
    assert internals.internals() == internals.INTERNALS


def test_torch_is_not_imported_before_it_is_needed():
    code = "import sys, corepress, corepress.acceleration.internals; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=TIMEOUT, check=False).returncode == 0
