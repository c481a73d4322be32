"""How modules are wrapped by ``FullyShardedDataParallel``: accepted where coremltools takes it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
from attrs import define
from torch.distributed.fsdp import wrap


def sync_tensor(tensor: torch.Tensor, reduce_op: Any = None) -> torch.Tensor:
    """Return the tensor, reduced over all processes (the mean, unless `reduce_op` says otherwise) if it is theirs.

    On the CPU, and without an initialized process group, nothing is done.
    """
    distributed = torch.distributed
    if tensor.device.type != "cpu" and distributed.is_initialized():
        distributed.all_reduce(tensor.data, op=distributed.ReduceOp.AVG if reduce_op is None else reduce_op)
    return tensor


class FSDPAutoWrapPolicy(ABC):
    """Which modules are wrapped."""

    @abstractmethod
    def get_policy(self) -> Any:
        """Return the policy as PyTorch takes it."""


@define
class ModuleWrapPolicy(FSDPAutoWrapPolicy):
    """Modules of some classes are wrapped.

    Attributes
    ----------
    module_classes : iterable of types
    """

    module_classes: Iterable[type[torch.nn.Module]]

    def get_policy(self) -> Any:
        return wrap.ModuleWrapPolicy(self.module_classes)


@define
class SizeBasedWrapPolicy(FSDPAutoWrapPolicy):
    """Modules of many parameters are wrapped.

    Attributes
    ----------
    min_num_params : int
        More than this many.
    """

    min_num_params: int

    def get_policy(self) -> Any:
        return partial(wrap.size_based_auto_wrap_policy, min_num_params=self.min_num_params)
