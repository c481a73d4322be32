"""What can be done to each weight of a model, and the bytes that it takes; nothing is read but the program."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any, TypeAlias

from ..config import Config, WeightConfig
from ..config.candidates import UNCHANGED, Steps, candidate_key, describe_candidate
from ..engine.opened import OpenedModel, StoredSize
from ..engine.resolution import resolve_all
from ..engine.selection import bind_rules, select
from ..engine.weights import Weight
from ..errors import Skip
from ..specs import Spec

Sizes: TypeAlias = dict[Any, StoredSize]


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
    file_bytes : int
        About the bytes of the model's files for it, alignment and program included.
    form : Form or None
        The form, without data; None for an unchanged weight.
    exact : bool
        Whether sizes are certain; where they depend on the values, they are estimates.
    """

    candidate: Steps
    steps: tuple[Spec, ...]
    nbytes: int
    file_bytes: int
    form: Any = None
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
        Its number among the model's weights.
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
        return self.weight.name

    @property
    def size(self) -> int:
        """Number of elements."""
        return prod(self.weight.shape)

    def option(self, candidate: Steps) -> Option:
        """The option of a candidate; where it has none, the weight is left unchanged."""
        if self.fixed:
            return self.options[0]
        return next((each for each in self.options if each.candidate == candidate), self.unchanged)


@dataclass(frozen=True, eq=False)
class Survey:
    """The weights of a model.

    Attributes
    ----------
    free : tuple of FreeWeight
        Those for which the allocation chooses.
    units : tuple of tuple of int
        Which of them are chosen for together, by their numbers: constants of several functions that have one name.
    candidates : tuple
        The candidates that this model can express.
    notes : tuple of str
        The candidates that it cannot, and rules that were not read literally.
    fixed : dict of int to Form
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
    fixed: Mapping[int, Any]
    fixed_bytes: int
    fixed_size: int
    config: Config


class _Chosen:
    """Takes the place of steps where no rule of a config says what to do."""

    description = "chosen by the allocation"


def survey(opened: OpenedModel, config: Config, candidates: Sequence[Steps], *, strict: bool, named: bool) -> Survey:
    """Find what can be done to each weight.

    Parameters
    ----------
    opened : OpenedModel
        The model; it is not changed.
    config : Config
        Rules; what they match is fixed.
    candidates : sequence of tuple of spec
        What to choose from.
    strict : bool
        Raise for rules that match nothing, as `compress` does.
    named : bool
        Whether the candidates are those of a set; then those that the model cannot express
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
    decisions = opened.decisions(config, strict=strict)
    bound, notes, _ = bind_rules(config, list(opened.keys))
    possible, reasons = _expressible(opened, candidates, drop=named)
    open_config = replace(
        bound,
        global_config=WeightConfig((_Chosen(),), config.global_config.weight_threshold),  # type: ignore[arg-type]
    )
    free: list[FreeWeight] = []
    fixed: dict[int, Any] = {}
    sizes: Sizes = {}
    fixed_bytes = fixed_size = 0
    for number, (weight, key) in enumerate(opened.keys.items()):
        try:
            chosen = select(open_config, weight).steps
        except Skip:
            continue
        if isinstance(chosen[0], _Chosen):
            found = _free(opened, weight, possible, key, number, sizes)
            if found is not None:
                free.append(found)
            continue
        try:
            size = opened.size(weight, decisions.decide(weight).steps)
        except Skip:
            continue
        if size.nbytes >= weight.stored_bytes:
            continue
        if not size.exact:
            found = _free(opened, weight, [chosen], key, number, sizes)
            free += [] if found is None else [replace(found, fixed=True)]
            continue
        fixed[number] = size.form
        fixed_bytes += size.nbytes
        fixed_size += prod(weight.shape)
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


def _expressible(opened: OpenedModel, candidates: Sequence[Steps], *, drop: bool) -> tuple[list[Steps], list[str]]:
    """The candidates that a model can express, and why others cannot be."""
    possible, notes = [], []
    for steps in candidates:
        failure = _inexpressible(opened, steps)
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


def _inexpressible(opened: OpenedModel, steps: Steps) -> ValueError | None:
    """Why a model cannot express a candidate."""
    try:
        if steps:
            opened.check_steps(steps)
    except ValueError as failure:
        return failure
    return None


def _free(
    opened: OpenedModel, weight: Weight, candidates: Sequence[Steps], key: str, number: int, sizes: Sizes
) -> FreeWeight | None:
    """What may be done to a weight; None if nothing makes it smaller."""
    now = weight.stored_bytes
    unchanged = Option(UNCHANGED, (), now, opened.bytes_now(weight))
    options = []
    for candidate in candidates:
        if not candidate:
            options.append(unchanged)
            continue
        try:
            steps = resolve_all(candidate, weight)
            kind = steps, opened.kind(weight)
            if kind not in sizes:  # many weights are alike
                sizes[kind] = opened.size(weight, steps)
            size = sizes[kind]
        except Skip:
            continue
        if size.nbytes < now:
            in_file = opened.file_bytes(weight, size.form)
            options.append(Option(candidate, steps, size.nbytes, in_file, size.form, size.exact))
    if not any(option.candidate for option in options):
        return None
    return FreeWeight(weight, tuple(options), unchanged, key, number)


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
        for other in of[weight.name]:
            first, second = sorted((root(number), root(other)))
            unit[second] = first
    found: dict[int, list[int]] = {}
    for number in range(len(weights)):
        found.setdefault(root(number), []).append(number)
    return tuple(map(tuple, found.values()))
