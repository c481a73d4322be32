"""What is measured: one row per job, with the tools it is compared to and the ratios to reach.

The ratios are a promise about this project; the table of `table.py`, `pytest bench` and the tests in continuous
integration all read them, and the checks of the answers, from here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

import corepress as cp
import kmeans_peers
import peers
from corepress import reference
from corepress.benchmark import coremltools_jobs
from corepress.benchmark.timing import Job
from corepress.neural_network.modes import Quantization
from corepress.neural_network.weight_params import EncodedWeight
from corepress.specs import in_bits
from corepress.tensors import packed_size
from weights import weight

Array = NDArray[Any]
GROUPS_OF_16 = {"granularity": "per_grouped_channel", "group_size": 16}
GROUPS_OF_8 = {"granularity": "per_grouped_channel", "group_size": 8}
INT4_BLOCKS = {"dtype": "int4", "granularity": "per_block", "block_size": 32}
MXFP4_BLOCKS = {**INT4_BLOCKS, "dtype": "float4_e2m1fn", "scale_dtype": "float8_e8m0fnu"}


@dataclass(frozen=True)
class Peer:
    """Another tool for a row's job: how many times its speed ours must be, and should be.

    `decode` makes the dense array of its result, so that the errors can be compared.
    """

    tool: str
    job: Callable[[Any], Job]
    required: float | None = None
    aim: float | None = None
    decode: Callable[[Any], Array] | None = None


@dataclass(frozen=True)
class Row:
    """One job.

    Attributes
    ----------
    make : callable
        Given whether small data will do, returns the input.
    run : callable
        Given the input and a number of threads, does the job.
    check : callable
        Given the input and the result, raises if the result is wrong.
    copied : callable
        Given the input, the array of which a copy stands beside the job; its size counts as the number of weights.
    copies_required, copies_aim : float, optional
        How many times the time of that copy the job may take, and should.
    optional : bool
        Whether the row is left out where a package or a feature that it needs is missing.
    """

    name: str
    make: Callable[[bool], Any]
    run: Callable[[Any, int | None], Any]
    check: Callable[[Any, Any], None]
    peers: tuple[Peer, ...] = ()
    copied: Callable[[Any], Array] = lambda data: data
    copies_required: float | None = None
    copies_aim: float | None = None
    optional: bool = False


def unsupported(row: Row) -> str | None:
    """Why an optional row cannot be done here, or None."""
    if not row.optional:
        return None
    try:
        row.run(row.make(True), 1)
    except (ImportError, TypeError, ValueError) as error:
        return f"{type(error).__name__}: {error}"
    return None


def _expect(holds: bool, what: str) -> None:
    if not holds:
        raise AssertionError(f"wrong answer: {what}")


def _snr_above(least: float) -> Callable[[Array, cp.CompressedTensor], None]:
    """A signal-to-noise ratio in decibel that a correct result on these weights cannot miss."""

    def check(data: Array, result: cp.CompressedTensor) -> None:
        snr = cp.error(data, result).snr_db
        _expect(snr > least, f"signal-to-noise ratio {snr:.1f} dB, not above {least}")

    return check


def _same_as(job: Callable[[Array], Job]) -> Callable[[Array, cp.SparseTensor], None]:
    """The mask and the values that NumPy gives."""

    def check(data: Array, result: cp.SparseTensor) -> None:
        mask, values = job(data)()
        _expect(np.array_equal(mask, result.mask), "other weights are kept than NumPy keeps")
        _expect(np.array_equal(values, result.values), "other values are kept than NumPy keeps")

    return check


# --- compressing ---

PALETTE_SNR = {1: 3, 2: 7, 3: 12, 4: 17, 6: 29, 8: 40}


def _palettize(nbits: int, name: str = "convolution", dtype: str = "float16", **options: Any) -> dict[str, Any]:
    return {
        "make": lambda quick: weight(name, dtype, quick),
        "run": lambda data, threads: cp.palettize(data, nbits=nbits, num_threads=threads, **options),
        "check": _snr_above(PALETTE_SNR[nbits]),
    }


def _coremltools_palettize(nbits: int, group_size: int, required: float, aim: float) -> tuple[Peer]:
    return (
        Peer(
            "coremltools",
            lambda data: coremltools_jobs.palettize(data, nbits, group_size),
            required,
            aim,
            coremltools_jobs.palette_decoded,
        ),
    )


def _other_kmeans(nbits: int) -> tuple[Peer, ...]:
    """Other solvers of the whole problem, of which only the second finds the optimum of the values as they are."""
    decoded = kmeans_peers.coreai_decoded
    return (
        Peer("coreai-opt", lambda data: kmeans_peers.coreai_palettize(data, nbits), decode=decoded),
        Peer("coreai-opt, exact", lambda data: kmeans_peers.coreai_palettize(data, nbits, exact=True), decode=decoded),
        Peer(
            "flash1dkmeans",
            lambda data: kmeans_peers.flash1d_palettize(data, nbits),
            decode=kmeans_peers.flash1d_decoded,
        ),
    )


PALETTES = (
    *(
        Row(
            f"palettize {in_bits(nbits)}",
            **_palettize(nbits),
            peers=(
                *_coremltools_palettize(nbits, 0, 100 if nbits == 8 else 200, 300),
                *(_other_kmeans(nbits) if nbits in (4, 6, 8) else ()),
            ),
        )
        for nbits in PALETTE_SNR
    ),
    Row(
        "palettize 4 bits, groups of 16", **_palettize(4, **GROUPS_OF_16), peers=_coremltools_palettize(4, 16, 60, 150)
    ),
    Row(
        "palettize 4 bits, groups of 8 of a matrix",
        **_palettize(4, "linear", **GROUPS_OF_8),
        peers=_coremltools_palettize(4, 8, 100, 300),
    ),
    Row("palettize 8 bits, groups of 16", **_palettize(8, **GROUPS_OF_16)),
    *(
        Row(
            f"palettize 4 bits, {dtype}",
            **_palettize(4, dtype=dtype),
            peers=_coremltools_palettize(4, 0, 60, 150),
            optional=dtype == "bfloat16",
        )
        for dtype in ("float32", "bfloat16")
    ),
)


def _vector_palette(nbits: int, cluster_dim: int) -> Row:
    def peer(tool: str, job: Callable[[Array, int, int], Job], required: float, aim: float) -> Peer:
        def prepare(data: Array) -> Job:
            inner = job(data, nbits, cluster_dim)
            return lambda: kmeans_peers.from_vectors(inner(), data.shape)

        return Peer(tool, prepare, required, aim, decode=np.asarray)

    return Row(
        f"palettize {in_bits(nbits)}, cluster_dim {cluster_dim}",
        lambda quick: weight("attention", "float16", quick),
        lambda data, threads: cp.palettize(data, nbits=nbits, cluster_dim=cluster_dim, num_threads=threads),
        _snr_above(0.9 * PALETTE_SNR[nbits] / cluster_dim),
        (
            peer("scikit-learn", kmeans_peers.sklearn_kmeans, 20, 50),
            peer("faiss", kmeans_peers.faiss_kmeans, 2, 4),
        ),
    )


VECTOR_PALETTES = tuple(_vector_palette(nbits, dim) for dim in (2, 4) for nbits in (4, 6, 8))


def _quantize(name: str, least_snr: float, weight_dtype: str = "float16", **options: Any) -> dict[str, Any]:
    return {
        "make": lambda quick: weight(name, weight_dtype, quick),
        "run": lambda data, threads: cp.quantize(data, num_threads=threads, **options),
        "check": _snr_above(least_snr),
    }


def _coremltools_quantize(nbits: int, block_size: int, required: float, aim: float | None = None) -> Peer:
    return Peer(
        "coremltools",
        lambda data: coremltools_jobs.quantize(data, nbits, block_size),
        required,
        aim,
        coremltools_jobs.quantized_decoded,
    )


INT4_PEERS = (
    _coremltools_quantize(4, 32, 60),
    Peer("MLX", peers.mlx_quantize, 8),
    Peer("torchao", lambda data: peers.torchao_quantize(data, 4, 32)),
    Peer("gguf", peers.gguf_quantize),
    Peer("ggml", peers.ggml_quantize),
)
QUANTIZED = (
    Row(
        "int8 per channel",
        **_quantize("convolution", 30),
        peers=(_coremltools_quantize(8, 0, 100), Peer("torchao", peers.torchao_quantize)),
        copies_required=2,
        copies_aim=1.3,
    ),
    Row("int8 per channel, linear mode", **_quantize("convolution", 30, mode="linear")),
    Row("int8 along the last axis", **_quantize("convolution", 20, channel_axis=-1)),
    Row("int8 per channel, float32", **_quantize("convolution", 30, "float32")),
    Row(
        "int4 blocks of 32, linear layer",
        **_quantize("linear", 15, **INT4_BLOCKS),
        peers=INT4_PEERS,
        copies_aim=1.5,
    ),
    Row(
        "int4 blocks of 32, convolution",
        **_quantize("convolution", 15, **INT4_BLOCKS),
        peers=INT4_PEERS[:1],
        copies_aim=1.5,
    ),
    Row("int4 blocks of 32, searched", **_quantize("linear", 17, scale_search="mse", **INT4_BLOCKS)),
    Row(
        "float8_e4m3fn per channel",
        **_quantize("convolution", 29, dtype="float8_e4m3fn"),
        peers=(Peer("ml_dtypes", lambda data: peers.ml_dtypes_quantize(data, "float8_e4m3fn"), 10),),
    ),
    Row(
        "float4_e2m1fn blocks of 32, powers of two, linear layer",
        **_quantize("linear", 15, **MXFP4_BLOCKS),
        peers=(Peer("ml_dtypes", lambda data: peers.ml_dtypes_quantize(data, "float4_e2m1fn", 32), 8),),
    ),
    Row("float8_e4m3fn per channel, searched", **_quantize("linear", 29, dtype="float8_e4m3fn", scale_search="mse")),
    Row("int4 blocks of 16, linear layer", **_quantize("linear", 15, **{**INT4_BLOCKS, "block_size": 16})),
)


def _prune(
    name: str,
    theirs: Callable[[Array], Job],
    *more: Peer,
    of: str = "convolution",
    required: float | None = 60,
    **options: Any,
) -> Row:
    return Row(
        f"prune {name}",
        lambda quick: weight(of, "float16", quick),
        lambda data, threads: cp.prune(data, num_threads=threads, **options),
        _same_as(theirs),
        (Peer("NumPy", theirs, required), *more),
        copies_aim=2,
    )


def _coremltools_prune(target_sparsity: float) -> Peer:
    """NumPy as well, and correct since NumPy 2.4: its float16 percentiles overflowed before."""
    return Peer("coremltools", lambda data: coremltools_jobs.prune(data, target_sparsity), 60)


COREMLTOOLS_2_OF_4 = Peer("coremltools", lambda data: coremltools_jobs.prune_n_m(data, 2, 4))
PRUNED = (
    _prune("half", lambda data: peers.numpy_prune_magnitude(data, 0.5), _coremltools_prune(0.5), target_sparsity=0.5),
    _prune(
        "three quarters",
        lambda data: peers.numpy_prune_magnitude(data, 0.75),
        _coremltools_prune(0.75),
        target_sparsity=0.75,
    ),
    _prune("by threshold", lambda data: peers.numpy_prune_threshold(data, 0.015), threshold=float(np.float32(0.015))),
    _prune("2 of 4", lambda data: peers.numpy_prune_n_m(data, 2, 4), COREMLTOOLS_2_OF_4, n_m_ratio=(2, 4)),
    _prune("2 of 4, linear layer", lambda data: peers.numpy_prune_n_m(data, 2, 4), of="linear", n_m_ratio=(2, 4)),
    _prune(
        "blocks of 4",
        lambda data: peers.numpy_prune_blocks(data, 0.5, 4),
        required=None,
        target_sparsity=0.5,
        block_size=4,
    ),
)

# --- k-means of numbers, for tools with formats of their own ---


@cache
def _numbers(quick: bool) -> Array:
    return np.random.default_rng(0).standard_normal(2_000 if quick else 100_000)


def _check_clusters(data: Array, result: cp.kernels.Clusters) -> None:
    exact = float(np.square(data - result.centroids[result.codes]).sum())
    _expect(math.isclose(result.inertia, exact, rel_tol=1e-9), f"inertia {result.inertia}, not {exact}")


KMEANS = tuple(
    Row(
        f"k-means of 100,000 numbers, {k} clusters",
        _numbers,
        lambda data, threads, k=k: cp.kernels.kmeans1d(data, k, num_threads=threads),
        _check_clusters,
        (
            Peer("kmeans1d", lambda data, k=k: kmeans_peers.kmeans1d_cluster(data, k)),
            Peer("flash1dkmeans", lambda data, k=k: kmeans_peers.flash1d_cluster(data, k)),
            Peer("scikit-learn", lambda data, k=k: kmeans_peers.sklearn_kmeans(data[:, None], k.bit_length() - 1)),
        ),
    )
    for k in (16, 256)
)

# --- bits ---


@cache
def _codes(nbits: int, quick: bool) -> Array:
    count = 1_000_003 if quick else 14_745_600
    return np.random.default_rng(0).integers(0, 2**nbits, count, np.uint8)


@dataclass(frozen=True)
class Bits:
    """Codes, and room to pack and to unpack them."""

    nbits: int
    codes: Array
    packed: Array
    unpacked: Array


def _bits(nbits: int, quick: bool) -> Bits:
    codes = _codes(nbits, quick)
    packed = cp.kernels.pack_bits(codes, nbits)
    return Bits(nbits, codes, packed, np.empty_like(codes))


def _check_packed(data: Bits, result: Array) -> None:
    spread = np.unpackbits(data.codes[:100_000, None], axis=1, count=data.nbits, bitorder="little")
    expected = np.packbits(spread, bitorder="little")
    _expect(np.array_equal(result[: expected.size], expected), "other bits than NumPy packs")
    _expect(result.size == packed_size(data.codes.size, data.nbits), f"{result.size} bytes")


def _check_unpacked(data: Bits, result: Array) -> None:
    _expect(np.array_equal(result, data.codes), "other codes than were packed")


PACKED = tuple(
    row
    for nbits in (1, 2, 3, 4, 6)
    for row in (
        Row(
            f"pack {in_bits(nbits)}",
            lambda quick, nbits=nbits: _bits(nbits, quick),
            lambda data, threads: cp.kernels.pack_bits(data.codes, data.nbits, data.packed),
            _check_packed,
            (Peer("coremltools", lambda data: peers.coremltools_pack(data.codes, data.nbits), 30),),
            lambda data: data.codes,
            copies_aim=1,
        ),
        Row(
            f"unpack {in_bits(nbits)}",
            lambda quick, nbits=nbits: _bits(nbits, quick),
            lambda data, threads: cp.kernels.unpack_bits(data.packed, data.nbits, data.codes.size, data.unpacked),
            _check_unpacked,
            (
                Peer(
                    "coremltools",
                    lambda data: peers.coremltools_unpack(data.packed, data.nbits, data.codes.size),
                    30,
                ),
            ),
            lambda data: data.codes,
            copies_aim=1,
        ),
    )
)

# --- decompressing, and what a compressed weight costs ---


@dataclass(frozen=True)
class Dense:
    """A compressed weight, and room to decompress it."""

    tensor: cp.CompressedTensor
    weight: Array
    out: Array


@cache
def _dense(source: Row, quick: bool) -> Dense:
    data = source.make(quick)
    return Dense(source.run(data, None), data, np.empty_like(data))


def _check_dense(data: Dense, result: Array) -> None:
    same = math.isclose(cp.error(data.weight, result).sse, cp.error(data.weight, data.tensor).sse, rel_tol=1e-12)
    _expect(same, "another error than reported")
    _expect(np.array_equal(result, data.tensor.dense(num_threads=1)), "another array than one thread gives")


def _decompress(source: Row) -> Row:
    return Row(
        f"decompress {source.name}",
        lambda quick: _dense(source, quick),
        lambda data, threads: data.tensor.dense(data.out, num_threads=threads),
        _check_dense,
        copied=lambda data: data.weight,
        copies_required=2,
        copies_aim=1,
        optional=source.optional,
    )


@cache
def _pair(quick: bool) -> tuple[Array, Array]:
    first = weight("convolution", "float16", quick)
    return first, first[::-1].copy()


def _check_error(data: tuple[Array, Array], result: cp.Error) -> None:
    exact = float(peers.numpy_squared_error(*data)())
    _expect(abs(result.sse - exact) <= 1e-12 * exact, f"squared error {result.sse}, not {exact}")


# --- weights of neural networks ---


def _check_steps(data: Array, result: EncodedWeight) -> None:
    channel, scale, bias = data[3], result.scales[3], result.biases[3]
    _expect((scale, bias) == reference.choose_even_steps(channel, 8, symmetric=False), "another scale or bias")
    codes = reference.encode_even_steps(channel, scale, bias, 8, symmetric=False)
    _expect(np.array_equal(result.codes[3], codes), "codes that are not the nearest")
    _expect(result.error(data).snr_db > 30, f"{result.error(data).snr_db:.1f} dB")


NETWORK_STEPS = Row(
    "network weight, 8 bits linear",
    lambda quick: weight("convolution", "float32", quick),
    lambda data, threads: Quantization(8, "linear").encode(data, 0, threads),
    _check_steps,
    (Peer("coremltools", lambda data: peers.coremltools_network_steps(data, 8), 2, 5),),
    copies_aim=1.5,
)

ERROR = Row(
    "error of another array",
    _pair,
    lambda data, threads: cp.error(*data, num_threads=threads),
    _check_error,
    (Peer("NumPy", lambda data: peers.numpy_squared_error(*data)),),
    lambda data: data[0],
)

COMPRESSED = (*PALETTES, *VECTOR_PALETTES, *QUANTIZED, *PRUNED)
ROWS: dict[str, Row] = {
    row.name: row
    for row in (*COMPRESSED, *KMEANS, *PACKED, *(_decompress(source) for source in COMPRESSED), NETWORK_STEPS, ERROR)
}
