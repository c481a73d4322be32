"""Which weights of a program a config matches, and the steps it assigns to them."""

from __future__ import annotations

from math import prod

from ..config import Config
from ..config.rule_names import resolve_names
from ..config.weight_config import WeightConfig
from ..errors import Skip
from .format.data_types import FLOATS
from .format.values import MINIMUM_BLOB_COUNT
from .program.position_tables import is_position_table
from .program.program import Program, Weight
from .program.storage import is_compressed, visible_weights
from .reports.records import ALREADY_COMPRESSED

_MULTIPLIES = {"linear", "matmul", "conv"}


def bind_rules(config: Config, program: Program) -> tuple[Config, tuple[str, ...], tuple[str, ...]]:
    """Resolve the rules by name of a config so that they match a program.

    Returns
    -------
    config : Config
        The config.
    notes : tuple of str
        The rules that were not read literally, and what they match.
    unmatched : tuple of str
        Descriptions of the rules that match no weight of the program.
    """
    weights = visible_weights(program)
    consumers = [consumer for weight in weights for consumer in weight.consumers]
    names = [name for weight in weights for name in weight.names]
    names += [consumer.name for consumer in consumers]
    names = list(dict.fromkeys(names))
    config, notes = resolve_names(config, names, _tied_embedding(weights))
    op_types = dict.fromkeys(consumer.operation for consumer in consumers)
    return config, notes, config.unmatched(names, list(op_types))


def _tied_embedding(weights: list[Weight]) -> str | None:
    """The weight that is both looked up and multiplied by, if there is one."""
    found = [
        weight.first.name
        for weight in weights
        if "gather" in weight.consumer_types and not _MULTIPLIES.isdisjoint(weight.consumer_types)
    ]
    return found[0] if len(found) == 1 else None


def select(config: Config, weight: Weight) -> WeightConfig:
    """The steps for a weight; raises `Skip` if it is left unchanged."""
    operations = [(consumer.name, consumer.operation) for consumer in weight.consumers]
    found = config.for_weight(weight.names, operations)
    threshold = found[0].weight_threshold if len(found) == 1 else None
    _require_candidate(weight, config, config.weight_threshold if threshold is None else threshold)
    if len(found) > 1:
        choices = " or ".join(each.description for each in found)
        raise Skip(f"the operations that use it disagree: {choices}")
    if not found[0].steps:
        raise expected_skip("the config keeps it")
    return found[0]


def _require_candidate(weight: Weight, config: Config, weight_threshold: int) -> None:
    """Skip weights that no config selects."""
    first, count = weight.first, prod(weight.first.shape)
    if is_compressed(weight) and not config.joint_compression:
        raise expected_skip(ALREADY_COMPRESSED)
    if first.data_type not in FLOATS:
        raise expected_skip(f"{first.data_type.name} is not float16 or float32")
    if len(first.shape) < 2:
        raise expected_skip("vector, such as a bias or a norm")
    if count <= max(weight_threshold, MINIMUM_BLOB_COUNT - 1):
        raise expected_skip(f"small: at most {weight_threshold} elements")
    if weight.feeds_definition:
        raise expected_skip("operand of a compressed weight")
    if not weight.consumers:
        raise expected_skip("no operation uses it")
    if (
        config.keep_position_tables
        and is_position_table(first.name, weight.consumer_types)
        and config.by_name(weight.names) is None
    ):
        raise expected_skip("position table")
    if weight.feeds_output:
        raise expected_skip("block output, which Core ML does not take from a compressed weight")


def expected_skip(reason: str) -> Skip:
    """A reason to leave a weight unchanged that needs no warning."""
    return Skip(reason, expected=True)
