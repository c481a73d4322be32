"""How far two packages are apart."""

import json
import math

import numpy as np
import pytest
from coreml_helpers import constants

import corepress
from corepress import coreml
from corepress.specs import Palettize, Quantize


def test_each_weight_as_measured_by_coremltools_values(ios18_package, tmp_path):
    other = tmp_path / "other.mlpackage"
    coreml.compress(ios18_package, other, Palettize(nbits=3))
    comparison = coreml.compare(ios18_package, other)
    before, after = constants(ios18_package), constants(other)
    assert len(comparison.weights) > 20
    for weight in comparison.weights:
        expected = corepress.error(before[weight.name], after[weight.name]) if weight.name != "integers_x_0" else None
        if expected is None or math.isnan(expected.snr_db):
            continue
        assert (weight.snr_db, weight.cosine, weight.max_abs) == (expected.snr_db, expected.cosine, expected.max_abs)
        assert (weight.snr_db == math.inf) == np.array_equal(before[weight.name], after[weight.name])
    assert comparison.bytes > comparison.other_bytes
    assert "palettized 3 bits" in str(comparison)
    signal = noise = 0.0
    for weight in comparison.different:
        if weight.name != "infinite_x_0":
            difference = before[weight.name].astype(np.float64) - after[weight.name]
            signal += np.square(before[weight.name], dtype=np.float64).sum()
            noise += np.square(difference).sum()
    assert comparison.snr_db == pytest.approx(10 * math.log10(signal / noise))


def test_two_compressed_packages(trained_package, tmp_path):
    coarse, fine = tmp_path / "coarse.mlpackage", tmp_path / "fine.mlpackage"
    coreml.compress(trained_package, coarse, Palettize(nbits=2))
    coreml.compress(trained_package, fine, Quantize())
    comparison = coreml.compare(fine, coarse)
    assert {weight.storage.split()[0] for weight in comparison.different} == {"quantized"}
    assert {weight.other_storage for weight in comparison.different} == {"palettized 2 bits"}
    assert all(0 < weight.snr_db < 20 for weight in comparison.different)


@pytest.mark.parametrize("fixture", ["trained_package", "ios18_package"])
def test_a_package_equals_itself_infinite_values_included(request, fixture):
    package = request.getfixturevalue(fixture)
    comparison = coreml.compare(package, package)
    assert comparison.different == ()
    assert comparison.snr_db is None
    assert all(json.loads(comparison.to_json())["weights"][i]["lossless"] for i in range(len(comparison.weights)))


def test_what_only_one_has_and_what_differs_in_shape(build):
    def body_of(shape, extra):
        def body(mb, x):
            return mb.linear(x=x, weight=np.ones(shape, np.float32), name="same"), mb.add(x=x, y=extra, name="extra")

        return body

    extra = np.arange(64, dtype=np.float32)
    first = build(body_of((8, 64), extra), {"x": ((2, 64), np.float32)})
    second = build(body_of((16, 64), np.float32(1)), {"x": ((2, 64), np.float32)})
    comparison = coreml.compare(first, second)
    assert comparison.only_in_first == ("extra_y_0",)
    problem = {weight.name: weight.problem for weight in comparison.weights}["same_weight_0"]
    assert problem == "float32 (8, 64) and float32 (16, 64)"
    assert "only in" in comparison.totals
