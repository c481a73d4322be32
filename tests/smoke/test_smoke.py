"""Does an installed corepress work? Under a minute, for wheels on the machine that they are for.

Needs pytest and corepress, and no other file: kernels, golden bytes, a package and a network from start to finish, the
command and the C library. Of a checkout, but with the corepress that is installed:

    python -m pytest --noconftest -c /dev/null -p no:cacheprovider tests/smoke/test_smoke.py
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import shutil
import struct
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import corepress as cp
from corepress import coreml, neural_network


def weights(*shape: int, dtype: Any = np.float16) -> np.ndarray:
    """Like trained ones, of many magnitudes; made with integers alone, so that they are the same on every machine."""
    steps = np.arange(4 * int(np.prod(shape)), dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    mixed = (steps ^ (steps >> np.uint64(31))) * np.uint64(0xBF58476D1CE4E5B9)
    sums = (mixed >> np.uint64(56)).astype(np.int64).reshape(*shape, 4).sum(axis=-1) - 510
    return (sums * np.abs(sums) / 2**16).astype(dtype)


def digest(parts: Iterable[bytes]) -> str:
    """The first digits of a hash."""
    return hashlib.sha256(b"".join(parts)).hexdigest()[:16]


def files_of(package: Path) -> list[bytes]:
    """The content of a package's files, or of a file, in the order of their names."""
    files = sorted((file for file in [package, *package.rglob("*")] if file.is_file()), key=Path.as_posix)
    return [file.read_bytes() for file in files]


def test_versions_agree():
    try:
        installed = metadata.version("corepress")
    except metadata.PackageNotFoundError:
        pytest.skip("corepress is not installed but on the path")
    assert cp.__version__ == installed


# --- Arrays ---------------------------------------------------------------------------------------------------------

HALF, FLOAT = weights(60, 50), weights(60, 50, dtype=np.float32)
GROUPS = {"granularity": "per_grouped_channel", "group_size": 10}
BLOCKS = {"granularity": "per_block", "block_size": 25}
GOLDEN: dict[str, tuple[Callable[[], cp.CompressedTensor], str]] = {
    "palettize": (lambda: cp.palettize(HALF, nbits=4), "f1e74e587f2366c7"),
    "palettize float32": (lambda: cp.palettize(FLOAT, nbits=6), "076fbc93ca76123c"),
    "palettize groups": (lambda: cp.palettize(HALF, nbits=2, **GROUPS), "087e5a502068c3e5"),
    "palettize pairs": (lambda: cp.palettize(FLOAT, nbits=4, cluster_dim=2), "886af1e99230a890"),
    "quantize": (lambda: cp.quantize(HALF, dtype="int8"), "d085736a740eca2e"),
    "quantize blocks": (lambda: cp.quantize(FLOAT, dtype="uint4", mode="linear", **BLOCKS), "7be5474a77921aaa"),
    "quantize, scales searched": (lambda: cp.quantize(HALF, dtype="int4", scale_search="mse"), "b3368aedeb319f21"),
    "prune": (lambda: cp.prune(FLOAT, target_sparsity=0.75), "6dcde8143a849496"),
    "prune 2 of 4": (lambda: cp.prune(HALF, n_m_ratio=(2, 4), dim=0), "c4f158cb6cae6569"),
    "prune, palettize": (lambda: cp.palettize(cp.prune(FLOAT, target_sparsity=0.5), nbits=2), "240eece7bced5b6c"),
    "prune, quantize": (lambda: cp.quantize(cp.prune(HALF, target_sparsity=0.5), dtype="int8"), "03f1e888dad3b167"),
    "palettize, quantize": (lambda: cp.quantize(cp.palettize(HALF, nbits=4), dtype="int8"), "b0ca7e836ecf8a1f"),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_arrays_give_the_golden_bytes(name):
    compress, golden = GOLDEN[name]
    tensor = compress()
    arrays = [value for _, value in sorted(vars(tensor).items()) if isinstance(value, np.ndarray)]
    little = [array.astype(array.dtype.newbyteorder("<")) for array in [*arrays, tensor.dense()]]
    assert digest(array.tobytes() for array in little) == golden


def test_every_instruction_set_of_this_machine_gives_the_same_bytes():
    code = "import corepress as cp, numpy as np; print(cp.palettize(np.arange(-3e4, 3e4) ** 3, nbits=8).lut.tobytes())"
    environments = [{**os.environ, "COREPRESS_SIMD": level} for level in cp.simd_levels()]
    assert len({run(sys.executable, "-c", code, env=environment) for environment in environments}) == 1


def test_packing_and_kmeans_in_parts():
    codes = np.arange(100, dtype=np.uint8) % 8
    packed = cp.kernels.pack_bits(codes, 3)
    assert packed.nbytes == 38
    assert np.array_equal(cp.kernels.unpack_bits(packed, 3, 100), codes)
    found = cp.kernels.kmeans1d([1, 2, 10, 11, 100], k=3)
    assert found.centroids.tolist() == [1.5, 10.5, 100]
    assert found.inertia == 1


# --- Models, written here byte by byte ------------------------------------------------------------------------------


def varint(number: int) -> bytes:
    """A whole number of a protobuf message."""
    *low, last = [number >> shift & 127 for shift in range(0, max(number.bit_length(), 1), 7)]
    return bytes([*(each | 128 for each in low), last])


def message(*fields: tuple[int, int | str | bytes]) -> bytes:
    """A protobuf message of numbered fields: integers, texts, other messages."""
    parts = []
    for number, value in fields:
        if isinstance(value, int):
            parts += [varint(number << 3), varint(value)]
        else:
            content = value.encode() if isinstance(value, str) else value
            parts += [varint(number << 3 | 2), varint(len(content)), content]
    return b"".join(parts)


def write_package(path: Path) -> None:
    """A program for iOS 18 of two matrices, one of float16 and one of float32, applied to an input."""
    matrices = {"first": weights(64, 96), "second": weights(48, 64, dtype=np.float32)}
    file = bytearray(struct.pack("<II56x", len(matrices), 2))
    operations = []
    for name, matrix in matrices.items():
        kind = {2: 1, 4: 2}[matrix.itemsize]
        offset, data = len(file), len(file) + 64
        file += (
            struct.pack("<IIQQ40x", 0xDEADBEEF, kind, matrix.nbytes, data)
            + matrix.astype(f"<f{matrix.itemsize}").tobytes()
        )
        file += bytes(-len(file) % 64)
        sizes = [(3, message((1, message((1, size))))) for size in matrix.shape]
        tensor = message((1, message((1, {2: 10, 4: 11}[matrix.itemsize]), (2, matrix.ndim), *sizes)))
        value = message((2, tensor), (5, message((1, "@model_path/weights/weight.bin"), (2, offset))))
        operations.append(
            message((1, "const"), (3, message((1, name), (2, tensor))), (5, message((1, "val"), (2, value))))
        )
        operands = [
            (2, message((1, operand), (2, message((1, message((1, source)))))))
            for operand, source in (("weight", name), ("x", "x"))
        ]
        operations.append(message((1, "linear"), *operands, (3, message((1, f"{name}_result")))))
    block = message((2, "second_result"), *((3, operation) for operation in operations))
    function = message((1, message((1, "x"))), (2, "CoreML8"), (3, message((1, "CoreML8"), (2, block))))
    program = message((1, 1), (2, message((1, "main"), (2, function))))
    folder = path / "Data" / "com.apple.CoreML"
    (folder / "weights").mkdir(parents=True)
    (folder / "weights" / "weight.bin").write_bytes(file)
    (folder / "model.mlmodel").write_bytes(message((1, 9), (502, program)))
    common = {"author": "com.apple.CoreML", "description": ""}
    entries = {
        "1": {**common, "name": "model.mlmodel", "path": "com.apple.CoreML/model.mlmodel"},
        "2": {**common, "name": "weights", "path": "com.apple.CoreML/weights"},
    }
    manifest = {"fileFormatVersion": "1.0.0", "itemInfoEntries": entries, "rootModelIdentifier": "1"}
    (path / "Manifest.json").write_text(json.dumps(manifest))


def write_network(path: Path) -> None:
    """A neural network of one layer."""
    matrix = weights(40, 60, dtype=np.float32).astype("<f4")
    params = message((1, 60), (2, 40), (20, message((1, matrix.tobytes()))))
    layer = message((1, "dense"), (2, "x"), (3, "y"), (140, params))
    path.write_bytes(message((1, 1), (500, message((1, layer)))))


@pytest.fixture
def source(tmp_path) -> Path:
    """A small package."""
    write_package(tmp_path / "source.mlpackage")
    return tmp_path / "source.mlpackage"


def run(*command: str | Path, **options: Any) -> str:
    """What a command prints, which must succeed."""
    finished = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=50, **options)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished.stdout


def corepress(*arguments: str | Path) -> str:
    """What the command prints: the one installed beside this Python, or the module where only that is on the path."""
    command = shutil.which("corepress", path=sysconfig.get_path("scripts"))
    return run(*([command] if command else [sys.executable, "-m", "corepress"]), *arguments)


STEPS = {
    "palettize": ({"palettize": {"nbits": 4}}, "1ff30d1516122e38"),
    "quantize": ({"quantize": {"dtype": "int8"}}, "ad92df72d8ae793d"),
    "prune": ({"prune": {"target_sparsity": 0.5}}, "232a3a4bf1638de1"),
    "joint": ([{"prune": {"target_sparsity": 0.5}}, {"palettize": {"nbits": 2}}], "370e0b7c6de16bef"),
}


@pytest.mark.parametrize("name", STEPS)
def test_packages_from_python(name, source, tmp_path):
    config, golden = STEPS[name]
    smaller, plain = tmp_path / "smaller.mlpackage", tmp_path / "plain.mlpackage"
    assert coreml.compress(source, smaller, config).compressed == 2
    assert digest(files_of(smaller)) == golden
    assert coreml.verify(source, smaller).ok
    coreml.decompress(smaller, plain)
    assert [weight.max_abs for weight in coreml.compare(smaller, plain).weights] == [0, 0]


def test_packages_from_the_command(source, tmp_path):
    smaller = tmp_path / "smaller.mlpackage"
    corepress("palettize", source, "-o", smaller, "--nbits", "4")
    assert digest(files_of(smaller)) == STEPS["palettize"][1]
    for command in ("verify", "compare"):
        json.loads(corepress(command, source, smaller, "--json"))
    assert json.loads(corepress("inspect", smaller, "--json"))
    corepress("decompress", smaller, "-o", tmp_path / "plain.mlpackage")


def test_networks(tmp_path):
    source, smaller = tmp_path / "source.mlmodel", tmp_path / "smaller.mlmodel"
    write_network(source)
    corepress("quantize", source, "-o", smaller, "--nbits", "4", "--mode", "kmeans_lut")
    assert digest(files_of(smaller)) == "e7953b5bdfe6cc02"
    assert neural_network.verify(source, smaller).ok


# --- C --------------------------------------------------------------------------------------------------------------


def test_the_c_library_gives_the_same_bytes():
    class Shape(ctypes.Structure):
        _fields_ = (("dtype", ctypes.c_int), ("rank", ctypes.c_int), ("shape", ctypes.POINTER(ctypes.c_int64)))

    class Groups(ctypes.Structure):
        _fields_ = (("axis", ctypes.c_int), ("size", ctypes.c_int64))

    library = ctypes.CDLL(cp.get_library())
    library.corepress_version.restype = ctypes.c_char_p
    assert library.corepress_version().decode() == cp.__version__
    shape = Shape(0, HALF.ndim, (ctypes.c_int64 * HALF.ndim)(*HALF.shape))
    table, indices = np.empty(16, np.float16), np.empty(HALF.size // 2, np.uint8)
    library.corepress_palettize.argtypes = [
        *(ctypes.c_void_p, ctypes.POINTER(Shape), ctypes.c_int, ctypes.c_int, Groups),
        *(ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p),
    ]
    status = library.corepress_palettize(
        HALF.ctypes.data, shape, 4, 0, Groups(0, 0), None, 1, table.ctypes.data, indices.ctypes.data
    )
    expected = cp.palettize(HALF, nbits=4)
    assert status == 0
    assert np.array_equal(table, expected.lut.ravel())
    assert np.array_equal(indices, expected.indices)


def test_what_c_hosts_compile_with_is_there():
    assert "corepress_palettize" in (Path(cp.get_include()) / "corepress.h").read_text()
    assert (Path(cp.get_cmake_dir()) / "corepress-config.cmake").is_file()


def test_the_trained_network_of_the_demo_is_there(tmp_path):
    from corepress.demo.digits import build_digits, load_digits

    build_digits(tmp_path / "Digits.mlpackage")
    assert len(coreml.inspect(tmp_path / "Digits.mlpackage").weights) == len(load_digits().weights)
