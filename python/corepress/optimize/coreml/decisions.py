"""What coremltools' ``OptimizationConfig`` does to each weight: its rules, its errors, its warnings."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np

from ...config import as_config
from ...coreml.decisions import PackageDecisions
from ...coreml.format.data_types import FLOATS
from ...coreml.format.values import MINIMUM_BLOB_COUNT, tensor_type
from ...coreml.format.versions import IOS18
from ...coreml.operations import check_steps
from ...coreml.program.graph import label_of
from ...coreml.program.program import Definition, Program
from ...coreml.program.storage import steps
from ...coreml.program.weights import Weight
from ...engine.decisions import Decision
from ...engine.resolution import require_half_axes
from ...engine.selection import expected_skip, select
from ...engine.weights import Consumer
from ...errors import NonFiniteError, Skip, TooFewZerosError, TooManyValuesError
from ...specs import Palettize, Prune, Spec
from .names import NewName

_NOUNS = {"palettize_weights": "palettization", "linear_quantize_weights": "quantization"}
_SUFFIXES = {
    "palettize_weights": "_palettized",
    "linear_quantize_weights": "_quantized",
    "prune_weights": "_sparsified",
}
_SCALED = "_pcs"  # after the suffix of a palette, for the operation that scales it
_NO_FURTHER_FORM = "cannot be compressed further"
_JOINTLY_PRUNED = ("constexpr_blockwise_shift_scale", "constexpr_lut_to_dense")
_COMPRESSED_FURTHER = {
    ("linear_quantize_weights", "constexpr_lut_to_dense"): "lut",
    ("linear_quantize_weights", "constexpr_lut_to_sparse"): "lut",
    ("linear_quantize_weights", "constexpr_sparse_to_dense"): "nonzero_data",
    ("palettize_weights", "constexpr_sparse_to_dense"): "nonzero_data",
    ("palettize_weights", "constexpr_blockwise_shift_scale"): "data",
}
# Constants of these types and some size are looked up in the config, whatever comes of it.
_LOOKED_UP = ("float16", "float32", "int8", "uint8")


class PeerDecisions(PackageDecisions):
    """Decisions by a coremltools config, for one of its functions.

    Parameters
    ----------
    function : {"palettize_weights", "linear_quantize_weights", "prune_weights"}
        The function that the config is for.
    config : coremltools.optimize.coreml.OptimizationConfig
        The config.
    joint_compression : bool
        Whether compressed weights are compressed further.

    Attributes
    ----------
    program : Program
        The program; after the run, as it was written.
    """

    program: Program

    def __init__(self, function: str, config: Any, joint_compression: bool) -> None:
        super().__init__(as_config(config, joint_compression=joint_compression), strict=False)
        self._function, self._given = function, config
        self._kept: dict[Weight, tuple[str, BaseException | None]] = {}  # the reason, and the exception that gave it
        self._decided: dict[Weight, bool] = {}  # and whether it was stored compressed before
        self._lock = threading.Lock()

    def prepare(self, program: Program) -> None:
        """Check the program as a whole: every constant's consumers must agree."""
        self.program = program
        for definition in program.definitions:
            self._require_agreement(definition)

    def decide(self, weight: Weight) -> Decision:
        """The decision for a weight; raises `Skip` if it is left unchanged."""
        try:
            chosen = select(self._config, weight).steps
        except Skip as reason:
            raise self.kept(weight, reason) from None
        if self._config.joint_compression:
            self._require_joint_form(weight)
        given = self._config_of(weight)
        self._require_version(given, weight.first.version)
        check_steps(chosen, weight.first.version)
        block_size = getattr(given, "block_size", None)
        if isinstance(block_size, list | tuple) and len(block_size) != len(weight.first.shape):
            raise ValueError(
                "The block_size in config must has one element for each axis. However, for op "
                f"{_name_of(weight.first)}, there are {len(block_size)} elements in block_size, but there are "
                f"{len(weight.first.shape)} axes in the weight."
            )
        decision = super().decide(weight)
        self._decided[weight] = weight.is_compressed
        return replace(decision, steps=tuple(map(self._on_copies, decision.steps)))

    def resolve(self, step: Spec, weight: Weight) -> Spec:
        """A step with axes filled in; a weight configured by name may be pruned in groups whatever its consumers."""
        if isinstance(step, Prune) and step.is_structured and _name_of(weight.first) in self._given.op_name_configs:
            rank = len(weight.first.shape)
            if step.axis >= rank:
                raise Skip(f"rank {rank} has no axis {step.axis}")
            require_half_axes(step, weight)
            return step
        return super().resolve(step, weight)

    def _on_copies(self, step: Spec) -> Spec:
        """A step whose `lut_function` is called as by coremltools: with its own copy of the array, from one thread."""
        if not isinstance(step, Palettize) or step.lut_function is None:
            return step
        lut_function = step.lut_function

        def on_copy(weight: Any) -> Any:
            with self._lock:
                return lut_function(np.array(weight))

        return replace(step, lut_function=on_copy)

    def require_smaller(self, weight: Weight, nbytes: int) -> None:
        """Accept weights that become larger, as coremltools does."""

    def kept(self, weight: Weight, reason: Skip) -> Exception:
        """Record why a weight that the config selects is left unchanged."""
        if not reason.expected:
            with self._lock:
                self._kept[weight] = str(reason), reason.__cause__
        return reason

    def new_names(self) -> Iterator[NewName]:
        """The names that coremltools gives to compressed weights, once all work is done."""
        suffix = _SUFFIXES[self._function]
        for weight, was_compressed in self._decided.items():
            # In a joint form it is an operand that gets the suffix, unless zeros are taken out of all that is stored.
            if weight in self._kept or (was_compressed and self._function != "prune_weights"):
                continue
            scaled = getattr(self._config_of(weight), "enable_per_channel_scale", False)
            for definition in weight.definitions:
                yield NewName(definition, suffix + _SCALED, suffix) if scaled else NewName(definition, suffix)

    def messages(self) -> list[str]:
        """coremltools' warnings about weights that are left unchanged."""
        order = {weight: index for index, weight in enumerate(self._decided)}
        kept = sorted(self._kept.items(), key=lambda pair: order.get(pair[0], -1))
        return [message for weight, why in kept for message in self._messages_of(weight, *why)]

    def _messages_of(self, weight: Weight, reason: str, cause: BaseException | None) -> list[str]:
        name = _name_of(weight.first)
        if reason.startswith(_NO_FURTHER_FORM):
            return []  # coremltools does not compress it further either, and says nothing of it
        if self._function == "prune_weights":
            given = self._config_of(weight)
            what = f"weight value: {cause}" if isinstance(cause, TooFewZerosError) else reason
            return [f"{what}. Skipped.", f"op named {name} not applicable for {given} configuration. Skipped."]
        noun = _NOUNS[self._function]
        if isinstance(cause, NonFiniteError) and self._function == "linear_quantize_weights":
            return [f"The const {name} has inf/-inf or NaN, which is not supported by quantization. Skipped."]
        if isinstance(cause, TooManyValuesError):
            reason = "Unique values in weight cannot be represented by 8 bits palettization."
        elif reason.startswith("cluster_dim"):
            return [f"{reason}.", f"The `cluster_dim` is invalid for {name}. Skipped this op."]
        return [f"Can't perform {noun}: {reason}", f"Cannot perform {noun} on {name}. Skipped this op."]

    def _config_of(self, weight: Weight) -> Any:
        """The op config of a weight, if one selects it."""
        return next(config for each in weight.definitions for config in self._configs_of(each))

    def _configs_of(self, definition: Definition) -> list[Any]:
        """The op configs of a constant's consumers, or the one for its name."""
        by_name, by_type = self._given.op_name_configs, self._given.op_type_configs
        for name in (_name_of(definition), definition.output_name):
            if name in by_name:
                return [by_name[name]]

        def config_of(consumer: Consumer) -> Any:
            if consumer.name in by_name:
                return by_name[consumer.name]
            return by_type.get(consumer.operation, self._given.global_config)

        return [config_of(consumer) for consumer in definition.consumers]

    def _require_agreement(self, definition: Definition) -> None:
        if definition.data_type.name not in _LOOKED_UP or prod(definition.shape) < MINIMUM_BLOB_COUNT:
            return
        if definition.operation.type != "const" and not self._config.joint_compression:
            return
        configs = self._configs_of(definition)
        for consumer, config in zip(definition.consumers, configs, strict=False):
            if config != configs[0]:
                first = definition.consumers[0]
                raise ValueError(
                    f"compression config conflict detected between ops {first.name} and {consumer.name}, which share "
                    f"{_name_of(definition)}. {first.name} has config {configs[0]} while {consumer.name} has {config}."
                )

    def _require_version(self, given: Any, version: int) -> None:
        """Refuse what needs iOS 18, with coremltools' message."""
        if version >= IOS18:
            return
        what, granularity = None, getattr(getattr(given, "granularity", None), "name", "").lower()
        if granularity in ("per_grouped_channel", "per_block"):
            what = granularity
        elif getattr(given, "cluster_dim", 1) > 1:
            what = "vector"
        elif self._function == "linear_quantize_weights" and given.nbits == 4:
            what = "4-bit"
        if what is not None:
            raise ValueError(
                f"The {what} {_NOUNS[self._function]} is supported since iOS18. Please re-convert your model with "
                "minimum_deployment_target set to at least ct.target.iOS18."
            )
        if getattr(given, "enable_per_channel_scale", False):
            raise ValueError(
                "Palettization with per-channel-scale is only supported since iOS18. Please set "
                "minimum_deployment_target accordingly."
            )

    def _require_joint_form(self, weight: Weight) -> None:
        """Skip weights without a joint form; refuse per-channel scales for quantized palettes."""
        first = weight.first
        if self._function == "prune_weights" and first.operation.type not in _JOINTLY_PRUNED:
            raise expected_skip("not compressed in a form that is pruned")
        for step in steps(first) if weight.is_compressed else ():
            # What is compressed further is a constant itself, and coremltools leaves small ones alone.
            name = _COMPRESSED_FURTHER.get((self._function, step.operation.type))
            declared = tensor_type(step.parameters[name].type, step.where) if name in step.parameters else None
            if declared is None:
                continue
            if prod(declared[1]) < MINIMUM_BLOB_COUNT:
                raise expected_skip(f"its {name} has less than {MINIMUM_BLOB_COUNT} elements")
            if name == "lut" and declared[0] in FLOATS and self._config_of(weight).granularity.name != "PER_TENSOR":
                raise NotImplementedError(
                    "When use joint compression for palettization-quantization, please make sure to use per-tensor "
                    "quantization, because the axis for the data to be quantized (palettization's lut) is different "
                    "from the original weight."
                )


def _name_of(definition: Definition) -> str:
    return label_of(definition.operation)
