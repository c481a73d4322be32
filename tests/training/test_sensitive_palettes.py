"""Sensitivities of weights, and palettes by them."""

from __future__ import annotations

import copy
import time

import pytest
import torch
from safetensors.torch import load_file

from corepress.kernels import kmeans1d
from corepress.optimize.torch.palettization import SKMPalettizer, SKMPalettizerConfig
from corepress.training import metadata
from corepress.training.fisher import fisher_diagonal, samples, samples_of
from corepress.training.palette_layout import PaletteLayout
from corepress.training.per_sample import PerSampleSquares
from corepress.training.post_training import PaletteOptions, palettized


class Tokens(torch.nn.Module):
    """An embedding, layers that see positions, convolutions of all ranks."""

    def __init__(self):
        super().__init__()
        self.embedding = torch.nn.Embedding(12, 8, padding_idx=0)
        self.mix = torch.nn.Conv1d(8, 6, 3, padding=1, groups=2)
        self.fc = torch.nn.Linear(6, 6)
        self.plane = torch.nn.Conv2d(1, 3, 3, stride=2)
        self.head = torch.nn.Linear(12, 4)

    def forward(self, ids):
        x = self.mix(self.embedding(ids).transpose(1, 2))
        x = torch.relu(self.fc(x.transpose(1, 2)))
        return self.head(torch.tanh(self.plane(x[:, None])).flatten(1))


class Steps(torch.nn.Module):
    """A layer that is used twice."""

    def __init__(self):
        super().__init__()
        self.fc = torch.nn.Linear(8, 8)

    def forward(self, x):
        return self.fc(torch.tanh(self.fc(x)))


def loss_of(reduction):
    def loss_fn(model, data):
        return torch.nn.functional.cross_entropy(model(data[0]), data[1], reduction=reduction)

    return loss_fn


def batches(sizes=(6, 6, 3)):
    generator = torch.Generator().manual_seed(4)
    return [
        (torch.randint(0, 12, (size, 6), generator=generator), torch.randint(0, 4, (size,), generator=generator))
        for size in sizes
    ]


def one_by_one(model, data, loss_fn):
    """The definition: a backward pass for each sample, in double precision."""
    model = copy.deepcopy(model).double()
    sums = {name: torch.zeros_like(each) for name, each in model.named_parameters()}
    for batch in data:
        for index in range(len(batch[0])):
            model.zero_grad()
            loss_fn(model, (batch[0][index : index + 1], batch[1][index : index + 1])).backward()
            for name, each in model.named_parameters():
                if each.grad is not None:
                    sums[name] += each.grad**2
    return sums


@pytest.fixture
def tokens():
    torch.manual_seed(5)
    return Tokens()


WEIGHTS = {"embedding.weight", "mix.weight", "fc.weight", "plane.weight", "head.weight"}


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_samples_are_told_apart_in_one_pass(tokens, reduction, monkeypatch):
    data, loss_fn, passes = batches(), loss_of(reduction), []

    def counted(model, batch):
        if torch.is_grad_enabled():
            passes.append(len(batch[0]))
        return loss_fn(model, batch)

    found = fisher_diagonal(tokens, data, counted, WEIGHTS)
    expected = one_by_one(tokens, data, loss_fn)
    for name in WEIGHTS:
        torch.testing.assert_close(found[name].double(), expected[name], rtol=1e-4, atol=1e-12)
    # Four samples of the first batch are compared with hooks; all batches then take one pass each.
    assert passes == [1, 1, 1, 1, 4, 6, 6, 3]
    assert bool((found["embedding.weight"][0] == 0).all())


def test_weights_that_hooks_cannot_see_take_a_pass_for_each_sample():
    torch.manual_seed(0)
    model, loss_fn = Steps(), lambda model, data: (model(data[0]) - data[1]).square().mean(1).sum()
    data = [(torch.randn(5, 8), torch.randn(5, 8)) for _ in range(2)]
    found = fisher_diagonal(model, data, loss_fn, {"fc.weight"})
    expected = one_by_one(model, [tuple(each.double() for each in batch) for batch in data], loss_fn)
    torch.testing.assert_close(found["fc.weight"].double(), expected["fc.weight"], rtol=1e-4, atol=1e-12)
    attention = torch.nn.MultiheadAttention(8, 2)
    assert not PerSampleSquares(attention, {"in_proj_weight"}).complete
    assert not PerSampleSquares(attention, {"out_proj.weight"}).complete
    assert PerSampleSquares(Tokens(), WEIGHTS).complete


def test_rows_that_are_positions_are_not_samples():
    """A layer whose first axis is that of time: hooks would divide it wrongly, which the comparison finds."""
    torch.manual_seed(0)

    class TimeFirst(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = torch.nn.Linear(8, 4)

        def forward(self, x):
            return self.fc(x.transpose(0, 1)).transpose(0, 1).sum(1)

    model, loss_fn = TimeFirst(), lambda model, data: (model(data[0]) - data[1]).square().sum()
    data = [(torch.randn(4, 4, 8), torch.randn(4, 4)) for _ in range(2)]
    found = fisher_diagonal(model, data, loss_fn, {"fc.weight"})
    expected = one_by_one(model, [tuple(each.double() for each in batch) for batch in data], loss_fn)
    torch.testing.assert_close(found["fc.weight"].double(), expected["fc.weight"], rtol=1e-4, atol=1e-12)


def test_batches_that_cannot_be_divided_count_as_one():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.BatchNorm1d(8), torch.nn.Linear(8, 2))
    data = [torch.randn(6, 8) for _ in range(2)]

    def loss_fn(model, batch):
        return model(batch).square().mean()

    before = {name: value.clone() for name, value in model.state_dict().items()}
    model[0].weight.grad = torch.ones(8, 8)
    found = fisher_diagonal(model, data, loss_fn, {"0.weight", "2.weight"})
    assert model.training
    assert torch.equal(model[0].weight.grad, torch.ones(8, 8))
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())
    expected = torch.zeros(8, 8)
    for batch in data:
        model.zero_grad()
        loss_fn(model, batch).backward()
        expected += model[0].weight.grad ** 2
    torch.testing.assert_close(found["0.weight"], expected)

    def spread(model, batch):  # neither a mean nor a sum
        return model(batch).std()

    model.eval()
    found = fisher_diagonal(model, data, spread, {"0.weight", "2.weight"})
    expected = torch.zeros(8, 8)
    for batch in data:
        model.zero_grad()
        spread(model, batch).backward()
        expected += model[0].weight.grad ** 2
    torch.testing.assert_close(found["0.weight"], expected)


def test_samples_of_nested_batches():
    batch = {"x": torch.zeros(4, 2), "more": [torch.ones(4), (torch.arange(4),)], "name": "all"}
    assert samples_of(batch) == 4
    part = samples(batch, slice(1, 3))
    assert part["more"][1][0].tolist() == [1, 2]
    assert part["name"] == "all"
    assert samples_of([torch.zeros(4), torch.zeros(3)]) == 1
    assert samples_of((torch.tensor(1.0), torch.zeros(3))) == 1
    assert samples_of("text") == 1


def palettizer_of(model, samples=128, **options):
    config = {"global_config": {"n_bits": 2, **options}, "calibration_nsamples": samples}
    return SKMPalettizer(model, SKMPalettizerConfig.from_dict(config))


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_sensitivities_are_saved_and_used(tokens, tmp_path, suffix):
    path = tmp_path / f"sensitivity{suffix}"
    palettizer = palettizer_of(tokens)
    found = palettizer.compute_sensitivity(batches(), loss_of("mean"), str(path))
    saved = load_file(path) if suffix == ".safetensors" else torch.load(path)
    assert found.keys() == saved.keys() == dict(tokens.named_parameters()).keys()
    expected = one_by_one(tokens, batches(), loss_of("mean"))
    for name, value in saved.items():
        assert torch.equal(value, found[name])
        assert float(value.max()) == 1
        assert float(value.min()) >= 1e-12
    share = expected["fc.weight"] / expected["fc.weight"].max()
    share[share == 0] = share[share > 0].min()  # rows that no sample activates
    torch.testing.assert_close(saved["fc.weight"].double(), share.clamp_min(1e-12), rtol=1e-3, atol=1e-9)

    compressed = palettizer.compress(sensitivity_path=str(path), num_kmeans_workers=2)
    again = palettizer_of(tokens).compress(batches(), loss_of("mean"))
    weight = tokens.fc.weight.detach().flatten()
    importance = found["fc.weight"].flatten()
    best = kmeans1d(weight.numpy(), 4, importance.numpy()).inertia
    error = float((importance * (compressed.fc.weight.detach().flatten() - weight).square()).sum())
    assert error == pytest.approx(best, rel=1e-2)
    for name, value in compressed.named_parameters():
        assert torch.equal(value, again.get_parameter(name))
    assert len(palettizer.report()) == 4  # Conv1d is not palettized
    assert not metadata.of_module(tokens.fc)


@pytest.mark.parametrize(
    "options",
    [{"cluster_dim": 2}, {"granularity": "per_grouped_channel", "group_size": 2}, {"enable_per_channel_scale": True}],
)
def test_forms(tokens, options):
    compressed = palettizer_of(tokens, **options).compress(batches((6,)), loss_of("mean"), inplace=True)
    assert compressed is tokens
    known = metadata.of_module(tokens.fc)["weight"]
    assert known.lut.shape == {"cluster_dim": (1, 1, 4, 2)}.get(
        next(iter(options)), (3 if "group_size" in options else 1, 1, 4, 1)
    )


def test_importance_of_any_range_takes_no_longer():
    """Sensitivities span twelve powers of ten, where sums that are exact in all their digits take 500 times as long."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(32, 256, generator=generator)
    wide = torch.rand(32, 256, generator=generator).pow(8).clamp_min(1e-12)
    options = PaletteOptions(4, PaletteLayout((32, 256)))
    times = []
    for importance in (wide, torch.ones_like(wide)):
        start = time.process_time()
        values, _ = palettized(weight, options, importance, num_threads=1)
        times.append(time.process_time() - start)
        best = kmeans1d(weight.flatten().numpy(), 16, importance.clamp_min(1e-9).flatten().numpy()).inertia
        assert float((importance * (values - weight).square()).sum()) == pytest.approx(best, rel=1e-3)
    assert times[0] < 100 * times[1] + 0.1


def test_as_many_elements_as_asked_for(tokens):
    used = []

    def loss_fn(model, data):
        used.append(data[0])
        return loss_of("mean")(model, data)

    given = iter(batches((1,) * 9))
    palettizer_of(tokens, samples=3).compute_sensitivity(given, loss_fn)
    assert len(used) == 3


def test_sensitivities_of_coremltools(tokens):
    """With one sample an element, both are the same thing."""
    pytest.importorskip("coremltools")
    import coremltools.optimize.torch.palettization as peer

    data = [(ids[i : i + 1], goals[i : i + 1]) for ids, goals in batches() for i in range(len(ids))]
    ours = palettizer_of(tokens).compute_sensitivity(data, loss_of("mean"))
    other = peer.SKMPalettizer(tokens)
    theirs = other.compute_sensitivity(data, loss_of("mean"))
    other._tempdir.cleanup()
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        torch.testing.assert_close(value, theirs[name], rtol=1e-3, atol=1e-9)


def test_conversion_changes_nothing(model, batch, converted, weights_of):
    goal = torch.randn(8, 8, generator=torch.Generator().manual_seed(2))
    data = [(batch, goal)]
    compressed = palettizer_of(model, n_bits=3).compress(data, lambda m, d: (m(d[0]) - d[1]).square().mean())
    found = weights_of(converted(compressed, batch))
    for layer in (compressed.conv, compressed.fc):
        weight = layer.weight.detach().numpy()
        assert (found[weight.shape] == weight).all()


def test_what_cannot_be_computed(tokens, tmp_path, caplog):
    palettizer = palettizer_of(tokens)
    with pytest.raises(ValueError, match="no elements"):
        palettizer.compute_sensitivity([], loss_of("mean"), num_sensitivity_workers=4)
    assert "one process" in caplog.text
    with pytest.raises(ValueError, match=r"gradients of .* are not finite"):
        palettizer.compute_sensitivity(batches((1,)), lambda model, data: loss_of("mean")(model, data) * torch.inf)
    torch.save({"fc.weight": torch.ones(6, 6)}, tmp_path / "some.pt")
    with pytest.raises(ValueError, match=r"no sensitivity of embedding\.weight"):
        palettizer.compress(sensitivity_path=tmp_path / "some.pt")
    zero = palettizer.compute_sensitivity(batches((1,)), lambda model, data: loss_of("mean")(model, data) * 0)
    assert bool((zero["fc.weight"] == 1).all())
