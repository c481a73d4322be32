"""Weights of converted torch modules: their names, who uses them, and their channel axes."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

pytest.importorskip("coreai")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    pytest.importorskip("coreai_torch")

import torch
from coreai_helpers import quiet, replace_all, run, save_text
from coreai_models import MODELS, asset_of, example_of

import corepress as cp
from corepress.coreai.program.program import Program

pytestmark = pytest.mark.filterwarnings("ignore")

MATMUL = "broadcasting_batch_matmul"
# Name, shape, and the operation, operand, output axis, input axis and groups of each consumer.
EXPECTED = {
    "linear": [("Linear_1.weight", (48, 32), [(MATMUL, "y", 0, 1, 1)])],
    "conv2d": [
        ("Conv2d_1.weight", (16, 8, 3, 3), [("conv2d", "weight", 0, 1, 1)]),
        ("Conv2d_2.weight", (32, 4, 3, 3), [("conv2d", "weight", 0, 1, 4)]),
    ],
    "conv1d": [("Conv1d_1.weight", (16, 8, 1, 3), [("conv2d", "weight", 0, 1, 1)])],
    "conv3d": [("Conv3d_1.weight", (16, 8, 3, 3, 3), [("conv3d", "weight", 0, 1, 1)])],
    "conv_transpose2d": [("ConvTranspose2d_1.weight", (8, 16, 3, 3), [("conv_transpose2d", "weight", 1, 0, 1)])],
    "grouped conv_transpose2d": [("ConvTranspose2d_1.weight", (8, 8, 3, 3), [("conv_transpose2d", "weight", 1, 0, 2)])],
    "conv_transpose1d": [("ConvTranspose1d_1.weight", (8, 16, 5, 1), [("conv_transpose2d", "weight", 1, 0, 1)])],
    "tied": [("Embedding_1.weight", (50, 64), [("gather_nd", "input", 0, 1, 1), (MATMUL, "y", 0, 1, 1)])],
    "experts": [("Experts_1.weight", (4, 32, 48), [("gather_nd", "input", 2, 1, 1)])],
    "products": [
        ("Products_1.weight", (32, 48), [(MATMUL, "y", 1, 0, 1)]),
        ("Products_1.weight_1", (20, 48), [(MATMUL, "x", 0, 1, 1)]),
    ],
    "folded": [("Folded_1.weight", (1, 32, 64), [(MATMUL, "y", 2, 1, 1)])],
    "bfloat16": [("Linear_1.weight", (48, 32), [(MATMUL, "y", 0, 1, 1)])],
    "branches": [
        ("Branches_1.weight", (32, 32), [(MATMUL, "y", 0, 1, 1)]),
        ("Branches_1.weight_1", (32, 32), [(MATMUL, "y", 0, 1, 1)]),
    ],
    "normed": [
        ("LayerNorm_1.beta", (512,), [("broadcasting_add", "1", None, None, 1)]),
        ("LayerNorm_1.gamma", (512,), [("broadcasting_mul", "1", None, None, 1)]),
        ("Linear_1.weight", (32, 512), [(MATMUL, "y", 0, 1, 1)]),
    ],
    "given out": [("GivenOut_1.weight", (32, 32), [(MATMUL, "y", 1, 0, 1)])],
    "gru": [
        ("GRU_1.weight", (96, 16), [(MATMUL, "y", 0, 1, 1)]),
        ("GRU_1.weight_1", (96, 32), [(MATMUL, "y", 0, 1, 1)] * 3),
    ],
    "attention": [
        ("MultiheadAttention_1.weight", (96, 32), [(MATMUL, "y", 0, 1, 1)]),
        ("MultiheadAttention_1.weight_1", (32, 32), [(MATMUL, "y", 0, 1, 1)]),
    ],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("converted")


@pytest.mark.parametrize("name", EXPECTED)
def test_weights_and_their_uses(name, folder):
    program = Program(asset_of(name, folder))
    found = sorted(
        (
            weight.name,
            weight.shape,
            [(each.operation, each.operand, each.axis, each.input_axis, each.groups) for each in weight.consumers],
        )
        for weight in program.weights
    )
    assert found == sorted(EXPECTED[name])
    assert program.function_names == ("main",)
    obstacles = {weight.obstacle for weight in program.weights}
    assert obstacles == ({"feeds an output"} if name == "given out" else {None})
    names = [each for weight in program.weights for each in weight.names[:1]]
    assert len(set(names)) == len(names)


def test_names_tell_where_weights_are(folder):
    program = Program(asset_of("blocks", folder))
    assert [weight.name for weight in program.weights] == [
        f"Sequential_{block}.Linear_{layer}.weight" for block, layer in ((2, 1), (2, 2), (3, 3), (3, 4))
    ]
    assert "main.transpose_2.weight" in program.weight("Sequential_3.Linear_3.weight").names
    assert program.weight("addmm_1.weight").names.count("addmm_1.weight") == 1
    assert program.weight("addmm_1.weight").name == "Sequential_2.Linear_2.weight"
    with pytest.raises(KeyError):
        program.weight("Linear_9.weight")


class Inner(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.down = torch.nn.Linear(32, 64), torch.nn.Linear(64, 32)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(torch.relu(self.up(x)))


class Outer(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = torch.nn.ModuleList([Inner(), Inner()])

    def forward(self, x):
        for block in self.blocks:
            x = x + block(x)
        return x


def test_functions_of_external_modules_give_names(tmp_path):
    from coreai_torch import ExternalizeSpec, TorchConverter, get_decomp_table

    def export(module):
        return torch.export.export(module, (torch.ones(2, 32),)).run_decompositions(get_decomp_table())

    with quiet():
        converter = TorchConverter()
        converter.add_pytorch_module(
            Outer(), export_fn=export, externalize_modules=[ExternalizeSpec(Inner, composite_op_name="inner")]
        )
        converter.to_coreai().save_asset(tmp_path / "source.aimodel")
    program = Program(tmp_path / "source.aimodel")
    assert program.function_names == ("main",)
    assert {weight.name for weight in program.weights} == {
        f"blocks.{block}.Linear_{layer}.weight" for block in (0, 1) for layer in (1, 2)
    }
    result = replace_all(
        tmp_path / "source.aimodel",
        tmp_path / "result.aimodel",
        {weight.name: cp.quantize(weight.read()) for weight in program.weights},
    )
    (output,) = run(result, {"x": np.ones((2, 32), np.float32)}).values()
    (expected,) = run(tmp_path / "source.aimodel", {"x": np.ones((2, 32), np.float32)}).values()
    assert 0 < np.abs(output - expected).max() < 0.05


def test_bfloat16_is_read_exactly(folder):
    weight = Program(asset_of("bfloat16", folder)).weights[0]
    torch.manual_seed(0)
    expected = MODELS["bfloat16"][0]().linear.weight.detach().float().numpy()
    assert weight.dtype == "bfloat16"
    assert np.array_equal(weight.read().astype(np.float32), expected)


def test_activations_are_what_a_weight_is_multiplied_with(folder):
    weight = Program(asset_of("linear", folder)).weights[0]
    (use,) = weight.uses
    assert list(use.activation.type.shape) == [2, 32]
    assert use.graph.name == "main"


@pytest.mark.parametrize("name", [name for name in EXPECTED if name != "given out"])
def test_compressed_models_compute_what_their_dense_weights_do(name, folder, tmp_path):
    source = asset_of(name, folder)
    program = Program(source)
    tensors = {weight.name: cp.palettize(weight.read(), nbits=4) for weight in program.weights}
    compressed = replace_all(source, tmp_path / "compressed.aimodel", tensors)
    dense = replace_all(source, tmp_path / "dense.aimodel", {name: tensor.dense() for name, tensor in tensors.items()})
    inputs = {"x": example_of(name).numpy()}
    first, second = run(compressed, inputs), run(dense, inputs)
    assert all(np.array_equal(first[output], second[output]) for output in first)
    after = Program(compressed)
    assert [weight.names for weight in after.weights] == [weight.names for weight in program.weights]
    assert [weight.consumers for weight in after.weights] == [weight.consumers for weight in program.weights]
    assert all(weight.is_compressed for weight in after.weights)


def test_functions_that_share_a_weight_share_it_afterwards(tmp_path):
    one = "tensor<32x16xf32>"
    graphs = "\n".join(
        f"""coreai.graph @{name}(%x: tensor<2x32xf32> {{coreai.name = "x"}})
          -> (tensor<2x16xf32> {{coreai.name = "y"}}) {{
          %w = coreai.constant dense<{value}> : {one}
          %y = coreai.decomposable.broadcasting_batch_matmul %x, %w :
            (tensor<2x32xf32>, {one}) -> tensor<2x16xf32>
          coreai.output %y : tensor<2x16xf32>
        }}"""
        for name, value in (("first", 0.5), ("second", 0.5), ("third", 0.25))
    )
    source = save_text(f"module {{ {graphs} }}", tmp_path / "source.aimodel")
    program = Program(source)
    assert program.function_names == ("first", "second", "third")
    assert [weight.functions for weight in program.weights] == [("first", "second"), ("third",)]
    weight = np.random.default_rng(0).standard_normal((32, 16)).astype(np.float32)
    result = replace_all(source, tmp_path / "result.aimodel", cp.quantize(weight, dtype="int4"))
    assert [each.functions for each in Program(result).weights] == [("first", "second", "third")]
    inputs = {"x": np.eye(2, 32, dtype=np.float32)}
    expected = cp.quantize(weight, dtype="int4").dense()[:2]
    for function in program.function_names:
        assert np.array_equal(run(result, inputs, function)["y"], expected)
