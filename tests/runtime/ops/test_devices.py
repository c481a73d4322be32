"""Operations make tensors on the device of their inputs; PyTorch refuses to mix the meta device with the CPU."""

from __future__ import annotations

import pytest
import torch

from corepress.coreml.format.versions import IOS15, IOS18
from corepress.runtime.torch import ops  # noqa: F401
from corepress.runtime.torch.registry import implementation_of

X = torch.zeros(2, 3, 4, 6)
INDICES = torch.zeros(2, dtype=torch.int32)
SLICE = {"begin": [0, 0, 3, 0], "end": [2, 3, 0, 6], "stride": [1, 1, -1, 2]}
CALLS = [
    *(
        (name, [X, X[0]], {})
        for name in ["add", "sub", "mul", "real_div", "floor_div", "mod", "pow", "maximum", "minimum", "less"]
    ),
    *((name, [INDICES, INDICES], {}) for name in ["real_div", "floor_div", "mod", "pow", "equal"]),
    *(
        (name, [X], {})
        for name in ["abs", "erf", "exp", "inverse", "log", "round", "rsqrt", "sign", "square", "tanh", "logical_not"]
    ),
    *(("cast", [x], {"dtype": dtype}) for x in (X, INDICES) for dtype in ("fp16", "bool", "int32", "uint16", "int8")),
    ("clip", [X], {"alpha": 0.0, "beta": 1.0}),
    ("threshold", [X], {"alpha": 0.0}),
    *(
        (f"reduce_{name}", [X], {"axes": [1, -1]})
        for name in ["l1_norm", "l2_norm", "log_sum_exp", "max", "mean", "prod", "sum"]
    ),
    ("reduce_mean", [INDICES], {}),
    ("reduce_argmax", [X], {}),
    ("gather", [X, INDICES], {"axis": 1}),
    ("gather", [X[0, 0], INDICES.reshape(1, 2)], {}),
    ("gather", [X, X[..., 0, 0].int()], {"axis": 2, "batch_dims": 1}),
    ("gather_along_axis", [X, X.int()], {"axis": 1}),
    ("gather_nd", [X, X[0, 0, :, :2].int()], {}),
    ("gather_nd", [X, X[..., 0, :2].int()], {"batch_dims": 1}),
    *(("scatter", [X, INDICES, X[:, :2]], {"axis": 1, "mode": mode}) for mode in ("update", "sub", "div", "max")),
    ("scatter_along_axis", [X, X.int(), X], {}),
    ("scatter_nd", [X, X[0, 0, :, :2].int(), torch.zeros(4, 4, 6)], {"mode": "mul"}),
    ("argsort", [X], {}),
    ("band_part", [X], {"lower": 1, "upper": 2}),
    ("concat", [[X, X]], {"axis": 1, "interleave": True}),
    ("cumsum", [X], {"exclusive": True, "reverse": True}),
    ("fill", [X[0, 0, 0, 0]], {"shape": [2, 3]}),
    ("fill_like", [X, X[0, 0, 0, 0]], {}),
    ("one_hot", [INDICES], {"one_hot_vector_size": 4}),
    *(("pad", [X], {"pad": [1, 1], "mode": mode}) for mode in ("constant", "reflect", "replicate")),
    ("shape", [X], {}),
    ("split", [X], {"axis": 1, "num_splits": 3}),
    ("tile", [X], {"reps": [1, 2, 1, 1]}),
    ("topk", [X], {"k": 2}),
    ("batch_to_space", [X[:, :, :2]], {"block_shape": [2, 1], "crops": [[1, 0], [0, 1]]}),
    ("space_to_batch", [X], {"block_shape": [2, 2], "paddings": [[1, 1], [0, 0]]}),
    ("reverse_sequence", [X, INDICES], {"seq_axis": 2}),
    ("slice_by_index", [X], SLICE),
    ("slice_update", [X, X[:, :, 1:, ::2]], SLICE),
    ("slice_by_size", [X], {"begin": [0, 0, 1, 1], "size": [2, 1, -1, 2]}),
    ("sliding_windows", [X], {"axis": 2, "size": 2}),
    ("select", [X > 0, X, X], {}),
    ("list_gather", [[X, X]], {"indices": [0, 1]}),
    ("list_write", [[X], X], {"index": 3}),
    ("list_length", [[X]], {}),
]


def to_meta(value):
    return [to_meta(each) for each in value] if isinstance(value, list) else value.to("meta")


@pytest.mark.parametrize("version", [IOS15, IOS18])
@pytest.mark.parametrize("call", range(len(CALLS)), ids=lambda place: f"{CALLS[place][0]}{place}")
def test_results_are_where_the_inputs_are(call, version):
    operation, values, options = CALLS[call]
    implementation = implementation_of(operation, version)
    if implementation is None:
        pytest.skip("an operation of a later version")
    expected = implementation.function(*values, **options)
    found = implementation.function(*to_meta(values), **options)
    pairs = zip(expected, found, strict=True) if isinstance(expected, tuple | list) else [(expected, found)]
    for on_cpu, on_meta in pairs:
        assert on_meta.device.type == "meta"
        assert on_meta.shape == on_cpu.shape
        assert on_meta.dtype == on_cpu.dtype
