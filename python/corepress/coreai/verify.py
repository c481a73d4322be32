"""Check a compressed asset against its source: only compressed weights changed, and they decode correctly."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

from ..arrays import as_threads, same_bits
from ..engine.checking import Wrong, changed_files, compressed_error
from ..engine.distances import Undecodable
from ..engine.verification import Verification, VerifiedWeight
from ..errors import FormatError
from ..paths import StrPath
from ..sources import unchanged
from ..tensors.base import decoded_pieces
from .decoded import stored_form
from .format.asset import HASH, PROGRAM, Asset
from .operations import Constant, Node
from .program.program import Program
from .program.skeleton import differences
from .program.weights import Weight

_REWRITTEN = {PROGRAM, HASH}


@unchanged("src", "compressed")
def verify(
    src: StrPath, compressed: StrPath, *, min_snr_db: float | None = None, num_threads: int | None = None
) -> Verification:
    """Check a compressed asset against its source.

    The program must be the same except for what stores its weights; weights must be bit for bit those of the source, or
    decode to finite values of their type and shape; all data must have the bytes that its type asks for; and all other
    files must be the same, the program's hash that of the program.

    Parameters
    ----------
    src, compressed : path-like
        The asset that was compressed, and the result.
    min_snr_db : float, optional
        A compressed weight whose signal-to-noise ratio is lower is wrong.
    num_threads : int, optional
        Threads to use; None for all CPUs this process may use, or `COREPRESS_NUM_THREADS`.

    Returns
    -------
    Verification
        Whether it is `ok`, what is wrong, and one record per weight.

    Raises
    ------
    FormatError
        If the source is damaged. Problems of the other asset are returned.
    MissingExtraError
        If coreai-core is not installed.
    """
    num_threads = as_threads("verify", num_threads)
    started = time.perf_counter()
    source = Asset.open(src)
    program = Program(source)
    problems: list[str] = []
    weights: tuple[VerifiedWeight, ...] = ()
    size = 0
    try:
        asset = Asset.open(compressed)
        size = asset.size
        result = Program(asset)
    except ValueError as error:  # damaged
        problems.append(str(error))
    else:
        problems += other_files(source, asset)
        weights, lost = _weights(program, result, min_snr_db, num_threads)
        problems += lost
        if not lost:
            problems += differences(program, result)
    return Verification(
        source=os.fspath(src),
        compressed=os.fspath(compressed),
        weights=weights,
        problems=tuple(dict.fromkeys(problems)),
        bytes_before=source.size,
        bytes_after=size,
        seconds=time.perf_counter() - started,
    )


def other_files(source: Asset, asset: Asset) -> Iterator[str]:
    """Differences between the files of two assets, except for the program, and a hash that is not the program's."""
    yield from changed_files(_files(source), _files(asset))
    if not asset.has_right_hash:
        yield f"file {HASH} is not the hash of {PROGRAM}"


def _files(asset: Asset) -> dict[str, Path]:
    paths = {path.relative_to(asset.root).as_posix(): path for path in asset.root.rglob("*") if path.is_file()}
    return {name: path for name, path in paths.items() if name not in _REWRITTEN}


def _weights(
    program: Program, result: Program, min_snr_db: float | None, num_threads: int | None
) -> tuple[tuple[VerifiedWeight, ...], list[str]]:
    """Compare each weight; also report those that were added or are missing."""
    ours, theirs = ({weight.name: weight for weight in each.weights} for each in (program, result))
    lost = [f"weight {name} is missing" for name in ours if name not in theirs]
    lost += [f"weight {name} was added" for name in theirs if name not in ours]
    found = []
    for name, weight in ours.items():
        if name in theirs:
            found.append(_verified(weight, theirs[name], min_snr_db, num_threads))
    return tuple(found), lost


def _verified(weight: Weight, other: Weight, min_snr_db: float | None, num_threads: int | None) -> VerifiedWeight:
    status, problem, snr_db, cosine = "wrong", None, None, None
    try:
        if (weight.dtype, weight.shape) != (other.dtype, other.shape):
            raise Wrong(f"was {weight.dtype} {weight.shape}, but is {other.dtype} {other.shape}")
        if len(weight.places) != len(other.places):
            raise Wrong(f"was at {len(weight.places)} places of the program, but is at {len(other.places)}")
        if same_stored(weight.node, other.node):
            status = "identical"
        else:
            status, snr_db, cosine = _decode(weight, other, min_snr_db, num_threads)
    except (Wrong, FormatError, Undecodable) as error:
        problem = str(error)
    finally:
        weight.release()
        other.release()
    return VerifiedWeight(
        name=weight.name,
        function=weight.function,
        shape=weight.shape,
        dtype=weight.dtype,
        status=status,
        problem=problem,
        snr_db=snr_db,
        cosine=cosine,
    )


def same_stored(first: Node, second: Node) -> bool:
    """Whether two chains store the same: equal operations on equal bytes."""
    if isinstance(first, Constant) or isinstance(second, Constant):
        if not (isinstance(first, Constant) and isinstance(second, Constant)):
            return False
        alike = (first.type, first.shape, first.is_splat) == (second.type, second.shape, second.is_splat)
        return alike and same_bits(first.data, second.data)
    alike = (first.operation, first.type, first.shape) == (second.operation, second.type, second.shape)
    return (
        alike and len(first.operands) == len(second.operands) and all(map(same_stored, first.operands, second.operands))
    )


def _decode(
    weight: Weight, other: Weight, min_snr_db: float | None, num_threads: int | None
) -> tuple[str, float | None, float | None]:
    """Status, signal-to-noise ratio and cosine of a weight that is stored in another form."""
    pairs = decoded_pieces((stored_form(weight), stored_form(other)), num_threads)
    if not other.is_compressed:
        if not weight.is_compressed or not all(same_bits(*pair) for pair in pairs):
            raise Wrong("its values changed, although it is not compressed")
        return "decompressed", None, None
    error = compressed_error(pairs, min_snr_db, num_threads)
    return "compressed", error.snr_db, error.cosine
