"""The functions of ``coreai_opt.coreai_utils``, on top of `corepress.coreai`."""

from __future__ import annotations

import logging
from functools import partial
from typing import Any

from ...coreai.compressor import edit, work_of
from ...coreai.decisions import AssetDecisions
from ...coreai.program.program import Program
from ...extras import require
from .choices import CompressionGranularity, DType, QScheme, chosen, dtype_name

_logger = logging.getLogger("corepress")
_INTEGERS = (DType.INT2, DType.INT4, DType.INT8, DType.UINT2, DType.UINT4, DType.UINT8)
_FP8 = (DType.FP8_E4M3FN, DType.FP8_E5M2)
_FP4_BLOCK = 32  # of MXFP4
_MODES = {QScheme.SYMMETRIC: "linear_symmetric", QScheme.ASYMMETRIC: "linear"}
_OUTPUT, _INPUT = 0, 1  # the halves of a weight's channels that structures of zeros run along


def palettize_weights(
    coreai_program: Any,
    lut_dtype: Any,
    n_bits: int = 4,
    granularity: Any = CompressionGranularity.PER_TENSOR,
    group_size: int = 32,
    cluster_dim: int = 1,
    enable_per_channel_scale: bool = False,
    weight_num_threshold: int = 1024,
    num_kmeans_workers: int = 4,
    enable_fast_kmeans_mode: bool = True,
    rounding_precision: int = 4,
    in_place: bool = False,
) -> Any:
    """Palettize the weights of a program; see ``coreai_opt.coreai_utils.palettize_weights``.

    Parameters
    ----------
    coreai_program : coreai.authoring.AIProgram
        The program.
    lut_dtype : DType or None
        Type of the tables' entries: int8, uint8, fp8_e4m3fn or fp8_e5m2; None for the weight's own.
    n_bits : {1, 2, 3, 4, 6, 8}
        Bits of a code.
    granularity : CompressionGranularity
        A table for the whole weight, for each output channel, or for groups of `group_size` of them.
    group_size : int
        Output channels of a group.
    cluster_dim : int
        Elements along the output channels that a code encodes.
    enable_per_channel_scale : bool
        Divide each output channel by its largest magnitude first.
    weight_num_threshold : int
        Weights of this many elements or fewer are left unchanged.
    num_kmeans_workers, enable_fast_kmeans_mode, rounding_precision
        Without effect.
    in_place : bool
        Change the program that is given, too.

    Returns
    -------
    AIProgram
        With ``lut_to_dense`` operations in place of the weights' constants.

    Raises
    ------
    ValueError
        For arguments out of range.
    MissingExtraError
        If coreai-core is not installed.
    """
    function = "palettize_weights"
    kinds = CompressionGranularity
    kind = chosen(
        function, "granularity", granularity, (kinds.PER_TENSOR, kinds.PER_CHANNEL, kinds.PER_GROUPED_CHANNEL)
    )
    if enable_per_channel_scale and cluster_dim > 1:
        raise ValueError(f"{function}: enable_per_channel_scale is not supported with cluster_dim above 1")
    step: dict[str, Any] = {"nbits": n_bits, "cluster_dim": cluster_dim}
    if kind is not kinds.PER_TENSOR:
        size = group_size if kind is kinds.PER_GROUPED_CHANNEL else 1
        step |= {"granularity": "per_grouped_channel", "group_size": size}
    if enable_per_channel_scale:
        step["enable_per_channel_scale"] = True
    if lut_dtype is not None:
        table = chosen(function, "lut_dtype", lut_dtype, (DType.INT8, DType.UINT8, *_FP8))
        step["lut_dtype"] = dtype_name(table)
    return _compressed(function, coreai_program, [{"palettize": step}], weight_num_threshold, in_place)


def quantize_weights(
    coreai_program: Any,
    dtype: Any,
    qscheme: Any = QScheme.SYMMETRIC,
    granularity: Any = CompressionGranularity.PER_CHANNEL,
    block_size: int = 32,
    weight_num_threshold: int = 1024,
    scale_dtype: Any = None,
    in_place: bool = False,
) -> Any:
    """Quantize the weights of a program; see ``coreai_opt.coreai_utils.quantize_weights``.

    Parameters
    ----------
    coreai_program : coreai.authoring.AIProgram
        The program.
    dtype : DType
        Type of the codes: integers of 2, 4 or 8 bits, fp8_e4m3fn, fp8_e5m2 or fp4_e2m1fn.
    qscheme : QScheme
        ``asymmetric`` gives integers a zero point.
    granularity : CompressionGranularity
        A scale for the whole weight, for each output channel, or for blocks of these along the input channels.
    block_size : int
        Input channels of a block; 32 for fp4_e2m1fn.
    weight_num_threshold, in_place
        As for `palettize_weights`.
    scale_dtype : DType or None
        ``fp8_e8m0fnu`` for scales of fp8 that are powers of two; None for the weight's own type. Those of fp4_e2m1fn
        always are powers of two.

    Returns
    -------
    AIProgram
        With ``blockwise_shift_scale`` operations in place of the weights' constants.

    Raises
    ------
    ValueError
        For arguments out of range.
    MissingExtraError
        If coreai-core is not installed.
    """
    function = "quantize_weights"
    kinds = CompressionGranularity
    codes = chosen(function, "dtype", dtype, (*_INTEGERS, *_FP8, DType.FP4_E2M1FN))
    scheme = chosen(function, "qscheme", qscheme, tuple(QScheme))
    kind = chosen(function, "granularity", granularity, (kinds.PER_TENSOR, kinds.PER_CHANNEL, kinds.PER_BLOCK))
    if not codes.is_int() and scheme is QScheme.ASYMMETRIC:
        raise ValueError(f"{function}: qscheme must be 'symmetric' for dtype {codes.value!r}")
    if scale_dtype is not None and codes not in _FP8:
        raise ValueError(f"{function}: scale_dtype must be None for dtype {codes.value!r}, not {scale_dtype!r}")
    if codes is DType.FP4_E2M1FN and (kind is not kinds.PER_BLOCK or block_size != _FP4_BLOCK):
        raise ValueError(
            f"{function}: dtype {codes.value!r} needs granularity 'per_block' and block_size {_FP4_BLOCK}, "
            f"not {kind.value!r} and {block_size}"
        )
    step: dict[str, Any] = {"dtype": dtype_name(codes), "mode": _MODES[scheme], "granularity": kind.value}
    if kind is kinds.PER_BLOCK:
        step["block_size"] = block_size
    if scale_dtype is not None or codes is DType.FP4_E2M1FN:
        scale = chosen(function, "scale_dtype", scale_dtype or DType.FP8_E8M0FNU, (DType.FP8_E8M0FNU,))
        step["scale_dtype"] = dtype_name(scale)
    return _compressed(function, coreai_program, [{"quantize": step}], weight_num_threshold, in_place)


def sparsify_weights(
    coreai_program: Any,
    target_sparsity: float | None = 0.5,
    block_size: int | None = None,
    n_m_ratio: tuple[int, int] | None = None,
    quantize_dtype: Any = None,
    palettize_nbits: int | None = None,
    weight_num_threshold: int = 1024,
    in_place: bool = False,
) -> Any:
    """Prune the weights of a program; see ``coreai_opt.coreai_utils.sparsify_weights``.

    Parameters
    ----------
    coreai_program : coreai.authoring.AIProgram
        The program.
    target_sparsity : float or None
        The share of each weight that becomes zero, 0 to 1; None with `n_m_ratio`.
    block_size : int, optional
        Output channels that become zero together.
    n_m_ratio : (int, int), optional
        Of every m neighbours along the input channels, n become zero.
    quantize_dtype : DType, optional
        Type of the values that are left: int8, uint8, fp8_e4m3fn or fp8_e5m2.
    palettize_nbits : int, optional
        Bits of a palette of these values.
    weight_num_threshold, in_place
        As for `palettize_weights`.

    Returns
    -------
    AIProgram
        With ``sparse_with_bitmask_to_dense`` operations in place of the weights' constants.

    Raises
    ------
    ValueError
        For arguments out of range, or that exclude each other.
    MissingExtraError
        If coreai-core is not installed.
    """
    function = "sparsify_weights"
    if (target_sparsity is None) == (n_m_ratio is None):
        raise ValueError(f"{function}: either target_sparsity or n_m_ratio must be given, and the other be None")
    if quantize_dtype is not None and palettize_nbits is not None:
        raise ValueError(f"{function}: quantize_dtype and palettize_nbits cannot go together")
    if n_m_ratio is not None:
        pruning: dict[str, Any] = {"n_m_ratio": tuple(n_m_ratio), "dim": _INPUT}
    elif block_size is not None:
        pruning = {"target_sparsity": target_sparsity, "block_size": block_size, "dim": _OUTPUT}
    else:
        pruning = {"target_sparsity": target_sparsity}
    steps: list[dict[str, Any]] = [{"prune": pruning}]
    if palettize_nbits is not None:
        steps.append({"palettize": {"nbits": palettize_nbits}})
    if quantize_dtype is not None:
        codes = chosen(function, "quantize_dtype", quantize_dtype, (DType.INT8, DType.UINT8, *_FP8))
        steps.append({"quantize": {"dtype": dtype_name(codes), "granularity": "per_tensor"}})
    return _compressed(function, coreai_program, steps, weight_num_threshold, in_place)


def _compressed(
    function: str, coreai_program: Any, steps: list[dict[str, Any]], weight_num_threshold: int, in_place: bool
) -> Any:
    require(function, "coreai")
    decisions = AssetDecisions.of(steps, False, weight_num_threshold, None, None, False)
    program = Program.copy_of(coreai_program)
    decisions.prepare(program)
    records = edit(program, partial(work_of, decisions, {}, is_measured=False))
    for record in records:
        if record.status == "kept" and not record.planned:
            _logger.warning("%s: %s is left unchanged: %s", function, record.name, record.reason)
    if in_place:
        coreai_program._module = program.program._module
    return program.program
