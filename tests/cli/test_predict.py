"""The commands that run models: predict, and compare with samples."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
from coreml_helpers import quiet

from corepress import coreml

pytest.importorskip("torch")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A product of four numbers with a matrix, the same in 2 bits, a classifier, and images in and out."""
    pytest.importorskip("coremltools")
    folder = tmp_path_factory.mktemp("models")
    weight = np.random.default_rng(0).standard_normal((80, 40)).astype(np.float32)
    with quiet():
        import coremltools as ct
        import torch
        from coremltools.converters.mil import Builder as mb

        options = {"minimum_deployment_target": ct.target.iOS18, "skip_model_load": True, "convert_to": "mlprogram"}

        @mb.program(input_specs=[mb.TensorSpec((1, 40))], opset_version=ct.target.iOS18)
        def product(x):
            return mb.relu(x=mb.linear(x=x, weight=weight, name="product"), name="y")

        single = ct.precision.FLOAT32
        ct.convert(product, compute_precision=single, **options).save(str(folder / "Product.mlpackage"))

        @mb.program(input_specs=[mb.TensorSpec((1, 3))], opset_version=ct.target.iOS18)
        def classify(x):
            return mb.softmax(x=x, axis=-1, name="scores")

        config = ct.ClassifierConfig(["cat", "dog", "eel"])
        ct.convert(classify, classifier_config=config, **options).save(str(folder / "Classifier.mlpackage"))

        class Inverse(torch.nn.Module):
            def forward(self, x):
                return 255.0 - x

        ct.convert(
            torch.jit.trace(Inverse(), torch.zeros(1, 3, 4, 6)),
            inputs=[ct.ImageType("image", shape=(1, 3, 4, 6), color_layout=ct.colorlayout.RGB)],
            outputs=[ct.ImageType("inverse", color_layout=ct.colorlayout.RGB)],
            minimum_deployment_target=ct.target.iOS16,
            skip_model_load=True,
        ).save(str(folder / "Inverse.mlpackage"))
    coreml.compress(folder / "Product.mlpackage", folder / "Product-2bit.mlpackage", {"palettize": {"nbits": 2}})
    return folder


def test_arrays_go_in_and_come_out(shell, models, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    x = np.random.default_rng(1).standard_normal((1, 40)).astype(np.float32)
    np.save("x.npy", x)
    outcome = shell("predict", models / "Product.mlpackage", "--input", "x=x.npy", "-o", "out.npz")
    assert (outcome.status, outcome.err) == (0, "")
    assert "float32 1x80" in outcome.out
    assert "wrote out.npz" in outcome.out
    assert "run by torch in float16" in outcome.out
    with np.load("out.npz") as found:
        expected = found["y"]
    assert expected.shape == (1, 80)
    np.savez("x.npz", other=x)
    np.savetxt("x.txt", x.reshape(-1))
    np.savetxt("x.csv", x, delimiter=",")
    numbers = ",".join(map(str, x.reshape(-1).tolist()))
    for value in ("x.npz", "x.txt", "x.csv", numbers, f"[[{numbers}]]"):
        again = shell("predict", models / "Product.mlpackage", "--input", f"x={value}", "-o", "again.npz", "--quiet")
        assert (again.status, again.out, again.err) == (0, "", "")
        with np.load("again.npz") as found:
            np.testing.assert_allclose(found["y"], expected, atol=1e-5)


def test_json_has_all_values(shell, models, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = ["predict", models / "Product.mlpackage", "--input", f"x={[1.0] * 40}", "--precision", "float32"]
    outcome = shell(*given, "--json", "--time", "-o", "out.json")
    found = json.loads(outcome.out)
    assert (found["model"], found["backend"], found["precision"]) == ("Product.mlpackage", "torch", "float32")
    assert found["outputs"]["y"]["shape"] == [1, 80]
    assert len(found["outputs"]["y"]["values"][0]) == 80
    assert set(found["seconds"]) == {"load", "first_run", "median_run"}
    assert json.loads((tmp_path / "out.json").read_text())["outputs"] == found["outputs"]
    timed = shell(*given, "--time").out
    assert "first run" in timed
    assert "ms (median)" in timed


def test_labels_and_probabilities(shell, models, tmp_path):
    model = models / "Classifier.mlpackage"
    outcome = shell("predict", model, "--input", "x=0,3,1", "-o", tmp_path / "out.npz")
    assert "dog" in outcome.out
    assert "dog 0.8437, eel 0.1142, cat 0.04202" in outcome.out.replace("0.8438", "0.8437").replace("0.1141", "0.1142")
    found = json.loads(shell("predict", model, "--input", "x=0,3,1", "--json").out)["outputs"]
    probabilities = next(value for value in found.values() if isinstance(value, dict))
    assert set(probabilities) == {"cat", "dog", "eel"}
    with np.load(tmp_path / "out.npz") as arrays:
        assert sorted(array.size for array in arrays.values()) == [1, 3, 3]


def test_images(shell, models, tmp_path):
    image = pytest.importorskip("PIL.Image")
    pixels = np.random.default_rng(0).integers(0, 256, (4, 6, 3)).astype(np.uint8)
    image.fromarray(pixels).save(tmp_path / "photo.png")
    model, out = models / "Inverse.mlpackage", tmp_path / "out.png"
    outcome = shell("predict", model, "--input", f"image={tmp_path / 'photo.png'}", "-o", out)
    assert (outcome.status, outcome.err) == (0, "")
    assert "image 6x4" in outcome.out
    with image.open(out) as result:
        np.testing.assert_array_equal(np.asarray(result), 255 - pixels)
    shell("predict", model, "--input", f"image={tmp_path / 'photo.png'}", "-o", tmp_path / "out.npz", "-q")
    with np.load(tmp_path / "out.npz") as arrays:
        np.testing.assert_array_equal(arrays["inverse"], 255 - pixels)
    image.new("RGB", (12, 8)).save(tmp_path / "large.png")
    refused = shell("predict", model, "--input", f"image={tmp_path / 'large.png'}")
    assert refused.status == 1
    assert refused.err == (
        "corepress predict: input 'image' is an image of 12 x 8 pixels, but its height and width must be (4, 6)\n"
    )
    (tmp_path / "text.png").write_text("no image")
    assert "is not an image" in shell("predict", model, "--input", f"image={tmp_path / 'text.png'}").err


@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        ([], 2, "inputs are missing: x: float32 array (1, 40); give --input x=…"),
        (["--input", "y=1"], 2, "the model has no input 'y'"),
        (["--input", "x"], 2, "--input x must be NAME=VALUE"),
        (
            ["--input", "x=words"],
            2,
            "--input x=words is neither a file of an array (.npy, .npz,",
        ),
        (["--input", "x=1,2"], 1, "input 'x' has shape (2,), but must have (1, 40)"),
        (["--input", "x=missing.npy"], 1, "missing.npy: no such file or directory"),
        (["--input", "x=1", "-o", "out.tiff"], 2, "--output out.tiff must end with .npz, .json"),
        (["--input", "x=1", "-o", "no/out.npz"], 2, "--output no/out.npz is in the folder"),
        (["--input", "x=1", "--function-name", "f"], 1, "--function-name is 'f', but the model has only one function"),
        (["--input", "x=1", "--backend", "coreml"], 1, "needs macOS"),
        (["--input", "x=1", "--input", "x=2"], 2, "--input x is given twice; give it once"),
        (["--input", f"x={[1] * 40}", "--device", "banana"], 1, "device is 'banana', which PyTorch cannot use here"),
    ],
)
def test_wrong_usage_is_told(shell, models, options, status, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    outcome = shell("predict", models / "Product.mlpackage", *options)
    assert (outcome.status, outcome.out) == (status, "")
    assert message in outcome.err
    assert outcome.err.count("\n") == 1


def test_the_output_is_no_input(shell, models, tmp_path):
    file = tmp_path / "x.npz"
    np.savez(file, x=np.zeros((1, 40), np.float32))
    before = file.read_bytes()
    outcome = shell("predict", models / "Product.mlpackage", "--input", f"x={file}", "-o", file)
    assert outcome.status == 2
    assert "is the file of an input; name another file" in outcome.err
    assert file.read_bytes() == before


def test_what_a_run_refuses_is_expected(shell, models, monkeypatch):
    from corepress import OperationError, UnsupportedOperationError
    from corepress.runtime.model import Model

    for error in (OperationError, UnsupportedOperationError):

        def refuse(*arguments, error=error):
            raise error("main: linear product: a shape of [1] is too large; give smaller inputs")

        monkeypatch.setattr(Model, "predict", refuse)
        outcome = shell("predict", models / "Product.mlpackage", "--input", f"x={[1] * 40}")
        message = "corepress predict: main: linear product: a shape of [1] is too large; give smaller inputs\n"
        assert (outcome.status, outcome.err) == (1, message)


def test_an_image_needs_an_output_that_is_one(shell, models, tmp_path):
    outcome = shell("predict", models / "Product.mlpackage", "--input", f"x={[1] * 40}", "-o", tmp_path / "out.png")
    assert outcome.status == 2
    assert "but the model has 0 outputs of images" in outcome.err
    assert list(tmp_path.iterdir()) == []


# compare


@pytest.fixture
def samples(tmp_path):
    x = np.random.default_rng(2).standard_normal((5, 40)).astype(np.float32)
    np.savez(tmp_path / "samples.npz", x=x, label=np.arange(5))
    return tmp_path / "samples.npz"


def test_compare_runs_both_on_samples(shell, models, samples):
    pair = models / "Product.mlpackage", models / "Product-2bit.mlpackage"
    outcome = shell("compare", *pair, "--inputs", samples, "--metric", "psnr")
    assert (outcome.status, outcome.err) == (0, "")
    assert "output y: " in outcome.out
    assert "metric psnr: " in outcome.out
    assert "drawn" not in outcome.out
    found = json.loads(shell("compare", *pair, "--inputs", samples, "--metric", "psnr", "--json").out)
    assert found["outputs"][0]["samples"] == 5
    assert found["metric"] == "psnr"
    assert len(found["scores"]) == 1


def test_compare_draws_inputs_and_says_so(shell, models):
    pair = models / "Product.mlpackage", models / "Product-2bit.mlpackage"
    outcome = shell("compare", *pair, "--predict", "--draw", "2")
    assert (outcome.status, outcome.err) == (0, "")
    assert "outputs for 2 inputs drawn from a normal distribution" in outcome.out


def test_compare_shows_where_models_part(shell, models, samples, tmp_path):
    pytest.importorskip("matplotlib")
    pair = models / "Product.mlpackage", models / "Product-2bit.mlpackage"
    outcome = shell("compare", *pair, "--inputs", samples, "--layers", "--plot", tmp_path / "layers.png")
    assert (outcome.status, outcome.err) == (0, "")
    assert "the first that differs: product" in outcome.out
    assert "the first below 20 dB: product" in outcome.out
    assert [line.split()[0] for line in outcome.out.splitlines() if "1x80" in line] == ["product", "y"]
    assert (tmp_path / "layers.png").read_bytes().startswith(b"\x89PNG")
    same = shell("compare", pair[0], pair[0], "--inputs", samples, "--layers", "--plot", tmp_path / "same.svg")
    assert "none differs" in same.out
    assert "No result differs" in (tmp_path / "same.svg").read_text()


def test_compare_takes_a_function_of_a_file(shell, models, samples, tmp_path):
    (tmp_path / "score.py").write_text("def count(samples, outputs): return sum(each['label'] for each in samples)\n")
    pair = models / "Product.mlpackage", models / "Product-2bit.mlpackage"
    outcome = shell("compare", *pair, "--inputs", samples, "--metric", f"{tmp_path}/score.py:count")
    assert "score.py:count: 10 and 10" in outcome.out
    refused = shell("compare", *pair, "--metric", "pnsr")
    assert (refused.status, refused.out) == (1, "")
    assert "did you mean 'psnr'?" in refused.err


def test_compare_refuses_samples_that_do_not_fit(shell, models, tmp_path):
    np.savez(tmp_path / "x.npz", x=np.zeros((1, 3)))
    outcome = shell("compare", *[models / "Product.mlpackage"] * 2, "--inputs", tmp_path / "x.npz")
    assert (outcome.status, outcome.out) == (1, "")
    where = models / "Product.mlpackage"
    assert outcome.err == f"corepress compare: {where}: input 'x' has shape (1, 3), but must have (1, 40)\n"
    (tmp_path / "x.npz").write_bytes(b"not an archive")
    outcome = shell("compare", *[models / "Product.mlpackage"] * 2, "--inputs", tmp_path / "x.npz")
    assert outcome.status == 1
    assert "not an .npz file of arrays" in outcome.err


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_an_interrupt_ends_a_run(process, models, samples):
    code = (
        "import os, signal, sys\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # ignored where a shell runs the tests behind
        "from corepress.runtime.model import Model\n"
        "run = Model.predict\n"
        "def interrupted(*arguments): os.kill(os.getpid(), signal.SIGINT); return run(*arguments)\n"
        "Model.predict = interrupted\n"
        "from corepress.cli.main import main; sys.exit(main())"
    )
    pair = models / "Product.mlpackage", models / "Product-2bit.mlpackage"
    outcome = process("compare", *pair, "--inputs", samples, code=code)
    assert (outcome.status, outcome.out, outcome.err.strip()) == (130, "", "corepress compare: interrupted")
