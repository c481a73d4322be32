"""Version 6 packages, which coremltools makes by default: raised to version 7 where weights are compressed."""

import json
import shutil

import numpy as np
import pytest
from coreml_helpers import assert_same_bits, constants, digest, model_file, operations_of, quiet, read_spec, weight_file

from corepress import FormatError, coreml
from corepress.cli.main import main
from corepress.coreml.format import schema
from corepress.coreml.format.package import Package
from corepress.coreml.program.program import Program
from corepress.coreml.program.raising import ADDED_INPUTS, raise_parts

PALETTIZE = {"palettize": {"nbits": 4}}
RNG = np.random.default_rng(6)
SPECS = [
    PALETTIZE,
    {"quantize": {"dtype": "int8"}},
    {"prune": {"target_sparsity": 0.5}},
]


def normal(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def every_change(mb, x, image, ids):
    """Operations that are others in iOS 16, some in blocks, among such that are not."""
    table = mb.const(val=normal(96, 64), name="table")
    rows = mb.gather(x=table, indices=ids, axis=0, name="rows")
    more = mb.gather_nd(x=table, indices=mb.expand_dims(x=ids, axes=[1]), name="more")
    along = mb.gather_along_axis(x=rows, indices=mb.cast(x=more, dtype="int32"), axis=1, name="along")
    hidden, *_ = mb.lstm(
        x=mb.expand_dims(x=along, axes=[1]),
        initial_h=np.zeros((1, 32), np.float32),
        initial_c=np.zeros((1, 32), np.float32),
        weight_ih=normal(128, 64),
        weight_hh=normal(128, 32),
        name="lstm",
    )
    values, places = mb.topk(x=mb.linear(x=x, weight=normal(80, 64), name="dense"), k=3, axis=-1, name="best")
    boxes = np.array([0, 0.1, 0.2, 0.8, 0.9], np.float32).reshape(1, 1, 5, 1, 1)
    image = mb.conv(x=image, weight=normal(32, 16, 3, 3), pad_type="same", name="conv")
    cropped = mb.crop_resize(
        x=image, roi=mb.const(val=boxes, name="boxes"), target_width=4, target_height=4, normalized_coordinates=True
    )
    larger = mb.upsample_bilinear(x=image, scale_factor_height=2.0, scale_factor_width=2.0, align_corners=False)
    coordinates = mb.const(val=RNG.random((1, 3, 3, 2)).astype(np.float32), name="coordinates")
    sampled = mb.resample(
        x=image,
        coordinates=coordinates,
        sampling_mode="bilinear",
        padding_mode="constant",
        padding_value=0.0,
        coordinates_mode="unnormalized",
        align_corners=True,
    )
    flag = mb.less(x=mb.reduce_sum(x=x), y=np.float32(0))
    chosen = mb.cond(
        pred=flag,
        _true_fn=lambda: mb.gather(x=rows, indices=ids, axis=1, name="then"),
        _false_fn=lambda: mb.topk(x=along, k=2, axis=1, name="otherwise")[0],
        name="choice",
    )
    looped = mb.while_loop(
        _cond=lambda i, _: mb.less(x=mb.reduce_sum(x=i), y=np.float32(3)),
        _body=lambda i, y: (mb.add(x=i, y=np.float32(1)), mb.gather(x=y, indices=ids, axis=0, name="turn")),
        loop_vars=(mb.reduce_sum(x=x), mb.identity(x=rows)),
        name="loop",
    )
    return hidden, values, places, cropped, larger, sampled, chosen, looped[1]


INPUTS = {
    "x": ((1, 64), np.float32),
    "image": ((1, 16, 8, 8), np.float32),
    "ids": ((2,), np.int32),
}


@pytest.fixture(scope="module")
def ios15_package(build):
    package = build(every_change, INPUTS, version=6, name="ios15")
    assert read_spec(package).specificationVersion == 6
    return package


def raised_copy(package, folder):
    """The package raised, and nothing else."""
    copy = shutil.copytree(package, folder / "raised.mlpackage")
    program = Program(Package.open(copy))
    assert raise_parts(program, [part.prefix for part in program.parts]) == 6
    model_file(copy).write_bytes(program.serialize())
    return copy


def by_coremltools(ct, package):
    """What coremltools makes of a package when it reads it, and writes it for iOS 16, without passes."""
    from coremltools.converters.mil.converter import mil_convert
    from coremltools.converters.mil.frontend.milproto.load import load

    with quiet():
        model = ct.models.MLModel(str(package), skip_model_load=True)
        program = ct.models.utils._convert_model_spec_to_pymil_prog(model, 7, load)
        return mil_convert(
            program,
            convert_to="mlprogram",
            convert_from="milinternal",
            specification_version=7,
            compute_units=ct.ComputeUnit.ALL,
            pass_pipeline=ct.PassPipeline.EMPTY,
            skip_model_load=True,
        )


def described(block, constants=None):
    """A block by its values' names, apart from order and from the names of constants."""
    constants = dict(constants or {})
    operations = {}
    for operation in block.operations:
        if operation.type == "const":
            value = operation.attributes["val"]
            if value.HasField("blobFileValue"):
                value.blobFileValue.offset = 0
            constants[operation.outputs[0].name] = value.SerializeToString(deterministic=True)
            continue
        inputs = {
            name: [constants.get(binding.name, binding.name) for binding in argument.arguments]
            for name, argument in operation.inputs.items()
        }
        outputs = tuple(
            (output.name, output.type.SerializeToString(deterministic=True)) for output in operation.outputs
        )
        operations[outputs] = operation.type, inputs, [described(nested, constants) for nested in operation.blocks]
    return operations, list(block.outputs)


def test_the_table_is_what_coremltools_knows(ct):
    """Inputs that are new in iOS 16 stand in the table, or have no default; no other operation became stricter."""
    from coremltools.converters.mil.mil.ops.registry import SSAOpRegistry

    def of(versions, target):
        known = [version for version in versions if version <= target]
        return versions[max(known)] if known else None

    found, without_default = {}, {}
    for name, versions in SSAOpRegistry.core_ops.items():
        old, new = of(versions, ct.target.iOS15), of(versions, ct.target.iOS16)
        if old is None or old is new:
            continue
        before, after = old.input_spec.input_types, new.input_spec.input_types
        assert before.keys() <= after.keys(), name
        for each in before:
            assert after[each].optional == before[each].optional, (name, each)
            if before[each]._type_domain:
                domain = after[each]._type_domain or new.type_domains[after[each].type_domain_id]
                assert set(before[each]._type_domain) <= set(domain), (name, each)
        for domain, types in getattr(old, "type_domains", {}).items():
            assert set(types) <= set(new.type_domains.get(domain, types)), (name, domain)
        defaults = dict(new.default_inputs(new.__new__(new))._default_inputs)
        added = [each for each in after if each not in before]
        assert all(after[each].optional for each in added), name
        found |= {name: {each: defaults[each] for each in added if each in defaults}}
        without_default |= {name: [each for each in added if each not in defaults]}
    assert {name: inputs for name, inputs in found.items() if inputs} == ADDED_INPUTS
    assert {name: inputs for name, inputs in without_default.items() if inputs} == {
        "upsample_bilinear": ["half_pixel_centers"]
    }
    for name, inputs in ADDED_INPUTS.items():
        for each, value in inputs.items():
            assert type(found[name][each]) is type(value)


def test_a_raised_program_is_that_of_coremltools(ct, ios15_package, tmp_path):
    raised = raised_copy(ios15_package, tmp_path)
    spec, expected = read_spec(raised), by_coremltools(ct, ios15_package).get_spec()
    assert spec.specificationVersion == expected.specificationVersion == 7
    function, other = spec.mlProgram.functions["main"], expected.mlProgram.functions["main"]
    assert function.opset == other.opset == "CoreML6"
    assert list(function.block_specializations) == ["CoreML6"]
    ours, theirs = (
        described(function.block_specializations["CoreML6"]),
        described(other.block_specializations["CoreML6"]),
    )
    assert ours == theirs
    assert {"batch_dims", "return_indices", "pad_value"} <= {
        name for operation in operations_of(spec) for name in operation.inputs
    }


def test_coremltools_reads_a_raised_program(ct, ios15_package, tmp_path):
    again = by_coremltools(ct, raised_copy(ios15_package, tmp_path)).get_spec()
    expected = by_coremltools(ct, ios15_package).get_spec()
    assert described(*again.mlProgram.functions["main"].block_specializations.values()) == described(
        *expected.mlProgram.functions["main"].block_specializations.values()
    )


@pytest.mark.parametrize("config", SPECS, ids=lambda config: next(iter(config)))
def test_the_main_job(ios15_package, tmp_path, config):
    """Compressed, verified, compared, and decompressed again; the values are those of the same model for iOS 16."""
    before = digest(ios15_package)
    raised = raised_copy(ios15_package, tmp_path)
    destination, expected = tmp_path / "small.mlpackage", tmp_path / "expected.mlpackage"
    plan = coreml.plan(ios15_package, config)
    report = coreml.compress(ios15_package, destination, config)
    assert (report.raised_from, report.specification_version, report.compressed) == (6, 7, 5)
    assert (plan.raised_from, plan.specification_version) == (6, 7)
    assert plan.bytes_after == report.bytes_after or not plan.exact
    note = "raised from specification version 6 (iOS 15) to 7 (iOS 16), which compressed weights need"
    assert note in str(report)
    assert note in str(plan)
    assert coreml.Report.from_json(report.to_json()) == report
    assert report.to_dict()["raised_from"] == plan.to_dict()["raised_from"] == 6
    coreml.compress(raised, expected, config)
    assert digest(destination) == digest(expected)
    assert digest(ios15_package) == before
    verification = coreml.verify(ios15_package, destination)
    assert verification.ok, verification.totals
    assert sum(each.status == "compressed" for each in verification.weights) == report.compressed
    comparison = coreml.compare(ios15_package, destination)
    assert (len(comparison.different), comparison.only_in_first, comparison.only_in_second) == (5, (), ())
    dense = tmp_path / "dense.mlpackage"
    report = coreml.decompress(destination, dense)
    assert (report.raised_from, report.specification_version) == (None, 7)
    assert coreml.verify(destination, dense).ok
    for name, value in constants(dense).items():
        if isinstance(value, np.ndarray):
            assert_same_bits(value, constants(destination)[name], name)


def test_an_older_number_alone_gives_the_same_result(trained_package, package, tmp_path):
    """A trained package of version 7, whose operations are the same in version 6."""
    spec = read_spec(package)
    spec.specificationVersion = 6
    function = spec.mlProgram.functions["main"]
    function.block_specializations["CoreML5"].CopyFrom(function.block_specializations[function.opset])
    del function.block_specializations[function.opset]
    function.opset = "CoreML5"
    model_file(package).write_bytes(spec.SerializeToString())
    coreml.compress(trained_package, tmp_path / "expected.mlpackage", {"quantize": {}})
    coreml.compress(package, tmp_path / "compressed.mlpackage", {"quantize": {}})
    found, expected = (tmp_path / name for name in ("compressed.mlpackage", "expected.mlpackage"))
    assert read_spec(found) == read_spec(expected)
    assert weight_file(found).read_bytes() == weight_file(expected).read_bytes()


@pytest.mark.parametrize(
    ("config", "options"),
    [(PALETTIZE, {"weight_threshold": 10**9}), ({"op_types": {"matmul": PALETTIZE}}, {}), ({"global": None}, {})],
)
def test_what_is_not_compressed_is_not_raised(ios15_package, tmp_path, config, options):
    destination = tmp_path / "same.mlpackage"
    report = coreml.compress(ios15_package, destination, config, **options)
    assert (report.compressed, report.raised_from, report.specification_version) == (0, None, 6)
    assert "raised" not in str(report)
    assert digest(destination) == digest(ios15_package)
    assert coreml.plan(ios15_package, config, **options).raised_from is None


def test_weights_that_are_kept_after_all_raise_nothing(build, tmp_path):
    weight = normal(64, 64)
    weight[0, 0] = np.nan
    package = build(lambda mb, x: mb.linear(x=x, weight=weight), {"x": ((1, 64), np.float32)}, version=6)
    report = coreml.compress(package, tmp_path / "same.mlpackage", PALETTIZE)
    assert (report.compressed, report.raised_from) == (0, None)
    assert read_spec(tmp_path / "same.mlpackage").specificationVersion == 6


@pytest.mark.parametrize(
    "config",
    [{"palettize": {"nbits": 3}}, {"quantize": {"dtype": "int4"}}, [{"prune": {"target_sparsity": 0.5}}, PALETTIZE]],
)
def test_never_above_version_7(ios15_package, tmp_path, config):
    for run in (
        lambda: coreml.plan(ios15_package, config),
        lambda: coreml.compress(ios15_package, tmp_path / "a.mlpackage", config),
    ):
        with pytest.raises(
            ValueError, match=r"needs specification version 9 \(iOS 18\), but this package has 6"
        ) as refused:
            run()
        assert str(refused.value).endswith("convert again with minimum_deployment_target=ct.target.iOS18")
    assert not (tmp_path / "a.mlpackage").exists()


def _change(package, change):
    model = schema.read_model(model_file(package))
    change(model)
    model_file(package).write_bytes(schema.serialize_model(model))


def _main(model):
    function = model.mlProgram.functions["main"]
    return function.block_specializations[function.opset]


def _operation(block, output):
    return next(each for each in block.operations if any(given.name == output for given in each.outputs))


@pytest.fixture
def compressed(ios15_package, tmp_path):
    coreml.compress(ios15_package, tmp_path / "small.mlpackage", PALETTIZE)
    return tmp_path / "small.mlpackage"


def _no_constant(model):
    del _operation(_main(model), "rows").inputs["batch_dims"]


def _another_value(model):
    value = _operation(_main(model), "rows_batch_dims_0").attributes["val"]
    value.immediateValue.tensor.ints.values[:] = [1]


def _in_a_block(model):
    nested = _operation(_main(model), "choice").blocks[0]
    _operation(nested, "then_batch_dims_0").attributes["val"].immediateValue.tensor.ints.values[:] = [1]


def _another_argument(model):
    _operation(_main(model), "best_0").inputs["sort"].arguments[0].name = "best_return_indices_1"


def _a_version_too_many(model):
    model.specificationVersion = 8


@pytest.mark.parametrize(
    "change",
    [_no_constant, _another_value, _in_a_block, _another_argument, _a_version_too_many],
    ids=lambda each: each.__name__,
)
def test_verify_accepts_nothing_else(ios15_package, compressed, change):
    _change(compressed, change)
    verification = coreml.verify(ios15_package, compressed)
    assert not verification.ok
    assert verification.all_problems


def test_verify_accepts_no_package_that_was_lowered(ios15_package, compressed):
    assert not coreml.verify(compressed, ios15_package).ok


def test_arguments_that_are_there_are_left_unchanged(ios15_package, tmp_path):
    """An early converter may have written them; and names that are taken are not taken twice."""
    package = shutil.copytree(ios15_package, tmp_path / "source.mlpackage")

    def change(model):
        block = _main(model)
        constant = block.operations.add()
        constant.CopyFrom(_operation(block, "best_axis_0"))
        constant.outputs[0].name = "rows_batch_dims_0"
        constant.attributes["val"].immediateValue.tensor.ints.values[:] = [0]
        operations = [constant, *block.operations[:-1]]
        del block.operations[:]
        block.operations.extend(operations)
        _operation(block, "more").inputs["batch_dims"].arguments.add().name = "rows_batch_dims_0"

    _change(package, change)
    report = coreml.compress(package, tmp_path / "small.mlpackage", PALETTIZE)
    assert report.raised_from == 6
    operations = {each.outputs[0].name: each for each in operations_of(read_spec(tmp_path / "small.mlpackage"))}
    assert operations["more"].inputs["batch_dims"].arguments[0].name == "rows_batch_dims_0"
    assert operations["rows"].inputs["batch_dims"].arguments[0].name == "rows_batch_dims_1"
    assert "more_batch_dims_0" not in operations
    assert coreml.verify(package, tmp_path / "small.mlpackage").ok


def test_several_functions_are_raised_together(ct, ios15_package, tmp_path):
    package = shutil.copytree(ios15_package, tmp_path / "source.mlpackage")
    _change(package, lambda model: model.mlProgram.functions["other"].CopyFrom(model.mlProgram.functions["main"]))
    report = coreml.compress(package, tmp_path / "small.mlpackage", PALETTIZE)
    functions = read_spec(tmp_path / "small.mlpackage").mlProgram.functions
    assert {name: (each.opset, list(each.block_specializations)) for name, each in functions.items()} == dict.fromkeys(
        ("main", "other"), ("CoreML6", ["CoreML6"])
    )
    assert report.raised_from == 6
    assert described(*functions["main"].block_specializations.values()) == described(
        *functions["other"].block_specializations.values()
    )
    assert coreml.verify(package, tmp_path / "small.mlpackage").ok
    assert constants(tmp_path / "small.mlpackage").keys() == constants(tmp_path / "small.mlpackage", "other").keys()


def test_half_precision_is_padded_in_half_precision(build, tmp_path):
    """coremltools itself fails on these: its default is a float32."""

    def body(mb, image):
        boxes = np.array([0, 0.1, 0.2, 0.8, 0.9], np.float16).reshape(1, 1, 5, 1, 1)
        half = mb.conv(x=mb.cast(x=image, dtype="fp16"), weight=normal(32, 16, 3, 3).astype(np.float16))
        return mb.crop_resize(x=half, roi=boxes, target_width=4, target_height=4, name="cropped")

    package = build(body, {"image": ((1, 16, 8, 8), np.float32)}, version=6)
    coreml.compress(package, tmp_path / "small.mlpackage", PALETTIZE)
    found = constants(tmp_path / "small.mlpackage")["cropped_pad_value_0"]
    assert (found.dtype, float(found)) == (np.float16, 0.0)


@pytest.mark.parametrize("version", [7, 9])
def test_an_old_opset_below_a_newer_number(ios15_package, tmp_path, version):
    """The opset says what operations there are: it is raised, the number stays."""
    package = shutil.copytree(ios15_package, tmp_path / "source.mlpackage")
    _change(package, lambda model: setattr(model, "specificationVersion", version))
    report = coreml.compress(package, tmp_path / "small.mlpackage", PALETTIZE)
    assert (report.raised_from, report.specification_version) == (6, version)
    spec = read_spec(tmp_path / "small.mlpackage")
    assert (spec.specificationVersion, spec.mlProgram.functions["main"].opset) == (version, "CoreML6")
    assert coreml.verify(package, tmp_path / "small.mlpackage").ok
    with pytest.raises(
        ValueError, match=rf"are those of 6 \(opset CoreML5\), although its specification version is {version}"
    ):
        coreml.compress(package, tmp_path / "none.mlpackage", {"palettize": {"nbits": 3}})


@pytest.mark.parametrize(
    ("opsets", "message"),
    [
        (["CoreML4"], r"need specification version 7 .* opset CoreML5 alone .* has CoreML4; convert again with"),
        (["Other"], "this one has Other"),
        (["CoreML5", "CoreML6"], "this one has CoreML6"),
    ],
)
def test_other_opsets_are_not_raised(ios15_package, tmp_path, opsets, message):
    package = shutil.copytree(ios15_package, tmp_path / "source.mlpackage")

    def change(model):
        function = model.mlProgram.functions["main"]
        block = schema.serialize_model(function.block_specializations["CoreML5"])
        del function.block_specializations["CoreML5"]
        for opset in opsets:
            function.block_specializations[opset].MergeFromString(block)
        function.opset = opsets[0]

    _change(package, change)
    assert coreml.inspect(package).specification_version == 6
    for run in (coreml.plan, lambda source, config: coreml.compress(source, tmp_path / "a.mlpackage", config)):
        with pytest.raises(ValueError, match=message):
            run(package, {"op_types": {"linear": PALETTIZE}})
    assert not (tmp_path / "a.mlpackage").exists()


def test_a_damaged_operation_is_named(build, tmp_path):
    def body(mb, image):
        boxes = np.array([0, 0.1, 0.2, 0.8, 0.9], np.float32).reshape(1, 1, 5, 1, 1)
        image = mb.conv(x=image, weight=normal(32, 16, 3, 3))
        return mb.crop_resize(x=image, roi=boxes, target_width=4, target_height=4, name="cropped")

    package = build(body, {"image": ((1, 16, 8, 8), np.float32)}, version=6)
    _change(package, lambda model: _operation(_main(model), "cropped").outputs[0].ClearField("type"))
    with pytest.raises(FormatError, match="crop_resize cropped: its output must be a float16 or float32 tensor"):
        coreml.compress(package, tmp_path / "small.mlpackage", PALETTIZE)
    assert not (tmp_path / "small.mlpackage").exists()


def test_the_shell_says_what_was_raised(ios15_package, tmp_path, capsys):
    def shell(*arguments):
        status = main([str(argument) for argument in arguments])
        told = capsys.readouterr()
        return status, told.out, told.err

    note = "raised from specification version 6 (iOS 15) to 7 (iOS 16), which compressed weights need"
    small = tmp_path / "small.mlpackage"
    for verb, options in (("palettize", ["--nbits", "4"]), ("quantize", []), ("prune", ["--target-sparsity", "0.5"])):
        status, out, _ = shell(verb, ios15_package, *options, "--dry-run")
        assert (status, note in out) == (0, True)
        status, out, err = shell(verb, ios15_package, *options, "-o", small, "--overwrite")
        assert (status, err) == (0, "")
        assert f"  note             {note}\n" in out
        assert shell("verify", ios15_package, small)[0] == 0
        assert shell("compare", ios15_package, small)[0] == 0
    status, out, _ = shell("quantize", ios15_package, "-o", small, "--overwrite", "--json")
    assert (json.loads(out)["raised_from"], json.loads(out)["specification_version"]) == (6, 7)
    status, _, err = shell("quantize", ios15_package, "-o", small, "--overwrite", "--dtype", "int4")
    assert (status, err.strip().endswith("convert again with minimum_deployment_target=ct.target.iOS18")) == (1, True)


class TestPipelines:
    @pytest.fixture
    def pipeline(self, ct, build, tmp_path):
        """Parts of versions 6 and 6, the second without a weight of some size."""
        with quiet():
            first = build(
                lambda mb, x: mb.linear(x=x, weight=normal(96, 64), name="a"), {"x": ((2, 64), np.float32)}, 6
            )
            second = build(lambda mb, y: mb.relu(x=y, name="b"), {"y": ((2, 96), np.float32)}, 6)
            models = [ct.models.MLModel(str(package), skip_model_load=True) for package in (first, second)]
            spec = models[1].get_spec()
            ct.utils.rename_feature(spec, "y", models[0].get_spec().description.output[0].name)
            models[1] = ct.models.MLModel(spec, weights_dir=models[1].weights_dir, skip_model_load=True)
            ct.utils.make_pipeline(*models).save(str(tmp_path / "pipeline.mlpackage"))
        return tmp_path / "pipeline.mlpackage"

    def test_parts_with_compressed_weights_are_raised_and_what_holds_them(self, pipeline, tmp_path):
        assert read_spec(pipeline).specificationVersion == 6
        report = coreml.compress(pipeline, tmp_path / "small.mlpackage", PALETTIZE)
        assert (report.raised_from, report.specification_version) == (6, 7)
        spec = read_spec(tmp_path / "small.mlpackage")
        assert [part.specificationVersion for part in spec.pipeline.models] == [7, 6]
        assert [part.mlProgram.functions["main"].opset for part in spec.pipeline.models] == ["CoreML6", "CoreML5"]
        assert coreml.verify(pipeline, tmp_path / "small.mlpackage").ok
        _change(tmp_path / "small.mlpackage", lambda model: setattr(model, "specificationVersion", 6))
        assert not coreml.verify(pipeline, tmp_path / "small.mlpackage").ok
