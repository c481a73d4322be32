"""Every operation that coremltools knows can be run, with its inputs, from the version on at which it has them."""

from __future__ import annotations

import pytest
from coreml_helpers import quiet

pytest.importorskip("torch")
pytest.importorskip("coremltools")

from corepress.runtime.torch import ops  # noqa: F401  fills the table
from corepress.runtime.torch.binding import CONSTANTS, STRUCTURES
from corepress.runtime.torch.registry import implementation_of, implemented_operations

with quiet():
    from coremltools.converters.mil.mil.ops.registry import SSAOpRegistry

VERSIONS = {"iOS15": 6, "iOS16": 7, "iOS17": 8, "iOS18": 9, "iOS26": 10}
OTHERS = {
    "_const_symbolic": "only within coremltools",
    "coreml_update_state": "files have write_state and read_state",
}
# One function serves an older version too, which lacks some inputs.
LATER_INPUTS = {
    "gather": {"batch_dims"},
    "gather_nd": {"batch_dims"},
    "gru": {"input_bias", "reset_after"},
    "reduce_argmax": {"output_dtype"},
    "reduce_argmin": {"output_dtype"},
    "topk": {"output_indices_dtype"},
}
CLASSES = [
    (name, VERSIONS[target.name], defined)
    for name, versions in sorted(SSAOpRegistry.core_ops.items())
    for target, defined in versions.items()
    if target.name in VERSIONS and name not in {*CONSTANTS, *STRUCTURES, *OTHERS}
]


@pytest.mark.parametrize(("name", "version", "defined"), CLASSES, ids=lambda each: str(each)[:24])
def test_inputs_are_those_of_the_operation(name, version, defined):
    found = implementation_of(name, version)
    assert found is not None
    parameters = {*found.values, *found.options}
    inputs = set(defined.input_spec.input_types)
    assert inputs <= parameters
    assert parameters - inputs <= LATER_INPUTS.get(name, set())


def test_no_operation_is_missing_or_unknown():
    known = set(SSAOpRegistry.core_ops) - OTHERS.keys()
    assert {*implemented_operations(), *CONSTANTS, *STRUCTURES} == known | {"write_state"}


def test_a_version_below_the_first_has_no_function():
    assert implementation_of("fill_like", 6) is None
    assert implementation_of("fill_like", 7) is not None
