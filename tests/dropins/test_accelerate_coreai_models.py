"""`corepress.accelerate` in coreai-opt's palettizer and pruner of PyTorch models."""

from __future__ import annotations

import copy
import logging
from importlib import import_module

import numpy as np
import pytest

from corepress import accelerate

torch = pytest.importorskip("torch")
pytest.importorskip("coreai_opt")
nn = torch.nn
TOLERANCE = 1e-4


@pytest.fixture(autouse=True, scope="module")
def quiet_coreai():
    logging.getLogger("coreai_opt").setLevel(logging.ERROR)


@pytest.fixture(scope="module")
def palettization():
    return import_module("coreai_opt.palettization")


def both(function):
    torch.manual_seed(1)
    theirs = function()
    torch.manual_seed(1)
    with accelerate():
        ours = function()
    return theirs, ours


def layer(kind="linear", deviation=0.05, dtype=torch.float32):
    torch.manual_seed(0)
    made = {
        "linear": lambda: nn.Linear(96, 64, bias=False),
        "conv": lambda: nn.Conv2d(16, 32, 3, bias=False),
        "transposed": lambda: nn.ConvTranspose2d(16, 32, 3, bias=False),
    }[kind]()
    made.weight.data.normal_(0, deviation)
    return made.to(dtype).eval()


def example(kind, dtype=torch.float32):
    return torch.zeros((2, 96) if kind == "linear" else (2, 16, 8, 8), dtype=dtype)


def palettized(palettization, model, x, workers=1, *, spec=None, **options):
    """The model, prepared: its weights are palettes' values."""
    from coreai_opt.palettization import spec as specs

    spec = dict(spec or {})
    group = spec.pop("group_size", None)
    axis = spec.pop("axis", None)
    granularity = specs.PerTensorGranularity()
    if group:
        granularity = specs.PerGroupedChannelGranularity(axis=axis, group_size=group)
    weight = palettization.PalettizationSpec(**({"n_bits": 4, "granularity": granularity} | spec))
    config = palettization.KMeansPalettizerConfig(
        global_config=palettization.ModuleKMeansPalettizerConfig(op_state_spec={"weight": weight}, **options)
    )
    palettizer = palettization.KMeansPalettizer(copy.deepcopy(nn.Sequential(model)), config)
    return palettizer.prepare((x,), num_workers=workers)


def error(model, original):
    return float((model[0].weight.detach().double() - original.weight.detach().double()).square().sum())


def fake_palettize(model):
    return model[0].parametrizations.weight[0]


SPECS = {
    "4 bits": {},
    "3 bits": {"n_bits": 3},
    "8 bits": {"n_bits": 8},
    "groups": {"group_size": 8},
    "groups of inputs": {"group_size": 4, "axis": 1},
    "scaled": {"enable_per_channel_scale": True},
}


class TestPalettes:
    @pytest.mark.parametrize("deviation", [0.05, 1e-4, 2e-5])
    @pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
    def test_errors_are_never_above_those_of_its_exact_mode(self, palettization, deviation, spec):
        original, x = layer(deviation=deviation), example("linear")
        exact = palettized(palettization, original, x, spec=spec, enable_fast_kmeans_mode=False)
        for fast in (True, False):
            with accelerate():
                ours = palettized(palettization, original, x, spec=spec, enable_fast_kmeans_mode=fast)
            assert error(ours, original) <= error(exact, original) * (1 + TOLERANCE)
            for name in ("centroids", "indices"):
                one, other = getattr(fake_palettize(exact), name), getattr(fake_palettize(ours), name)
                assert (one.shape, one.dtype) == (other.shape, other.dtype)

    @pytest.mark.parametrize("deviation", [1e-4, 2e-5])
    def test_the_default_does_not_round_small_weights_away(self, palettization, deviation):
        original, x = layer(deviation=deviation), example("linear")
        theirs, ours = both(lambda: palettized(palettization, original, x))
        assert error(ours, original) < 0.2 * error(theirs, original)
        assert error(ours, original) < 0.011 * float(original.weight.detach().double().square().sum())

    @pytest.mark.parametrize("kind", ["conv", "transposed"])
    @pytest.mark.parametrize("spec", [{}, {"group_size": 8}], ids=str)
    def test_of_other_layers(self, palettization, kind, spec):
        original, x = layer(kind), example(kind)
        theirs, ours = both(lambda: palettized(palettization, original, x, spec=spec, enable_fast_kmeans_mode=False))
        assert error(ours, original) <= error(theirs, original) * (1 + TOLERANCE)
        assert fake_palettize(ours).indices.shape == fake_palettize(theirs).indices.shape

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_of_half_precision(self, palettization, dtype):
        original, x = layer(dtype=dtype), example("linear", dtype)
        theirs, ours = both(lambda: palettized(palettization, original, x, enable_fast_kmeans_mode=False))
        assert ours[0].weight.dtype == dtype
        assert error(ours, original) <= error(theirs, original) * (1 + TOLERANCE)

    def test_of_vectors(self, palettization):
        errors = []
        for seed in range(6):
            original, x = layer(), example("linear")
            original.weight.data.normal_(0, 0.05, generator=torch.Generator().manual_seed(seed))
            spec = {"cluster_dim": 2, "group_size": 32}
            runs = both(
                lambda o=original, i=x, s=spec: palettized(palettization, o, i, spec=s, enable_fast_kmeans_mode=False)
            )
            errors.append([error(each, original) for each in runs])
        theirs, ours = map(sum, zip(*errors, strict=True))
        assert ours <= theirs * 1.005
        assert all(our <= their * 1.03 for their, our in errors)

    def test_of_palettes_that_exist(self, palettization):
        original, x = layer(), example("linear")
        original.weight.data = torch.round(original.weight.data * 20) / 20
        theirs, ours = both(lambda: palettized(palettization, original, x))
        assert error(ours, original) == error(theirs, original) == 0
        entries = [fake_palettize(each).centroids for each in (theirs, ours)]
        assert entries[0].min() == entries[1].min()
        assert entries[0].max() == entries[1].max()

    @pytest.mark.parametrize("few", [False, True])
    def test_by_sensitivities(self, palettization, few):
        """Of few that are not 0, or hardly, coreai-opt itself makes entries that are NaN."""
        original, x = layer(), example("linear")
        prepared = palettized(palettization, original, x, enable_fast_kmeans_mode=False)
        weight = original.weight.detach()
        shares = torch.rand(weight.shape)
        shares = torch.where(shares < 0.3, 0.0, shares**4) if few else shares + 0.1

        def clustered():
            module = copy.deepcopy(fake_palettize(prepared))
            module.sensitivities = shares
            return float(((module(weight) - weight).double().square() * shares).sum())

        theirs, ours = both(clustered)
        unweighted = float(((prepared[0].weight.detach() - weight).double().square() * shares).sum())
        assert ours < unweighted
        assert few or ours <= theirs * (1 + TOLERANCE)

    @pytest.mark.parametrize("spec", [{}, {"group_size": 8}], ids=str)
    def test_of_what_a_mask_leaves(self, palettization, spec):
        original, x = layer(), example("linear")
        original.weight.data[torch.rand(original.weight.shape) < 0.6] = 0
        spec = spec | {"sparsity_detection_threshold": 0.3}
        theirs, ours = both(lambda: palettized(palettization, original, x, spec=spec, enable_fast_kmeans_mode=False))
        assert error(ours, original) <= error(theirs, original) * (1 + TOLERANCE)
        assert torch.equal(ours[0].weight == 0, theirs[0].weight == 0)

    def test_indices_of_weights_that_moved(self, palettization):
        original, x = layer(), example("linear")
        prepared = palettized(palettization, original, x, spec={"group_size": 8}, enable_fast_kmeans_mode=False)
        module = fake_palettize(prepared)
        moved = original.weight.detach() + 0.01 * torch.randn(original.weight.shape)
        module.centroids = module.centroids.flip(1).clone()  # in no order
        theirs, ours = both(lambda: module._assign_indices(moved, module.centroids))
        assert (theirs.shape, theirs.dtype) == (ours.shape, ours.dtype)
        distances = []
        for indices in (theirs, ours):
            values = module._palettize(module.lut, indices, moved)
            distances.append(float((values.double() - moved.double()).square().sum()))
        assert distances[1] <= distances[0] * (1 + 1e-6)

    def test_starts_no_processes(self, palettization, monkeypatch):
        from coreai_opt.palettization.kmeans import palettizer

        monkeypatch.setattr(palettizer.mp, "get_context", None)
        with accelerate():
            palettized(palettization, layer(), example("linear"), workers=2)

    def test_shapes_that_do_not_fit_are_left_to_coreai_opt(self, palettization):
        original, x = layer(), example("linear")
        theirs, ours = both(lambda: palettized(palettization, original, x, spec={"group_size": 24}))
        for each in (theirs, ours):
            assert torch.equal(each(torch.eye(96)), original(torch.eye(96)))


class TestPruner:
    @pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.5, 0.99, 1.0])
    @pytest.mark.parametrize("shape", [(37,), (24, 18), (12, 4, 3, 3)], ids=str)
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
    def test_masks(self, palettization, sparsity, shape, dtype):
        from coreai_opt.pruning.spec.prune import _MagnitudePruneImpl

        weight = (torch.randperm(int(np.prod(shape))) / 1024 * (-1) ** torch.arange(int(np.prod(shape)))).reshape(shape)
        weight = (weight / 4 if dtype == torch.bfloat16 else weight).to(dtype)
        theirs, ours = both(lambda: _MagnitudePruneImpl._compute_unstructured_mask(weight, sparsity))
        assert (theirs.shape, theirs.dtype) == (ours.shape, ours.dtype)
        assert theirs.sum() == ours.sum()
        kept = [float((weight.double().abs() * mask.double()).sum()) for mask in (theirs, ours)]
        assert kept[0] == kept[1]
        if dtype == torch.float32:
            assert torch.equal(theirs, ours)

    def test_of_equal_magnitudes_as_many_are_kept(self, palettization):
        from coreai_opt.pruning.spec.prune import _MagnitudePruneImpl

        weight = torch.ones(50)
        with accelerate():
            mask = _MagnitudePruneImpl._compute_unstructured_mask(weight, 0.5)
        assert mask.tolist() == [1.0] * 25 + [0.0] * 25
