"""Ready-made options, by the bits of weights and activations, and schedules from the length of training.

Each function returns a dictionary for `from_dict` of the config that it names, new each time, to be changed at will::

    from corepress.optimize.torch import presets
    from corepress.optimize.torch.palettization import PostTrainingPalettizerConfig

    config = PostTrainingPalettizerConfig.from_dict(presets.w4())
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

LARGEST_STEP = 0.1  # of sparsity, in a schedule that chooses its number of steps
POWER = 3  # of coremltools' polynomial schedule, by default


def w4() -> dict[str, Any]:
    """Return options of ``PostTrainingPalettizerConfig``: palettes of 4 bits, one for 16 output channels.

    Without training and without data. Conversion needs iOS18.
    """
    return {"global_config": {"n_bits": 4, "granularity": "per_grouped_channel", "group_size": 16}}


def w6() -> dict[str, Any]:
    """Return options of ``PostTrainingPalettizerConfig``: palettes of 6 bits, one for each weight.

    Without training and without data. Conversion needs iOS16.
    """
    return {"global_config": {"n_bits": 6, "granularity": "per_tensor"}}


def w8() -> dict[str, Any]:
    """Return options of ``PostTrainingQuantizerConfig``: integers of 8 bits, with a scale for each output channel.

    Without training and without data. Conversion needs iOS16.
    """
    return {
        "global_config": {
            "weight_dtype": "int8",
            "granularity": "per_channel",
            "quantization_scheme": "symmetric",
        }
    }


def w2_dkm() -> dict[str, Any]:
    """Return options of ``DKMPalettizerConfig``: palettes of 2 bits that are learnt, one for each weight.

    Some epochs of training, at a tenth of the learning rate that the model was trained with. Conversion needs iOS16.
    """
    return {"global_config": {"n_bits": 2, "granularity": "per_tensor"}}


def w8a8(epochs: int | None = None, steps_per_epoch: int | None = None) -> dict[str, Any]:
    """Return options of ``LinearQuantizerConfig``: weights and activations of 8 bits, in training.

    Conversion needs iOS17.

    Parameters
    ----------
    epochs, steps_per_epoch : int, optional
        How long the model is trained with it. Ranges are observed from the start, quantization begins after a tenth
        of the steps, and after four fifths ranges and the statistics of batch normalization no longer change. Without
        them, all is observed and quantized from the first step to the last.
    """
    options: dict[str, Any] = {
        "weight_dtype": "qint8",
        "activation_dtype": "quint8",
        "quantization_scheme": "symmetric",
    }
    if epochs is not None and steps_per_epoch is not None:
        steps = _steps("w8a8", epochs, steps_per_epoch)
        options["milestones"] = [0, steps // 10, steps * 4 // 5, steps * 4 // 5]
    elif epochs is not None or steps_per_epoch is not None:
        raise ValueError("w8a8: pass both epochs and steps_per_epoch, or neither")
    return {"global_config": options}


_PRESETS: dict[str, Callable[[], dict[str, Any]]] = {
    "w2-dkm": w2_dkm,
    "w4": w4,
    "w6": w6,
    "w8": w8,
    "w8a8": w8a8,
}


def names() -> tuple[str, ...]:
    """Return the names of the presets."""
    return tuple(_PRESETS)


def preset(name: str) -> dict[str, Any]:
    """Return the options of a preset by its name, such as ``"w2-dkm"``."""
    if name not in _PRESETS:
        raise ValueError(f"preset: name must be one of {', '.join(_PRESETS)}, not {name!r}")
    return _PRESETS[name]()


def sparsity_schedule(
    epochs: int,
    steps_per_epoch: int,
    target: float,
    *,
    initial: float = 0.0,
    warmup: float = 0.0,
    until: float = 0.5,
    updates: int | None = None,
) -> list[int]:
    """Return ``update_steps`` of a ``PolynomialDecayScheduler``: when zeros are added.

    Parameters
    ----------
    epochs, steps_per_epoch : int
        How long the model is trained.
    target : float
        The sparsity at the end, above `initial` and below 1.
    initial : float
        The sparsity at the start, 0 at least.
    warmup, until : float
        The parts of training after which zeros are first and last added. What is left adapts to the last ones.
    updates : int, optional
        How often zeros are added. By default so often that no update adds more than a tenth of all weights.

    Returns
    -------
    list of int
        Steps, each larger than the one before; fewer than `updates` if training is too short for them.
    """
    steps = _steps("sparsity_schedule", epochs, steps_per_epoch)
    if not 0 <= initial < target < 1:
        raise ValueError(f"sparsity_schedule: 0 <= initial < target < 1 must hold; they are {initial} and {target}")
    if not 0 <= warmup < until <= 1:
        raise ValueError(f"sparsity_schedule: 0 <= warmup < until <= 1 must hold; they are {warmup} and {until}")
    if updates is None:
        # The first update adds the most: the part 1 - (1 - 1 / (updates - 1)) ** POWER of all.
        part = min(LARGEST_STEP / (target - initial), 1.0)
        updates = 1 + math.ceil(1 / (1 - (1 - part) ** (1 / POWER))) if part < 1 else 2
    if updates < 1:
        raise ValueError(f"sparsity_schedule: updates must be at least 1, not {updates}")
    first = max(round(warmup * steps), 1)  # steps are counted from 1
    last = max(round(until * steps), first)
    if updates == 1:
        return [last]
    return sorted({first + round(index * (last - first) / (updates - 1)) for index in range(updates)})


def _steps(function: str, epochs: int, steps_per_epoch: int) -> int:
    if epochs < 1 or steps_per_epoch < 1:
        raise ValueError(
            f"{function}: epochs and steps_per_epoch must be at least 1; they are {epochs} and {steps_per_epoch}"
        )
    return epochs * steps_per_epoch
