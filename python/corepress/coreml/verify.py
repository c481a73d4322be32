"""Check a compressed package against its source: only compressed weights changed, and they decode correctly."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import Any

from ..arrays import as_threads, same_bits
from ..engine.checking import Wrong, changed_files, compressed_error, same_bytes
from ..engine.distances import Undecodable, same_stored
from ..engine.verification import Verification, VerifiedWeight
from ..errors import FormatError
from ..paths import StrPath
from ..sources import MANIFEST, unchanged
from .decoded import decoded_pairs
from .decompressor import release
from .format.package import Package, place_of
from .format.values import MINIMUM_BLOB_COUNT, ValueReader
from .program import raising_ios17
from .program.added_pairs import take_out_pairs
from .program.program import Definition, Program, Reference
from .program.raising import raise_parts, raised_prefixes
from .program.renames import read_renamed
from .program.skeleton import differences
from .program.storage import steps


@unchanged("src", "compressed")
def verify(
    src: StrPath, compressed: StrPath, *, min_snr_db: float | None = None, num_threads: int | None = None
) -> Verification:
    """Check a compressed package against its source.

    The program must be the same except for constants and their names, which coremltools changes, and for pairs of
    `quantize` and `dequantize` with the same scale and zero point, or the source's program raised to iOS 16, or to
    iOS 17; constants must be bit for bit those of the source, or decode to finite values
    of their type and shape; every record of the weight files must be valid; and all other files must be the same.

    Parameters
    ----------
    src, compressed : path-like
        The package that was compressed, and the result.
    min_snr_db : float, optional
        A compressed constant whose signal-to-noise ratio is lower is wrong.
    num_threads : int, optional
        Threads to use; None for all CPUs this process may use, or `COREPRESS_NUM_THREADS`.

    Returns
    -------
    Verification
        Whether it is `ok`, what is wrong, and one record per constant.

    Raises
    ------
    FormatError, ValueError
        If the source is damaged or not an ML program. Problems of the other package are returned.
    """
    num_threads = as_threads("verify", num_threads)
    started = time.perf_counter()
    source = Package.open(src)
    program = Program(source)
    problems: list[str] = []
    weights: tuple[VerifiedWeight, ...] = ()
    size = 0
    try:
        package = Package.open(compressed)
        size = package.size
        result = read_renamed(package, program)
    except ValueError as error:  # damaged, or no ML program
        problems.append(str(error))
    else:
        for prefixes, raise_them in (
            (raised_prefixes(program, result), raise_parts),
            (raising_ios17.raised_prefixes(program, result), raising_ios17.raise_parts),
        ):
            if prefixes:
                raise_them(program, prefixes)
                program = Program(source, program.model)
                result = read_renamed(package, program)
        pairs, wrong = take_out_pairs(program.model, result.model)
        problems += wrong
        if pairs:
            result = Program(package, result.model)
        problems += other_files(source, _rewritten(source, program), package, _rewritten(package, result))
        problems += differences(program.model, result.model)
        with ValueReader(source) as values, ValueReader(package) as others:
            problems += _damaged_files(result, others)
            check = _Check(values, others, min_snr_db, num_threads)
            problems += check.blobs_of_operations(program, result)
            weights, lost = check.constants(program, result)
            problems += lost
    return Verification(
        source=os.fspath(src),
        compressed=os.fspath(compressed),
        weights=weights,
        problems=tuple(dict.fromkeys(problems)),
        bytes_before=source.size,
        bytes_after=size,
        seconds=time.perf_counter() - started,
    )


def _rewritten(package: Package, program: Program) -> set[Path]:
    """The files of a package that compressing writes."""
    return {package.model_path, *program.file_names.values()}


def other_files(source: Package, rewritten: set[Path], package: Package, others: set[Path]) -> Iterator[str]:
    """Differences between the files of two packages, except those that were rewritten."""
    ours = _files(source, rewritten)
    theirs = _files(package, others)
    yield from changed_files(ours, theirs, _same)


def _same(name: str, first: Path, second: Path) -> bool:
    if name == MANIFEST:
        # Merely opening a package in coremltools formats its manifest anew.
        return bool(json.loads(first.read_bytes()) == json.loads(second.read_bytes()))
    return same_bytes(name, first, second)


def _files(package: Package, rewritten: set[Path]) -> dict[str, Path]:
    paths = (path for path in package.root.rglob("*") if path.is_file())
    others = (path for path in paths if place_of(path, package.root) not in rewritten)
    return {path.relative_to(package.root).as_posix(): path for path in others}


def _damaged_files(program: Program, values: ValueReader) -> list[str]:
    offsets: dict[Path, set[int]] = {path: set() for path in sorted(set(program.file_names.values()))}
    for reference in program.references:
        offsets[reference.key.file].add(reference.key.offset)
    found = (_damage(path, offsets[path], values) for path in offsets)
    return [problem for problem in found if problem is not None]


def _damage(path: Path, offsets: set[int], values: ValueReader) -> str | None:
    try:
        reader = values.file(path)
        found = len(reader.records(offsets))
    except FormatError as error:
        return str(error)
    if reader.count > found:
        return f"{path}: the header counts {reader.count} blobs, but the file has {found}"
    return None


class _Check:
    def __init__(
        self, values: ValueReader, others: ValueReader, min_snr_db: float | None, num_threads: int | None
    ) -> None:
        self._values, self._others = values, others
        self._min_snr_db, self._num_threads = min_snr_db, num_threads
        self._known: dict[Any, tuple[str, str | None, float | None, float | None]] = {}

    def blobs_of_operations(self, program: Program, result: Program) -> Iterator[str]:
        """Blobs that belong to no constant must be the same; `differences` has found them to correspond."""
        ours, theirs = ([each for each in which.references if each.owner is None] for which in (program, result))
        for reference, other in zip(ours, theirs, strict=False):
            problem = self._difference(reference, other)
            if problem is not None:
                yield problem

    def _difference(self, reference: Reference, other: Reference) -> str | None:
        try:
            file, record = self._values.record(reference.value)
            other_file, other_record = self._others.record(other.value)

            def forget() -> None:
                file.release(record)
                other_file.release(other_record)

            alike = record.data_type == other_record.data_type
            if alike and same_stored(file.array(record), other_file.array(other_record), forget):
                return None
        except FormatError as error:
            return str(error)
        return f"the data of {reference.parameter}, which belongs to no constant, changed"

    def constants(self, program: Program, result: Program) -> tuple[tuple[VerifiedWeight, ...], list[str]]:
        """Compare each constant that is used outside of constants; also report added and missing ones."""
        ours, theirs = _outward(program), _outward(result)
        lost = [f"constant {ours[key].name} is missing" for key in ours if key not in theirs]
        lost += [f"constant {theirs[key].name} was added" for key in theirs if key not in ours]
        weights = [self._constant(ours[key], theirs[key]) for key in ours if key in theirs]
        return tuple(weight for weight in weights if weight is not None), lost

    def _constant(self, definition: Definition, other: Definition) -> VerifiedWeight | None:
        key = (definition.original, other.original)
        first_met = key not in self._known
        if first_met:
            self._known[key] = self._compare(definition, other)
        status, problem, snr_db, cosine = self._known[key]
        small = prod(definition.shape) < MINIMUM_BLOB_COUNT or not definition.data_type.nbits
        if problem is None and (small or not first_met):
            return None
        return VerifiedWeight(
            name=definition.name,
            function=definition.function,
            shape=definition.shape,
            dtype=definition.data_type.name,
            status=status,
            problem=problem,
            snr_db=snr_db,
            cosine=cosine,
        )

    def _compare(self, definition: Definition, other: Definition) -> tuple[str, str | None, float | None, float | None]:
        snr_db = cosine = None
        status: str = "wrong"
        problem: str | None = None
        try:
            if (definition.data_type, definition.shape) != (other.data_type, other.shape):
                was, now = (f"{each.data_type.name} {each.shape}" for each in (definition, other))
                raise Wrong(f"was {was}, but is {now}")
            if self._is_stored_alike(definition, other):
                status = "identical"
            else:
                status, snr_db, cosine = self._decode(definition, other)
            for each, values in ((definition, self._values), (other, self._others)):
                release(each, values)
        except (Wrong, FormatError, Undecodable) as error:
            problem = str(error)
        return status, problem, snr_db, cosine

    def _is_stored_alike(self, definition: Definition, other: Definition) -> bool:
        def forget() -> None:
            release(definition, self._values)
            release(other, self._others)

        ours, theirs = list(steps(definition)), list(steps(other))
        if len(ours) != len(theirs):
            return False
        for step, same in zip(ours, theirs, strict=True):
            parameters, others = step.parameters, same.parameters
            if step.operation.type != same.operation.type or parameters.keys() != others.keys():
                return False
            wiring = [
                {name: (chain.index(operand.definition), operand.output) for name, operand in each.operands.items()}
                for chain, each in ((ours, step), (theirs, same))
            ]
            if wiring[0] != wiring[1]:
                return False
            for name, value in parameters.items():
                first = self._values.read(value, f"{step.where}: {name}")
                second = self._others.read(others[name], f"{same.where}: {name}")
                alike = (first.data_type, first.shape) == (second.data_type, second.shape)
                if not alike or not same_stored(first.data, second.data, forget):
                    return False
        return True

    def _decode(self, definition: Definition, other: Definition) -> tuple[str, float | None, float | None]:
        pairs = decoded_pairs((definition, self._values), (other, self._others), self._num_threads)
        if other.operation.type == "const":
            if not all(same_bits(*pair) for pair in pairs):
                raise Wrong("its values changed, although it is not compressed")
            return "decompressed", None, None
        error = compressed_error(pairs, self._min_snr_db, self._num_threads)
        return "compressed", error.snr_db, error.cosine


def _outward(program: Program) -> dict[tuple[str, str], Definition]:
    """The constants that are used outside of constants, by place and name."""
    return {
        (each.place, each.name): each
        for each in program.definitions
        if each.consumers or each.feeds_output or not each.feeds_definition
    }
