"""Policies for sharding, which are accepted and are PyTorch's."""

from __future__ import annotations

import torch

from corepress.optimize.torch._utils.fsdp_utils import ModuleWrapPolicy, SizeBasedWrapPolicy, sync_tensor


def test_policies():
    assert ModuleWrapPolicy([torch.nn.Linear]).get_policy()._module_classes == {torch.nn.Linear}
    policy = SizeBasedWrapPolicy(100).get_policy()
    layer = torch.nn.Linear(20, 20)
    assert policy(module=layer, recurse=False, nonwrapped_numel=420)
    assert not policy(module=layer, recurse=False, nonwrapped_numel=42)
    value = torch.ones(3)
    assert sync_tensor(value) is value
