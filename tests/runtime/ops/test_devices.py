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
IMAGES, KERNELS, CHANNELS = torch.rand(2, 3, 5, 6), torch.zeros(3, 3, 2, 2), torch.ones(3)
STEPS, STATE = torch.zeros(4, 2, 3), torch.zeros(2, 5)
WINDOWS = {"kernel_sizes": [3, 2], "strides": [2, 2], "pad_type": "custom", "pad": [2, 2, 1, 1], "ceil_mode": True}
RESAMPLING = {"sampling_mode": "bilinear", "padding_value": 1.0, "align_corners": False}
ZERO_TO_ONE = {"coordinates_mode": "normalized_zero_to_one"}
BOXES = torch.tensor([[0.0, 0, 2, 2], [1, 1, 4, 3]])


def recurrent(gates):
    return torch.zeros(gates * 5, 3), torch.zeros(gates * 5, 5), torch.zeros(gates * 5)


CALLS += [
    *((name, [X], {}) for name in ["gelu", "relu", "relu6", "sigmoid", "silu", "softmax", "softplus", "softsign"]),
    *((name, [X], {"alpha": 0.5}) for name in ["elu", "leaky_relu", "thresholded_relu"]),
    *(
        (name, [X], {"alpha": 0.5, "beta": 0.5})
        for name in ["clamped_relu", "linear_activation", "scaled_tanh", "sigmoid_hard"]
    ),
    ("prelu", [X, CHANNELS], {}),
    ("softplus_parametric", [X, CHANNELS, CHANNELS], {}),
    *(("conv", [IMAGES, KERNELS, CHANNELS], {"pad_type": kind}) for kind in ("valid", "same", "same_lower")),
    ("conv_quantized", [IMAGES, KERNELS.byte(), None, CHANNELS, CHANNELS], {"quantization_type": "linear"}),
    ("conv_transpose", [IMAGES, KERNELS, CHANNELS], {"strides": [3, 3], "output_shape": [2, 3, 20, 19]}),
    *((name, [IMAGES], WINDOWS) for name in ("max_pool", "avg_pool", "l2_pool")),
    ("avg_pool", [IMAGES], WINDOWS | {"exclude_padding_from_average": True}),
    ("linear", [X, torch.zeros(2, 6)], {}),
    ("linear", [X.int(), torch.zeros(2, 6).int()], {}),
    ("matmul", [X, X], {"transpose_y": True}),
    ("einsum", [[X, X.permute(0, 3, 2, 1)]], {"equation": "nchw,nwhu->nchu"}),
    ("batch_norm", [X, CHANNELS, CHANNELS, CHANNELS, CHANNELS], {}),
    ("instance_norm", [X, CHANNELS, CHANNELS], {}),
    *(("layer_norm", [X], {"axes": axes}) for axes in (None, [-1], [1, 3])),
    ("l2_norm", [X], {}),
    ("local_response_norm", [X], {"size": 3}),
    ("rnn", [STEPS, STATE, *recurrent(1)], {}),
    ("gru", [STEPS, STATE, *recurrent(3)], {}),
    ("lstm", [STEPS, STATE, STATE, *recurrent(4)], {"clip": 1.0}),
    ("lstm", [STEPS, STATE, STATE, *recurrent(4)], {}),
    *(
        ("resize_bilinear", [IMAGES], {"target_size_height": 7, "target_size_width": 3, "sampling_mode": mode})
        for mode in ("DEFAULT", "UNALIGN_CORNERS")
    ),
    ("resize_nearest_neighbor", [IMAGES], {"target_size_height": 7, "target_size_width": 3}),
    ("upsample_nearest_neighbor", [IMAGES], {"scale_factor_height": 2, "scale_factor_width": 1.5}),
    ("upsample_bilinear", [IMAGES], {"scale_factor_height": 2, "scale_factor_width": 1.5}),
    ("crop", [IMAGES], {"crop_height": [1, 1], "crop_width": [0, 2]}),
    *(
        ("resample", [IMAGES, IMAGES[:, :2, :, :2]], RESAMPLING | ZERO_TO_ONE | {"padding_mode": mode})
        for mode in ("constant", "symmetric")
    ),
    ("scaled_dot_product_attention", [X, X, X, X[0, 0, 0, :4] >= 0], {}),
    ("quantize", [X, CHANNELS, CHANNELS.char()], {"axis": 1, "output_dtype": "int8"}),
    ("dequantize", [X.char(), CHANNELS, CHANNELS.char()], {"axis": 1}),
    ("random_categorical", [X], {"size": 3}),
]


def to_meta(value):
    if isinstance(value, list):
        return [to_meta(each) for each in value]
    return value if value is None else value.to("meta")


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


@pytest.mark.parametrize("mode", ["DEFAULT", "UNALIGN_CORNERS"])
def test_boxes_are_cut_where_the_images_are(mode):
    found = implementation_of("crop_resize", IOS18).function(
        IMAGES.to("meta"), BOXES.to("meta"), target_height=3, sampling_mode=mode
    )
    assert (found.device.type, found.shape) == ("meta", (2, 3, 3, 1))
    found = implementation_of("crop_resize", IOS15).function(
        IMAGES.to("meta"), BOXES.reshape(2, 1, 4, 1, 1).to("meta"), sampling_mode=mode
    )
    assert (found.device.type, found.shape) == ("meta", (2, 2, 3, 1, 1))
