"""The whole path on packages that whoever runs the tests has at hand, for example a small diffusion UNet.

COREPRESS_TEST_PACKAGES=UNet.mlpackage:Other.mlpackage pytest tests/coreml/test_given_packages.py
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from coreml_helpers import assert_same_bits, constants, digest, operation_types, other_operations

import corepress
from corepress import coreml
from corepress.specs import Palettize, Prune, Quantize

PACKAGES = [Path(path) for path in os.environ.get("COREPRESS_TEST_PACKAGES", "").split(os.pathsep) if path]
SPECS = [
    Palettize(nbits=6),
    Palettize(nbits=4, granularity="per_grouped_channel", group_size=16),
    Quantize(),
    Quantize(mode="linear"),
    Prune(target_sparsity=0.5),
]
LEAST_SNR = {Palettize: 12, Quantize: 30, Prune: 5}


@pytest.mark.skipif(not PACKAGES, reason="COREPRESS_TEST_PACKAGES names none")
@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.description.replace(" ", "_"))
@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.name)
def test_coremltools_reads_every_weight(package, spec, tmp_path):
    before, originals = digest(package), constants(package)
    compressed = tmp_path / "compressed.mlpackage"
    report = coreml.compress(package, compressed, spec)
    assert digest(package) == before
    types, decoded = operation_types(compressed), constants(compressed)
    assert report.compressed
    assert other_operations(compressed) == other_operations(package)
    coreml.decompress(compressed, tmp_path / "dense.mlpackage")
    dense = constants(tmp_path / "dense.mlpackage")
    for record in report.weights:
        assert_same_bits(dense[record.name], decoded[record.name], record.name)
        if record.status == "compressed":
            assert types[record.name].startswith("constexpr_")
            assert corepress.error(originals[record.name], decoded[record.name]).snr_db == record.snr_db
            assert record.snr_db > LEAST_SNR[type(spec)]
        else:
            assert_same_bits(decoded[record.name], originals[record.name], record.name)
