"""The native kernels. Arrays are C-contiguous; layouts are those of `corepress.arrays`."""

from typing import Any

from numpy import float64, int32, uint8, uint16
from numpy.typing import NDArray

__version__: str
compiler: str

Bytes = NDArray[uint8]
Layout = tuple[int, int, int]
BlockLayout = tuple[tuple[int, int], ...]
# Squared error, squared first, squared second, product, largest absolute error.
ErrorSums = tuple[float, float, float, float, float]

def simd_levels() -> list[str]: ...
def simd_level() -> str: ...
def set_simd_level(level: str) -> None: ...
def default_threads() -> int: ...
def pack_bits(codes: Bytes, nbits: int, out: Bytes) -> None: ...
def unpack_bits(data: Bytes, nbits: int, count: int, out: Bytes) -> None: ...
def count_bits(mask: Bytes, count: int) -> int: ...
def palettize(
    weights: list[NDArray[Any]],
    layouts: list[Layout],
    nbits: int,
    mode: str,
    luts: list[NDArray[Any] | None],
    num_threads: int | None = None,
) -> list[tuple[NDArray[Any], Bytes]]: ...
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
def kmeans1d(
    values: NDArray[float64], weights: NDArray[float64] | None, ks: list[int], num_threads: int | None = None
) -> list[tuple[NDArray[int32], NDArray[float64], NDArray[float64]]]: ...
def quantize(
    weight: NDArray[Any],
    layout: BlockLayout,
    nbits: int,
    is_signed: bool,
    symmetric: bool,
    search_scale: bool = False,
    num_threads: int | None = None,
) -> tuple[Bytes, NDArray[Any], Bytes]: ...
def dequantize(
    data: Bytes,
    layout: BlockLayout,
    nbits: int,
    is_signed: bool,
    scale: NDArray[Any],
    zero_point: Bytes | None,
    out: NDArray[Any],
    num_threads: int | None = None,
) -> None: ...
def magnitude_of_rank(weight: NDArray[Any], rank: int, num_threads: int | None = None) -> NDArray[Any]: ...
def magnitude_mask(
    weight: NDArray[Any], threshold: NDArray[Any], num_threads: int | None = None
) -> tuple[Bytes, int]: ...
def n_m_mask(weight: NDArray[Any], layout: Layout, n: int, m: int, num_threads: int | None = None) -> Bytes: ...
def block_mask(
    weight: NDArray[Any], layout: Layout, block_size: int, rank: int, num_threads: int | None = None
) -> Bytes: ...
def mask_of_kept(weight: NDArray[Any], keep: Bytes, num_threads: int | None = None) -> tuple[Bytes, int]: ...
def encode_sparse(weight: NDArray[Any], mask: Bytes, num_threads: int | None = None) -> NDArray[Any]: ...
def decode_sparse(mask: Bytes, values: NDArray[Any], out: NDArray[Any], num_threads: int | None = None) -> None: ...
def count_nonfinite(array: NDArray[Any], num_threads: int | None = None) -> int: ...
def sum_errors(first: NDArray[Any], second: NDArray[Any], num_threads: int | None = None) -> ErrorSums: ...
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
def dequantize_kept(
    data: Bytes,
    layout: BlockLayout,
    nbits: int,
    is_signed: bool,
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
