"""Sensitivities: the error of the outputs that probes expect is the one that is measured."""

from __future__ import annotations

import numpy as np
import pytest

from corepress import compression, coreml, runtime
from corepress.config.candidates import candidate_key
from corepress.engine.calibrated import feedback_data
from corepress.specs import Palettize

torch = pytest.importorskip("torch")
pytest.importorskip("coremltools")

CANDIDATES = [2, 3, 4]
BATCH = 40


def keys():
    return {nbits: candidate_key((Palettize(nbits=nbits),)) for nbits in CANDIDATES}


def measured_errors(path, samples, name, stored, outputs, tmp_path, **rest):
    """The power of the outputs' change over their own, on the samples that are kept, for each candidate of a weight."""
    kept = [each for index, each in enumerate(samples) if index % 4 == 3] or samples
    before = runtime.load(path, precision="float32").predict(kept)
    found = {}
    for nbits in CANDIDATES:
        compressed = tmp_path / f"{nbits}.mlpackage"
        config = {"weights": {name: {"palettize": {"nbits": nbits}}}, "weight_threshold": 0}
        coreml.compress(path, compressed, config, overwrite=True, **rest)
        after = runtime.load(compressed, precision="float32").predict(kept)
        found[nbits] = sum(
            sum(np.square(b[each] - a[each], dtype=np.float64).sum() for a, b in zip(after, before, strict=True))
            / sum(np.square(b[each], dtype=np.float64).sum() for b in before)
            for each in outputs
        )
    return found


def within(found, expected, times=4.0, beyond=0.05):
    """An estimate is within some standard errors, and what second order leaves out."""
    assert abs(found.mean - expected) < times * found.standard_error + beyond * expected, (found, expected)


@pytest.fixture
def samples(rng):
    return [{"x": rng.standard_normal((BATCH, 24)).astype(np.float32)} for _ in range(16)]


@pytest.mark.parametrize("half", [False, True])
def test_a_linear_model(save, mb, rng, samples, tmp_path, half):
    """Here the second order is all there is."""
    first, second = (rng.standard_normal(shape).astype(np.float32) for shape in ((32, 24), (6, 32)))

    def body(x):
        return mb.linear(x=mb.linear(x=x, weight=first, name="a"), weight=second, name="y")

    path = save(body, inputs={"x": ((BATCH, 24), "float32")}, half=half)
    found = coreml.calibrate(path, samples, candidates=CANDIDATES, weight_threshold=0, probes=24)
    for name, each in found.weights.items():
        (output,) = (feature.name for feature in runtime.load(path).outputs)
        expected = measured_errors(path, samples, name, each, [output], tmp_path, calibration=found)
        for nbits, key in keys().items():
            assert each.sensitivities[key].gradients == 4 * 24
            within(each.sensitivities[key], expected[nbits])


def test_several_outputs_count_by_their_own_power(save, mb, rng, samples, tmp_path):
    first, second, third = (rng.standard_normal(shape).astype(np.float32) for shape in ((32, 24), (6, 32), (2, 32)))

    def body(x):
        hidden = mb.linear(x=x, weight=first, name="a")
        small = mb.linear(x=hidden, weight=(third * 1e-4).astype(np.float32), name="small")
        return mb.linear(x=hidden, weight=(second * 1e3).astype(np.float32), name="large"), small

    path = save(body, inputs={"x": ((BATCH, 24), "float32")})
    found = coreml.calibrate(path, samples, candidates=CANDIDATES, weight_threshold=0, probes=24)
    for name, each in found.weights.items():
        expected = measured_errors(path, samples, name, each, ["large", "small"], tmp_path, calibration=found)
        for nbits, key in keys().items():
            within(each.sensitivities[key], expected[nbits])


def test_a_curved_model(save, mb, rng, samples, tmp_path):
    """At 4 bits, errors are small enough for the second order."""
    first = rng.standard_normal((32, 24)).astype(np.float32) / 5
    second = rng.standard_normal((6, 32)).astype(np.float32)

    def body(x):
        return mb.linear(x=mb.tanh(x=mb.linear(x=x, weight=first, name="a")), weight=second, name="y")

    path = save(body, inputs={"x": ((BATCH, 24), "float32")})
    found = coreml.calibrate(path, samples, candidates=CANDIDATES, weight_threshold=0, probes=24)
    for name, each in found.weights.items():
        expected = measured_errors(path, samples, name, each, ["y"], tmp_path, calibration=found)
        within(each.sensitivities[keys()[4]], expected[4], beyond=0.15)


def test_a_shared_weight_changes_at_all_its_places_at_once(save, mb, rng, samples, tmp_path):
    weight = rng.standard_normal((24, 24)).astype(np.float32) / 5

    def body(x):
        shared = mb.const(val=weight, name="shared")
        return mb.linear(x=mb.linear(x=x, weight=shared), weight=shared, name="y")

    path = save(body, inputs={"x": ((BATCH, 24), "float32")})
    found = coreml.calibrate(path, samples, candidates=CANDIDATES, weight_threshold=0, probes=24)
    ((name, each),) = found.weights.items()
    expected = measured_errors(path, samples, name, each, ["y"], tmp_path, calibration=found)
    within(each.sensitivities[keys()[4]], expected[4], beyond=0.15)


def test_more_probes_are_more_certain(save, mb, rng, samples):
    weight = rng.standard_normal((24, 24)).astype(np.float32)
    path = save(lambda x: mb.linear(x=x, weight=weight, name="y"), inputs={"x": ((BATCH, 24), "float32")})
    few, many = (
        next(iter(coreml.calibrate(path, samples, candidates=[3], weight_threshold=0, probes=probes).weights.values()))
        for probes in (4, 64)
    )
    few, many = (next(iter(each.sensitivities.values())) for each in (few, many))
    assert (few.gradients, many.gradients) == (16, 256)
    assert many.standard_error < few.standard_error / 2
    within(few, many.mean)


def test_fisher_is_the_mean_square_of_gradients(save, mb, rng, samples):
    """Of a linear model: E[g^2] of an element is the power of its input, summed over the batch."""
    weight = rng.standard_normal((6, 24)).astype(np.float32)
    path = save(lambda x: mb.linear(x=x, weight=weight, name="y"), inputs={"x": ((BATCH, 24), "float32")})
    found = coreml.calibrate(path, samples, candidates=None, weight_threshold=0, probes=400, importance=True)
    (each,) = found.weights.values()
    kept = [sample["x"].astype(np.float64) for sample in samples[3::4]]
    powers = [np.square(x @ weight.T).sum() for x in kept]
    expected = np.mean([np.square(x).sum(0) for x in kept], axis=0) / np.mean(powers)
    assert each.fisher.shape == (6, 24)
    np.testing.assert_allclose(each.fisher.mean(0), expected, rtol=0.15)


@pytest.fixture
def classifier(mb, rng, tmp_path):
    import coremltools as ct
    from coreml_helpers import quiet

    weight = rng.standard_normal((5, 24)).astype(np.float32) / 3

    def body(x):
        return mb.softmax(x=mb.linear(x=x, weight=weight), axis=-1, name="scores")

    with quiet():
        specs = [mb.TensorSpec((1, 24))]
        program = mb.program(input_specs=specs, opset_version=ct.target.iOS18)(body)
        model = ct.convert(
            program,
            minimum_deployment_target=ct.target.iOS18,
            classifier_config=ct.ClassifierConfig(list("abcde")),
            compute_precision=ct.precision.FLOAT32,
            skip_model_load=True,
        )
        path = tmp_path / "classifier.mlpackage"
        model.save(str(path))
    return path, weight


def test_classes_have_the_metric_of_their_probabilities(classifier, rng, tmp_path):
    path, weight = classifier
    samples = [{"x": rng.standard_normal((1, 24)).astype(np.float32)} for _ in range(64)]
    found = coreml.calibrate(path, samples, candidates=CANDIDATES, weight_threshold=0, probes=32)
    (each,) = found.weights.values()
    kept = np.concatenate([sample["x"] for sample in samples[3::4]])
    tensor = compression.apply(weight, Palettize(nbits=4), data=feedback_data(each.hessian, each.view))
    before, after = (torch.softmax(torch.tensor(kept @ w.T), -1).numpy() for w in (weight, tensor.dense()))
    expected = (np.square(after - before, dtype=np.float64) / before).sum(1).mean()
    within(each.sensitivities[keys()[4]], expected, beyond=0.2)
    divergence = (before * np.log(before / after)).sum(1).mean()
    assert expected == pytest.approx(2 * divergence, rel=0.2)


def test_outputs_that_are_no_numbers(save, mb, rng, samples):
    weight = rng.standard_normal((24, 24)).astype(np.float32)

    def body(x):
        return mb.reduce_argmax(x=mb.linear(x=x, weight=weight), axis=1, name="y")

    path = save(body, inputs={"x": ((BATCH, 24), "float32")})
    found = coreml.calibrate(path, samples, candidates=CANDIDATES, weight_threshold=0)
    assert "no output is a floating-point number" in found.notes[0]
    (each,) = found.weights.values()
    assert each.hessian is not None
    assert not each.sensitivities


def test_widened_weights_are_not_held(save, mb, rng):
    """The backward pass has what it needs of float16 weights from these themselves."""
    from corepress.coreml.format.package import Package
    from corepress.coreml.format.schema import read_model
    from corepress.runtime.torch.backend import load_program
    from corepress.runtime.torch.gradients import watched

    weights = rng.standard_normal((4, 64, 64)).astype(np.float32) / 8

    def body(x):
        for each in weights:
            x = mb.tanh(x=mb.linear(x=x, weight=each))
        return x

    path = save(body, inputs={"x": ((2, 64), "float32")}, half=True)
    package = Package.open(path)
    backend = load_program(package, read_model(package.model_path), "main", "float32")
    names = [name for name, each in backend.module.named_parameters() if each.ndim == 2]
    assert len(names) == 4
    assert all(dict(backend.module.named_parameters())[name].dtype == torch.float16 for name in names)
    gradients = {}
    inputs = {"x": torch.randn(2, 64)}
    with watched(backend.module, names, lambda name, gradient: gradients.setdefault(name, gradient)):
        (output,) = backend.module(inputs).values()
        output.sum().backward()
    assert all(gradients[name].dtype == torch.float32 for name in names)
    wide = {name: torch.nn.Parameter(each.detach().float()) for name, each in backend.module.named_parameters()}
    for name, each in wide.items():
        backend.module._parameters[name] = each
    (output,) = backend.module(inputs).values()
    output.sum().backward()
    for name in names:
        torch.testing.assert_close(gradients[name], wide[name].grad)
