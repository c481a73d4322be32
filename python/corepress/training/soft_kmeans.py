"""Differentiable k-means: values as means of the entries of their palettes, and the exact gradient of that.

On the CPU the native kernels compute it, elsewhere PyTorch's operations, with the same formulas; neither ever has a
number for each value and entry. `corepress.reference.soft_kmeans` has the formulas.

References
----------
Cho et al., DKM: Differentiable K-Means Clustering Layer for Neural Network Compression, ICLR 2022.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from .. import _core
from ..compression import palettize
from ..kernels import kmeans, kmeans1d
from ..specs import PALETTE_BITS
from . import soft_kmeans_of_device

Tensor = torch.Tensor

_PALETTE_SIZES = [1 << bits for bits in PALETTE_BITS]
_FORMATS = (torch.float16, torch.bfloat16, torch.float32)


def soft_kmeans(
    weight: Tensor,
    centroids: Tensor,
    *,
    temperature: float = 1e-4,
    iterations: int = 3,
    tolerance: float = 1e-4,
    prune_threshold: float = 1e-7,
    smallest_weight: float = 1e-7,
    enforce_zero: bool = False,
    exact: bool = False,
) -> tuple[Tensor, Tensor]:
    """Return values as means of entries, and the entries that rounds of soft k-means end with.

    Parameters
    ----------
    weight : torch.Tensor of float16, bfloat16 or float32, shape (groups, n) or (groups, n, d)
        Values, or vectors, of groups that have a palette (lookup table, LUT) each. Gradients flow to it.
    centroids : torch.Tensor of floats, shape (groups, k) or (groups, k, d)
        Entries before the first round. No gradient flows to them.
    temperature : float
        Of the softmax over squared distances; positive.
    iterations : int
        Rounds, at most; at least 1.
    tolerance : float
        Rounds of a group end where its sum of squared distances changes by no more.
    prune_threshold : float
        What squared distances to the first entry are less.
    smallest_weight : float
        Of an entry in a mean, from 0 on.
    enforce_zero : bool
        Whether the first entry is 0 after each round.
    exact : bool
        Whether each value of float32 is computed separately, on the CPU. Otherwise means and gradients of large groups
        are interpolated between points, 64 in the width of the steepest step of a mean, where that is faster: to
        about 1e-5 of the distance between entries.

    Returns
    -------
    means : torch.Tensor
        Of the weight's shape and dtype.
    entries : torch.Tensor of float32
        Of the centroids' shape, detached. An entry that nothing is near stays where it is.

    Raises
    ------
    ValueError
        For shapes that do not fit, and options out of their range.
    TypeError
        For weights of other dtypes.
    """
    scalars = _check("soft_kmeans", weight, centroids)
    if weight.dtype not in _FORMATS:
        raise TypeError(f"soft_kmeans: weight must be float16, bfloat16 or float32, not {weight.dtype}")
    found, tape, _, rounds = _means(
        _as_vectors(weight, scalars),
        _as_vectors(centroids, scalars).detach(),
        temperature,
        iterations,
        tolerance,
        prune_threshold,
        smallest_weight,
        enforce_zero,
        exact,
    )
    last = rounds.reshape(-1, 1, 1, 1).expand(-1, 1, *tape.shape[2:])
    entries = tape.detach().gather(1, last)[:, 0].to(torch.float32)
    return (found[..., 0], entries[..., 0]) if scalars else (found, entries)


def hard_assignment(weight: Tensor, centroids: Tensor, *, prune_threshold: float = 0.0) -> Tensor:
    """Return for each value, or vector, the nearest entry of its group's palette; of equally near ones the first.

    Parameters
    ----------
    weight : torch.Tensor of floats, shape (groups, n) or (groups, n, d)
        Values, or vectors; NaN becomes any entry.
    centroids : torch.Tensor of floats, shape (groups, k) or (groups, k, d)
        Entries, as float32.
    prune_threshold : float
        What squared distances to the first entry are less.

    Returns
    -------
    torch.Tensor
        Of the weight's shape and dtype, without gradient.

    Raises
    ------
    ValueError
        For shapes that do not fit.
    """
    scalars = _check("hard_assignment", weight, centroids)
    with torch.no_grad():
        points, entries = _as_vectors(weight, scalars), _as_vectors(centroids, scalars)
        found: Tensor = _nearest(points, entries, prune_threshold)
        return found.reshape(weight.shape)


def nearest_codes(weight: Tensor, centroids: Tensor, *, prune_threshold: float = 0.0) -> Tensor:
    """Return the place in its palette of what `hard_assignment` gives to each value, or vector.

    Parameters
    ----------
    weight, centroids, prune_threshold
        As in `hard_assignment`.

    Returns
    -------
    torch.Tensor of int32, shape (groups, n)

    Raises
    ------
    ValueError
        For shapes that do not fit.
    """
    scalars = _check("nearest_codes", weight, centroids)
    with torch.no_grad():
        codes: Tensor = _codes(_as_vectors(weight, scalars), _as_vectors(centroids, scalars), prune_threshold)
        return codes


def initial_centroids(weight: Tensor, k: int, importance: Tensor | None = None) -> Tensor:
    """Return palettes of least squared error, for numbers; for vectors those of k-means from many starts.

    Parameters
    ----------
    weight : torch.Tensor of floats, shape (groups, n) or (groups, n, d)
        Finite.
    k : int
        Entries of a palette.
    importance : torch.Tensor, optional
        Of each value or vector, shape (groups, n).

    Returns
    -------
    torch.Tensor of float32, shape (groups, k) or (groups, k, d)
        On the weight's device. Where there are fewer distinct values than entries, the last is repeated.
    """
    found = []
    for group, values in enumerate(weight.detach()):
        numbers = _input(values.to("cpu", torch.float32))
        shares = None if importance is None else importance[group].to("cpu", torch.float64).numpy()
        entries = _entries(numbers, k, shares)
        missing = np.repeat(entries[-1:], k - len(entries), axis=0)
        found.append(torch.from_numpy(np.concatenate((entries, missing)).astype(np.float32)))
    return torch.stack(found).to(weight.device)


def _entries(values: np.ndarray[Any, Any], k: int, importance: np.ndarray[Any, Any] | None) -> np.ndarray[Any, Any]:
    if values.ndim == 1 and k in _PALETTE_SIZES:  # in far less memory, for large weights
        found = palettize(values, nbits=k.bit_length() - 1, importance=importance)
        return np.asarray(found.lut).reshape(-1)
    if values.ndim == 1:
        return kmeans1d(values, k, importance).centroids
    few = _distinct(values, k)
    return kmeans(values, k, importance)[1] if few is None else few


def _distinct(vectors: np.ndarray[Any, Any], most: int) -> np.ndarray[Any, Any] | None:
    """The distinct vectors, or None if there are more; a part of them mostly has more already."""
    step = max(1, len(vectors) // (4 * most))
    for some in (vectors[::step], vectors):
        found = np.unique(some, axis=0)
        if len(found) > most:
            return None
    return found


def _check(name: str, weight: Tensor, centroids: Tensor) -> bool:
    """Raise an error unless shapes fit; whether the weight has numbers, not vectors."""
    if weight.ndim not in (2, 3) or centroids.ndim != weight.ndim or len(centroids) != len(weight):
        raise ValueError(
            f"{name}: weight must be (groups, n) or (groups, n, d) and centroids (groups, k) or (groups, k, d), "
            f"not {tuple(weight.shape)} and {tuple(centroids.shape)}"
        )
    if weight.ndim == 3 and weight.shape[2] != centroids.shape[2]:
        raise ValueError(f"{name}: weight has vectors of {weight.shape[2]}, centroids of {centroids.shape[2]}")
    return weight.ndim == 2


def _as_vectors(tensor: Tensor, scalars: bool) -> Tensor:
    return tensor[..., None] if scalars else tensor


@torch.library.custom_op("corepress::nearest_entries", mutates_args=())
def _nearest(weight: Tensor, centroids: Tensor, prune_threshold: float) -> Tensor:
    if _is_native(weight, centroids):
        found = torch.empty(weight.shape, dtype=weight.dtype)
        _core.nearest_entries(*_given(weight, centroids), prune_threshold, None, _array(found))
        return found
    entries = centroids.to(weight.device)
    codes = soft_kmeans_of_device.nearest_codes(weight, entries, prune_threshold)
    return entries.gather(1, codes[..., None].expand(-1, -1, weight.shape[2])).to(weight.dtype)


@_nearest.register_fake
def _(weight: Tensor, centroids: Tensor, prune_threshold: float) -> Tensor:
    return torch.empty(weight.shape, dtype=weight.dtype, device=weight.device)


@torch.library.custom_op("corepress::nearest_codes", mutates_args=())
def _codes(weight: Tensor, centroids: Tensor, prune_threshold: float) -> Tensor:
    if _is_native(weight, centroids):
        codes = torch.empty(weight.shape[:2], dtype=torch.int16)
        _core.nearest_entries(*_given(weight, centroids), prune_threshold, codes.numpy().view(np.uint16), None)
        return codes.to(torch.int32) & 0xFFFF
    return soft_kmeans_of_device.nearest_codes(weight, centroids.to(weight.device), prune_threshold).to(torch.int32)


@_codes.register_fake
def _(weight: Tensor, centroids: Tensor, prune_threshold: float) -> Tensor:
    return torch.empty(weight.shape[:2], dtype=torch.int32, device=weight.device)


def _is_native(weight: Tensor, centroids: Tensor) -> bool:
    return weight.device.type == "cpu" and weight.dtype in _FORMATS and centroids.shape[1] <= 1 << 16


def _given(weight: Tensor, centroids: Tensor) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    entries = centroids.detach().to("cpu", torch.float32)  # what they are rounded to everywhere
    return _input(weight.contiguous()), entries.double().contiguous().numpy()


@torch.library.custom_op("corepress::soft_kmeans", mutates_args=())
def _means(
    weight: Tensor,
    centroids: Tensor,
    temperature: float,
    iterations: int,
    tolerance: float,
    prune_threshold: float,
    smallest_weight: float,
    enforce_zero: bool,
    exact: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    options = (temperature, smallest_weight, prune_threshold, tolerance, iterations, enforce_zero, exact)
    if weight.device.type != "cpu":
        return soft_kmeans_of_device.means(weight, centroids, options)
    found, tape, sums, rounds = _room(weight, centroids, iterations)
    tape[:, 0] = centroids
    weight = weight.contiguous()
    _core.soft_kmeans(_input(weight), tape.numpy(), sums.numpy(), rounds.numpy(), options, _array(found))
    return found, tape, sums, rounds


@_means.register_fake
def _(
    weight: Tensor, centroids: Tensor, temperature: float, iterations: int, *options: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return _room(weight, centroids, iterations)


@torch.library.custom_op("corepress::soft_kmeans_gradient", mutates_args=())
def _gradient(
    weight: Tensor,
    gradient: Tensor,
    tape: Tensor,
    sums: Tensor,
    rounds: Tensor,
    temperature: float,
    prune_threshold: float,
    smallest_weight: float,
    enforce_zero: bool,
    exact: bool,
) -> Tensor:
    options = (temperature, smallest_weight, prune_threshold, 0.0, sums.shape[1], enforce_zero, exact)
    if weight.device.type != "cpu":
        return soft_kmeans_of_device.gradient(weight, gradient, tape, sums, rounds, options)
    found = torch.empty(weight.shape, dtype=weight.dtype)
    weight, gradient = weight.contiguous(), gradient.to(weight.dtype).contiguous()
    _core.soft_kmeans_gradient(
        _input(weight), _input(gradient), tape.numpy(), sums.numpy(), rounds.numpy(), options, _array(found)
    )
    return found


@_gradient.register_fake
def _(weight: Tensor, gradient: Tensor, *rest: Any) -> Tensor:
    return torch.empty(weight.shape, dtype=weight.dtype, device=weight.device)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    weight, _, temperature, _, _, prune_threshold, smallest_weight, enforce_zero, exact = inputs
    ctx.save_for_backward(weight, *output[1:])
    ctx.set_materialize_grads(False)
    ctx.options = (temperature, prune_threshold, smallest_weight, enforce_zero, exact)


def _backward(ctx: Any, gradient: Tensor | None, *of_tape: Any) -> tuple[Tensor | None, ...]:
    found = None
    if gradient is not None and ctx.needs_input_grad[0]:
        weight, tape, sums, rounds = ctx.saved_tensors
        found = _gradient(weight, gradient, tape, sums, rounds, *ctx.options)
    return found, *[None] * 8


_means.register_autograd(_backward, setup_context=_keep)


def _room(weight: Tensor, centroids: Tensor, iterations: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Results, entries of all rounds, sums of weights, and how many rounds each group has."""
    groups, entries, length = centroids.shape
    place: dict[str, Any] = {"device": weight.device, "dtype": soft_kmeans_of_device.dtype_of_tape(weight.device)}
    return (
        torch.empty(weight.shape, dtype=weight.dtype, device=weight.device),
        torch.zeros(groups, iterations + 1, entries, length, **place),
        torch.zeros(groups, iterations, entries, **place),
        torch.zeros(groups, dtype=torch.int64, device=weight.device),
    )


def _array(tensor: Tensor) -> np.ndarray[Any, Any]:
    """A tensor's memory as an array to write to; bfloat16, which NumPy has no dtype of, as uint16."""
    if tensor.dtype == torch.bfloat16:
        return tensor.detach().view(torch.int16).numpy().view(np.uint16)
    return tensor.detach().numpy()


def _input(tensor: Tensor) -> np.ndarray[Any, Any]:
    """The same to read. `Tensor.numpy` would fix the size of the memory, which FSDP frees between steps."""
    if tensor.dtype == torch.bfloat16:
        return np.from_dlpack(tensor.detach().view(torch.int16)).view(np.uint16)
    return np.from_dlpack(tensor.detach())
