"""Linear models, feature engineering and the suppression of boxes, alone and in pipelines."""

from __future__ import annotations

import math

import numpy as np
import pytest

from corepress import runtime
from corepress.coreml.format.small_models import SmallModel
from corepress.errors import FormatError, UnsupportedOperationError

pytest.importorskip("torch")


@pytest.fixture
def spec(ct):
    from coremltools.proto import Model_pb2

    return Model_pb2.Model(specificationVersion=4)


def add_features(spec, inputs, outputs):
    """Features by name and type; arrays by their shape."""
    for list_of, features in ((spec.description.input, inputs), (spec.description.output, outputs)):
        for name, kind in features.items():
            message = list_of.add(name=name).type
            if isinstance(kind, tuple):
                message.multiArrayType.shape.extend(kind)
                message.multiArrayType.dataType = 65600
            elif kind.startswith("optional "):
                getattr(message, kind.split()[1]).SetInParent()
                message.isOptional = True
            else:
                getattr(message, kind).SetInParent()


def test_the_table_of_messages_is_coremls(ct):
    from coremltools.proto import Model_pb2

    pending, seen = [(SmallModel.DESCRIPTOR, Model_pb2.Model.DESCRIPTOR)], set()
    while pending:
        ours, theirs = pending.pop()
        for field in ours.fields:
            same = theirs.fields_by_name[field.name]
            assert field.number == same.number, field.full_name
            assert field.type == same.type or (same.type, field.type) == (same.TYPE_ENUM, field.TYPE_INT32)
            assert isinstance(field.default_value, list) == isinstance(same.default_value, list), field.full_name
            if field.message_type and (field.full_name not in seen):
                seen.add(field.full_name)
                pending.append((field.message_type, same.message_type))
    assert len(seen) > 25


@pytest.mark.parametrize(
    ("transform", "expected"),
    [(0, 3.1), (1, 1 / (1 + math.exp(-3.1))), (2, 0.5 * (1 + math.erf(3.1 / math.sqrt(2))))],
)
def test_linear_regressions(spec, transform, expected):
    add_features(spec, {"a": "doubleType", "b": "int64Type"}, {"y": "doubleType"})
    spec.description.predictedFeatureName = "y"
    spec.glmRegressor.offset.append(0.1)
    spec.glmRegressor.weights.add().value.extend([1, 2])
    spec.glmRegressor.postEvaluationTransform = transform
    model = runtime.load(spec)
    assert (model.backend, model.precision, model.kind) == ("numpy", "float64", "a linear regression")
    found = model.predict({"a": 1.0, "b": 1})
    assert found == {"y": pytest.approx(expected, rel=1e-12)}
    assert type(found["y"]) is float
    assert dict(model.values({"a": 1.0, "b": 1}))["y"].shape == (1,)


def test_several_targets_from_an_array(spec):
    add_features(spec, {"x": (3,)}, {"y": (2,)})
    for row in ([1, 2, 3], [0, 0, -1]):
        spec.glmRegressor.weights.add().value.extend(row)
    assert runtime.load(spec).predict({"x": [1, 1, 2]})["y"].tolist() == [9, -2]
    spec.description.input[0].type.multiArrayType.shape[0] = 4
    with pytest.raises(ValueError, match="the inputs have 4 values, but the model has 3 weights"):
        runtime.load(spec).predict({"x": [1, 1, 2, 3]})
    spec.glmRegressor.weights.add().value.extend([1])
    with pytest.raises(FormatError, match="rows of weights of one length"):
        runtime.load(spec)


@pytest.mark.parametrize(
    ("rows", "encoding", "labels", "expected"),
    [
        ([[1.0, 0]], 0, ["no", "yes"], [1 / (1 + math.e**2), 1 / (1 + math.e**-2)]),
        ([[1.0, 0], [0, 1.0]], 0, [7, 8, 9], [1, math.e**2, math.e**3]),
        ([[1.0, 0], [0, 1.0]], 1, [7, 8], [1 / (1 + math.e**-2), 1 / (1 + math.e**-3)]),
    ],
)
def test_linear_classifiers(spec, rows, encoding, labels, expected):
    label_type = "stringType" if isinstance(labels[0], str) else "int64Type"
    add_features(spec, {"x": (2,)}, {"label": label_type, "p": "dictionaryType"})
    spec.description.predictedFeatureName, spec.description.predictedProbabilitiesName = "label", "p"
    for row in rows:
        spec.glmClassifier.weights.add().value.extend(row)
    spec.glmClassifier.classEncoding = encoding
    kind = "stringClassLabels" if label_type == "stringType" else "int64ClassLabels"
    getattr(spec.glmClassifier, kind).vector.extend(labels)
    found = runtime.load(spec).predict({"x": [2, 3]})
    total = sum(expected)
    assert found["p"] == pytest.approx({each: p / total for each, p in zip(labels, expected, strict=True)})
    assert found["label"] == labels[int(np.argmax(expected))]
    spec.glmClassifier.weights.add().value.extend([1, 1])
    with pytest.raises(FormatError, match="a linear classifier with"):
        runtime.load(spec)


def test_what_has_no_formula_is_refused(spec):
    add_features(spec, {"x": (1,)}, {"label": "int64Type", "p": "dictionaryType"})
    for _ in range(2):
        spec.glmClassifier.weights.add().value.append(1)
    spec.glmClassifier.int64ClassLabels.vector.extend([1, 2, 3])
    spec.glmClassifier.postEvaluationTransform = 1
    with pytest.raises(UnsupportedOperationError, match="several classes by probit cannot be run here"):
        runtime.load(spec)


def fill(**fields):
    def into(message):
        for name, value in fields.items():
            if isinstance(value, list):
                getattr(message, name).extend(value)
            elif isinstance(value, dict):
                for key, each in value.items():
                    getattr(message, name).map[key] = each
            elif isinstance(value, tuple):
                getattr(message, name).vector.extend(value)
            else:
                setattr(message, name, value)

    return into


@pytest.mark.parametrize(
    ("kind", "into", "source", "target", "given", "expected"),
    [
        ("scaler", fill(shiftValue=[1.0], scaleValue=[2.0, 3.0]), (2,), (2,), [1, 2], [4, 9]),
        ("normalizer", fill(normType=0), (2,), (2,), [3, -4], [0.75, -1]),
        ("normalizer", fill(normType=1), (2,), (2,), [1, -3], [0.25, -0.75]),
        ("normalizer", fill(normType=2), (2,), (2,), [3, 4], [0.6, 0.8]),
        ("normalizer", fill(normType=2), (2,), (2,), [0, 0], [0, 0]),
        ("arrayFeatureExtractor", fill(extractIndex=[2, 0]), (3,), (2,), [5, 6, 7], [7, 5]),
        ("oneHotEncoder", fill(stringCategories=("a", "b")), "stringType", (2,), "b", [0, 1]),
        ("oneHotEncoder", fill(int64Categories=(5, 6), handleUnknown=1), "int64Type", (2,), 7, [0, 0]),
        ("oneHotEncoder", fill(int64Categories=(5, 6), outputSparse=True), "int64Type", "dictionaryType", 6, {1: 1.0}),
        ("dictVectorizer", fill(stringToIndex=("a", "b", "c")), "dictionaryType", (3,), {"c": 2, "a": 1}, [1, 0, 2]),
        ("categoricalMapping", fill(stringToInt64Map={"a": 3}), "stringType", "int64Type", "a", 3),
        ("categoricalMapping", fill(int64ToStringMap={3: "a"}, strValue="?"), "int64Type", "stringType", 4, "?"),
        ("imputer", fill(imputedDoubleValue=9.0), (2,), (2,), [math.nan, 1], [9, 1]),
        ("imputer", fill(imputedDoubleArray=(8.0, 9.0), replaceDoubleValue=1.0), (2,), (2,), [1, 1], [8, 9]),
        ("imputer", fill(imputedStringValue="b", replaceStringValue="a"), "stringType", "stringType", "a", "b"),
        ("identity", fill(), (2,), (2,), [1, 2], [1, 2]),
    ],
)
def test_feature_engineering(spec, kind, into, source, target, given, expected):
    add_features(spec, {"x": source}, {"y": target})
    getattr(spec, kind).SetInParent()
    into(getattr(spec, kind))
    found = runtime.load(spec).predict({"x": given})["y"]
    if isinstance(found, np.ndarray):
        np.testing.assert_allclose(found, expected)
        assert found.dtype == np.float64
    else:
        assert found == expected


@pytest.mark.parametrize(
    ("kind", "into", "source", "given", "message"),
    [
        ("oneHotEncoder", fill(stringCategories=("a",)), "stringType", "b", "none of the model's categories"),
        ("categoricalMapping", fill(stringToInt64Map={"a": 3}), "stringType", "b", "which the model does not know"),
        ("arrayFeatureExtractor", fill(extractIndex=[5]), (3,), [1, 2, 3], "has 3 values, but value 5 is taken"),
    ],
)
def test_unknown_values_are_refused(spec, kind, into, source, given, message):
    add_features(spec, {"x": source}, {"y": (1,)})
    into(getattr(spec, kind))
    with pytest.raises(ValueError, match=message):
        runtime.load(spec).predict({"x": given})


def test_damaged_models_are_format_errors(spec):
    add_features(spec, {"x": (2,)}, {"y": (2,)})
    spec.normalizer.normType = 7
    with pytest.raises(FormatError, match="an option 7, which is unknown here"):
        runtime.load(spec)
    del spec.description.output[:]
    spec.featureVectorizer.inputList.add(inputColumn="q", inputDimensions=1)
    with pytest.raises(FormatError, match=r"the model \(featureVectorizer\) describes no outputs"):
        runtime.load(spec)
    add_features(spec, {}, {"y": (1,)})
    with pytest.raises(FormatError, match="takes a feature 'q', which it does not describe"):
        runtime.load(spec).predict({"x": [1, 2]})


def suppression(spec, per_class=False):
    add_features(
        spec,
        {"c": (5, 2), "b": (5, 4), "iou": "optional doubleType"},
        {"confidence": (0,), "coordinates": (0,)},
    )
    for each in spec.description.output:
        del each.type.multiArrayType.shape[:]
    model = spec.nonMaximumSuppression
    model.pickTop.perClass = per_class
    model.confidenceInputFeatureName, model.coordinatesInputFeatureName = "c", "b"
    model.confidenceOutputFeatureName, model.coordinatesOutputFeatureName = "confidence", "coordinates"
    model.iouThresholdInputFeatureName = "iou"
    model.iouThreshold, model.confidenceThreshold = 0.5, 0.2
    return spec


BOXES = np.array([[0.5, 0.5, 1, 1], [0.5, 0.6, 1, 1], [0.52, 0.5, 1, 1], [3, 3, 1, 1], [5, 5, 1, 1]])
CONFIDENCE = np.array([[0.8, 0], [0.9, 0.1], [0, 0.7], [0.3, 0], [0.1, 0.05]])


@pytest.mark.parametrize(
    ("per_class", "more", "kept"), [(False, {}, [1, 3]), (True, {}, [1, 2, 3]), (False, {"iou": 0.95}, [1, 0, 3])]
)
def test_overlapping_boxes_are_dropped(spec, per_class, more, kept):
    found = runtime.load(suppression(spec, per_class)).predict({"c": CONFIDENCE, "b": BOXES, **more})
    np.testing.assert_array_equal(found["coordinates"], BOXES[kept])
    np.testing.assert_array_equal(found["confidence"], CONFIDENCE[kept])


def test_an_object_detector_is_a_pipeline(ct, spec):
    from coremltools.proto import Model_pb2

    network = Model_pb2.Model(specificationVersion=4)
    add_features(network, {"c_raw": (5, 2)}, {"c": (5, 2)})
    network.neuralNetwork.arrayInputShapeMapping = 1
    layer = network.neuralNetwork.layers.add(name="scale", input=["c_raw"], output=["c"])
    layer.activation.linear.alpha = 0.5
    last = suppression(spec)
    outer = Model_pb2.Model(specificationVersion=4)
    add_features(outer, {"c_raw": (5, 2), "b": (5, 4), "iou": "optional doubleType"}, {})
    for each in last.description.output:
        outer.description.output.add().CopyFrom(each)
    for each in (network, last):
        outer.pipeline.models.add().CopyFrom(each)
    model = runtime.load(outer)
    assert model.backend == "torch"
    found = model.predict({"c_raw": 2 * CONFIDENCE, "b": BOXES})
    np.testing.assert_array_equal(found["coordinates"], BOXES[[1, 3]])
    stricter = model.predict({"c_raw": 2 * CONFIDENCE, "b": BOXES, "iou": 0.95})
    assert len(stricter["coordinates"]) == 3


def test_columns_become_a_vector(spec):
    add_features(spec, {"a": "doubleType", "b": (2,)}, {"y": (3,)})
    for name, size in (("b", 2), ("a", 1)):
        spec.featureVectorizer.inputList.add(inputColumn=name, inputDimensions=size)
    assert runtime.load(spec).predict({"a": 1, "b": [2, 3]})["y"].tolist() == [2, 3, 1]
    spec.featureVectorizer.inputList[0].inputDimensions = 5
    with pytest.raises(ValueError, match="input 'b' has 2 values, but must have 5"):
        runtime.load(spec).predict({"a": 1, "b": [2, 3]})
