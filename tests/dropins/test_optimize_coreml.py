"""`corepress.optimize.coreml` in the place of ``coremltools.optimize.coreml``."""

from __future__ import annotations

import hashlib
import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from coreml_helpers import quiet
from dropin_helpers import TARGETS, TOLERANCE, normal, operations, squared_error, weights

from helpers.processes import TIMEOUT

CASES = {
    "4 bits": ("palettize_weights", "OpPalettizerConfig", {"nbits": 4}),
    "uniform": ("palettize_weights", "OpPalettizerConfig", {"nbits": 6, "mode": "uniform"}),
    "int8": ("linear_quantize_weights", "OpLinearQuantizerConfig", {}),
    "uint8 linear": ("linear_quantize_weights", "OpLinearQuantizerConfig", {"dtype": "uint8", "mode": "linear"}),
    "per tensor": ("linear_quantize_weights", "OpLinearQuantizerConfig", {"granularity": "per_tensor"}),
    "sparse": ("prune_weights", "OpMagnitudePrunerConfig", {"target_sparsity": 0.6}),
    "threshold": ("prune_weights", "OpThresholdPrunerConfig", {"threshold": 0.04}),
    "2:4": ("prune_weights", "OpMagnitudePrunerConfig", {"n_m_ratio": (2, 4)}),
    "blocks": ("prune_weights", "OpMagnitudePrunerConfig", {"target_sparsity": 0.5, "block_size": 4, "dim": 1}),
}
CASES_OF_IOS18 = {
    "3 bits": ("palettize_weights", "OpPalettizerConfig", {"nbits": 3}),
    "groups": (
        "palettize_weights",
        "OpPalettizerConfig",
        {"nbits": 4, "granularity": "per_grouped_channel", "group_size": 16},
    ),
    "whole axis": (
        "palettize_weights",
        "OpPalettizerConfig",
        {"nbits": 4, "granularity": "per_grouped_channel", "group_size": 0},
    ),
    "vectors": ("palettize_weights", "OpPalettizerConfig", {"nbits": 4, "cluster_dim": 4}),
    "int4 blocks": (
        "linear_quantize_weights",
        "OpLinearQuantizerConfig",
        {"dtype": "int4", "granularity": "per_block", "block_size": 16},
    ),
    "blocks of two axes": (
        "linear_quantize_weights",
        "OpLinearQuantizerConfig",
        {"dtype": "int8", "granularity": "per_block", "block_size": (2, 16, 0, 0)},
    ),
}


def config_of(cto, name: str, options: dict, **more):
    return cto.OptimizationConfig(global_config=getattr(cto, name)(**options), **more)


def names(model) -> list[str]:
    """Names of the operations; those of casts are made up anew by coremltools' passes."""
    return [name for kind, name in operations(model) if kind != "cast"]


def check_against(peer, ours, model, function: str, config, *, larger: float = TOLERANCE, **options) -> None:
    with quiet():
        found = getattr(ours, function)(model, config, **options)
        expected = getattr(peer, function)(model, config, **options)
    assert [kind for kind, _ in operations(found)] == [kind for kind, _ in operations(expected)]
    assert names(found) == names(expected)
    assert found._spec.specificationVersion == expected._spec.specificationVersion
    originals, mine, theirs = weights(model), weights(found), weights(expected)
    assert mine.keys() == theirs.keys() == originals.keys()
    for key, original in originals.items():
        assert mine[key].dtype == theirs[key].dtype
        assert squared_error(mine[key], original) <= squared_error(theirs[key], original) * (1 + larger)


@pytest.mark.parametrize("precision", ["FLOAT16", "FLOAT32"])
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("case", CASES)
def test_gives_the_operations_and_names_of_coremltools_and_no_larger_errors(
    peer, cto, two_layers, case, target, precision
):
    function, name, options = CASES[case]
    check_against(peer, cto, two_layers(target, precision), function, config_of(cto, name, options))


@pytest.mark.parametrize("target", ["iOS18", "iOS26"])
@pytest.mark.parametrize("case", CASES_OF_IOS18)
def test_gives_the_operations_of_ios18_and_no_larger_errors(peer, cto, two_layers, convert, case, target):
    function, name, options = CASES_OF_IOS18[case]
    model = two_layers(target)
    if case == "blocks of two axes":

        def body(mb, x):
            return mb.conv(x=x, weight=normal(64, 32, 3, 3), name="conv")

        model = convert(body, (1, 32, 8, 8), target=target)
    check_against(peer, cto, model, function, config_of(cto, name, options))


def test_a_transposed_convolution_and_matmul_have_coremltools_axes(peer, cto, convert):
    def body(mb, x, y):
        first = mb.conv_transpose(x=x, weight=normal(32, 64, 2, 2, seed=4), name="up")
        second = mb.matmul(x=y, y=normal(64, 48, seed=5), transpose_y=False, name="right")
        third = mb.matmul(x=normal(48, 64, seed=6), y=y, transpose_y=True, name="left")
        return first, second, third

    model = convert(body, (1, 32, 8, 8), (16, 64))
    check_against(peer, cto, model, "linear_quantize_weights", config_of(cto, "OpLinearQuantizerConfig", {}))
    groups = {"nbits": 2, "granularity": "per_grouped_channel", "group_size": 8}
    check_against(peer, cto, model, "palettize_weights", config_of(cto, "OpPalettizerConfig", groups))


JOINT = {
    "prune, palettize": (
        ("prune_weights", "OpMagnitudePrunerConfig", {"target_sparsity": 0.5}),
        ("palettize_weights", "OpPalettizerConfig", {"nbits": 4}),
    ),
    "prune, quantize": (
        ("prune_weights", "OpMagnitudePrunerConfig", {"target_sparsity": 0.5}),
        ("linear_quantize_weights", "OpLinearQuantizerConfig", {}),
    ),
    "quantize, prune": (
        ("linear_quantize_weights", "OpLinearQuantizerConfig", {}),
        ("prune_weights", "OpMagnitudePrunerConfig", {"target_sparsity": 0.5}),
    ),
    "palettize, prune": (
        ("palettize_weights", "OpPalettizerConfig", {"nbits": 4}),
        ("prune_weights", "OpMagnitudePrunerConfig", {"target_sparsity": 0.5}),
    ),
    "quantize, palettize": (
        ("linear_quantize_weights", "OpLinearQuantizerConfig", {}),
        ("palettize_weights", "OpPalettizerConfig", {"nbits": 4}),
    ),
    "palettize, quantize": (
        ("palettize_weights", "OpPalettizerConfig", {"nbits": 4}),
        ("linear_quantize_weights", "OpLinearQuantizerConfig", {"granularity": "per_tensor"}),
    ),
}


@pytest.mark.parametrize("steps", JOINT)
def test_joint_compression_has_coremltools_operations_and_no_larger_errors(peer, cto, two_layers, steps):
    model = two_layers()
    (function, name, options), second = JOINT[steps]
    with quiet():
        once = getattr(cto, function)(model, config_of(cto, name, options))
    original = weights(once)
    function, name, options = second
    with quiet():
        mine, theirs = (
            getattr(module, function)(once, config_of(cto, name, options), joint_compression=True)
            for module in (cto, peer)
        )
    assert [kind for kind, _ in operations(mine)] == [kind for kind, _ in operations(theirs)]
    found, expected = weights(mine), weights(theirs)
    for key, array in original.items():
        assert squared_error(found[key], array) <= squared_error(expected[key], array) * (1 + TOLERANCE)


def test_a_joint_call_prunes_only_what_is_compressed(cto, two_layers):
    config = config_of(cto, "OpMagnitudePrunerConfig", {"target_sparsity": 0.5})
    with quiet():
        pruned = cto.prune_weights(two_layers(), config, joint_compression=True)
    assert not any(kind.startswith("constexpr") for kind, _ in operations(pruned))


@pytest.mark.parametrize("case", ["4 bits", "int8"])
def test_sparse_weights_of_which_next_to_nothing_is_left_stay_as_they_are(peer, cto, convert, case):
    weight = np.zeros((64, 64), np.float32)
    weight[3, :9] = 1
    model = convert(lambda mb, x: mb.linear(x=x, weight=weight, name="linear"), (4, 64))
    function, name, options = CASES[case]
    with quiet():
        sparse = cto.prune_weights(model, config_of(cto, "OpThresholdPrunerConfig", {}))
        mine, theirs = (
            getattr(module, function)(sparse, config_of(cto, name, options), joint_compression=True)
            for module in (cto, peer)
        )
    assert operations(mine) == operations(theirs)
    assert operations(mine)[0][0] == "constexpr_sparse_to_dense"


def test_decompresses_to_what_coremltools_decompresses_to(peer, cto, two_layers):
    model = two_layers()
    with quiet():
        compressed = cto.palettize_weights(model, config_of(cto, "OpPalettizerConfig", {"nbits": 4}))
        found, expected = cto.decompress_weights(compressed), peer.decompress_weights(compressed)
    assert operations(found) == operations(expected)
    mine, theirs = weights(found), weights(expected)
    assert mine.keys() == theirs.keys()
    for key, array in theirs.items():
        np.testing.assert_array_equal(mine[key], array)


@pytest.mark.parametrize("precision", ["FLOAT16", "FLOAT32"])
@pytest.mark.parametrize("threshold", [48, 2048, 10**6])
def test_metadata_is_that_of_coremltools(peer, cto, two_layers, precision, threshold):
    model = two_layers(precision=precision)
    with quiet():
        found, expected = cto.get_weights_metadata(model, threshold), peer.get_weights_metadata(model, threshold)
    assert list(found) == list(expected)
    assert str(found) == str(expected)
    for name, each in expected.items():
        np.testing.assert_array_equal(found[name].val, each.val)
        assert found[name].val.dtype == each.val.dtype
        assert found[name].sparsity == each.sparsity
        assert found[name].unique_values == each.unique_values
        assert found[name].child_ops == each.child_ops


def test_metadata_counts_zeros_and_nans_once(peer, cto, convert):
    weight = normal(64, 64)
    weight[:5] = 0
    weight[0, :3] = -0.0
    weight[7, :9] = np.nan
    model = convert(lambda mb, x: mb.linear(x=x, weight=weight, name="linear"), (4, 64))
    with quiet():
        (found,), (expected,) = (module.get_weights_metadata(model).values() for module in (cto, peer))
    assert (found.sparsity, found.unique_values) == (expected.sparsity, expected.unique_values)


def test_metadata_of_a_compressed_model_names_its_parts(peer, cto, two_layers):
    with quiet():
        model = cto.palettize_weights(two_layers(), config_of(cto, "OpPalettizerConfig", {"nbits": 4}))
        found, expected = cto.get_weights_metadata(model), peer.get_weights_metadata(model)
    assert len(found) == len(expected) == 2
    for mine, theirs in zip(found.values(), expected.values(), strict=True):
        assert mine.val.dtype == theirs.val.dtype == np.uint8
        assert mine.child_ops[0].op_type == "constexpr_lut_to_dense"


class TestConfigs:
    def test_by_operation_type_and_name_with_none_to_keep(self, peer, cto, two_layers):
        model = two_layers()
        four, six = cto.OpPalettizerConfig(nbits=4), cto.OpPalettizerConfig(nbits=6)
        config = cto.OptimizationConfig(global_config=four, op_type_configs={"linear": six})
        config.set_op_name("conv_cast_fp16", None)
        check_against(peer, cto, model, "palettize_weights", config)
        with quiet():
            found = cto.palettize_weights(model, config)
        assert [kind for kind, _ in operations(found) if kind.startswith("constexpr")] == ["constexpr_lut_to_dense"]
        assert np.unique(weights(found)["linear_cast_fp16", "weight"]).size == 64

    def test_by_the_name_of_the_weight(self, peer, cto, two_layers):
        model = two_layers()
        with quiet():
            name = next(iter(cto.get_weights_metadata(model)))
        config = cto.OptimizationConfig(op_name_configs={name: cto.OpLinearQuantizerConfig()})
        check_against(peer, cto, model, "linear_quantize_weights", config)
        with quiet():
            assert operations(cto.linear_quantize_weights(model, config))[0][1] == f"{name}_quantized"

    def test_a_name_forces_pruning_in_groups_of_what_is_no_layer(self, peer, cto, convert):
        def body(mb, x):
            return mb.add(x=mb.const(val=normal(64, 64), name="table"), y=x, name="sum")

        model = convert(body, (64, 64), precision="FLOAT32")
        ratio = cto.OpMagnitudePrunerConfig(n_m_ratio=(1, 2))
        check_against(peer, cto, model, "prune_weights", cto.OptimizationConfig(global_config=ratio))
        by_name = cto.OptimizationConfig(op_name_configs={"table": ratio})
        check_against(peer, cto, model, "prune_weights", by_name)
        with quiet():
            assert operations(cto.prune_weights(model, by_name))[0] == ("constexpr_sparse_to_dense", "table_sparsified")

    def test_from_dict_and_from_yaml(self, peer, cto, two_layers, tmp_path):
        model = two_layers()
        values = {
            "config_type": "OpPalettizerConfig",
            "global_config": {"mode": "uniform", "nbits": 4},
            "op_type_configs": {"conv": None},
        }
        check_against(peer, cto, model, "palettize_weights", cto.OptimizationConfig.from_dict(values))
        file = tmp_path / "config.yaml"
        file.write_text("config_type: OpMagnitudePrunerConfig\nglobal_config:\n  target_sparsity: 0.25\n")
        check_against(peer, cto, model, "prune_weights", cto.OptimizationConfig.from_yaml(str(file)))

    @pytest.mark.parametrize("threshold", [48 * 64 - 1, 48 * 64])
    def test_weights_of_as_many_elements_as_the_threshold_are_kept(self, peer, cto, two_layers, threshold):
        config = config_of(cto, "OpLinearQuantizerConfig", {"weight_threshold": threshold})
        check_against(peer, cto, two_layers(), "linear_quantize_weights", config)

    def test_operations_that_share_a_weight_must_agree(self, peer, cto, convert):
        weight = normal(64, 64)

        def body(mb, x):
            shared = mb.const(val=weight, name="shared")
            return mb.linear(x=mb.linear(x=x, weight=shared, name="first"), weight=shared, name="second")

        model = convert(body, (4, 64), precision="FLOAT32")
        config = cto.OptimizationConfig(op_name_configs={"first": cto.OpPalettizerConfig(nbits=4)})
        for module in (cto, peer):
            with quiet(), pytest.raises(ValueError, match=r"compression config conflict detected between ops .*first"):
                module.palettize_weights(model, config)
        config.set_op_name("second", cto.OpPalettizerConfig(nbits=4))
        check_against(peer, cto, model, "palettize_weights", config)

    @pytest.mark.parametrize("precision", ["FLOAT16", "FLOAT32"])
    def test_a_function_makes_the_table(self, peer, cto, two_layers, precision):
        def lut_function(weight):
            edges = np.linspace(weight.min(), weight.max(), 16).astype(weight.dtype)
            indices = np.abs(weight.reshape(-1, 1) - edges).argmin(axis=1)
            weight.sort()  # what it does to its copy is its own matter
            return edges, indices.astype(np.uint8)

        config = config_of(cto, "OpPalettizerConfig", {"mode": "custom", "lut_function": lut_function})
        check_against(peer, cto, two_layers(precision=precision), "palettize_weights", config)

    def test_distinct_values_become_the_table(self, peer, cto, convert):
        weight = np.random.default_rng(8).integers(-6, 7, size=(64, 48)).astype(np.float32)
        model = convert(lambda mb, x: mb.linear(x=x, weight=weight, name="linear"), (4, 48), target="iOS16")
        check_against(peer, cto, model, "palettize_weights", config_of(cto, "OpPalettizerConfig", {"mode": "unique"}))

    def test_configs_for_other_functions_are_refused(self, peer, cto, two_layers):
        config = config_of(cto, "OpLinearQuantizerConfig", {})
        for module in (cto, peer):
            with quiet(), pytest.raises(ValueError, match="palettize_weights only accept OpPalettizerConfig type"):
                module.palettize_weights(two_layers(), config)
        with pytest.raises(ValueError, match="config must be of type OptimizationConfig"):
            cto.palettize_weights(two_layers(), {"nbits": 4})
        with pytest.raises(ValueError, match="joint_compression only supports bool"):
            cto.linear_quantize_weights(two_layers(), config, joint_compression=1)


class TestModels:
    CONFIG = ("OpPalettizerConfig", {"nbits": 2})

    def test_a_model_from_a_path_is_left_as_it_is(self, ct, cto, two_layers, tmp_path):
        path = tmp_path / "model.mlpackage"
        with quiet():
            two_layers().save(str(path))
            model = ct.models.MLModel(str(path), skip_model_load=True)
        before = digests(path)
        with quiet():
            found = cto.palettize_weights(model, config_of(cto, *self.CONFIG))
        assert digests(path) == before
        assert found.package_path != model.package_path
        assert operations(found)[0][0] == "constexpr_lut_to_dense"

    def test_changes_in_memory_are_part_of_the_model(self, ct, cto, two_layers, tmp_path):
        with quiet():
            two_layers().save(str(tmp_path / "model.mlpackage"))
            model = ct.models.MLModel(str(tmp_path / "model.mlpackage"))
        model.short_description = "changed after it was loaded"
        model.user_defined_metadata["who"] = "me"
        with quiet():
            found = cto.palettize_weights(model, config_of(cto, *self.CONFIG))
            found.save(str(tmp_path / "out.mlpackage"))
            loaded = ct.models.MLModel(str(tmp_path / "out.mlpackage"))
        for each in (found, loaded):
            assert each.short_description == "changed after it was loaded"
            assert each.user_defined_metadata["who"] == "me"

    def test_the_program_in_memory_is_built_only_when_asked_for(self, ct, cto, two_layers, tmp_path, monkeypatch):
        import corepress.optimize.coreml.models as models

        model = two_layers()
        loads, load = [], models.milproto.load

        def counted(*arguments, **options):
            loads.append(arguments)
            return load(*arguments, **options)

        monkeypatch.setattr(models.milproto, "load", counted)
        with quiet():
            found = cto.palettize_weights(model, config_of(cto, *self.CONFIG))
            again = cto.linear_quantize_weights(found, config_of(cto, "OpLinearQuantizerConfig", {}))
            found.save(str(tmp_path / "out.mlpackage"))
            str(again)
        assert not loads
        assert operations(found)[0][0] == "constexpr_lut_to_dense"
        assert len(loads) == 1
        assert found._mil_program is found._mil_program
        assert len(loads) == 1
        assert isinstance(found, ct.models.MLModel)
        assert found._get_mil_internal().functions.keys() == {"main"}

    def test_what_is_saved_is_what_is_in_memory(self, ct, cto, two_layers, tmp_path):
        with quiet():
            found = cto.palettize_weights(two_layers(), config_of(cto, *self.CONFIG))
            found.save(str(tmp_path / "out.mlpackage"))
            loaded = ct.models.MLModel(str(tmp_path / "out.mlpackage"))
        assert loaded._spec == found._spec
        again = cto.decompress_weights(loaded)
        for key, array in weights(found).items():
            np.testing.assert_array_equal(weights(again)[key], array)

    def test_units_stay_those_of_the_model(self, ct, cto, two_layers):
        with quiet():
            model = two_layers(compute_units=ct.ComputeUnit.CPU_ONLY, skip_model_load=True)
            found = cto.palettize_weights(model, config_of(cto, *self.CONFIG))
        assert found.compute_unit == ct.ComputeUnit.CPU_ONLY
        assert found.__proxy__ is None

    def test_models_older_than_ios16_are_raised_to_it(self, peer, cto, two_layers):
        model = two_layers("iOS15")
        assert model._spec.specificationVersion == 6
        for function, name, options in CASES.values():
            check_against(peer, cto, model, function, config_of(cto, name, options))
        with quiet():
            assert cto.decompress_weights(model)._spec.specificationVersion == 7

    def test_weights_in_blocks_are_compressed_where_they_stand(self, peer, cto, convert):
        def body(mb, x):
            flag = mb.greater(x=mb.reduce_sum(x=x, axes=[0, 1]), y=0.0)
            return mb.cond(
                pred=flag,
                _true_fn=lambda: mb.linear(x=x, weight=normal(64, 64, seed=1), name="then"),
                _false_fn=lambda: mb.linear(x=x, weight=normal(64, 64, seed=2), name="other"),
                name="choice",
            )

        model = convert(body, (4, 64), precision="FLOAT32")
        config = config_of(cto, *self.CONFIG)
        with quiet():
            found, expected = cto.palettize_weights(model, config), peer.palettize_weights(model, config)
            mine, theirs = cto.get_weights_metadata(model), peer.get_weights_metadata(model)
        assert weights(found).keys() == weights(expected).keys()
        assert all(np.unique(array).size <= 4 for (_, name), array in weights(found).items() if name == "weight")
        assert list(mine) == list(theirs)
        assert str(mine) == str(theirs)


class TestRefusals:
    @pytest.mark.parametrize(
        ("name", "options", "message"),
        [
            ("OpPalettizerConfig", {"nbits": 4, "granularity": "per_grouped_channel"}, "per_grouped_channel pal"),
            ("OpPalettizerConfig", {"nbits": 4, "cluster_dim": 2}, "The vector palettization is supported since"),
            ("OpPalettizerConfig", {"nbits": 4, "enable_per_channel_scale": True}, "with per-channel-scale is only"),
            ("OpLinearQuantizerConfig", {"dtype": "int4"}, "The 4-bit quantization is supported since iOS18"),
            ("OpLinearQuantizerConfig", {"granularity": "per_block"}, "The per_block quantization is supported"),
        ],
    )
    def test_what_needs_ios18_is_refused_in_coremltools_words(self, peer, cto, two_layers, name, options, message):
        function = "palettize_weights" if name == "OpPalettizerConfig" else "linear_quantize_weights"
        for module in (cto, peer):
            with quiet(), pytest.raises(ValueError, match=message):
                getattr(module, function)(two_layers("iOS17"), config_of(cto, name, options))

    def test_joint_compression_needs_ios18(self, peer, cto, two_layers):
        for module in (cto, peer):
            with quiet(), pytest.raises(ValueError, match="Joint compression is only supported since iOS18"):
                module.palettize_weights(two_layers("iOS17"), config_of(cto, *TestModels.CONFIG), True)

    def test_tables_are_quantized_per_tensor(self, peer, cto, two_layers):
        with quiet():
            model = cto.palettize_weights(two_layers(), config_of(cto, "OpPalettizerConfig", {"nbits": 4}))
        for module in (cto, peer):
            with quiet(), pytest.raises(NotImplementedError, match="make sure to use per-tensor quantization"):
                module.linear_quantize_weights(model, config_of(cto, "OpLinearQuantizerConfig", {}), True)

    def test_blocks_need_one_size_per_axis(self, peer, cto, two_layers):
        config = config_of(cto, "OpLinearQuantizerConfig", {"granularity": "per_block", "block_size": (2, 16)})
        for module in (cto, peer):
            with quiet(), pytest.raises(ValueError, match="must has one element for each axis"):
                module.linear_quantize_weights(two_layers(), config)

    def test_neural_networks_are_refused(self, ct, cto):
        builder = ct.models.neural_network.NeuralNetworkBuilder(
            [("x", ct.models.datatypes.Array(4))], [("y", ct.models.datatypes.Array(4))]
        )
        builder.add_activation("relu", "RELU", "x", "y")
        with quiet():
            model = ct.models.MLModel(builder.spec)
        for function in (cto.decompress_weights, cto.get_weights_metadata):
            with quiet(), pytest.raises(TypeError, match="mlprogram"):
                function(model)
        with pytest.raises(TypeError, match="must be a coremltools"):
            cto.decompress_weights("model.mlpackage")

    def test_several_functions_are_refused(self, ct, peer, cto, two_layers, tmp_path):
        with quiet():
            two_layers().save(str(tmp_path / "model.mlpackage"))
            descriptor = ct.utils.MultiFunctionDescriptor()
            for name in ("one", "two"):
                descriptor.add_function(str(tmp_path / "model.mlpackage"), "main", name)
            descriptor.default_function_name = "one"
            ct.utils.save_multifunction(descriptor, str(tmp_path / "several.mlpackage"))
            model = ct.models.MLModel(str(tmp_path / "several.mlpackage"))
        config = config_of(cto, *TestModels.CONFIG)
        for module in (cto, peer):
            with quiet(), pytest.raises(ValueError, match="is not supported for a multifunction model"):
                module.palettize_weights(model, config)


class TestWarnings:
    @pytest.mark.parametrize(
        ("weight", "name", "options", "message"),
        [
            (normal(60, 64), "OpPalettizerConfig", {"granularity": "per_grouped_channel", "group_size": 16}, "axis 0"),
            (normal(62, 64), "OpPalettizerConfig", {"cluster_dim": 4}, "The `cluster_dim` is invalid for"),
            (
                normal(64, 65),
                "OpLinearQuantizerConfig",
                {"granularity": "per_block", "block_size": 16},
                "block_size 16",
            ),
            (np.full((64, 64), -np.inf, np.float32), "OpLinearQuantizerConfig", {}, "has inf/-inf"),
            (normal(64, 64), "OpThresholdPrunerConfig", {"threshold": 1e-9}, "minimum_sparsity_percentile"),
            (normal(64, 3), "OpMagnitudePrunerConfig", {"n_m_ratio": (1, 2), "weight_threshold": 10}, "m 2"),
            (normal(64, 64), "OpPalettizerConfig", {"mode": "unique"}, "cannot be represented by 8 bits"),
        ],
    )
    def test_a_weight_that_cannot_be_compressed_is_kept_and_named(
        self, cto, convert, caplog, weight, name, options, message
    ):
        model = convert(
            lambda mb, x: mb.linear(x=x, weight=weight, name="linear"), (4, weight.shape[1]), precision="FLOAT32"
        )
        function = {"OpPalettizerConfig": "palettize_weights", "OpLinearQuantizerConfig": "linear_quantize_weights"}
        if name == "OpPalettizerConfig" and "mode" not in options:
            options = {"nbits": 4, **options}
        with quiet(), caplog.at_level(logging.WARNING):
            found = getattr(cto, function.get(name, "prune_weights"))(model, config_of(cto, name, options))
        np.testing.assert_array_equal(weights(found)["linear", "weight"], weight)
        texts = [record.getMessage() for record in caplog.records]
        assert any(message in text for text in texts)
        assert any("linear_weight_0" in text for text in texts)

    def test_tables_that_scales_make_larger_than_the_weight_are_warned_of(self, cto, two_layers, caplog):
        with quiet():
            once = cto.linear_quantize_weights(two_layers(), config_of(cto, "OpLinearQuantizerConfig", {}))
        config = config_of(cto, "OpPalettizerConfig", {"nbits": 8})
        with quiet(), caplog.at_level(logging.WARNING):
            twice = cto.palettize_weights(once, config, joint_compression=True)
        assert "linear_weight_0_to_fp16_quantized" in caplog.text
        kept = [weights(model)["linear_cast_fp16", "weight"] for model in (once, twice)]
        np.testing.assert_array_equal(*kept)

    def test_small_weights_and_biases_are_not_warned_of(self, cto, two_layers, caplog):
        with quiet(), caplog.at_level(logging.WARNING):
            cto.palettize_weights(two_layers(), config_of(cto, *TestModels.CONFIG))
        assert not [record for record in caplog.records if "Skipped" in record.getMessage()]


def test_deprecated_selectors_are_left_to_coremltools(ct, cto, two_layers):
    config = cto.OptimizationConfig(
        global_config=cto.OpPalettizerConfig(nbits=4, weight_threshold=None),
        is_deprecated=True,
        op_selector=lambda op: op.val.val.ndim == 4,
    )
    with quiet():
        found = cto.palettize_weights(two_layers(), config)
    assert [kind for kind, _ in operations(found) if kind.startswith("constexpr")] == ["constexpr_lut_to_dense"]


def test_everything_coremltools_offers_is_offered(peer, cto):
    public = {name for name in vars(peer) if not name.startswith("_")}
    assert public <= set(cto.__all__)
    for name in ("OptimizationConfig", "OpPalettizerConfig", "CoreMLWeightMetaData"):
        assert getattr(cto, name) is getattr(peer, name)


def test_importing_corepress_imports_no_coremltools():
    code = "import sys, corepress, corepress.coreml, corepress.optimize; sys.exit('coremltools' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=TIMEOUT)


def digests(path: Path) -> dict[str, str]:
    return {
        str(file.relative_to(path)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(path.rglob("*"))
        if file.is_file()
    }
