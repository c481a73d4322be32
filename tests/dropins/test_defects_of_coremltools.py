"""What goes wrong in coremltools 9, reproduced with it and shown right here."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from coreml_helpers import assert_same_bits, quiet
from dropin_helpers import normal, operations, weights

from helpers.processes import TIMEOUT

TWO_CALLS = """
import sys
import numpy as np
import coremltools as ct
from coremltools.converters.mil import Builder as mb

if sys.argv[1] == "corepress":
    import corepress.optimize.coreml as cto
elif sys.argv[1] == "accelerated":
    import corepress
    corepress.accelerate.install()
    import coremltools.optimize.coreml as cto
else:
    import coremltools.optimize.coreml as cto

if __name__ == "__main__":
    @mb.program(input_specs=[mb.TensorSpec((1, 64))], opset_version=ct.target.iOS18)
    def program(x):
        weight = np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)
        return mb.linear(x=x, weight=weight)

    model = ct.convert(program, convert_to="mlprogram", minimum_deployment_target=ct.target.iOS18)
    for call in range(2):
        op_config = cto.OpPalettizerConfig(
            nbits=4, granularity="per_grouped_channel", group_size=16, num_kmeans_workers=2
        )
        cto.palettize_weights(model, cto.OptimizationConfig(global_config=op_config))
    print("both calls returned")
"""


def run_two_calls(way: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", TWO_CALLS, way], capture_output=True, text=True, timeout=TIMEOUT)


def config_of(cto, **options):
    return cto.OptimizationConfig(global_config=cto.OpPalettizerConfig(**options))


def linear(convert, weight, target: str = "iOS18"):
    return convert(lambda mb, x: mb.linear(x=x, weight=weight, name="linear"), (4, weight.shape[1]), target=target)


def weight_of(model) -> np.ndarray:
    return next(value for (_, operand), value in weights(model).items() if operand == "weight")


def test_workers_for_kmeans_can_be_asked_for_twice():
    theirs = run_two_calls("coremltools")
    assert "Pool not running" in theirs.stderr
    ours = run_two_calls("corepress")
    assert "both calls returned" in ours.stdout, ours.stderr


def test_one_infinite_value_does_not_spoil_the_others(peer, cto, convert):
    mask = normal(128, 128, scale=1)
    mask[3, 5] = -np.inf
    model = linear(convert, mask)
    with quiet():
        spoiled = weight_of(peer.palettize_weights(model, config_of(peer, nbits=4)))
        kept = weight_of(cto.palettize_weights(model, config_of(cto, nbits=4)))
    assert np.isfinite(spoiled).mean() < 0.01
    assert_same_bits(kept, weight_of(model))


def test_a_weight_whose_groups_do_not_divide_is_not_left_divided_by_its_scales(peer, cto, convert):
    model = linear(convert, normal(60, 64, scale=5))
    options = {
        "nbits": 4,
        "granularity": "per_grouped_channel",
        "group_size": 16,
        "enable_per_channel_scale": True,
    }
    original = weight_of(model)
    with quiet():
        theirs = peer.palettize_weights(model, config_of(peer, **options))
        ours = cto.palettize_weights(model, config_of(cto, **options))
    for result in (theirs, ours):
        assert not any(kind.startswith("constexpr") for kind, _ in operations(result))
    assert np.abs(weight_of(theirs) - original).max() > 1
    assert np.abs(weight_of(theirs)).max() <= 1
    assert_same_bits(weight_of(ours), original)


def test_scales_are_those_of_output_channels(peer, cto, convert):
    weight = normal(64, 48) * np.geomspace(1e-3, 1, 64, dtype=np.float32)[:, None]
    model = linear(convert, weight, "iOS26")
    with quiet():
        theirs = peer.palettize_weights(model, config_of(peer, nbits=4, enable_per_channel_scale=True))
        ours = cto.palettize_weights(model, config_of(cto, nbits=4, enable_per_channel_scale=True))
    shapes = [
        model._mil_program.find_ops(op_type="constexpr_blockwise_shift_scale")[0].scale.shape
        for model in (theirs, ours)
    ]
    assert shapes == [(1, 48), (64, 1)]

    def relative_errors(found):
        original = weight_of(model).astype(np.float64)
        return ((found - original) ** 2).sum(axis=1) / (original**2).sum(axis=1)

    assert relative_errors(weight_of(theirs)).max() > 0.5
    assert relative_errors(weight_of(ours)).max() < 0.02


def test_float16_weights_of_more_than_65504_elements_are_pruned(peer, cto, convert):
    model = linear(convert, normal(300, 256))
    config = cto.OptimizationConfig(global_config=cto.OpMagnitudePrunerConfig(target_sparsity=0.75))
    with np.errstate(all="ignore"):
        broken = bool(np.isnan(np.percentile(np.abs(weight_of(model)), 75)))
    with quiet():
        theirs, ours = peer.prune_weights(model, config), cto.prune_weights(model, config)
    if broken:  # NumPy 2.0 to 2.3: the position of the percentile overflows float16
        assert (weight_of(theirs) == 0).mean() < 0.01
    assert (weight_of(ours) == 0).mean() == pytest.approx(0.75, abs=0.005)


@pytest.mark.parametrize("values", [(-260, 260, 1, 2), (-40000, 40000, 100, 200)])
def test_float16_ranges_do_not_overflow(peer, cto, convert, values):
    weight = np.tile(np.array(values, np.float32), (64, 16))
    model = linear(convert, weight)
    op_config = cto.OpLinearQuantizerConfig(mode="linear", dtype="uint8")
    config = cto.OptimizationConfig(global_config=op_config)
    with quiet(), np.errstate(all="ignore"):
        theirs, ours = peer.linear_quantize_weights(model, config), cto.linear_quantize_weights(model, config)
    span = max(values) - min(values)
    assert not np.abs(weight_of(theirs) - weight).max() < span / 3
    assert np.abs(weight_of(ours) - weight).max() <= span / 255


def test_five_to_eight_distinct_values_have_a_form_before_ios18(peer, cto, convert):
    model = linear(convert, np.random.default_rng(3).integers(0, 7, (64, 48)).astype(np.float32), "iOS16")
    with quiet(), pytest.raises(Exception, match=r"lut|LUT"):
        peer.palettize_weights(model, config_of(peer, mode="unique"))
    with quiet():
        ours = cto.palettize_weights(model, config_of(cto, mode="unique"))
    assert operations(ours)[0][0] == "constexpr_lut_to_dense"
    assert_same_bits(weight_of(ours), weight_of(model))


def test_weights_that_nearly_agree_stay_two(peer, cto, convert):
    first = normal(64, 64)
    second = first.copy()
    second[-1, -1] += np.float32(4e-8)

    def body(mb, x):
        return mb.linear(x=mb.linear(x=x, weight=first, name="one"), weight=second, name="two")

    model = convert(body, (4, 64), precision="FLOAT32")
    config = cto.OptimizationConfig(op_name_configs={"none": cto.OpPalettizerConfig(nbits=4)})
    with quiet():
        ours = weights(cto.palettize_weights(model, config))
    assert_same_bits(ours["one", "weight"], weights(model)["one", "weight"])
    assert_same_bits(ours["two", "weight"], weights(model)["two", "weight"])
