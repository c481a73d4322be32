"""Small torch modules, converted by coreai-torch once for all tests."""

from __future__ import annotations

import torch
from coreai_helpers import quiet
from torch import nn


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(50, 64)
        self.head = nn.Linear(64, 50, bias=False)
        self.head.weight = self.table.weight

    def forward(self, tokens):
        return self.head(self.table(tokens))


class Experts(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 32, 48))
        self.router = nn.Linear(32, 4)

    def forward(self, x):
        chosen = self.router(x).argmax(-1)
        return torch.einsum("bi,bio->bo", x, self.weight[chosen])


class Products(nn.Module):
    def __init__(self):
        super().__init__()
        self.right = nn.Parameter(torch.randn(32, 48))
        self.left = nn.Parameter(torch.randn(20, 48))

    def forward(self, x):
        return self.left @ (x @ self.right).T


class Folded(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 32, 16))

    def forward(self, x):
        return torch.einsum("bld,hdk->blhk", x, self.weight)


class Brain(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(32, 48).bfloat16()

    def forward(self, x):
        return self.linear(x.bfloat16()).float()


class Branches(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(32, 32), nn.Linear(32, 32)

    def forward(self, x):
        return torch.cond(x.sum() > 0, lambda y: self.first(y), lambda y: self.second(y), (x,))


class Normed(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.linear = nn.LayerNorm(512), nn.Linear(512, 32)
        nn.init.normal_(self.norm.weight)
        nn.init.normal_(self.norm.bias)

    def forward(self, x):
        return self.linear(self.norm(x))


class GivenOut(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(32, 32))

    def forward(self, x):
        return x @ self.weight, self.weight * 1.0


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(32, 4, batch_first=True)

    def forward(self, x):
        return self.attention(x, x, x)[0]


def _blocks():
    return nn.Sequential(*(nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 32)) for _ in range(2)))


# A module and its input.
MODELS = {
    "linear": (lambda: nn.Sequential(nn.Linear(32, 48)), (2, 32)),
    "blocks": (_blocks, (2, 32)),
    "conv2d": (lambda: nn.Sequential(nn.Conv2d(8, 16, 3), nn.Conv2d(16, 32, 3, groups=4)), (1, 8, 12, 12)),
    "conv1d": (lambda: nn.Conv1d(8, 16, 3), (1, 8, 12)),
    "conv3d": (lambda: nn.Conv3d(8, 16, 3), (1, 8, 6, 6, 6)),
    "conv_transpose2d": (lambda: nn.ConvTranspose2d(8, 16, 3), (1, 8, 6, 6)),
    "grouped conv_transpose2d": (lambda: nn.ConvTranspose2d(8, 16, 3, groups=2), (1, 8, 6, 6)),
    "conv_transpose1d": (lambda: nn.ConvTranspose1d(8, 16, 5), (1, 8, 6)),
    "tied": (Tied, None),
    "experts": (Experts, (3, 32)),
    "products": (Products, (5, 32)),
    "folded": (Folded, (2, 5, 32)),
    "bfloat16": (Brain, (2, 32)),
    "branches": (Branches, (2, 32)),
    "normed": (Normed, (2, 512)),
    "given out": (GivenOut, (2, 32)),
    "gru": (lambda: nn.GRU(16, 32, batch_first=True), (1, 3, 16)),
    "attention": (Attention, (1, 5, 32)),
}


def example_of(name):
    """The input of a model."""
    shape = MODELS[name][1]
    torch.manual_seed(1)
    return torch.arange(6, dtype=torch.int32)[None] if shape is None else torch.randn(shape)


def converted(module, example, path):
    """Convert a module to an asset."""
    import coreai_torch

    with quiet():
        program = torch.export.export(module.eval(), (example,))
        program = program.run_decompositions(coreai_torch.get_decomp_table())
        converter = coreai_torch.TorchConverter()
        converter.add_exported_program(program, input_names=["x"])
        converter.to_coreai().save_asset(path)
    return path


def asset_of(name, folder):
    """The asset of a model in a folder, made if it is not there yet."""
    path = folder / f"{name.replace(' ', '_')}.aimodel"
    if not path.exists():
        torch.manual_seed(0)
        converted(MODELS[name][0](), example_of(name), path)
    return path
