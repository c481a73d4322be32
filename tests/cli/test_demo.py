"""`corepress demo`, once as a user runs it, and its dealings with folders."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
import signal
import sys
import threading

import numpy
import pytest
from coreml_helpers import constants, operations_of, quiet, read_spec, weight_file

import page
from corepress import coreml, runtime
from corepress.demo import reading
from corepress.demo import run as demo_run
from corepress.demo.digits import DATA, build_digits, load_digits
from corepress.demo.variants import VARIANTS, Original
from corepress.interrupts import interrupts_after, interrupts_as_exceptions

NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?")


@pytest.fixture(scope="session")
def results(demo):
    return json.loads((demo.directory / "results.json").read_text())


@pytest.fixture(scope="session")
def readings(results):
    """Of the network that reads digits; test_extras.py has the demo without PyTorch."""
    pytest.importorskip("torch")
    return results["digits"]


def test_it_succeeds_and_leaves_what_it_says(demo, readings):
    assert (demo.outcome.status, demo.outcome.err) == (0, "")
    names = {path.name for path in demo.directory.iterdir()}
    assert names == set(demo_run.OUTPUTS)
    assert "\x1b" not in demo.outcome.out
    assert max(map(len, demo.outcome.out.splitlines())) <= 100
    labels = [each.label for each in (*VARIANTS, *reading.VERSIONS)]
    for text in ("Try next", demo_run.PLOT, demo_run.READ, reading.IMAGES, *labels):
        assert text in demo.outcome.out


def test_plots_are_pngs(demo):
    plots = list(demo.directory.glob("*.png"))
    assert demo_run.PLOT in {plot.name for plot in plots}
    assert all(plot.read_bytes().startswith(b"\x89PNG\r\n\x1a\n") for plot in plots)


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


@pytest.fixture(scope="session")
def digits(readings):
    return {each["package"]: each for each in (readings["original"], *readings["versions"])}


def test_samples_keep_what_weights_alone_lose(digits):
    """With room for other processors, whose last digits differ."""
    right = {name.removeprefix("Digits").removesuffix(".mlpackage"): each["accuracy"] for name, each in digits.items()}
    original = right[""]
    assert original > 98
    assert min(right["-8bit"], right["-4bit"], right["-2bit-samples"]) > original - 1
    assert right["-2bit"] < original - 2
    assert right["-1bit"] < 20
    assert right["-1bit-samples"] > 85
    assert right["-chosen-samples"] > original - 2
    sizes = [each["bytes"] for each in digits.values()]
    assert sizes == sorted(sizes, reverse=True)
    snr = {name: each["snr_db"] for name, each in digits.items()}
    for nbits in (1, 2):
        assert snr[f"Digits-{nbits}bit-samples.mlpackage"] > snr[f"Digits-{nbits}bit.mlpackage"] + 6
        assert (
            digits[f"Digits-{nbits}bit-samples.mlpackage"]["bytes"] == digits[f"Digits-{nbits}bit.mlpackage"]["bytes"]
        )


def test_what_is_read_is_what_the_packages_read(demo, digits):
    """One of them, counted again from the files that the demo leaves."""
    with numpy.load(demo.directory / reading.IMAGES) as file:
        images, labels = file["image"], file["digit"]
    package = "Digits-1bit-samples.mlpackage"
    model = runtime.load(demo.directory / package)
    found = [model.predict({"image": image[None]})["scores"].argmax() for image in images]
    assert 100 * numpy.mean(found == labels) == pytest.approx(digits[package]["accuracy"], abs=0.2)


def test_answers_are_of_one_image_of_each_digit(readings):
    shown, answers = readings["shown"], readings["answers"]
    assert list(load_digits().labels[shown]) == list(range(10))
    assert sum(answer == digit for digit, answer in enumerate(answers[reading.ORIGINAL])) >= 9
    assert all(len(each) == 10 for each in answers.values())


def test_readings_are_read_again(readings):
    assert reading.Readings.from_dict(readings).to_dict() == readings


def test_the_commands_of_the_readme_print_what_it_shows(demo, readings, shell, tmp_path, monkeypatch):
    """The same words, and numbers that another processor's calibration gives too."""
    for name in (reading.ORIGINAL, reading.IMAGES, reading.SCORE, reading.STATISTICS):
        (tmp_path / name).symlink_to(demo.directory / name)
    monkeypatch.chdir(tmp_path)
    told = page.read(page.RESULTS / "demo" / "digits.json")["results"]["commands"]
    assert [command.split()[1] for command in told] == list(page.SHOWN)
    for command, expected in told.items():
        outcome = shell(*shlex.split(command)[1:])
        assert (outcome.status, outcome.err) == (0, "")
        wanted, found = (page.shown(command, text) for text in (expected, outcome.out))
        assert [in_words(line) for line in wanted] == [in_words(line) for line in found]
        for line, same in zip(wanted, found, strict=True):
            assert numbers(line) == pytest.approx(numbers(same), rel=0.1, abs=0.5), line


def in_words(line):
    return re.sub(r" +", " ", NUMBER.sub("#", line))


def numbers(line):
    return [float(each.replace(",", "")) for each in NUMBER.findall(line)]


def test_the_network_is_the_one_that_is_trained(tmp_path, monkeypatch):
    """The script's network, with batch normalization that does something, beside the package of its arrays."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("sklearn")
    train_digits = pytest.importorskip("train_digits")
    torch.manual_seed(0)
    network = train_digits.Network()
    with torch.no_grad():
        for layer in network.convolutions.values():
            for values in (layer.norm.weight, layer.norm.bias, layer.norm.running_mean, layer.norm.running_var):
                values.uniform_(0.5, 1)
    network.eval()
    trained, arrays = load_digits(), network.arrays()
    assert {name: (each.shape, each.dtype) for name, each in arrays.items()} == {
        name: (each.shape, each.dtype) for name, each in trained.weights.items()
    }
    monkeypatch.setattr("corepress.demo.digits.load_digits", lambda: dataclasses.replace(trained, weights=arrays))
    build_digits(tmp_path / "Digits.mlpackage")
    model = runtime.load(tmp_path / "Digits.mlpackage", precision="float32")
    for image in trained.tests[:3]:
        found = model.predict({"image": image[None]})["scores"]
        with torch.no_grad():
            expected = network(torch.from_numpy(image[None].astype(numpy.float32))).numpy()
        numpy.testing.assert_allclose(found, expected, rtol=0.01, atol=0.01 * numpy.abs(expected).max())


def test_it_is_small_and_says_where_the_images_come_from():
    assert (DATA / "digits.npz").stat().st_size < 1_000_000
    assert "CC BY 4.0" in (DATA / "NOTICE").read_text(encoding="utf-8")


@pytest.fixture
def no_work(monkeypatch):
    monkeypatch.setattr(demo_run, "_compress_all", lambda *arguments: (Original("UNet.mlpackage", 1, 1), []))
    monkeypatch.setattr(demo_run, "_read", lambda *arguments: None)
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


@pytest.mark.parametrize(("number", "raised"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_an_interrupt_is_not_lost_in_code_whose_exceptions_are_dropped(number, raised):
    class Dropping:
        def __del__(self):
            signal.raise_signal(number)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    hook, waited = sys.unraisablehook, []

    def work():
        with interrupts_as_exceptions([]):
            del [Dropping()][0]
            waited.append(threading.Event().wait(60))

    with pytest.raises(raised):
        work()
    assert not waited
    assert sys.unraisablehook is hook
    assert signal.signal(signal.SIGINT, before) is signal.default_int_handler
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_folder_of_another_program_is_left_alone(process, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    refused = process("demo", "-o", tmp_path)
    assert (refused.status, refused.out) == (1, "")
    assert "choose another -o or pass --overwrite" in refused.err
    assert refused.err.count("\n") == 1
