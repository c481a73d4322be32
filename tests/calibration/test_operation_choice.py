"""`coreml.quantize_activations(operations="auto")`: what harms the outputs most is left out."""

from __future__ import annotations

import json

import numpy as np
import pytest
from coreml_helpers import model_file

from corepress import coreml
from corepress.calibration import operation_choice
from corepress.calibration.operation_choice import _give_up, _Group
from corepress.cli.main import main

pytest.importorskip("torch")
pytest.importorskip("coremltools")

WIDTH = 24
INPUTS = {"x": ((1, 4, WIDTH), "float32")}


@pytest.fixture
def samples(rng):
    return [{"x": rng.standard_normal((1, 4, WIDTH)).astype(np.float32)} for _ in range(16)]


@pytest.fixture
def weights(rng):
    return [(rng.standard_normal((WIDTH, WIDTH)) / WIDTH**0.5).astype(np.float32) for _ in range(3)]


@pytest.fixture
def with_outliers(save, mb, weights):
    """The result of `wide` and the input of `late` have one feature that is a thousand times as large as the others."""
    large, small = np.ones(WIDTH, np.float32), np.ones(WIDTH, np.float32)
    large[3], small[3] = 1000, 1e-3

    def body(x):
        y = mb.linear(x=x, weight=weights[0], name="first")
        y = mb.linear(x=mb.tanh(x=y), weight=weights[1] * large[:, None], name="wide")
        late = mb.linear(x=mb.mul(x=y, y=np.float32(1)), weight=weights[2] * small, name="late")
        return mb.add(x=mb.mul(x=y, y=small), y=mb.mul(x=late, y=np.float32(0.5)), name="y")

    return save(body, inputs=INPUTS, version=8)


def quantize(path, samples, name="out", **options):
    out = path.with_name(f"{name}.mlpackage")
    return coreml.quantize_activations(path, out, samples=samples, overwrite=True, **options), out


def snr_db(path, out, samples):
    return min(each.snr_db for each in coreml.compare(path, out, inputs=samples, precision="float32").outputs)


def test_operations_with_outliers_are_left_out(with_outliers, samples):
    _, plain = quantize(with_outliers, samples, "plain", weights=None)
    report, out = quantize(with_outliers, samples, operations="auto", weights=None)
    found = {each.name: each for each in report.activations}
    assert found["first"].status == "quantized"
    assert found["wide"].inputs
    assert (found["wide"].output, found["wide"].result_reason) == (None, "its result is too harmful to the outputs")
    assert (found["late"].status, found["late"].reason) == ("kept", "too harmful to the outputs")
    assert found["late"].snr_db < 20 < found["first"].snr_db
    assert snr_db(with_outliers, plain, samples) < 10
    assert snr_db(with_outliers, out, samples[3::4]) > 20
    assert "operations are left out" in report.notes[0]
    assert "result not: its result is too harmful" in str(report)
    assert coreml.Report.from_json(report.to_json()) == report
    assert coreml.verify(with_outliers, out).ok


def test_more_is_left_out_for_a_higher_ratio(with_outliers, samples):
    counts, ratios = [], []
    for target in (15, 30, 40):
        report, out = quantize(with_outliers, samples, operations="auto", target_snr=target, weights=None)
        counts.append(sum(len(each.inputs) + (each.output is not None) for each in report.activations))
        ratios.append(snr_db(with_outliers, out, samples[3::4]))
        assert ratios[-1] >= target
    assert counts == sorted(counts, reverse=True)
    assert counts[0] > counts[-1]
    with pytest.raises(ValueError, match=r"target_snr 300 dB is out of reach; .* leaves \d+\.\d dB alone"):
        quantize(with_outliers, samples, operations="auto", target_snr=300)


def test_nothing_is_left_out_or_measured_where_all_is_well(save, mb, weights, samples, monkeypatch):
    path = save(lambda x: mb.linear(x=x, weight=weights[0], name="y"), inputs=INPUTS, version=8)
    monkeypatch.setattr(operation_choice.OperationSearch, "_groups", None)
    report, out = quantize(path, samples, operations="auto")
    _, plain = quantize(path, samples, "plain")  # in the end ranges are those of all
    assert model_file(out).read_bytes() == model_file(plain).read_bytes()
    assert "all operations that can be are quantized" in report.notes[0]


def test_types_and_rules_beside_auto(with_outliers, samples):
    report, _ = quantize(with_outliers, samples, operations=["auto", "linear"], weights=None)
    assert {each.reason for each in report.activations if each.type == "add"} == {"not among the operations"}
    rules = {"op_names": {"first": None, "late": {"result": False}}}
    report, _ = quantize(with_outliers, samples, operations="auto", config=rules, weights=None)
    assert next(each for each in report.activations if each.name == "first").reason == "left out by the config"


def test_results_can_be_left_out_by_a_config(with_outliers, samples):
    report, _ = quantize(with_outliers, samples, config={"op_names": {"wide": {"result": False}}}, weights=None)
    wide = next(each for each in report.activations if each.name == "wide")
    assert (wide.status, wide.output, wide.result_reason) == ("quantized", None, "left out by the config")
    with pytest.raises(ValueError, match="result is 1, but must be True or False"):
        quantize(with_outliers, samples, config={"op_names": {"wide": {"result": 1}}})


def test_samples_for_ranges_have_no_part_in_the_choice(with_outliers, samples, monkeypatch):
    judged = []

    class Recording(operation_choice.OperationSearch):
        def __init__(self, *arguments):
            judged.append(arguments[-1])
            super().__init__(*arguments)

    monkeypatch.setattr(operation_choice, "OperationSearch", Recording)
    quantize(with_outliers, samples, operations="auto", weights=None)
    statistics = coreml.calibrate(with_outliers, samples, candidates=None, weight_threshold=0)
    out = with_outliers.with_name("from_file.mlpackage")
    coreml.quantize_activations(with_outliers, out, calibration=statistics, operations="auto", weights=None)
    for some in judged:
        assert [each["x"].tobytes() for each in some] == [each["x"].tobytes() for each in samples[3::4]]
    assert len(judged) == 2


def test_few_runs_for_many_operations(save, mb, weights, samples, monkeypatch):
    """Beyond the limit neighbours are judged together, on one sample."""

    def body(x):
        for number in range(9):
            x = mb.tanh(x=mb.linear(x=x, weight=weights[number % 3], name=f"layer{number}"), name=f"bend{number}")
        return x

    path = save(body, inputs=INPUTS, version=8)
    monkeypatch.setattr(operation_choice, "_MOST_RUNS", 3)
    runs = []
    alone = operation_choice.OperationSearch._alone

    def counted(self, names, state, count):
        runs.append((names, count))
        return alone(self, names, state, count)

    monkeypatch.setattr(operation_choice.OperationSearch, "_alone", counted)
    report, _ = quantize(path, samples, operations="auto", target_snr=36)
    assert {(len(names), count) for names, count in runs} == {(3, 1)}
    assert len(runs) <= 6
    assert 0 < report.quantized_operations < 9


def test_what_takes_away_most_for_its_price_is_given_up_first():
    cheap, dear = _Group(("sum",), 1.0, False, [0, 0.5, 0.5]), _Group(("conv",), 16.0, True, [0, 0.1, 0.9])
    groups = [cheap, dear]
    _give_up(groups, 1.4)
    assert [each.state for each in groups] == [2, 2]
    _give_up(groups, 1.0)
    assert [each.state for each in groups] == [2, 1]
    _give_up(groups, 0.2)
    assert [each.state for each in groups] == [0, 1]
    _give_up(groups, 0.0)
    assert [each.state for each in groups] == [0, 0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target_snr": 20}, 'target_snr is for operations="auto"'),
        ({"target_snr": float("nan"), "operations": "auto"}, "target_snr is nan"),
        ({"operations": "auto,relu"}, "operation 'relu' cannot be quantized"),
        ({"operations": "auto", "config": {"global": None}}, "no operation of function main can be quantized"),
    ],
)
def test_wrong_arguments(options, message, with_outliers, samples):
    with pytest.raises(ValueError, match=message):
        quantize(with_outliers, samples, **options)
    assert not with_outliers.with_name("out.mlpackage").exists()


def test_shell(with_outliers, samples, capsys, tmp_path):
    np.savez(tmp_path / "samples.npz", x=np.concatenate([each["x"] for each in samples]))
    out = tmp_path / "shell.mlpackage"
    arguments = ["quantize", str(with_outliers), "-o", str(out), "--activations", "int8", "--overwrite"]
    arguments += ["--inputs", str(tmp_path / "samples.npz")]
    given = ["--operations", "auto", "--activation-snr", "25"]
    assert main([*arguments, *given, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {each["status"] for each in found["activations"]} == {"quantized", "kept"}
    _, expected = quantize(with_outliers, samples, operations="auto", target_snr=25)
    assert model_file(out).read_bytes() == model_file(expected).read_bytes()
    assert main([*arguments, *given]) == 0
    assert "too harmful to the outputs" in capsys.readouterr().out
    assert main([*arguments, "--activation-snr", "25"]) == 2
    assert "--activation-snr is for --operations auto" in capsys.readouterr().err
