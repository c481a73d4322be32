"""How a layer is compressed: options, and what gathers its inputs and finds its weight."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from typing import Any

import torch
from attrs import define, field, validators
from torch import Tensor

from ....training.grids import normal_float_entries
from ....training.layer_inputs import InputMoments
from ....training.layer_weights import CompressedWeight, Grid, palettized, pruned, quantized, store
from .._utils.fields import instance_of
from .._utils.python_utils import ClassRegistryMixin
from .._utils.torch_utils import get_n_bits_from_dtype, maybe_convert_str_to_dtype
from ..optimization_config import ModuleOptimizationConfig, PalettizationGranularity, QuantizationGranularity
from ..quantization.quantization_config import QuantizationScheme

__all__ = [
    "GPTQ",
    "GPTQPalettization",
    "LayerwiseCompressionAlgorithm",
    "LayerwiseCompressionAlgorithmConfig",
    "ModuleGPTQConfig",
    "ModuleGPTQPalettizationConfig",
    "ModuleSparseGPTConfig",
    "OBSCompressionAlgorithm",
    "QuantizationGranularity",
    "SparseGPT",
]


def __dir__() -> list[str]:
    return __all__


_logger = logging.getLogger(__name__)

_USUAL_GROUP = 128
_DAMPENING: list[Any] = [validators.instance_of((float, int)), validators.ge(0)]
_OPTIONAL_INTEGER = validators.optional(validators.instance_of(int))
_INTEGERS = (torch.uint8, torch.int8)


class LayerwiseCompressionAlgorithmConfig(ABC, ClassRegistryMixin, ModuleOptimizationConfig):
    """Options of an algorithm; its subclasses are registered under the names of algorithms."""


def _set_weight_dtype(config: Any, floats: tuple[torch.dtype, ...]) -> None:
    """The bits of a data type, and the type: codes are unsigned, whether ``"int4"`` or ``"uint4"`` asked for them."""
    dtype, bits = maybe_convert_str_to_dtype(config.weight_dtype), get_n_bits_from_dtype(config.weight_dtype)
    if dtype not in (*_INTEGERS, *floats):
        names = ", ".join(map(str, (*_INTEGERS, *floats)))
        raise ValueError(
            f"{type(config).__name__}: weight_dtype must be one of {names}, or the name of an integer type of 3, 4 or "
            f"8 bits, not {config.weight_dtype!r}"
        )
    if config.enable_normal_float and dtype in _INTEGERS:
        normal_float_entries(bits)
    if config.processing_group_size != _USUAL_GROUP:
        _logger.warning(
            "%s: processing_group_size %d has no effect; columns are worked on as the caches allow, which does not "
            "change results",
            type(config).__name__,
            config.processing_group_size,
        )
    config.weight_n_bits, config.weight_dtype = bits, torch.uint8 if dtype in _INTEGERS else dtype


@LayerwiseCompressionAlgorithmConfig.register("gptq")
@define
class ModuleGPTQConfig(LayerwiseCompressionAlgorithmConfig):
    """Options of `GPTQ`.

    Attributes
    ----------
    weight_dtype : str or torch.dtype
        ``"uint8"``, ``"uint4"`` or ``"uint3"``; ``"int8"``, ``"int4"`` and ``"int3"`` are the same. ``"float32"``
        leaves the weight unchanged.
    weight_n_bits : int
        The bits of it; not given.
    granularity : QuantizationGranularity
        ``"per_channel"``, ``"per_tensor"`` or ``"per_block"``.
    quantization_scheme : str
        ``"symmetric"``, with zero in the middle of the codes, or ``"affine"``.
    block_size : int, optional
        Input channels that share a scale; must divide them. Given, there are blocks whatever the granularity.
    enable_normal_float : bool
        A palette of normal floats, of 3 or 4 bits, with scales, instead of integers.
    hessian_dampening : float
        How many times the mean of the diagonal of the second moments is added to it.
    use_activation_order_heuristic : bool
        Accepted, and without effect: input channels of the largest second moments always come first, which is this
        heuristic, and scales of blocks are always those of the weight itself.
    processing_group_size : int
        Accepted, with a warning unless it is 128: how many columns are worked on together follows from the caches, and
        does not change results.
    """

    weight_dtype: Any = field(default="uint8")
    weight_n_bits: int = field(init=False)
    granularity: Any = field(default="per_channel", converter=QuantizationGranularity)
    quantization_scheme: Any = field(default="symmetric", converter=QuantizationScheme)
    block_size: Any = field(default=None, validator=_OPTIONAL_INTEGER)
    enable_normal_float: bool = instance_of(bool, False)
    hessian_dampening: float = field(default=0.01, validator=_DAMPENING)
    use_activation_order_heuristic: bool = instance_of(bool, False)
    processing_group_size: int = instance_of(int, _USUAL_GROUP)
    algorithm: str = field(default="gptq", validator=validators.in_(("gptq",)))

    def __attrs_post_init__(self) -> None:
        _set_weight_dtype(self, (torch.float32,))


@LayerwiseCompressionAlgorithmConfig.register("sparse_gpt")
@define
class ModuleSparseGPTConfig(LayerwiseCompressionAlgorithmConfig):
    """Options of `SparseGPT`.

    Attributes
    ----------
    target_sparsity : float
        Share of the weights that become zero.
    n_m_ratio : tuple of int, optional
        Instead: n zeros in each m consecutive inputs of an output.
    weight_dtype : str or torch.dtype
        What the other weights are: as of `ModuleGPTQConfig`; ``"float32"`` and ``"float16"`` do not quantize them.
    weight_n_bits : int
        The bits of it; not given.
    quantization_granularity : QuantizationGranularity
        ``"per_channel"`` or ``"per_tensor"``; ``"per_block"`` is ``"per_channel"``.
    quantization_scheme : str
        ``"symmetric"`` or ``"affine"``.
    enable_normal_float, hessian_dampening, processing_group_size
        As of `ModuleGPTQConfig`.
    """

    target_sparsity: float = field(
        default=0.5, validator=[validators.instance_of((float, int)), validators.ge(0), validators.le(1)]
    )
    n_m_ratio: Any = field(
        default=None,
        validator=validators.optional(
            validators.deep_iterable(validators.instance_of(int), validators.instance_of((tuple, list)))
        ),
    )
    weight_dtype: Any = field(default="uint8")
    weight_n_bits: int = field(init=False)
    quantization_granularity: Any = field(default="per_channel", converter=QuantizationGranularity)
    quantization_scheme: Any = field(default="symmetric", converter=QuantizationScheme)
    enable_normal_float: bool = instance_of(bool, False)
    hessian_dampening: float = field(default=0.01, validator=_DAMPENING)
    processing_group_size: int = instance_of(int, _USUAL_GROUP)
    algorithm: str = field(default="sparse_gpt", validator=validators.in_(("sparse_gpt",)))

    def __attrs_post_init__(self) -> None:
        _set_weight_dtype(self, (torch.float16, torch.float32))
        if self.n_m_ratio is not None and not (len(self.n_m_ratio) == 2 and 0 < self.n_m_ratio[0] <= self.n_m_ratio[1]):
            raise ValueError(
                f"ModuleSparseGPTConfig: n_m_ratio must be two numbers, 0 < n <= m, not {self.n_m_ratio!r}"
            )


@LayerwiseCompressionAlgorithmConfig.register("gptq_palettize")
@define
class ModuleGPTQPalettizationConfig(LayerwiseCompressionAlgorithmConfig):
    """Options of `GPTQPalettization`, which coremltools does not have.

    Attributes
    ----------
    n_bits : int
        A palette has 2 to this power entries: 1, 2, 3, 4, 6 or 8.
    granularity : PalettizationGranularity
        ``"per_tensor"``, or ``"per_grouped_channel"`` for a palette for each `group_size` output channels.
    group_size : int, optional
        Must divide the output channels.
    enable_per_channel_scale : bool
        Whether output channels are divided by a scale first.
    hessian_dampening : float
        As of `ModuleGPTQConfig`.
    """

    n_bits: int = field(default=4, validator=validators.in_((1, 2, 3, 4, 6, 8)))
    granularity: Any = field(default="per_tensor", converter=PalettizationGranularity)
    group_size: Any = field(default=None, validator=_OPTIONAL_INTEGER)
    enable_per_channel_scale: bool = instance_of(bool, False)
    hessian_dampening: float = field(default=0.01, validator=_DAMPENING)
    algorithm: str = field(default="gptq_palettize", validator=validators.in_(("gptq_palettize",)))

    def __attrs_post_init__(self) -> None:
        if (self.granularity == PalettizationGranularity.per_grouped_channel) != (self.group_size is not None):
            raise ValueError(
                f"ModuleGPTQPalettizationConfig: group_size must be given for per_grouped_channel and only for it, "
                f"not {self.group_size!r} for {self.granularity.value}"
            )


class LayerwiseCompressionAlgorithm(ClassRegistryMixin):
    """Compresses one layer; made with the layer and its options.

    Subclasses are registered under the names that configs have as ``algorithm``.
    """

    @abstractmethod
    def add_batch(self, inp: Tensor, out: Tensor) -> None:
        """See the input and the output of a call of the layer."""

    @abstractmethod
    def cleanup(self) -> None:
        """Free what was gathered."""

    @abstractmethod
    def compress(self) -> None:
        """Compress the layer's weight."""


class OBSCompressionAlgorithm(LayerwiseCompressionAlgorithm):
    """What uses second moments of a layer's inputs, the Hessian of the error of its outputs.

    Parameters
    ----------
    layer : torch.nn.Linear, Conv1d, Conv2d or Conv3d
    config : LayerwiseCompressionAlgorithmConfig
    """

    def __init__(self, layer: torch.nn.Module, config: Any) -> None:
        self._layer, self._config = layer, config
        self._inputs: InputMoments | None = InputMoments(layer)

    def add_batch(self, inp: Tensor, out: Tensor) -> None:
        """Add the input of a call to the moments."""
        if self._inputs is None:
            self._inputs = InputMoments(self._layer)
        self._inputs.add(inp)

    def compress(self) -> None:
        """Find the weight, make it the layer's, and set the buffers for conversion.

        Raises
        ------
        ValueError
            If the weight cannot be compressed like that, or there were no inputs. The layer has not changed then.
        """
        found = self._compress_impl()
        if found is not None:
            store(self._layer, found)

    def cleanup(self) -> None:
        """Free the moments."""
        self._inputs = None

    @property
    def _gathered(self) -> InputMoments:
        if self._inputs is None:
            raise ValueError(f"{type(self).__name__}: the layer had no inputs")
        return self._inputs

    @abstractmethod
    def _compress_impl(self) -> CompressedWeight | None:
        """The compressed weight; None leaves it unchanged."""


def _grid(config: Any, granularity: QuantizationGranularity, block_size: int | None) -> Grid:
    return Grid(
        config.weight_n_bits,
        granularity != QuantizationGranularity.per_tensor,
        config.quantization_scheme == QuantizationScheme.symmetric,
        block_size,
        config.enable_normal_float,
    )


@LayerwiseCompressionAlgorithm.register("gptq")
class GPTQ(OBSCompressionAlgorithm):
    """Quantizes a layer so that its outputs change little (Frantar et al., arXiv:2210.17323).

    Scales of 4 bits and fewer are searched for the least error, which counts inputs by their second moments; others are
    those of the range. All are rounded to float16, as packages store them.

    Parameters
    ----------
    layer : torch.nn.Linear, Conv1d, Conv2d or Conv3d
    config : ModuleGPTQConfig

    Raises
    ------
    ValueError
        If block_size does not divide the input channels.
    """

    def __init__(self, layer: torch.nn.Module, config: ModuleGPTQConfig) -> None:
        super().__init__(layer, config)
        self._grid = _grid(config, config.granularity, config.block_size)
        self._grid.blocks(layer)

    def _compress_impl(self) -> CompressedWeight | None:
        if self._config.weight_n_bits > 8:
            return None
        return quantized(self._layer, self._gathered, self._grid, self._config.hessian_dampening)


@LayerwiseCompressionAlgorithm.register("sparse_gpt")
class SparseGPT(OBSCompressionAlgorithm):
    """Prunes a layer so that its outputs change little (Frantar and Alistarh, arXiv:2301.00774), and quantizes it.

    Parameters
    ----------
    layer : torch.nn.Linear, Conv1d, Conv2d or Conv3d
    config : ModuleSparseGPTConfig
    """

    def _compress_impl(self) -> CompressedWeight:
        config = self._config
        grid = None if config.weight_n_bits > 8 else _grid(config, config.quantization_granularity, None)
        return pruned(
            self._layer, self._gathered, config.target_sparsity, config.n_m_ratio, grid, config.hessian_dampening
        )


@LayerwiseCompressionAlgorithm.register("gptq_palettize")
class GPTQPalettization(OBSCompressionAlgorithm):
    """Palettizes a layer: optimal palettes, whose entries are chosen as GPTQ chooses codes.

    Parameters
    ----------
    layer : torch.nn.Linear, Conv1d, Conv2d or Conv3d
    config : ModuleGPTQPalettizationConfig
    """

    def _compress_impl(self) -> CompressedWeight:
        config = self._config
        return palettized(
            self._layer,
            self._gathered,
            config.n_bits,
            config.group_size,
            config.enable_per_channel_scale,
            config.hessian_dampening,
        )
