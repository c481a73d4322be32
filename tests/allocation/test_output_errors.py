"""Allocation by what calibration measured: errors of the outputs, and the check on samples that were kept."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
import pytest
from coreml_helpers import digest

from corepress import Config, coreml
from corepress.allocation.errors import OutputErrors
from corepress.config.candidates import DEFAULT_CANDIDATES, candidate_key
from corepress.demo.program import ProgramBuilder
from corepress.engine.decisions import UNCALIBRATED
from corepress.specs import Palettize

KEYS = {step.nbits: candidate_key((step,)) for (step,) in DEFAULT_CANDIDATES}


@dataclass
class Known:
    """Statistics of a weight."""

    shape: tuple[int, ...]
    means: dict[str, float]
    reached: bool = True
    hessian = None
    view = None

    @property
    def sensitivities(self):
        return {key: SimpleNamespace(mean=mean) for key, mean in self.means.items()}


@dataclass
class Fake:
    """Statistics of a model."""

    weights: dict[str, Known]
    kept: list = field(default_factory=list)
    function_name: str | None = None

    @property
    def candidates(self):
        return tuple(KEYS.values())


def option(nbits, weight=None):
    steps = () if nbits is None else (Palettize(nbits=nbits),)
    return SimpleNamespace(steps=steps, key=candidate_key(steps))


@pytest.fixture
def free():
    return SimpleNamespace(key="w", weight=SimpleNamespace(shape=(8, 8), name="w", axes={0}, names=("w",)))


def test_measured_candidates_have_the_error_that_was_measured(free):
    model = OutputErrors(Fake({"w": Known((8, 8), {KEYS[2]: 0.5, KEYS[4]: 0.25})}))
    options = [option(2), option(4), option(None)]
    assert model.errors(free, options, (0.1, 0.01, 0.0), np.zeros((8, 8)), 1) == (0.5, 0.25, 0.0)


def test_others_are_scaled_from_the_one_that_loses_nearly_as_much(free):
    model = OutputErrors(Fake({"w": Known((8, 8), {KEYS[2]: 0.5, KEYS[8]: 1e-5})}))
    stored = np.random.default_rng(0).standard_normal((8, 8)).astype(np.float16)
    found = model.errors(free, [option(2), option(3), option(8)], (0.1, 0.02, 1e-6), stored, 1)
    assert found == (0.5, pytest.approx(0.5 * 0.02 / 0.1), 1e-5)


def test_measured_candidates_that_are_not_offered_are_references_too(free):
    model = OutputErrors(Fake({"w": Known((8, 8), {KEYS[2]: 0.5})}))
    stored = np.random.default_rng(0).standard_normal((8, 8)).astype(np.float16)
    (error,) = model.errors(free, [option(3)], (0.02,), stored, 1)
    assert 0.5 * 0.02 / 0.2 < error < 0.5 * 0.02 / 0.05


def test_nothing_is_known_of_weights_that_no_sample_reached(free):
    for known in ({}, {"w": Known((8, 8), {KEYS[2]: 0.0}, reached=False)}, {"w": Known((4, 8), {KEYS[2]: 0.5})}):
        assert OutputErrors(Fake(known)).errors(free, [option(2)], (0.1,), np.zeros((8, 8)), 1) is None


@pytest.fixture
def branches(tmp_path):
    """Two weights of one size, of which the second hardly matters; both lose the same when compressed."""
    path = tmp_path / "branches.mlpackage"
    rng = np.random.default_rng(0)
    first, second = (rng.standard_normal((64, 64)).astype(np.float16) / np.float16(8) for _ in range(2))
    with ProgramBuilder(path, 9, "two branches") as program:
        x = program.input("x", (1, 64))
        important = program("linear", x=x, weight=program.const("important", first), name="one")
        other = program("linear", x=x, weight=program.const("unimportant", second), name="two")
        little = program("mul", x=other, y=np.float16(0.01), name="little")
        program.output(program("add", x=important, y=little, name="sum"))
    return path


def samples(count, seed=0):
    rng = np.random.default_rng(seed)
    return [{"x": rng.standard_normal((1, 64)).astype(np.float32), "label": np.int64(1)} for _ in range(count)]


@pytest.fixture
def statistics(branches):
    pytest.importorskip("torch")
    return coreml.calibrate(branches, samples(128))


def output_snr(package, compressed, inputs):
    (output,) = coreml.compare(package, compressed, inputs=inputs, precision="float32").outputs
    return output.snr_db


def test_bits_go_where_the_outputs_need_them(branches, statistics, tmp_path):
    found = coreml.allocate(branches, target_bits=5.6, calibration=statistics)
    bits = {weight.name: weight.bits_per_weight for weight in found.weights}
    assert bits["important"] > bits["unimportant"] + 2
    assert found.predicted.measure == "outputs"
    assert found.config.calibrated
    coreml.compress(branches, tmp_path / "by-outputs.mlpackage", found, calibration=statistics)
    coreml.compress(branches, tmp_path / "by-weights.mlpackage", target_bits=5.6)
    packages = [tmp_path / f"by-{name}.mlpackage" for name in ("outputs", "weights")]
    by_outputs, by_weights = (output_snr(branches, package, samples(32, 1)) for package in packages)
    assert by_outputs > by_weights + 5
    on_kept = output_snr(branches, packages[0], statistics.kept)
    assert found.predicted.recipe.measured_snr_db == pytest.approx(on_kept, abs=1e-3)
    assert found.predicted.recipe.snr_db == pytest.approx(on_kept, abs=2.5)


def test_both_recipes_are_run_on_what_was_kept(branches, statistics):
    found = coreml.allocate(branches, target_bits=4.6, calibration=statistics)
    recipe, uniform = found.predicted.recipe, found.predicted.uniform
    assert uniform.measured_snr_db is not None
    assert recipe.measured_snr_db >= uniform.measured_snr_db
    unchecked = coreml.allocate(branches, target_bits=4.6, calibration=statistics, check=False)
    assert unchecked.predicted.recipe.measured_snr_db is None


def test_weights_that_were_made_for_the_check_are_not_made_again(branches, statistics, tmp_path, monkeypatch, capsys):
    from corepress.allocation import check
    from corepress.cli.main import main
    from corepress.engine import steps

    made = {"to try": 0, "to write": 0}

    def counting(module, name, what):
        function = getattr(module, name)

        def counted(*arguments):
            made[what] += 1
            return function(*arguments)

        monkeypatch.setattr(module, name, counted)

    counting(check, "made", "to try")
    counting(steps, "compress_stored", "to write")
    statistics.save(tmp_path / "s.calibration")
    out = tmp_path / "shell.mlpackage"
    arguments = ["compress", str(branches), "-o", str(out), "--target-bits", "4.6"]
    arguments += ["--calibration", str(tmp_path / "s.calibration"), "--quiet"]
    assert main(arguments) == 0
    assert made == {"to try": 2, "to write": 0}
    coreml.compress(branches, tmp_path / "python.mlpackage", target_bits=4.6, calibration=statistics)
    assert made == {"to try": 4, "to write": 0}
    assert coreml.verify(branches, out).ok
    assert digest(out) == digest(tmp_path / "python.mlpackage")
    assert main([*arguments, "--overwrite", "--dampening", "0.1"]) == 0
    assert made["to write"] == 2
    capsys.readouterr()


def test_uniform_bits_are_kept_where_they_are_better_on_samples(branches, statistics, monkeypatch):
    from corepress.allocation import trial
    from corepress.allocation.check import Checked

    def check(src, opened, statistics, free, recipes, threads):
        uniform = [len({option.key for option in options}) == 1 for options in recipes]
        return Checked(tuple(30.0 if each else 20.0 for each in uniform), 1)

    monkeypatch.setattr(trial, "check", check)
    found = coreml.allocate(branches, target_bits=4.9, calibration=statistics)
    assert found.predicted.is_uniform
    assert {weight.method for weight in found.weights} == {"palettize 4 bits"}
    assert found.predicted.recipe.measured_snr_db == 30


def test_a_quality_of_the_outputs_is_reached_on_what_was_kept(branches, statistics, tmp_path):
    found = coreml.allocate(branches, target_snr=25, calibration=statistics)
    assert found.predicted.recipe.measured_snr_db >= 25
    by_weights = coreml.allocate(branches, target_snr=25)
    assert found.predicted.recipe.bytes < by_weights.predicted.recipe.bytes
    with pytest.raises(ValueError, match=r"target_snr 90 dB is out of reach; .* the outputs have at most"):
        coreml.allocate(branches, target_snr=90, calibration=statistics, candidates=[4, 8])


def test_statistics_can_be_a_path_and_must_be_of_this_model(branches, statistics, layers, tmp_path):
    statistics.save(tmp_path / "s.calibration")
    found = coreml.allocate(branches, target_bits=5, calibration=tmp_path / "s.calibration")
    assert found.config == coreml.allocate(branches, target_bits=5, calibration=statistics).config
    other = layers({"important": np.ones((64, 64), np.float16), "unimportant": np.ones((64, 64), np.float16)})
    with pytest.raises(ValueError, match=r"of another model .*'important'"):
        coreml.allocate(other, target_bits=5, calibration=statistics)


def test_a_recipe_remembers_that_it_was_found_with_calibration(branches, statistics, tmp_path):
    found = coreml.allocate(branches, target_bits=5, calibration=statistics)
    again = Config.from_yaml(found.to_yaml())
    assert again == found.config
    assert again.calibrated
    assert "calibrated: true" in found.to_yaml()
    report = coreml.compress(branches, tmp_path / "out.mlpackage", again)
    assert UNCALIBRATED in report.notes
    assert UNCALIBRATED not in coreml.plan(branches, again, calibration=statistics).notes


def test_without_samples_that_were_kept_nothing_is_run(branches):
    pytest.importorskip("torch")
    statistics = coreml.calibrate(branches, samples(3))
    found = coreml.allocate(branches, target_bits=5, calibration=statistics)
    assert any("no samples were kept" in note for note in found.notes)
    assert found.predicted.recipe.measured_snr_db is None
    without = coreml.calibrate(branches, samples(3), candidates=None)
    found = coreml.allocate(branches, target_bits=5, calibration=without)
    assert any("no sensitivities" in note for note in found.notes)
    assert found.predicted.measure == "weights"


def test_weights_that_no_sample_reached_are_as_sensitive_as_the_others(branches, statistics):
    statistics.weights["unimportant"].sensitivities.clear()
    found = coreml.allocate(branches, target_bits=4.6, calibration=statistics, check=False)
    errors = {weight.name: weight.error for weight in found.weights}
    assert all(math.isfinite(error) for error in errors.values())
    assert errors["unimportant"] > 0
