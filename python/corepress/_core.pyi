"""The native kernels. Arrays are C-contiguous; layouts are those of `corepress.arrays`."""

from collections.abc import Sequence
from typing import Any

from numpy import float32, float64, int32, int64, uint8, uint16
from numpy.typing import NDArray

__version__: str
compiler: str

Bytes = NDArray[uint8]
Layout = tuple[int, int, int]
BlockLayout = tuple[tuple[int, int], ...]
# Squared error, squared first, squared second, product, largest absolute error.
ErrorSums = tuple[float, float, float, float, float]
Noise = tuple[float, float]  # the first two; None where they would take another pass

def simd_levels() -> list[str]:
    """Return the instruction-set levels that this machine can run, best last.

    Returns
    -------
    list of str
        ``"baseline"``, and on x86-64 machines that have them ``"avx2"`` and ``"avx512"``.
    """

def simd_level() -> str:
    """Return the instruction-set level in use: the best one, or that of ``COREPRESS_SIMD``.

    Returns
    -------
    str
        One of `corepress.simd_levels`.
    """

def set_simd_level(level: str) -> None: ...
def default_threads() -> int: ...
def cpu_quota(root: str = "") -> int:
    """CPUs that the control groups of this process allow, rounded up; 0 without a limit.

    Parameters
    ----------
    root : str
        Folder that stands for ``/``, in tests.
    """

class StopSource:
    """Ends the native calls of threads that have entered it, when any thread tells it to."""

    def __enter__(self) -> StopSource: ...
    def __exit__(self, *arguments: object) -> None: ...
    def stop(self) -> None:
        """End the calls under way, and those to come, with KeyboardInterrupt."""

def check_stop() -> None:
    """Raise KeyboardInterrupt if this thread has entered a source that was told to stop."""

def pack_bits(
    codes: Bytes, nbits: int, is_signed: bool, big: bool, out: Bytes, num_threads: int | None = None
) -> bool: ...
def unpack_bits(
    data: Bytes, nbits: int, is_signed: bool, big: bool, count: int, out: Bytes, num_threads: int | None = None
) -> None: ...
def count_bits(mask: Bytes, count: int) -> int: ...
def palettize(
    weights: list[NDArray[Any]],
    layouts: list[Layout],
    nbits: int,
    mode: str,
    luts: list[NDArray[Any] | None],
    importances: list[NDArray[float32] | None],
    infinities: bool = False,
    num_threads: int | None = None,
) -> list[tuple[NDArray[Any], Bytes, Noise | None] | None]: ...
def sum_palette_errors(
    weight: NDArray[Any],
    indices: Bytes,
    layout: Layout,
    nbits: int,
    lut: NDArray[Any],
    num_threads: int | None = None,
) -> ErrorSums: ...
def distinct_values(
    weight: NDArray[Any], layout: Layout, most: int, num_threads: int | None = None
) -> list[NDArray[Any] | None]: ...
def palettize_vectors(
    weights: list[NDArray[Any]],
    layouts: list[Layout],
    inners: list[int],
    length: int,
    nbits: int,
    importance: Sequence[tuple[NDArray[float32], float] | None],
    num_threads: int | None = None,
) -> list[tuple[NDArray[Any], Bytes]]: ...
def depalettize_vectors(
    indices: Bytes,
    layout: BlockLayout,
    inner: int,
    length: int,
    nbits: int,
    lut: NDArray[Any],
    out: NDArray[Any],
    num_threads: int | None = None,
) -> None: ...
def sum_vector_errors(
    weight: NDArray[Any],
    indices: Bytes,
    layout: BlockLayout,
    inner: int,
    length: int,
    nbits: int,
    lut: NDArray[Any],
    num_threads: int | None = None,
) -> ErrorSums: ...
def kmeans(
    vectors: NDArray[Any], k: int, weights: NDArray[float32] | None, num_threads: int | None = None
) -> tuple[NDArray[int32], NDArray[float32], float]: ...
def kmeans1d(
    values: NDArray[float64], weights: NDArray[float64] | None, ks: list[int], num_threads: int | None = None
) -> list[tuple[NDArray[int32], NDArray[float64], NDArray[float64]]]: ...
def quantize(
    weights: list[NDArray[Any]],
    layouts: list[BlockLayout],
    dtype: str,
    symmetric: bool,
    search_scale: bool,
    binary_scales: bool,
    importances: list[NDArray[float32] | None],
    measured: bool = False,
    num_threads: int | None = None,
) -> list[tuple[Bytes, NDArray[Any], Bytes, Noise | None] | None]: ...
def dequantize(
    data: Bytes,
    layout: BlockLayout,
    dtype: str,
    scale: NDArray[Any],
    zero_point: Bytes | None,
    out: NDArray[Any],
    num_threads: int | None = None,
) -> None: ...
def sum_quantized_errors(
    weight: NDArray[Any],
    data: Bytes,
    layout: BlockLayout,
    dtype: str,
    scale: NDArray[Any],
    zero_point: Bytes | None,
    num_threads: int | None = None,
) -> ErrorSums: ...
def prune(
    weights: list[NDArray[Any]], rules: list[tuple[Any, ...]], measured: bool, num_threads: int | None = None
) -> list[tuple[Bytes, NDArray[Any], Noise | None, int]]: ...
def n_m_keep(weight: NDArray[Any], layout: Layout, n: int, m: int, num_threads: int | None = None) -> Bytes: ...
def encode_sparse(weight: NDArray[Any], mask: Bytes, out: NDArray[Any], num_threads: int | None = None) -> None: ...
def decode_sparse(mask: Bytes, values: NDArray[Any], out: NDArray[Any], num_threads: int | None = None) -> None: ...
def sum_sparse_errors(
    weight: NDArray[Any], mask: Bytes, values: NDArray[Any], num_threads: int | None = None
) -> ErrorSums: ...
def count_nonfinite(array: NDArray[Any], num_threads: int | None = None) -> int: ...
def sum_errors(first: NDArray[Any], second: NDArray[Any], num_threads: int | None = None) -> ErrorSums: ...
def round_to(values: NDArray[float64], out: NDArray[Any]) -> None: ...
def round_to_half(values: NDArray[Any], num_threads: int | None = None) -> NDArray[uint16]: ...
def half_bits(values: NDArray[Any]) -> NDArray[uint16]: ...
def look_up(
    indices: Bytes,
    layout: BlockLayout,
    nbits: int,
    lut: NDArray[Any],
    mask: Bytes | None,
    out: NDArray[Any],
    num_threads: int | None = None,
) -> None: ...
def encode_even_steps(
    weight: NDArray[float32], layout: Layout, nbits: int, symmetric: bool, num_threads: int | None = None
) -> tuple[NDArray[float32], NDArray[float32], Bytes] | None: ...
def decode_even_steps(
    codes: Bytes,
    layout: Layout,
    is_signed: bool,
    scale: NDArray[float32],
    bias: NDArray[float32],
    out: NDArray[float32],
    num_threads: int | None = None,
) -> None: ...
def sum_even_step_errors(
    weight: NDArray[float32],
    codes: Bytes,
    layout: Layout,
    is_signed: bool,
    scale: NDArray[float32],
    bias: NDArray[float32],
    num_threads: int | None = None,
) -> ErrorSums: ...
def dequantize_kept(
    data: Bytes,
    layout: BlockLayout,
    dtype: str,
    scale: NDArray[Any],
    zero_point: Bytes | None,
    mask: Bytes,
    out: NDArray[Any],
    num_threads: int | None = None,
) -> None: ...
def gather_codes(data: Bytes, nbits: int, mask: Bytes, count: int, num_threads: int | None = None) -> Bytes: ...
def normalize(
    weight: NDArray[Any], layout: Layout, num_threads: int | None = None
) -> tuple[NDArray[Any], NDArray[Any]]: ...

class MemoryGuard:
    def __init__(self, memory: Any) -> None: ...
    @property
    def lost(self) -> bool: ...

Tables = NDArray[float64]  # ascending palettes (tables, entries, cluster_dim)
Grid = tuple[NDArray[float64], NDArray[float64], int, int]  # scales, zero points, lowest and highest code

class KeptFactors: ...

def kept_factors(
    columns: int, hessian: NDArray[Any], dampening: float, most: int, num_threads: int | None = None
) -> KeptFactors | None: ...

# temperature, smallest weight, prune threshold, tolerance, iterations, enforce zero, exact
SoftOptions = tuple[float, float, float, float, int, bool, bool]

def fake_quantize(
    values: NDArray[float32],
    layout: tuple[int, int, int],
    scale: NDArray[float32],
    zero_point: NDArray[float32],
    ends: tuple[int, int],
    out: NDArray[float32],
    num_threads: int | None = None,
) -> None: ...
def fake_quantize_gradient(
    values: NDArray[float32],
    gradient: NDArray[float32],
    layout: tuple[int, int, int],
    scale: NDArray[float32],
    zero_point: NDArray[float32],
    ends: tuple[int, int],
    out: NDArray[float32],
    sums: NDArray[float64] | None,
    num_threads: int | None = None,
) -> None: ...
def soft_kmeans(
    weight: NDArray[Any],
    centroids: NDArray[float64],
    sums: NDArray[float64],
    rounds: NDArray[int64],
    options: SoftOptions,
    out: NDArray[Any],
    num_threads: int | None = None,
) -> None: ...
def soft_kmeans_gradient(
    weight: NDArray[Any],
    gradient: NDArray[Any],
    centroids: NDArray[float64],
    sums: NDArray[float64],
    rounds: NDArray[int64],
    options: SoftOptions,
    out: NDArray[Any],
    num_threads: int | None = None,
) -> None: ...
def nearest_entries(
    weight: NDArray[Any],
    centroids: NDArray[float64],
    threshold: float,
    codes: NDArray[uint16] | None,
    out: NDArray[Any] | None,
    num_threads: int | None = None,
) -> None: ...
def feed_back_codes(
    weight: NDArray[Any],
    hessian: NDArray[Any],
    dampening: float,
    grid: Tables | Grid,
    row_tables: NDArray[int32],
    column_tables: NDArray[int32] | None,
    mask: Bytes | None,
    codes: Bytes,
    sweeps: int,
    continues: bool = False,
    num_threads: int | None = None,
    factors: KeptFactors | None = None,
) -> float: ...
def feed_back_values(
    weight: NDArray[Any],
    hessian: NDArray[Any],
    dampening: float,
    mask: Bytes,
    moves_mask: bool,
    out: NDArray[Any],
    sweeps: int,
    num_threads: int | None = None,
    factors: KeptFactors | None = None,
) -> float: ...
def column_pivots(
    shape: tuple[int, int, int],
    hessian: NDArray[Any],
    dampening: float,
    num_threads: int | None = None,
    factors: KeptFactors | None = None,
) -> NDArray[float64]: ...
def normal_equations(
    weight: NDArray[Any],
    hessian: NDArray[Any],
    dampening: float,
    tables: int,
    entries: int,
    row_tables: NDArray[int32],
    codes: Bytes,
    num_threads: int | None = None,
) -> tuple[NDArray[float64], NDArray[float64]]: ...
