"""Whether options fit a parameter: what does not fit is left unchanged, with a warning."""

from __future__ import annotations

import copy
import logging
from typing import Any

import torch

from ..optimization_config import PalettizationGranularity, QuantizationGranularity

_logger = logging.getLogger(__name__)


class ConfigValidator:
    """Checks of the options for one parameter.

    Parameters
    ----------
    param_name : str
        With the module's name, for messages.
    param : torch.Tensor
    module : torch.nn.Module
    config : ModuleOptimizationConfig
        Copied; the copy, `config`, has what the checks complete.
    module_level_advanced_options : dict, optional
        Of DKM: its ``cluster_permute`` is the order of the axes in which groups are counted.
    """

    def __init__(
        self,
        param_name: str,
        param: torch.Tensor,
        module: torch.nn.Module,
        config: Any,
        module_level_advanced_options: dict[str, Any] | None = None,
    ) -> None:
        self.param_name = param_name
        self.param = param
        self.module = module
        self.config = copy.deepcopy(config)
        self.module_level_advanced_options = module_level_advanced_options or {}

    def validate(self, checks_to_run: list[str]) -> bool:
        """Run the checks named ``sanitize_<name>``; False at the first that does not hold."""
        for name in checks_to_run:
            check = getattr(self, f"sanitize_{name}", None)
            assert check is not None, f"there is no check {name}"
            if not check():
                return False
        return True

    def sanitize_quantization_block_size(self) -> bool:
        """Blocks along the first two axes that divide them; one row a block where only columns are in blocks."""
        config, shape = self.config, self.param.shape
        if config.granularity != QuantizationGranularity.per_block:
            return True
        sizes = tuple(config.block_size)
        if len(sizes) > len(shape):
            return self._refuse(f"block_size {sizes} has more sizes than the weight has axes, {len(shape)}")
        if any(size not in (0, shape[axis]) for axis, size in enumerate(sizes) if axis > 1):
            return self._refuse(f"block_size {sizes} has blocks along other axes than the output and input channels")
        rows, columns = sizes[:2] if len(sizes) > 1 else (0, sizes[0])
        in_rows, in_columns = 0 < rows < shape[0], 0 < columns < shape[1]
        if not in_rows and not in_columns:
            return self._refuse(f"block_size {sizes} does not divide shape {tuple(shape)} into more than one block")
        if in_columns and not in_rows:
            rows, in_rows = 1, True
        for axis, size, blocked in ((0, rows, in_rows), (1, columns, in_columns)):
            if blocked and shape[axis] % size:
                return self._refuse(f"block_size={size} does not divide the axis length {shape[axis]}")
        config.block_size = (rows, columns)
        return True

    def sanitize_palettization_group_size(self) -> bool:
        """Groups of channels that divide them."""
        config = self.config
        if config.granularity != PalettizationGranularity.per_grouped_channel:
            return True
        order = self.module_level_advanced_options.get("cluster_permute")
        shape = [self.param.shape[axis] for axis in order] if order else list(self.param.shape)
        length = shape[config.channel_axis or 0]
        if length % config.group_size:
            return self._refuse(f"axis_length={length} is not divisible by group_size={config.group_size}")
        return True

    def sanitize_palettization_cluster_dim(self) -> bool:
        """Vectors along the channel axis that divide it; without a size, scalars."""
        config = self.config
        if config.cluster_dim is None:
            config.cluster_dim = 1
        length = self.param.shape[config.channel_axis or 0]
        if length % config.cluster_dim:
            return self._refuse(
                f"The number of channels in channel axis dimension: {config.channel_axis}, {length} is not divisible "
                f"by cluster_dim={config.cluster_dim}"
            )
        return True

    def _refuse(self, reason: str) -> bool:
        _logger.warning("%s: %s", self.param_name, reason)
        return False


def validate_param_config(
    param_name: str,
    param: torch.Tensor,
    module: torch.nn.Module,
    config: Any,
    checks_to_run: list[str],
    module_level_advanced_options: dict[str, Any] | None = None,
) -> Any:
    """Return the options for a parameter, completed, or None if they do not fit it.

    Parameters are those of `ConfigValidator` and `ConfigValidator.validate`.
    """
    validator = ConfigValidator(param_name, param, module, config, module_level_advanced_options)
    if validator.validate(checks_to_run):
        return validator.config
    _logger.info("Skipping compression for %s", param_name)
    return None
