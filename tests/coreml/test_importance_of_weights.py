"""Importance, by the names of weights, reaches the kernels and is refused before work starts where it has no use."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from coreml_helpers import constants, digest, model_file

import corepress as cp
from corepress import Config, coreml
from corepress.coreml.format import schema
from corepress.specs import Palettize, Prune, Quantize

KMEANS = Palettize(nbits=2)
SEARCHED = Quantize(dtype="int4", granularity="per_block", block_size=16, scale_search="mse")


@pytest.fixture(scope="module")
def names(trained_package):
    """The compressed weights of the package, and their values."""
    plan = coreml.plan(trained_package, KMEANS)
    values = constants(trained_package)
    return {each.name: values[each.name] for each in plan.weights if each.status == "compress"}


def importance_of(weight, seed=0):
    return np.random.default_rng([seed, weight.size]).exponential(size=weight.shape) ** 2


@pytest.mark.parametrize("spec", [KMEANS, Palettize(nbits=3, enable_per_channel_scale=True), SEARCHED, "joint"])
def test_weights_are_what_arrays_become(names, ios18_package, tmp_path, spec):
    steps = [Palettize(nbits=4), Quantize(granularity="per_tensor")] if spec == "joint" else [spec]
    values = constants(ios18_package)
    plan = coreml.plan(ios18_package, steps)
    chosen = [each.name for each in plan.weights if each.status == "compress" and np.isfinite(values[each.name]).all()]
    given = {name: importance_of(values[name]) for name in chosen[::2]}
    report = coreml.compress(ios18_package, tmp_path / "a.mlpackage", steps, importance=given)
    plain = coreml.compress(ios18_package, tmp_path / "b.mlpackage", steps)
    found, without = constants(tmp_path / "a.mlpackage"), constants(tmp_path / "b.mlpackage")
    assert [each.name for each in report.weights] == [each.name for each in plain.weights]
    assert report.bytes_after == plain.bytes_after
    for record in plain.weights:
        name = record.name
        if name not in given:
            assert found[name].tobytes() == without[name].tobytes(), name
            continue
        lost, lost_without = (
            (given[name] * (values[name].astype(float) - each[name].astype(float)) ** 2).sum()
            for each in (found, without)
        )
        assert lost < lost_without, name


def test_the_bytes_are_those_of_the_array(names, trained_package, tmp_path):
    name, weight = max(names.items(), key=lambda pair: pair[1].size)
    importance = importance_of(weight)
    coreml.compress(trained_package, tmp_path / "a.mlpackage", KMEANS, importance={name: importance.astype(np.float32)})
    expected = cp.palettize(weight, nbits=2, importance=importance.astype(np.float32)).dense()
    assert constants(tmp_path / "a.mlpackage")[name].tobytes() == expected.tobytes()


def test_every_name_of_a_weight_works(ios18_package, tmp_path):
    """The report has the name of the constant; the names of its operation and of other functions mean it too."""
    shared = np.asarray(constants(ios18_package)["shared"])
    outputs = []
    for number, given in enumerate([None, {"shared": importance_of(shared)}, {"shared": None}]):
        outputs.append(tmp_path / f"{number}.mlpackage")
        coreml.compress(ios18_package, outputs[-1], KMEANS, importance=given)
    assert digest(outputs[0]) == digest(outputs[2]) != digest(outputs[1])


def test_names_given_twice(trained_package, names, tmp_path):
    package = shutil.copytree(trained_package, tmp_path / "source.mlpackage")
    name, weight = next(iter(names.items()))
    model = schema.read_model(model_file(package))
    for function in model.mlProgram.functions.values():
        for block in function.block_specializations.values():
            for operation in block.operations:
                if operation.outputs and operation.outputs[0].name == name:
                    operation.attributes["name"].immediateValue.tensor.strings.values[:] = ["its_label"]
    model_file(package).write_bytes(schema.serialize_model(model))
    importance = importance_of(weight)
    for key in (name, "its_label"):
        coreml.compress(package, tmp_path / f"{key}.mlpackage", KMEANS, importance={key: importance})
    assert digest(tmp_path / f"{name}.mlpackage") == digest(tmp_path / "its_label.mlpackage")
    with pytest.raises(ValueError, match=f"importance of {name} and its_label: these are one weight"):
        coreml.plan(package, KMEANS, importance={name: importance, "its_label": importance})


@pytest.mark.parametrize("verb", ["compress", "plan"])
def test_refusals(trained_package, names, tmp_path, verb):
    name, weight = next(iter(names.items()))
    fine = importance_of(weight)
    before = digest(trained_package)

    arguments = [trained_package] if verb == "plan" else [trained_package, tmp_path / "out.mlpackage"]

    def message_of(config, importance, error=ValueError):
        with pytest.raises(error) as caught:
            getattr(coreml, verb)(*arguments, config, importance=importance)
        assert not list(tmp_path.iterdir())
        return str(caught.value)

    misspelled = f"{name[:-1]}X"
    assert message_of(KMEANS, {misspelled: fine}) == (
        f"compress: importance of {misspelled!r}: no weight has this name; did you mean {name!r}?"
    )
    assert message_of(KMEANS, {name: fine[:1]}).startswith(f"compress: importance of {name} has shape ")
    assert f"importance of {name} must be finite and not negative" in message_of(KMEANS, {name: -fine})
    assert f"importance of {name} must be numbers" in message_of(KMEANS, {name: fine + 1j}, TypeError)
    assert "importance must be a dict of arrays by weight name, not ndarray" in message_of(KMEANS, fine, TypeError)
    for spec, rule in [
        (Palettize(nbits=4, mode="uniform"), "palettize: importance is for mode 'kmeans' and no lut"),
        (Quantize(), "quantize: importance needs scale_search 'mse'"),
        (Prune(target_sparsity=0.5), "prune: importance has no use, since magnitudes decide"),
    ]:
        assert message_of(spec, {name: fine}) == f"compress: importance of {name}: {rule}"
    assert digest(trained_package) == before


def test_weights_that_are_left_unchanged_may_have_importance(trained_package, names, tmp_path):
    name, weight = next(iter(names.items()))
    config = Config(global_config=KMEANS, weights={name: None})
    report = coreml.compress(
        trained_package, tmp_path / "a.mlpackage", config, importance={name: importance_of(weight)}
    )
    assert next(each for each in report.weights if each.name == name).status == "kept"


def test_compressed_weights_take_none(trained_package, names, tmp_path):
    name, weight = next(iter(names.items()))
    half = tmp_path / "half.mlpackage"
    coreml.compress(trained_package, half, Prune(target_sparsity=0.5))
    with pytest.raises(
        ValueError, match=f"importance of {name}: palettize: importance is for arrays, not for compressed"
    ):
        coreml.plan(half, Palettize(nbits=4), joint_compression=True, importance={name: importance_of(weight)})


def test_expected_snr_is_that_of_the_weighted_palette(trained_package, names):
    name, weight = max(names.items(), key=lambda pair: pair[1].size)
    given = {name: importance_of(weight) ** 4}

    def expected(importance):
        weights = coreml.plan(trained_package, KMEANS, expect_snr=True, importance=importance).weights
        return next(each.expected_snr_db for each in weights if each.name == name)

    assert expected(given) < expected(None)
