"""Structured pruning of models: which weights coremltools takes, and the same zeros."""

import numpy as np
import pytest
from coreml_helpers import assert_same_bits, constants, operation_types, quiet

from corepress import coreml
from corepress.compression import apply
from corepress.specs import Prune

RNG = np.random.default_rng(11)
WEIGHTS = {
    "conv": RNG.standard_normal((64, 30, 3, 3)),
    "depthwise": RNG.standard_normal((64, 1, 7, 7)),
    "up": RNG.standard_normal((64, 32, 2, 2)),
    "linear": RNG.standard_normal((90, 128)),
    "both": RNG.standard_normal((90, 90)),
    "product": RNG.standard_normal((90, 50)),
}
WEIGHTS = {name: weight.astype(np.float32) for name, weight in WEIGHTS.items()}
OF_OTHER_OPERATIONS = {
    "up_weight_0": "weight of conv_transpose",
    "both": "y of matmul",
    "product_y_0": "y of matmul",
}


@pytest.fixture(scope="module")
def structured_package(build):
    def body(mb, image):
        w = WEIGHTS
        x = mb.conv(x=image, weight=w["conv"], pad_type="same", name="conv")
        x = mb.conv(x=x, weight=w["depthwise"], pad_type="same", groups=64, name="depthwise")
        x = mb.conv_transpose(x=x, weight=w["up"], strides=[2, 2], name="up")
        x = mb.reshape(x=x, shape=[-1, 128])
        x = mb.linear(x=x, weight=w["linear"], name="linear")
        both = mb.const(val=w["both"], name="both")
        x = mb.matmul(x=mb.linear(x=x, weight=both), y=both)
        return mb.matmul(x=x, y=w["product"], name="product")

    return build(body, {"image": ((1, 30, 8, 8), np.float32)})


SPECS = {
    Prune(n_m_ratio=(2, 4)): {"depthwise_weight_0": "m 4 is more than half of axis 1 of length 1"},
    Prune(n_m_ratio=(7, 16)): {
        "conv_weight_0": "m 16 is more than half of axis 1 of length 30",
        "depthwise_weight_0": "m 16 is more than half of axis 1 of length 1",
    },
    Prune(n_m_ratio=(5, 32), dim=0): {},
    Prune(target_sparsity=0.5, block_size=4): {},
    Prune(target_sparsity=0.8, block_size=32): {},
    Prune(target_sparsity=0.25, block_size=7, dim=1): {
        "depthwise_weight_0": "block_size 7 is more than half of axis 1 of length 1"
    },
}


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.description.replace(" ", "_"))
def test_as_coremltools_does(ct, structured_package, tmp_path, spec):
    report = coreml.compress(structured_package, tmp_path / "ours.mlpackage", spec)
    kept = {record.name: record for record in report.weights if record.status == "kept" and not record.planned}
    reasons = {name: record.reason for name, record in kept.items()}
    for name, place in OF_OTHER_OPERATIONS.items():
        reason = f"n_m_ratio and block_size are for weights of convolutions and linear layers, this is {place}"
        assert reasons.pop(name) == reason
    assert reasons == SPECS[spec]

    originals, decoded = constants(structured_package), constants(tmp_path / "ours.mlpackage")
    for record in report.weights:
        if record.status == "compressed":
            assert record.method == spec.description
            assert_same_bits(decoded[record.name], apply(originals[record.name], spec).dense(), record.name)

    cto = ct.optimize.coreml
    options = {"target_sparsity": spec.target_sparsity, "n_m_ratio": spec.n_m_ratio}
    options |= {"block_size": spec.block_size, "dim": spec.dim}
    with quiet():
        model = ct.models.MLModel(str(structured_package), skip_model_load=True)
        config = cto.OptimizationConfig(global_config=cto.OpMagnitudePrunerConfig(**options))
        cto.prune_weights(model, config).save(str(tmp_path / "theirs.mlpackage"))
    theirs, types = constants(tmp_path / "theirs.mlpackage"), operation_types(tmp_path / "theirs.mlpackage")
    pruned = {name for name, kind in types.items() if kind == "constexpr_sparse_to_dense"}
    compressed = {record.name for record in report.weights if record.status == "compressed"}
    assert {name.removesuffix("_sparsified") for name in pruned} == compressed
    for name in pruned:
        np.testing.assert_array_equal(decoded[name.removesuffix("_sparsified")], theirs[name])


def test_strict_refuses_what_is_not_pruned(structured_package, tmp_path):
    for spec, name in {
        Prune(n_m_ratio=(2, 4)): r"depthwise_weight_0 \(shape \(64, 1, 7, 7\)\): m 4 is more than half",
        Prune(target_sparsity=0.5, block_size=4): r"up_weight_0 .*: n_m_ratio and block_size are for weights of conv",
    }.items():
        with pytest.raises(ValueError, match=name):
            coreml.compress(structured_package, tmp_path / "ours.mlpackage", spec, strict=True)
    assert list(tmp_path.iterdir()) == []


def test_a_config_from_json(structured_package, tmp_path):
    report = coreml.compress(structured_package, tmp_path / "a.mlpackage", {"prune": {"n_m_ratio": [2, 4], "dim": 0}})
    assert {record.method for record in report.weights if record.method} == {"prune 2:4 along axis 0"}
