"""Which weights of a model a config matches, and the steps it assigns to them."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from ..config import Config
from ..config.rule_names import resolve_names
from ..config.weight_config import WeightConfig
from ..errors import Skip
from .position_tables import is_position_table
from .records import ALREADY_COMPRESSED
from .weights import Weight

_MULTIPLIES = {"linear", "matmul", "conv", "broadcasting_batch_matmul", "batch_matmul", "conv2d"}
_READS_ROWS = {"gather", "gather_nd"}


def bind_rules(config: Config, weights: Sequence[Weight]) -> tuple[Config, tuple[str, ...], tuple[str, ...]]:
    """Resolve the rules by name of a config so that they match the weights of a model.

    Returns
    -------
    config : Config
        The config.
    notes : tuple of str
        The rules that were not read literally, and what they match.
    unmatched : tuple of str
        Descriptions of the rules that match no weight of the model.
    """
    consumers = [consumer for weight in weights for consumer in weight.consumers]
    names = [name for weight in weights for name in weight.names]
    names += [consumer.name for consumer in consumers]
    names = list(dict.fromkeys(names))
    config, notes = resolve_names(config, names, _tied_embedding(weights))
    op_types = dict.fromkeys(consumer.operation for consumer in consumers)
    return config, notes, config.unmatched(names, list(op_types))


def _tied_embedding(weights: Sequence[Weight]) -> str | None:
    """The weight that is both looked up and multiplied by, if there is one."""
    found = [
        weight.name
        for weight in weights
        if not _READS_ROWS.isdisjoint(weight.consumer_types) and not _MULTIPLIES.isdisjoint(weight.consumer_types)
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
    if weight.is_compressed and not config.joint_compression:
        raise expected_skip(ALREADY_COMPRESSED)
    if weight.dtype not in weight.float_dtypes:
        raise expected_skip(f"{weight.dtype} is not {_or(weight.float_dtypes)}")
    if len(weight.shape) < 2:
        raise expected_skip("vector, such as a bias or a norm")
    if prod(weight.shape) <= weight_threshold:
        raise expected_skip(f"small: at most {weight_threshold} elements")
    if not weight.consumers:
        raise expected_skip("no operation uses it")
    if (
        config.keep_position_tables
        and is_position_table(weight.name, weight.consumer_types)
        and config.by_name(weight.names) is None
    ):
        raise expected_skip("position table")
    if weight.obstacle is not None:
        raise expected_skip(weight.obstacle)


def _or(words: Sequence[str]) -> str:
    return " or ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def expected_skip(reason: str) -> Skip:
    """A reason to leave a weight unchanged that needs no warning."""
    return Skip(reason, expected=True)
