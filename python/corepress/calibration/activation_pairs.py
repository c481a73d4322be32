"""Pairs of operations that quantize activations, put into a program."""

from __future__ import annotations

from collections.abc import Mapping

from ..coreml.program.graph import Function, Operation, Value
from ..coreml.program.program import Program
from ..coreml.program.quantize_pairs import ALREADY_QUANTIZED, NoParameters, PairInsertion, concat_groups
from ..coreml.program.raising_ios17 import raise_parts
from ..engine.activations import ActivationRecord, PairParameters
from .activation_config import ActivationConfig
from .activation_ranges import ActivationRange, merged_ranges

_LISTED = 4


class ActivationQuantization:
    """Puts the pairs into a program.

    Parameters
    ----------
    function_name : str
        The function.
    ranges : dict of str to ActivationRange
        By the name of the value.
    config : ActivationConfig
        What is quantized, and how.
    required : bool
        Raise if there is nothing to quantize.
    splits : bool
        Quantize also values of two groups so far apart that 8 bits leave nothing of their differences.

    Attributes
    ----------
    records : tuple of ActivationRecord
        What was done, after `edit`.
    raised_from : int or None
        The specification version that the program was raised from.
    notes : tuple of str
        What a user should know.
    """

    def __init__(
        self,
        function_name: str,
        ranges: Mapping[str, ActivationRange],
        config: ActivationConfig,
        *,
        required: bool = True,
        splits: bool = False,
    ) -> None:
        self._name, self._ranges, self._config = function_name, ranges, config
        self._required, self._splits = required, splits
        self._split: dict[str, None] = {}
        self.records: tuple[ActivationRecord, ...] = ()
        self.raised_from: int | None = None
        self.notes: tuple[str, ...] = ()

    def edit(self, program: Program) -> None:
        """Change the model of a program."""
        (part,) = program.parts
        self.raised_from = raise_parts(program, {part.prefix})
        if self.raised_from is not None:
            program = Program(program.package, program.model)
        functions = [each for each in program.graphs[part.prefix] if each.name == self._name and each.is_default]
        (function,) = functions
        self._require_known_names(function)
        ranges = merged_ranges(self._ranges, concat_groups(function))

        def parameters(operation: Operation, value: Value) -> PairParameters:
            quantizer = self._config.quantizer_of(operation)
            found = ranges.get(value.name)
            assert quantizer is not None
            if found is None:
                raise NoParameters("has no range: no sample reached it")
            if found.is_split and not self._splits:
                self._split[value.name] = None
                raise NoParameters("has values of two groups too far apart, as a mask makes them")
            dtype = value.type.data_type.name  # type: ignore[union-attr]
            return found.parameters(
                dtype,
                mode=quantizer.mode,  # type: ignore[arg-type]
                fit=quantizer.range,  # type: ignore[arg-type]
                target=quantizer.dtype,
            )

        path = f"{part.prefix}{self._name}"
        against = self._config.reason_against, parameters, program.names[path], path
        insertion = PairInsertion(function, *against, self._config.reason_against_result)
        self.records = insertion.insert()
        found = any(record.status == "quantized" or record.reason == ALREADY_QUANTIZED for record in self.records)
        if self._required and not found:
            reasons = sorted({f"{record.type}: {record.reason}" for record in self.records})
            why = "; ".join(reasons[:6]) if reasons else "it has none that may be"
            raise ValueError(f"quantize_activations: no operation of function {path} can be quantized ({why})")
        if self._split:
            names = list(self._split)
            more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
            self.notes += (
                "not quantized, since their values are in two groups too far apart, as a mask makes them: "
                f"{', '.join(names[:_LISTED])}{more}",
            )
        others = sorted({each.name for each in program.graphs[part.prefix]} - {self._name})
        if others:
            self.notes += (f"only the activations of function {path} are quantized, not those of {', '.join(others)}",)

    def _require_known_names(self, function: Function) -> None:
        names = {each.name for each in function.operations()}
        names |= {value.name for each in function.operations() for value in each.outputs}
        for name in self._config.op_names:
            if name not in names:
                raise ValueError(f"quantize_activations: op_names of the config has {name!r}, which no operation has")
