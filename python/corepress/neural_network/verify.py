"""Check a quantized network against its source: only weights changed, and to the nearest codes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..arrays import as_threads, same_bits
from ..compression.metrics import Error
from ..coreml.format.package import Package
from ..coreml.verify import other_files
from ..engine.checking import Wrong, require_snr
from ..engine.verification import Verification, VerifiedWeight
from ..errors import FormatError
from ..paths import user_path
from ..sources import unchanged
from .document import Document, LayerPlace, ModelNode
from .held_values import HeldValues
from .layers import LayerWeight, apart
from .model_io import is_path, name_of, open_model, size_of
from .nearness import has_nonfinite, is_half, is_restored, misfit
from .network import NetworkWeight, naming, weights_of
from .skeleton import differences
from .transform import HALF_VERSION, QUANTIZED_VERSION
from .weight_params import clear_values, is_same_message, kind_of, read_codes, read_half


@unchanged("source", "quantized")
def verify(
    source: Any, quantized: Any, *, min_snr_db: float | None = None, num_threads: int | None = None
) -> Verification:
    """Check a quantized neural network against its source.

    The models must be the same except for weights and specification versions. Weights must be bit for bit those of the
    source; or the nearest half precision numbers or codes, linear codes within half a step; or, if they were compressed
    in the source, uncompressed with the values encoded there.

    Parameters
    ----------
    source, quantized : path-like, spec or MLModel
        The original model, and the result.
    min_snr_db : float, optional
        A quantized weight whose signal-to-noise ratio is lower is wrong.
    num_threads : int, optional
        Threads to use; None for all CPUs this process may use, or `COREPRESS_NUM_THREADS`.

    Returns
    -------
    Verification
        Whether it is `ok`, what is wrong, and one record per weight.

    Raises
    ------
    TypeError, ValueError, FormatError
        If the source is not a neural network, or damaged. Problems of the other model are returned.
    """
    started = time.perf_counter()
    check = _Check(min_snr_db, as_threads("verify", num_threads))
    size = 0
    with open_model("verify", source) as document:
        try:
            other = open_model("verify", quantized)
        except ValueError as error:  # damaged, or no network
            check.problems.append(str(error))
        else:
            with other:
                size = size_of(quantized) if is_path(quantized) else other.nbytes
                check.problems += _other_files(source, quantized)
                check.problems += differences(document, other)
                try:
                    check.documents(document, other)
                except _DamagedSource as damage:
                    raise FormatError(f"{name_of(source)}: {damage}") from None
        before = size_of(source) if is_path(source) else document.nbytes
    return Verification(
        source=name_of(source),
        compressed=name_of(quantized),
        weights=tuple(check.weights),
        problems=tuple(dict.fromkeys(check.problems)),
        bytes_before=before,
        bytes_after=size,
        seconds=time.perf_counter() - started,
    )


class _DamagedSource(Exception):
    """The source, not the other model, is damaged; the message says how."""


def _other_files(source: Any, quantized: Any) -> Iterator[str]:
    """Files of packages that are not the model."""
    folders = [is_path(model) and user_path(model).is_dir() for model in (source, quantized)]
    if all(folders):
        package, other = Package.open(source), Package.open(quantized)
        yield from other_files(package, {package.model_path}, other, {other.model_path})


class _Check:
    def __init__(self, min_snr_db: float | None, threads: int) -> None:
        self._min_snr_db, self._threads = min_snr_db, threads
        self.weights: list[VerifiedWeight] = []
        self.problems: list[str] = []
        self._needed: dict[int, tuple[ModelNode, ModelNode, int]] = {}  # versions, by the identity of a model

    def documents(self, first: Document, second: Document) -> None:
        """Compare all layers, if the models have equally many, and the versions."""
        if len(first.places) != len(second.places):
            return  # said by `differences`
        for place, other in zip(first.places, second.places, strict=True):
            self._layers(place, other)
        self.problems += _wrong_versions(self._needed)

    def _layers(self, place: LayerPlace, other: LayerPlace) -> None:
        try:
            layer, held = place.read_held()
            weights = _flat(layer, place, held)
        except FormatError as error:
            raise _DamagedSource(str(error)) from None
        try:
            changed_layer, held = other.read_held()
            others = _flat(changed_layer, other, held)
        except FormatError as error:
            self.problems.append(str(error))
            return
        where = f"layer {place.where}{layer.name}"
        if [each.path for each in weights] != [each.path for each in others]:
            self.problems.append(f"{where}: it has other weights")
            return
        least = 0
        for weight, changed in zip(weights, others, strict=True):
            least = max(least, self._weight(weight, changed))
            clear_values(weight.weight.params)
            clear_values(changed.weight.params)
        for ours, theirs in zip(place.models, other.models, strict=False):
            known = self._needed.get(id(theirs), (ours, theirs, 0))[2]
            self._needed[id(theirs)] = ours, theirs, max(known, least)
        ours, theirs = (each.SerializeToString(deterministic=True) for each in (layer, changed_layer))
        if ours != theirs:
            self.problems.append(f"{where}: more than its weights changed")

    def _weight(self, weight: NetworkWeight, other: NetworkWeight) -> int:
        """Compare a weight; return the lowest version that its new form needs, 1 for any, 0 if it did not change."""
        shape, status, problem, found, least = weight.weight.shape, "wrong", None, None, 1
        try:
            if shape != other.weight.shape:
                raise Wrong(f"its shape was {shape}, but is {other.weight.shape}")
            with np.errstate(invalid="ignore", over="ignore"):  # damaged values are found, whatever they compute to
                status, found, least = self._compare(weight, other.weight)
            if found is not None:
                require_snr(found, self._min_snr_db)
        except (Wrong, FormatError) as error:
            status, problem, found = "wrong", str(error), None
        self.weights.append(
            VerifiedWeight(
                name=weight.name,
                function=weight.function,
                shape=shape,
                dtype="float32",
                status=status,
                problem=problem,
                snr_db=None if found is None else found.snr_db,
                cosine=None if found is None else found.cosine,
            )
        )
        return least

    def _compare(self, named: NetworkWeight, other: LayerWeight) -> tuple[str, Error | None, int]:
        weight = named.weight
        if is_same_message(weight.params, other.params):
            return "identical", None, 0
        kind = _source(named, lambda: kind_of(weight.params))
        new = kind_of(other.params)
        if weight.untouched is not None or "empty" in (kind, new):
            raise Wrong("its values changed, although it is not compressed")
        if named.is_updatable and new != "float32":
            raise Wrong("its layer is updatable, which takes float32 weights only")
        if new == "float32" and kind != "float32":
            self._restored(named, kind, other.read())
            if kind == "int8":
                weight.stop_quantizing_inputs()
            return "decompressed", None, 1
        if kind not in ("float32", "float16"):
            raise Wrong("it was compressed already, and changed")
        if new == kind:
            raise Wrong("its values changed, although it is not compressed")
        values = _source(named, weight.read)
        if has_nonfinite(values, self._threads):
            raise Wrong("it has NaN or infinite values, which have no compressed form")
        return self._compressed(weight, values, other, new)

    def _restored(self, named: NetworkWeight, kind: str, values: NDArray[np.float32]) -> None:
        weight = named.weight
        if kind == "float16":
            is_right = same_bits(values, _source(named, weight.read))
        else:
            encoded = _source(named, weight.read_encoded)
            is_right = is_restored(values, encoded, encoded.dense(self._threads))
        if not is_right:
            raise Wrong("its values are not those that it was stored as in the source")

    def _compressed(
        self, weight: LayerWeight, values: NDArray[np.float32], other: LayerWeight, kind: str
    ) -> tuple[str, Error, int]:
        if kind == "float16":
            half = read_half(other.params, other.shape)
            try:
                is_nearest = is_half(values, half, self._threads)
            except ValueError:
                raise Wrong("it has values beyond the range of float16") from None
            if not is_nearest:
                raise Wrong("its values are not those of the source in half precision")
            return "compressed", apart(weight, other, self._threads), HALF_VERSION
        problem = misfit(values, *read_codes(other.params, other.shape, other.channel_axis), self._threads)
        if problem is not None:
            raise Wrong(problem)
        return "compressed", apart(weight, other, self._threads), QUANTIZED_VERSION


def _flat(layer: Any, place: LayerPlace, held: HeldValues) -> list[NetworkWeight]:
    return [weight for found in weights_of(layer, place, held) for weight in found]


def _source(weight: NetworkWeight, read: Any) -> Any:
    try:
        with naming(weight):
            return read()
    except FormatError as error:
        raise _DamagedSource(str(error)) from None


def _wrong_versions(needed: dict[int, tuple[ModelNode, ModelNode, int]]) -> Iterator[str]:
    """Specification versions that are too low for the new weights, or were changed without need."""
    for model, other, least in needed.values():
        if other.version < least:
            yield f"{other.in_words}: specification version {other.version} has no such weights, {least} has"
        raised = {max(model.version, version) for version in (HALF_VERSION, QUANTIZED_VERSION) if least}
        if other.version not in {model.version, *raised}:
            yield f"{other.in_words}: specification version {model.version} became {other.version}"
