"""Models that were made to do harm: they end in clear errors, in little time and memory."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

pytest.importorskip("torch")

import torch

from corepress import FormatError, runtime
from corepress.coreml.format.descriptions import ModelDescription
from corepress.coreml.format.package import Package
from corepress.neural_network.layer_schema import message_class
from corepress.runtime.torch import limits
from corepress.runtime.torch.network import NetworkModule
from corepress.runtime.torch.ops import control_flow
from corepress.runtime.torch.registry import implementation_of
from corepress.runtime.torch.schedule import OperationError, reason_of

LONG = 1 << 20
NEWEST = 10


def column(size=LONG):
    """A tensor of one element in memory that broadcasts against a row."""
    return torch.zeros(1).expand(size, 1)


def row(size=LONG):
    return torch.zeros(1).expand(1, size)


BINARY = (
    *("add", "sub", "mul", "real_div", "floor_div", "mod", "pow", "maximum", "minimum", "equal", "not_equal"),
    *("greater", "greater_equal", "less", "less_equal", "logical_and", "logical_or", "logical_xor"),
)
IMAGE = torch.zeros(1, 1, 2, 2)
GRID = {"sampling_mode": "bilinear", "padding_mode": "constant", "padding_value": 0.0, "align_corners": True}
MINUS_ONE_TO_ONE = {"coordinates_mode": "normalized_minus_one_to_one"}
HUGE = {"target_size_height": 1 << 20, "target_size_width": 1 << 20}
FACTORS = {"scale_factor_height": 1 << 20, "scale_factor_width": 1 << 20}
PADDED = {"pad_type": "custom", "pad": [1 << 20] * 4}
NUMBERS = torch.zeros(1, dtype=torch.int32).expand(LONG)
EXPLOSIONS = {
    **{name: (name, (column(), row()), {}) for name in BINARY},
    "select": ("select", (column() > 0, row(), row()), {}),
    "matmul": ("matmul", (column(), row()), {}),
    "linear": ("linear", (column(), column()), {}),
    "einsum": ("einsum", ([column(), row()],), {"equation": "ab,bc->ac"}),
    "concat": ("concat", ([torch.zeros(1).expand(1 << 30)] * 4,), {"axis": 0}),
    "stack": ("stack", ([torch.zeros(1).expand(1 << 30)] * 4,), {"axis": 0}),
    "gather": ("gather", (row(), torch.zeros(1, dtype=torch.int32).expand(LONG)), {"axis": 0}),
    "gather_nd": ("gather_nd", (row(), NUMBERS.unsqueeze(1)), {}),
    "sliding_windows": ("sliding_windows", (row(),), {"axis": 1, "size": 1 << 19}),
    "space_to_batch": ("space_to_batch", (IMAGE,), {"block_shape": [1, 1], "paddings": [[LONG, LONG]] * 2}),
    "random_uniform": ("random_uniform", (torch.tensor([LONG, LONG]),), {}),
    "random_normal": ("random_normal", (torch.tensor([LONG, LONG]),), {}),
    "random_bernoulli": ("random_bernoulli", (torch.tensor([LONG, LONG]),), {}),
    "random_categorical": ("random_categorical", (torch.zeros(1, 2),), {"size": 1 << 40}),
    "resize_nearest_neighbor": ("resize_nearest_neighbor", (IMAGE,), HUGE),
    "resize_bilinear": ("resize_bilinear", (IMAGE,), HUGE),
    "resize": ("resize", (IMAGE,), {"shape": [LONG, LONG], "resized_dims": 2}),
    "upsample_nearest_neighbor": ("upsample_nearest_neighbor", (IMAGE,), FACTORS),
    "upsample_bilinear": ("upsample_bilinear", (IMAGE,), FACTORS),
    "crop_resize": ("crop_resize", (IMAGE, torch.zeros(1, 4)), {"target_height": LONG, "target_width": LONG}),
    "affine": (
        "affine",
        (IMAGE, torch.zeros(1, 6)),
        {"output_height": LONG, "output_width": LONG, **GRID, **MINUS_ONE_TO_ONE},
    ),
    "conv": ("conv", (IMAGE, torch.zeros(1, 1, 1, 1)), PADDED),
    "conv, not symmetric": (
        "conv",
        (IMAGE, torch.zeros(1, 1, 1, 1)),
        {"pad_type": "custom", "pad": [1, LONG, 1, LONG]},
    ),
    "conv_transpose": ("conv_transpose", (IMAGE, torch.zeros(1, 1, 2, 2)), {"strides": [LONG, LONG]}),
    "conv_transpose of a shape": (
        "conv_transpose",
        (IMAGE, torch.zeros(1, 1, 2, 2)),
        {"output_shape": [1, 1, LONG, LONG]},
    ),
    "max_pool": ("max_pool", (IMAGE,), {"kernel_sizes": [2, 2], **PADDED}),
    "avg_pool": ("avg_pool", (IMAGE,), {"kernel_sizes": [2, 2], **PADDED}),
    "l2_pool": ("l2_pool", (IMAGE,), {"kernel_sizes": [2, 2], **PADDED}),
    "non_maximum_suppression": (
        "non_maximum_suppression",
        (torch.zeros(1, 4, 1), torch.zeros(1, 1, 1)),
        {"iou_threshold": 0.5, "max_boxes": 2**31 - 1},
    ),
    "list_gather": ("list_gather", ([torch.zeros(1).expand(LONG)],), {"indices": [0] * (1 << 12)}),
}


@pytest.mark.parametrize(("operation", "values", "options"), EXPLOSIONS.values(), ids=EXPLOSIONS)
def test_results_that_explode_are_refused(operation, values, options):
    with pytest.raises(ValueError, match=f"the limit is {limits.ELEMENT_LIMIT} on this machine"):
        implementation_of(operation, NEWEST).function(*values, **options)


def test_lists_are_limited_by_all_their_elements():
    big = torch.zeros(1).expand(limits.ELEMENT_LIMIT // 2)
    grown = control_flow.list_write(control_flow.make_list(elem_shape=[1]), big, index=0)
    grown = control_flow.list_write(control_flow.list_write(grown, big, index=1), big, index=1)
    with pytest.raises(ValueError, match="the limit is"):
        control_flow.list_write(grown, big, index=2)
    with pytest.raises(ValueError, match="the limit is"):
        control_flow.make_list(init_length=1 << 16, elem_shape=[1 << 16])


def test_what_pytorch_says_is_cut_to_the_point():
    error = RuntimeError(
        "Overflow when unpacking long long\nException raised from unpack at numbers.h:79\nframe #0: c10"
    )
    assert reason_of(error) == "Overflow when unpacking long long"
    assert reason_of(MemoryError()) == "MemoryError"


def loops(depth, body):
    """Loops within each other, without a condition."""
    for level in range(depth):
        body = [{"name": f"loop{level}", "loop": {"maxLoopIterations": 100, "bodyNetwork": {"layers": body}}}]
    return body


def network(layers):
    described = ModelDescription(
        input=[{"name": "x", "type": {"multiArrayType": {"shape": [3]}}}],
        output=[{"name": "x", "type": {"multiArrayType": {}}}],
    )
    return NetworkModule(message_class("NeuralNetwork")(layers=layers, arrayInputShapeMapping=1), described)


def test_loops_of_a_network_share_a_limit(monkeypatch):
    monkeypatch.setattr("corepress.runtime.torch.network.ITERATION_LIMIT", 300)
    step = {"name": "step", "input": ["x"], "output": ["x"], "copy": {}}
    network(loops(1, [step]))({"x": torch.zeros(3)})
    with pytest.raises(OperationError, match="has not ended after 300 iterations"):
        network(loops(3, [step]))({"x": torch.zeros(3)})


@pytest.mark.parametrize("kind", [{"concatND": {}}, {"stack": {}}, {"concat": {}}])
def test_values_of_a_network_that_double_are_refused(kind):
    double = {"name": "double", "input": ["x", "x"], "output": ["x"], **kind}
    with pytest.raises(OperationError, match=r"double .*the limit is"):
        network([double])({"x": torch.zeros(1).expand(limits.ELEMENT_LIMIT, 1, 1)})


ACROSS = ["add", "multiply", "average", "max", "min", "equal", "logicalAnd", "addBroadcastable", "dot"]


@pytest.mark.parametrize("layer", ACROSS)
def test_values_of_a_network_that_broadcast_too_far_are_refused(layer):
    layers = [
        {"name": "turn", "input": ["x"], "output": ["y"], "transpose": {"axes": [0, 2, 1]}},
        {"name": "across", "input": ["x", "y"], "output": ["x"], layer: {}},
    ]
    with pytest.raises(OperationError, match=r"across .*the limit is"):
        network(layers)({"x": torch.zeros(1).expand(1, 1, LONG)})


@pytest.fixture(scope="module")
def proto():
    pytest.importorskip("coremltools")
    from coremltools.proto import Model_pb2

    return Model_pb2


@pytest.fixture
def damaged(proto, linear, accumulator, tmp_path):
    """A copy of a package with an edited model."""
    import shutil

    numbers = itertools.count()

    def damaged(change, source=None):
        path = tmp_path / f"damaged{next(numbers)}.mlpackage"
        shutil.copytree(accumulator if source == "accumulator" else linear, path)
        model = proto.Model()
        file = Package.open(path).model_path
        model.ParseFromString(file.read_bytes())
        change(model)
        file.write_bytes(model.SerializeToString())
        return path

    return damaged


def main(model):
    return model.mlProgram.functions["main"]


def operations(model):
    return next(iter(main(model).block_specializations.values())).operations


def of_type(model, kind):
    return next(each for each in operations(model) if each.type == kind)


def rename_input(model):
    model.description.input[0].name = "z"


def text_input(model):
    main(model).inputs[0].type.tensorType.dataType = 2


def no_type(model):
    main(model).inputs[0].ClearField("type")


CONTRADICTIONS = {
    "input of another name": (rename_input, "has the input 'x', which the model's description lacks"),
    "no inputs": (lambda model: model.description.ClearField("input"), "has the input 'x', which"),
    "text in the program": (text_input, "the program's input 'x' must be a tensor of numbers"),
    "input without a type": (no_type, "the program's input 'x' must be a tensor of numbers"),
    **{
        kind: (
            lambda model, kind=kind: getattr(model.description.input[0].type, f"{kind}Type").SetInParent(),
            f"input 'x' is described as {kind}, but the program takes a tensor",
        )
        for kind in ("string", "dictionary", "sequence")
    },
    "output of another name": (
        lambda model: setattr(model.description.output[0], "name", "z"),
        "describes an output 'z', but computes y",
    ),
    **{
        f"output {kind}": (
            lambda model, kind=kind: getattr(model.description.output[0].type, f"{kind}Type").SetInParent(),
            f"output 'y' is described as {kind}, but the program computes a tensor",
        )
        for kind in ("dictionary", "sequence")
    },
}


@pytest.mark.parametrize(("change", "message"), CONTRADICTIONS.values(), ids=CONTRADICTIONS)
def test_descriptions_that_contradict_the_program_are_refused(damaged, change, message):
    with pytest.raises(FormatError, match=message):
        runtime.load(damaged(change))


def test_states_of_absurd_size_are_refused(damaged):
    def grow(model):
        for each in main(model).inputs:
            if each.type.WhichOneof("type") == "stateType":
                each.type.stateType.wrappedType.tensorType.dimensions[0].constant.size = 1 << 40

    model = runtime.load(damaged(grow, "accumulator"))
    with pytest.raises(ValueError, match="state 'total': a shape of"):
        model.make_state()


def test_states_are_no_tensors_and_tensors_no_states(damaged):
    def read_a_tensor(model):
        of_type(model, "read_state").inputs["input"].arguments[0].name = "x"

    def add_a_state(model):
        of_type(model, "add").inputs["y"].arguments[0].name = "total"

    with pytest.raises(FormatError, match="its input 'input' must be a state; 'x' is not"):
        runtime.load(damaged(read_a_tensor, "accumulator"))
    with pytest.raises(FormatError, match="its input 'y' must be a tensor; 'total' is not"):
        runtime.load(damaged(add_a_state, "accumulator"))


def test_optional_inputs_of_absurd_size_are_refused(damaged):
    def grow(model):
        kind = model.description.input[0].type
        kind.isOptional = True
        kind.multiArrayType.shape[:] = [1 << 30]

    with pytest.raises(ValueError, match="input 'x' would have 1073741824 elements; pass one of yours"):
        runtime.load(damaged(grow)).predict({})


def test_conditions_without_a_value_are_refused(damaged):
    def replace(model):
        operation = operations(model)[-1]
        operation.type = "cond"
        operation.ClearField("inputs")

    with pytest.raises(FormatError, match="pred must be one value, not 0"):
        runtime.load(damaged(replace))


def test_a_model_that_is_as_described_still_runs(damaged):
    path = damaged(lambda model: None)
    assert runtime.load(path).predict({"x": np.zeros((1, 4), np.float32)})["y"].shape == (1, 5)
