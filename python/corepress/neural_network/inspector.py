"""How the weights of a neural network are stored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..coreml.inspector import Inspection
from ..engine.inspection import StoredWeight
from ..sources import unchanged
from .model_io import is_path, name_of, open_model, size_of
from .network import NetworkWeight, naming, read_weights
from .weight_params import describe, stored_bytes


@unchanged("model")
def inspect(model: Any) -> Inspection:
    """Show how the weights of an ``.mlmodel`` are stored.

    Parameters
    ----------
    model : path-like, spec or MLModel
        The model.

    Returns
    -------
    Inspection
        One record per weight, and totals.

    Raises
    ------
    ValueError
        If it holds no neural network.
    FormatError
        If it is damaged.
    """
    with open_model("inspect", model) as document:
        records = tuple(_record(weight) for place in document.places for weight in read_weights(place))
        return Inspection(
            source=str(Path(model)) if is_path(model) else name_of(model),
            specification_version=document.root.version,
            functions=tuple(dict.fromkeys(record.function for record in records if record.function)),
            weight_files={},
            package_bytes=size_of(model) if is_path(model) else document.nbytes,
            weights=records,
        )


def _record(found: NetworkWeight) -> StoredWeight:
    weight, size = found.weight, stored_bytes(found.weight.params)
    with naming(found):
        return StoredWeight(
            name=found.name,
            function=found.function,
            consumers=(weight.layer_type,),
            shape=weight.shape,
            dtype="float32",
            storage=describe(weight.params),
            bits_per_weight=8.0 * size / max(1, weight.size),
            bytes=size,
            shared_by=1,
        )
