"""Pipelines: every program in them is compressed, everything else stays."""

import shutil

import numpy as np
import pytest
from coreml_helpers import assert_same_bits, blocks_of, digest, model_file, quiet, read_spec

from corepress import coreml
from corepress.compression import apply
from corepress.coreml.format.package import Package, directory_size
from corepress.coreml.program.program import Program
from corepress.coreml.program.weights import weights_of
from corepress.specs import Palettize, Prune, Quantize

RNG = np.random.default_rng(3)
FIRST = RNG.standard_normal((96, 64)).astype(np.float32)
SECOND = RNG.standard_normal((64, 96)).astype(np.float32)


def _linear(weight, name):
    def body(mb, x):
        return mb.linear(x=x, weight=weight, name=name)

    return body


@pytest.fixture(scope="module", params=[(9, 9), (7, 9)], ids=["spec9", "spec7and9"])
def versions(request):
    return request.param


@pytest.fixture(scope="module")
def pipeline(ct, build, versions, tmp_path_factory):
    """Two programs, whose weights have the same name, one after the other."""
    with quiet():
        packages = [
            build(_linear(weight, "dense"), {"x": ((2, weight.shape[1]), np.float32)}, version)
            for weight, version in zip((FIRST, SECOND), versions, strict=True)
        ]
        models = [ct.models.MLModel(str(package), skip_model_load=True) for package in packages]
        output = models[0].get_spec().description.output[0].name
        spec = models[1].get_spec()
        ct.utils.rename_feature(spec, "x", output)
        models[1] = ct.models.MLModel(spec, weights_dir=models[1].weights_dir, skip_model_load=True)
        path = tmp_path_factory.mktemp("pipeline") / "pipeline.mlpackage"
        ct.utils.make_pipeline(*models).save(str(path))
    return path


def _decoded(package):
    """Dense weights by name, decompressed by corepress itself, as coremltools reads no pipelines."""
    from corepress.coreml.decoded import decoded_pairs
    from corepress.coreml.format.values import ValueReader

    opened = Package.open(package)
    program = Program(opened)
    with ValueReader(opened) as values:
        return {
            weight.first.name: np.concatenate(
                [ours for ours, _ in decoded_pairs((weight.first, values), (weight.first, values))]
            )
            for weight in weights_of(program)
            if weight.first.consumers and len(weight.first.shape) == 2
        }


def _operations(spec):
    """Operation type by output name, of each program of a pipeline."""
    return [
        {output.name: each.type for block in blocks_of(part) for each in block.operations for output in each.outputs}
        for part in spec.pipeline.models
    ]


def test_every_program_is_compressed(pipeline, tmp_path, versions):
    before = digest(pipeline)
    small, dense = tmp_path / "small.mlpackage", tmp_path / "dense.mlpackage"
    report = coreml.compress(pipeline, small, Quantize(), strict=True)
    assert digest(pipeline) == before
    compressed = {record.name: record for record in report.weights if record.status == "compressed"}
    assert compressed.keys() == {"0/dense_weight_0", "1/dense_weight_0"}
    assert {record.function for record in compressed.values()} == {"0/main", "1/main"}
    forms = {7: "constexpr_affine_dequantize", 9: "constexpr_blockwise_shift_scale"}
    types = _operations(read_spec(small))
    assert [each["dense_weight_0"] for each in types] == [forms[version] for version in versions]
    coreml.decompress(small, dense)
    for package in (small, dense):
        decoded = _decoded(package)
        for name, weight in {"0/dense_weight_0": FIRST, "1/dense_weight_0": SECOND}.items():
            assert_same_bits(decoded[name], apply(weight, Quantize()).dense(), name)
    assert coreml.verify(pipeline, small).ok
    assert coreml.verify(small, dense).ok


def test_everything_else_stays(pipeline, tmp_path):
    small = tmp_path / "small.mlpackage"
    coreml.compress(pipeline, small, Quantize())
    before, after = read_spec(pipeline), read_spec(small)
    for spec in (before, after):
        for part in spec.pipeline.models:
            part.mlProgram.functions.clear()
    assert before == after
    files = coreml.inspect(small).weight_files
    assert sorted(files) == ["@model_path/weights/0-weight.bin", "@model_path/weights/1-weight.bin"]


def test_each_program_as_if_it_stood_alone(build, pipeline, versions, tmp_path):
    """Its blobs are those that its own package would get."""
    coreml.compress(pipeline, tmp_path / "small.mlpackage", Quantize())
    for index, weight in enumerate((FIRST, SECOND)):
        single = build(_linear(weight, "dense"), {"x": ((2, weight.shape[1]), np.float32)}, versions[index])
        coreml.compress(single, tmp_path / f"{index}.mlpackage", Quantize())
        folder = "Data/com.apple.CoreML/weights"
        alone = (tmp_path / f"{index}.mlpackage" / folder / "weight.bin").read_bytes()
        assert (tmp_path / "small.mlpackage" / folder / f"{index}-weight.bin").read_bytes() == alone


def test_rules_tell_the_programs_apart_or_not(pipeline, tmp_path):
    plan = coreml.plan(pipeline, {"weights": {"0/*": {"quantize": {}}, "1/dense_w*": {"palettize": {"nbits": 2}}}})
    methods = {weight.name: weight.method for weight in plan.weights if weight.method}
    assert methods == {"0/dense_weight_0": "quantize int8 per_channel", "1/dense_weight_0": "palettize 2 bits"}
    plan = coreml.plan(pipeline, {"weights": {"dense_weight_0": {"palettize": {"nbits": 2}}}}, strict=True)
    assert plan.compressed == 2


def test_the_plan_is_exact(pipeline, tmp_path):
    plan = coreml.plan(pipeline, Palettize(nbits=6))
    report = coreml.compress(pipeline, tmp_path / "small.mlpackage", Palettize(nbits=6))
    assert plan.bytes_after == report.bytes_after == directory_size(tmp_path / "small.mlpackage")


def test_what_one_program_cannot_express_is_refused_before_work(pipeline, versions, tmp_path):
    config = {"weights": {"0/*": {"palettize": {"nbits": 3}}}}
    if versions[0] == 9:
        assert coreml.compress(pipeline, tmp_path / "a.mlpackage", config).compressed == 1
        return
    with pytest.raises(ValueError, match="nbits 3 needs specification version 9"):
        coreml.compress(pipeline, tmp_path / "a.mlpackage", config)
    assert not list(tmp_path.iterdir())
    config = {"weights": {"1/*": {"palettize": {"nbits": 3}}}}
    assert coreml.compress(pipeline, tmp_path / "a.mlpackage", config).compressed == 1


def _edited(pipeline, tmp_path, change):
    package = shutil.copytree(pipeline, tmp_path / "edited.mlpackage")
    spec = read_spec(package)
    change(spec)
    model_file(package).write_bytes(spec.SerializeToString())
    return package


def test_models_have_names_if_the_pipeline_gives_them(pipeline, tmp_path):
    package = _edited(pipeline, tmp_path, lambda spec: spec.pipeline.names.extend(["encoder", "decoder"]))
    assert coreml.inspect(package).functions == ("encoder/main", "decoder/main")
    twins = shutil.rmtree(package) or _edited(pipeline, tmp_path, lambda spec: spec.pipeline.names.extend(["a", "a"]))
    assert coreml.inspect(twins).functions == ("0/main", "1/main")


def test_models_of_other_kinds_and_pipelines_in_pipelines_pass_through(pipeline, tmp_path):
    def nest(spec):
        second = type(spec)()
        second.CopyFrom(spec.pipeline.models[1])
        inner = spec.pipeline.models[1]
        inner.Clear()
        inner.specificationVersion = second.specificationVersion
        inner.pipelineClassifier.pipeline.models.add().CopyFrom(second)
        inner.pipelineClassifier.pipeline.models.add().nonMaximumSuppression.iouThreshold = 0.5
        spec.pipeline.models.add().neuralNetwork.layers.add().name = "kept"

    package = _edited(pipeline, tmp_path, nest)
    report = coreml.compress(package, tmp_path / "small.mlpackage", Quantize())
    names = {record.name for record in report.weights if record.status == "compressed"}
    assert names == {"0/dense_weight_0", "1/0/dense_weight_0"}
    spec = read_spec(tmp_path / "small.mlpackage")
    inner = spec.pipeline.models[1].pipelineClassifier.pipeline
    assert inner.models[1].nonMaximumSuppression.iouThreshold == 0.5
    assert spec.pipeline.models[2].neuralNetwork.layers[0].name == "kept"
    assert coreml.verify(package, tmp_path / "small.mlpackage").ok


def test_verification_looks_into_every_program(pipeline, tmp_path):
    def change(spec):
        function = spec.pipeline.models[1].mlProgram.functions["main"]
        block = function.block_specializations[function.opset]
        next(each for each in block.operations if each.type == "linear").type = "matmul"

    verification = coreml.verify(pipeline, _edited(pipeline, tmp_path, change))
    assert any("block 1/main/" in problem and "linear dense" in problem for problem in verification.all_problems)


def test_the_shell_takes_pipelines(pipeline, tmp_path, capsys):
    from corepress.cli.main import main

    arguments = ["quantize", str(pipeline), "-o", str(tmp_path / "small.mlpackage")]
    assert main(arguments) == 0
    assert "2 compressed" in capsys.readouterr().out


def test_steps_build_on_each_other_in_each_program(pipeline, tmp_path, versions):
    small, dense = tmp_path / "small.mlpackage", tmp_path / "dense.mlpackage"
    steps = [Prune(target_sparsity=0.5), Palettize(nbits=4)]
    if versions[0] < 9:
        with pytest.raises(ValueError, match="needs specification version 9"):
            coreml.compress(pipeline, small, steps)
        return
    report = coreml.compress(pipeline, small, steps)
    assert [record.method for record in report.weights if record.method] == ["prune 50%, then palettize 4 bits"] * 2
    verification = coreml.verify(pipeline, small)
    assert verification.ok, verification.totals
    coreml.decompress(small, dense)
    for name, weight in _decoded(pipeline).items():
        expected = apply(apply(weight, steps[0]), steps[1]).dense()
        assert_same_bits(_decoded(small)[name], expected, name)
        assert_same_bits(_decoded(dense)[name], expected, name)
