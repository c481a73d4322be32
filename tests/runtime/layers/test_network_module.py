"""Networks as modules: features, weights, loops and branches, classifiers, errors."""

from __future__ import annotations

import copy
import weakref

import numpy as np
import pytest
import torch

from corepress.errors import FormatError, UnsupportedOperationError
from corepress.neural_network.held_values import HeldValues
from corepress.runtime.torch import network as networks
from corepress.runtime.torch.schedule import OperationError

LINEAR = {"linear": {"alpha": 1}}
RELU = {"ReLU": {}}
RGB, BGR, GRAY = 20, 30, 10


def array(*shape):
    return torch.arange(float(np.prod(shape))).reshape(shape)


def image(space, height=2, width=3):
    return {"imageType": {"colorSpace": space, "height": height, "width": width}}


def seen(module, **inputs):
    """The shape that layers see of an input."""
    return tuple(next(value for name, value in module.values(inputs) if name == "y").shape)


@pytest.mark.parametrize(
    ("declared", "given", "expected"),
    [
        ((4,), (4,), (1, 1, 4, 1, 1)),
        ((4,), (5, 2, 4), (5, 2, 4, 1, 1)),
        ((4,), (5, 4), (5, 1, 4, 1, 1)),
        ((4,), (5, 2, 4, 1, 1), (5, 2, 4, 1, 1)),
        ((4, 2, 3), (4, 2, 3), (1, 1, 4, 2, 3)),
        ((4, 2, 3), (7, 4, 2, 3), (1, 7, 4, 2, 3)),
        ((4, 2, 3), (5, 7, 4, 2, 3), (5, 7, 4, 2, 3)),
    ],
)
def test_old_networks_see_five_axes(network, declared, given, expected):
    module = network([("activation", LINEAR, ["x"], ["y"])], {"x": declared}, exact=False)
    assert seen(module, x=array(*given)) == expected


@pytest.mark.parametrize(("declared", "given"), [((4, 2, 3), (3, 4)), ((), (1, 2, 3, 4, 5, 6))])
def test_old_networks_refuse_other_ranks(network, declared, given):
    module = network([("activation", LINEAR, ["x"], ["y"])], {"x": declared}, exact=False)
    with pytest.raises(ValueError, match="x: arrays have"):
        module({"x": array(*given)})


@pytest.mark.parametrize("shape", [(4,), (2, 3), (1, 1, 2, 3), (1, 2, 1, 3, 1, 1)])
def test_new_networks_see_arrays_as_they_are(network, shape):
    module = network([("activation", LINEAR, ["x"], ["y"])])
    assert seen(module, x=array(*shape)) == shape
    assert module({"x": array(*shape)})["y"].shape == shape


def test_arrays_have_an_axis_at_least(network):
    module = network([("reduceSum", {"reduceAll": True}, ["x"], ["y"])])
    assert module({"x": torch.tensor(3.0)})["y"].shape == (1,)


@pytest.mark.parametrize(
    ("declared", "given", "expected"),
    [
        ((), (4,), (4,)),
        ((4,), (4,), (4,)),
        ((4, 1, 1), (4,), (4, 1, 1)),
        ((), (4, 2, 3), (4, 2, 3)),
        ((4, 2, 3), (4, 2, 3), (4, 2, 3)),
        ((24,), (4, 2, 3), (24,)),
        ((4,), (5, 2, 4), (5, 2, 4, 1, 1)),
        ((9, 9), (4, 2, 3), (4, 2, 3)),
    ],
)
def test_outputs_of_old_networks_lose_axes(network, declared, given, expected):
    inputs = {"x": (given[-1],) if len(given) == 1 or declared == (4,) else given}
    module = network([("activation", LINEAR, ["x"], ["y"])], inputs, {"y": declared}, exact=False)
    found = module({"x": array(*given)})["y"]
    assert found.shape == expected
    np.testing.assert_array_equal(found.reshape(-1), array(*given).reshape(-1))


@pytest.mark.parametrize(("exact", "expected"), [(False, (1, 1, 3, 2, 3)), (True, (1, 3, 2, 3))])
def test_images(network, exact, expected):
    module = network([("activation", LINEAR, ["x"], ["y"])], {"x": image(RGB)}, {"y": image(RGB)}, exact)
    for given in (array(3, 2, 3), array(1, 3, 2, 3)):
        assert seen(module, x=given) == expected
        assert module({"x": given})["y"].shape == (1, 3, 2, 3)
    with pytest.raises(ValueError, match="x: images have 3 or 4 axes, not 2"):
        module({"x": array(2, 3)})


def test_transpose_of_an_image_that_was_an_array(network):
    module = network([("transpose", {"axes": [1, 2, 0]}, ["x"], ["y"])], {"x": image(RGB)}, {"y": (2, 3, 3)})
    np.testing.assert_array_equal(module({"x": array(3, 2, 3)})["y"], array(3, 2, 3).permute(1, 2, 0))


SCALER = {"channelScale": 2, "redBias": 1, "greenBias": 10, "blueBias": 100, "grayBias": 1000}


@pytest.mark.parametrize(
    ("space", "channels", "biases"), [(RGB, 3, [1, 10, 100]), (BGR, 3, [100, 10, 1]), (GRAY, 1, [1000])]
)
@pytest.mark.parametrize("name", ["x", ""])
def test_scaler(network, space, channels, biases, name):
    steps = [{"featureName": name, "scaler": SCALER}]
    module = network([("activation", LINEAR, ["x"], ["y"])], {"x": image(space)}, exact=False, preprocessing=steps)
    x = array(channels, 2, 3)
    np.testing.assert_array_equal(module({"x": x})["y"], 2 * x + torch.tensor(biases)[:, None, None])


def test_mean_image(network):
    steps = [{"featureName": "x", "meanImage": {"meanImage": range(18)}}, {"featureName": "x", "scaler": SCALER}]
    module = network([("activation", LINEAR, ["x"], ["y"])], {"x": image(RGB)}, preprocessing=steps)
    expected = np.broadcast_to(np.reshape([1, 10, 100], (1, 3, 1, 1)), (1, 3, 2, 3))
    np.testing.assert_array_equal(module({"x": array(3, 2, 3)})["y"], expected)
    with pytest.raises(ValueError, match=r"x: the mean image has 18 values, but the image has shape \(3, 4, 4\)"):
        module({"x": array(3, 4, 4)})


def test_preprocessing_of_what_is_no_input(network):
    with pytest.raises(FormatError, match="preprocessing is for 'z', which is no input"):
        network([("activation", LINEAR, ["x"], ["y"])], preprocessing=[{"featureName": "z", "scaler": SCALER}])


def test_missing_input(network):
    with pytest.raises(ValueError, match="input 'x' is missing"):
        network([("activation", LINEAR, ["x"], ["y"])])({})


def inner_product(weight, dtype=np.float32, name="ip.1/a"):
    weights = np.arange(6).reshape(2, 3) / 4
    params = {"inputChannels": 3, "outputChannels": 2, "hasBias": True}
    params |= {"weights": weight(weights, dtype), "bias": weight([1, -1], dtype)}
    return ("innerProduct", params, ["x"], ["y"], name), weights


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_weights_are_parameters_in_their_stored_type(network, weight, dtype):
    layer, weights = inner_product(weight, dtype)
    module = network([layer])
    named = dict(module.named_parameters())
    assert list(named) == ["layers.ip_1_a.weights", "layers.ip_1_a.bias"]
    assert all(value.dtype == getattr(torch, dtype.__name__) for value in named.values())
    x = torch.tensor([1.0, 2, 3])
    y = module({"x": x})["y"]
    assert y.dtype == torch.float32
    np.testing.assert_allclose(y.detach(), weights @ x.numpy() + [1, -1])


def test_gradients(network, weight):
    module = network([inner_product(weight)[0]])
    x = torch.tensor([1.0, 2, 3], requires_grad=True)
    module({"x": x})["y"].sum().backward()
    np.testing.assert_array_equal(module.layers.ip_1_a.weights.grad, [[1, 2, 3]] * 2)
    np.testing.assert_array_equal(x.grad, [0.75, 1.25, 1.75])


def test_changed_weights_count_also_in_copies(network, weight):
    module = network([inner_product(weight)[0]])
    other = copy.deepcopy(module)
    with torch.no_grad():
        other.layers.ip_1_a.weights.zero_()
    x = {"x": torch.ones(3)}
    np.testing.assert_array_equal(other(x)["y"].detach(), [1, -1])
    assert module(x)["y"].tolist() == [1.75, 2]
    module.load_state_dict(other.state_dict())
    np.testing.assert_array_equal(module(x)["y"].detach(), [1, -1])


def test_hooks_of_layers(network, weight):
    module, found = network([inner_product(weight)[0]]), []
    module.layers.ip_1_a.register_forward_hook(lambda layer, inputs, output: found.append((inputs, output)))
    module({"x": torch.ones(3)})
    assert found[0][0][0].tolist() == [1, 1, 1]
    assert found[0][1].tolist() == [1.75, 2]


@pytest.mark.parametrize(
    "quantization",
    [
        {"linearQuantization": {"scale": [0.5], "bias": [1]}},
        {"linearQuantization": {"scale": [0.5, 2], "bias": [1, 0]}},
        {"lookupTableQuantization": {"floatValue": [3, 1, 4, 1.5]}},
    ],
)
def test_quantized_weights_are_decoded(network, quantization):
    codes = np.array([[0, 1, 2], [3, 2, 1]])
    packed = np.packbits([int(bit) for code in codes.reshape(-1) for bit in f"{code:02b}"]).tobytes()
    stored = {"rawValue": packed, "quantization": {"numberOfBits": 2, **quantization}}
    params = {"inputChannels": 3, "outputChannels": 2, "weights": stored}
    module = network([("innerProduct", params, ["x"], ["y"])])
    if "lookupTableQuantization" in quantization:
        expected = np.array([3, 1, 4, 1.5])[codes]
    else:
        linear = quantization["linearQuantization"]
        expected = codes * np.reshape(linear["scale"], (-1, 1)) + np.reshape(linear["bias"], (-1, 1))
    np.testing.assert_array_equal(module.layers.layer0.weights.detach(), expected)


def test_names_that_modules_use_get_a_number(network):
    names = ("forward", "a b", "a_b", "")
    module = network([("activation", RELU, ["x"], ["y"], name) for name in names])
    assert list(module.layers._modules) == ["forward_2", "a_b", "a_b_2", "layer"]


def test_copy_overwrites(network):
    layers = [
        ("add", {"alpha": 1}, ["x"], ["a"]),
        ("multiply", {"alpha": 2}, ["a"], ["b"]),
        ("copy", {}, ["b"], ["a"]),
        ("add", {}, ["a", "x"], ["y"]),
    ]
    assert network(layers)({"x": torch.tensor([1.0])})["y"].tolist() == [5]


def test_branch(network, nested):
    ifs = nested(("add", {"alpha": 1}, ["x"], ["b"]), ("copy", {}, ["b"], ["y"]))
    elses = nested(("multiply", {"alpha": -1}, ["x"], ["y"]))
    module = network([("branch", {"ifBranch": ifs, "elseBranch": elses}, ["x"], [])])
    for x, expected in ((2.0, 3), (-2.0, -1), (0.0, 0), (1e-7, -1e-7)):
        assert module({"x": torch.tensor([x])})["y"].item() == pytest.approx(expected)
    with pytest.raises(OperationError, match=r"its condition 'x' must have one element, not shape \(2,\)"):
        module({"x": torch.ones(2)})


def test_branch_without_else(network, nested):
    module = network(
        [
            ("copy", {}, ["x"], ["y"]),
            ("branch", {"ifBranch": nested(("add", {"alpha": 5}, ["x"], ["y"]))}, ["x"], []),
        ]
    )
    assert module({"x": torch.zeros(1)})["y"].item() == 0
    assert module({"x": torch.ones(1)})["y"].item() == 6


DOUBLE = (("multiply", {"alpha": 2}, ["y"], ["z"]), ("copy", {}, ["z"], ["y"]))
START = ("copy", {}, ["x"], ["y"])


@pytest.mark.parametrize(("iterations", "expected"), [(0, 3), (1, 6), (4, 48)])
def test_loop_by_number(network, nested, iterations, expected):
    loop = {"maxLoopIterations": iterations, "bodyNetwork": nested(*DOUBLE)}
    assert network([START, ("loop", loop, [], [])])({"x": torch.tensor([3.0])})["y"].item() == expected


def test_loop_by_an_input(network, nested):
    loop = {"maxLoopIterations": 9, "bodyNetwork": nested(*DOUBLE)}
    module = network([START, ("loop", loop, ["n"], [])], {"x": None, "n": None})
    assert module({"x": torch.tensor([3.0]), "n": torch.tensor([3.0])})["y"].item() == 24


@pytest.mark.parametrize(("most", "expected"), [(0, 24), (2, 12), (9, 24)])
def test_loop_by_a_condition(network, nested, most, expected):
    condition = nested(("lessThan", {"alpha": 20}, ["y"], ["goes"]))
    loop = {
        "maxLoopIterations": most,
        "conditionVar": "goes",
        "conditionNetwork": condition,
        "bodyNetwork": nested(*DOUBLE),
    }
    assert network([START, ("loop", loop, [], [])])({"x": torch.tensor([3.0])})["y"].item() == expected


def test_break_and_continue(network, nested):
    """Adds 1 up to 10, and 100 as long as it is below 3; ends at 5."""
    body = nested(
        ("add", {"alpha": 1}, ["i"], ["i2"]),
        ("copy", {}, ["i2"], ["i"]),
        ("greaterEqual", {"alpha": 5}, ["i"], ["ends"]),
        ("branch", {"ifBranch": nested(("loopBreak", {}, [], []))}, ["ends"], []),
        ("greaterEqual", {"alpha": 3}, ["i"], ["skips"]),
        ("branch", {"ifBranch": nested(("loopContinue", {}, [], []))}, ["skips"], []),
        ("add", {"alpha": 100}, ["y"], ["y2"]),
        ("copy", {}, ["y2"], ["y"]),
    )
    loop = {"maxLoopIterations": 10, "bodyNetwork": body}
    module = network([("copy", {}, ["x"], ["i"]), START, ("loop", loop, [], [])], outputs=("y", "i"))
    found = module({"x": torch.zeros(1)})
    assert (found["y"].item(), found["i"].item()) == (200, 5)


def test_loop_without_end(network, nested, monkeypatch):
    monkeypatch.setattr(networks, "ITERATION_LIMIT", 50)
    condition = nested(("greaterThan", {"alpha": 0}, ["y"], ["goes"]))
    loop = {"conditionVar": "goes", "conditionNetwork": condition, "bodyNetwork": nested(*DOUBLE)}
    module = network([START, ("loop", loop, [], [], "forever")])
    with pytest.raises(OperationError, match=r"layer forever \(loop\): it has not ended after 50 iterations"):
        module({"x": torch.ones(1)})


def test_values_of_loops(network, nested):
    loop = {"maxLoopIterations": 2, "bodyNetwork": nested(*DOUBLE)}
    module = network([START, ("loop", loop, [], [])])
    found = [(name, value.item()) for name, value in module.values({"x": torch.tensor([3.0])})]
    assert found == [("y", 3), ("z", 6), ("y", 6), ("z", 12), ("y", 12)]


def test_weights_of_nested_layers_are_parameters(network, nested, weight):
    body = nested(
        ("loadConstantND", {"shape": [1], "data": weight([5])}, [], ["c"]),
        ("add", {}, ["y", "c"], ["z"]),
        ("copy", {}, ["z"], ["y"]),
    )
    module = network([START, ("loop", {"maxLoopIterations": 2, "bodyNetwork": body}, [], [])])
    assert list(module.state_dict()) == ["layers.layer1.bodyNetwork.layer0.data"]
    assert module({"x": torch.zeros(1)})["y"].item() == 10


def test_values_are_freed_after_their_last_use(network):
    layers = [("add", {"alpha": 1}, [f"v{index}"], [f"v{index + 1}"]) for index in range(4)]
    layers += [("add", {"alpha": 1}, ["v4"], ["unused"]), ("add", {}, ["v4", "v1"], ["y"])]
    module = network(layers, {"v0": None})
    alive, kept = [], {}
    for name, value in module.values({"v0": torch.zeros(1)}):
        kept[name] = weakref.ref(value)
        del value
        alive.append([each for each, found in kept.items() if found() is not None])
    assert [each[-3:] for each in alive] == [
        ["v1"],
        ["v1", "v2"],
        ["v1", "v2", "v3"],
        ["v1", "v3", "v4"],
        ["v1", "v4", "unused"],
        ["v1", "v4", "y"],
    ]
    assert max(map(len, alive)) == 3
    assert module({"v0": torch.zeros(1)})["y"].item() == 5


def test_outputs_that_are_inputs_or_used_again(network):
    module = network(
        [("add", {"alpha": 1}, ["x"], ["a"]), ("add", {"alpha": 1}, ["a"], ["y"])], outputs=("a", "y", "x")
    )
    found = module({"x": torch.zeros(1)})
    assert {name: value.item() for name, value in found.items()} == {"a": 1, "y": 2, "x": 0}


@pytest.mark.parametrize(
    "labels", [{"stringClassLabels": {"vector": ["a", "b", "c"]}}, {"int64ClassLabels": {"vector": [7, 8, 9]}}]
)
@pytest.mark.parametrize("scores", ["", "p"])
def test_classifier(network, labels, scores):
    (values,) = (each["vector"] for each in labels.values())
    module = network(
        [("softmaxND", {"axis": -1}, ["x"], ["p"])],
        outputs={"label": {"stringType": {}}, "chances": {"dictionaryType": {}}},
        description={"predictedFeatureName": "label", "predictedProbabilitiesName": "chances"},
        labelProbabilityLayerName=scores,
        **labels,
    )
    assert module.class_labels == tuple(values)
    assert (module.label_name, module.scores_name) == ("label", "chances")
    found = module({"x": torch.tensor([0.0, 2, 1])})
    assert list(found) == ["chances"]
    label, chances = module.classify(found["chances"])
    assert label == values[1]
    assert list(chances) == values
    assert sum(chances.values()) == pytest.approx(1)
    with pytest.raises(OperationError, match="a classifier of 3 labels has 2 scores"):
        module.classify(torch.zeros(2))


def test_a_network_without_labels_is_no_classifier(network):
    module = network([("activation", RELU, ["x"], ["y"])])
    with pytest.raises(ValueError, match="the network is no classifier"):
        module.classify(torch.zeros(3))


def test_custom_layers_are_refused_when_the_network_is_loaded(network):
    with pytest.raises(UnsupportedOperationError, match=r"layer mine \(custom\) of class 'Mine' cannot be run"):
        network([("custom", {"className": "Mine"}, ["x"], ["y"], "mine")])


def test_custom_layers_are_refused_within_loops(network, nested):
    body = nested(("custom", {"className": "Mine"}, ["x"], ["y"], "mine"))
    with pytest.raises(UnsupportedOperationError, match=r"layer outer\.bodyNetwork/mine \(custom\)"):
        network([("loop", {"bodyNetwork": body}, [], [], "outer")])


def test_layers_of_unknown_types_are_refused(network):
    module = pytest.importorskip("corepress.neural_network.layer_schema")
    message = module.message_class("NeuralNetworkLayer").FromString(b"\x0a\x01n" + b"\xba\x7d\x00")  # field 2007
    with pytest.raises(UnsupportedOperationError, match="layer n: its type is unknown"):
        networks.Block([message], "", HeldValues())


@pytest.mark.parametrize(
    ("layer", "problem"),
    [
        (("activation", {}, ["x"], ["y"]), "it has no activation"),
        (("activation", RELU, ["x", "x"], ["y"]), "it cannot have 2 inputs and weights none"),
        (
            ("innerProduct", {"inputChannels": 1, "outputChannels": 1}, ["x"], ["y"]),
            "missing a required argument: 'weights'",
        ),
        (("convolution", {"stride": [1, 2, 3]}, ["x"], ["y"]), r"two numbers, not \[1, 2, 3\]"),
        (("unary", {"type": 9}, ["x"], ["y"]), "there is no unary function 9"),
        (("pooling", {"type": 5}, ["x"], ["y"]), "there is no pooling of type 5"),
        (("permute", {"axis": [0, 0, 1, 2]}, ["x"], ["y"]), "must be a permutation"),
        (("loop", {}, ["x", "x"], []), "it must have 1 input or none, not 2"),
        (("branch", {}, [], []), "it must have 1 input, not 0"),
        (("scatter", {"mode": 12}, ["x", "x", "x"], ["y"]), "index out of range"),
    ],
)
def test_damaged_layers_are_refused_when_the_network_is_loaded(network, layer, problem):
    with pytest.raises(FormatError, match=rf"layer layer0 \({layer[0]}\): .*{problem}"):
        network([layer])


def test_weights_of_another_size_are_refused(network, weight):
    params = {"inputChannels": 3, "outputChannels": 2, "weights": weight([1, 2, 3])}
    with pytest.raises(
        FormatError, match=r"layer layer0 \(innerProduct\): holds 3 values, but its layer's sizes require 6"
    ):
        network([("innerProduct", params, ["x"], ["y"])])


def test_values_that_do_not_exist(network):
    with pytest.raises(OperationError, match=r"layer layer0 \(activation\): no layer has computed its input 'z'"):
        network([("activation", RELU, ["z"], ["y"])])({"x": torch.zeros(1)})
    with pytest.raises(OperationError, match="no layer has computed 'q', the output 'q' of the model"):
        network([("activation", RELU, ["x"], ["y"])], outputs=("q",))({"x": torch.zeros(1)})
    with pytest.raises(OperationError, match=r"layer layer0 \(branch\): no layer has computed 'z'"):
        network([("branch", {}, ["z"], [])])({"x": torch.zeros(1)})


def test_errors_of_pytorch_name_the_layer(network):
    module = network([("addBroadcastable", {}, ["x", "z"], ["y"], "sum")], {"x": None, "z": None})
    with pytest.raises(OperationError, match=r"layer sum \(addBroadcastable\): The size of tensor"):
        module({"x": torch.zeros(2), "z": torch.zeros(3)})


def test_whole_numbers_are_converted(network):
    module = network([("activation", LINEAR, ["x"], ["y"])])
    assert module({"x": torch.tensor([1, 2])})["y"].dtype == torch.float32


@pytest.mark.parametrize("exact", [False, True])
def test_networks_without_control_flow_are_compiled_as_a_whole(network, weight, exact):
    layers = [inner_product(weight, np.float16)[0], ("activation", RELU, ["y"], ["z"])]
    module = network(layers, {"x": (3,)}, ("z",), exact)
    compiled = torch.compile(module, backend="eager", fullgraph=True)
    x = {"x": torch.tensor([1.0, 2, 3])}
    np.testing.assert_array_equal(compiled(x)["z"].detach(), module(x)["z"].detach())
