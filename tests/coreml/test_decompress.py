"""Packages that coremltools compressed, read by us; and forms of which we have no compressed tensor."""

import numpy as np
import pytest
from coreml_helpers import (
    assert_same_bits,
    blocks_of,
    digest,
    float_constants,
    model_file,
    operation_types,
    operations_of,
    quiet,
    read_spec,
    weight_file,
)

from corepress import FormatError, coreml
from corepress.coreml.format.package import Package
from corepress.coreml.format.values import ValueReader

RNG = np.random.default_rng(11)
FIRST = (0.1 * RNG.standard_normal((64, 96))).astype(np.float16)
SECOND = (0.1 * RNG.standard_normal((48, 64))).astype(np.float16)


@pytest.fixture(scope="module")
def models(build):
    def body(mb, x):
        x = mb.cast(x=x, dtype="fp16")
        return mb.linear(x=mb.linear(x=x, weight=FIRST, name="first"), weight=SECOND, name="second")

    return {version: build(body, {"x": ((2, 96), np.float32)}, version, save=False) for version in (7, 9, 10)}


@pytest.fixture(params=[7, 9, 10], ids=["spec7", "spec9", "spec10"])
def model(request, models):
    return models[request.param]


def _configs(ct):
    cto = ct.optimize.coreml
    return {
        "palette": (cto.palettize_weights, cto.OpPalettizerConfig(mode="uniform", nbits=4)),
        "palette8": (cto.palettize_weights, cto.OpPalettizerConfig(mode="uniform", nbits=8)),
        "symmetric": (cto.linear_quantize_weights, cto.OpLinearQuantizerConfig(weight_threshold=0)),
        "linear": (cto.linear_quantize_weights, cto.OpLinearQuantizerConfig(mode="linear", dtype="uint8")),
        "tensor": (cto.linear_quantize_weights, cto.OpLinearQuantizerConfig(mode="linear", granularity="per_tensor")),
        "magnitude": (cto.prune_weights, cto.OpMagnitudePrunerConfig(target_sparsity=0.5)),
        "threshold": (cto.prune_weights, cto.OpThresholdPrunerConfig(threshold=0.1, minimum_sparsity_percentile=0.0)),
    }


IOS18_CONFIGS = {
    "grouped": lambda cto: (
        cto.palettize_weights,
        cto.OpPalettizerConfig(mode="uniform", nbits=3, granularity="per_grouped_channel", group_size=8),
    ),
    "blocks": lambda cto: (
        cto.linear_quantize_weights,
        cto.OpLinearQuantizerConfig(mode="linear", granularity="per_block", block_size=16),
    ),
    "int4": lambda cto: (cto.linear_quantize_weights, cto.OpLinearQuantizerConfig(dtype="int4")),
    "int4 blocks": lambda cto: (
        cto.linear_quantize_weights,
        cto.OpLinearQuantizerConfig(dtype="int4", mode="linear", granularity="per_block", block_size=32),
    ),
    "uint4 blocks": lambda cto: (
        cto.linear_quantize_weights,
        cto.OpLinearQuantizerConfig(dtype="uint4", granularity="per_block", block_size=[4, 8]),
    ),
}


def _compress(ct, model, tmp_path, method, config):
    path = tmp_path / "theirs.mlpackage"
    with quiet():
        compressed = method(model, ct.optimize.coreml.OptimizationConfig(global_config=config))
        compressed.save(str(path))
    return path


def _assert_decompresses(path, tmp_path, count=2):
    before = digest(path)
    destination = tmp_path / "dense.mlpackage"
    report = coreml.decompress(path, destination)
    assert digest(path) == before
    assert report.decompressed == count
    assert not [name for name, kind in operation_types(destination).items() if kind.startswith("constexpr")]
    expected, decoded = float_constants(path), float_constants(destination)
    assert set(expected) == set(decoded)
    for name, array in expected.items():
        assert_same_bits(decoded[name], array, name)
    # Blobs of parameters are gone: header, and the plain constants.
    assert len({each.storage for each in coreml.inspect(destination).weights}) == 1
    assert weight_file(destination).stat().st_size < FIRST.nbytes + SECOND.nbytes + 2000
    return report


@pytest.mark.parametrize("name", ["palette", "palette8", "symmetric", "linear", "tensor", "magnitude", "threshold"])
def test_coremltools_forms(ct, model, tmp_path, name):
    _assert_decompresses(_compress(ct, model, tmp_path, *_configs(ct)[name]), tmp_path)


@pytest.mark.parametrize("version", [9, 10])
@pytest.mark.parametrize("name", IOS18_CONFIGS)
def test_coremltools_ios18_forms(ct, models, version, tmp_path, name):
    _assert_decompresses(_compress(ct, models[version], tmp_path, *IOS18_CONFIGS[name](ct.optimize.coreml)), tmp_path)


def test_the_storage_of_foreign_weights_is_told(ct, model, tmp_path):
    expected = {"palette": "palettized 4 bits", "linear": "quantized uint8, 64 scales", "magnitude": "sparse float16"}
    for index, (name, storage) in enumerate(expected.items()):
        (tmp_path / str(index)).mkdir()
        path = _compress(ct, model, tmp_path / str(index), *_configs(ct)[name])
        record = next(each for each in coreml.inspect(path).weights if each.name.startswith("first_weight"))
        assert record.storage == storage
        assert record.shape == FIRST.shape
        bits = {"palette": 4.04, "linear": 8.25, "magnitude": 9.0}[name]
        assert record.bits_per_weight == pytest.approx(bits, abs=0.02)


def test_data_that_two_steps_share_counts_once(ct, build, tmp_path):
    def body(mb, x):
        return mb.linear(x=mb.cast(x=x, dtype="fp16"), weight=FIRST, name="first")

    cto = ct.optimize.coreml
    model = build(body, {"x": ((2, 96), np.float32)}, 9, save=False)
    with quiet():
        config = cto.OptimizationConfig(global_config=cto.OpMagnitudePrunerConfig(target_sparsity=0.5))
        model = cto.prune_weights(model, config)
        config = cto.OptimizationConfig(global_config=cto.OpLinearQuantizerConfig())
        cto.linear_quantize_weights(model, config, joint_compression=True).save(str(tmp_path / "joint.mlpackage"))
    (stored,) = (each for each in coreml.inspect(tmp_path / "joint.mlpackage").weights if len(each.shape) > 1)
    assert stored.storage == "quantized int8, 64 scales + sparse"
    mask, codes, scales = FIRST.size // 8, FIRST.size // 2, 2 * 64
    assert stored.bytes == pytest.approx(mask + codes + scales, abs=4)


def test_there_and_back_is_the_same_size(trained_package, tmp_path):
    coreml.compress(trained_package, tmp_path / "a.mlpackage", {"prune": {"threshold": 0}})
    coreml.decompress(tmp_path / "a.mlpackage", tmp_path / "b.mlpackage")
    assert weight_file(tmp_path / "b.mlpackage").read_bytes() == weight_file(trained_package).read_bytes()
    assert read_spec(tmp_path / "b.mlpackage") == read_spec(trained_package)


def test_nothing_compressed_copies_the_package(trained_package, tmp_path):
    report = coreml.decompress(trained_package, tmp_path / "copy.mlpackage")
    assert {record.reason for record in report.weights} == {"not compressed"}
    assert digest(tmp_path / "copy.mlpackage") == digest(trained_package)


def _damage(package, change):
    spec = read_spec(package)
    change(next(each for each in operations_of(spec) if each.outputs[0].name == "model_conv3_weight_to_fp16"))
    model_file(package).write_bytes(spec.SerializeToString())


def _reshape(value, *shape):
    del value.type.tensorType.dimensions[:]
    for size in shape:
        value.type.tensorType.dimensions.add().constant.size = size
    value.type.tensorType.rank = len(shape)


def _shape_parameter(operation, *shape):
    operation.attributes["shape"].immediateValue.tensor.bytes.values = np.array(shape, "<u4").tobytes()


PALETTE, AFFINE, SPARSE = {"palettize": {"nbits": 4}}, {"quantize": {}}, {"prune": {"target_sparsity": 0.5}}


@pytest.mark.parametrize(
    ("config", "change", "message"),
    [
        (PALETTE, lambda each: each.attributes.pop("lut"), "has no parameter lut"),
        (PALETTE, lambda each: each.attributes.pop("shape"), "does not have two axes more"),
        (PALETTE, lambda each: _shape_parameter(each, 16, 16, 64, 2), "indices must be 16384 bytes"),
        (PALETTE, lambda each: _shape_parameter(each, 16, 16, 32, 2), "is declared float16 .*, but stores"),
        (PALETTE, lambda each: _shape_parameter(each, 2**31, 2**31, 2**31, 1), "indices must be"),
        (PALETTE, lambda each: _reshape(each.attributes["indices"], 8191), "needs 8191 elements, but 8192 are stored"),
        (PALETTE, lambda each: _reshape(each.attributes["indices"], 2**40, 2**40), "is too large"),
        (PALETTE, lambda each: _reshape(each.attributes["indices"], 2**63), "is too large"),
        (PALETTE, lambda each: setattr(each.attributes["indices"].type.tensorType, "rank", 2), "rank 2 with 1"),
        (PALETTE, lambda each: setattr(each.attributes["indices"].type.tensorType, "dataType", 21),
         "is int8, but its blob holds uint8"),
        (PALETTE, lambda each: setattr(each.attributes["lut"].type.tensorType, "dataType", 99), "unknown data type 99"),
        (PALETTE, lambda each: setattr(each.attributes["lut"].blobFileValue, "offset", 65), "starts with"),
        (PALETTE, lambda each: setattr(each.attributes["lut"].blobFileValue, "offset", 2**63), "is not inside"),
        (PALETTE, lambda each: setattr(each.attributes["lut"].blobFileValue, "fileName", "@model_path/x"), "not exist"),
        (PALETTE, lambda each: each.attributes["lut"].ClearField("blobFileValue"), "stored in None"),
        (AFFINE, lambda each: each.attributes.pop("zero_point"), "has no parameter zero_point"),
        (AFFINE, lambda each: each.attributes["axis"].immediateValue.tensor.ints.values.__setitem__(0, 9), "axis 9"),
        (AFFINE, lambda each: each.attributes["axis"].immediateValue.tensor.ints.values.__setitem__(0, 2), "axis 2"),
        (AFFINE, lambda each: each.attributes["axis"].immediateValue.tensor.ints.values.append(2), "needs 1 elements"),
        (AFFINE, lambda each: each.attributes["scale"].CopyFrom(each.attributes["zero_point"]), "its scale must be"),
        (SPARSE, lambda each: _shape_parameter(each, 16, 16, 64, 2), "mask must be"),
        (SPARSE, lambda each: each.attributes["mask"].CopyFrom(each.attributes["nonzero_data"]), "mask must be uint8"),
    ],
)  # fmt: skip
def test_damaged_operations_are_named(package, tmp_path, config, change, message):
    compressed = tmp_path / "compressed.mlpackage"
    coreml.compress(package, compressed, config)
    _damage(compressed, change)
    with pytest.raises(FormatError, match=message):
        coreml.decompress(compressed, tmp_path / "dense.mlpackage")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["compressed.mlpackage", "source.mlpackage"]


def test_integers_in_a_palette_become_integers(package, tmp_path):
    compressed = tmp_path / "compressed.mlpackage"
    coreml.compress(package, compressed, PALETTE)

    def change(operation):
        lut = operation.attributes["lut"]
        lut.type.tensorType.dataType = 31
        lut.ClearField("blobFileValue")
        lut.immediateValue.tensor.bytes.values = bytes(range(16))
        operation.outputs[0].type.tensorType.dataType = 31

    _damage(compressed, change)
    report = coreml.decompress(compressed, tmp_path / "dense.mlpackage")
    assert report.decompressed == 7
    name = "model_conv3_weight_to_fp16"
    operation = next(
        each for each in operations_of(read_spec(tmp_path / "dense.mlpackage")) if each.outputs[0].name == name
    )
    assert (operation.type, operation.outputs[0].type.tensorType.dataType) == ("const", 31)
    with ValueReader(Package.open(tmp_path / "dense.mlpackage")) as values:
        decoded = values.read(operation.attributes["val"], name).data
        assert decoded.dtype == np.uint8
        assert set(np.unique(decoded)) <= set(range(16))  # the codes, which are what this table holds
        assert decoded.shape == (16, 16, 64, 1)


def test_blocks_are_walked_like_coremltools(ios18_package):
    assert sum(1 for _ in blocks_of(read_spec(ios18_package))) == 3
