"""What can be done to each weight of a program, and the bytes that it takes; nothing is read but the program."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any, TypeAlias

from ..config import Config, WeightConfig
from ..config.candidates import UNCHANGED, Steps, candidate_key, describe_candidate
from ..coreml.decisions import PackageDecisions
from ..coreml.format.values import Tensor, blob_value, inline_value, tensor_type
from ..coreml.format.weight_file import WeightFileLayout
from ..coreml.operations import OperationForm, check_steps
from ..coreml.program.identity import weight_keys
from ..coreml.program.program import Program
from ..coreml.program.raising import obstacle
from ..coreml.program.storage import steps as definitions_of
from ..coreml.program.weights import Weight, visible_weights
from ..coreml.sizes import StoredSize, stored_size
from ..engine.resolution import resolve_all
from ..engine.selection import bind_rules, select
from ..errors import Skip
from ..specs import Spec

Sizes: TypeAlias = dict[Any, StoredSize]

_ANYWHERE = 1 << 28  # an offset in a weight file, for the bytes of its number


@dataclass(frozen=True, eq=False)
class Option:
    """One way to store a weight.

    Attributes
    ----------
    candidate : tuple of spec
        The steps as a config has them; none to leave the weight unchanged.
    steps : tuple of spec
        The same with the weight's axes and groups filled in.
    nbytes : int
        Bytes that are stored: codes, tables, scales and masks.
    package_bytes : int
        About the bytes of the package for it: in the weight file with records and alignment, and in the program.
    form : OperationForm or None
        The form, without data; None for an unchanged weight.
    exact : bool
        Whether sizes are certain; where they depend on the values, they are estimates.
    """

    candidate: Steps
    steps: tuple[Spec, ...]
    nbytes: int
    package_bytes: int
    form: OperationForm | None = None
    exact: bool = True

    @property
    def key(self) -> str:
        """The candidate's name in files."""
        return candidate_key(self.candidate)

    @property
    def description(self) -> str:
        """The candidate in words."""
        return describe_candidate(self.candidate)


@dataclass(frozen=True, eq=False)
class FreeWeight:
    """A weight for which an option is to be chosen.

    Attributes
    ----------
    weight : Weight
        The weight.
    options : tuple of Option
        What may be done to it.
    unchanged : Option
        What it takes now, whether or not that may be chosen.
    key : str
        Its name in files of calibration.
    number : int
        Its number among the program's visible weights.
    fixed : bool
        Whether a rule of the config says what is done, so that it has this option only; such weights are here if their
        bytes depend on their values.
    """

    weight: Weight
    options: tuple[Option, ...]
    unchanged: Option
    key: str
    number: int
    fixed: bool = False

    @property
    def name(self) -> str:
        """Its name in the report."""
        return str(self.weight.first.name)

    @property
    def size(self) -> int:
        """Number of elements."""
        return prod(self.weight.first.shape)

    def option(self, candidate: Steps) -> Option:
        """The option of a candidate; where it has none, the weight is left unchanged."""
        if self.fixed:
            return self.options[0]
        return next((each for each in self.options if each.candidate == candidate), self.unchanged)


@dataclass(frozen=True, eq=False)
class Survey:
    """The weights of a program.

    Attributes
    ----------
    free : tuple of FreeWeight
        Those for which the allocation chooses.
    units : tuple of tuple of int
        Which of them are chosen for together, by their numbers: constants of several functions that have one name.
    candidates : tuple
        The candidates that this program can express.
    notes : tuple of str
        The candidates that it cannot, and rules that were not read literally.
    fixed : dict of int to OperationForm
        The forms of the other weights that rules of the config compress, by their numbers.
    fixed_bytes, fixed_size : int
        Stored bytes and elements of these.
    config : Config
        The config with its rules resolved.
    """

    free: tuple[FreeWeight, ...]
    units: tuple[tuple[int, ...], ...]
    candidates: tuple[Steps, ...]
    notes: tuple[str, ...]
    fixed: Mapping[int, OperationForm]
    fixed_bytes: int
    fixed_size: int
    config: Config


class _Chosen:
    """Takes the place of steps where no rule of a config says what to do."""

    description = "chosen by the allocation"


def survey(program: Program, config: Config, candidates: Sequence[Steps], *, strict: bool, named: bool) -> Survey:
    """Find what can be done to each weight.

    Parameters
    ----------
    program : Program
        The program; it is not changed.
    config : Config
        Rules; what they match is fixed.
    candidates : sequence of tuple of spec
        What to choose from.
    strict : bool
        Raise for rules that match nothing, as `compress` does.
    named : bool
        Whether the candidates are those of a set; then those that the program's specification version cannot express
        are left out.

    Raises
    ------
    ValueError
        If the config has steps for all weights, or there is nothing to choose for.
    """
    if config.global_config.steps:
        raise ValueError(
            f"allocate: the config has steps for all weights ({config.global_config.description}), which leaves "
            "nothing to choose; give only its rules, or candidates"
        )
    decisions = PackageDecisions(config, strict=strict)
    decisions.prepare(program)
    bound, notes, _ = bind_rules(config, visible_weights(program))
    possible, reasons = _expressible(program, candidates, drop=named)
    open_config = replace(
        bound,
        global_config=WeightConfig((_Chosen(),), config.global_config.weight_threshold),  # type: ignore[arg-type]
    )
    free: list[FreeWeight] = []
    fixed: dict[int, OperationForm] = {}
    sizes: Sizes = {}
    fixed_bytes = fixed_size = 0
    keys = weight_keys(visible_weights(program))
    for number, (weight, key) in enumerate(keys.items()):
        try:
            chosen = select(open_config, weight).steps
        except Skip:
            continue
        if isinstance(chosen[0], _Chosen):
            found = _free(weight, possible, key, number, sizes)
            if found is not None:
                free.append(found)
            continue
        try:
            size = stored_size(weight, decisions.decide(weight).steps)
        except Skip:
            continue
        if size.nbytes >= weight.stored_bytes:
            continue
        if not size.exact:
            found = _free(weight, [chosen], key, number, sizes)
            free += [] if found is None else [replace(found, fixed=True)]
            continue
        fixed[number] = size.form
        fixed_bytes += size.nbytes
        fixed_size += prod(weight.first.shape)
    if all(each.fixed for each in free):
        rules = " that no rule of the config matches" if config.op_types or config.weights else ""
        raise ValueError(f"allocate: no weight{rules} can be compressed with these candidates; nothing to choose")
    used = {option.candidate for each in free for option in each.options if not each.fixed}
    return Survey(
        tuple(free),
        _units([each.weight for each in free]),
        tuple(each for each in possible if each in used),
        (*notes, *reasons),
        fixed,
        fixed_bytes,
        fixed_size,
        bound,
    )


def _expressible(program: Program, candidates: Sequence[Steps], *, drop: bool) -> tuple[list[Steps], list[str]]:
    """The candidates that all parts of a program can express, and why others cannot be."""
    possible, notes = [], []
    for part in program.parts:
        reason = obstacle(part)
        if reason is not None:
            raise ValueError(f"allocate: {reason}")
    for steps in candidates:
        failure = _inexpressible(program, steps)
        if failure is None:
            possible.append(steps)
        elif not drop:
            raise failure
        else:
            notes.append(f"not among the candidates: {describe_candidate(steps)} ({failure})")
    if not any(possible):
        reason = notes[0] if notes else "all candidates leave weights unchanged"
        raise ValueError(f"allocate: no candidates are left: {reason}")
    return possible, notes


def _inexpressible(program: Program, steps: Steps) -> ValueError | None:
    """Why a part of a program cannot express a candidate."""
    try:
        for part in program.parts if steps else ():
            check_steps(steps, part.version, part.model.specificationVersion)
    except ValueError as failure:
        return failure
    return None


def _free(weight: Weight, candidates: Sequence[Steps], key: str, number: int, sizes: Sizes) -> FreeWeight | None:
    """What may be done to a weight; None if nothing makes it smaller."""
    now, first = weight.stored_bytes, weight.first
    unchanged = Option(UNCHANGED, (), now, _bytes_now(weight))
    options = []
    for candidate in candidates:
        if not candidate:
            options.append(unchanged)
            continue
        try:
            steps = resolve_all(candidate, weight)
            kind = (steps, first.shape, first.data_type, first.version, first.operation.type == "const")
            if kind not in sizes:  # many weights are alike
                sizes[kind] = stored_size(weight, steps)
            size = sizes[kind]
        except Skip:
            continue
        if size.nbytes < now:
            in_package = package_bytes(weight, size.form)
            options.append(Option(candidate, steps, size.nbytes, in_package, size.form, size.exact))
    if not any(option.candidate for option in options):
        return None
    return FreeWeight(weight, tuple(options), unchanged, key, number)


def package_bytes(weight: Weight, form: OperationForm) -> int:
    """About the bytes that a weight takes in the package in another form, alignment and program included."""
    files = sum(WeightFileLayout.footprint(tensor.nbytes) for tensor in form.tensors() if tensor.is_blob)
    return files + _program_bytes(form) * len(weight.definitions)


def _bytes_now(weight: Weight) -> int:
    """About the bytes that a weight takes in the package."""
    files, program, seen = 0, 0, set()
    for step in definitions_of(weight.first):
        keys = {reference.parameter: reference.key for reference in step.references}
        for name, value in step.parameters.items():
            program += value.ByteSize() + _overhead(name)
            if name in keys and keys[name] not in seen:
                seen.add(keys[name])
                files += WeightFileLayout.footprint(_payload(value))
    return files + program * len(weight.definitions)


def _payload(value: Any) -> int:
    declared = tensor_type(value.type, "")
    assert declared is not None
    data_type, shape = declared
    return data_type.byte_count(prod(shape))


def _program_bytes(form: OperationForm) -> int:
    """About the bytes that a form takes in the program."""
    return sum(
        _overhead(name) + (_value_bytes(given) if isinstance(given, Tensor) else _overhead(""))
        for each in form.chain()
        for name, given in each.parameters.items()
    ) + sum(_PRODUCER for each in form.chain() if each is not form)


_PRODUCER = 150  # an operation that another one builds on, with its name and type


def _overhead(name: str) -> int:
    """Tags and lengths around a parameter."""
    return len(name) + 8


def _value_bytes(tensor: Tensor) -> int:
    if tensor.is_blob:
        return int(blob_value(tensor, "@model_path/weights/weight.bin", _ANYWHERE).ByteSize())
    return int(inline_value(tensor).ByteSize())


def _units(weights: Sequence[Weight]) -> tuple[tuple[int, ...], ...]:
    """Weights that a rule by name cannot tell apart."""
    of: dict[str, list[int]] = {}
    for number, weight in enumerate(weights):
        for name in weight.names:
            of.setdefault(name, []).append(number)
    unit = list(range(len(weights)))

    def root(number: int) -> int:
        while unit[number] != number:
            number = unit[number]
        return number

    for number, weight in enumerate(weights):
        for other in of[weight.first.name]:
            first, second = sorted((root(number), root(other)))
            unit[second] = first
    found: dict[int, list[int]] = {}
    for number in range(len(weights)):
        found.setdefault(root(number), []).append(number)
    return tuple(map(tuple, found.values()))
