"""``linear_quantize_activations`` of ``coremltools.optimize.coreml``, on top of `corepress.calibration`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from coremltools.models import utils as model_utils
from coremltools.optimize.coreml import OpLinearQuantizerConfig
from coremltools.optimize.coreml import linear_quantize_activations as peer_linear_quantize_activations

from ...calibration.activation_config import activation_config
from ...calibration.activation_observer import collect_ranges
from ...calibration.activation_pairs import ActivationQuantization
from ...calibration.activations import write_quantized
from ...coreml.format.package import Package
from ...coreml.format.versions import IOS17
from ...coreml.program.program import Program
from ...coreml.program.raising_ios17 import obstacle
from .functions import check_config
from .models import model_of, new_package, package_of, require_program

_NAME = "linear_quantize_activations"


def linear_quantize_activations(
    mlmodel: Any, config: Any, sample_data: Sequence[Any], calibration_op_group_size: int = -1
) -> Any:
    """Quantize the activations of a model; see ``coremltools.optimize.coreml.linear_quantize_activations``.

    Parameters
    ----------
    mlmodel : coremltools.models.MLModel
        An ML program.
    config : OptimizationConfig
        With ``OpLinearQuantizerConfig`` of 8 bits for all operations, by operation type or by name; None leaves
        operations alone.
    sample_data : list of dict
        Inputs as for ``predict``; the only input of a model may have the key None.
    calibration_op_group_size : int
        Has no effect: all ranges are taken in one run for each sample.

    Returns
    -------
    MLModel
        With pairs of ``quantize`` and ``dequantize`` operations, raised to iOS 17 if it is older.

    Raises
    ------
    TypeError
        If the model is not an ML program.
    ValueError
        For several functions, configs or samples that do not fit, and models without an operation to quantize.
    MissingExtraError
        If PyTorch is not installed.
    """
    require_program(_NAME, mlmodel)
    check_config(_NAME, config, (OpLinearQuantizerConfig,))
    if config._is_deprecated:
        return peer_linear_quantize_activations(mlmodel, config, sample_data, calibration_op_group_size)
    samples = [dict(_named(sample, mlmodel)) for sample in sample_data]
    with _raisable_package_of(mlmodel) as package, new_package() as path:
        ranges = collect_ranges(package, samples)
        (function_name,) = mlmodel._spec.mlProgram.functions
        quantization = ActivationQuantization(
            function_name, ranges, activation_config(config), required=False, splits=True
        )
        write_quantized(package, path, quantization, overwrite=True)
        return model_of(path, mlmodel)


def _named(sample: Any, model: Any) -> Iterator[tuple[str, Any]]:
    for name, value in sample.items():
        if name is None:
            inputs = model._spec.description.input
            if len(sample) > 1 or len(inputs) > 1:
                raise ValueError(
                    "When the model has multiple inputs, please provide the name for each data in `sample_data`"
                )
            name = inputs[0].name
        yield name, value


@contextmanager
def _raisable_package_of(model: Any) -> Iterator[Path]:
    """The package of a model, by coremltools made one of iOS 17 if only that can."""
    with package_of(model) as root:
        (part,) = Program(Package.open(root)).parts
        if obstacle(part) is None:
            yield root
            return
    with package_of(model_utils._apply_graph_pass(model, [], spec_version=IOS17)) as root:
        yield root
