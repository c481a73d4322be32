"""Compressing the layers of a model one after another, each with the inputs that the compressed ones before it make.

What is run again depends on the model, which the first sample shows:

- a chain of blocks, each of which takes what the one before it returned, and nothing else that changes from block to
  block: block by block. The inputs of one block are kept for all samples; each block runs twice.
- anything else: in stages. For each stage the model runs from its start until the layers of the stage have had their
  inputs. Stages are the blocks where blocks are given; otherwise the layers in the order in which they run, in at most
  `MOST_STAGES` stages, so that no sample is computed more than about `MOST_STAGES` / 2 times.

Layers of one block, or of one stage, have the inputs that the uncompressed ones among them make.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

import torch
from torch import Tensor

MOST_STAGES = 16

Call: TypeAlias = tuple[tuple[Any, ...], dict[str, Any]]

_logger = logging.getLogger(__name__)


class LayerAlgorithm(Protocol):
    """What compresses one layer."""

    def add_batch(self, inp: Tensor, out: Tensor) -> None:
        """See the input and the output of a call of the layer."""

    def compress(self) -> None:
        """Compress its weight; ValueError if it cannot be: it is left unchanged then."""

    def cleanup(self) -> None:
        """Free what was gathered."""


@dataclass(frozen=True)
class Block:
    """A part of a model that is compressed at once.

    Attributes
    ----------
    name : str
    module : torch.nn.Module
    layers : dict of str to torch.nn.Module
        The layers in it that may be compressed, by their names in the model.
    """

    name: str
    module: torch.nn.Module
    layers: dict[str, torch.nn.Module]


Start: TypeAlias = Callable[[str, torch.nn.Module], LayerAlgorithm | None]


class _Stop(BaseException):
    """Ends a run of the model where enough is known; no handler of errors in the model takes it for one."""


def as_call(sample: Any) -> Call:
    """How a model is called with a sample: a mapping has names of arguments, a tuple or list several of them."""
    if isinstance(sample, Mapping):
        return (), dict(sample)
    if isinstance(sample, tuple | list):
        return tuple(sample), {}
    return (sample,), {}


def moved(value: Any, device: torch.device | str) -> Any:
    """A sample on a device: tensors, in tuples, lists and mappings too."""
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(moved(each, device) for each in value))
    if isinstance(value, tuple | list):
        return type(value)(moved(each, device) for each in value)
    if isinstance(value, Mapping):
        return {key: moved(each, device) for key, each in value.items()}
    return value


def compress_blocks(
    model: torch.nn.Module,
    blocks: Sequence[Block],
    samples: Sequence[Any],
    start: Start,
    device: torch.device | str,
    *,
    by_block: bool,
) -> None:
    """Compress the layers of a model in the order in which they run.

    Parameters
    ----------
    model : torch.nn.Module
        On the device, in evaluation mode. Changed.
    blocks : sequence of Block
        In the order of the model.
    samples : sequence
        Inputs of the model: tensors, tuples or lists of arguments, mappings of named ones. On any device.
    start : callable
        Given a layer's name and the layer, returns what compresses it, or None to leave it unchanged.
    device : torch.device or str
    by_block : bool
        Whether the blocks are also the stages of a model that is no chain of them.
    """
    with torch.no_grad(), _hooks_are_called():
        try:
            trace = _traced(model, blocks, moved(as_call(samples[0]), device))
        except TypeError:
            if by_block or not isinstance(model, torch.nn.Sequential):
                raise
            # Its modules may take several arguments, which it does not pass on, though a chain of blocks does.
            compress_chain(blocks, [moved(as_call(each), device) for each in samples], start)
            return
        never = [name for block in blocks for name in block.layers if name not in trace.calls]
        if never:
            _logger.warning("layers that did not run are left unchanged: %s", ", ".join(never))
        if trace.leading:
            first = captured_calls(model, blocks[0].module, samples, device)
            compress_chain(blocks, first, start, trace.leading)
            return
        for stage in _stages(blocks, trace, by_block=by_block):
            _compress_stage(model, stage, trace.calls, samples, start, device)


def compress_chain(blocks: Sequence[Block], inputs: list[Call], start: Start, leading: int | None = None) -> None:
    """Compress a chain of blocks.

    Parameters
    ----------
    blocks : sequence of Block
    inputs : list of (arguments, named arguments)
        Of the first block, one for each sample; emptied.
    start : callable
        As for `compress_blocks`.
    leading : int, optional
        How many arguments of a block the one before it returns; None: all that it returns.
    """
    compressible = [index for index, block in enumerate(blocks) if block.layers]
    if not compressible:
        return
    with torch.no_grad(), _hooks_are_called():
        for index, block in enumerate(blocks[: compressible[-1] + 1]):
            algorithms = _started(block.layers, start)
            if algorithms:
                with _gathering(block.layers, algorithms):
                    for args, kwargs in inputs:
                        block.module(*_copies(args), **kwargs)
                _finish(algorithms)
            if index == compressible[-1]:
                break
            for place, (args, kwargs) in enumerate(inputs):
                found = block.module(*args, **kwargs)
                returned = tuple(found) if isinstance(found, tuple | list) else (found,)
                given = returned if leading is None else returned[:leading]
                inputs[place] = (given if leading is None else (*given, *args[leading:])), kwargs
    inputs.clear()


def _copies(args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Arguments that a block may change in place."""
    return tuple(each.clone() if isinstance(each, Tensor) else each for each in args)


@dataclass
class _Trace:
    """What the first sample shows.

    Attributes
    ----------
    calls : dict of str to int
        How often each layer ran, in the order of the first calls.
    leading : int
        Arguments of each block that the one before it returned, if the blocks are a chain; otherwise 0.
    """

    calls: dict[str, int] = field(default_factory=dict)
    leading: int = 0


class _ChainCheck:
    """Whether blocks run once each, in their order, and each takes what the one before it returned."""

    def __init__(self, blocks: Sequence[Block]) -> None:
        self._blocks = [id(block.module) for block in blocks]
        self._place, self._returned = 0, None
        self._first: Call = ((), {})
        self.holds, self.leading = True, 0

    @property
    def is_chain(self) -> bool:
        """Whether it held to the last block."""
        return self.holds and self._place == len(self._blocks)

    def before(self, module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """A block is called."""
        if not self.holds or self._place >= len(self._blocks) or id(module) != self._blocks[self._place]:
            self.holds = False
            return
        if self._place == 0:
            self._first = args, kwargs
            self.holds = bool(args) and isinstance(args[0], Tensor)
        else:
            returned = self._returned if isinstance(self._returned, tuple | list) else (self._returned,)
            pairs = zip(args, returned, strict=False)
            leading = next((place for place, (one, other) in enumerate(pairs) if one is not other), None)
            leading = min(len(args), len(returned)) if leading is None else leading
            if self._place > 1 and leading != self.leading:
                leading = 0
            rest = args[leading:], kwargs
            self.holds = leading > 0 and _is_same(rest, (self._first[0][leading:], self._first[1]))
            self.leading = leading
        self._returned = None

    def after(self, module: torch.nn.Module, returned: Any) -> None:
        """A block has returned."""
        if self.holds:
            self._returned = returned
            self._place += 1


def _is_same(one: Any, other: Any) -> bool:
    if one is other:
        return True
    if isinstance(one, tuple | list) and isinstance(other, tuple | list):
        return len(one) == len(other) and all(map(_is_same, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_is_same(one[key], other[key]) for key in one)
    return isinstance(one, str | int | float | bool) and type(one) is type(other) and one == other


def _traced(model: torch.nn.Module, blocks: Sequence[Block], call: Call) -> _Trace:
    trace, check, handles = _Trace(), _ChainCheck(blocks), []
    for block in blocks:
        handles.append(block.module.register_forward_pre_hook(check.before, with_kwargs=True))
        handles.append(block.module.register_forward_hook(lambda module, _, returned: check.after(module, returned)))
        for name, layer in block.layers.items():

            def count(*_: Any, name: str = name) -> None:
                trace.calls[name] = trace.calls.get(name, 0) + 1

            handles.append(layer.register_forward_pre_hook(count))
    try:
        model(*call[0], **call[1])
    finally:
        for handle in handles:
            handle.remove()
    if check.is_chain:
        trace.leading = max(1, check.leading)
    return trace


def captured_calls(
    model: torch.nn.Module, block: torch.nn.Module, samples: Sequence[Any], device: torch.device | str
) -> list[Call]:
    """Return what a block is called with, for each sample; runs of the model end there.

    Parameters
    ----------
    model : torch.nn.Module
        On the device.
    block : torch.nn.Module
        A module of it.
    samples : sequence
        Inputs of the model, as for `compress_blocks`.
    device : torch.device or str

    Returns
    -------
    list of (arguments, named arguments)
        Without those with which the block does not run.
    """
    found: list[Call] = []

    def keep(_: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        found.append((args, kwargs))
        raise _Stop

    handle = block.register_forward_pre_hook(keep, with_kwargs=True)
    try:
        for sample in samples:
            args, kwargs = moved(as_call(sample), device)
            with contextlib.suppress(_Stop), torch.no_grad():
                model(*args, **kwargs)
    finally:
        handle.remove()
    return found


def _stages(blocks: Sequence[Block], trace: _Trace, *, by_block: bool) -> list[dict[str, torch.nn.Module]]:
    """The layers of each stage, in the order in which they run."""
    place = {name: index for index, name in enumerate(trace.calls)}
    layers = {name: layer for block in blocks for name, layer in block.layers.items() if name in place}
    if by_block:
        found = [{name: block.layers[name] for name in block.layers if name in place} for block in blocks]
        return sorted((each for each in found if each), key=lambda each: min(place[name] for name in each))
    names = sorted(layers, key=lambda name: place[name])
    count = min(MOST_STAGES, len(names))
    bounds = [len(names) * index // max(1, count) for index in range(count + 1)]
    return [{name: layers[name] for name in names[begin:end]} for begin, end in itertools.pairwise(bounds)]


def _compress_stage(
    model: torch.nn.Module,
    layers: dict[str, torch.nn.Module],
    calls: Mapping[str, int],
    samples: Sequence[Any],
    start: Start,
    device: torch.device | str,
) -> None:
    algorithms = _started(layers, start)
    if not algorithms:
        return
    with _gathering(layers, algorithms, sum(calls[name] for name in algorithms)) as renew:
        for sample in samples:
            renew()
            args, kwargs = moved(as_call(sample), device)
            with contextlib.suppress(_Stop):
                model(*args, **kwargs)
    _finish(algorithms)


def _started(layers: Mapping[str, torch.nn.Module], start: Start) -> dict[str, LayerAlgorithm]:
    found = ((name, start(name, layer)) for name, layer in layers.items())
    return {name: algorithm for name, algorithm in found if algorithm is not None}


@contextlib.contextmanager
def _gathering(
    layers: Mapping[str, torch.nn.Module], algorithms: Mapping[str, LayerAlgorithm], calls: int | None = None
) -> Iterator[Callable[[], None]]:
    """Show the algorithms what their layers see; a run ends after as many calls, counted from each renewal."""
    left, handles = [0], []

    def renew() -> None:
        left[0] = calls or 0

    for name, algorithm in algorithms.items():

        def see(
            _: torch.nn.Module,
            args: tuple[Any, ...],
            kwargs: dict[str, Any],
            returned: Any,
            algorithm: LayerAlgorithm = algorithm,
        ) -> None:
            algorithm.add_batch((args[0] if args else kwargs["input"]).detach(), returned.detach())
            left[0] -= 1
            if left[0] == 0 and calls is not None:
                raise _Stop

        handles.append(layers[name].register_forward_hook(see, with_kwargs=True))
    try:
        yield renew
    finally:
        for handle in handles:
            handle.remove()


def _finish(algorithms: dict[str, LayerAlgorithm]) -> None:
    for name, algorithm in algorithms.items():
        _finish_one(name, algorithm)


def _finish_one(name: str, algorithm: LayerAlgorithm) -> None:
    try:
        algorithm.compress()
        _logger.info("compressed %s", name)
    except ValueError as error:
        _logger.warning("%s is left unchanged: %s", name, error)
    finally:
        algorithm.cleanup()


@contextlib.contextmanager
def _hooks_are_called() -> Iterator[None]:
    """The layers inside attention run as such, instead of one kernel for all of it; products of float32 are such."""
    mha, matmul = torch.backends.mha, torch.backends.cuda.matmul
    fast = mha.get_fastpath_enabled()
    try:
        rounded: bool | None = bool(matmul.allow_tf32)
    except RuntimeError:  # the newer settings are in use
        rounded = None
    mha.set_fastpath_enabled(False)
    if rounded:
        matmul.allow_tf32 = False
    try:
        yield
    finally:
        mha.set_fastpath_enabled(fast)
        if rounded:
            matmul.allow_tf32 = True
