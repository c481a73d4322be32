"""Dry runs of networks: sizes and reasons are those of the run, which does not happen."""

from __future__ import annotations

import json

import numpy as np
import pytest
from network_helpers import hard_spec, network_with, new_spec

from corepress.coreml import Plan
from corepress.neural_network import WeightSelector, plan, quantize_weights, schema
from corepress.neural_network.modes import Quantization


@pytest.fixture(scope="module")
def hard(tmp_path_factory):
    path = tmp_path_factory.mktemp("plan") / "hard.mlmodel"
    path.write_bytes(hard_spec().SerializeToString())
    return path


def check(planned, report):
    assert (planned.bytes_before, planned.bytes_after) == (report.bytes_before, report.bytes_after)
    assert planned.exact
    assert (planned.compressed, planned.kept) == (report.compressed, report.kept)
    for record, done in zip(planned.weights, report.weights, strict=True):
        wanted = done.to_dict() | {"status": "keep" if done.status == "kept" else "compress", "exact": True}
        wanted["expected_snr_db"] = None  # nothing is decoded
        del wanted["snr_db"], wanted["lossless"]
        assert record.to_dict() == wanted


@pytest.mark.parametrize("mode", ["linear", "linear_symmetric", "linear_lut", "kmeans_lut"])
@pytest.mark.parametrize("nbits", [2, 3, 5, 8, 16])
def test_plans_are_exact(hard, tmp_path, nbits, mode):
    out = tmp_path / "out.mlmodel"
    report = quantize_weights(hard, nbits, mode, destination=out)
    check(plan(hard, nbits, mode), report)
    assert len({record.reason for record in report.weights}) > 4


def test_functions_are_not_called(hard, tmp_path):
    def table_and_codes(nbits, weight):
        calls.append(nbits)
        return np.zeros(2), np.zeros(weight.size)

    calls = []
    planned = plan(hard, 2, "custom_lut", lut_function=table_and_codes)
    assert not calls
    check(
        planned,
        quantize_weights(hard, 2, "custom_lut", lut_function=table_and_codes, destination=tmp_path / "o.mlmodel"),
    )


def test_selected_weights_alone_are_planned(hard, tmp_path):
    selector = WeightSelector(layer_types=["innerProduct", "gru"], weight_threshold=100)
    report = quantize_weights(hard, 6, destination=tmp_path / "out.mlmodel", selector=selector)
    check(plan(hard, 6, selector=selector), report)


def test_nothing_is_encoded_or_written(hard, monkeypatch):
    before = hard.read_bytes()
    monkeypatch.setattr(Quantization, "encode", None)
    planned = plan(hard, 4, "kmeans_lut", num_threads=1)
    assert isinstance(planned, Plan)
    assert "to compress" in str(planned)
    assert json.loads(planned.to_json())["bytes_after"] == planned.bytes_after < planned.bytes_before
    assert (hard.read_bytes(), [each.name for each in hard.parent.iterdir()]) == (before, [hard.name])


def test_specs_and_packages_are_planned(tmp_path):
    spec = network_with("convolution", "innerProduct", channels=40)
    result = quantize_weights(spec, 4)
    planned = plan(spec, 4)
    assert (planned.bytes_before, planned.bytes_after) == (spec.ByteSize(), result.ByteSize())
    package = tmp_path / "Net.mlpackage"
    (package / "Data").mkdir(parents=True)
    (package / "Data/model.mlmodel").write_bytes(spec.SerializeToString())
    item = {"path": "model.mlmodel", "name": "model.mlmodel", "author": "", "description": ""}
    manifest = {"fileFormatVersion": "1.0.0", "itemInfoEntries": {"1": item}, "rootModelIdentifier": "1"}
    (package / "Manifest.json").write_text(json.dumps(manifest))
    check(plan(package, 4), quantize_weights(package, 4, destination=tmp_path / "Net-4.mlpackage"))


def test_what_quantizing_refuses_is_refused(hard, monkeypatch):
    with pytest.raises(ValueError, match=r"plan: .* weights left unchanged: .*NaN"):
        plan(hard, 8, strict=True)
    with pytest.raises(ValueError, match="plan: quantization_mode 'dequantization' compresses nothing"):
        plan(hard, 8, "dequantization")
    with pytest.raises(ValueError, match="nbits must be 1 to 8, or 16"):
        plan(hard, 9)
    with pytest.raises(ValueError, match=r"plan: .*no neural network"):
        plan(new_spec("identity"), 8)
    monkeypatch.setattr(schema, "MESSAGE_LIMIT", 1000)
    with pytest.raises(ValueError, match="plan: the result takes"):
        plan(network_with("convolution", channels=200), 8)
