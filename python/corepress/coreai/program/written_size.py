"""The bytes of an asset once some of its weights have other forms, without making these."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

from ..format.asset import HASH, METADATA, PROGRAM, Asset
from ..format.asset_writer import HASH_SIZE, NO_METADATA
from ..format.bytecode import Bytecode
from ..format.data_types import BY_NAME
from ..format.layout import size_with
from ..operations import Constant, Node
from .constants import Stubs, resource_key
from .program import Program
from .weights import Weight

_CHAIN = 800  # operations, types and keys of a chain of which only the bytes of its data are known, at most


def written_size(asset: Asset, program: Program, forms: Mapping[int, Node]) -> int:
    """Bytes of all files of an asset once some weights have other forms; the program is spoilt.

    Core AI's library writes a program in which the data of weights is a number, and the rest is computed.

    Parameters
    ----------
    asset : Asset
        The asset.
    program : Program
        Its program.
    forms : dict of int to Constant or Form
        The forms by the numbers of the weights. Only the types and sizes of their constants matter.
    """
    stubs = program.constants.stubs = Stubs()
    kept_alive = []  # constants are told apart by their identity
    for number, weight in enumerate(program.weights):
        form = _stub(weight, forms.get(number), stubs)
        if form is not None:
            kept_alive.append(form)
            weight.store(form)
    with tempfile.TemporaryDirectory(prefix="corepress-") as folder:
        path = Path(folder) / PROGRAM
        program.write(path)
        size = size_with(Bytecode(path), stubs.real)
    others = asset.size - asset.bytecode.size
    missing = {HASH: HASH_SIZE, METADATA: len(NO_METADATA)}
    return size + others + sum(bytes_ for name, bytes_ in missing.items() if not (asset.root / name).is_file())


def _stub(weight: Weight, form: Node | None, stubs: Stubs) -> Node | None:
    """What to write in place of a weight; None to change nothing."""
    if form is None:
        key = resource_key(weight.places[0].operation.attributes["value"]) if not weight.is_compressed else None
        return None if key is None else stubs.stands_for(_plain(weight), key, weight.stored_bytes)
    if isinstance(form, Constant) and (form.type.name, form.shape) != (weight.dtype, weight.shape):
        return stubs.stands_for(_plain(weight), None, form.nbytes + _CHAIN)
    return form


def _plain(weight: Weight) -> Constant:
    node = weight.node
    data = node.data if isinstance(node, Constant) else next(iter(node.constants())).data
    return Constant(BY_NAME[weight.dtype], weight.shape, data)
