"""Targets for packages: reached from below, in bytes of the finished package, and as predicted."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from corepress import Config, coreml
from corepress.config.candidates import DEFAULT_CANDIDATES
from corepress.coreml import opened


def stored_bits(report, names):
    """Bits per weight of some weights, by the report."""
    records = [record for record in report.weights if record.name in names]
    return 8 * sum(record.bytes_after for record in records) / sum(record.size for record in records)


def half(shape, seed=0, scale=0.05):
    return (np.random.default_rng(seed).standard_normal(shape) * scale).astype(np.float16)


@pytest.mark.parametrize(
    ("target", "candidates"),
    [
        ({"target_bits": 3.5}, None),
        ({"target_bits": 4.2}, "gpu"),
        ({"target_bits": 5}, [4, 6, 8]),
        ({"target_size": "5MB"}, None),
        ({"target_size": 4_000_000}, "sparse"),
        ({"target_size": "10MiB"}, [{"quantize": {"dtype": "int4"}}, {"quantize": {}}, None]),
    ],
    ids=str,
)
def test_targets_are_reached_from_below_and_as_predicted(unet, tmp_path, size_of, target, candidates):
    found = coreml.allocate(unet, **target, candidates=candidates)
    report = coreml.compress(unet, tmp_path / "out.mlpackage", found)
    size, names = size_of(tmp_path / "out.mlpackage"), {weight.name for weight in found.weights}
    assert size == report.bytes_after == found.predicted.recipe.bytes
    bits = stored_bits(report, names)
    assert bits == pytest.approx(found.predicted.recipe.bits_per_weight, rel=1e-12)
    ((kind, value),) = target.items()
    if kind == "target_bits":
        assert 0.995 * value <= bits <= value
    else:
        asked = {"5MB": 5_000_000, "10MiB": 10 * 2**20}.get(value, value)
        assert 0.995 * asked <= size <= asked
    records = {record.name: record for record in report.weights}
    lost = 0.0
    for weight in found.weights:
        record = records[weight.name]
        assert (record.method or "unchanged") == weight.method
        assert record.bytes_after == weight.bytes
        if record.snr_db is not None:
            assert record.snr_db == pytest.approx(weight.snr_db, abs=1e-6)
            lost += 10 ** (-record.snr_db / 10)
    assert found.predicted.recipe.snr_db == pytest.approx(-10 * math.log10(lost / len(names)), abs=1e-6)
    # Without data a mixture of nearly the same size must be 1 dB better than uniform steps.
    assert found.predicted.gap_db < (1 if found.predicted.is_uniform else 0.1 if candidates is None else 0.2)
    uniform = found.predicted.uniform
    assert uniform is None or found.predicted.is_uniform or uniform.snr_db < found.predicted.recipe.snr_db
    assert report.predicted == found.predicted
    assert coreml.Report.from_json(report.to_json()) == report


def test_a_quality_is_reached_by_every_weight_with_the_fewest_bytes(unet, tmp_path):
    report = coreml.compress(unet, tmp_path / "out.mlpackage", target_snr=17)
    assert report.predicted.target == "target_snr 17 dB"
    for record in report.weights:
        if record.status == "compressed":
            assert record.snr_db >= 17
    found = coreml.allocate(unet, target_snr=17)
    fewer = coreml.plan(unet, {"palettize": {"nbits": 4}})
    smaller = {record.name: record.bytes_after for record in fewer.weights}
    lower = coreml.compress(unet, tmp_path / "4.mlpackage", {"palettize": {"nbits": 4}})
    reached = {record.name for record in lower.weights if (record.snr_db or 0) >= 17}
    assert reached
    assert all(weight.bytes <= smaller[weight.name] for weight in found.weights if weight.name in reached)


def test_what_was_found_is_a_config_in_python_and_in_files(unet, tmp_path):
    found = coreml.allocate(unet, target_bits=4)
    assert Config.from_yaml(found.to_yaml()) == found.config
    for name in ("found.yaml", "found.json"):
        found.save(tmp_path / name)
        assert Config.load(tmp_path / name) == found.config
        plan = coreml.plan(unet, tmp_path / name)
        assert plan.bytes_after == found.predicted.recipe.bytes
    assert coreml.plan(unet, found).bytes_after == found.predicted.recipe.bytes
    assert coreml.plan(unet, target_bits=4).predicted.recipe == found.predicted.recipe
    with pytest.raises(ValueError, match="must end in"):
        found.save(tmp_path / "found.txt")
    with pytest.raises(ValueError, match="no weight that no rule of the config matches can be compressed"):
        coreml.allocate(unet, target_bits=4, config=found)


def test_rules_are_for_what_they_match(unet, tmp_path):
    rules = {
        "op_types": {"conv": {"quantize": {}}},
        "weights": {"*time_emb*": None, "conv_in_weight": {"palettize": {"nbits": 2}}},
    }
    found = coreml.allocate(unet, target_bits=7, config=rules)
    assert not any("time_emb" in weight.name or "conv_in" in weight.name for weight in found.weights)
    report = coreml.compress(unet, tmp_path / "out.mlpackage", rules, target_bits=7)
    methods = {record.name: record.method for record in report.weights}
    assert methods["conv_in_weight"] == "palettize 2 bits"
    assert {methods[name] for name in methods if "time_emb" in name} == {None}
    compressed = {
        record.name for record in report.weights if record.status == "compressed" and "time_emb" not in record.name
    }
    assert stored_bits(report, compressed) == pytest.approx(found.predicted.recipe.bits_per_weight)
    assert 6.97 < stored_bits(report, compressed) <= 7


def test_sparse_rules_count_as_they_become(unet, tmp_path, size_of):
    rules = {"op_types": {"conv": {"prune": {"target_sparsity": 0.5}}}}
    report = coreml.compress(unet, tmp_path / "out.mlpackage", rules, target_size="13MB")
    assert 0.995 * 13e6 <= size_of(tmp_path / "out.mlpackage") == report.predicted.recipe.bytes <= 13e6


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ({"target_size": 1000}, r"target_size 1000 is out of reach; .* 3,4\d\d,\d\d\d to 25,\d\d\d,\d\d\d bytes"),
        ({"target_size": "26MB"}, "target_size 26MB is out of reach"),
        (
            {"target_bits": 1.5},
            r"target_bits 1.5 is out of reach; .* its weights can have 2.000 to 16.000 bits",
        ),
        ({"target_bits": 9, "candidates": [2, 8]}, r"2.000 to 8.032 bits"),
    ],
)
def test_what_is_out_of_reach_is_refused_before_weights_are_read(unet, tmp_path, monkeypatch, target, message):
    def never(*arguments, **options):
        raise AssertionError("weights were read")

    monkeypatch.setattr(opened, "stored_values", never)
    for call in (
        lambda: coreml.allocate(unet, **target),
        lambda: coreml.compress(unet, tmp_path / "o.mlpackage", **target),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    assert not (tmp_path / "o.mlpackage").exists()


def test_the_destination_is_checked_before_weights_are_read(unet, tmp_path, monkeypatch):
    (tmp_path / "o.mlpackage").mkdir()
    monkeypatch.setattr(opened, "stored_values", None)
    with pytest.raises(FileExistsError):
        coreml.compress(unet, tmp_path / "o.mlpackage", target_bits=4)


def test_a_quality_out_of_reach_says_what_is_possible(unet):
    with pytest.raises(ValueError, match=r"target_snr 80 dB is out of reach; .* has at most \d\d.\d dB; None among"):
        coreml.allocate(unet, target_snr=80, candidates=[4, 6, 8])


def test_wrong_calls(unet, tmp_path):
    with pytest.raises(ValueError, match="exactly one of target_size, target_bits, target_snr, not none"):
        coreml.allocate(unet)
    with pytest.raises(ValueError, match="compress: give a config, or one of target_size"):
        coreml.compress(unet, tmp_path / "o.mlpackage")
    with pytest.raises(ValueError, match="plan: candidates are for a target"):
        coreml.plan(unet, {"palettize": {"nbits": 4}}, candidates=[4])
    with pytest.raises(ValueError, match=r"the config has steps for all weights \(palettize 4 bits\)"):
        coreml.allocate(unet, target_bits=4, config={"palettize": {"nbits": 4}})
    with pytest.raises(ValueError, match="nothing to choose"):
        coreml.allocate(unet, target_bits=4, weight_threshold=10**9)
    with pytest.raises(TypeError, match="calibration must be what calibrate returned"):
        coreml.allocate(unet, target_bits=4, calibration=3)


def test_uniform_bits_are_chosen_where_they_are_best(layers):
    package = layers({"only_weight": half((64, 128))})
    found = coreml.allocate(package, target_bits=4.5)
    assert found.predicted.is_uniform
    assert found.config.weights[0].config.description == "palettize 4 bits"
    assert found.predicted.uniform.description == "palettize 4 bits"
    assert found.predicted.beyond.description == "palettize 6 bits"
    assert "uniform is what you get" in str(found)


def test_a_mixture_must_be_better_even_if_what_loses_most_by_it_matters_more():
    from corepress.allocation.units import Units

    class Known(Units):
        def __init__(self, losses):
            self._losses = [{option: (error, error) for option, error in each.items()} for each in losses]

    units = Known([{"few": 0.03, "same": 0.01}, *[{"many": 0.001, "same": 0.01}] * 4])
    mixture, uniform = ("few", *["many"] * 4), ("same",) * 5
    assert units.error(mixture) < units.error(uniform) / 10**0.1
    assert units.is_surely_better(mixture, uniform, 1)
    assert not units.is_surely_better(mixture, uniform, 4)  # 0.124 and 0.08
    assert not units.is_surely_better(uniform, uniform, 4)


def test_a_mixture_that_is_not_surely_better_is_not_chosen(unet, monkeypatch):
    from corepress.allocation import search

    size = coreml.plan(unet, {"palettize": {"nbits": 4}}).bytes_after
    monkeypatch.setattr(search, "LEAST_GAIN", 1.0)
    monkeypatch.setattr(search, "MORE_SENSITIVE", 1.0)
    trusting = coreml.allocate(unet, target_size=size).predicted
    monkeypatch.setattr(search, "MORE_SENSITIVE", 1e6)
    careful = coreml.allocate(unet, target_size=size).predicted
    assert (trusting.is_uniform, careful.is_uniform) == (False, True)
    assert careful.recipe.bytes == careful.uniform.bytes <= size


def test_the_dual_gap_is_printed(unet):
    text = str(coreml.allocate(unet, target_bits=3.5))
    assert "dB above the dual bound" in text
    assert "uniform" in text
    assert "palettize 3 bits" in text


def test_weights_that_are_not_finite_are_left_unchanged_and_do_not_count(layers, tmp_path, size_of):
    weights = {f"layer_{number}_weight": half((64, 64), number) for number in range(5)}
    weights["layer_2_weight"][1, 1] = np.nan
    package = layers(weights)
    found = coreml.allocate(package, target_bits=4.6)
    assert any("not finite" in note and "layer_2_weight" in note for note in found.notes)
    report = coreml.compress(package, tmp_path / "out.mlpackage", found)
    finite = set(weights) - {"layer_2_weight"}
    assert stored_bits(report, finite) == found.predicted.recipe.bits_per_weight <= 4.6
    assert size_of(tmp_path / "out.mlpackage") == found.predicted.recipe.bytes


def test_candidates_that_an_old_package_cannot_express_are_left_out(layers):
    package = layers({"a_weight": half((64, 64)), "b_weight": half((64, 64), 1)}, version=8)
    found = coreml.allocate(package, target_bits=5)
    assert any("not among the candidates: palettize 3 bits" in note for note in found.notes)
    with pytest.raises(ValueError, match="nbits 3 needs specification version 9"):
        coreml.allocate(package, target_bits=5, candidates=[3, 4, 6])


def test_single_precision_weights(layers, tmp_path, size_of):
    weights = {f"layer_{number}_weight": half((64, 64), number).astype(np.float32) for number in range(6)}
    package = layers(weights)
    report = coreml.compress(package, tmp_path / "out.mlpackage", target_size=20_000)
    assert size_of(tmp_path / "out.mlpackage") == report.predicted.recipe.bytes <= 20_000


def test_names_with_special_characters_are_matched_exactly(layers):
    weights = {"a[1]*weight": half((64, 64)), "a1xweight": half((64, 64), 1, scale=5), "re:b": half((64, 64), 2)}
    found = coreml.allocate(layers(weights), target_bits=5.5)
    plan = coreml.plan(layers(weights, name="again"), found)
    methods = {record.name: record.method for record in plan.weights}
    assert methods == {weight.name: weight.method for weight in found.weights}


def test_the_number_of_threads_changes_nothing(unet):
    one, three = (coreml.allocate(unet, target_bits=3.7, num_threads=threads) for threads in (1, 3))
    assert one.config == three.config
    assert one.weights == three.weights
    assert dataclasses.replace(one.predicted, seconds=0, sweep_seconds=0) == dataclasses.replace(
        three.predicted, seconds=0, sweep_seconds=0
    )


def test_progress_is_that_of_one_pass(unet):
    seen = []
    found = coreml.allocate(unet, target_bits=4, progress=seen.append)
    assert (seen[0].name, seen[0].done_weights) == ("", 0)
    assert [each.name for each in seen[1:]] == [weight.name for weight in found.weights]
    assert seen[-1].done_weights == seen[-1].total_weights == sum(math.prod(each.shape) for each in found.weights)


def test_compressed_weights_can_be_compressed_further(unet, tmp_path, size_of):
    coreml.compress(unet, tmp_path / "8.mlpackage", {"quantize": {}})
    with pytest.raises(ValueError, match="nothing to choose"):
        coreml.allocate(tmp_path / "8.mlpackage", target_bits=4)
    report = coreml.compress(
        tmp_path / "8.mlpackage",
        tmp_path / "4.mlpackage",
        target_bits=4.5,
        candidates=[2, 4, 6],
        joint_compression=True,
    )
    assert report.predicted.recipe.bits_per_weight <= 4.5
    assert size_of(tmp_path / "4.mlpackage") == report.predicted.recipe.bytes


def test_a_target_has_its_own_candidates(unet):
    found = coreml.allocate(unet, target_bits=4.5, target="gpu")
    assert all("quantize" in weight.method or weight.method == "unchanged" for weight in found.weights)
    assert found.config.target == "gpu"
    assert coreml.plan(unet, found).warnings == ()


def test_default_candidates_are_those_that_calibration_measures():
    assert [step.nbits for (step,) in DEFAULT_CANDIDATES] == [2, 3, 4, 6, 8]
