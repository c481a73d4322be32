"""Options of quantization-aware training."""

from __future__ import annotations

from enum import Enum
from typing import Any

import torch
from attrs import define, field, validators

from ....training.observers import MinMaxObserver
from .._utils.optimizer_utils import ModuleToOptConfigRegistry
from .._utils.torch_utils import get_n_bits_from_dtype, maybe_convert_str_to_dtype, maybe_convert_str_to_mod_type
from ..optimization_config import ModuleOptimizationConfig, OptimizationConfig
from .modules.observers import EMAMinMaxObserver

__all__ = ["LinearQuantizerConfig", "ModuleLinearQuantizerConfig", "ObserverType", "QuantizationScheme"]


def __dir__() -> list[str]:
    return __all__


class ObserverType(Enum):
    """How a range follows the values that are observed.

    ``moving_average_min_max`` moves 1 % of the way to the range of each batch, ``ema_min_max`` 10 %; ``min_max`` is the
    range of all values so far.
    """

    moving_average_min_max = "moving_average_min_max"
    min_max = "min_max"
    ema_min_max = "ema_min_max"

    @staticmethod
    def get_observer(observer_type: ObserverType, is_per_channel: bool) -> Any:
        """Return the observer's class; that of channels is the same, with an axis."""
        return EMAMinMaxObserver if observer_type is ObserverType.ema_min_max else MinMaxObserver

    @property
    def averaging_constant(self) -> float | None:
        """How far a range moves to that of a batch; None of ``min_max``."""
        return {"moving_average_min_max": 0.01, "ema_min_max": 0.1}.get(self.value)


class QuantizationScheme(Enum):
    """Whether the zero point is fixed (``symmetric``) or follows the range (``affine``)."""

    symmetric = "symmetric"
    affine = "affine"

    @staticmethod
    def get_qscheme(quantizaton_scheme: QuantizationScheme, is_per_channel: bool) -> torch.qscheme:
        """Return PyTorch's name of the scheme."""
        if quantizaton_scheme is QuantizationScheme.symmetric:
            return torch.per_channel_symmetric if is_per_channel else torch.per_tensor_symmetric
        return torch.per_channel_affine if is_per_channel else torch.per_tensor_affine


_WEIGHT_DTYPES = ["qint4", "quint4", "qint8", "quint8", "float32", torch.qint8, torch.quint8, torch.float32]


def _in(*choices: Any) -> Any:
    return validators.in_(choices)


@define
class ModuleLinearQuantizerConfig(ModuleOptimizationConfig):
    """Options of quantization-aware training for a module.

    Attributes
    ----------
    algorithm : {"vanilla", "learnable"}
        Scales by the observed ranges, or trained as parameters once observers are off.
    weight_dtype : str or torch.dtype
        ``"qint8"``, ``"quint8"``, ``"qint4"``, ``"quint4"``; ``"float32"`` does not quantize weights.
    weight_n_bits : int
        Of `weight_dtype`.
    weight_observer : ObserverType
    weight_per_channel : bool
        Whether each output channel has a scale.
    activation_dtype : str or torch.dtype
        ``"quint8"``, or ``"float32"``: they are not quantized.
    activation_observer : ObserverType
    quantization_scheme : QuantizationScheme
        The same for all modules. Symmetric: zero points of weights are 0, those of activations 128, or 0 where
        no activation can be negative, as after a ReLU.
    milestones : list of four int, optional
        The steps at which observers are turned on, fake quantization is turned on, observers are turned off and the
        statistics of batch normalization are frozen; -1 is never. None has the first two on from the start.
    """

    algorithm: str = field(default="vanilla", validator=[validators.instance_of(str), _in("vanilla", "learnable")])
    weight_dtype: Any = field(default=torch.qint8)
    weight_n_bits: int = field(init=False)
    weight_observer: ObserverType = field(default=ObserverType.moving_average_min_max, converter=ObserverType)
    weight_per_channel: bool = field(default=True, validator=validators.instance_of(bool))
    activation_dtype: Any = field(
        default=torch.quint8,
        converter=maybe_convert_str_to_dtype,
        validator=[validators.instance_of(torch.dtype), _in(torch.quint8, torch.float32)],
    )
    activation_observer: ObserverType = field(default=ObserverType.moving_average_min_max, converter=ObserverType)
    quantization_scheme: QuantizationScheme = field(default=QuantizationScheme.symmetric, converter=QuantizationScheme)
    milestones: list[int] | None = field(
        default=None,
        validator=validators.optional(
            validators.deep_iterable(validators.instance_of(int), validators.instance_of(list))
        ),
    )

    def __attrs_post_init__(self) -> None:
        if self.weight_dtype not in _WEIGHT_DTYPES:
            raise ValueError(
                f"ModuleLinearQuantizerConfig: weight_dtype must be one of {', '.join(map(str, _WEIGHT_DTYPES))}, "
                f"not {self.weight_dtype!r}"
            )
        if self.milestones is not None and len(self.milestones) != 4:
            raise ValueError(
                f"ModuleLinearQuantizerConfig: milestones must be four steps (observers on, fake quantization on, "
                f"observers off, batch normalization frozen), not {self.milestones}"
            )
        self.weight_n_bits = (
            get_n_bits_from_dtype(self.weight_dtype)
            if isinstance(self.weight_dtype, str)
            else {torch.float32: 32}.get(self.weight_dtype, 8)
        )
        self.weight_dtype = maybe_convert_str_to_dtype(self.weight_dtype)


def _names(instance: Any, attribute: Any, value: Any) -> None:
    if not isinstance(value, list | tuple) or not all(isinstance(each, str) for each in value):
        raise TypeError(f"LinearQuantizerConfig: {attribute.name} must be a list of names, not {value!r}")


@ModuleToOptConfigRegistry.register_module_cfg(ModuleLinearQuantizerConfig)
@define
class LinearQuantizerConfig(OptimizationConfig):
    """Options of quantization-aware training for the modules of a model.

    Attributes
    ----------
    global_config : ModuleLinearQuantizerConfig or None
    module_type_configs : dict of type, str or function to ModuleLinearQuantizerConfig or None
        Functions count too, such as ``torch.add``: their activations are quantized, or not.
    module_name_configs : dict of str to ModuleLinearQuantizerConfig or None
    non_traceable_module_names : list of str
        Modules that are left alone, with all that is in them.
    preserved_attributes : list of str
        Accepted; models keep all their attributes here.
    """

    _module_config = ModuleLinearQuantizerConfig

    non_traceable_module_names: Any = field(factory=list, validator=_names)
    preserved_attributes: Any = field(factory=list, validator=_names)

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        self.module_type_configs = type(self.module_type_configs)(
            (maybe_convert_str_to_mod_type(key), value) for key, value in self.module_type_configs.items()
        )
        self._validate_same_params(["quantization_scheme", "algorithm"])
