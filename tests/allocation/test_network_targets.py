"""Targets for neural networks."""

from __future__ import annotations

import numpy as np
import pytest

from corepress import neural_network
from corepress.allocation import networks
from corepress.neural_network.schema import Model


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """32 layers of several sizes and scales, one of them with a value that is not finite."""
    message, rng = Model(specificationVersion=1), np.random.default_rng(0)
    for number in range(32):
        layer = message.neuralNetwork.layers.add(name=f"fc{number}")
        inputs, outputs = 40 + 8 * number, 64
        layer.innerProduct.inputChannels, layer.innerProduct.outputChannels = inputs, outputs
        weights = (rng.standard_t(3 + number % 5, (outputs, inputs)) * 0.1).astype("<f4")
        if number == 5:
            weights[3, 4] = np.nan
        layer.innerProduct.weights.floatValue.append(weights.tobytes())
    path = tmp_path_factory.mktemp("network") / "Net.mlmodel"
    path.write_bytes(message.SerializeToString())
    return path


@pytest.mark.parametrize(
    ("target", "options"),
    [
        ({"target_bits": 4.5}, {}),
        ({"target_size": "200kB"}, {}),
        ({"target_size": 300_000}, {"quantization_mode": "linear", "bits": [3, 4, 6, 8]}),
    ],
    ids=str,
)
def test_targets_are_reached_from_below_and_as_predicted(network, tmp_path, target, options):
    path = tmp_path / "out.mlmodel"
    report = neural_network.compress(network, path, **target, **options)
    recipe = report.predicted.recipe
    assert path.stat().st_size == report.bytes_after == recipe.bytes
    compressed = [record for record in report.weights if record.name != "fc5.weights"]
    bits = 8 * sum(record.bytes_after for record in compressed) / sum(record.size for record in compressed)
    assert bits == pytest.approx(recipe.bits_per_weight)
    ((kind, value),) = target.items()
    reached = bits if kind == "target_bits" else path.stat().st_size
    wanted = {"200kB": 200_000}.get(value, value)
    assert 0.995 * wanted <= reached <= wanted
    lost = [10 ** (-record.snr_db / 10) for record in compressed if record.snr_db is not None]
    assert recipe.snr_db == pytest.approx(-10 * np.log10(sum(lost) / len(compressed)), abs=0.02)
    assert report.predicted.gap_db < 0.2
    plan = networks.plan_network(network, **target, **options)
    assert plan.bytes_after == path.stat().st_size
    assert [each.method for each in plan.weights] == [each.method for each in report.weights]
    assert neural_network.verify(network, path)


def test_a_quality_is_reached_by_every_weight(network, tmp_path):
    report = neural_network.compress(network, tmp_path / "out.mlmodel", target_snr=24)
    assert all(record.snr_db >= 24 for record in report.weights if record.snr_db is not None)
    assert len({record.method for record in report.weights}) > 2


def test_what_is_out_of_reach_is_refused_before_errors_are_measured(network, tmp_path, monkeypatch):
    monkeypatch.setattr(networks, "palette_errors", None)
    with pytest.raises(ValueError, match=r"target_size 10kB is out of reach; .* the model can have \d\d,\d{3} to"):
        neural_network.compress(network, tmp_path / "o.mlmodel", target_size="10kB")
    (tmp_path / "there.mlmodel").write_bytes(b"")
    with pytest.raises(FileExistsError):
        neural_network.compress(network, tmp_path / "there.mlmodel", target_bits=4)
    for bits, error in (([9], ValueError), ([], ValueError), ([16], ValueError), ("4", TypeError)):
        with pytest.raises(error, match="bits must be"):
            neural_network.compress(network, tmp_path / "o.mlmodel", target_bits=4, bits=bits)


def test_selected_weights_alone_are_changed(network, tmp_path):
    selector = neural_network.WeightSelector(names=["fc1*"])
    report = neural_network.compress(network, tmp_path / "o.mlmodel", target_bits=4, selector=selector)
    changed = {record.name for record in report.weights if record.status == "compressed"}
    assert changed
    assert all(name.startswith("fc1") for name in changed)
    reasons = {record.reason for record in report.weights if record.name == "fc2.weights"}
    assert reasons == {"its name is not selected"}
