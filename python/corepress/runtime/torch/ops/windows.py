"""Sizes of windows that slide over spatial axes, for convolutions and pooling."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ..limits import limited

PAD_TYPES = ("valid", "custom", "same", "same_lower")


def pads_of(
    pad_type: str,
    pad: Sequence[int] | None,
    sizes: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int] | None,
    dilations: Sequence[int] | None = None,
) -> tuple[list[int], list[int]]:
    """The padding before and after each spatial axis.

    ``same`` makes ``ceil(size / stride)`` windows; where the padding is odd, the larger half comes after the axis, with
    ``same_lower`` before it. ``pad`` counts for ``custom`` only.
    """
    if pad_type == "custom":
        if pad is None:
            pad = [0, 0] * len(sizes)
        if len(pad) != 2 * len(sizes):
            raise ValueError(f"pad must have two numbers for each of {len(sizes)} spatial axes, got {list(pad)}")
        return list(pad[::2]), list(pad[1::2])
    if pad_type == "valid":
        return [0] * len(sizes), [0] * len(sizes)
    if pad_type not in PAD_TYPES:
        raise ValueError(f"pad_type must be one of {', '.join(PAD_TYPES)}, got {pad_type!r}")
    smaller, larger = [], []
    for axis, size in enumerate(sizes):
        stride = strides[axis] if strides else 1
        reach = (kernel[axis] - 1) * (dilations[axis] if dilations else 1) + 1
        total = max((-(-size // stride) - 1) * stride + reach - size, 0)
        smaller.append(total // 2)
        larger.append(total - total // 2)
    return (smaller, larger) if pad_type == "same" else (larger, smaller)


def limit_padded(x: Tensor, channels: int, before: Sequence[int] | int, after: Sequence[int] | int) -> None:
    """Raise ValueError if an image, padded and with other channels, would be too large."""
    first, last = (([each] * (x.dim() - 2) if isinstance(each, int) else each) for each in (before, after))
    sizes = (size + low + high for size, low, high in zip(x.shape[2:], first, last, strict=True))
    limited((x.shape[0], max(channels, x.shape[1]), *sizes))


def last_axis_first(before: Sequence[int], after: Sequence[int]) -> list[int]:
    """Paddings in the order that `torch.nn.functional.pad` expects: of the last axis first."""
    return [each for pair in zip(reversed(before), reversed(after), strict=True) for each in pair]
