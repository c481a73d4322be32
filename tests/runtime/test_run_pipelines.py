"""Pipelines of models: features flow from model to model by their names, images included."""

from __future__ import annotations

import numpy as np
import pytest
from coreml_helpers import model_file, quiet
from test_features import array, describe, image

from corepress import runtime
from corepress.coreml.format.descriptions import ModelDescription
from corepress.errors import FormatError, UnsupportedOperationError
from corepress.runtime.features import Description
from corepress.runtime.opening import open_model
from corepress.runtime.pipeline import PipelineBackend, PipelineState, Stage

pytestmark = pytest.mark.filterwarnings("ignore:Implicitly cleaning up:ResourceWarning")


class Fake:
    """A backend that computes a function of named values, and counts its runs in a state."""

    name, module = "fake", None

    def __init__(self, function, stateful=False):
        self.function, self.stateful = function, stateful

    def predict(self, inputs, state):
        if state is not None:
            state.count += 1
        return self.function(**inputs)

    def values(self, inputs, state):
        if state is not None:
            state.count += 1
        yield "inside", np.ones(1)
        yield from self.function(**inputs).items()

    def make_state(self):
        return Counter() if self.stateful else None


class Counter:
    count = 0

    def read_state(self, name):
        return np.array(self.count)

    def write_state(self, name, value):
        self.count = int(value)


def between(inputs, outputs, states=()):
    """A description with these inputs and outputs."""
    message = ModelDescription()
    for list_of, features in ((message.input, inputs), (message.output, outputs)):
        for name, fill in features.items():
            fill(list_of.add(name=name).type)
    for name in states:
        message.state.add(name=name).type.stateType.arrayType.dataType = 65552
    return Description.of(message)


def test_features_flow_by_name():
    stages = [
        Stage("double", between({"x": array(2)}, {"y": array(2)}), Fake(lambda x: {"y": 2 * x})),
        Stage("sum", between({"y": array(2), "x": array(2)}, {"z": array(2)}), Fake(lambda x, y: {"z": x + y})),
    ]
    description = between({"x": array(2)}, {"z": array(2), "y": array(2)})
    backend = PipelineBackend(description, stages)
    found = description.results(backend.predict({"x": np.float32([1, 2])}, None))
    assert {name: value.tolist() for name, value in found.items()} == {"z": [3, 6], "y": [2, 4]}
    assert backend.make_state() is None
    assert backend.name == "fake"
    names = [name for name, _ in backend.values({"x": np.float32([1, 2])}, None)]
    assert names == ["double/inside", "double/y", "sum/inside", "sum/z"]


def test_images_flow_in_whole_values_and_the_order_of_each_model():
    seen = []

    def brighten(photo):
        return {"bright": photo + 0.6}

    def look(bright):
        seen.append(bright)
        return {"mean": bright.mean(axis=(2, 3))[0], "same": bright}

    stages = [
        Stage("brighten", between({"photo": image(3, 2)}, {"bright": image(3, 2)}), Fake(brighten)),
        Stage(
            "look", between({"bright": image(3, 2, "BGR")}, {"mean": array(3), "same": image(3, 2, "BGR")}), Fake(look)
        ),
    ]
    description = between({"photo": image(3, 2, "BGR")}, {"mean": array(3), "same": image(3, 2)})
    backend = PipelineBackend(description, stages)
    pixels = np.random.default_rng(0).integers(0, 250, (2, 3, 3)).astype(np.uint8)
    arguments = description.arguments("predict", {"photo": pixels})
    found = description.results(backend.predict(arguments, None), as_images=False)
    np.testing.assert_array_equal(seen[0][0].transpose(1, 2, 0)[..., ::-1], pixels + 1)
    np.testing.assert_allclose(found["mean"], (pixels + 1.0).mean(axis=(0, 1))[::-1], rtol=1e-6)
    np.testing.assert_array_equal(found["same"], pixels + 1)


def test_states_belong_to_their_models():
    plain = between({"x": array(1)}, {"y": array(1)})
    stages = [
        Stage("first", between({"x": array(1)}, {"y": array(1)}, ["a"]), Fake(lambda x: {"y": x}, stateful=True)),
        Stage("none", between({"y": array(1)}, {"w": array(1)}), Fake(lambda y: {"w": y})),
        Stage("second", between({"w": array(1)}, {"z": array(1)}, ["b"]), Fake(lambda w: {"z": w}, stateful=True)),
    ]
    backend = PipelineBackend(plain, stages)
    state = backend.make_state()
    assert isinstance(state, PipelineState)
    backend.predict({"x": np.ones(1)}, state)
    list(backend.values({"x": np.ones(1)}, state))
    assert (int(state.read_state("a")), int(state.read_state("b"))) == (2, 2)
    state.write_state("b", np.array(7))
    assert state.read_state("b") == 7
    with pytest.raises(ValueError, match="there is no state 'c'; the states are a, b"):
        state.read_state("c")


def test_a_stage_whose_input_nobody_makes_is_named():
    stages = [Stage("alone", between({"q": array(1)}, {"y": array(1)}), Fake(lambda q: {"y": q}))]
    backend = PipelineBackend(between({"x": array(1)}, {"y": array(1)}), stages)
    with pytest.raises(ValueError, match="predict: alone: input 'q' is missing"):
        backend.predict({"x": np.ones(1)}, None)


@pytest.fixture
def pipeline(ct, photo, tmp_path):
    """The inverse of an image, inverted again by a second model, as a package."""
    pytest.importorskip("torch")
    with quiet():
        import torch

        class Contrast(torch.nn.Module):
            def forward(self, inverse):
                return 255.0 - inverse

        second = ct.convert(
            torch.jit.trace(Contrast(), torch.zeros(1, 3, 4, 6)),
            inputs=[ct.ImageType("inverse", shape=(1, 3, 4, 6), color_layout=ct.colorlayout.RGB)],
            outputs=[ct.TensorType("again")],
            minimum_deployment_target=ct.target.iOS16,
            skip_model_load=True,
        )
        path = tmp_path / "pipeline.mlpackage"
        ct.utils.make_pipeline(photo, second).save(str(path))
    return path


def test_a_pipeline_of_programs_runs(pipeline, image_module):
    model = runtime.load(pipeline)
    assert (model.kind, model.backend) == ("a pipeline", "torch")
    pixels = np.random.default_rng(0).integers(0, 256, (4, 6, 3)).astype(np.uint8)
    found = model.predict({"image": image_module.fromarray(pixels)})
    (again,) = found.values()
    np.testing.assert_array_equal(again[0], pixels.transpose(2, 0, 1))
    names = [name for name, _ in model.values({"image": pixels})]
    assert len({name.partition("/")[0] for name in names}) == 2
    with pytest.raises(AttributeError, match="is a pipeline, which has no torch module"):
        model.module  # noqa: B018
    assert not hasattr(model, "module")


def spec_of(path):
    from coremltools.proto import Model_pb2

    return Model_pb2.Model.FromString(model_file(path).read_bytes())


def test_pipelines_in_pipelines_and_unknown_parts(ct, pipeline, image_module):
    from coremltools.proto import Model_pb2

    inner = spec_of(pipeline)
    outer = Model_pb2.Model(specificationVersion=inner.specificationVersion)
    outer.description.CopyFrom(inner.description)
    outer.pipeline.models.add().CopyFrom(inner)
    outer.pipeline.names.append("inner")
    model_file(pipeline).write_bytes(outer.SerializeToString())
    model = runtime.load(pipeline)
    pixels = np.full((4, 6, 3), 7, np.uint8)
    assert next(iter(model.predict({"image": pixels}).values())).max() == 7
    assert next(iter(dict(model.values({"image": pixels})))).startswith("inner/")
    part = outer.pipeline.models.add(specificationVersion=1)
    part.treeEnsembleRegressor.SetInParent()
    outer.pipeline.names.append("boxes")
    model_file(pipeline).write_bytes(outer.SerializeToString())
    message = r"its part 'boxes' is a regression by trees \(treeEnsembleRegressor\); only ML programs"
    with pytest.raises(UnsupportedOperationError, match=message):
        runtime.load(pipeline)


def test_wrapped_pipelines_and_their_names(ct, tmp_path):
    from coremltools.proto import Model_pb2

    outer = Model_pb2.Model(specificationVersion=1)
    for name in ("a", "a"):
        outer.pipelineClassifier.pipeline.models.add(specificationVersion=3).glmClassifier.SetInParent()
        outer.pipelineClassifier.pipeline.names.append(name)
    with open_model(outer) as opened:
        assert [each.name for each in opened.root.parts] == ["0", "1"]
        assert [each.version for each in opened.root.parts] == [3, 3]
    nested = Model_pb2.Model()
    place = nested
    for _ in range(40):
        place = place.pipeline.models.add()
    place.identity.SetInParent()
    with pytest.raises(FormatError, match="nested more than 32 deep"), open_model(nested):
        pass
    empty = Model_pb2.Model()
    empty.pipeline.SetInParent()
    with pytest.raises(FormatError, match="a pipeline has no models"), open_model(empty):
        pass


def test_descriptions_of_fakes_are_those_of_models():
    assert describe(x=array(2)).inputs == between({"x": array(2)}, {}).inputs
