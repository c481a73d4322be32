"""The same training by coremltools' quantizer, and by several processes."""

from __future__ import annotations

import sys

import pytest
import torch
import torch.multiprocessing
from torch import nn

from corepress.optimize.torch.quantization import LinearQuantizer, LinearQuantizerConfig

pytestmark = pytest.mark.filterwarnings("ignore")  # PyTorch's and coremltools' own


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 8, 3, padding=1),
        nn.GELU(),
        nn.Flatten(),
        nn.Linear(128, 16),
        nn.Sigmoid(),
        nn.Linear(16, 8),
    )


@pytest.mark.parametrize("algorithm", ["vanilla", "learnable"])
@pytest.mark.parametrize(
    ("scheme", "weight_dtype", "observer"),
    [
        ("symmetric", "qint8", "moving_average_min_max"),
        ("symmetric", "qint4", "min_max"),
        ("affine", "quint8", "ema_min_max"),
        ("affine", "qint4", "moving_average_min_max"),
    ],
)
def test_training_is_that_of_coremltools(batch, train, algorithm, scheme, weight_dtype, observer):
    peer = pytest.importorskip("coremltools.optimize.torch.quantization")
    options = {
        "algorithm": algorithm,
        "quantization_scheme": scheme,
        "weight_dtype": weight_dtype,
        "weight_observer": observer,
        "activation_observer": observer,
        "milestones": [0, 0, 3, 2],
    }
    config = {"global_config": options}
    mine = LinearQuantizer(network(), LinearQuantizerConfig.from_dict(config))
    theirs = peer.LinearQuantizer(network(), peer.LinearQuantizerConfig.from_dict(config))
    losses = []
    for quantizer in (mine, theirs):
        prepared = quantizer.prepare(example_inputs=(batch,))
        quantizer.step()
        losses.append(train(prepared, batch, 4, quantizer.step))
    if algorithm == "learnable":
        # coremltools has no gradients at the ends of the range, as torch.clamp has none there: only what comes before
        # the first step is the same, but for values that lie between two integers.
        assert losses[0][0] == pytest.approx(losses[1][0], rel=2e-3)
        return
    assert losses[0][0] == pytest.approx(losses[1][0], rel=1e-5)
    # One value that is rounded to another integer moves the loss by about this much.
    assert losses[0] == pytest.approx(losses[1], rel=2e-3)
    outputs = [quantizer.finalize()(batch) for quantizer in (mine, theirs)]
    assert (outputs[0] - outputs[1]).square().mean().sqrt() < 0.05 * outputs[1].std() + 1e-3


def _work(rank, folder, processes, rows):
    """One process of training: its part of the batch, and what the model is afterwards."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 4)).double()
    options = {"milestones": [0, 1, 3, -1], "weight_dtype": "qint4", "activation_observer": "ema_min_max"}
    quantizer = LinearQuantizer(model, LinearQuantizerConfig.from_dict({"global_config": options}))
    prepared = quantizer.prepare((rows[:1],))
    if processes > 1:
        torch.distributed.init_process_group(
            "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=processes
        )
        trained = nn.parallel.DistributedDataParallel(prepared)
        rows = rows[rank::processes]
    else:
        trained = prepared
    optimizer = torch.optim.SGD(prepared.parameters(), lr=0.05)
    for _ in range(5):
        quantizer.step()
        optimizer.zero_grad()
        trained(rows).square().mean().backward()
        optimizer.step()
    torch.save(prepared.state_dict(), f"{folder}/{processes}-{rank}.pt")
    if processes > 1:
        torch.distributed.destroy_process_group()


@pytest.mark.skipif(sys.platform != "linux", reason="starts processes by fork")
def test_two_processes_train_what_one_does(tmp_path):
    if not torch.distributed.is_available() or not torch.distributed.is_gloo_available():
        pytest.skip("PyTorch has no gloo here")
    rows = torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    _work(0, str(tmp_path), 1, rows)
    torch.multiprocessing.start_processes(_work, (str(tmp_path), 2, rows), nprocs=2, start_method="fork")
    one, first, second = (torch.load(tmp_path / name) for name in ("1-0.pt", "2-0.pt", "2-1.pt"))
    for name, value in one.items():
        assert torch.equal(first[name], second[name]), name
        torch.testing.assert_close(first[name], value, rtol=1e-5, atol=1e-7, msg=name)
