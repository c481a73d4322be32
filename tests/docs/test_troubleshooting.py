"""Each message that the page of troubleshooting quotes is one that the code gives."""

from __future__ import annotations

import contextlib
import io
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from code_blocks import ROOT, blocks_of
from foreign_files import KINDS, LFS, make_file
from small_models import build_encoder, build_shared

import corepress as cp
from corepress import coreml, neural_network, runtime
from corepress.cli.main import main
from corepress.coreml.format.package import Package
from corepress.coreml.format.schema import read_model, serialize_model
from corepress.coreml.operations import check, check_steps
from corepress.specs import Palettize, Prune, Quantize

WEIGHT = np.random.default_rng(0).standard_normal((60, 100)).astype(np.float16)
INFINITE = np.where(np.arange(6000).reshape(60, 100) == 7, np.float16(np.inf), WEIGHT)
CODES = np.zeros(16, np.uint8)
GROUPS = {"granularity": "per_grouped_channel", "group_size": 16}
BLOB_FILE = Path("Net.mlpackage/Data/com.apple.CoreML/weights/weight.bin")

Told = str | set[str | None]


class OnDevice:
    """What a tensor in a GPU's memory does."""

    device = "cuda:0"

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        raise TypeError("can't convert cuda:0 device type tensor to numpy.")


def shell(*arguments: str) -> str:
    told = io.StringIO()
    with contextlib.redirect_stderr(told), contextlib.redirect_stdout(io.StringIO()):
        assert main(arguments) != 0
    return told.getvalue().strip()


def error_of(call: Callable[[], Any]) -> str:
    with pytest.raises((ValueError, TypeError, RuntimeError, ImportError)) as caught:
        call()
    return str(caught.value)


def refused_inputs(inputs: dict[str, Any]) -> str:
    return error_of(lambda: runtime.load("Classifier.mlpackage").predict(inputs))


def without_torch() -> str:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "torch", None)
        return error_of(lambda: runtime.load("Classifier.mlpackage"))


def reasons(package: str, config: Any) -> set[str | None]:
    """Why weights stay, before any work."""
    return {weight.reason for weight in coreml.plan(package, config).weights}


def reasons_of_values(name: str, value: float) -> set[str | None]:
    """Why weights stay, of a package whose first blob begins with a value."""
    shutil.copytree("Classifier.mlpackage", "Net.mlpackage")
    with BLOB_FILE.open("r+b") as file:
        file.seek(128)
        file.write(np.float16(value).tobytes())
    report = coreml.compress("Net.mlpackage", name, {"palettize": {"nbits": 4}})
    return {weight.reason for weight in report.weights}


def of_two_opsets() -> str:
    shutil.copytree("Classifier.mlpackage", "Net.mlpackage")
    path = Package.open("Net.mlpackage").model_path
    model = read_model(path)
    function = model.mlProgram.functions["main"]
    for opset in ("CoreML5", "CoreML6"):
        function.block_specializations[opset].CopyFrom(function.block_specializations[function.opset])
    del function.block_specializations[function.opset]
    function.opset = "CoreML6"
    path.write_bytes(serialize_model(model))
    return error_of(lambda: coreml.plan("Net.mlpackage", {"op_types": {"linear": {"palettize": {"nbits": 4}}}}))


def damaged(damage: Callable[[], Any]) -> str:
    shutil.copytree("Classifier.mlpackage", "Net.mlpackage")
    damage()
    return error_of(lambda: coreml.compress("Net.mlpackage", "out.mlpackage", {"palettize": {"nbits": 4}}))


def truncate() -> None:
    BLOB_FILE.write_bytes(BLOB_FILE.read_bytes()[:5000])


def foreign(kind: str, name: str) -> str:
    """What is said of a file or folder of another kind."""
    make_file(Path(), name, KINDS[kind][1])
    return shell("palettize", name, "-o", "out.mlpackage", "--nbits", "4")


def existing() -> str:
    Path("UNet-4bit.mlpackage").mkdir()
    return shell("palettize", "UNet.mlpackage", "-o", "UNet-4bit.mlpackage", "--nbits", "4")


def compressed_before() -> set[str | None]:
    coreml.compress("Encoder.mlpackage", "once.mlpackage", {"palettize": {"nbits": 4}})
    return reasons("once.mlpackage", {"quantize": {}})


def tied() -> set[str | None]:
    build_encoder(Path("Tied.mlpackage"), layers=0, tied=True)
    return reasons("Tied.mlpackage", {"global": {"quantize": {}}, "op_types": {"gather": {"palettize": {"nbits": 4}}}})


def disputed() -> set[str | None]:
    build_shared(Path("Shared.mlpackage"))
    return reasons("Shared.mlpackage", {"quantize": {}})


def small_network_weight() -> set[str | None]:
    report = neural_network.quantize_weights("DeepLab.mlmodel", 8, "kmeans_lut", destination="a.mlmodel")
    return {weight.reason for weight in report.weights}


def with_a_wrong_variable() -> str:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COREPRESS_NUM_THREADS", "many")
        return error_of(lambda: cp.palettize(WEIGHT, nbits=4))


def without_coremltools() -> str:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "coremltools", None)
        patch.setattr("corepress.extras._has_coremltools_wheel", lambda: True)
        patch.setattr("corepress.acceleration.hosts.installed", lambda: ())  # nor another library
        return error_of(cp.accelerate.install)


def with_an_older_coremltools() -> str:
    import coremltools

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(coremltools, "__version__", "8.3")
        return error_of(cp.accelerate.install)


# Each way to a message, in the order of the page. A set has the reasons that a report gives.
CASES: tuple[Callable[[], Told], ...] = (
    existing,
    lambda: shell("palettize", "UNet.mlpackage", "-o", "UNet.mlpackage", "--nbits", "4", "--overwrite"),
    lambda: shell("palettize", "DeepLab.mlmodel", "-o", "a.mlmodel", "--nbits", "4"),
    lambda: shell("quantize", "UNet.mlpackage", "-o", "a.mlpackage", "--nbits", "8"),
    lambda: shell("compress", "UNet.mlpackage", "-o", "a.mlpackage", "--config", "missing.yaml"),
    lambda: error_of(lambda: cp.Config.from_dict({"global": None, "wieghts": {}})),
    lambda: error_of(lambda: cp.Config.from_dict({"prune": {"target_sparsity": 0.5}, "palettize": {"nbits": 4}})),
    lambda: error_of(lambda: coreml.plan("UNet.mlpackage", cp.Config(weights={"*midblock*": None}), strict=True)),
    lambda: error_of(lambda: check(Palettize(nbits=4, **GROUPS), 7)),
    lambda: error_of(lambda: check(Quantize(dtype="int4"), 7)),
    lambda: error_of(lambda: check_steps([Prune(target_sparsity=0.5), Palettize(nbits=4)], 8)),
    lambda: error_of(lambda: check(Quantize(dtype="int4"), 8, 9)),
    of_two_opsets,
    lambda: error_of(lambda: cp.palettize(WEIGHT, nbits=4, **GROUPS)),
    lambda: error_of(lambda: cp.quantize(WEIGHT, dtype="int4", granularity="per_block", block_size=32)),
    lambda: error_of(lambda: cp.palettize(INFINITE, nbits=4)),
    lambda: error_of(lambda: cp.palettize(WEIGHT, mode="unique")),
    lambda: error_of(lambda: cp.quantize(WEIGHT.astype(np.int32))),
    lambda: error_of(lambda: cp.palettize(OnDevice(), nbits=4)),
    lambda: error_of(lambda: cp.quantize(np.ma.array(WEIGHT))),
    lambda: error_of(lambda: cp.kernels.unpack_bits(CODES[:4], 2, 16, CODES)),
    lambda: error_of(lambda: cp.quantize(WEIGHT.astype(np.float64) * 1e60)),
    with_a_wrong_variable,
    lambda: reasons("UNet.mlpackage", {"quantize": {}}),
    lambda: reasons("UNet.mlpackage", {"quantize": {}}),
    compressed_before,
    lambda: reasons("UNet.mlpackage", {"palettize": {"nbits": 4, **GROUPS}}),
    lambda: reasons_of_values("a.mlpackage", np.inf),
    lambda: reasons("Classifier.mlpackage", {"prune": {"n_m_ratio": (2, 4)}}),
    lambda: reasons("Encoder.mlpackage", {"prune": {"n_m_ratio": (2, 4)}}),
    lambda: reasons("Classifier.mlpackage", {"palettize": {"nbits": 8, "enable_per_channel_scale": True}}),
    tied,
    disputed,
    small_network_weight,
    lambda: foreign("trees", "price.mlmodel"),
    lambda: foreign("pipeline", "price.mlmodel"),
    lambda: foreign("ML program alone", "model.mlmodel"),
    lambda: foreign("weight file", "weight.bin"),
    lambda: foreign("compiled", "UNet.mlmodelc"),
    lambda: foreign("zip", "UNet.mlpackage.zip"),
    lambda: foreign("Git LFS", "UNet.mlmodel"),
    lambda: damaged(lambda: BLOB_FILE.write_bytes(LFS)),
    lambda: foreign("safetensors", "model.safetensors"),
    lambda: foreign("PyTorch", "model.pt"),
    lambda: foreign("ONNX", "model.onnx"),
    lambda: foreign("empty file", "UNet.mlmodel"),
    lambda: foreign("cut short", "UNet.mlmodel"),
    lambda: damaged(Path("Net.mlpackage/Manifest.json").unlink),
    lambda: damaged(BLOB_FILE.unlink),
    lambda: damaged(truncate),
    without_coremltools,
    with_an_older_coremltools,
    without_torch,
    lambda: refused_inputs({"image": np.zeros((1, 3, 64, 64))}),
    lambda: refused_inputs({}),
)
QUOTED = [block.text.strip() for block in blocks_of(ROOT / "docs" / "troubleshooting.md")]


def test_every_message_has_a_case():
    assert len(QUOTED) == len(CASES)


@pytest.mark.parametrize("number", range(len(CASES)))
def test_messages_are_given(number, workplace):
    message, told = QUOTED[number], CASES[number]()
    if isinstance(told, set):
        assert message in told
    else:
        # Messages have full paths, and those that links lead to.
        for folder in (workplace, (workplace / "UNet.mlpackage").resolve().parent):
            told = told.replace(f"{folder}/", "")
        assert told == message
