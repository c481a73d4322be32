"""Which weights get which steps."""

from .config import DEFAULT_WEIGHT_THRESHOLD, TARGETS, Config, ConfigLike, Rule, as_config
from .weight_config import WeightConfig

__all__ = ["DEFAULT_WEIGHT_THRESHOLD", "TARGETS", "Config", "ConfigLike", "Rule", "WeightConfig", "as_config"]
