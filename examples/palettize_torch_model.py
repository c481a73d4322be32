"""Palettizes the weights of a torch model before it is converted to Core ML.

corepress finds the tables. Each weight is replaced by the values that are left of it, and its tables are registered
next to it in the buffers that the converter of coremltools reads, so that it stores the layers palettized, with these
tables and no others. From here on the model can also be evaluated in torch, as it will be on the device.

Needs torch, and for coremltools 9.0 an older NumPy: pip install torch "numpy<2.3"
"""

from __future__ import annotations

import argparse
from pathlib import Path

import coremltools as ct
import torch
from torch import nn

import corepress as cp
from corepress import coreml

PREFIX = "_COREML_"  # of buffers that coremltools' converter reads
PALETTIZATION = 2  # its number for this kind of compression


def palettize_weights(model: nn.Module, nbits: int, group_size: int) -> None:
    """Palettize the convolutions and linear layers of a model, in place."""
    model.register_buffer(f"{PREFIX}/metadata_version", torch.tensor(1))
    for name, module in model.named_modules():
        if not isinstance(module, nn.Conv2d | nn.Linear):
            continue
        weight = module.weight.detach()
        palettized = cp.palettize(
            weight,
            nbits=nbits,
            granularity="per_grouped_channel",
            group_size=group_size,
            indivisible="nearest_divisor",
        )
        print(f"{name}: {palettized!r}, {cp.error(weight, palettized).snr_db:.1f} dB")
        module.weight.data = torch.from_numpy(palettized.dense())
        module.register_buffer(f"{PREFIX}/weight/compression_type", torch.tensor([PALETTIZATION]))
        module.register_buffer(f"{PREFIX}/weight/lut", torch.from_numpy(palettized.lut))


def build_model() -> nn.Module:
    """A small network; put your own in its place."""
    torch.manual_seed(0)
    features = nn.Sequential(nn.Conv2d(3, 64, 3), nn.ReLU(), nn.Conv2d(64, 128, 3), nn.ReLU())
    return nn.Sequential(features, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 100)).eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("destination", type=Path, help="the .mlpackage to write")
    parser.add_argument("--nbits", type=int, default=4, help="1, 2, 3, 4, 6 or 8 (default: 4)")
    parser.add_argument("--group-size", type=int, default=16, help="output channels that share a table (default: 16)")
    options = parser.parse_args()

    model, image = build_model(), torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        before = model(image)
        palettize_weights(model, options.nbits, options.group_size)
        after = model(image)
        traced = torch.jit.trace(model, image)
    print(f"outputs of the model before and after: {cp.error(before, after).snr_db:.1f} dB apart")

    package = ct.convert(
        traced,
        inputs=[ct.TensorType("image", image.shape)],
        minimum_deployment_target=ct.target.iOS18,
        skip_model_load=True,
    )
    package.save(str(options.destination))
    print(coreml.inspect(options.destination))


if __name__ == "__main__":
    main()
