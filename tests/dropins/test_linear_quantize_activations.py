"""`linear_quantize_activations` against coremltools' own, which predicts with the runtime in place of Core ML."""

from __future__ import annotations

import numpy as np
import pytest
from activation_helpers import NETWORKS, SHAPE, predicting, samples, shape_of
from coreml_helpers import quiet

pytest.importorskip("torch")


def config_of(peer, mode, **rules):
    config = peer.OptimizationConfig(global_config=peer.OpLinearQuantizerConfig(mode=mode))
    for kind, name in rules.items():
        (config.set_op_type if kind == "op_type" else config.set_op_name)(name, None)
    return config


def both(monkeypatch, ct, peer, cto, model, config, data):
    with quiet(), monkeypatch.context() as context:
        predicting(context, ct)
        theirs = peer.linear_quantize_activations(model, config, [dict(each) for each in data])
    with quiet():
        ours = cto.linear_quantize_activations(model, config, data)
    return theirs, ours


@pytest.mark.parametrize("mode", ["linear", "linear_symmetric"])
@pytest.mark.parametrize("target", ["iOS16", "iOS17", "iOS18"])
@pytest.mark.parametrize("name", NETWORKS)
def test_pairs_are_those_of_coremltools(name, target, mode, ct, peer, cto, convert, monkeypatch):
    model = convert(NETWORKS[name], SHAPE, target=target)
    theirs, ours = both(monkeypatch, ct, peer, cto, model, config_of(peer, mode), samples())
    (expected, scales), (found, other) = shape_of(theirs), shape_of(ours)
    assert found.keys() == expected.keys()
    # coremltools has a `dequantize` of its own for each input of an addition, whose scale it divides by the other's.
    assert {each: count for each, count in found.items() if not each.startswith("dequantize")} == {
        each: count for each, count in expected.items() if not each.startswith("dequantize")
    }
    assert sum(count for each, count in found.items() if each.startswith("quantize")) >= 4
    divided = 0
    for each, known in scales.items():
        for scale, zero_point in known:
            fits = any(
                ours == pytest.approx(scale, rel=4e-3) and abs(zero_point - our_zero_point) <= 1
                for ours, our_zero_point in other[each]
            )
            divided += not fits
    assert divided == (3 if name == "residual" else 0)
    assert ours._spec.specificationVersion == theirs._spec.specificationVersion
