"""What calibration found out about the weights of a model: the file, and what it is asked."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..compression.matrix_view import MatrixView
from ..coreai.format.asset import is_asset
from ..coreai.program import identity as identity_in_assets
from ..coreai.program.program import Program as AssetProgram
from ..coreml.format.package import Package
from ..coreml.format.values import ValueReader
from ..coreml.program.identity import stored_digest, weight_keys
from ..coreml.program.program import Program
from ..coreml.program.weights import visible_weights
from ..errors import FormatError
from ..paths import user_path
from .activation_ranges import ActivationRange
from .tensor_file import TensorFile, write_tensors

_FORMAT, _VERSION = "corepress calibration", 1
_LISTED = 6  # names in a message
MOST_KEPT, MOST_KEPT_BYTES = 256, 1 << 26  # of the held-back samples that a file has
Sample = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Sensitivity:
    """How much the outputs change when one weight is stored as one candidate, all others unchanged.

    Attributes
    ----------
    mean : float
        Expected power of the change of the outputs, to second order in the weight's error, over the outputs' own power:
        its SNR is ``-10 log10(mean)`` dB. Of several outputs, each counts by its own power and the ratios are added, so
        that none has a lower SNR. At the end of a classifier it is the expected square of ``dp / sqrt(p)`` over all
        classes, twice the Kullback-Leibler divergence for small changes.
    standard_error : float
        Of the mean, from the spread of the gradients, and of rows where not all were judged; infinite with one
        gradient.
    gradients : int
        How many random probes of the outputs were made; of an asset, which has no gradients, on how many samples it was
        run.
    """

    mean: float
    standard_error: float
    gradients: int

    @classmethod
    def of(cls, squares: Sequence[float], variance: float = 0.0) -> Sensitivity:
        """Of the square that each gradient gave; `variance` is that of the mean that is not seen in their spread."""
        values = np.asarray(squares, np.float64)
        error = float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else math.inf
        return cls(float(values.mean()), math.hypot(error, math.sqrt(variance)), len(values))

    def merged(self, other: Sensitivity) -> Sensitivity:
        """Of the gradients of both."""
        count = self.gradients + other.gradients
        mean = (self.gradients * self.mean + other.gradients * other.mean) / count
        spread = sum(each._squared_deviations() + each.gradients * (each.mean - mean) ** 2 for each in (self, other))
        return Sensitivity(mean, math.sqrt(spread / (count - 1) / count), count)

    def _squared_deviations(self) -> float:
        if self.gradients < 2:
            return 0.0
        return self.standard_error**2 * self.gradients * (self.gradients - 1)

    @property
    def snr_db(self) -> float:
        """The signal-to-noise ratio of the outputs."""
        return math.inf if self.mean == 0 else -10 * math.log10(self.mean)


@dataclass(frozen=True, eq=False)
class WeightStatistics:
    """What one weight sees.

    Attributes
    ----------
    digest : str
        SHA-256 of its stored bytes.
    shape : tuple of int
        Its shape.
    view : MatrixView or None
        How the operations that use it read it as matrices; None if there is no hessian.
    count : int
        Number of input vectors that the samples had for each of its matrices.
    hessian : numpy.ndarray of float32 or None
        ``E[x x^T]`` over these: (groups, blocks, c, c). Block b has the columns b c to (b + 1) c; what exceeds them is
        zero. None for weights that no sample reached, or that are used in a way for which there is none.
    fisher : numpy.ndarray of float32 or None
        ``E[g^2]`` for the gradients g of random probes of the outputs, in the weight's shape; only if asked for.
    sensitivities : dict of str to Sensitivity
        By the key of the candidate (`corepress.config.candidates.candidate_key`).
    reason : str or None
        Why there is no hessian.
    """

    digest: str
    shape: tuple[int, ...]
    view: MatrixView | None = None
    count: int = 0
    hessian: NDArray[np.float32] | None = None
    fisher: NDArray[np.float32] | None = None
    sensitivities: Mapping[str, Sensitivity] = field(default_factory=dict)
    reason: str | None = None

    @property
    def reached(self) -> bool:
        """Whether a sample reached it."""
        return self.count > 0 or any(each.mean > 0 for each in self.sensitivities.values())

    def diagonal(self) -> NDArray[np.float32]:
        """``E[x^2]`` of the input that each element is multiplied with, in the weight's shape.

        Raises
        ------
        ValueError
            If there is no hessian.
        """
        if self.hessian is None or self.view is None:
            raise ValueError(f"diagonal: there are no second moments: {self.reason}")
        groups, blocks, size, _ = self.hessian.shape
        columns = np.diagonal(self.hessian, axis1=2, axis2=3).reshape(groups, blocks * size)[:, : self.view.columns]
        rows = np.broadcast_to(np.maximum(columns, 0)[:, None, :], (groups, self.view.rows, self.view.columns))
        restored: NDArray[np.float32] = self.view.restore(rows)
        return restored

    def merged(self, other: WeightStatistics) -> WeightStatistics:
        """Of the samples of both."""
        hessian, fisher = self.hessian, self.fisher
        if hessian is not None and other.hessian is not None:
            if hessian.shape != other.hessian.shape or self.view != other.view:
                raise ValueError("merge: the second moments are in other blocks; calibrate with the same options")
            total = self.count + other.count
            ours, theirs = (np.float64(each.count / total) for each in (self, other))
            hessian = np.empty_like(hessian)
            for group in range(len(hessian)):  # a part at a time: they may be as large as memory
                for block in range(hessian.shape[1]):
                    sums = ours * self.hessian[group, block] + theirs * other.hessian[group, block]  # type: ignore[index]
                    hessian[group, block] = sums
        mine, their = self._gradients, other._gradients
        if fisher is not None and other.fisher is not None:
            fisher = ((mine * fisher + their * other.fisher) / (mine + their)).astype(np.float32)
        one = self if self.hessian is not None else other
        sensitivities = dict(self.sensitivities)
        for key, each in other.sensitivities.items():
            sensitivities[key] = sensitivities[key].merged(each) if key in sensitivities else each
        return dataclasses.replace(
            one,
            count=self.count + other.count,
            hessian=hessian if hessian is not None else other.hessian,
            fisher=fisher if fisher is not None else other.fisher,
            sensitivities=sensitivities,
        )

    @property
    def _gradients(self) -> int:
        return max((each.gradients for each in self.sensitivities.values()), default=1)


@dataclass(frozen=True, eq=False, repr=False)
class Statistics:
    """What `corepress.coreml.calibrate` found out; `save` and `load` keep it in a file in safetensors' format.

    Attributes
    ----------
    weights : dict of str to WeightStatistics
        By the weight's name in reports; where several weights have one name, after their function and a colon.
    function_name : str or None
        The function that was run; None if it has no name, or after `merge` of several.
    library : str
        What ran the model, and on which processor: the sums depend on its floating-point arithmetic.
    sample_count : int
        Number of samples, those that were kept for choices included.
    kept : list of dict of str to numpy.ndarray, or of lists of these
        Samples that had no part in the second moments, as every function takes them: every fourth, at most 256 of
        64 MiB in all.
    ranges : dict of str to dict of str to numpy.ndarray
        What is known of activations, by the name of the value.
    notes : tuple of str
        What a user should know.
    """

    weights: Mapping[str, WeightStatistics]
    function_name: str | None = None
    library: str = ""
    sample_count: int = 0
    kept: Sequence[Any] = ()
    ranges: Mapping[str, Mapping[str, NDArray[Any]]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def reached(self) -> tuple[str, ...]:
        """The names of the weights that samples reached and whose second moments are known."""
        return tuple(name for name, each in self.weights.items() if each.hessian is not None)

    @property
    def unreached(self) -> dict[str, str]:
        """The names of the others, and why."""
        return {
            name: each.reason or "no sample reached it" for name, each in self.weights.items() if each.hessian is None
        }

    @property
    def candidates(self) -> tuple[str, ...]:
        """The keys of the candidates for which there are sensitivities."""
        return tuple(dict.fromkeys(key for each in self.weights.values() for key in each.sensitivities))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Save; the file appears only when it is complete."""
        arrays: dict[str, NDArray[Any]] = {}
        weights = {}
        for name, each in self.weights.items():
            for what in ("hessian", "fisher"):
                if (array := getattr(each, what)) is not None:
                    arrays[f"{what}/{name}"] = array
            weights[name] = _description(each)
        for number, sample in enumerate(self.kept):
            for step, inputs in enumerate(sample if isinstance(sample, list) else [sample]):
                arrays |= {f"kept/{number}/{step}/{name}": np.asarray(value) for name, value in inputs.items()}
        for name, found in self.ranges.items():
            arrays |= {f"ranges/{what}/{name}": np.asarray(value) for what, value in found.items()}
        document = {
            "version": _VERSION,
            "function_name": self.function_name,
            "library": self.library,
            "sample_count": self.sample_count,
            "kept": [len(sample) if isinstance(sample, list) else None for sample in self.kept],
            "notes": list(self.notes),
            "weights": weights,
        }
        write_tensors(user_path(path), arrays, {"format": _FORMAT, "statistics": json.dumps(document)})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Statistics:
        """Load what `save` wrote; second moments are read when they are used.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        FormatError
            If it is no such file, or damaged.
        """
        path = user_path(path)
        if not path.exists():
            raise FileNotFoundError(f"{path}: no such file")
        file = TensorFile(path)
        if file.metadata.get("format") != _FORMAT:
            raise FormatError(f"{path}: is a safetensors file, but not one that calibration wrote")
        try:
            document = json.loads(file.metadata["statistics"])
            if document["version"] != _VERSION:
                raise FormatError(f"{path}: is of version {document['version']}, but only {_VERSION} is known")
            return cls(
                weights={name: _weight(name, values, file) for name, values in document["weights"].items()},
                function_name=document["function_name"],
                library=str(document["library"]),
                sample_count=int(document["sample_count"]),
                kept=list(_kept(document["kept"], file)),
                ranges=_ranges(file),
                notes=tuple(map(str, document["notes"])),
            )
        except FormatError:
            raise
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise FormatError(f"{path}: damaged calibration file ({type(error).__name__}: {error})") from error

    def merge(self, other: Statistics) -> Statistics:
        """The statistics of both, as of one run on all of their samples.

        Raises
        ------
        ValueError
            If they are of different models.
        """
        different = [
            name
            for name, each in self.weights.items()
            if name in other.weights and other.weights[name].digest != each.digest
        ]
        if different:
            raise ValueError(f"merge: the statistics are of different models: {_listed(different)} differ")
        if not self.weights.keys() & other.weights.keys():
            raise ValueError("merge: the statistics are of different models: they have no weight in common")
        weights = dict(self.weights)
        for name, each in other.weights.items():
            weights[name] = weights[name].merged(each) if name in weights else each
        same = self.function_name == other.function_name
        return Statistics(
            weights=weights,
            function_name=self.function_name if same else None,
            library=self.library if self.library == other.library else f"{self.library}; {other.library}",
            sample_count=self.sample_count + other.sample_count,
            kept=bounded([*self.kept, *other.kept] if same else self.kept),
            ranges=_merged_ranges(self.ranges, other.ranges) if same else self.ranges,
            notes=tuple(dict.fromkeys((*self.notes, *other.notes))),
        )

    def require_model(self, program: Program | AssetProgram) -> None:
        """Check that these are the statistics of a model.

        Raises
        ------
        ValueError
            If weights of these statistics are missing in it or have other values; the message names them.
        """
        found = self.find(program)
        where = program.path if isinstance(program, AssetProgram) else program.package.root
        missing = [name for name in self.weights if name not in found]
        if missing:
            raise ValueError(
                f"calibration: the statistics are of another model than {where}, which has no weight "
                f"{_listed(missing)}; calibrate that model"
            )
        digests = _digests(program, found)
        different = [name for name, digest in digests.items() if digest != self.weights[name].digest]
        if different:
            raise ValueError(
                f"calibration: the statistics are of another model than {where}: the values of "
                f"{_listed(different)} differ; calibrate that model"
            )

    def find(self, program: Program | AssetProgram) -> dict[str, Any]:
        """The weights of a program that these statistics have, by name, if they have its shape."""
        if isinstance(program, AssetProgram):
            known: dict[str, tuple[Any, tuple[int, ...]]] = {each.name: (each, each.shape) for each in program.weights}
        else:
            keys = weight_keys(visible_weights(program))
            known = {key: (weight, weight.first.shape) for weight, key in keys.items()}
        return {
            key: weight
            for key, (weight, shape) in known.items()
            if key in self.weights and self.weights[key].shape == shape
        }

    def require_package(self, path: str | os.PathLike[str]) -> None:
        """Like `require_model`, for the path of a package or an asset."""
        self.require_model(AssetProgram(path) if is_asset(path) else Program(Package.open(path)))

    def to_dict(self) -> dict[str, Any]:
        """A summary as plain values for JSON, without the arrays."""
        return {
            "function_name": self.function_name,
            "library": self.library,
            "sample_count": self.sample_count,
            "kept": len(self.kept),
            "reached": len(self.reached),
            "notes": list(self.notes),
            "weights": {name: _description(each) for name, each in self.weights.items()},
        }

    def __repr__(self) -> str:
        return (
            f"<Statistics of {self.sample_count} samples: {len(self.reached)} of {len(self.weights)} weights reached>"
        )


def _digests(program: Program | AssetProgram, weights: Mapping[str, Any]) -> dict[str, str]:
    if isinstance(program, AssetProgram):
        return {name: identity_in_assets.stored_digest(weight) for name, weight in weights.items()}
    with ValueReader(program.package) as values:
        return {name: stored_digest(weight, values) for name, weight in weights.items()}


def bounded(samples: Sequence[Any]) -> list[Any]:
    """The first samples that a file may have."""
    found: list[Any] = []
    size = 0
    for sample in samples[:MOST_KEPT]:
        steps = sample if isinstance(sample, list) else [sample]
        size += sum(np.asarray(value).nbytes for inputs in steps for value in inputs.values())
        if size > MOST_KEPT_BYTES:
            break
        found.append(sample)
    return found


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(map(repr, names[:_LISTED])) + more


def _description(each: WeightStatistics) -> dict[str, Any]:
    view = each.view
    return {
        "digest": each.digest,
        "shape": list(each.shape),
        "view": None
        if view is None
        else {
            "row_axes": list(view.row_axes),
            "column_axes": list(view.column_axes),
            "groups": view.groups,
            "group_axis": view.group_axis,
        },
        "count": each.count,
        "reason": each.reason,
        "sensitivities": {
            key: [found.mean, found.standard_error if math.isfinite(found.standard_error) else None, found.gradients]
            for key, found in each.sensitivities.items()
        },
    }


def _weight(name: str, values: dict[str, Any], file: TensorFile) -> WeightStatistics:
    shape = tuple(map(int, values["shape"]))
    view = None if values["view"] is None else MatrixView(shape, **values["view"])
    arrays = {what: file.read(f"{what}/{name}") for what in ("hessian", "fisher") if f"{what}/{name}" in file}
    hessian, fisher = arrays.get("hessian"), arrays.get("fisher")
    if fisher is not None and (fisher.shape != shape or fisher.dtype != np.float32):
        raise FormatError(f"{file.path}: {name}: its fisher is {fisher.dtype} {fisher.shape}, the weight {shape}")
    if hessian is not None:
        good = view is not None and hessian.dtype == np.float32 and hessian.ndim == 4
        groups, blocks, *sides = hessian.shape if hessian.ndim == 4 else (0, 0, 0, 0)
        if not good or view is None or groups != view.groups or sides[0] != sides[1]:
            raise FormatError(f"{file.path}: {name}: its second moments are {hessian.dtype} {hessian.shape}")
        if blocks * sides[0] < view.columns:
            raise FormatError(f"{file.path}: {name}: its second moments are for fewer than {view.columns} columns")
    sensitivities = {
        str(key): Sensitivity(float(mean), math.inf if error is None else float(error), int(count))
        for key, (mean, error, count) in values["sensitivities"].items()
    }
    reason = None if values["reason"] is None else str(values["reason"])
    return WeightStatistics(
        str(values["digest"]), shape, view, int(values["count"]), hessian, fisher, sensitivities, reason
    )


def _kept(lengths: Sequence[int | None], file: TensorFile) -> Iterator[Any]:
    by_step: dict[str, Sample] = {}
    for rest in file.starting_with("kept/"):
        number, step, name = rest.split("/", 2)
        by_step.setdefault(f"{number}/{step}", {})[name] = file.read(f"kept/{rest}")
    for index, length in enumerate(lengths):
        steps = [by_step[f"{index}/{position}"] for position in range(1 if length is None else length)]
        yield steps[0] if length is None else steps


_Ranges = Mapping[str, Mapping[str, NDArray[Any]]]


def _merged_ranges(ours: _Ranges, theirs: _Ranges) -> _Ranges:
    merged = {**theirs, **ours}
    for name in ours.keys() & theirs.keys():
        both = (ActivationRange.from_arrays(each[name], f"the range of {name}") for each in (ours, theirs))
        merged[name] = next(both).merged(next(both)).to_arrays()
    return merged


def _ranges(file: TensorFile) -> dict[str, dict[str, NDArray[Any]]]:
    found: dict[str, dict[str, NDArray[Any]]] = {}
    for rest in file.starting_with("ranges/"):
        what, name = rest.split("/", 1)
        found.setdefault(name, {})[what] = file.read(f"ranges/{rest}")
    return found
