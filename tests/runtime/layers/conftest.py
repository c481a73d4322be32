"""Networks of a few layers, built without coremltools."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from corepress.coreml.format.descriptions import ModelDescription  # noqa: E402
from corepress.neural_network.layer_schema import message_class  # noqa: E402
from corepress.runtime.torch.network import NetworkModule  # noqa: E402


def stored(values, dtype=np.float32):
    """A ``WeightParams``."""
    array = np.asarray(values, dtype)
    return {"floatValue": [array.tobytes()]} if dtype is np.float32 else {"float16Value": array.tobytes()}


def feature(name, kind):
    """A feature: an array of a shape, an image of a color space, or None for an array of no shape."""
    if isinstance(kind, dict):
        return {"name": name, "type": kind}
    return {"name": name, "type": {"multiArrayType": {"shape": kind or ()}}}


def build(layers, inputs=None, outputs=("y",), exact=True, description=None, **network):
    """A module of a network.

    Parameters
    ----------
    layers : list of tuple
        For each layer its type, its parameters, and the names of its inputs and outputs.
    inputs, outputs : dict
        Features by name.
    """
    outputs = outputs if isinstance(outputs, dict) else dict.fromkeys(outputs)
    messages = [
        {"name": name, "input": takes, "output": makes, layer_type: params}
        for name, layer_type, params, takes, makes in numbered(layers)
    ]
    mapping = {"arrayInputShapeMapping": int(exact), "imageInputShapeMapping": int(exact)}
    described = ModelDescription(
        input=[feature(*each) for each in (inputs or {"x": None}).items()],
        output=[feature(*each) for each in outputs.items()],
        **(description or {}),
    )
    return NetworkModule(message_class("NeuralNetwork")(layers=messages, **{**mapping, **network}), described)


def numbered(layers):
    """Names for layers that have none."""
    for index, (layer_type, params, takes, makes, *name) in enumerate(layers):
        yield (name or [f"layer{index}"])[0], layer_type, params or {}, takes, makes


def block(*layers):
    """A network within a layer."""
    return {
        "layers": [
            {"name": name, "input": takes, "output": makes, layer_type: params}
            for name, layer_type, params, takes, makes in numbered(layers)
        ]
    }


def run_one(layer_type, params=None, *inputs, outputs=1):
    """What a layer makes of arrays: an array, or a list of them for several outputs."""
    names, makes = [f"x{index}" for index in range(len(inputs))], [f"y{index}" for index in range(outputs)]
    module = build([(layer_type, params, names, makes)], dict.fromkeys(names) or {"unused": None}, makes)
    given = {name: torch.tensor(np.asarray(value, np.float32)) for name, value in zip(names, inputs, strict=True)}
    found = module(given or {"unused": torch.zeros(1)})
    results = [found[name].detach().numpy() for name in makes]
    assert all(result.dtype == np.float32 and result.ndim for result in results)
    return results[0] if outputs == 1 else results


@pytest.fixture(scope="session")
def run_layer():
    return run_one


@pytest.fixture(scope="session")
def network():
    return build


@pytest.fixture(scope="session")
def nested():
    return block


@pytest.fixture(scope="session")
def weight():
    return stored


@pytest.fixture
def check(run_layer):
    """Compare what a layer makes of arrays with what it should."""

    def check(layer_type, params, inputs, expected, tolerance=1e-6):
        several = isinstance(expected, tuple)
        found = run_layer(layer_type, params, *inputs, outputs=len(expected) if several else 1)
        for ours, right in zip(found if several else [found], expected if several else [expected], strict=True):
            right = np.asarray(right)
            assert ours.shape == right.shape
            np.testing.assert_allclose(ours, right, rtol=tolerance, atol=tolerance)

    return check
