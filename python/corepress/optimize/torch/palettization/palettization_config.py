"""Options of `DKMPalettizer`."""

from __future__ import annotations

from typing import Any

import torch
from attrs import define, field, validators

from .._utils.fields import check_module_type, deprecated_field, instance_of, optional_instance_of
from .._utils.optimizer_utils import ModuleToOptConfigRegistry
from .._utils.torch_utils import maybe_convert_str_to_dtype
from ..optimization_config import ModuleOptimizationConfig, OptimizationConfig, PalettizationGranularity
from ._supported_modules import DKMPalettizerModulesRegistry

DEFAULT_BITS = {
    torch.nn.Linear: 4,
    torch.nn.Conv1d: 2,
    torch.nn.Conv2d: 2,
    torch.nn.Conv3d: 2,
    torch.nn.LayerNorm: 2,
    torch.nn.MultiheadAttention: 2,
    torch.nn.Embedding: 2,
}


@define
class ModuleDKMPalettizerConfig(ModuleOptimizationConfig):
    """How the weights of a module are palettized while it trains.

    Most users need `n_bits`, `weight_threshold` and `milestone` only.

    Attributes
    ----------
    n_bits : int, optional
        A palette (lookup table, LUT) has 2 to this power entries. Default: 4 for Linear, 2 for other modules.
    weight_threshold : int
        Modules are palettized whose weights have more elements than this; all of them, where there are several.
    granularity : PalettizationGranularity
        ``"per_tensor"``, or ``"per_grouped_channel"`` for a palette for each `group_size` channels.
    group_size : int, optional
        Output channels that share a palette.
    channel_axis : int
        0, the axis of the output channels.
    enable_per_channel_scale : bool
        Whether channels are divided by a scale before palettes are looked up; it is found once.
    milestone : int
        The call of `step` that starts palettization; 0: it has started.
    cluster_dim : int, optional
        Values of an entry, those of neighbouring output channels. Default: 1.
    quantize_activations : bool
        Whether what the module returns is quantized too, to unsigned integers of 8 bits, as conversion stores them.
    quant_min, quant_max, dtype
        Accepted; with `dtype` float32, nothing is quantized.
    lut_dtype : str
        How entries are stored: ``"f32"``, ``"f16"``, ``"b16"`` or ``"bf16"``; ``"i8"`` and ``"u8"`` store integers and
        a scale.
    cluster_permute : tuple of int, optional
        The order of axes in which `group_size` counts along the first one.
    kmeans_max_iter : int
        Rounds of k-means in each step, at most.
    prune_threshold : float
        What is subtracted from squared distances to the first entry; it follows the sparsity where a pruner has been
        prepared too.
    enforce_zero : bool
        Whether an entry is 0.
    palett_mode : str
        How values are assigned to entries: ``"dkm"`` by softmax, ``"gsm"`` by Gumbel softmax, ``"hard"`` to the
        nearest, ``"topk"`` by softmax over the two nearest.
    palett_tau : float
        Temperature of the softmax over squared distances.
    palett_epsilon : float
        Rounds end where the sum of squared distances changes by no more.
    add_extra_centroid : bool
        Whether palettes have an entry more, as for 0.
    per_channel_scaling_factor_scheme : str
        ``"min_max"``, half of a channel's range, or ``"abs"``, its largest magnitude.
    percentage_palett_enable : float
        The share of the groups whose palettes are learnt, from the first on.
    zero_threshold : float
        The smallest weight of an entry in the mean that a value becomes.
    kmeans_init, kmeans_opt1d_threshold, kmeans_batch_threshold, kmeans_n_init, kmeans_error_bnd, palett_max_mem, \
palett_min_tsize, palett_unique, palett_shard, palett_batch_mode, palett_dist, palett_lambda, palett_cluster_tol
        Accepted, and without effect: first palettes are optimal, and no step needs more memory than the weights do.
    """

    n_bits: int | None = optional_instance_of(int)
    weight_threshold: int = instance_of(int, 2048)
    granularity: PalettizationGranularity = field(
        default=PalettizationGranularity.per_tensor, converter=PalettizationGranularity
    )
    group_size: int | None = optional_instance_of(int)
    channel_axis: int = field(default=0, validator=validators.in_([0]))
    enable_per_channel_scale: bool = instance_of(bool, False)
    milestone: int = instance_of(int, 0)
    cluster_dim: int | None = optional_instance_of(int)
    quant_min: int = instance_of(int, -128)
    quant_max: int = instance_of(int, 127)
    dtype: Any = field(
        default=torch.qint8,
        converter=maybe_convert_str_to_dtype,
        validator=validators.in_([torch.qint8, torch.quint8, torch.float32]),
    )
    lut_dtype: str = instance_of(str, "f32")
    quantize_activations: bool = instance_of(bool, False)
    cluster_permute: tuple[int, ...] | None = optional_instance_of(tuple)
    palett_max_mem: float = instance_of(float, 1.0)
    kmeans_max_iter: int = instance_of(int, 3)
    prune_threshold: float = instance_of(float, 1e-7)
    kmeans_init: str = instance_of(str, "auto")
    kmeans_opt1d_threshold: int = instance_of(int, 1024)
    enforce_zero: bool = instance_of(bool, False)
    palett_mode: str = instance_of(str, "dkm")
    palett_tau: float = instance_of(float, 1e-4)
    palett_epsilon: float = instance_of(float, 1e-4)
    palett_lambda: float = instance_of(float, 0.0)
    add_extra_centroid: bool = instance_of(bool, False)
    palett_cluster_tol: float = instance_of(float, 0.0)
    palett_min_tsize: int = instance_of(int, 64 * 1024)
    palett_unique: bool = instance_of(bool, False)
    palett_shard: bool = instance_of(bool, False)
    palett_batch_mode: bool = instance_of(bool, False)
    palett_dist: bool = instance_of(bool, False)
    per_channel_scaling_factor_scheme: str = field(default="min_max", validator=validators.in_(["min_max", "abs"]))
    percentage_palett_enable: float = instance_of(float, 1.0)
    kmeans_batch_threshold: int = instance_of(int, 4)
    kmeans_n_init: int = instance_of(int, 10)
    zero_threshold: float = instance_of(float, 1e-7)
    kmeans_error_bnd: float = instance_of(float, 0.0)
    partition_size: int | None = deprecated_field("partition_size is deprecated; use group_size")
    cluster_dtype: str | None = deprecated_field("cluster_dtype is deprecated; use lut_dtype")

    @group_size.validator
    def _check_group_size(self, attribute: Any, value: int | None) -> None:
        if self.granularity == PalettizationGranularity.per_grouped_channel:
            if value is None or value < 1:
                raise ValueError(
                    f"ModuleDKMPalettizerConfig: granularity per_grouped_channel needs group_size, of 1 or more, not "
                    f"{value}"
                )
        elif value is not None:
            raise ValueError(
                f"ModuleDKMPalettizerConfig: group_size {value} is for granularity per_grouped_channel, not per_tensor"
            )


_MODULE_OPTIONS = ModuleDKMPalettizerConfig()
_NOT_ADVANCED = {"n_bits", "weight_threshold", "granularity", "group_size", "enable_per_channel_scale", "milestone"}
_NOT_ADVANCED |= {"cluster_dim", "quant_min", "quant_max", "dtype", "lut_dtype", "quantize_activations"}
_NOT_ADVANCED |= {"partition_size", "cluster_dtype"}
DEFAULT_PALETTIZATION_ADVANCED_OPTIONS = {
    name: value for name, value in _MODULE_OPTIONS.as_dict().items() if name not in _NOT_ADVANCED
}
DEFAULT_PALETTIZATION_SCHEME = {
    kind: {**_MODULE_OPTIONS.as_dict(), "n_bits": bits, "cluster_dim": 1} for kind, bits in DEFAULT_BITS.items()
}


@ModuleToOptConfigRegistry.register_module_cfg(ModuleDKMPalettizerConfig)
@define
class DKMPalettizerConfig(OptimizationConfig):
    """How the modules of a model are palettized while it trains.

    Each value may be a list of options with different `weight_threshold`: a module has those with the largest that its
    weights exceed. Without any options, modules have those of ``ModuleDKMPalettizerConfig()``.

    Attributes
    ----------
    global_config : ModuleDKMPalettizerConfig, list of them, or None
        For all modules that nothing else is said of.
    module_type_configs : dict of type or str to ModuleDKMPalettizerConfig, list of them, or None
        By the class of a module, or its name. None leaves these modules unchanged.
    module_name_configs : dict of str to ModuleDKMPalettizerConfig, list of them, or None
        By the name of a module, or a regular expression for names.
    """

    _module_config = ModuleDKMPalettizerConfig
    _lists = True

    def __attrs_post_init__(self) -> None:
        OptimizationConfig.__attrs_post_init__(self)
        self.global_config = _by_threshold(self.global_config)
        for table in (self.module_type_configs, self.module_name_configs):
            for key, value in table.items():
                table[key] = _by_threshold(value)

    @classmethod
    def _check_module_type(cls, key: Any) -> None:
        check_module_type(cls.__name__, key, DKMPalettizerModulesRegistry.get_supported_modules())

    def _set_defaults(self) -> None:
        self.module_type_configs.update({kind: ModuleDKMPalettizerConfig(n_bits=n) for kind, n in DEFAULT_BITS.items()})


def _by_threshold(config: Any) -> Any:
    return sorted(config, key=lambda each: each.weight_threshold) if isinstance(config, list) else config
