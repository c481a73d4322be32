"""`coreml.quantize_activations`: which operations get pairs, what stays, and what the results compute."""

from __future__ import annotations

import gc
import json

import numpy as np
import pytest
from coreml_helpers import constants, digest, model_file, operations_of, quiet, read_spec

from corepress import FormatError, coreml, runtime
from corepress.cli.main import main
from corepress.coreml.format import schema

pytest.importorskip("torch")
pytest.importorskip("coremltools")


@pytest.fixture
def normal(rng):
    return lambda *shape, scale=0.3: (rng.standard_normal(shape) * scale).astype(np.float32)


@pytest.fixture
def body(mb, normal):
    """Every kind of operation that is quantized by default."""
    weights = normal(8, 4, 3, 3), normal(8, 8, 1, 1), normal(16, 8 * 4 * 4), normal(10, 16)

    def body(x):
        y = mb.relu(x=mb.conv(x=x, weight=weights[0], pad_type="same", name="first"), name="hidden")
        z = mb.conv(x=y, weight=weights[1], name="second")
        y = mb.relu(x=mb.add(x=y, y=z, name="sum"), name="positive")
        y = mb.concat(values=[y, z], axis=1, name="joined")
        y = mb.max_pool(x=y, kernel_sizes=[2, 2], strides=[2, 2], pad_type="valid", name="pooled")
        y = mb.slice_by_size(x=y, begin=[0, 4, 0, 0], size=[1, 8, 4, 4], name="part")
        y = mb.linear(x=mb.reshape(x=y, shape=[1, -1]), weight=weights[2], name="third")
        return mb.linear(x=mb.gelu(x=y, mode="EXACT"), weight=weights[3], name="y")

    return body


SHAPE = (1, 4, 8, 8)
INPUTS = {"x": (SHAPE, "float32")}


@pytest.fixture
def samples(rng):
    return [{"x": rng.standard_normal(SHAPE).astype(np.float32)} for _ in range(8)]


@pytest.fixture
def package(save, body):
    return save(body, inputs=INPUTS, version=8, half=True)


def quantize(path, samples, name="out", **options):
    out = path.with_name(f"{name}.mlpackage")
    return coreml.quantize_activations(path, out, samples=samples, overwrite=True, **options), out


def pairs_of(path):
    """The names of quantized values, by operation that yields them."""
    operations = operations_of(read_spec(path))
    return [each.inputs["input"].arguments[0].name for each in operations if each.type == "quantize"]


def snr_db(path, out, samples):
    return min(each.snr_db for each in coreml.compare(path, out, inputs=samples).outputs)


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("version", [6, 7, 8, 9])
def test_packages_of_all_versions(version, half, save, body, samples):
    path = save(body, inputs=INPUTS, version=version, half=half)
    report, out = quantize(path, samples)
    assert report.quantized_operations == 6 == len(report.activations)
    assert {each.type for each in report.activations} == {"conv", "add", "max_pool", "linear"}
    assert (report.raised_from, report.specification_version) == (version if version < 8 else None, max(version, 8))
    assert coreml.verify(path, out).ok, coreml.verify(path, out).totals
    assert snr_db(path, out, samples) > 25
    types = [each.type for each in operations_of(read_spec(out))]
    assert types.count("quantize") == types.count("dequantize") == len(pairs_of(out))
    assert constants(out)  # read by coremltools, which checks the types of all operations


def test_what_is_not_quantized_keeps_its_bytes(package, samples):
    before = digest(package)
    report, out = quantize(package, samples, weights=None)
    assert digest(package) == before
    after = digest(out)
    assert {name for name in before if before[name] != after[name]} == {
        "Data/com.apple.CoreML/model.mlmodel",
        *({"Manifest.json"} if before["Manifest.json"] != after["Manifest.json"] else ()),
    }
    assert report.compressed == 0
    ours, theirs = (schema.read_model(model_file(path)) for path in (package, out))
    known = {each.outputs[0].name: each for each in operations_of(read_spec(package))}
    new = [each for each in operations_of(read_spec(out)) if each.outputs[0].name not in known]
    assert {each.type for each in new} == {"quantize", "dequantize", "const"}
    assert [f.name for f in theirs.mlProgram.functions["main"].inputs] == [
        f.name for f in ours.mlProgram.functions["main"].inputs
    ]
    again, same = quantize(package, samples, name="again", weights=None)
    assert digest(same) == after
    assert again.activations == report.activations


def test_one_range_for_what_is_joined(package, samples):
    report, _ = quantize(package, samples)
    found = {name: each for record in report.activations for name, each in record.inputs.items()}
    found |= {each.output: each.output_parameters for each in report.activations if each.output is not None}
    joined = [found[name] for name in found if name.startswith(("positive", "second", "joined"))]
    assert len(joined) == 3
    assert len(set(joined)) == 1


def test_a_second_run_finds_nothing_to_do(package, samples):
    _, out = quantize(package, samples)
    report, again = quantize(out, samples, name="again")
    assert {each.reason for each in report.activations} == {"already quantized"}
    assert model_file(again).read_bytes() == model_file(out).read_bytes()


def test_symmetric_levels_have_no_zero_points(package, samples):
    report, out = quantize(package, samples, mode="linear_symmetric")
    pairs = [each for record in report.activations for each in record.inputs.values()]
    assert {(each.zero_point, each.dtype) for each in pairs} == {(None, "int8")}
    assert not any("zero_point" in each.inputs for each in operations_of(read_spec(out)) if each.type == "quantize")
    assert coreml.verify(package, out).ok


@pytest.mark.parametrize(("mode", "range"), [("auto", "auto"), ("auto", "minmax"), ("linear", "auto")])
def test_the_best_is_chosen_on_kept_samples(mode, range, package, samples):
    report, out = quantize(package, samples, mode=mode, range=range, weights=None)
    (note,) = report.notes
    assert note.count(" dB") == (4 if mode == range else 2)
    told = dict(part.removesuffix(" dB").rsplit(" ", 1) for part in note.partition(": ")[2].split(", "))
    chosen = note.split(" is best")[0].removeprefix("mode ").replace(" with range", "")
    assert float(told[chosen]) == max(map(float, told.values()))
    fitted = [sample for index, sample in enumerate(samples) if index % 4 != 3]
    options = dict(zip(("mode", "range"), chosen.split(), strict=True))
    _, judged = quantize(package, fitted, name="judged", weights=None, **options)
    assert snr_db(package, judged, samples[3::4]) == pytest.approx(float(told[chosen]), abs=1.5)
    _, of_all = quantize(package, samples, name="of_all", weights=None, **options)
    assert model_file(out).read_bytes() == model_file(of_all).read_bytes()


def test_configs_by_type_and_name(package, samples):
    ct = pytest.importorskip("coremltools")
    rules = {
        "op_types": {"add": None, "max_pool": {"mode": "linear_symmetric"}},
        "op_names": {"second_cast_fp16": None},
    }
    report, _ = quantize(package, samples, config=rules)
    found = {each.name: each for each in report.activations}
    named = {name: next(each for key, each in found.items() if key.startswith(name)) for name in ("sum", "pooled", "y")}
    assert named["sum"].reason == "left out by the config"
    assert all(each.zero_point is None for each in named["pooled"].inputs.values())
    assert named["y"].status == "quantized"
    with quiet():
        cto = ct.optimize.coreml
        config = cto.OptimizationConfig(global_config=cto.OpLinearQuantizerConfig(mode="linear_symmetric"))
        config.set_op_type("linear", None)
    report, _ = quantize(package, samples, config=config)
    assert {each.type for each in report.activations if each.status == "quantized"} == {"conv", "add", "max_pool"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "symmetric"}, "mode is 'symmetric'"),
        ({"range": "max"}, "range is 'max'"),
        ({"operations": ["relu"]}, "operation 'relu' cannot be quantized"),
        ({"operations": []}, "must not be empty"),
        ({"config": {"op_type": {}}}, "config has 'op_type'"),
        ({"config": {"op_names": {"nobody": None}}}, "'nobody', which no operation has"),
        ({"config": {"op_types": {"conv": {"bits": 8}}}}, "option 'bits'"),
        ({"config": {"global": None}}, "no operation of function main can be quantized"),
        ({"samples": []}, "no samples"),
        ({"samples": None}, "either calibration or samples"),
        ({"function_name": "other"}, "other"),
    ],
)
def test_wrong_arguments(options, message, package, samples):
    with pytest.raises(ValueError, match=message):
        quantize(package, **{"samples": samples, **options})
    assert not package.with_name("out.mlpackage").exists()


def test_attention_by_choice(mb, save, normal, rng):
    def body(x):
        q, k = (mb.linear(x=x, weight=normal(12, 12), name=name) for name in "qk")
        scores = mb.softmax(x=mb.matmul(x=q, y=k, transpose_y=True, name="scores"), axis=-1)
        return mb.matmul(x=scores, y=mb.matmul(x=x, y=normal(12, 12), name="values"), name="y")

    path = save(body, inputs={"x": ((1, 6, 12), "float32")}, version=9, half=True)
    samples = [{"x": rng.standard_normal((1, 6, 12)).astype(np.float32)} for _ in range(4)]
    plain, _ = quantize(path, samples)
    assert {each.reason for each in plain.activations if each.type == "matmul"} == {"not among the operations"}
    report, out = quantize(path, samples, operations="default,attention")
    assert report.quantized_operations == 5
    assert all(each.output is None for each in report.activations if each.type == "matmul")
    inputs = {each.name.removesuffix("_cast_fp16"): len(each.inputs) for each in report.activations}
    assert (inputs["scores"], inputs["values"], inputs["y"]) == (2, 1, 2)
    assert snr_db(path, out, samples) > 20
    assert coreml.verify(path, out).ok


def test_masked_scores_are_not_quantized(mb, save, normal, rng):
    def body(x, mask):
        q, k = (mb.linear(x=x, weight=normal(12, 12), name=name) for name in "qk")
        scores = mb.add(x=mb.matmul(x=q, y=k, transpose_y=True), y=mask, name="scores")
        return mb.matmul(x=mb.softmax(x=scores, axis=-1), y=x, name="y")

    shapes = {"x": ((1, 6, 12), "float32"), "mask": ((1, 6, 6), "float32")}
    path = save(body, inputs=shapes, version=9, half=True)
    mask = np.where(np.tri(6), 0, -1e4).astype(np.float32)[None]
    samples = [{"x": rng.standard_normal((1, 6, 12)).astype(np.float32), "mask": mask} for _ in range(4)]
    report, out = quantize(path, samples)
    scores = next(each for each in report.activations if each.name.startswith("scores"))
    assert (scores.status, scores.output) == ("quantized", None)
    assert "as a mask makes them: scores" in report.notes[0]
    assert snr_db(path, out, samples) > 25


def test_what_cannot_be_quantized_is_listed(mb, save, normal, rng):
    w = normal(8, 8)

    def body(x, n):
        flag = mb.greater(x=mb.reduce_sum(x=x), y=np.float32(1e9))
        rare = mb.cond(pred=flag, _true_fn=lambda: mb.linear(x=x, weight=w, name="rare"), _false_fn=lambda: x)
        moved = mb.add(x=mb.linear(x=x, weight=w, name="often"), y=np.float32(1), name="moved")
        infinite = mb.linear(x=mb.real_div(x=x, y=mb.sub(x=x, y=x)), weight=w, name="infinite")
        return moved, rare, infinite, mb.add(x=n, y=n, name="whole")

    path = save(body, inputs={"x": ((2, 8), "float32"), "n": ((2,), "int32")}, version=8)
    samples = [{"x": rng.standard_normal((2, 8)).astype(np.float32), "n": np.zeros(2, np.int32)} for _ in range(3)]
    report, out = quantize(path, samples)
    reasons = {each.name: each.reason for each in report.activations}
    assert reasons["often"] is None
    assert "is a constant" in reasons["moved"]
    assert "NaN or infinite" in reasons["infinite"]
    assert "int32" in reasons["whole"]
    assert reasons["rare"] is None  # its input is that of the function
    assert coreml.verify(path, out).ok, coreml.verify(path, out).totals
    assert "often" in str(report)
    assert "no: " in str(report)
    assert coreml.Report.from_json(report.to_json()) == report


def test_control_flow_and_names_that_are_taken(mb, save, normal, rng):
    w = normal(8, 8)

    def body(x):
        taken = mb.relu(x=x, name="x_quantized")
        y = mb.add(x=mb.linear(x=x, weight=w, name="a"), y=taken, name="x_dequantized")
        looped = mb.while_loop(
            _cond=lambda i, _: mb.less(x=i, y=np.float32(2)),
            _body=lambda i, v: (mb.add(x=i, y=np.float32(1)), mb.linear(x=v, weight=w, name="inner")),
            loop_vars=(np.float32(0), y),
        )
        return mb.linear(x=looped[1], weight=w, name="y")

    path = save(body, inputs={"x": ((2, 8), "float32")}, version=8)
    samples = [{"x": rng.standard_normal((2, 8)).astype(np.float32)} for _ in range(3)]
    report, out = quantize(path, samples)
    assert {each.name for each in report.activations if each.status == "quantized"} >= {"a", "y", "x_dequantized"}
    names = [each.outputs[0].name for each in operations_of(read_spec(out))]
    assert len(set(names)) == len(names)
    assert "x_quantized_2" in names
    assert coreml.verify(path, out).ok
    assert snr_db(path, out, samples) > 25


def test_several_functions(save, mb, normal, rng, tmp_path):
    import coremltools as ct

    w = normal(64, 64)
    bodies = {"main": lambda x: mb.linear(x=x, weight=w, name="y"), "f1": lambda x: mb.linear(x=x, weight=-w, name="y")}
    path = tmp_path / "both.mlpackage"
    descriptor = ct.utils.MultiFunctionDescriptor()
    for name, body in bodies.items():
        descriptor.add_function(str(save(body, inputs={"x": ((1, 64), "float32")}, name=name)), "main", name)
    descriptor.default_function_name = "main"
    with quiet():
        ct.utils.save_multifunction(descriptor, str(path))
        gc.collect()  # the temporary folders that it leaves to its models
    samples = [{"x": rng.standard_normal((1, 64)).astype(np.float32)} for _ in range(3)]
    report, out = quantize(path, samples, function_name="f1", weights=None)
    assert [each.function for each in report.activations] == ["f1"]
    assert "not those of main" in report.notes[0]
    assert coreml.verify(path, out).ok
    expected, found = (runtime.load(each, "main").predict(samples[0])["y"] for each in (path, out))
    assert np.array_equal(expected, found)
    expected, found = (runtime.load(each, "f1").predict(samples[0])["y"] for each in (path, out))
    assert 0 < np.abs(expected - found).max() < 0.1


def test_statistics_instead_of_samples(package, samples, tmp_path, save, mb, normal):
    file = tmp_path / "model.calibration"
    statistics = coreml.calibrate(package, samples, file, candidates=None, weight_threshold=0)
    assert statistics.ranges
    fitted = [sample for index, sample in enumerate(samples) if index % 4 != 3]
    _, direct = quantize(package, fitted, weights=None)
    out = tmp_path / "from_file.mlpackage"
    coreml.quantize_activations(package, out, calibration=file, weights=None)
    assert model_file(out).read_bytes() == model_file(direct).read_bytes()
    both = statistics.merge(coreml.calibrate(package, samples[:1], candidates=None, weight_threshold=0))
    name = next(iter(statistics.ranges))
    assert both.ranges[name]["counts"].sum() * 6 == statistics.ranges[name]["counts"].sum() * 7
    other = save(lambda x: mb.conv(x=x, weight=normal(8, 4, 3, 3)), inputs=INPUTS, name="other")
    with pytest.raises(ValueError, match="another model"):
        coreml.quantize_activations(other, tmp_path / "no.mlpackage", calibration=file)
    empty = type(statistics)(statistics.weights, function_name="main")
    with pytest.raises(ValueError, match="no ranges"):
        coreml.quantize_activations(package, tmp_path / "no.mlpackage", calibration=empty)
    damaged = type(statistics)(statistics.weights, ranges={name: {"bounds": np.zeros(2)}})
    with pytest.raises(FormatError, match="is damaged"):
        coreml.quantize_activations(package, tmp_path / "no.mlpackage", calibration=damaged)


@pytest.mark.parametrize("what", ["scale", "zero", "negative", "removed", "between"])
def test_verify_finds_wrong_pairs(what, package, samples):
    _, out = quantize(package, samples, weights=None)
    model = schema.read_model(model_file(out))
    block = next(iter(model.mlProgram.functions["main"].block_specializations.values()))
    by_name = {each.outputs[0].name: each for each in block.operations}
    pair = next(each for each in block.operations if each.type == "quantize")
    scale = by_name[pair.inputs["scale"].arguments[0].name]
    value = scale.attributes["val"].immediateValue.tensor.bytes
    if what == "scale":  # of a dequantize alone
        copy = block.operations.add()
        copy.CopyFrom(scale)
        copy.outputs[0].name = "other_scale"
        copy.attributes["val"].immediateValue.tensor.bytes.values = np.float16(3).tobytes()
        after = next(each for each in block.operations if each.type == "dequantize")
        after.inputs["scale"].arguments[0].name = "other_scale"
    elif what in ("zero", "negative"):
        value.values = np.float16(0 if what == "zero" else -1).tobytes()
    elif what == "removed":
        after = next(each for each in block.operations if each.type == "dequantize")
        after.inputs["input"].arguments[0].name = pair.inputs["input"].arguments[0].name
    else:  # another operation between a value and what takes it
        conv = next(each for each in block.operations if each.type == "conv")
        conv.inputs["x"].arguments[0].name = "x"
    model_file(out).write_bytes(schema.serialize_model(model))
    verification = coreml.verify(package, out)
    assert not verification.ok, what


def test_gathers_of_raised_programs_count_from_the_end(save, mb, normal, rng):
    table, w = normal(9, 16), normal(16, 16)

    def body(n):
        return mb.linear(x=mb.gather(x=table, indices=n, axis=0, name="rows"), weight=w, name="y")

    path = save(body, inputs={"n": ((3,), "int32")}, version=7)
    samples = [{"n": np.array(each, np.int32)} for each in ([0, 3, -1], [-9, 8, 2])]
    report, out = quantize(path, samples)
    assert report.raised_from == 7
    assert snr_db(path, out, samples) > 30
    assert coreml.verify(path, out).ok
    assert {"greater_equal", "select"} <= {each.type for each in operations_of(read_spec(out))}


def test_programs_that_cannot_be_raised(save, mb, normal, rng, tmp_path):
    def cropped(x):
        boxes = np.array([0, 0.1, 0.2, 0.8, 0.9], np.float32).reshape(1, 1, 5, 1, 1)
        y = mb.conv(x=x, weight=normal(8, 4, 3, 3))
        return mb.crop_resize(x=y, roi=boxes, target_width=4, target_height=4, normalized_coordinates=True, name="cut")

    path = save(cropped, inputs=INPUTS, version=7)
    before = digest(path)
    with pytest.raises(ValueError, match=r"crop_resize .*another operation.*iOS17"):
        quantize(path, [{"x": np.zeros(SHAPE, np.float32)}])
    assert digest(path) == before
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


def test_shell(package, samples, capsys, tmp_path):
    inputs = tmp_path / "samples.npz"
    np.savez(inputs, x=np.concatenate([each["x"] for each in samples]))
    out = str(tmp_path / "shell.mlpackage")
    arguments = ["quantize", str(package), "-o", out, "--activations", "int8", "--inputs", str(inputs)]
    assert main([*arguments, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {each["status"] for each in found["activations"]} == {"quantized"}
    _, expected = quantize(package, samples)
    assert model_file(tmp_path / "shell.mlpackage").read_bytes() == model_file(expected).read_bytes()
    assert main([*arguments, "--overwrite", "--operations", "conv", "--activation-mode", "auto"]) == 0
    told = capsys.readouterr().out
    assert "2 of 6 operations quantized" in told
    assert "not among the operations" in told
    assert main(["quantize", str(package), "-o", out, "--overwrite", "--inputs", str(inputs)]) == 2
    assert "--inputs is for --activations" in capsys.readouterr().err
    assert main([*arguments[:6], "--overwrite"]) == 2
    assert "needs either --calibration FILE or --inputs PATH" in capsys.readouterr().err
