"""`corepress demo`, once as a user runs it, and its dealings with folders."""

from __future__ import annotations

import json
import signal

import numpy
import pytest
from coreml_helpers import constants, operations_of, quiet, read_spec, weight_file

from corepress import coreml
from corepress.demo import run as demo_run
from corepress.demo.variants import VARIANTS, Original
from corepress.interrupts import interrupts_after


@pytest.fixture(scope="session")
def results(demo):
    return json.loads((demo.directory / "results.json").read_text())


def test_it_succeeds_and_leaves_what_it_says(demo):
    assert (demo.outcome.status, demo.outcome.err) == (0, "")
    names = {path.name for path in demo.directory.iterdir()}
    assert names == set(demo_run.OUTPUTS)
    assert "\x1b" not in demo.outcome.out
    assert max(map(len, demo.outcome.out.splitlines())) <= 100
    for text in ("Try next", "quality-vs-size.png", *(variant.label for variant in VARIANTS)):
        assert text in demo.outcome.out


def test_plot_is_a_png(demo):
    assert (demo.directory / "quality-vs-size.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


def test_the_model_has_the_size_it_promises(results):
    assert 8e6 < results["original"]["weights"] < 14e6


def test_results_are_what_the_encodings_must_give(results):
    by_label = {result["label"]: result for result in results["results"]}
    assert list(by_label) == [variant.label for variant in VARIANTS]
    for label, bits in {"8 bits": 8, "6 bits": 6, "4 bits": 4, "2 bits": 2, "int8 per channel": 8}.items():
        assert bits <= by_label[label]["bits_per_weight"] < bits + 0.35
        assert by_label[label]["ratio"] == pytest.approx(16 / by_label[label]["bits_per_weight"], rel=0.1)
    snr = {label: result["snr_db"] for label, result in by_label.items()}
    assert snr["8 bits"] > snr["6 bits"] > snr["4 bits, groups of 16"] > snr["4 bits"] > snr["2 bits"] > 5
    assert all(result["worst_snr_db"] <= result["snr_db"] for result in by_label.values())


def test_overall_snr_is_the_packages(demo, results):
    """Against the packages themselves, as coremltools-free arrays: the sum over weights of signal and error."""
    dense = demo.directory.parent / "dense.mlpackage"
    coreml.decompress(demo.directory / "UNet-4bit.mlpackage", dense)
    original = load_weights(demo.directory / "UNet.mlpackage")
    restored = load_weights(dense)
    assert original.keys() == restored.keys()
    changed = [name for name in original if not numpy.array_equal(original[name], restored[name])]
    signal = sum(numpy.square(original[name], dtype=numpy.float64).sum() for name in changed)
    noise = sum(((original[name].astype(numpy.float64) - restored[name]) ** 2).sum() for name in changed)
    (expected,) = [result["snr_db"] for result in results["results"] if result["label"] == "4 bits"]
    assert 10 * numpy.log10(signal / noise) == pytest.approx(expected, abs=1e-6)


def load_program(package):
    """The program of a package as coremltools reads it, which finds the type of every result anew."""
    with quiet():
        load = pytest.importorskip("coremltools.converters.mil.frontend.milproto.load")
        spec = read_spec(package)
        return load.load(spec, spec.specificationVersion, str(weight_file(package).parent)).functions["main"]


def load_weights(package):
    """Every float16 constant of a package that lies in its weight file, by name, read by coremltools."""
    constants = {operation.name: operation.outputs[0].val for operation in load_program(package).operations}
    return {
        name: value
        for name, value in constants.items()
        if getattr(value, "dtype", None) == "float16" and value.size > 9
    }


def test_the_source_is_a_program_to_coremltools(demo):
    """Of the operations, names and types that are written down in it, and the inputs and outputs described."""
    package = demo.directory / demo_run.ORIGINAL
    program, spec = load_program(package), read_spec(package)
    found = {result.name: result.shape for operation in program.operations for result in operation.outputs}
    written = {
        result.name: tuple(each.constant.size for each in result.type.tensorType.dimensions)
        for operation in operations_of(spec)
        for result in operation.outputs
    }
    assert found == written
    described = {each.name: tuple(each.type.multiArrayType.shape) for each in spec.description.input}
    assert described == {name: variable.shape for name, variable in program.inputs.items()}
    (output,) = spec.description.output
    (result,) = program.outputs
    assert (output.name, tuple(output.type.multiArrayType.shape)) == (result.name, result.shape)


def test_coremltools_opens_it(demo):
    with quiet():
        models = pytest.importorskip("coremltools.models")
        model = models.MLModel(str(demo.directory / demo_run.ORIGINAL), skip_model_load=True)
    assert model.short_description == "A small diffusion UNet with random weights, made by corepress demo"
    assert list(model.input_description) == ["sample", "timestep", "encoder_hidden_states"]
    assert list(model.output_description) == ["noise_pred"]


@pytest.mark.parametrize("slug", ["4bit-groups", "int8", "sparse"])
def test_coremltools_decompresses_the_outputs_to_the_same(demo, tmp_path, slug):
    package = demo.directory / demo_run.package_name(slug)
    coreml.decompress(package, tmp_path / "dense.mlpackage")
    theirs, ours = constants(package), constants(tmp_path / "dense.mlpackage")
    weights = [name for name in ours if name.endswith("_weight")]
    assert len(weights) > 100
    for name in weights:
        numpy.testing.assert_array_equal(theirs[name], ours[name], name)


@pytest.fixture
def no_work(monkeypatch):
    monkeypatch.setattr(demo_run, "_compress_all", lambda *arguments: (Original("UNet.mlpackage", 1, 1), []))
    monkeypatch.setattr("corepress.demo.plot.draw_plot", lambda *arguments: None)


def test_json_is_the_results_file(shell, no_work, tmp_path):
    outcome = shell("demo", "--json", "-o", tmp_path / "folder")
    assert (outcome.status, outcome.err) == (0, "")
    assert json.loads(outcome.out) == json.loads((tmp_path / "folder" / "results.json").read_text())


def test_it_replaces_its_own_output_only(no_work, tmp_path):
    directory = tmp_path / "folder"

    demo_run.run_demo(directory, quiet=True)
    (directory / "mine.txt").write_text("mine")
    demo_run.run_demo(directory, quiet=True)
    assert (directory / "mine.txt").read_text() == "mine"

    (directory / demo_run.MARKER).unlink()
    with pytest.raises(FileExistsError, match="pass --overwrite"):
        demo_run.run_demo(directory, quiet=True)
    demo_run.run_demo(directory, overwrite=True, quiet=True)
    assert (directory / "mine.txt").read_text() == "mine"


@pytest.mark.parametrize("exists", [False, True])
def test_a_failed_run_leaves_nothing_behind(tmp_path, monkeypatch, exists):
    def fail(directory, quiet, verbose):
        (directory / demo_run.ORIGINAL).mkdir()
        raise KeyboardInterrupt

    monkeypatch.setattr(demo_run, "_compress_all", fail)
    directory = tmp_path / "folder"
    if exists:
        directory.mkdir()
    with pytest.raises(KeyboardInterrupt):
        demo_run.run_demo(directory)
    assert directory.exists() == exists
    assert not exists or list(directory.iterdir()) == []


def test_an_interrupt_waits_for_code_that_would_lose_it():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    finished = []

    def work():
        with interrupts_after():
            signal.raise_signal(signal.SIGINT)
            finished.append(True)

    with pytest.raises(KeyboardInterrupt):
        work()
    assert finished
    assert signal.signal(signal.SIGINT, before) is signal.default_int_handler


def test_a_folder_of_another_program_is_left_alone(process, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    refused = process("demo", "-o", tmp_path)
    assert (refused.status, refused.out) == (1, "")
    assert "choose another -o or pass --overwrite" in refused.err
    assert refused.err.count("\n") == 1
