"""Fake quantization: values rounded to what integers can express, with gradients as if they had not been.

Observers and switches are plain tensors in the state dict; whether a module observes and quantizes is known to Python
as well, so that a forward pass neither waits for a device nor branches on a tensor.
"""

from __future__ import annotations

from typing import Any

import torch

from . import native_fake_quantize
from .observers import SMALLEST_SCALE, FixedObserver, MinMaxObserver, is_symmetric

# Where PyTorch has kernels, for what ours do not know; elsewhere, on MPS for example, the same is computed of plain
# operations.
DEVICES_OF_KERNELS = ("cpu", "cuda")


class StraightThrough(torch.autograd.Function):
    """Fake quantization with the gradients of LSQ+ for scale and zero point.

    Of a value at most half a step outside of the range, the gradient passes, and the scale's is that of the rounding
    error; of others, it is zero, and scale and zero point have those of the end of the range. Source: Bhalgat et al.,
    "LSQ+: Improving low-bit quantization through learnable offsets and better initialization", 2020.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        scale: torch.Tensor,
        zero_point: torch.Tensor,
        ch_axis: int,
        quant_min: int,
        quant_max: int,
        gradient_factor: float,
    ) -> torch.Tensor:
        ctx.ch_axis, ctx.ends, ctx.gradient_factor = ch_axis, (quant_min, quant_max), gradient_factor
        ctx.shape_of_scale = scale.shape
        # Scale and zero point are kept as they are now: an observer may change them before the backward pass.
        if native_fake_quantize.knows(x):
            ctx.steps = native_fake_quantize.Steps(scale, zero_point, ch_axis, ctx.ends)
            ctx.save_for_backward(x)
            return ctx.steps.quantized(x)  # type: ignore[no-any-return]
        ctx.steps = None
        scale, rounded = scale.detach().clone(), zero_point.round().clamp(quant_min, quant_max)
        ctx.save_for_backward(x, scale, rounded)
        if x.device.type in DEVICES_OF_KERNELS and x.dtype == torch.float32:
            return _by_pytorch(x, scale, rounded.to(torch.int32), ch_axis, ctx.ends)
        shape = _shape(x, ch_axis)
        each, offset = scale.reshape(shape), rounded.to(scale.dtype).reshape(shape)
        return ((torch.round(x * each.reciprocal()) + offset).clamp(quant_min, quant_max) - offset) * each

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        (gradient,) = gradients
        if not any(ctx.needs_input_grad[:3]):
            return (None,) * 7
        x, *others = ctx.saved_tensors
        factor = ctx.gradient_factor if any(ctx.needs_input_grad[1:3]) else None
        if ctx.steps is not None and native_fake_quantize.knows(gradient):
            found = ctx.steps.slopes(x, gradient, factor)
        else:
            scale, zero_point = others if ctx.steps is None else ctx.steps.tensors()
            found = _slopes(x, gradient, scale, zero_point, ctx.ch_axis, ctx.ends, factor)
        of_scale, of_zero_point = (
            each.reshape(ctx.shape_of_scale) if each is not None and needed else None
            for each, needed in zip(found[1:], ctx.needs_input_grad[1:3], strict=True)
        )
        return found[0] if ctx.needs_input_grad[0] else None, of_scale, of_zero_point, None, None, None, None


def _by_pytorch(
    x: torch.Tensor, scale: torch.Tensor, zero_point: torch.Tensor, ch_axis: int, ends: tuple[int, int]
) -> torch.Tensor:
    if ch_axis == -1:
        return torch.fake_quantize_per_tensor_affine(x, scale, zero_point, *ends)
    return torch.fake_quantize_per_channel_affine(x, scale, zero_point, ch_axis, *ends)


def _shape(x: torch.Tensor, ch_axis: int) -> list[int]:
    return [-1 if axis == ch_axis else 1 for axis in range(x.ndim)]


def _slopes(
    x: torch.Tensor,
    gradient: torch.Tensor,
    scale: torch.Tensor,
    zero_point: torch.Tensor,
    ch_axis: int,
    ends: tuple[int, int],
    factor: float | None,
) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
    """As `native_fake_quantize.Steps.slopes`."""
    shape = _shape(x, ch_axis)
    each, offset = scale.reshape(shape), zero_point.to(scale.dtype).reshape(shape)
    low, high = ends[0] - offset, ends[1] - offset
    inside = (x >= (low - 0.5) * each) & (x <= (high + 0.5) * each)
    of_x = torch.where(inside, gradient, 0.0)
    if factor is None:
        return of_x, None, None
    axes = [axis for axis in range(x.ndim) if axis != ch_axis]
    quotient = x * each.reciprocal()  # as forward, and PyTorch: ends of a range are half-way between integers
    integers = torch.round(torch.clamp(quotient, low, high))
    of_scale = (gradient * (integers - torch.where(inside, quotient, 0.0))).sum(axes) * factor
    return of_x, of_scale, (gradient - of_x).sum(axes) * scale * -factor


class FakeQuantize(torch.nn.Module):
    """Fake quantization by the range that an observer has seen; the gradient passes within that range.

    Parameters
    ----------
    observer : MinMaxObserver or FixedObserver
        Data type, scheme, range of integers and axis of channels are the observer's.

    Attributes
    ----------
    activation_post_process : torch.nn.Module
        The observer.
    scale : torch.Tensor, float32, shape (channels,) or (1,)
    zero_point : torch.Tensor, int32, shape as scale's
    observer_enabled, fake_quant_enabled : torch.Tensor, uint8, shape (1,)
        Set by the methods of these names.
    steps : torch.Tensor, int64
        How many steps of training were taken, for those who continue from a state dict; `count` in Python.
    """

    scale: torch.Tensor
    zero_point: torch.Tensor
    observer_enabled: torch.Tensor
    fake_quant_enabled: torch.Tensor
    steps: torch.Tensor

    def __init__(self, observer: MinMaxObserver | FixedObserver) -> None:
        super().__init__()
        self.activation_post_process = observer
        self.dtype = observer.dtype
        self.qscheme = observer.qscheme
        self.quant_min, self.quant_max = observer.quant_min, observer.quant_max
        self.ch_axis = observer.ch_axis
        self.register_buffer("observer_enabled", torch.tensor([1], dtype=torch.uint8))
        self.register_buffer("fake_quant_enabled", torch.tensor([1], dtype=torch.uint8))
        self.register_buffer("steps", torch.tensor(0))
        self.count = 0
        self._observing = self._faking = True
        self._observed = isinstance(observer, FixedObserver)
        scale, zero_point = observer.calculate_qparams()
        self._set_parameters(scale.reshape(-1).clone(), zero_point.reshape(-1).clone())

    def _set_parameters(self, scale: torch.Tensor, zero_point: torch.Tensor) -> None:
        self.register_buffer("scale", scale)
        self.register_buffer("zero_point", zero_point)

    def enable_observer(self, enabled: bool = True) -> None:
        """Let values change the range, or not."""
        self.observer_enabled.fill_(int(enabled))
        self._observing = bool(enabled)

    def disable_observer(self) -> None:
        """Let the range stay the same."""
        self.enable_observer(False)

    def enable_fake_quant(self, enabled: bool = True) -> None:
        """Quantize values, or pass them as they are."""
        self.fake_quant_enabled.fill_(int(enabled))
        self._faking = bool(enabled)

    def disable_fake_quant(self) -> None:
        """Pass values as they are."""
        self.enable_fake_quant(False)

    def count_steps(self, count: int) -> None:
        """Note how many steps of training were taken."""
        self.steps.fill_(count)
        self.count = count

    @property
    def symmetric(self) -> bool:
        """Whether the zero point is fixed."""
        return is_symmetric(self.qscheme)

    @property
    def per_channel(self) -> bool:
        """Whether channels have a scale each."""
        return bool(self.ch_axis != -1)

    def calculate_qparams(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the scale (float32) and the zero point (int32) in use."""
        return self.scale, self.zero_point

    def forward(self, x: torch.Tensor, observe: bool = True) -> torch.Tensor:
        """Return values quantized and dequantized, as far as that is enabled.

        Parameters
        ----------
        x : torch.Tensor
            Integers are returned as they are.
        observe : bool
            False for values that have been observed elsewhere.
        """
        if not x.is_floating_point() or x.numel() == 0:
            return x
        # The first values are observed in any case: there is no other range to quantize by.
        if (self._observing and observe) or (self._faking and not self._observed):
            self._observe(x)
            self._observed = True
        return self._quantized(x) if self._faking else self._unquantized(x)

    def right_inverse(self, weight: torch.Tensor) -> torch.Tensor:
        """Return what is trained when a module's weight is assigned: the weight itself."""
        return weight

    @torch.no_grad()
    def quantized(self, x: torch.Tensor) -> torch.Tensor:
        """Return values quantized and dequantized, whatever is enabled; their own range counts if there is no other."""
        if not self._observed:
            self._observe(x)
            self._observed = True
        return self._quantized(x)

    @torch.no_grad()
    def _observe(self, x: torch.Tensor) -> None:
        self.activation_post_process(x.detach())
        scale, zero_point = self.activation_post_process.calculate_qparams()
        self.scale.copy_(scale.reshape(-1))
        self.zero_point.copy_(zero_point.reshape(-1))

    def _quantized(self, x: torch.Tensor) -> torch.Tensor:
        ends = (self.quant_min, self.quant_max)
        native = self.ch_axis == -1 and native_fake_quantize.knows(x)
        if native or x.device.type not in DEVICES_OF_KERNELS or x.dtype == torch.float64:
            scale, zero_point = self.scale.to(x.dtype), self.zero_point.to(x.dtype)
            return straight_through(x, scale, zero_point, self.ch_axis, *ends, 1.0)
        return _by_pytorch(x.to(torch.float32), self.scale, self.zero_point, self.ch_axis, ends).to(x.dtype)

    def _unquantized(self, x: torch.Tensor) -> torch.Tensor:
        return x

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *rest: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *rest)
        self.count = int(self.steps)
        self._observing, self._faking = bool(self.observer_enabled[0]), bool(self.fake_quant_enabled[0])
        observer = self.activation_post_process
        ends = [state_dict.get(f"{prefix}activation_post_process.{name}") for name in ("min_val", "max_val")]
        if all(end is not None for end in ends):  # the observer itself is loaded after this module
            self._observed = bool((ends[0] <= ends[1]).all())
        else:
            self._observed = bool(observer.observed)

    def extra_repr(self) -> str:
        return f"dtype={self.dtype}, qscheme={self.qscheme}, range=[{self.quant_min}, {self.quant_max}]"


class LearnableFakeQuantize(FakeQuantize):
    """Fake quantization whose scale, and zero point unless it is fixed, are parameters (LSQ, LSQ+).

    While the observer is on, the parameters are what its range says; what is learned counts after that. Gradients of
    the parameters are divided by the root of the number of elements that share one, times `quant_max`. Source: Esser
    et al., "Learned step size quantization", 2020.
    """

    def _set_parameters(self, scale: torch.Tensor, zero_point: torch.Tensor) -> None:
        self.scale = torch.nn.Parameter(scale)
        self.zero_point = torch.nn.Parameter(zero_point.float(), requires_grad=not self.symmetric)

    @torch.no_grad()
    def calculate_qparams(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the scale (float32) and the zero point (int32) in use."""
        scale = self.scale.detach().clamp(min=SMALLEST_SCALE)
        zero_point = self.zero_point.detach().round().clamp(self.quant_min, self.quant_max)
        return scale, zero_point.to(torch.int32)

    def _quantized(self, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():  # a step of the optimizer may have led out of these
            self.scale.clamp_(min=SMALLEST_SCALE)
            self.zero_point.clamp_(self.quant_min, self.quant_max)
        channels = 1 if self.ch_axis == -1 else x.shape[self.ch_axis]
        factor = (x.numel() / channels * max(self.quant_max, 1)) ** -0.5
        values = x if x.dtype in (torch.float32, torch.float64) else x.float()
        scale, zero_point = self.scale.to(values.dtype), self.zero_point.to(values.dtype)
        ends = (self.quant_min, self.quant_max)
        return straight_through(values, scale, zero_point, self.ch_axis, *ends, factor).to(x.dtype)

    def _unquantized(self, x: torch.Tensor) -> torch.Tensor:
        if torch.is_grad_enabled() and torch.distributed.is_available() and torch.distributed.is_initialized():
            return x + 0.0 * self.scale.sum() + 0.0 * self.zero_point.sum()  # all processes wait for these gradients
        return x


def straight_through(x: torch.Tensor, *arguments: Any) -> torch.Tensor:
    """Return the result of `StraightThrough`."""
    return StraightThrough.apply(x, *arguments)  # type: ignore[no-any-return]
