"""The functions of ``coremltools.optimize.coreml``, on top of `corepress.coreml`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from coremltools import _logger as logger
from coremltools.optimize.coreml import (
    OpLinearQuantizerConfig,
    OpMagnitudePrunerConfig,
    OpPalettizerConfig,
    OpThresholdPrunerConfig,
    OptimizationConfig,
)
from coremltools.optimize.coreml import decompress_weights as peer_decompress_weights
from coremltools.optimize.coreml import linear_quantize_weights as peer_linear_quantize_weights
from coremltools.optimize.coreml import palettize_weights as peer_palettize_weights
from coremltools.optimize.coreml import prune_weights as peer_prune_weights
from tqdm import tqdm

from ...coreml.compressor import compress_as_decided
from ...coreml.decompressor import decompress
from ...coreml.format.package import Package
from ...coreml.format.schema import serialize_model
from ...engine.report import Progress
from ...outputs import write_output
from .decisions import PeerDecisions
from .models import model_of, new_package, package_to_compress, require_program
from .names import rename

IOS18_VERSION = 9


@dataclass(frozen=True)
class _Verb:
    """A function, coremltools' own version of it, and the configs it accepts."""

    name: str
    peer: Callable[..., Any]
    configs: tuple[type[Any], ...]


def palettize_weights(mlmodel: Any, config: Any, joint_compression: bool = False) -> Any:
    """Palettize the weights of a model; see ``coremltools.optimize.coreml.palettize_weights``.

    Parameters
    ----------
    mlmodel : coremltools.models.MLModel
        An ML program.
    config : OptimizationConfig
        With ``OpPalettizerConfig`` for all weights, by operation type or by name; None leaves weights unchanged.
    joint_compression : bool
        Palettize weights that are already pruned or quantized.

    Returns
    -------
    MLModel
        With ``constexpr_lut_to_dense`` operations in place of the weights' constants.

    Raises
    ------
    TypeError
        If the model is not an ML program.
    ValueError
        For several functions, configs that do not fit, operations that share a weight and disagree, and what the
        model's specification version cannot express.
    """
    return _compressed(mlmodel, config, joint_compression, _PALETTIZE)


def linear_quantize_weights(mlmodel: Any, config: Any, joint_compression: bool = False) -> Any:
    """Quantize the weights of a model; see ``coremltools.optimize.coreml.linear_quantize_weights``.

    Parameters
    ----------
    mlmodel : coremltools.models.MLModel
        An ML program.
    config : OptimizationConfig
        With ``OpLinearQuantizerConfig`` for all weights, by operation type or by name; None leaves weights unchanged.
    joint_compression : bool
        Quantize the stored values of pruned weights, and the palettes (lookup tables, LUTs) of palettized ones.

    Returns
    -------
    MLModel
        With ``constexpr_affine_dequantize`` or ``constexpr_blockwise_shift_scale`` operations in place of the weights'
        constants.

    Raises
    ------
    TypeError
        If the model is not an ML program.
    ValueError
        For several functions, configs that do not fit, operations that share a weight and disagree, and what the
        model's specification version cannot express.
    NotImplementedError
        If palettes are to be quantized with a granularity other than ``"per_tensor"``.
    """
    return _compressed(mlmodel, config, joint_compression, _QUANTIZE)


def prune_weights(mlmodel: Any, config: Any, joint_compression: bool = False) -> Any:
    """Prune the weights of a model; see ``coremltools.optimize.coreml.prune_weights``.

    Parameters
    ----------
    mlmodel : coremltools.models.MLModel
        An ML program.
    config : OptimizationConfig
        With ``OpMagnitudePrunerConfig`` or ``OpThresholdPrunerConfig`` for all weights, by operation type or by name;
        None leaves weights unchanged.
    joint_compression : bool
        Prune weights that are already palettized or quantized, and only these.

    Returns
    -------
    MLModel
        With ``constexpr_sparse_to_dense`` operations in place of the weights' constants.

    Raises
    ------
    TypeError
        If the model is not an ML program.
    ValueError
        For several functions, configs that do not fit, operations that share a weight and disagree, and what the
        model's specification version cannot express.
    """
    return _compressed(mlmodel, config, joint_compression, _PRUNE)


def decompress_weights(mlmodel: Any) -> Any:
    """Decompress the weights of a model; see ``coremltools.optimize.coreml.decompress_weights``.

    Parameters
    ----------
    mlmodel : coremltools.models.MLModel
        An ML program.

    Returns
    -------
    MLModel
        Without ``constexpr`` operations.

    Raises
    ------
    TypeError
        If the model is not an ML program.
    ValueError
        For several functions.
    """
    require_program("decompress_weights", mlmodel)
    with package_to_compress(mlmodel) as package, new_package() as path:
        report = decompress(package, path, overwrite=True)
        found = model_of(path, mlmodel)
    if any(record.status == "kept" and not record.planned for record in report.weights):
        return peer_decompress_weights(found)
    return found


_PALETTIZE = _Verb("palettize_weights", peer_palettize_weights, (OpPalettizerConfig,))
_QUANTIZE = _Verb("linear_quantize_weights", peer_linear_quantize_weights, (OpLinearQuantizerConfig,))
_PRUNE = _Verb("prune_weights", peer_prune_weights, (OpMagnitudePrunerConfig, OpThresholdPrunerConfig))


def _compressed(model: Any, config: Any, joint_compression: bool, verb: _Verb) -> Any:
    require_program(verb.name, model)
    check_config(verb.name, config, verb.configs)
    if not isinstance(joint_compression, bool):
        raise ValueError(f"joint_compression only supports bool, but got {type(joint_compression)}")
    if config._is_deprecated:
        return verb.peer(model, config, joint_compression)
    if joint_compression and model._spec.specificationVersion < IOS18_VERSION:
        raise ValueError(
            "Joint compression is only supported since iOS18. Please re-convert your model with "
            "minimum_deployment_target set to at least ct.target.iOS18."
        )
    decisions = PeerDecisions(verb.name, config, joint_compression)
    with package_to_compress(model) as package, new_package() as path:
        with tqdm(desc=f"Running compression pass {verb.name}", unit=" weights", unit_scale=True) as bar:
            compress_as_decided(package, path, decisions, progress=_shown(bar), overwrite=True, num_threads=None)
        for message in decisions.messages():
            logger.warning(message)
        rename(decisions.program, decisions.new_names())
        write_output(Package.open(path).model_path, serialize_model(decisions.program.model))
        return model_of(path, model)


def check_config(function: str, config: Any, configs: tuple[type[Any], ...]) -> None:
    """Refuse what is not an ``OptimizationConfig`` of a function's configs, in coremltools' words."""
    if not isinstance(config, OptimizationConfig):
        raise ValueError(f"config must be of type OptimizationConfig. Got {type(config)}.")
    for each in (config.global_config, *config.op_type_configs.values(), *config.op_name_configs.values()):
        if each is not None and not isinstance(each, configs):
            known = ", ".join(known.__name__ for known in configs)
            raise ValueError(f"{function} only accept {known} type config. Got {type(each).__name__}.")
    if "const" in config.op_type_configs:
        raise ValueError("const ops cannot be set by the `set_op_type` function. Please use `set_global`")


def _shown(bar: Any) -> Callable[[Progress], None]:
    def show(progress: Progress) -> None:
        bar.total = progress.total_weights
        bar.update(progress.done_weights - bar.n)

    return show
