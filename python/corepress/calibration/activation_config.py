"""Which operations get quantized inputs and outputs, and how: globally, by type and by name."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ..config.from_coremltools import is_optimization_config
from ..coreml.program.graph import Operation
from ..coreml.program.quantize_pairs import DEFAULT_OPERATIONS, OPERANDS
from ..suggestions import suggestion

MODES = ("linear", "linear_symmetric")
FITS = ("minmax", "mse")
DTYPES = ("int8", "uint8")
AUTO = "auto"
_ATTENTION = "attention"  # in short, what attention is made of
_IN_SHORT = {_ATTENTION: ("matmul", "scaled_dot_product_attention")}


@dataclass(frozen=True)
class ActivationQuantizer:
    """How the inputs and outputs of operations are quantized.

    Parameters
    ----------
    mode : {"linear", "linear_symmetric"}
        Whether the range of levels is that of the values (and of 0), or symmetric around zero.
    range : {"minmax", "mse"}
        Whether all values of the samples are within the range, or it is the one with the least squared error.
    dtype : {"int8", "uint8"}
        Type of the levels.
    result : bool
        Whether the result is quantized too, where the next operation does not quantize it anyway.
    """

    mode: str = "linear"
    range: str = "minmax"
    dtype: str = "int8"
    result: bool = True

    def __post_init__(self) -> None:
        for name, allowed in (("mode", MODES), ("range", FITS), ("dtype", DTYPES)):
            value = getattr(self, name)
            if value not in allowed:
                raise ValueError(
                    f"quantize_activations: {name} is {value!r}, but must be one of {', '.join(allowed)}"
                    f"{suggestion(value, allowed)}"
                )
        if not isinstance(self.result, bool):
            raise ValueError(f"quantize_activations: result is {self.result!r}, but must be True or False")


@dataclass(frozen=True)
class ActivationConfig:
    """How each operation is treated: by its name, else by its type, else as all.

    Attributes
    ----------
    operations : tuple of str
        Types of operations that are quantized.
    quantizer : ActivationQuantizer or None
        For operations without an entry; None leaves them alone.
    op_types, op_names : dict of str to ActivationQuantizer or None
        For operations of a type, and of a name.
    reasons : dict of str to str
        Why operations are left out, or their results are, by name; for reports.
    """

    operations: tuple[str, ...] = DEFAULT_OPERATIONS
    quantizer: ActivationQuantizer | None = field(default_factory=ActivationQuantizer)
    op_types: Mapping[str, ActivationQuantizer | None] = field(default_factory=dict)
    op_names: Mapping[str, ActivationQuantizer | None] = field(default_factory=dict)
    reasons: Mapping[str, str] = field(default_factory=dict)

    def quantizer_of(self, operation: Operation) -> ActivationQuantizer | None:
        """How an operation is treated; None if it is left alone."""
        outputs = (value.name for value in operation.outputs)
        for name in (operation.name, *outputs):
            if name in self.op_names:
                return self.op_names[name]
        return self.op_types.get(operation.type, self.quantizer)

    def reason_against(self, operation: Operation) -> str | None:
        """Why an operation is left alone; None if it is not."""
        named = any(name in self.op_names for name in (operation.name, *(value.name for value in operation.outputs)))
        if operation.type not in self.operations and not (named and self.quantizer_of(operation) is not None):
            return "not among the operations"
        if self.quantizer_of(operation) is not None:
            return None
        return self.reasons.get(operation.name, "left out by the config")

    def reason_against_result(self, operation: Operation) -> str | None:
        """Why its inputs alone are quantized; None if its result is too."""
        quantizer = self.quantizer_of(operation)
        if quantizer is None or quantizer.result:
            return None
        return self.reasons.get(operation.name, "left out by the config")


def activation_config(
    config: Any = None, *, mode: str = "linear", range: str = "minmax", operations: Collection[str] | str | None = None
) -> ActivationConfig:
    """The config of a call of `quantize_activations`.

    Parameters
    ----------
    config : dict, ActivationConfig or coremltools.optimize.coreml.OptimizationConfig, optional
        Rules by operation type and name: ``{"op_types": {"add": None}, "op_names": {"conv_3": {"mode": "linear"}}}``;
        ``"global"`` holds the options of all others.
    mode, range : str
        Of what the config leaves open.
    operations : str or collection of str, optional
        Types of operations; "attention" is short for matmul and scaled_dot_product_attention. None for coremltools';
        so does "auto" where no type is named with it.

    Raises
    ------
    ValueError
        If an option or a type is not known.
    """
    default = ActivationQuantizer(mode, range)
    types = _operation_types(operations)
    if config is None:
        return ActivationConfig(types, default)
    if isinstance(config, ActivationConfig):
        return config
    if is_optimization_config(config):
        if getattr(config, "_op_selector", None) is not None:
            raise ValueError("quantize_activations: op_selector is a function of coremltools' operations; name them")
        given: dict[str, Any] = {"global": config.global_config}
        given |= {"op_types": config.op_type_configs, "op_names": config.op_name_configs}
    elif isinstance(config, Mapping):
        given = dict(config)
    else:
        raise TypeError(
            "quantize_activations: config must be a dict or coremltools' OptimizationConfig, not "
            f"{type(config).__name__}"
        )
    known = ("global", "op_types", "op_names")
    for key in given:
        if key not in known:
            raise ValueError(
                f"quantize_activations: config has {key!r}, but takes {', '.join(known)}{suggestion(key, known)}"
            )
    rules = {
        key: {str(name): _quantizer(value, default) for name, value in _dict(key, given.get(key)).items()}
        for key in ("op_types", "op_names")
    }
    for name, quantizer in rules["op_types"].items():
        if quantizer is not None:
            _operation_types([name])
            types = tuple(dict.fromkeys((*types, name)))
    quantizer = _quantizer(given["global"], default) if "global" in given else default
    return ActivationConfig(types, quantizer, rules["op_types"], rules["op_names"])


def _dict(key: str, value: Any) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise TypeError(f"quantize_activations: {key} of the config must be a dict, not {type(value).__name__}")
    return value


def _quantizer(value: Any, default: ActivationQuantizer) -> ActivationQuantizer | None:
    if value is None or isinstance(value, ActivationQuantizer):
        return value
    if isinstance(value, Mapping):
        known = ("mode", "range", "dtype", "result")
        for key in value:
            if key not in known:
                raise ValueError(
                    f"quantize_activations: an operation has the option {key!r}, but may have {', '.join(known)}"
                    f"{suggestion(key, known)}"
                )
        return replace(default, **value)
    if hasattr(value, "mode") and hasattr(value, "nbits"):  # coremltools' OpLinearQuantizerConfig
        signed = "int" if getattr(value, "signed", True) else "uint"
        return replace(default, mode=str(value.mode).lower(), dtype=f"{signed}{value.nbits}")
    raise TypeError(
        "quantize_activations: the config of an operation must be a dict, OpLinearQuantizerConfig or None, not "
        f"{type(value).__name__}"
    )


def is_chosen(operations: Collection[str] | str | None) -> bool:
    """Whether those that do too much harm are to be found and left out."""
    return operations is not None and AUTO in _names(operations)


def _names(operations: Collection[str] | str) -> list[Any]:
    given = operations.split(",") if isinstance(operations, str) else operations
    return [each.strip() if isinstance(each, str) else each for each in given]


def _operation_types(operations: Collection[str] | str | None) -> tuple[str, ...]:
    if operations is None:
        return DEFAULT_OPERATIONS
    given = [name for name in _names(operations) if name != AUTO]
    if not given and is_chosen(operations):
        return DEFAULT_OPERATIONS
    found: dict[str, None] = {}
    for name in given:
        if name == "default":
            found |= dict.fromkeys(DEFAULT_OPERATIONS)
        elif name in _IN_SHORT:
            found |= dict.fromkeys(_IN_SHORT[name])
        elif name in OPERANDS:
            found[name] = None
        else:
            known = (*OPERANDS, *_IN_SHORT, "default", AUTO)
            raise ValueError(
                f"quantize_activations: operation {name!r} cannot be quantized, only {', '.join(known)}"
                f"{suggestion(name, known)}"
            )
    if not found:
        raise ValueError("quantize_activations: operations must not be empty")
    return tuple(found)
