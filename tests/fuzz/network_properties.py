"""What must hold for any bytes taken as a neural network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from properties import limits, refused

from corepress import neural_network

MODES = ("linear", "linear_symmetric", "linear_lut", "kmeans_lut")


def check_network(data: bytes, folder: Path, choice: int, seeds: Path) -> str:
    """Quantize, plan, verify, decompress, inspect and compare a neural network.

    A plan must be what happens, and every result verified. Returns the message of what refused to quantize it, or "".
    """
    source, small, full = (folder / f"{name}.mlmodel" for name in ("source", "small", "full"))
    source.write_bytes(data)
    nbits = (16, 2, 3, 4, 5, 8, 8, 7)[choice % 8]
    mode = MODES[choice // 8 % 4]
    plans: list[Any] = []
    runs: tuple[tuple[Path | None, Callable[[], Any]], ...] = (
        (None, lambda: neural_network.inspect(source).to_json()),
        (None, lambda: plans.append(neural_network.plan(source, nbits, mode, num_threads=1))),
        (small, lambda: neural_network.quantize_weights(source, nbits, mode, destination=small, num_threads=2)),
        (full, lambda: neural_network.decompress(source, full, num_threads=2)),
        (None, lambda: neural_network.compare_models(source, source, num_threads=1).to_json()),
    )
    made, messages = {source.name}, []
    with limits():
        for path, run in runs:
            messages.append(refused(run))
            if path is not None and not messages[-1]:
                made.add(path.name)
            found = {each.name for each in folder.iterdir()}
            assert found == made, f"{sorted(found)} instead of {sorted(made)} ({messages[-1]})"
        _, planned, quantized, restored, _ = messages
        assert bool(planned) == bool(quantized), f"planned: {planned}; quantized: {quantized}"
        if not quantized:
            assert plans[0].bytes_after == small.stat().st_size, f"{plans[0].totals} is not what happened"
            _require_sound(source, small)
            refused(lambda: neural_network.compare_models(source, small, num_threads=1).to_json())
        if not restored:
            _require_sound(source, full)
        others = sorted(seeds.glob("*.mlmodel"))
        sound = others[choice // 32 % len(others)]
        neural_network.verify(sound, source, num_threads=1).to_json()  # what is wrong is found, not raised
        refused(lambda: neural_network.verify(source, sound, num_threads=1).to_json())
        refused(lambda: neural_network.compare_models(sound, source, num_threads=1).to_json())
    assert source.read_bytes() == data, "the source changed"
    for name in made:
        (folder / name).unlink()
    return quantized


def _require_sound(source: Path, result: Path) -> None:
    unreadable = refused(lambda: neural_network.inspect(result))
    assert not unreadable, f"{result.name} cannot be read: {unreadable}"
    verification = neural_network.verify(source, result, num_threads=1)
    assert verification.ok, verification.totals
