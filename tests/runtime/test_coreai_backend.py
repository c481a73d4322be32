"""Core AI assets run by Apple's run-time, against the PyTorch modules that they were converted from."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

from corepress import runtime
from corepress.errors import FormatError, MissingExtraError, OperationError, UnsupportedOperationError
from corepress.runtime import coreai_backend, worker_process
from corepress.runtime.model import describe
from helpers.assets import require_coreai, save_asset

require_coreai()
import torch  # noqa: E402
from torch import nn  # noqa: E402


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(12, 32), nn.LayerNorm(32), nn.Linear(32, 5)

    def forward(self, x):
        return self.last(self.norm(torch.nn.functional.gelu(self.first(x))))


class Vision(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(4, 8, 3, padding=1, stride=2)
        self.deep = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.table = nn.Embedding(20, 6)

    def forward(self, image, ids):
        return torch.relu(self.deep(torch.relu(self.first(image)))).mean((2, 3)), self.table(ids)


class Cache(nn.Module):
    """Attention to what earlier runs have stored where a mask said so."""

    def __init__(self):
        super().__init__()
        self.key = nn.Linear(8, 8)
        self.register_buffer("keys", torch.zeros(1, 6, 8))

    def forward(self, x, mask):
        self.keys.copy_(torch.where(mask, self.key(x), self.keys))
        return torch.softmax(x @ self.keys.transpose(1, 2), -1) @ self.keys


class Scatter(Cache):
    """The same with an operation that ends the run-time of coreai-core 1.0.0b3."""

    def forward(self, x, place):
        self.keys[:, place] = self.key(x)
        return x @ self.keys.transpose(1, 2)


class Sum(nn.Module):
    def forward(self, a, b):
        return a @ b


class Types(nn.Module):
    def forward(self, half, brain, flags, counts):
        return half * 2, brain * 2, flags.logical_not(), counts + 1


@pytest.fixture
def rng():
    return np.random.default_rng(7)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("assets")


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return Net()


@pytest.fixture(scope="module")
def net_path(net, folder):
    names = {"input_names": ["x"], "output_names": ["y"]}
    return save_asset(folder / "net.aimodel", (net, [torch.zeros(3, 12)]), **names)


@pytest.fixture(scope="module")
def open_path(net, folder):
    """The same with any number of rows."""
    names = {"input_names": ["x"], "output_names": ["y"], "dynamic": ({0: torch.export.Dim("rows", max=64)},)}
    return save_asset(folder / "open.aimodel", (net, [torch.zeros(3, 12)]), **names)


@pytest.fixture(scope="module")
def cache(folder):
    torch.manual_seed(1)
    module = Cache()
    inputs = [torch.zeros(1, 1, 8), torch.zeros(1, 6, 1, dtype=torch.bool)]
    names = {"input_names": ["x", "mask"], "output_names": ["y"], "state_names": ["keys"]}
    return module, save_asset(folder / "cache.aimodel", (module, inputs), **names)


@pytest.fixture(scope="module")
def two_functions(folder):
    torch.manual_seed(2)
    first, second = nn.Linear(4, 3), nn.Linear(5, 2)
    options = [{"input_names": ["x"], "output_names": ["y"], "entrypoint_name": name} for name in ("encode", "decode")]
    functions = [(first, [torch.zeros(2, 4)], options[0]), (second, [torch.zeros(2, 5)], options[1])]
    return (first, second), save_asset(folder / "two.aimodel", *functions)


def array(rng, *shape):
    return rng.standard_normal(shape).astype(np.float32)


def of_torch(module, *inputs):
    with torch.no_grad():
        return module(*map(torch.from_numpy, inputs)).numpy()


def test_results_are_those_of_torch(net, net_path, rng):
    model, x = runtime.load(net_path), array(rng, 3, 12)
    (y,) = model.predict({"x": x}).values()
    np.testing.assert_allclose(y, of_torch(net, x), rtol=1e-4, atol=1e-5)
    assert [model.backend, model.precision, model.kind] == ["coreai", None, "a Core AI program"]
    assert "asset version 2, function main, run by coreai" in repr(model)
    assert [(each.name, each.dtype, each.shape) for each in (*model.inputs, *model.outputs)] == [
        ("x", "float32", (3, 12)),
        ("y", "float32", (3, 5)),
    ]
    assert model.make_state() is None
    assert list(coreai_backend.CoreAIAsset(net_path).descriptions) == ["main"]  # and not those that it calls
    with pytest.raises(AttributeError, match=r"net\.aimodel is run by Core AI, which has no torch module"):
        _ = model.module


def test_several_inputs_and_outputs(folder, rng):
    torch.manual_seed(3)
    module = Vision()
    image, ids = array(rng, 1, 4, 8, 8), rng.integers(0, 20, (1, 3)).astype(np.int32)
    names = {"input_names": ["image", "ids"], "output_names": ["features", "rows"]}
    inputs = [torch.from_numpy(image), torch.from_numpy(ids).long()]
    model = runtime.load(save_asset(folder / "vision.aimodel", (module, inputs), **names))
    found = model.predict([{"image": image, "ids": ids.tolist()}])[0]
    with torch.no_grad():
        features, rows = module(*inputs)
    np.testing.assert_allclose(found["features"], features.numpy(), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(found["rows"], rows.numpy())


def test_types_of_values(folder, rng):
    half, brain = array(rng, 4).astype(np.float16), np.array([1.5, -2.25, 3e38, 1.00390625], np.float32)
    flags, counts = np.array([True, False]), np.array([3, -4], np.int32)
    inputs = [torch.from_numpy(half), torch.from_numpy(brain).bfloat16(), *map(torch.from_numpy, (flags, counts))]
    names = {"input_names": ["half", "brain", "flags", "counts"], "output_names": ["a", "b", "c", "d"]}
    model = runtime.load(save_asset(folder / "types.aimodel", (Types(), inputs), **names))
    assert [each.dtype for each in model.inputs] == ["float16", "bfloat16", "bool", "int32"]
    found = model.predict({"half": half, "brain": brain, "flags": flags, "counts": counts})
    assert found["a"].dtype == found["b"].dtype == np.float32
    np.testing.assert_array_equal(found["a"], half.astype(np.float32) * 2)
    np.testing.assert_array_equal(found["b"], (inputs[1] * 2).float().numpy())
    np.testing.assert_array_equal(found["c"], ~flags)
    np.testing.assert_array_equal(found["d"], counts + 1)


def test_open_sizes(net, open_path, rng):
    model = runtime.load(open_path)
    assert str(model.inputs[0]) == "x: float32 array (1 or more, 12)"
    for rows in (1, 3, 40):
        x = array(rng, rows, 12)
        np.testing.assert_allclose(model.predict({"x": x})["y"], of_torch(net, x), rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match=r"input 'x' has shape \(2, 13\), but must have \(1 or more, 12\)"):
        model.predict({"x": array(rng, 2, 13)})


def test_states(cache, rng):
    module, path = cache
    model, expected = runtime.load(path), torch.zeros(1, 6, 8)
    state, other = model.make_state(), model.make_state()
    for step in range(3):
        x, mask = array(rng, 1, 1, 8), np.arange(6).reshape(1, 6, 1) == step
        with torch.no_grad():
            module.keys.copy_(expected)
            y = module(torch.from_numpy(x), torch.from_numpy(mask)).numpy()
            expected = module.keys.clone()
        np.testing.assert_allclose(model.predict({"x": x, "mask": mask}, state)["y"], y, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(state.read_state("keys"), expected.numpy(), rtol=1e-4, atol=1e-5)
    assert not other.read_state("keys").any()
    other.write_state("keys", state.read_state("keys"))
    same = [model.predict({"x": x, "mask": mask}, each)["y"] for each in (state, other)]
    np.testing.assert_array_equal(*same)
    with pytest.raises(ValueError, match=r"there is no state 'key'; the states are keys"):
        state.read_state("key")
    with pytest.raises(ValueError, match=r"state 'keys' has shape \(1, 6, 8\), the value \(6, 8\)"):
        state.write_state("keys", np.zeros((6, 8)))
    with pytest.raises(ValueError, match=r"the model has states \(keys\); pass state=model.make_state\(\)"):
        model.predict({"x": x, "mask": mask})
    with pytest.raises(ValueError, match="state is that of another model"):
        runtime.load(path).predict({"x": x, "mask": mask}, state)


def test_functions(two_functions, rng):
    modules, path = two_functions
    for module, name, columns in zip(modules, ("encode", "decode"), (4, 5), strict=True):
        model, x = runtime.load(path, name), array(rng, 2, columns)
        assert model.function_name == name
        np.testing.assert_allclose(model.predict({"x": x})["y"], of_torch(module, x), rtol=1e-4, atol=1e-5)
    with pytest.raises(
        ValueError, match=r"function_name is 'encod', but the functions are .*; did you mean 'encode'\?"
    ):
        runtime.load(path, "encod")


@pytest.mark.parametrize(
    ("inputs", "error", "message"),
    [
        ({}, ValueError, "input 'x' is missing"),
        ({"y": 1}, ValueError, "has no input 'y'"),
        ({"x": np.zeros((3, 11), np.float32)}, ValueError, r"has shape \(3, 11\), but must have \(3, 12\)"),
        ({"x": "text"}, TypeError, "must be an array, not str"),
    ],
)
def test_wrong_inputs(net_path, inputs, error, message):
    with pytest.raises(error, match=message):
        runtime.load(net_path).predict(inputs)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backend": "torch"}, "backend is 'torch', but an .aimodel is run by Core AI"),
        ({"backend": "tourch"}, "backend is 'tourch', but must be one of auto, torch, coreml, coreai"),
        ({"precision": "float32"}, "Core AI computes as the asset says"),
        ({"device": "cuda"}, "device is 'cuda'"),
    ],
)
def test_wrong_options(net_path, options, message):
    with pytest.raises(ValueError, match=message):
        runtime.load(net_path, **options)


def test_values(net, net_path, rng):
    model, x = runtime.load(net_path), array(rng, 3, 12)
    found = dict(model.values({"x": x}))
    seen = {}
    for name in ("first", "norm", "last"):
        getattr(net, name).register_forward_hook(lambda module, _, y, name=name: seen.__setitem__(name, y))
    of_torch(net, x)
    for name, ours in {"first": "addmm", "norm": "native_layer_norm", "last": "addmm_1"}.items():
        np.testing.assert_allclose(found[ours], seen[name].numpy(), rtol=1e-4, atol=1e-5)
    assert list(found) == [
        "addmm.broadcasting_batch_matmul",
        "addmm",
        "gelu",
        "native_layer_norm",
        "addmm_1.broadcasting_batch_matmul",
        "addmm_1",
    ]
    np.testing.assert_array_equal(found["addmm_1"], model.predict({"x": x})["y"])


def test_values_in_groups_are_the_same(cache, rng, monkeypatch):
    model = runtime.load(cache[1])
    steps = [{"x": array(rng, 1, 1, 8), "mask": np.arange(6).reshape(1, 6, 1) == step} for step in range(2)]

    def values():
        state = model.make_state()
        return [dict(model.values(step, state)) for step in steps], state.read_state("keys")

    whole, keys = values()
    for name, kept in (("_MOST_VALUES", 2), ("_KEPT_BYTES", 0)):
        monkeypatch.setattr(coreai_backend, name, kept)
        parts, other = values()
        np.testing.assert_array_equal(keys, other)
        for ours, theirs in zip(whole, parts, strict=True):
            assert list(ours) == list(theirs)
            for each in ours:
                np.testing.assert_array_equal(ours[each], theirs[each])


def test_taps_leave_outputs_as_they_are(net_path, rng):
    backend = coreai_backend.CoreAIBackend(coreai_backend.CoreAIAsset(net_path), "main")
    x = {"x": array(rng, 3, 12)}
    outputs = backend._run("values", tuple(each.place for each in backend.activations), x, None, keeps_state=False)
    np.testing.assert_array_equal(outputs["y"], backend.predict(x, None)["y"])
    assert len(outputs) == 1 + len(backend.activations)


def test_a_run_that_ends_the_process_is_an_error(folder, rng):
    inputs = [torch.zeros(1, 1, 8), torch.zeros(1, dtype=torch.int64)]
    names = {"input_names": ["x", "place"], "output_names": ["y"], "state_names": ["keys"]}
    model = runtime.load(save_asset(folder / "scatter.aimodel", (Scatter(), inputs), **names))
    given, state = {"x": array(rng, 1, 1, 8), "place": [3]}, model.make_state()
    try:
        model.predict(given, state)
    except OperationError as error:
        assert "scatter.aimodel, function main: Core AI ended while it ran" in str(error)  # noqa: PT017
    else:
        pytest.skip("this version of coreai-core runs it")
    with pytest.raises(OperationError, match="the state was lost"):
        model.predict(given, state)
    with pytest.raises(OperationError, match="the state was lost"):
        state.read_state("keys")


def test_sizes_that_do_not_fit_together_are_an_error(folder, rng):
    dims = [torch.export.Dim(name, max=64) for name in "abc"]
    names = {
        "input_names": ["a", "b"],
        "output_names": ["y"],
        "dynamic": ({0: dims[0], 1: dims[1]}, {0: dims[1], 1: dims[2]}),
    }
    path = save_asset(folder / "sum.aimodel", (Sum(), [torch.zeros(3, 4), torch.zeros(4, 5)]), **names)
    model, a, b = runtime.load(path), array(rng, 3, 4), array(rng, 4, 5)
    np.testing.assert_allclose(model.predict({"a": a, "b": b})["y"], a @ b, rtol=1e-4, atol=1e-5)
    with pytest.raises(OperationError, match="where inputs have open sizes, these may not fit together"):
        model.predict({"a": a, "b": b[:3]})
    np.testing.assert_allclose(model.predict({"a": a, "b": b})["y"], a @ b, rtol=1e-4, atol=1e-5)


def test_damaged_assets(net_path, tmp_path):
    def damaged(name, change):
        path = tmp_path / f"{name}.aimodel"
        path.mkdir()
        for file in net_path.iterdir():
            (path / file.name).write_bytes(file.read_bytes())
        change(path)
        return path

    program = (net_path / "main.mlirb").read_bytes()
    cases = {
        "empty": (lambda path: (path / "main.mlirb").unlink(), "has no file main.mlirb"),
        "other": (lambda path: (path / "main.mlirb").write_bytes(b"text" * 99), "MLIR"),
        "short": (lambda path: (path / "main.mlirb").write_bytes(program[: len(program) // 2]), "main.mlirb"),
        "broken": (lambda path: (path / "metadata.json").write_text("{"), "not valid JSON"),
    }
    for name, (change, message) in cases.items():
        path = damaged(name, change)
        with pytest.raises((FormatError, UnsupportedOperationError), match=message):
            runtime.load(path)


def test_temporary_files_are_removed(net_path, rng):
    before = set(Path(tempfile.gettempdir()).glob("corepress-*"))
    model = runtime.load(net_path)
    list(model.values({"x": array(rng, 3, 12)}))
    folder = Path(model._runner.asset.process._folder)
    assert not [each for each in folder.iterdir() if each.suffix == ".tapped"]
    model._runner.asset.process.close()
    assert set(Path(tempfile.gettempdir()).glob("corepress-*")) <= before
    assert model.predict({"x": array(rng, 3, 12)})["y"].shape == (3, 5)  # by another process


def test_processes_are_used_again(net_path):
    model = runtime.load(net_path)
    process = model._runner.asset.process
    del model
    assert runtime.load(net_path)._runner.asset.process is process
    assert len(worker_process._spare) <= worker_process._MOST_SPARE


@pytest.mark.parametrize("option", ["--json", "--quiet", "--time"])
def test_predict_command(net, net_path, tmp_path, rng, option):
    x = array(rng, 3, 12)
    np.save(tmp_path / "x.npy", x)
    command = [
        sys.executable,
        "-m",
        "corepress",
        "predict",
        str(net_path),
        "--input",
        f"x={tmp_path / 'x.npy'}",
        option,
    ]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ, check=True)
    assert not done.stderr
    if option == "--json":
        found = json.loads(done.stdout)
        assert (found["backend"], found["precision"]) == ("coreai", None)
        np.testing.assert_allclose(found["outputs"]["y"]["values"], of_torch(net, x), rtol=1e-4, atol=1e-5)
    elif option == "--quiet":
        assert not done.stdout
    else:
        assert "run by coreai" in done.stdout
        assert "ODIE" not in done.stdout


def test_nothing_of_torch_is_imported(net_path):
    code = (
        "import sys; from corepress import runtime; import numpy as np; "
        f"runtime.load({str(net_path)!r}).predict({{'x': np.zeros((3, 12), np.float32)}}); "
        "assert not {'torch', 'coreai', 'coremltools'} & sys.modules.keys()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_what_is_missing_is_named(net_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "coreai", None)
    with pytest.raises(
        MissingExtraError, match=r"load: coreai-core is not installed; pip install 'corepress\[coreai\]'"
    ):
        runtime.load(net_path)
    with pytest.raises(MissingExtraError, match="describe: coreai-core"):
        describe(net_path)
    monkeypatch.setattr("corepress.extras.sys.version_info", (3, 10, 1))
    with pytest.raises(MissingExtraError, match=r"not available for Python 3\.10 .* use Python 3\.11 to 3\.14"):
        runtime.load(net_path)
