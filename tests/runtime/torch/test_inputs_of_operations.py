"""Inputs of operations reach their functions by name: tuples, those that are left out, and those that are computed."""

from __future__ import annotations

import numpy as np
import pytest

from corepress.coreml.format.versions import IOS16, IOS17, IOS18

X = {"x": ((2, 4, 4, 4), "float32")}
SEQUENCE = {"x": ((3, 2, 4), "float32")}


def run(save, load, body, inputs, x, **options):
    (found,) = load(save(body, inputs=inputs, **options)).predict({"x": x}).values()
    return found


@pytest.fixture
def x(rng):
    return rng.standard_normal((2, 4, 4, 4)).astype(np.float32)


def test_a_tuple_of_factors(mb, save, load, x):
    found = run(save, load, lambda x: mb.einsum(values=(x, x), equation="nchw,nwhu->nchu"), X, x)
    np.testing.assert_allclose(found, np.einsum("nchw,nwhu->nchu", x, x), rtol=1e-4, atol=1e-5)


def test_inputs_between_others_are_left_out(mb, save, load, rng):
    x = rng.standard_normal((3, 2, 4)).astype(np.float32)
    weight_ih, weight_hh = (rng.standard_normal((12, size)).astype(np.float32) for size in (4, 3))
    bias, zeros = rng.standard_normal(12).astype(np.float32), np.zeros((2, 3), np.float32)

    def body(x, **options):
        weights = {"weight_ih": weight_ih, "weight_hh": weight_hh}
        if "peephole" in options:
            weights |= {"bias": bias}
        return mb.lstm(x=x, initial_h=zeros, initial_c=zeros, **weights, **options)[0]

    plain = run(save, load, lambda x: body(x), SEQUENCE, x)
    no_peephole = run(save, load, lambda x: body(x, peephole=np.zeros(9, np.float32)), SEQUENCE, x)
    assert not np.allclose(plain, no_peephole)
    bidirectional = run(
        save,
        load,
        lambda x: mb.lstm(
            x=x,
            initial_h=np.zeros((2, 6), np.float32),
            initial_c=np.zeros((2, 6), np.float32),
            weight_ih=weight_ih,
            weight_hh=weight_hh,
            weight_ih_back=weight_ih,
            weight_hh_back=weight_hh,
            direction="bidirectional",
        )[0],
        SEQUENCE,
        x,
    )
    np.testing.assert_allclose(bidirectional[..., :3], plain, rtol=1e-5, atol=1e-6)
    reverse = run(save, load, lambda x: body(x, direction="reverse"), SEQUENCE, x)
    np.testing.assert_allclose(bidirectional[..., 3:], reverse, rtol=1e-5, atol=1e-6)


def test_inputs_of_later_versions(mb, save, load, x, rng):
    given = rng.standard_normal((3, 2, 4)).astype(np.float32)
    weights = {
        "weight_ih": np.ones((9, 4), np.float32),
        "weight_hh": np.ones((9, 3), np.float32),
        "initial_h": np.ones((2, 3), np.float32),
    }
    biases = {"input_bias": np.ones(9, np.float32), "bias": -np.ones(9, np.float32)}
    after, before = (
        run(save, load, lambda x, flag=flag: mb.gru(x=x, **weights, **biases, reset_after=flag)[0], SEQUENCE, given)
        for flag in (True, False)
    )
    assert not np.allclose(after, before)
    cut = {"target_height": 2, "target_width": 2, "sampling_mode": "ALIGN_CORNERS"}
    box = np.array([[1, 0, 4, 3]] * 2, np.float32)
    new = run(save, load, lambda x: mb.crop_resize(x=x, boxes=box, pad_value=7.0, **cut), X, x, version=IOS17)
    np.testing.assert_allclose(new, np.stack([x[:, :, 1, [0, 3]], np.full((2, 4, 2), 7)], 2), rtol=1e-6)
    roi = np.array([1, 0, 0, 3, 3], np.float32).reshape(1, 1, 5, 1, 1)
    old = run(save, load, lambda x: mb.crop_resize(x=x, roi=roi, **cut), X, x, version=IOS16)
    np.testing.assert_allclose(old[0, 0], x[1][:, ::3, ::3], rtol=1e-6)
    scaled = {"scale_factor_height": 2, "scale_factor_width": 2, "align_corners": False}
    found = run(
        save, load, lambda x: mb.upsample_bilinear(x=x, half_pixel_centers=False, **scaled), X, x, version=IOS16
    )
    np.testing.assert_allclose(found[:, :, ::2, ::2], x, rtol=1e-6)


def test_a_computed_shape(mb, save, load, x):
    def body(x):
        shape = mb.add(x=mb.shape(x=x), y=np.int32([0, 0, 4, -2]))
        return mb.resize(x=x, shape=shape, resized_dims=np.uint32(2), interpolation_mode="NEAREST_NEIGHBOR")

    np.testing.assert_array_equal(run(save, load, body, X, x), x.repeat(2, 2)[..., 1::2])


def test_random_values_of_a_computed_shape(mb, save, load, x):
    def body(x):
        return mb.random_uniform(shape=mb.shape(x=x), low=2.0, high=3.0, seed=4)

    path = save(body, inputs=X)
    (first,), (again,) = (load(path).predict({"x": x}).values() for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert first.shape == x.shape
    assert first.min() >= 2
    assert first.max() < 3


def test_a_mask_of_attention(mb, save, load, x):
    mask = np.tri(4, dtype=bool)
    found = run(
        save,
        load,
        lambda x: mb.scaled_dot_product_attention(query=x, key=x, value=x, attn_mask=mask),
        X,
        x,
        version=IOS18,
    )
    np.testing.assert_allclose(found[:, :, 0], x[:, :, 0], rtol=1e-6)


def test_quantized_values(mb, save, load, x):
    scale, zero_point = np.float32([0.1, 0.2, 0.3, 0.4]), np.int8([0, 1, -1, 2])

    def body(x):
        levels = mb.quantize(input=x, scale=scale, zero_point=zero_point, axis=1, output_dtype="int8")
        return mb.dequantize(input=levels, scale=scale, zero_point=zero_point, axis=1)

    found = run(save, load, body, X, x)
    assert np.abs(found - x).max((0, 2, 3)) == pytest.approx(scale / 2, rel=0.3)
