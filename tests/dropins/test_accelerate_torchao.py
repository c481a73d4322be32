"""`corepress.accelerate` in torchao's codebook quantizer for Core ML."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from coreml_helpers import quiet
from dropin_helpers import TOLERANCE, both_ways, normal, squared_error

import corepress
from corepress.acceleration.swaps import place_of

torch = pytest.importorskip("torch")
with quiet():
    logging.disable()
    codebook_coreml = pytest.importorskip("torchao.prototype.quantization.codebook_coreml")
    logging.disable(logging.NOTSET)


def replaced():
    from corepress.acceleration.torchao import INTERNALS

    return [vars(owner)[name] for owner, name in map(place_of, INTERNALS)]


def choose(weight, nbits, block_size, **options):
    dtype = getattr(torch, f"uint{nbits}")
    return codebook_coreml.choose_qparams_and_quantize_codebook_coreml(weight, dtype, list(block_size), **options)


def looked_up(codes, table, nbits, block_size, dtype=torch.float32):
    return codebook_coreml.dequantize_codebook(codes.to(torch.int32), table, nbits, list(block_size), dtype)


@pytest.mark.parametrize("deviation", [0.05, 2e-5])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("block_size", [[-1, 16], [8, -1], [-1, -1], [64, 96], [-1, 1]], ids=str)
@pytest.mark.parametrize("nbits", [1, 4, 8])
def test_tables(deviation, dtype, block_size, nbits):
    weight = torch.from_numpy(normal(64, 96, scale=deviation)).to(getattr(torch, dtype))
    theirs, ours = both_ways(lambda: choose(weight, nbits, block_size))
    assert [(each.shape, each.dtype) for each in ours] == [(each.shape, each.dtype) for each in theirs]
    errors = [
        squared_error(looked_up(codes, table, nbits, block_size).numpy(), weight.numpy())
        for table, codes in (theirs, ours)
    ]
    assert errors[1] <= errors[0] * (1 + TOLERANCE) + 1e-12 * float(weight.double().square().sum())


def test_bfloat16_which_torchao_cannot_quantize():
    weight = torch.from_numpy(normal(32, 48)).bfloat16()
    with corepress.accelerate():
        table, codes = choose(weight, 4, [-1, 16])
        found = looked_up(codes, table, 4, [-1, 16])
    assert squared_error(found.numpy(), weight.float().numpy()) < 0.02 * float(weight.float().square().sum())


@pytest.mark.parametrize("nbits", [2, 4, 6, 8])
@pytest.mark.parametrize("block_size", [[-1, 16], [8, -1], [-1, -1]], ids=str)
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.bfloat16])
def test_looked_up_values_are_equal(nbits, block_size, dtype):
    rows, columns = (48 if size == -1 else size for size in block_size)
    table = torch.randn(48 // rows, 48 // columns, 2**nbits, 1, dtype=torch.float64)
    codes = torch.randint(0, 2**nbits, (48, 48))
    theirs, ours = both_ways(lambda: looked_up(codes, table, nbits, block_size, dtype))
    assert ours.dtype == theirs.dtype
    assert torch.equal(ours, theirs)


def test_quantize_replaces_weights_of_a_model():
    from torchao.quantization import quantize_

    def quantized():
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.Linear(32, 16))
        quantize_(model, codebook_coreml.CodebookWeightOnlyConfig(torch.uint4, [-1, 16]))
        x = torch.randn(3, 64)
        return model(x), [layer.weight for layer in model]

    (their_y, theirs), (our_y, ours) = both_ways(quantized)
    assert [type(each) for each in ours] == [type(each) for each in theirs]
    assert our_y.shape == their_y.shape
    with quiet(), corepress.accelerate():
        inside = [each.dequantize() for each in theirs]
    assert all(torch.equal(one, each.dequantize()) for one, each in zip(inside, theirs, strict=True))


def test_what_is_refused_is_refused():
    with corepress.accelerate():
        with pytest.raises(AssertionError, match="not divisible"):
            choose(torch.randn(8, 12), 4, [-1, 5])
        with pytest.raises(AssertionError, match="cluster_dim"):
            choose(torch.randn(8, 12), 4, [-1, 4], cluster_dim=2)
        with pytest.raises((IndexError, RuntimeError)):
            looked_up(torch.full((4, 4), 16), torch.randn(1, 1, 16, 1), 4, [-1, -1])


def test_graphs_that_are_captured_keep_the_operator():
    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.codes = torch.randn(1, 3, 16, 1), torch.randint(0, 16, (8, 12), dtype=torch.int32)

        def forward(self, x):
            return x @ codebook_coreml.dequantize_codebook(self.codes, self.table, 4, [-1, 4]).T

    with corepress.accelerate():
        exported = torch.export.export(Model(), (torch.zeros(2, 12),))
    targets = [str(node.target) for node in exported.graph.nodes]
    assert any("dequantize_codebook" in target for target in targets), targets


def test_all_is_undone():
    before = replaced()
    with quiet(), corepress.accelerate():
        inside = replaced()
        assert all(new is not old for new, old in zip(inside, before, strict=True))
        assert np.all([callable(each) for each in inside])
    assert all(new is old for new, old in zip(replaced(), before, strict=True))
