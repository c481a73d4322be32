"""Prepared models in what trains them: compilers, exports, several processes, other types of numbers."""

from __future__ import annotations

import copy
import os
import sys

import pytest
import torch
import torch.distributed.device_mesh
import torch.distributed.fsdp
import torch.multiprocessing
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

from corepress.optimize.torch.palettization import DKMPalettizer, DKMPalettizerConfig

SHARDS = hasattr(torch.distributed, "fsdp") and hasattr(torch.distributed.fsdp, "fully_shard")  # PyTorch 2.6


def palettizer_of(model, **options):
    config = {"global_config": {"n_bits": 2, "weight_threshold": 300, **options}}
    return DKMPalettizer(model, DKMPalettizerConfig.from_dict(config))


@pytest.mark.filterwarnings("ignore")  # PyTorch's own
def test_compiled_models_have_no_breaks(model, batch):
    """Graphs as compilers take them; "eager" spares the machine code, which is not ours."""
    expected = palettizer_of(copy.deepcopy(model))
    prepared, twin = palettizer_of(model).prepare(), expected.prepare()
    prepared(batch), twin(batch)  # the first call makes the palettes
    compiled = torch.compile(prepared, backend="aot_eager", fullgraph=True)
    for one in (compiled, twin):
        one(batch).square().mean().backward()
    for (name, mine), theirs in zip(prepared.named_parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, msg=name)
    assert torch.equal(prepared.fc.weight_fake_quant.centroids, twin.fc.weight_fake_quant.centroids)


@pytest.mark.filterwarnings("ignore")  # PyTorch's own
def test_finalized_models_are_exported(model, batch, train):
    palettizer = palettizer_of(model)
    train(palettizer.prepare(), batch, 1, palettizer.step)
    finalized = palettizer.finalize()
    program = torch.export.export(finalized, (batch,))
    assert "fc._COREML_/weight/lut" in program.state_dict
    torch.testing.assert_close(program.module()(batch), finalized(batch))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(model, batch, dtype):
    palettizer = palettizer_of(model.to(dtype), granularity="per_grouped_channel", group_size=8)
    prepared = palettizer.prepare()
    optimizer = torch.optim.SGD(prepared.parameters(), lr=0.01)
    for _ in range(2):
        optimizer.zero_grad()
        prepared(batch.to(dtype)).float().square().mean().backward()
        optimizer.step()
        palettizer.step()
    finalized = palettizer.finalize()
    assert finalized.fc.weight.dtype == dtype
    for group in finalized.fc.weight.reshape(-1, 8, finalized.fc.in_features):
        assert len(group.unique()) <= 4


def test_autocast(model, batch):
    prepared = palettizer_of(model).prepare()
    with torch.autocast("cpu", torch.bfloat16):
        loss = prepared(batch).square().mean()
    loss.backward()
    assert prepared.fc.parametrizations.weight.original.grad.dtype == torch.float32


def _train_part(rank, port, state, batch, goal, out):
    """Steps on half of the batch, in one of two processes: with copies of the weights, and with halves of them."""
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", rank=rank, world_size=2)
    network, palettizer = _network(state)
    parallel = torch.nn.parallel.DistributedDataParallel(network)
    _steps(parallel, palettizer, batch[rank::2], goal[rank::2])
    states = [network.state_dict()]
    if SHARDS:
        network, palettizer = _network(state)
        mesh = torch.distributed.device_mesh.init_device_mesh("cpu", (2,))
        for module in (network[0], network[2], network):
            torch.distributed.fsdp.fully_shard(module, mesh=mesh)
        _steps(network, palettizer, batch[rank::2], goal[rank::2])
        options = StateDictOptions(full_state_dict=True, cpu_offload=True)
        states.append(get_model_state_dict(network, options=options))
    if rank == 0:
        torch.save(states, out)
    torch.distributed.destroy_process_group()


def _network(state):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(32, 64), torch.nn.ReLU(), torch.nn.Linear(64, 8))
    model.load_state_dict(state)
    palettizer = palettizer_of(model)
    return palettizer.prepare(), palettizer


def _steps(model, palettizer, batch, goal):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        (model(batch) - goal).square().mean().backward()
        optimizer.step()
        palettizer.step()


@pytest.mark.skipif(sys.platform != "linux", reason="starts processes by fork")
@pytest.mark.filterwarnings("ignore")  # PyTorch's own
def test_two_processes_train_as_one(tmp_path):
    if not torch.distributed.is_gloo_available():
        pytest.skip("PyTorch has no gloo here")
    torch.manual_seed(1)
    batch, goal = torch.randn(16, 32), torch.randn(16, 8)
    state = torch.nn.Sequential(torch.nn.Linear(32, 64), torch.nn.ReLU(), torch.nn.Linear(64, 8)).state_dict()
    network, palettizer = _network(state)
    _steps(network, palettizer, batch, goal)
    out = tmp_path / "trained.pt"
    port = 20_000 + os.getpid() % 20_000
    torch.multiprocessing.spawn(_train_part, (port, state, batch, goal, out), nprocs=2)
    states = torch.load(out, weights_only=True)
    assert len(states) == 1 + SHARDS
    for trained in states:
        for name, value in network.state_dict().items():
            torch.testing.assert_close(trained[name], value, rtol=1e-4, atol=1e-6, msg=name)
