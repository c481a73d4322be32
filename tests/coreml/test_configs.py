"""Rules at work on packages, and coremltools' own configs."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
from coreml_helpers import assert_same_bits, constants, digest, float_constants, operation_types, quiet

from corepress import Config, coreml, error
from corepress.compression import apply
from corepress.config import as_config
from corepress.specs import Palettize, Prune

RULES = {
    "global": {"palettize": {"nbits": 4}},
    "op_types": {"conv": {"quantize": {"dtype": "int4"}}, "gather": None, "linear": {"palettize": {"nbits": 6}}},
    "weights": {
        "*_x_0": {"quantize": {}},
        "left_t*": {"palettize": {"nbits": 2}},
        "re:then|otherwise_.*": {"steps": {"prune": {"target_sparsity": 0.5}}, "weight_threshold": 3839},
        "uneven*": {"steps": {"palettize": {"nbits": 1}}, "weight_threshold": 4800},
        "nothing*": None,
    },
}
METHODS = {
    "conv_weight_0": "quantize int4 per_channel",
    "up_weight_0": "palettize 4 bits",
    "shared": "palettize 6 bits",
    "product_y_0": "palettize 4 bits",
    "transposed_y_0": "palettize 4 bits",
    "left_x_0": "quantize int8 per_channel",
    "left_transposed_x_0": "palettize 2 bits",
    "table_x_0": "quantize int8 per_channel",
    "then_weight_0": "prune 50%",
    "otherwise_weight_0": "prune 50%",
    "single_weight_0": "palettize 6 bits",
    "also_returned": None,
    "uneven_weight_0": None,
}


def test_rules_decide_weight_by_weight(built_package, tmp_path):
    destination = tmp_path / "compressed.mlpackage"
    report = coreml.compress(built_package, destination, RULES)
    records = {record.name: record for record in report.weights}
    assert {name: records[name].method for name in METHODS} == METHODS
    assert records["uneven_weight_0"].reason == "small: at most 4800 elements"
    assert report.unmatched_rules == ("weights 'nothing*'",)
    types = operation_types(destination)
    assert types["then_weight_0"] == "constexpr_sparse_to_dense"  # by the name of the operation that uses it
    assert types["conv_weight_0"] == "constexpr_blockwise_shift_scale"
    assert coreml.verify(built_package, destination).ok


def test_the_same_rules_from_a_file_give_the_same_bytes(ios18_package, tmp_path):
    import yaml

    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(RULES, sort_keys=False))
    (tmp_path / "rules.json").write_text(json.dumps(RULES))
    digests = []
    for index, config in enumerate((RULES, tmp_path / "rules.yaml", str(tmp_path / "rules.json"))):
        coreml.compress(ios18_package, tmp_path / f"{index}.mlpackage", config)
        digests.append(digest(tmp_path / f"{index}.mlpackage"))
    assert digests[0] == digests[1] == digests[2]


def test_a_rule_that_means_nothing_is_an_error_if_strict(ios18_package, tmp_path):
    with pytest.raises(ValueError, match=r"no weight matches op_types 'convv'; did you mean 'conv'\?"):
        coreml.compress(ios18_package, tmp_path / "a.mlpackage", {"op_types": {"convv": None}}, strict=True)
    assert not list(tmp_path.iterdir())


def test_operations_that_disagree_keep_the_weight(build, tmp_path):
    square = np.random.default_rng(0).standard_normal((64, 64)).astype(np.float32)

    def body(mb, x):
        both = mb.const(val=square, name="both")
        return mb.matmul(x=mb.linear(x=x, weight=both, name="first"), y=both, name="second")

    package = build(body, {"x": ((2, 64), np.float32)})
    config = {"global": {"quantize": {}}, "op_types": {"linear": {"palettize": {"nbits": 4}}}}
    report = coreml.compress(package, tmp_path / "a.mlpackage", config)
    (record,) = (record for record in report.weights if record.name == "both")
    assert record.reason == "the operations that use it disagree: palettize 4 bits or quantize int8 per_channel"
    assert not record.planned
    with pytest.raises(ValueError, match=r"both .*disagree"):
        coreml.compress(package, tmp_path / "b.mlpackage", config, strict=True)
    config["weights"] = {"both": {"palettize": {"nbits": 2}}}
    report = coreml.compress(package, tmp_path / "c.mlpackage", config, strict=True)
    assert report.compressed == 1


def test_versions_are_checked_for_what_is_used(trained_package, tmp_path):
    """A rule that needs a later version is refused before work, if it means a weight."""
    three = {"palettize": {"nbits": 3}}
    with pytest.raises(ValueError, match="nbits 3 needs specification version 9"):
        coreml.compress(
            trained_package, tmp_path / "a.mlpackage", {"global": {"quantize": {}}, "weights": {"*": three}}
        )
    assert not list(tmp_path.iterdir())
    config = {"global": {"quantize": {}}, "weights": {"no such name": three}}
    assert coreml.compress(trained_package, tmp_path / "a.mlpackage", config).compressed


def _conv_weight(package, tmp_path):
    """The weight of the convolution, decompressed."""
    dense = tmp_path / "dense.mlpackage"
    coreml.decompress(package, dense, overwrite=True)
    return constants(dense)["conv_weight_0"]


def test_steps_follow_each_other(ios18_package, tmp_path):
    steps = [{"prune": {"target_sparsity": 0.5}}, {"palettize": {"nbits": 4}}]
    report = coreml.compress(ios18_package, tmp_path / "a.mlpackage", {"weights": {"conv_weight_0": steps}})
    (record,) = [each for each in report.weights if each.method]
    assert record.method == "prune 50%, then palettize 4 bits"
    original = constants(ios18_package)["conv_weight_0"]
    tensor = apply(apply(original, Prune(target_sparsity=0.5)), Palettize(nbits=4))
    assert_same_bits(_conv_weight(tmp_path / "a.mlpackage", tmp_path), tensor.dense())
    assert record.snr_db == pytest.approx(error(original, tensor).snr_db, rel=1e-12)
    verification = coreml.verify(ios18_package, tmp_path / "a.mlpackage")
    assert verification.ok, verification.totals


def test_what_is_compressed_already(ios18_package, tmp_path):
    once, twice = tmp_path / "once.mlpackage", tmp_path / "twice.mlpackage"
    coreml.compress(ios18_package, once, {"weights": {"conv*": {"palettize": {"nbits": 6}}}})
    outcomes = [
        (Prune(target_sparsity=0.5), None, "already compressed"),
        (Prune(target_sparsity=0.5), True, None),
        (Palettize(nbits=2), True, "cannot be compressed further in this way"),
    ]
    for spec, joint_compression, reason in outcomes:
        report = coreml.compress(once, twice, spec, joint_compression=joint_compression, overwrite=True)
        (record,) = [each for each in report.weights if each.name == "conv_weight_0"]
        if reason is not None:
            assert record.reason.startswith(reason)
            assert _storage(twice, "conv_weight_0") == "palettized 6 bits"
            continue
        assert record.status == "compressed"
        expected = apply(apply(constants(ios18_package)["conv_weight_0"], Palettize(nbits=6)), spec).dense()
        assert_same_bits(_conv_weight(twice, tmp_path), expected)


def _storage(package, name):
    return {weight.name: weight.storage for weight in coreml.inspect(package).weights}[name]


# coremltools' configs


@pytest.fixture(scope="module")
def cto(ct):
    return ct.optimize.coreml


def _objects(cto):
    """coremltools' configs, and what they are here."""
    return {
        "palettizer": (
            cto.OptimizationConfig(
                global_config=cto.OpPalettizerConfig(nbits=4, granularity="per_grouped_channel", group_size=16),
                op_type_configs={"conv": cto.OpPalettizerConfig(mode="uniform", nbits=6), "gather": None},
                op_name_configs={
                    "product": cto.OpPalettizerConfig(nbits=2, weight_threshold=100, num_kmeans_workers=2),
                    "left": cto.OpPalettizerConfig(nbits=3, cluster_dim=2),
                    "shared": None,
                },
            ),
            {
                "global": {
                    "steps": {"palettize": {"nbits": 4, "granularity": "per_grouped_channel", "group_size": 16}},
                    "weight_threshold": 2048,
                },
                "op_types": {"conv": {"palettize": {"mode": "uniform", "nbits": 6}}, "gather": None},
                "weights": {
                    "product": {"steps": {"palettize": {"nbits": 2}}, "weight_threshold": 100},
                    "left": {"palettize": {"nbits": 3, "cluster_dim": 2}},
                    "shared": None,
                },
            },
        ),
        "quantizer": (
            cto.OptimizationConfig(
                global_config=cto.OpLinearQuantizerConfig(dtype="int4", granularity="per_block", block_size=16),
                op_type_configs={"conv": cto.OpLinearQuantizerConfig(mode="linear", dtype=np.uint8)},
                op_name_configs={
                    "left": cto.OpLinearQuantizerConfig(granularity="per_tensor"),
                    "up_weight_0": cto.OpLinearQuantizerConfig(granularity="per_block", block_size=0),
                    "single": cto.OpLinearQuantizerConfig(granularity="per_block", block_size=[0, 8]),
                },
            ),
            {
                "global": {"quantize": {"dtype": "int4", "granularity": "per_block", "block_size": 16}},
                "op_types": {"conv": {"quantize": {"mode": "linear", "dtype": "uint8"}}},
                "weights": {
                    "left": {"quantize": {"granularity": "per_tensor"}},
                    "up_weight_0": {"quantize": {}},
                    "single": {"quantize": {"granularity": "per_block", "block_size": [0, 8]}},
                },
            },
        ),
        "pruner": (
            cto.OptimizationConfig(
                global_config=cto.OpThresholdPrunerConfig(threshold=0.05, minimum_sparsity_percentile=0.3),
                op_type_configs={
                    "conv": cto.OpMagnitudePrunerConfig(n_m_ratio=(2, 4)),
                    "linear": cto.OpMagnitudePrunerConfig(target_sparsity=0.5, block_size=4, dim=1),
                },
                op_name_configs={"left": cto.OpMagnitudePrunerConfig(target_sparsity=0.75)},
            ),
            {
                "global": {"prune": {"threshold": 0.05, "minimum_sparsity_percentile": 0.3}},
                "op_types": {
                    "conv": {"prune": {"n_m_ratio": [2, 4], "dim": 1}},
                    "linear": {"prune": {"target_sparsity": 0.5, "block_size": 4, "dim": 1}},
                },
                "weights": {"left": {"prune": {"target_sparsity": 0.75}}},
            },
        ),
    }  # fmt: skip


@pytest.mark.parametrize("name", ["palettizer", "quantizer", "pruner"])
def test_coremltools_objects_and_our_dicts_give_the_same_bytes(cto, ios18_package, tmp_path, name):
    theirs, ours = _objects(cto)[name]
    report = coreml.compress(ios18_package, tmp_path / "theirs.mlpackage", theirs)
    coreml.compress(ios18_package, tmp_path / "ours.mlpackage", ours)
    assert report.compressed > 5
    assert report.unmatched_rules == ()
    assert digest(tmp_path / "theirs.mlpackage") == digest(tmp_path / "ours.mlpackage")


def test_coremltools_compresses_the_same_weights_by_the_same_config(ct, cto, ios18_package, tmp_path):
    config, _ = _objects(cto)["quantizer"]
    with quiet():
        model = ct.models.MLModel(str(ios18_package), skip_model_load=True)
        cto.linear_quantize_weights(model, config).save(str(tmp_path / "theirs.mlpackage"))
    report = coreml.compress(ios18_package, tmp_path / "ours.mlpackage", config)
    theirs = {
        name.removesuffix("_quantized")
        for name, kind in operation_types(tmp_path / "theirs.mlpackage").items()
        if kind.startswith("constexpr_")
    }
    # It compresses the constant that is also a block output, which Core ML then refuses.
    assert theirs - {"also_returned"} == {each.name for each in report.weights if each.status == "compressed"}


def test_each_rule_has_its_own_policy_for_values_that_are_not_finite(ios18_package, tmp_path):
    def config(policy):
        rule = {"palettize": {"nbits": 3, "nonfinite": policy}}
        return {"global": {"quantize": {"nonfinite": "error"}}, "weights": {"infinite_x_0": rule}}

    for policy, status in (("keep", "kept"), ("table", "compressed")):
        report = coreml.compress(ios18_package, tmp_path / f"{policy}.mlpackage", config(policy))
        (record,) = [each for each in report.weights if each.name == "infinite_x_0"]
        assert record.status == status
        assert coreml.verify(ios18_package, tmp_path / f"{policy}.mlpackage").ok
    with pytest.raises(ValueError, match="infinite_x_0: palettize: 1 of 3072 values are NaN or infinite"):
        coreml.compress(ios18_package, tmp_path / "error.mlpackage", config("error"))
    assert not (tmp_path / "error.mlpackage").exists()


def test_too_few_zeros_keep_the_weight_as_coremltools_does(ct, cto, trained_package, tmp_path):
    threshold = 0.03
    for least in (0.2, 0.99):
        config = cto.OptimizationConfig(
            global_config=cto.OpThresholdPrunerConfig(threshold=threshold, minimum_sparsity_percentile=least)
        )
        with quiet():
            model = ct.models.MLModel(str(trained_package), skip_model_load=True)
            cto.prune_weights(model, config).save(str(tmp_path / f"theirs{least}.mlpackage"))
        report = coreml.compress(trained_package, tmp_path / f"ours{least}.mlpackage", config)
        pruned = {
            name.removesuffix("_sparsified")
            for name, kind in operation_types(tmp_path / f"theirs{least}.mlpackage").items()
            if kind == "constexpr_sparse_to_dense"
        }
        assert pruned == {each.name for each in report.weights if each.status == "compressed"}
        reasons = {each.reason for each in report.weights if each.reason and not each.planned}
        assert reasons <= {"fewer zeros than minimum_sparsity_percentile asks for"}
        assert bool(reasons) or least == 0.2


def test_a_lut_function_does_what_it_does_in_coremltools(ct, cto, ios18_package, tmp_path):
    def function(weight):
        table = np.linspace(weight.min(), weight.max(), 16).astype(weight.dtype)
        return table, np.abs(weight.reshape(-1, 1).astype(np.float64) - table).argmin(axis=1).astype(np.uint8)

    config = cto.OptimizationConfig(
        op_name_configs={"conv_weight_0": cto.OpPalettizerConfig(mode="custom", lut_function=function)}
    )
    with quiet():
        model = ct.models.MLModel(str(ios18_package), skip_model_load=True)
        cto.palettize_weights(model, config).save(str(tmp_path / "theirs.mlpackage"))
    report = coreml.compress(ios18_package, tmp_path / "ours.mlpackage", config, strict=True)
    assert [record.method for record in report.weights if record.method] == ["palettize custom"]
    theirs = constants(tmp_path / "theirs.mlpackage")["conv_weight_0_palettized"]
    assert_same_bits(constants(tmp_path / "ours.mlpackage")["conv_weight_0"], theirs)
    plan = coreml.plan(ios18_package, config)
    assert not plan.exact


# The examples of the documentation of coremltools' from_dict and from_yaml.
DOCUMENTED = """
config_type: OpPalettizerConfig
global_config:
    mode: kmeans
    nbits: 4
op_type_configs:
    conv:
        mode: uniform
        nbits: 1
op_name_configs:
    conv_1:
        mode: unique
"""
DOCUMENTED_PRUNER = """
config_type: OpThresholdPrunerConfig
global_config:
    threshold: 0.01
op_type_configs:
    conv:
        config_type: OpMagnitudePrunerConfig
        n_m_ratio: [3, 4]
"""


@pytest.mark.parametrize("text", [DOCUMENTED, DOCUMENTED_PRUNER], ids=["palettizer", "pruner"])
def test_coremltools_yaml_files_mean_the_same(cto, tmp_path, text):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    assert Config.load(path) == as_config(cto.OptimizationConfig.from_yaml(str(path)))


def test_every_field_of_coremltools_classes_is_known(cto):
    import attrs

    from corepress.config.from_coremltools import _DEFAULTS

    for name, defaults in _DEFAULTS.items():
        theirs = {field.name: field.default for field in attrs.fields(getattr(cto, name)) if field.init}
        assert theirs.keys() == defaults.keys()
        for field, value in defaults.items():
            if field not in ("dtype", "granularity"):
                assert theirs[field] == value, (name, field)


def test_what_cannot_be_taken_over_is_refused(cto):
    with pytest.raises(ValueError, match=r"config_type must be .*did you mean 'OpPalettizerConfig'"):
        Config.from_dict({"config_type": "OpPaletizerConfig", "global_config": {"nbits": 4}})
    with pytest.raises(ValueError, match="op_type_configs 'conv': OpPalettizerConfig has no option 'nbit'"):
        Config.from_dict({"config_type": "OpPalettizerConfig", "op_type_configs": {"conv": {"nbit": 4}}})
    with pytest.raises(ValueError, match=r"unknown key 'global'; .*did you mean 'global_config'"):
        Config.from_dict({"config_type": "OpPalettizerConfig", "global": {"nbits": 4}})
    with pytest.raises(ValueError, match="global_config: must be a dict of options, not 4"):
        Config.from_dict({"config_type": "OpPalettizerConfig", "global_config": 4})
    with quiet():
        config = cto.OptimizationConfig(
            global_config=cto.OpPalettizerConfig(nbits=4), is_deprecated=True, op_selector=id
        )
    with pytest.raises(ValueError, match="op_selector is a function"):
        as_config(config)


# Apple's recipes


def test_a_recipe_for_a_package(ios18_package, tmp_path):
    recipe = {"conv": 6, "product_y_0": 2, "left_x_0": 16, "not.there": 4}
    report = coreml.compress(ios18_package, tmp_path / "a.mlpackage", recipe)
    methods = {record.name: record.method for record in report.weights if record.method}
    assert methods == {"conv_weight_0": "palettize 6 bits", "product_y_0": "palettize 2 bits"}
    assert report.unmatched_rules == ("weights 'module:not.there'",)
    originals, decoded = constants(ios18_package), constants(tmp_path / "a.mlpackage")
    assert_same_bits(decoded["conv_weight_0"], apply(originals["conv_weight_0"], Palettize(nbits=6)).dense())


# Reports


def test_reports_come_back_from_json(ios18_package, tmp_path):
    report = coreml.compress(ios18_package, tmp_path / "a.mlpackage", RULES, target="ane")
    assert report.warnings
    assert any(record.snr_db is not None for record in report.weights)
    report.save(tmp_path / "report.json")
    assert coreml.Report.load(tmp_path / "report.json") == report
    lossless = dataclasses.replace(report.weights[0], snr_db=float("inf"))
    assert coreml.WeightRecord.from_dict(lossless.to_dict()) == lossless
    assert "no weight matches weights 'nothing*'" in str(report)
    assert str(report.warnings[0]) in str(report)


def test_classifiers_keep_their_labels(ct, build, tmp_path):
    weight = np.random.default_rng(0).standard_normal((100, 64)).astype(np.float32)

    def body(mb, x):
        return mb.softmax(x=mb.linear(x=x, weight=weight, name="head"), name="probabilities")

    package = build(body, {"x": ((1, 64), np.float32)})
    spec_path = package / "Data/com.apple.CoreML/model.mlmodel"
    from coremltools.proto import Model_pb2

    spec = Model_pb2.Model.FromString(spec_path.read_bytes())
    spec.description.predictedFeatureName = "classLabel"
    spec.description.predictedProbabilitiesName = "probabilities"
    spec_path.write_bytes(spec.SerializeToString())
    copy = shutil.copytree(package, tmp_path / "classifier.mlpackage")
    coreml.compress(copy, tmp_path / "small.mlpackage", Prune(target_sparsity=0.5), strict=True)
    again = Model_pb2.Model.FromString((tmp_path / "small.mlpackage/Data/com.apple.CoreML/model.mlmodel").read_bytes())
    assert again.description == spec.description
    assert coreml.verify(copy, tmp_path / "small.mlpackage").ok
    assert float_constants(tmp_path / "small.mlpackage")
