"""`corepress.optimize.coreai` in place of ``coreai_opt.coreai_utils``: the same forms, errors that are never larger."""

from __future__ import annotations

import inspect
import logging
import subprocess
import sys

import numpy as np
import pytest
from coreai_opt_helpers import linear_layers, program_of, weights_of
from dropin_helpers import TOLERANCE, normal, squared_error

from corepress.coreai.program.identity import stored_digest
from corepress.coreai.program.program import Program
from corepress.errors import FormatError
from corepress.specs import Palettize, Quantize
from helpers.processes import TIMEOUT

pytest.importorskip("coreai_opt")
torch = pytest.importorskip("torch")
pytest.importorskip("coreai_torch")
HAS_LUT_DTYPE = hasattr(Palettize, "lut_dtype")
HAS_SCALE_DTYPE = hasattr(Quantize, "scale_dtype")


@pytest.fixture(scope="module")
def peer():
    logging.getLogger("coreai_opt").setLevel(logging.ERROR)
    import coreai_opt.coreai_utils

    return coreai_opt.coreai_utils


@pytest.fixture(scope="module")
def ours():
    import corepress.optimize.coreai

    return corepress.optimize.coreai


WEIGHTS = [normal(128, 96, seed=3), normal(64, 128, seed=4)]


@pytest.fixture(scope="module")
def program():
    return program_of(*linear_layers(WEIGHTS))


def storing(program) -> list[str]:
    """The types of the operations that store weights."""
    found = []

    def look(operation):
        from coreai._compiler.ir import WalkResult

        name = operation.name.removeprefix("coreai.")
        if "dense" in name or "sparse" in name or name == "blockwise_shift_scale":
            found.append(name)
        return WalkResult.ADVANCE

    program._module._mlir_module.operation.walk(look)
    return found


def compared(peer, ours, program, verb, *arguments, **options):
    theirs = getattr(peer, verb)(program, *arguments, **options)
    own = getattr(ours, verb)(program, *arguments, **options)
    assert type(own) is type(theirs)
    assert set(storing(own)) == set(storing(theirs))
    errors = []
    for each in (theirs, own):
        found = weights_of(each)
        assert [(one.shape, one.dtype) for one in found] == [(one.shape, one.dtype) for one in WEIGHTS]
        errors.append(sum(squared_error(one, other) for one, other in zip(found, WEIGHTS, strict=True)))
    return errors


@pytest.mark.parametrize("verb", ["palettize_weights", "quantize_weights", "sparsify_weights"])
def test_signatures(peer, ours, verb):
    def described(function):
        parameters = inspect.signature(function).parameters.values()
        return [(each.name, each.kind, str(each.default)) for each in parameters]

    assert described(getattr(ours, verb)) == described(getattr(peer, verb))


@pytest.mark.parametrize("name", ["DType", "QScheme", "CompressionGranularity"])
def test_enumerations(peer, ours, name):
    def described(kind):
        return {each.name: (each.value, str(each)) for each in kind}

    assert described(getattr(ours, name)) == described(getattr(peer, name))
    assert all(getattr(ours, name)[each.name] == each for each in getattr(peer, name))


def test_types_of_integers(peer, ours):
    assert [each.is_int() for each in ours.DType] == [each.is_int() for each in peer.DType]


@pytest.mark.parametrize(
    "options",
    [
        {"n_bits": 4},
        {"n_bits": 8},
        {"granularity": "per_grouped_channel", "group_size": 8},
        {"n_bits": 2, "granularity": "per_channel"},
    ],
    ids=str,
)
def test_palettes(peer, ours, program, options):
    options = options | {"enable_fast_kmeans_mode": False, "num_kmeans_workers": 1}
    theirs, own = compared(peer, ours, program, "palettize_weights", None, **options)
    assert own <= theirs * (1 + TOLERANCE)


def test_palettes_of_vectors(peer, ours, program):
    options = {"cluster_dim": 2, "enable_fast_kmeans_mode": False, "num_kmeans_workers": 1}
    theirs, own = compared(peer, ours, program, "palettize_weights", None, **options)
    assert own <= theirs * 1.02


def test_palettes_of_three_bits(ours, program):
    found = weights_of(ours.palettize_weights(program, None, n_bits=3))
    assert [len(np.unique(each)) for each in found] == [8, 8]


@pytest.mark.parametrize(
    ("dtype", "options"),
    [
        ("int8", {}),
        ("uint8", {"qscheme": "asymmetric"}),
        ("int4", {"granularity": "per_block"}),
        ("uint4", {"granularity": "per_tensor"}),
        ("fp8_e4m3fn", {}),
        ("fp8_e4m3fn", {"scale_dtype": "fp8_e8m0fnu"}),
    ],
    ids=str,
)
def test_integers(peer, ours, program, dtype, options):
    kinds = {"qscheme": peer.QScheme, "granularity": peer.CompressionGranularity, "scale_dtype": peer.DType}
    options = {name: kinds[name](value) for name, value in options.items()}
    theirs, own = compared(peer, ours, program, "quantize_weights", peer.DType(dtype), **options)
    assert own <= theirs * (1 + (TOLERANCE if "int" in dtype else 0.01))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"block_size": 4},
        {"target_sparsity": None, "n_m_ratio": (2, 4)},
        {"palettize_nbits": 4},
        {"quantize_dtype": "int8"},
    ],
    ids=str,
)
def test_sparsity(peer, ours, program, options):
    if "quantize_dtype" in options:
        options = options | {"quantize_dtype": peer.DType("int8")}
    theirs, own = compared(peer, ours, program, "sparsify_weights", **options)
    assert own <= theirs * (1 + 2e-3)


@pytest.mark.skipif(not HAS_LUT_DTYPE, reason="tables have the weight's dtype")
@pytest.mark.parametrize("dtype", ["INT8", "FP8_E4M3FN"])
def test_types_of_tables(ours, program, dtype):
    found = weights_of(ours.palettize_weights(program, ours.DType[dtype]))
    assert [len(np.unique(each)) <= 16 for each in found] == [True, True]


def test_the_program_is_left_as_it_was_or_changed_in_place(ours):
    program = program_of(*linear_layers(WEIGHTS))
    result = ours.quantize_weights(program, "int8")
    assert storing(program) == []
    assert storing(result) == ["blockwise_shift_scale"] * 2
    assert ours.quantize_weights(program, "int8", in_place=True) is not None
    assert storing(program) == ["blockwise_shift_scale"] * 2
    assert ours.quantize_weights(program, "int4") is not program


@pytest.mark.parametrize(
    ("verb", "arguments", "steps"),
    [
        ("palettize_weights", {"lut_dtype": None, "n_bits": 6}, {"palettize": {"nbits": 6}}),
        ("quantize_weights", {"dtype": "int4"}, {"quantize": {"dtype": "int4"}}),
        ("sparsify_weights", {}, {"prune": {"target_sparsity": 0.5}}),
    ],
    ids=str,
)
def test_programs_in_memory_and_in_files_become_the_same_bytes(ours, tmp_path, verb, arguments, steps):
    from coreai.authoring import AIModelAsset

    from corepress import coreai

    program_of(*linear_layers(WEIGHTS)).save_asset(tmp_path / "source.aimodel")
    coreai.compress(tmp_path / "source.aimodel", tmp_path / "file.aimodel", steps, joint_compression=False)
    program = AIModelAsset.load(tmp_path / "source.aimodel").program
    for name in ("first", "second"):
        getattr(ours, verb)(program, **arguments).save_asset(tmp_path / f"{name}.aimodel")
    expected = (tmp_path / "file.aimodel" / "main.mlirb").read_bytes()
    assert (tmp_path / "first.aimodel" / "main.mlirb").read_bytes() == expected
    # The names that the first result took cannot be those of the second, which differs in nothing else.
    weights = [Program(tmp_path / f"{name}.aimodel").weights for name in ("file", "second")]
    assert [stored_digest(each) for each in weights[1]] == [stored_digest(each) for each in weights[0]]


@pytest.mark.parametrize(("size", "message"), [(1000, "fewer than the"), (60_000, "more than the")])
def test_data_in_memory_of_another_size_than_its_type_asks_for(ours, size, message):
    from coreai._compiler.ir import DenseResourceElementsAttr

    program = program_of(*linear_layers(WEIGHTS))
    constant = next(each for each in Program.copy_of(program).weights).places[0].operation
    data = np.zeros(size, np.uint8)
    with constant.context:
        value = DenseResourceElementsAttr.get_from_buffer(data, "wrong", constant.results[0].type, alignment=16)
    wrong = Program.copy_of(program)
    wrong.weights[0].places[0].operation.attributes["value"] = value
    with pytest.raises(FormatError, match=message):
        ours.quantize_weights(wrong.program, "int8")


def test_small_weights_and_what_cannot_be_compressed(ours, caplog):
    bad = WEIGHTS[1].copy()
    bad[0, 0] = np.inf
    program = program_of(*linear_layers([WEIGHTS[0], bad]))

    def warnings():
        return [each.getMessage() for each in caplog.records if each.name == "corepress"]

    result = ours.palettize_weights(program, None, weight_num_threshold=64 * 128)
    assert storing(result) == ["lut_to_dense"]
    assert not warnings()
    result = ours.palettize_weights(program, None)
    assert storing(result) == ["lut_to_dense"]
    (warning,) = warnings()
    assert warning.startswith("palettize_weights: ")
    assert "infinite" in warning


@pytest.mark.parametrize(
    ("verb", "arguments", "message"),
    [
        ("palettize_weights", {"lut_dtype": "int4"}, "lut_dtype must be one of 'int8'"),
        ("palettize_weights", {"lut_dtype": None, "granularity": "per_block"}, "granularity must be one of"),
        ("palettize_weights", {"lut_dtype": None, "n_bits": 5}, "nbits"),
        ("palettize_weights", {"lut_dtype": None, "cluster_dim": 2, "enable_per_channel_scale": True}, "not supported"),
        ("quantize_weights", {"dtype": "fp8_e8m0fnu"}, "dtype must be one of"),
        ("quantize_weights", {"dtype": "fp8_e5m2", "qscheme": "asymmetric"}, "must be 'symmetric'"),
        ("quantize_weights", {"dtype": "int8", "scale_dtype": "fp8_e8m0fnu"}, "scale_dtype must be None"),
        ("quantize_weights", {"dtype": "fp4_e2m1fn"}, "needs granularity 'per_block' and block_size 32"),
        ("sparsify_weights", {"n_m_ratio": (2, 4)}, "either target_sparsity or n_m_ratio"),
        ("sparsify_weights", {"quantize_dtype": "int8", "palettize_nbits": 4}, "cannot go together"),
        ("sparsify_weights", {"quantize_dtype": "int4"}, "quantize_dtype must be one of"),
    ],
    ids=str,
)
def test_arguments_out_of_range(ours, program, verb, arguments, message):
    with pytest.raises(ValueError, match=message):
        getattr(ours, verb)(program, **arguments)


def test_neither_coreai_opt_nor_torch_is_imported(program, tmp_path):
    program.save_asset(tmp_path / "source.aimodel")
    code = f"""
import sys
from coreai.authoring import AIModelAsset
import corepress.optimize.coreai as coreai_utils
result = coreai_utils.quantize_weights(AIModelAsset.load({str(tmp_path / "source.aimodel")!r}).program, "int8")
result.save_asset({tmp_path!r} / "result.aimodel")
sys.exit(any(name in sys.modules for name in ("torch", "coreai_opt")))
""".replace("PosixPath(", "__import__('pathlib').Path(")
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=TIMEOUT, check=False)
    assert run.returncode == 0, run.stderr[-2000:]
    assert (tmp_path / "result.aimodel" / "main.mlirb").stat().st_size < 0.5 * sum(each.nbytes for each in WEIGHTS)
