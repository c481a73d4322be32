"""`calibrate` for Core AI assets, against the inputs that hooks see in the PyTorch modules, multiplied by NumPy."""

from __future__ import annotations

import math

import numpy as np
import pytest

from corepress import coreai, coreml
from corepress.allocation import check
from corepress.allocation.recipe_models import InCopies
from corepress.calibration import asset_run, collect
from corepress.calibration.unfinished import folder_of
from corepress.compression import apply
from corepress.config.candidates import candidate_key
from corepress.engine.calibrated import feedback_data
from corepress.specs import Palettize
from helpers.assets import require_coreai, save_asset

require_coreai()
import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from torch import nn  # noqa: E402


@pytest.fixture
def rng():
    return np.random.default_rng(11)


def calibrated(path, samples, **options):
    return coreml.calibrate(path, samples, **({"weight_threshold": 0, "candidates": None} | options))


def fitted(samples):
    """The samples that second moments are taken from."""
    return [each for index, each in enumerate(samples) if index % 4 != 3]


def seen_by(module, layers, samples):
    """What hooks of layers see of the samples that moments are taken from: lists of inputs, by name."""
    found = {name: [] for name in layers}
    hooks = [
        layer.register_forward_hook(lambda _, given, __, name=name: found[name].append(given[0].detach().numpy()))
        for name, layer in layers.items()
    ]
    with torch.no_grad():
        for sample in fitted(samples):
            module(*(torch.from_numpy(value) for value in sample.values()))
    for hook in hooks:
        hook.remove()
    return found


def moments_of(vectors):
    wide = np.asarray(vectors, np.float64)
    return wide.T @ wide / len(wide)


def assert_moments(found, vectors):
    """Compare with those of vectors (groups, count, columns)."""
    assert found.hessian is not None, found.reason
    expected = np.stack([moments_of(each) for each in vectors])[:, None]
    assert found.hessian.shape == expected.shape
    assert found.count == len(vectors[0])
    np.testing.assert_allclose(found.hessian, expected, atol=3e-6 * np.abs(expected).max(), rtol=3e-5)


def of_shape(statistics, *shape):
    (found,) = [each for each in statistics.weights.values() if each.shape == shape]
    return found


def windows(images, layer):
    """The windows of a convolution: (groups, count, columns)."""
    found = []
    for image in images:
        padded = F.pad(torch.from_numpy(image), [pad for each in reversed(layer.padding) for pad in (each, each)])
        found += [
            F.unfold(group, layer.kernel_size, layer.dilation, 0, layer.stride).transpose(1, 2)
            for group in padded.chunk(layer.groups, dim=1)
        ]
    groups = [torch.cat(found[index :: layer.groups]).flatten(0, 1).numpy() for index in range(layer.groups)]
    return np.stack(groups)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(12, 32), nn.LayerNorm(32), nn.Linear(32, 20)

    def forward(self, x):
        return self.last(self.norm(F.gelu(self.first(x))))


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return Net()


@pytest.fixture(scope="module")
def net_path(net, tmp_path_factory):
    folder = tmp_path_factory.mktemp("calibrated")
    return save_asset(folder / "net.aimodel", (net, [torch.zeros(3, 12)]), input_names=["x"], output_names=["y"])


@pytest.fixture
def samples(rng):
    return [{"x": rng.standard_normal((3, 12)).astype(np.float32)} for _ in range(9)]


def test_products(net, net_path, samples):
    found = calibrated(net_path, samples)
    seen = seen_by(net, {"first": net.first, "last": net.last}, samples)
    assert_moments(of_shape(found, 32, 12), [np.concatenate(seen["first"])])
    assert_moments(of_shape(found, 20, 32), [np.concatenate(seen["last"])])
    assert (found.sample_count, len(found.kept), found.function_name) == (9, 2, "main")
    assert found.library.startswith("coreai-core ")
    assert not found.candidates
    assert not found.notes


def test_ranges(net, net_path, samples):
    found = calibrated(net_path, samples)
    seen = seen_by(net, {"x": net.first, "native_layer_norm": net.last}, samples)
    assert found.ranges.keys() == seen.keys()
    for name, values in seen.items():
        bounds = found.ranges[name]["bounds"]
        np.testing.assert_allclose(bounds, [np.min(values), np.max(values)], rtol=1e-4, atol=1e-5)
        assert found.ranges[name]["counts"].sum() == sum(each.size for each in values)


CONVOLUTIONS = {
    "plain": nn.Conv2d(6, 8, 3),
    "strides and pads": nn.Conv2d(6, 8, 3, stride=(2, 1), padding=(1, 2)),
    "dilations": nn.Conv2d(6, 8, (3, 2), dilation=(1, 2)),
    "groups": nn.Conv2d(6, 30, 3, padding=1, groups=3),
    "depthwise": nn.Conv2d(30, 30, 3, padding=1, groups=30),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolutions(name, tmp_path, rng):
    layer = CONVOLUTIONS[name]
    samples = [{"x": rng.standard_normal((2, layer.in_channels, 9, 8)).astype(np.float32)} for _ in range(3)]
    inputs = [torch.zeros(2, layer.in_channels, 9, 8)]
    path = save_asset(tmp_path / "conv.aimodel", (layer, inputs), input_names=["x"], output_names=["y"])
    found = calibrated(path, samples)
    assert_moments(of_shape(found, *layer.weight.shape), windows([each["x"] for each in samples], layer))


def test_convolutions_of_sequences_and_transposed_ones(tmp_path, rng):
    class Layers(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Conv1d(6, 16, 3, padding=1), nn.ConvTranspose2d(16, 5, 4, stride=2)

        def forward(self, x):
            return self.second(torch.tanh(self.first(x))[:, :, None])

    torch.manual_seed(1)
    module = Layers()
    samples = [{"x": rng.standard_normal((1, 6, 10)).astype(np.float32)} for _ in range(2)]
    names = {"input_names": ["x"], "output_names": ["y"]}
    path = save_asset(tmp_path / "layers.aimodel", (module, [torch.zeros(1, 6, 10)]), **names)
    found = calibrated(path, samples)
    seen = seen_by(module, {"second": module.second}, samples)["second"]
    pixels = np.concatenate([np.moveaxis(each, 1, -1).reshape(-1, 16) for each in seen])
    assert_moments(of_shape(found, 16, 5, 4, 4), [pixels])
    lines = nn.Conv2d(6, 16, (1, 3), padding=(0, 1))
    assert_moments(of_shape(found, 16, 6, 1, 3), windows([each["x"][:, :, None] for each in samples], lines))


def test_batches_of_matrices_and_parameters_on_either_side(tmp_path, rng):
    class Products(nn.Module):
        def __init__(self):
            super().__init__()
            self.experts = nn.Parameter(torch.randn(4, 12, 8))
            self.right, self.left = nn.Parameter(torch.randn(8, 40)), nn.Parameter(torch.randn(60, 5))

        def forward(self, x):
            return self.left @ ((x @ self.experts) @ self.right)

    torch.manual_seed(2)
    module = Products()
    samples = [{"x": rng.standard_normal((4, 5, 12)).astype(np.float32)} for _ in range(3)]
    names = {"input_names": ["x"], "output_names": ["y"]}
    path = save_asset(tmp_path / "products.aimodel", (module, [torch.zeros(4, 5, 12)]), **names)
    found = calibrated(path, samples)
    x = np.stack([each["x"] for each in samples]).astype(np.float64)
    experts, right = (each.detach().double().numpy() for each in (module.experts, module.right))
    inner = x @ experts
    assert_moments(of_shape(found, 4, 12, 8), x.transpose(1, 0, 2, 3).reshape(4, -1, 12))
    assert_moments(of_shape(found, 8, 40), [inner.reshape(-1, 8)])
    assert_moments(of_shape(found, 60, 5), [(inner @ right).swapaxes(-1, -2).reshape(-1, 5)])


def test_embeddings_are_counted_and_tied_heads_observed(tmp_path, rng):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.other = nn.Embedding(40, 16), nn.Embedding(30, 16)

        def forward(self, ids):
            return torch.tanh(self.table(ids) + self.other(ids)) @ self.table.weight.T

    torch.manual_seed(3)
    module = Tied()
    samples = [{"ids": rng.integers(0, 30, (1, 5)).astype(np.int32)} for _ in range(4)]
    names = {"input_names": ["ids"], "output_names": ["y"]}
    path = save_asset(tmp_path / "tied.aimodel", (module, [torch.zeros(1, 5, dtype=torch.int64)]), **names)
    found = calibrated(path, samples)
    with torch.no_grad():
        ids = [torch.from_numpy(each["ids"]).long() for each in fitted(samples)]
        hidden = [torch.tanh(module.table(each) + module.other(each)).reshape(-1, 16).numpy() for each in ids]
    assert_moments(of_shape(found, 40, 16), [np.concatenate(hidden)])
    other = of_shape(found, 30, 16)
    assert (other.count, other.hessian, other.reached) == (15, None, True)
    assert other.reason == "its rows are looked up by gather_nd"


class Experts(nn.Module):
    """Two of four experts for each token, looked up by plain indexing or by coreai-torch's own operation."""

    def __init__(self, gather=None):
        super().__init__()
        self.router, self.experts = nn.Linear(12, 4), nn.Parameter(torch.randn(4, 12, 8))
        self.last = nn.Parameter(torch.randn(4, 10, 8))
        self.gather = gather

    def choice(self, x):
        return torch.topk(self.router(x), 2).indices

    def forward(self, x):
        x, chosen = torch.tanh(x), self.choice(torch.tanh(x))
        if self.gather is not None:
            return self.gather(x[:, None, None], self.experts, rhs_indices=chosen)
        hidden = x[:, None, None] @ self.experts[chosen]
        return hidden @ self.last[chosen].transpose(-1, -2)


@pytest.mark.parametrize("way", ["indexing", "gathered"])
def test_experts_see_the_vectors_that_are_sent_to_them(tmp_path, rng, way):
    composite = pytest.importorskip("coreai_torch.composite_ops")
    torch.manual_seed(10)
    module = Experts(composite.GatherMM() if way == "gathered" else None)
    names = {"input_names": ["x"], "output_names": ["y"]}
    path = save_asset(tmp_path / "experts.aimodel", (module, [torch.zeros(5, 12)]), **names)
    samples = [{"x": rng.standard_normal((5, 12)).astype(np.float32)} for _ in range(6)]
    found = calibrated(path, samples)
    sums = np.zeros((4, 12, 12)), np.zeros((4, 8, 8))
    for sample in fitted(samples):
        with torch.no_grad():
            x = torch.tanh(torch.from_numpy(sample["x"]))
            for row, chosen in zip(x, module.choice(x), strict=True):
                for expert in chosen:
                    for total, vector in zip(sums, (row, row @ module.experts[expert]), strict=True):
                        total[expert] += np.outer(vector, vector)
    count = len(fitted(samples)) * 5 * 2
    for shape, total in zip(((4, 12, 8), (4, 10, 8)), sums, strict=True):
        if way == "gathered" and shape == (4, 10, 8):
            continue
        each = of_shape(found, *shape)
        assert (each.reason, each.count) == (None, count)
        np.testing.assert_allclose(each.hessian[:, 0], total / count, rtol=1e-4, atol=1e-5)


def test_steps_of_a_recurrent_layer_add_up(tmp_path, rng):
    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.GRU(12, 10, batch_first=True)

        def forward(self, x):
            return self.layer(x)[0]

    torch.manual_seed(4)
    module = Recurrent()
    samples = [{"x": rng.standard_normal((1, 4, 12)).astype(np.float32)} for _ in range(2)]
    names = {"input_names": ["x"], "output_names": ["y"]}
    path = save_asset(tmp_path / "gru.aimodel", (module, [torch.zeros(1, 4, 12)]), **names)
    found = calibrated(path, samples)
    with torch.no_grad():
        hidden = [module(torch.from_numpy(each["x"]))[0].numpy() for each in samples]
    before = np.concatenate([np.concatenate([np.zeros((1, 10)), each[:-1]]) for each in hidden])
    assert_moments(of_shape(found, 30, 10), [before])
    assert_moments(of_shape(found, 30, 12), [np.concatenate([each["x"][0] for each in samples])])


class Inner(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(20, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(torch.tanh(x))


class Outer(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.inner, self.last = nn.Linear(16, 20), Inner(), nn.Linear(16, 18)

    def forward(self, x):
        return self.last(torch.relu(self.inner(torch.relu(self.first(x)))))


def test_weights_of_functions_that_are_called(tmp_path, rng):
    torch.manual_seed(7)
    module = Outer()
    path = save_asset(
        tmp_path / "outer.aimodel", (module, [torch.zeros(3, 16)]), input_names=["x"], output_names=["y"], apart=Inner
    )
    samples = [{"x": rng.standard_normal((3, 16)).astype(np.float32)} for _ in range(5)]
    found = calibrated(path, samples)
    layers = {(20, 16): module.first, (16, 20): module.inner.layer, (18, 16): module.last}
    for shape, vectors in seen_by(module, layers, samples).items():
        assert_moments(of_shape(found, *shape), [np.concatenate(vectors)])


def test_weights_in_branches_are_named(tmp_path, rng):
    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(12, 40), nn.Linear(12, 40)

        def forward(self, x):
            return torch.cond(x.sum() > 0, lambda x: self.first(x), lambda x: self.second(torch.tanh(x)), (x,))

    torch.manual_seed(8)
    module = Branches()
    names = {"input_names": ["x"], "output_names": ["y"]}
    path = save_asset(tmp_path / "branches.aimodel", (module, [torch.zeros(3, 12)]), **names)
    samples = [{"x": rng.standard_normal((3, 12)).astype(np.float32)} for _ in range(3)]
    found = calibrated(path, samples)
    reasons = sorted(str(each.reason) for each in found.weights.values())
    assert reasons == ["None", "it is used in a branch or a loop, whose values cannot be observed"]


class Memory(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(20, 16), nn.Linear(16, 18)
        self.register_buffer("total", torch.zeros(1, 16))

    def forward(self, x):
        self.total.add_(self.first(x))
        return self.last(self.total)


def test_sequences_share_a_state(tmp_path, rng, monkeypatch):
    torch.manual_seed(5)
    module = Memory()
    names = {"input_names": ["x"], "output_names": ["y"], "state_names": ["total"]}
    path = save_asset(tmp_path / "memory.aimodel", (module, [torch.zeros(1, 20)]), **names)
    samples = [[{"x": rng.standard_normal((1, 20)).astype(np.float32)} for _ in range(3)] for _ in range(3)]
    vectors = []
    with torch.no_grad():
        for sequence in samples:
            steps = [module.first(torch.from_numpy(step["x"])) for step in sequence]
            vectors += torch.cumsum(torch.stack(steps), 0)[:, 0].numpy().tolist()
    for most in (1024, 1):
        monkeypatch.setattr("corepress.runtime.coreai_backend._MOST_VALUES", most)
        found = calibrated(path, samples)
        assert_moments(of_shape(found, 18, 16), [np.array(vectors)])
        assert_moments(of_shape(found, 16, 20), [np.concatenate([step["x"] for each in samples for step in each])])


def test_functions(tmp_path, rng):
    torch.manual_seed(6)
    shared, second = nn.Linear(16, 16), nn.Linear(16, 20)
    options = [{"input_names": ["x"], "output_names": ["y"], "entrypoint_name": name} for name in ("encode", "decode")]
    functions = [
        (shared, [torch.zeros(2, 16)], options[0]),
        (nn.Sequential(shared, second), [torch.zeros(2, 16)], options[1]),
    ]
    path = save_asset(tmp_path / "two.aimodel", *functions)
    samples = [{"x": rng.standard_normal((2, 16)).astype(np.float32)} for _ in range(5)]
    first, other = (calibrated(path, samples, function_name=name) for name in ("encode", "decode"))
    assert of_shape(first, 20, 16).reason == "function encode does not use it"
    both = first.merge(other)
    assert (both.function_name, len(both.reached)) == (None, 2)
    assert of_shape(both, 16, 16).count == of_shape(first, 16, 16).count * 2
    both.require_package(path)


def test_weights_in_groups_have_the_same_moments(net_path, samples, monkeypatch):
    whole = calibrated(net_path, samples)
    for options in ({"memory_limit": 1}, {"block_columns": 8}):
        parts = calibrated(net_path, samples, **options)
        assert parts.ranges.keys() == whole.ranges.keys()
        for name, each in whole.weights.items():
            found, size = parts.weights[name].hessian, parts.weights[name].hessian.shape[-1]
            for block in range(found.shape[1]):
                part = slice(block * size, min((block + 1) * size, each.hessian.shape[-1]))
                width = part.stop - part.start
                np.testing.assert_allclose(
                    found[0, block, :width, :width], each.hessian[0, 0, part, part], rtol=1e-5, atol=1e-6
                )


def test_some_of_the_vectors_represent_all(net_path, rng, monkeypatch):
    samples = [{"x": rng.standard_normal((3, 12)).astype(np.float32)} for _ in range(40)]
    whole = calibrated(net_path, samples)
    monkeypatch.setattr(asset_run, "VECTORS", 1)
    monkeypatch.setattr(asset_run, "VECTORS_OF_COLUMN", 1)
    some = calibrated(net_path, samples)
    for name, each in whole.weights.items():
        assert some.weights[name].count == each.count
        distance = np.linalg.norm(some.weights[name].hessian - each.hessian)
        assert 0 < distance < np.linalg.norm(each.hessian)


class Vision(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(8, 32, 3, padding=1), nn.Conv2d(32, 32, 3, padding=1, groups=2)
        self.third, self.fourth = nn.Linear(32 * 16, 64), nn.Parameter(torch.randn(64, 48) / 8)

    def forward(self, x):
        hidden = torch.relu(self.second(torch.relu(self.first(x)))).flatten(1)
        return torch.relu(self.third(hidden)) @ self.fourth


@pytest.mark.parametrize("steps", [{"palettize": {"nbits": 3}}, {"quantize": {"dtype": "int4"}}])
def test_compression_with_statistics_keeps_outputs(tmp_path, rng, steps):
    torch.manual_seed(9)
    names = {"input_names": ["x"], "output_names": ["y"]}
    path = save_asset(tmp_path / "vision.aimodel", (Vision(), [torch.zeros(16, 8, 4, 4)]), **names)
    mixing = rng.standard_normal((8, 8)) * 2.0 ** -np.arange(8)  # channels that depend on each other
    draws = rng.standard_normal((54, 16, 8, 4, 4))
    samples = [{"x": np.einsum("nchw,dc->ndhw", each, mixing).astype(np.float32)} for each in draws]
    found = calibrated(path, samples[:50])
    assert len(found.reached) == 4
    snr = []
    for statistics in (None, found):
        target = tmp_path / f"{statistics is None}.aimodel"
        coreai.compress(path, target, steps, calibration=statistics)
        snr.append(coreai.compare(path, target, inputs=samples[50:]).outputs[0].snr_db)
    assert snr[1] > snr[0] + 3


def test_the_file(net, net_path, samples, tmp_path):
    file = tmp_path / "net.calibration"
    found = calibrated(net_path, samples, output=file)
    assert not folder_of(file).exists()
    loaded = coreml.Statistics.load(file)
    for name, each in calibrated(net_path, samples).weights.items():
        np.testing.assert_array_equal(loaded.weights[name].hessian, each.hessian)
        assert loaded.weights[name].digest == found.weights[name].digest
    loaded.require_package(net_path)
    with torch.no_grad():
        net.last.weight.mul_(2)
    try:
        names = {"input_names": ["x"], "output_names": ["y"]}
        other = save_asset(tmp_path / "other.aimodel", (net, [torch.zeros(3, 12)]), **names)
    finally:
        with torch.no_grad():
            net.last.weight.div_(2)
    with pytest.raises(
        ValueError, match=r"statistics are of another model than .*other\.aimodel: the values of '.*' differ"
    ):
        loaded.require_package(other)
    with pytest.raises(FileExistsError, match="exists; pass overwrite=True"):
        calibrated(net_path, samples, output=file)


def test_an_interrupted_run_continues(net_path, samples, tmp_path, monkeypatch):
    file, calls = tmp_path / "net.calibration", []
    original = asset_run.AssetCalibration._sum_up

    def interrupted(self, name, group, unfinished):
        calls.append(name)
        if len(calls) == 2:
            raise KeyboardInterrupt
        original(self, name, group, unfinished)

    monkeypatch.setattr(asset_run.AssetCalibration, "_sum_up", interrupted)
    with pytest.raises(KeyboardInterrupt):
        calibrated(net_path, samples, output=file, memory_limit=1)
    found = calibrated(net_path, samples, output=file, memory_limit=1)
    assert calls == ["moments-0000", "moments-0001", "moments-0001"]
    whole = calibrated(net_path, samples)
    assert found.ranges.keys() == whole.ranges.keys()
    for name, each in whole.weights.items():
        np.testing.assert_allclose(found.weights[name].hessian, each.hessian, rtol=1e-6)


def changed_outputs(net, layer, tensor, samples):
    """The squared change of the outputs over their mean power, by sample, with a weight in place of a layer's."""
    inputs = [torch.from_numpy(each["x"]) for index, each in enumerate(samples) if index % 4 == 3]
    original = layer.weight.data
    with torch.no_grad():
        expected = [net(x).double() for x in inputs]
        layer.weight.data = torch.from_numpy(np.array(tensor.dense()))
        try:
            found = [net(x).double() for x in inputs]
        finally:
            layer.weight.data = original
    power = np.mean([float(each.square().sum()) for each in expected])
    return [float((one - other).square().sum()) / power for one, other in zip(found, expected, strict=True)]


def test_sensitivities(net, net_path, samples):
    found = calibrated(net_path, samples, candidates=[2, 4, 8])
    assert len(found.candidates) == 3
    for layer in (net.first, net.last):
        known = of_shape(found, *layer.weight.shape)
        weight = layer.weight.detach().numpy()
        data = feedback_data(known.hessian, known.view)
        made = [apply(weight, Palettize(nbits=bits), data=data) for bits in (2, 4, 8)]
        changes = changed_outputs(net, layer, made[1], samples)
        measured = [known.sensitivities[candidate_key((Palettize(nbits=bits),))] for bits in (2, 4, 8)]
        assert measured[1].gradients == len(changes) == 2
        np.testing.assert_allclose(measured[1].mean, np.mean(changes), rtol=1e-3)
        np.testing.assert_allclose(measured[1].standard_error, np.std(changes, ddof=1) / math.sqrt(2), rtol=1e-3)
        # The others are in proportion to E H E^T.
        errors = [each.dense().astype(np.float64) - weight for each in made]
        outputs = [np.einsum("ij,jk,ik->", each, known.hessian[0, 0].astype(np.float64), each) for each in errors]
        for each, output in zip(measured, outputs, strict=True):
            np.testing.assert_allclose(each.mean / measured[1].mean, output / outputs[1], rtol=1e-4)


def test_sensitivities_that_would_take_long(net_path, samples, monkeypatch):
    monkeypatch.setattr(collect, "_MOST_SECONDS", 0.0)
    found = calibrated(net_path, samples, candidates=collect.DEFAULT_CANDIDATES)
    assert not found.candidates
    assert found.notes[0].startswith("no sensitivities: to run the asset with each weight changed would take ")
    assert calibrated(net_path, samples, candidates=[4]).candidates


def test_a_recipe_is_run_on_the_samples_that_were_kept(net_path, samples, tmp_path, monkeypatch):
    statistics = calibrated(net_path, samples, candidates=[2, 4, 8])
    found = coreai.allocate(net_path, target_bits=7, calibration=statistics, weight_threshold=0)
    assert found.predicted.measure == "outputs"
    coreai.compress(net_path, tmp_path / "out.aimodel", found, calibration=statistics, weight_threshold=0)
    kept = [each for index, each in enumerate(samples) if index % 4 == 3]
    measured = coreai.compare(net_path, tmp_path / "out.aimodel", inputs=kept).outputs[0].snr_db
    assert found.predicted.recipe.measured_snr_db == pytest.approx(measured, abs=0.01)
    monkeypatch.setattr(InCopies, "most_seconds", 0.0)
    monkeypatch.setattr(check, "_MOST_BYTES", 0)
    slow = coreai.allocate(net_path, target_bits=7, calibration=statistics, weight_threshold=0)
    assert slow.predicted.recipe.measured_snr_db is None
    assert any("the first of them took" in note for note in slow.notes)


def test_progress(net_path, samples):
    seen = []
    calibrated(net_path, samples, progress=seen.append)
    assert (seen[-1].stage, seen[-1].done, seen[-1].total) == ("second moments", 7, 7)


def test_values_that_are_not_finite_are_named(net_path, samples):
    samples[0]["x"][0, 0] = math.inf
    found = calibrated(net_path, samples)
    assert of_shape(found, 32, 12).reason == "its inputs were not finite"


def test_of_few_samples_none_is_kept(net_path, samples):
    found = calibrated(net_path, samples[:3])
    assert found.notes == ("only 3 samples, of which none is kept for choices; give at least 4",)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"importance": True}, "importance need gradients"),
        ({"probes": 4}, "probes and importance need gradients"),
        ({"device": "cuda"}, "device is 'cuda'"),
        ({"function_name": "other"}, "function_name is 'other', but the functions are main"),
    ],
)
def test_wrong_options(net_path, samples, options, message):
    with pytest.raises(ValueError, match=message):
        calibrated(net_path, samples, **options)


def test_wrong_samples(net_path):
    with pytest.raises(ValueError, match=r"calibrate: input 'x' has shape \(3, 11\)"):
        calibrated(net_path, [{"x": np.zeros((3, 11), np.float32)}] * 2)
