"""Observers and fake quantization under coremltools' names."""

from __future__ import annotations

from .....training.fake_quantize import FakeQuantize as _FakeQuantize

try:  # so that PyTorch's functions that turn observers on and off know ours; nothing else depends on them
    from torch.ao.quantization import FakeQuantize as _TorchFakeQuantize
except ImportError:
    pass
else:
    _TorchFakeQuantize.register(_FakeQuantize)
