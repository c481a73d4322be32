"""Finalized models, converted and run: what conversion makes of integers, folded layers and activations."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from torch import nn

from corepress import coreml, runtime
from corepress.optimize.torch.quantization import LinearQuantizer, LinearQuantizerConfig

pytestmark = pytest.mark.filterwarnings("ignore")  # PyTorch's and coremltools' own


class Quantized(nn.Module):
    """Each kind of place: folded layers, a sum, a concatenation, pooling, functions."""

    def __init__(self):
        super().__init__()
        self.conv, self.conv_norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.side = nn.Conv2d(8, 8, 3, padding=1)
        self.up, self.up_norm = nn.ConvTranspose2d(16, 8, 2, stride=2), nn.BatchNorm2d(8)
        self.pool = nn.AvgPool2d(2)
        self.fc = nn.Linear(8 * 16, 8)

    def forward(self, x):
        x = torch.relu(self.conv_norm(self.conv(x)))
        x = torch.cat([x + self.side(x), self.side(x)], 1)
        x = self.pool(torch.sigmoid(self.up_norm(self.up(x))))
        return self.fc(torch.flatten(nn.functional.max_pool2d(x, 2, 2), 1))


@pytest.mark.parametrize("frontend", ["trace", "export"])
@pytest.mark.parametrize(
    ("weight_dtype", "scheme", "target", "stored"),
    [
        ("qint8", "symmetric", "iOS17", "constexpr_affine_dequantize"),
        ("quint4", "affine", "iOS18", "constexpr_blockwise_shift_scale"),
    ],
)
def test_packages_compute_what_the_finalized_model_does(
    tmp_path, batch, train, caplog, frontend, weight_dtype, scheme, target, stored
):
    ct = pytest.importorskip("coremltools")
    caplog.set_level(logging.ERROR, "coremltools")
    torch.manual_seed(0)
    config = {"weight_dtype": weight_dtype, "quantization_scheme": scheme}
    quantizer = LinearQuantizer(Quantized(), LinearQuantizerConfig.from_dict({"global_config": config}))
    prepared = quantizer.prepare((batch,))
    train(prepared, batch, 3, quantizer.step)
    finalized = quantizer.finalize()
    options = {
        "minimum_deployment_target": getattr(ct.target, target),
        "compute_precision": ct.precision.FLOAT32,
        "skip_model_load": True,
    }
    if frontend == "trace":
        inputs = [ct.TensorType("x", shape=batch.shape)]
        package = ct.convert(torch.jit.trace(finalized, batch), inputs=inputs, **options)
    else:
        package = ct.convert(torch.export.export(finalized, (batch,)).run_decompositions({}), **options)
    path = tmp_path / "quantized.mlpackage"
    package.save(str(path))

    operations = [each.op_type for each in package._mil_program.functions["main"].operations]
    assert operations.count(stored) == 4
    assert operations.count("quantize") == operations.count("dequantize") >= 8
    assert "batch_norm" not in operations
    weights = [each for each in coreml.inspect(path).weights if len(each.shape) > 1]
    assert sorted(each.shape for each in weights) == [(8, 3, 3, 3), (8, 8, 3, 3), (8, 128), (16, 8, 2, 2)]
    assert all(each.storage.startswith("quantized") for each in weights)

    (name,) = [each.name for each in package.get_spec().description.input]
    (result,) = runtime.load(path).predict({name: batch.numpy()}).values()
    step = float(finalized.fc.activation_post_process.scale)
    steps = np.abs(result - finalized(batch).detach().numpy()) / step
    # Sums in another order round a few values to the next integer, and so do activations before them.
    assert steps.max() < 2.01
    assert (steps > 0.5).mean() < 0.25
