"""Joint forms that coremltools made, read by us; and weights compressed before, compressed further."""

import itertools
import shutil

import numpy as np
import pytest
from coreml_helpers import (
    assert_same_bits,
    constants,
    digest,
    float_constants,
    model_file,
    operation_types,
    operations_of,
    quiet,
    read_spec,
    weight_file,
)
from test_every_form import _lifted

import corepress as cp
from corepress import QuantizedTensor, coreml
from corepress.compression import apply
from corepress.coreml.decompressor import lift_definition
from corepress.coreml.format import schema
from corepress.coreml.operations import check_steps, lower
from corepress.coreml.rewrite.driver import Outcome, transform
from corepress.errors import Skip
from corepress.specs import Palettize, Prune, Quantize

RNG = np.random.default_rng(3)
WEIGHT = (0.1 * RNG.standard_normal((64, 96))).astype(np.float16)
KERNEL = (0.1 * RNG.standard_normal((32, 32, 3, 3))).astype(np.float16)


def _steps(ct):
    cto = ct.optimize.coreml
    table = {"mode": "uniform", "nbits": 4}
    return {
        "palettize": (cto.palettize_weights, cto.OpPalettizerConfig(**table)),
        "grouped": (
            cto.palettize_weights,
            cto.OpPalettizerConfig(**table, granularity="per_grouped_channel", group_size=16),
        ),
        "scaled": (cto.palettize_weights, cto.OpPalettizerConfig(**table, enable_per_channel_scale=True)),
        "scaled groups": (
            cto.palettize_weights,
            cto.OpPalettizerConfig(
                **table, enable_per_channel_scale=True, granularity="per_grouped_channel", group_size=16
            ),
        ),
        "quantize": (cto.linear_quantize_weights, cto.OpLinearQuantizerConfig(weight_threshold=0)),
        "quantize table": (
            cto.linear_quantize_weights,
            cto.OpLinearQuantizerConfig(granularity="per_tensor", weight_threshold=0),
        ),
        "quantize linear table": (
            cto.linear_quantize_weights,
            cto.OpLinearQuantizerConfig(granularity="per_tensor", mode="linear", dtype="uint8", weight_threshold=0),
        ),
        "blocks": (
            cto.linear_quantize_weights,
            cto.OpLinearQuantizerConfig(mode="linear", granularity="per_block", block_size=16, weight_threshold=0),
        ),
        "prune": (cto.prune_weights, cto.OpMagnitudePrunerConfig(target_sparsity=0.5)),
    }


CHAINS = [
    ("scaled",),
    ("scaled groups",),
    ("prune", "palettize"),
    ("prune", "grouped"),
    ("prune", "quantize"),
    ("prune", "blocks"),
    ("palettize", "quantize table"),
    ("palettize", "quantize linear table"),
    ("quantize table", "palettize"),
    ("quantize", "palettize"),
    ("palettize", "prune"),
    ("grouped", "prune"),
    ("quantize", "prune"),
    ("blocks", "prune"),
    ("prune", "palettize", "quantize table"),
]
# coremltools fails to quantize tables of convolutions from version 10 on.
LINEAR_ONLY = {"quantize table", "quantize linear table"}


@pytest.fixture(scope="module")
def models(build):
    def linear(mb, x):
        return mb.linear(x=mb.cast(x=x, dtype="fp16"), weight=WEIGHT, name="linear")

    def conv(mb, x):
        return mb.conv(x=mb.cast(x=x, dtype="fp16"), weight=KERNEL, name="conv")

    shapes = {linear: (2, 96), conv: (1, 32, 8, 8)}
    return {
        (body.__name__, version): build(body, {"x": (shape, np.float32)}, version, save=False)
        for body, shape in shapes.items()
        for version in (9, 10)
    }


def _compressed_by_coremltools(ct, model, chain, path):
    with quiet():
        for index, name in enumerate(chain):
            method, config = _steps(ct)[name]
            options = {"joint_compression": True} if index else {}
            model = method(model, ct.optimize.coreml.OptimizationConfig(global_config=config), **options)
        model.save(str(path))


def _weight(package):
    (record,) = (each for each in coreml.inspect(package).weights if len(each.shape) > 1)
    return record


@pytest.mark.parametrize("version", [9, 10])
@pytest.mark.parametrize("layer", ["linear", "conv"])
@pytest.mark.parametrize("chain", CHAINS, ids=", ".join)
def test_coremltools_chains_decompress_to_the_same_bits(ct, models, tmp_path, chain, layer, version):
    if layer == "conv" and version == 10 and len(chain) > 1 and LINEAR_ONLY.intersection(chain):
        pytest.skip("coremltools fails")
    path, dense = tmp_path / "theirs.mlpackage", tmp_path / "dense.mlpackage"
    _compressed_by_coremltools(ct, models[layer, version], chain, path)
    record, before = _weight(path), digest(path)
    assert record.storage.count("+") >= len(chain) - 1 or chain[0].startswith("scaled")
    scaled_tables = version == 9 and chain[0].startswith("scaled")  # one for each scale: that takes more than it saves
    assert scaled_tables or record.bits_per_weight < 13
    report = coreml.decompress(path, dense)
    assert digest(path) == before
    assert report.decompressed == 1
    assert not [each for each in operations_of(read_spec(dense)) if each.type.startswith("constexpr_")]
    assert_same_bits(float_constants(dense)[record.name], float_constants(path)[record.name])
    # All that the chain stored is gone.
    assert weight_file(dense).stat().st_size <= max(WEIGHT.nbytes, KERNEL.nbytes) + 1000


def test_the_steps_of_a_chain_are_told(ct, models, tmp_path):
    path = tmp_path / "joint.mlpackage"
    _compressed_by_coremltools(ct, models["linear", 9], ("prune", "palettize"), path)
    record = _weight(path)
    assert record.storage == "palettized 4 bits + sparse"
    assert record.bits_per_weight == pytest.approx(3.0, abs=0.1)  # the mask, and four bits for every second
    report = coreml.compress(path, tmp_path / "again.mlpackage", {"quantize": {}})
    assert {each.reason for each in report.weights} == {"already compressed", "vector, such as a bias or a norm"}
    assert digest(tmp_path / "again.mlpackage") == digest(path)


def _apply_to_package(source, destination, step):
    """A further step for every compressed weight."""

    def decide(program, values, weight):
        if weight.first.operation.type == "const":
            raise Skip("plain", expected=True)

        def task(threads):
            tensor = apply(lift_definition(weight.first, values), step)
            return Outcome(lower(tensor, program.version), "compressed", step.description)

        return task

    return transform(
        source, destination, decide, prepare=lambda program: None, progress=None, overwrite=False, num_threads=None
    )


@pytest.mark.parametrize("version", [9, 10])
@pytest.mark.parametrize(
    ("chain", "step"),
    [
        (("prune",), Palettize(nbits=4)),
        (("prune",), Quantize()),
        (("prune",), Prune(target_sparsity=0.75)),
        (("palettize",), Quantize()),
        (("grouped",), Quantize(mode="linear")),
        (("quantize",), Palettize(nbits=4)),
        (("scaled",), Prune(target_sparsity=0.6)),
        (("blocks",), Prune(threshold=0.1)),
        (("prune", "quantize"), Palettize(nbits=2)),
        (("prune", "palettize"), Quantize()),
        (("prune", "palettize"), Prune(target_sparsity=0.8)),
        (("palettize", "quantize table"), Prune(target_sparsity=0.5)),
        (("quantize", "palettize"), Prune(target_sparsity=0.5)),
    ],
)
def test_a_step_more_on_what_coremltools_compressed(ct, models, tmp_path, version, chain, step):
    path, further = tmp_path / "theirs.mlpackage", tmp_path / "further.mlpackage"
    _compressed_by_coremltools(ct, models["linear", version], chain, path)
    (tensor,) = _lifted(path).values()
    expected = apply(tensor, step)
    _apply_to_package(path, further, step)
    name = _weight(path).name
    assert_same_bits(float_constants(further)[name], expected.dense())
    assert _weight(further).bytes == pytest.approx(lower(expected, version).nbytes, abs=4)
    # Nothing of the chain before is left, in the program or in the weight file.
    chain_length = len(lower(expected, version).chain())
    assert sum(each.type.startswith("constexpr_") for each in operations_of(read_spec(further))) == chain_length
    assert weight_file(further).stat().st_size < _weight(further).bytes + WEIGHT.shape[0] * 2 + 64 * 20


def test_functions_that_share_a_chain_share_it_afterwards(ct, build, tmp_path):
    def program(mb, x):
        return mb.linear(x=mb.cast(x=x, dtype="fp16"), weight=WEIGHT, name="linear")

    single = tmp_path / "single.mlpackage"
    source = build(program, {"x": ((2, 96), np.float32)}, 9)

    def decide(program, values, weight):
        if len(weight.first.shape) < 2:
            raise Skip("a vector", expected=True)

        def task(threads):
            tensor = values.read(weight.first.parameters["val"], weight.first.where).data
            tensor = apply(apply(tensor, Prune(target_sparsity=0.5)), Quantize())
            return Outcome(lower(tensor, program.version), "compressed", "")

        return task

    transform(source, single, decide, prepare=lambda program: None, progress=None, overwrite=False, num_threads=None)
    shared, dense = tmp_path / "shared.mlpackage", tmp_path / "dense.mlpackage"
    with quiet():
        descriptor = ct.utils.MultiFunctionDescriptor()
        for name in ("a", "b"):
            descriptor.add_function(str(single), src_function_name="main", target_function_name=name)
        descriptor.default_function_name = "a"
        ct.utils.save_multifunction(descriptor, str(shared))
    record = _weight(shared)
    assert record.shared_by == 2
    report = coreml.decompress(shared, dense)
    assert report.decompressed == 1
    assert weight_file(dense).stat().st_size < WEIGHT.nbytes + 1000
    for function in ("a", "b"):
        assert_same_bits(constants(dense, function)[record.name], constants(shared, function)[record.name])


def test_a_chain_that_shares_a_step_with_another_keeps_it(build, tmp_path):
    """Another weight takes the mask of a lut_to_sparse: changing the one must leave the other whole."""
    values = RNG.standard_normal(4).astype(np.float16).reshape(1, 1, 4, 1)
    mask = (RNG.random((32, 16)) < 0.5).astype(np.uint8)
    codes = RNG.integers(0, 4, int(mask.sum())).astype(np.uint8)
    others = RNG.standard_normal(codes.size).astype(np.float16)

    def body(mb, x):
        from coremltools.converters.mil.mil import types

        x = mb.cast(x=x, dtype="fp16")
        uint1, uint2 = types.nptype_from_builtin(types.uint1), types.nptype_from_builtin(types.uint2)
        both = mb.constexpr_lut_to_sparse(
            indices_mask=mask.astype(uint1), indices_nonzero_data=codes.astype(uint2), lut=values, name="both"
        )
        first = mb.constexpr_sparse_to_dense(nonzero_data=both[1], mask=both[0], name="first")
        second = mb.constexpr_sparse_to_dense(nonzero_data=others, mask=both[0], name="second")
        return mb.matmul(x=x, y=first), mb.add(x=second, y=np.float16(1))

    path = build(body, {"x": ((2, 32), np.float32)}, 9)
    before = float_constants(path)

    def decide(program, values, weight):
        if weight.first.name != "first":
            raise Skip("not it", expected=True)

        def task(threads):
            tensor = apply(lift_definition(weight.first, values).dense(), Quantize())
            assert isinstance(tensor, QuantizedTensor)
            return Outcome(lower(tensor, program.version), "compressed", "")

        return task

    destination = tmp_path / "one.mlpackage"
    transform(path, destination, decide, prepare=lambda program: None, progress=None, overwrite=False, num_threads=None)
    types = {each.outputs[0].name: each.type for each in operations_of(read_spec(destination))}
    assert types["first"] == "constexpr_blockwise_shift_scale"
    assert list(types.values()).count("constexpr_lut_to_sparse") == 1
    assert_same_bits(float_constants(destination)["second"], before["second"])
    report = coreml.decompress(destination, tmp_path / "dense.mlpackage")
    assert report.decompressed == 2
    assert_same_bits(float_constants(tmp_path / "dense.mlpackage")["second"], before["second"])


AXES = {"conv": 0, "up": 1, "product": 1, "transposed": 0, "left": 0, "left_transposed": 1, "table": 0, "single": 0}


def test_channels_are_scaled_along_the_axis_of_the_consumer(built_package, weights, tmp_path):
    destination = tmp_path / "scaled.mlpackage"
    report = coreml.compress(built_package, destination, {"palettize": {"nbits": 2, "enable_per_channel_scale": True}})
    assert report.compressed >= len(AXES)
    decoded = float_constants(destination)
    expected = {
        name: cp.palettize(getattr(weights, name), nbits=2, enable_per_channel_scale=True, channel_axis=axis).dense()
        for name, axis in AXES.items()
    }
    found = {array.tobytes() for array in decoded.values()}
    assert [name for name, array in expected.items() if array.tobytes() not in found] == []


def test_tables_for_each_channel_that_outgrow_the_weight_keep_it(models, tmp_path):
    config = {"palettize": {"nbits": 8, "enable_per_channel_scale": True}}
    for version, status in ((9, "kept"), (10, "compressed")):
        source, destination = tmp_path / f"{version}.mlpackage", tmp_path / f"{version}-scaled.mlpackage"
        with quiet():
            models["linear", version].save(str(source))
        report = coreml.compress(source, destination, config)
        (record,) = (each for each in report.weights if len(each.shape) > 1)
        assert record.status == status
        if status == "kept":
            assert record.reason == "its tables would be larger than the weight at this specification version"
            assert weight_file(source).read_bytes() == weight_file(destination).read_bytes()


PALETTE, INTEGERS, ZEROS = Palettize(nbits=4), Quantize(), Prune(threshold=0.1)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_every_order_of_different_steps_can_be_asked_for(count):
    for specs in itertools.permutations((PALETTE, INTEGERS, ZEROS), count):
        check_steps(specs, 9)
        check_steps(specs, 10)
        if count > 1:
            with pytest.raises(ValueError, match=r"joint compression \(\w+, then .*needs specification version 9"):
                check_steps(specs, 8)
        else:
            check_steps(specs, 7)


@pytest.mark.parametrize(
    ("specs", "message"),
    [
        ((PALETTE, PALETTE), "palettize, then palettize: each step can be used once"),
        ((ZEROS, INTEGERS, ZEROS), "each step can be used once"),
        ((PALETTE, Quantize(dtype="int4")), "tables hold int8 or uint8, not int4"),
        ((Quantize(dtype="uint4"), ZEROS, PALETTE), "tables hold int8 or uint8, not uint4"),
        ((PALETTE, Quantize(granularity="per_block")), "one scale per table, or per_tensor one for all"),
        ((INTEGERS, Palettize(nbits=2, enable_per_channel_scale=True)), "for plain weights, not for their codes"),
        ((ZEROS, Palettize(nbits=3)), "nbits 3 needs specification version 9"),
    ],
)
def test_steps_without_a_form_are_refused_before_work(specs, message):
    with pytest.raises(ValueError, match=message):
        check_steps(specs, 8 if "needs" in message else 10)


def test_new_operations_get_names_that_are_free(ios18_package, tmp_path):
    """What a joint form adds is named after its weight; values of these names may be there."""
    steps = [Prune(target_sparsity=0.5), Palettize(nbits=4)]
    coreml.compress(ios18_package, tmp_path / "first.mlpackage", steps)
    added = sorted(set(operation_types(tmp_path / "first.mlpackage")) - set(operation_types(ios18_package)))
    assert added
    package = shutil.copytree(ios18_package, tmp_path / "source.mlpackage")
    model = schema.read_model(model_file(package))
    (block,) = model.mlProgram.functions["main"].block_specializations.values()
    consts = [each for each in block.operations if each.type == "const"]
    for name in added:
        twin = block.operations.add()
        twin.CopyFrom(next(each for each in consts if each.outputs[0].name == "shared"))
        twin.outputs[0].name = name
    model_file(package).write_bytes(schema.serialize_model(model))
    coreml.compress(package, tmp_path / "second.mlpackage", steps)
    names = [output.name for each in operations_of(read_spec(tmp_path / "second.mlpackage")) for output in each.outputs]
    assert len(set(names)) == len(names)
    assert set(added) < set(names)


def test_each_operation_of_a_joint_form_has_a_name(finite_package, tmp_path):
    """Without one, messages of Core ML's compiler would not say which weight they are about."""
    coreml.compress(
        finite_package, tmp_path / "c.mlpackage", [{"prune": {"target_sparsity": 0.5}}, {"palettize": {"nbits": 4}}]
    )
    made = [each for each in operations_of(read_spec(tmp_path / "c.mlpackage")) if each.type.startswith("constexpr_")]
    assert {"constexpr_lut_to_sparse", "constexpr_sparse_to_dense"} <= {each.type for each in made}
    for each in made:
        (name,) = each.attributes["name"].immediateValue.tensor.strings.values
        if each.type == "constexpr_lut_to_sparse":
            assert [output.name for output in each.outputs] == [f"{name}_0", f"{name}_1"]
            assert name.endswith("_lut_to_sparse")
