"""How far apart two assets are when Apple's run-time runs them: outputs, metrics, and the results in between."""

from __future__ import annotations

import copy
import math
import warnings

import numpy as np
import pytest
from coreml_helpers import quiet

from corepress import coreml
from corepress.runtime.coreai_activations import Activation, corresponding
from helpers.assets import require_coreai, save_asset

require_coreai()
import torch  # noqa: E402
from torch import nn  # noqa: E402


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(16, 64), nn.LayerNorm(64), nn.Linear(64, 16)

    def forward(self, x):
        return self.last(self.norm(torch.nn.functional.gelu(self.first(x))))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("compared")


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return Net()


@pytest.fixture(scope="module")
def original(net, folder):
    names = {"input_names": ["x"], "output_names": ["y"]}
    return save_asset(folder / "original.aimodel", (net, [torch.zeros(3, 16)]), **names)


def rounded(module):
    """The same with coarse weights in its last layer."""
    module = copy.deepcopy(module)
    with torch.no_grad():
        module.last.weight.copy_(torch.round(module.last.weight * 32) / 32)
    return module


@pytest.fixture(scope="module")
def coarse(net, folder):
    names = {"input_names": ["x"], "output_names": ["y"]}
    return save_asset(folder / "coarse.aimodel", (rounded(net), [torch.zeros(3, 16)]), **names)


@pytest.fixture(scope="module")
def quantized(original, folder):
    """Its weights in 4 bits, as coreai-opt stores them: with other operations."""
    with quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        utils = pytest.importorskip("coreai_opt.coreai_utils")
        from coreai.authoring import AIModelAsset

        options = {"dtype": utils.DType.INT4, "weight_num_threshold": 100}
        program = utils.quantize_weights(AIModelAsset.load(original).program, **options)
        program.save_asset(folder / "quantized.aimodel")
    return folder / "quantized.aimodel"


@pytest.fixture
def samples():
    rng = np.random.default_rng(3)
    return [{"x": rng.standard_normal((3, 16)).astype(np.float32)} for _ in range(3)]


def test_outputs(net, original, coarse, samples):
    found = coreml.compare(original, coarse, inputs=samples, metric="psnr")
    (output,) = found.outputs
    with torch.no_grad():
        x = [torch.from_numpy(each["x"]) for each in samples]
        ours, theirs = (torch.stack([module(each) for each in x]).double() for module in (net, rounded(net)))
    noise = float(((ours - theirs) ** 2).sum())
    assert output.snr_db == pytest.approx(10 * math.log10(float((ours**2).sum()) / noise), abs=0.01)
    peak = float(ours.abs().max()) ** 2 * ours.numel()
    assert found.scores[0] == pytest.approx(10 * math.log10(peak / noise), abs=0.01)
    assert (output.name, output.samples, found.backend, found.precision) == ("y", 3, "coreai", None)
    assert found.bytes == sum(each.stat().st_size for each in original.iterdir())
    assert not found.layers
    assert "run by coreai" in found.totals


def test_an_asset_equals_itself(original, samples):
    found = coreml.compare(original, original, inputs=samples, layers=True)
    assert found.outputs[0].snr_db == math.inf
    assert len(found.layers) == 6
    assert not found.unmatched_layers
    assert found.first_different_layer is None


def test_layers(original, coarse, samples):
    found = coreml.compare(original, coarse, inputs=samples, layers=True)
    assert [each.snr_db == math.inf for each in found.layers] == [True] * 4 + [False] * 2
    assert found.first_different_layer.name == "addmm_1.broadcasting_batch_matmul"
    assert not found.unmatched_layers


def test_layers_of_compressed_weights(original, quantized, samples):
    found = coreml.compare(original, quantized, inputs=samples, layers=True)
    assert len(found.layers) == 6
    assert not found.unmatched_layers
    assert all(5 < each.snr_db < 40 for each in found.layers)
    assert found.layers[-1].snr_db == pytest.approx(found.outputs[0].snr_db, abs=1e-6)
    assert found.other_bytes < found.bytes


def test_drawn_inputs(original, coarse):
    found = coreml.compare(original, coarse, predictions=True, draw=2)
    assert (found.drawn, found.outputs[0].samples) == (2, 2)


def test_a_package_and_an_asset(net, original, folder, samples):
    ct = pytest.importorskip("coremltools")
    with quiet():
        traced = torch.jit.trace(net.eval(), torch.zeros(3, 16))
        model = ct.convert(
            traced,
            inputs=[ct.TensorType("x", (3, 16))],
            outputs=[ct.TensorType("y")],
            compute_precision=ct.precision.FLOAT32,
            minimum_deployment_target=ct.target.iOS17,
            skip_model_load=True,
        )
        model.save(str(folder / "package.mlpackage"))
    for precision in ("float16", "float32"):
        found = coreml.compare(folder / "package.mlpackage", original, inputs=samples, precision=precision)
        assert found.outputs[0].snr_db > 80
        assert found.backend == "torch and coreai"


def activation(name, operation, *shape, is_named=True):
    return Activation((0, 0), name, operation, "float32", shape, is_named)


def test_results_correspond_by_order_where_operations_are_the_same():
    ours = [activation("a", "relu", 4), activation("b", "relu", 4)]
    theirs = [activation("relu:1", "relu", 4, is_named=False), activation("relu:2", "relu", 4, is_named=False)]
    assert corresponding(ours, theirs) == {"relu:1": "a", "relu:2": "b"}


def test_results_correspond_by_name_where_operations_are_not():
    ours = [activation("a", "relu", 4), activation("b", "relu", 4), activation("c", "gelu", 4)]
    assert corresponding(ours, [ours[1], activation("c", "relu", 4)]) == {"b": "b"}


def test_results_without_names_correspond_by_runs_of_operations():
    kinds = [("conv2d", 8), ("relu", 8), ("conv2d", 6), ("gelu", 6), ("add", 6)]
    ours = [activation(f"{kind}:{place}", kind, size, is_named=False) for place, (kind, size) in enumerate(kinds)]
    theirs = [activation(f"other {each.name}", each.operation, *each.shape) for each in ours[:1] + ours[2:]]
    assert corresponding(ours, theirs) == {f"other {each.name}": each.name for each in ours[:1] + ours[2:]}
