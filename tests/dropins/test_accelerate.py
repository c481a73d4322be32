"""`corepress.accelerate`: coremltools' own passes with the native kernels inside."""

from __future__ import annotations

import inspect
import logging

import numpy as np
import pytest
from coreml_helpers import assert_same_bits, quiet
from dropin_helpers import TOLERANCE, both_ways, normal, operations, squared_error, weights
from hypothesis import given, settings
from hypothesis import strategies as st
from test_defects_of_coremltools import run_two_calls
from test_optimize_coreml import CASES, CASES_OF_IOS18, JOINT, config_of

import corepress
from corepress.acceleration.internals import internals

# NumPy 1 does not round a float16 step, of which coremltools' tables are multiples then.
EVEN_STEPS_ARE_OURS = np.float16(1).dtype == (np.float16(1) / 3).dtype
OTHER_STEPS = 5e-3


@pytest.fixture
def accelerated(ct):
    with corepress.accelerate():
        yield


@pytest.fixture(scope="session")
def utils(ct):
    from coremltools.optimize import _utils

    return _utils


@pytest.fixture(scope="session")
def passes(ct):
    from coremltools.optimize.coreml import _quantization_passes

    return _quantization_passes


def replaced(ct):
    """What the internals are now."""
    import importlib

    found = []
    for each in internals():
        owner = importlib.import_module(each.module)
        *owners, name = each.path.split(".")
        for part in owners:
            owner = getattr(owner, part)
        found.append(vars(owner)[name])
    return found


class TestInstalling:
    def test_a_block_leaves_coremltools_as_it_was(self, ct):
        before = replaced(ct)
        with corepress.accelerate():
            inside = replaced(ct)
            assert corepress.accelerate.is_installed
        assert all(new is not old for new, old in zip(inside, before, strict=True))
        assert all(new is old for new, old in zip(replaced(ct), before, strict=True))
        assert not corepress.accelerate.is_installed

    def test_a_block_that_fails_does_too(self, ct):
        before = replaced(ct)
        with pytest.raises(KeyError), corepress.accelerate():
            raise KeyError
        assert all(new is old for new, old in zip(replaced(ct), before, strict=True))

    def test_blocks_are_nested(self, ct):
        before = replaced(ct)
        with corepress.accelerate():
            inside = replaced(ct)
            with corepress.accelerate():
                assert all(new is old for new, old in zip(replaced(ct), inside, strict=True))
            assert corepress.accelerate.is_installed
        assert all(new is old for new, old in zip(replaced(ct), before, strict=True))

    def test_installed_until_uninstalled_as_often(self, ct):
        before = replaced(ct)
        corepress.accelerate.install()
        corepress.accelerate.install()
        corepress.accelerate.uninstall()
        assert repr(corepress.accelerate) == "<corepress.accelerate, installed>"
        corepress.accelerate.uninstall()
        corepress.accelerate.uninstall()
        assert repr(corepress.accelerate) == "<corepress.accelerate, not installed>"
        assert all(new is old for new, old in zip(replaced(ct), before, strict=True))

    def test_replacements_look_like_what_they_replace(self, ct, accelerated):
        for each, found in zip(internals(), replaced(ct), strict=True):
            function = getattr(found, "__func__", found)
            assert tuple(inspect.signature(function).parameters) == each.parameters
            assert function.__name__.lstrip("_") == each.path.split(".")[-1].lstrip("_")

    @pytest.mark.parametrize("version", ["8.3.0", "9.1", "10.0"])
    def test_other_versions_are_refused(self, ct, monkeypatch, version):
        before = replaced(ct)
        monkeypatch.setattr(ct, "__version__", version)
        with pytest.raises(RuntimeError, match=rf"accelerate: .*its version is {version}; known are those of 9.0"):
            corepress.accelerate.install()
        assert all(new is old for new, old in zip(replaced(ct), before, strict=True))
        assert not corepress.accelerate.is_installed

    def test_a_missing_internal_is_refused(self, ct, utils, monkeypatch):
        monkeypatch.delattr(utils, "lut_to_dense")
        before = utils.sparse_to_dense
        with pytest.raises(RuntimeError, match=r"there is no coremltools.optimize._utils.lut_to_dense"):
            corepress.accelerate.install()
        assert utils.sparse_to_dense is before

    def test_an_internal_with_other_parameters_is_refused(self, ct, utils, monkeypatch):
        monkeypatch.setattr(utils, "sparse_to_dense", lambda nonzero_data, mask, order: None)
        with pytest.raises(RuntimeError, match="takes nonzero_data, mask, order instead of nonzero_data, mask;"):
            corepress.accelerate.install()


class TestModels:
    @pytest.mark.parametrize("target", ["iOS16", "iOS18", "iOS26"])
    @pytest.mark.parametrize("case", [*CASES, *CASES_OF_IOS18])
    def test_passes_give_the_same_operations_and_no_larger_errors(self, peer, cto, two_layers, convert, case, target):
        if target == "iOS16" and case in CASES_OF_IOS18:
            pytest.skip("needs iOS 18")
        function, name, options = (CASES | CASES_OF_IOS18)[case]
        model = two_layers(target)
        if case == "blocks of two axes":
            model = convert(
                lambda mb, x: mb.conv(x=x, weight=normal(64, 32, 3, 3), name="conv"), (1, 32, 8, 8), target=target
            )
        config = config_of(cto, name, options)
        theirs, ours = both_ways(lambda: getattr(peer, function)(model, config))
        assert operations(ours) == operations(theirs)
        check_errors(weights(model), weights(ours), weights(theirs))

    @pytest.mark.parametrize("steps", JOINT)
    def test_joint_passes_too(self, peer, cto, two_layers, steps):
        model = two_layers()
        first, second = JOINT[steps]
        with quiet():
            once = getattr(peer, first[0])(model, config_of(cto, *first[1:]))
        config = config_of(cto, *second[1:])
        theirs, ours = both_ways(lambda: getattr(peer, second[0])(once, config, joint_compression=True))
        assert operations(ours) == operations(theirs)
        check_errors(weights(once), weights(ours), weights(theirs))

    def test_decompressed_weights_have_the_same_bits(self, peer, cto, two_layers):
        for case in ("4 bits", "int8", "uint8 linear", "sparse"):
            function, name, options = CASES[case]
            for target in ("iOS16", "iOS18"):
                with quiet():
                    compressed = getattr(peer, function)(two_layers(target), config_of(cto, name, options))
                theirs, ours = both_ways(lambda model=compressed: peer.decompress_weights(model))
                expected = weights(theirs)
                for key, array in weights(ours).items():
                    assert_same_bits(array, expected[key], f"{case} {target}")

    def test_workers_for_kmeans_can_be_asked_for_twice(self):
        found = run_two_calls("accelerated")
        assert "both calls returned" in found.stdout, found.stderr

    def test_one_infinite_value_keeps_a_weight_as_it_was(self, peer, cto, convert, caplog, accelerated):
        mask = normal(128, 128, scale=1)
        mask[3, 5] = -np.inf
        model = convert(lambda mb, x: mb.linear(x=x, weight=mask, name="linear"), (4, 128), precision="FLOAT32")
        with quiet(), caplog.at_level(logging.WARNING):
            found = peer.palettize_weights(model, config_of(cto, "OpPalettizerConfig", {"nbits": 4}))
        assert_same_bits(weights(found)["linear", "weight"], mask)
        assert any("infinite" in record.getMessage() for record in caplog.records)

    def test_a_weight_whose_groups_do_not_divide_is_not_left_divided(self, peer, cto, convert, accelerated):
        weight = normal(60, 64, scale=5)
        model = convert(lambda mb, x: mb.linear(x=x, weight=weight, name="linear"), (4, 64), precision="FLOAT32")
        options = {
            "nbits": 4,
            "granularity": "per_grouped_channel",
            "group_size": 16,
            "enable_per_channel_scale": True,
        }
        with quiet():
            found = peer.palettize_weights(model, config_of(cto, "OpPalettizerConfig", options))
        assert_same_bits(weights(found)["linear", "weight"], weight)

    def test_float16_weights_of_more_than_65504_elements_are_pruned(self, peer, cto, convert, accelerated):
        model = convert(lambda mb, x: mb.linear(x=x, weight=normal(300, 256), name="linear"), (4, 256))
        with quiet():
            found = peer.prune_weights(model, config_of(cto, "OpMagnitudePrunerConfig", {"target_sparsity": 0.75}))
        (weight,) = (array for (_, operand), array in weights(found).items() if operand == "weight")
        assert (weight == 0).mean() == pytest.approx(0.75, abs=0.005)

    def test_a_lut_function_is_called_as_before(self, peer, cto, two_layers):
        def lut_function(weight):
            edges = np.linspace(weight.min(), weight.max(), 4).astype(weight.dtype)
            return edges, np.abs(weight.reshape(-1, 1) - edges).argmin(axis=1).astype(np.uint8)

        config = config_of(cto, "OpPalettizerConfig", {"mode": "custom", "lut_function": lut_function})
        theirs, ours = both_ways(lambda: peer.palettize_weights(two_layers(), config))
        expected = weights(theirs)
        for key, array in weights(ours).items():
            assert_same_bits(array, expected[key])


def check_errors(originals, ours, theirs) -> None:
    assert ours.keys() == theirs.keys() == originals.keys()
    for key, original in originals.items():
        assert ours[key].dtype == theirs[key].dtype
        assert squared_error(ours[key], original) <= squared_error(theirs[key], original) * (1 + TOLERANCE)


class TestKmeansHelper:
    """``_get_kmeans_lookup_table_and_weight``, which torchao and Stable Diffusion scripts call."""

    @pytest.fixture(scope="class")
    def helper(self, ct):
        from coremltools.models.neural_network import quantization_utils

        return lambda *arguments, **options: quantization_utils._get_kmeans_lookup_table_and_weight(
            *arguments, **options
        )

    @pytest.mark.parametrize("force", [False, True])
    @pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
    @pytest.mark.parametrize("shape", [(40, 30), (120, 100)])
    @pytest.mark.parametrize("nbits", [1, 3, 4, 5, 8])
    def test_tables_and_codes_are_of_the_same_kind_and_cost_no_more(self, helper, nbits, shape, dtype, force):
        weight = normal(*shape).astype(dtype)
        theirs, ours = both_ways(lambda: helper(nbits, weight, force_kmeans1d=force))
        for found, expected in zip(ours, theirs, strict=True):
            assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
        costs = [squared_error(lut.reshape(-1)[codes], weight.reshape(-1)) for lut, codes in (ours, theirs)]
        assert costs[0] <= costs[1] * (1 + TOLERANCE)

    @pytest.mark.parametrize("axis", [0, 1])
    def test_vectors(self, helper, axis):
        weight = normal(64, 48)
        theirs, ours = both_ways(lambda: helper(4, weight, cluster_dim=4, vector_axis=axis))
        for found, expected in zip(ours, theirs, strict=True):
            assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
        with quiet():
            from coremltools.optimize._utils import reshape_weight_for_vector_lut

            vectors = reshape_weight_for_vector_lut(weight, 4, axis).reshape(-1, 4)
        costs = [squared_error(lut[codes], vectors) for lut, codes in (ours, theirs)]
        assert costs[0] <= costs[1] * 1.01

    def test_fewer_values_than_entries_leave_zeros(self, helper):
        weight = np.array([3.0, -1.0, 3.0, 2.0], np.float16)
        theirs, ours = both_ways(lambda: helper(3, weight, True))
        np.testing.assert_array_equal(ours[0], theirs[0])
        np.testing.assert_array_equal(ours[1], theirs[1])

    def test_errors_stay_coremltools_own(self, helper, accelerated):
        with pytest.raises(ValueError, match="Cannot force kmeans1d for vector palettization"):
            helper(4, normal(8, 8), force_kmeans1d=True, cluster_dim=2, vector_axis=0)


class TestInnerFunctions:
    @given(st.data())
    @settings(max_examples=60)
    def test_packed_elements_are_the_same_bytes(self, utils, data):
        nbits = data.draw(st.sampled_from([1, 2, 3, 4, 6, 8]))
        signed = data.draw(st.booleans()) and nbits > 1
        low = -(2 ** (nbits - 1)) if signed else 0
        count = data.draw(st.integers(1, 67))
        dtype = np.int8 if signed else np.uint8
        values = data.draw(st.lists(st.integers(low, low + 2**nbits - 1), min_size=count, max_size=count))
        elements = np.array(values, dtype)
        theirs, ours = both_ways(lambda: utils.pack_elements_into_bits(elements, nbits))
        assert_same_bits(ours, theirs)
        restored = both_ways(lambda: utils.restore_elements_from_packed_bits(theirs, nbits, count, signed))
        for each in restored:
            assert_same_bits(each, elements)

    def test_elements_that_do_not_fit_are_refused_in_coremltools_words(self, utils, accelerated):
        with pytest.raises(ValueError, match="To pack elements into 3-bit, the max value is 7, but got 8"):
            utils.pack_elements_into_bits(np.array([1, 8], np.uint8), 3)

    @given(st.data())
    @settings(max_examples=60)
    def test_looked_up_weights_have_the_same_bits(self, utils, data):
        nbits = data.draw(st.sampled_from([1, 2, 3, 4, 6, 8]))
        length = data.draw(st.sampled_from([1, 2, 4]))
        axis = data.draw(st.sampled_from([0, 1, 2, -1]))
        dtype = data.draw(st.sampled_from([np.float16, np.float32, np.int8]))
        groups = [data.draw(st.sampled_from([1, size])) for size in (2, 3, 4)]
        shape = (4, 6, 8)
        rng = np.random.default_rng(data.draw(st.integers(0, 99)))
        lut = rng.integers(-100, 100, (*groups, 2**nbits, length)).astype(dtype)
        indices = rng.integers(0, 2**nbits, shape).astype(np.uint8)
        theirs, ours = both_ways(lambda: utils.lut_to_dense(indices, lut, axis if length > 1 else None))
        assert_same_bits(ours, theirs)

    @pytest.mark.parametrize("dtype", [np.float16, np.float32, np.int8])
    @pytest.mark.parametrize("count", [1, 7, 8, 9, 130])
    def test_sparse_weights_have_the_same_bits(self, utils, dtype, count):
        mask = np.random.default_rng(count).integers(0, 2, (count, 3)).astype(np.uint8)
        values = np.arange(1, mask.sum() + 1).astype(dtype)
        theirs, ours = both_ways(lambda: utils.sparse_to_dense(values, mask))
        assert_same_bits(ours, theirs)
        params = utils.SparseParams(values, mask)
        theirs, ours = both_ways(lambda: utils.ios18_sparse_params_to_ios16(params))
        assert_same_bits(ours.mask, theirs.mask)
        theirs, ours = both_ways(lambda: utils.ios16_sparse_params_to_ios18(theirs))
        assert_same_bits(ours.mask, theirs.mask)
        assert ours.mask.dtype.metadata == theirs.mask.dtype.metadata

    @pytest.mark.parametrize("mode", ["LINEAR", "LINEAR_SYMMETRIC"])
    @pytest.mark.parametrize("name", ["int8", "uint8", "int4", "uint4"])
    @pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
    @pytest.mark.parametrize("blocks", [[0, 0], [1, 0], [0, 1], [1, 16], [4, 8]])
    def test_quantization_has_the_same_shapes_and_no_larger_errors(self, utils, blocks, dtype, name, mode):
        from coremltools.converters.mil.mil import types

        weight = normal(64, 48).astype(dtype)
        kind = types.string_to_builtin(name)
        theirs, ours = both_ways(lambda: utils.compute_qparams_by_dtype(weight, kind, mode, blocks))
        for found, expected in zip(ours, theirs, strict=True):
            assert (found is None) == (expected is None)
            if found is not None:
                assert (found.shape, found.dtype, found.dtype.metadata) == (
                    expected.shape,
                    expected.dtype,
                    expected.dtype.metadata,
                )
        costs = [squared_error(utils.dequantize_by_scale_and_zp(*each), weight) for each in (ours, theirs)]
        assert costs[0] <= costs[1] * (1 + TOLERANCE)
        theirs, ours = both_ways(lambda: utils.dequantize_by_scale_and_zp(*theirs))
        assert_same_bits(ours, theirs)

    @pytest.mark.parametrize("mode", ["KMEANS", "UNIFORM", "UNIQUE"])
    @pytest.mark.parametrize("dtype", [np.float16, np.float32])
    @pytest.mark.parametrize(("axis", "size"), [(0, 0), (0, 4), (1, 3), (-1, 2)])
    def test_palettes_have_the_same_shapes_and_no_larger_errors(self, passes, axis, size, dtype, mode):
        weight = normal(8, 6, 10, scale=4)
        weight = (np.round(weight) if mode == "UNIQUE" else weight).astype(dtype)
        nbits = None if mode == "UNIQUE" else 3
        compress = passes.palettize_weights.grouped_channelwise_compress
        with quiet():
            theirs = compress(weight, mode, nbits, axis, size)
            with corepress.accelerate():
                ours = passes.palettize_weights.grouped_channelwise_compress(weight, mode, nbits, axis, size)
        assert ours.indices.shape == theirs.indices.shape
        assert ours.indices.dtype.metadata == theirs.indices.dtype.metadata
        assert (ours.lut.shape, ours.lut.dtype) == (theirs.lut.shape, theirs.lut.dtype)
        costs = [squared_error(passes.palettize_weights.decompress(each), weight) for each in (ours, theirs)]
        if mode == "UNIFORM" and EVEN_STEPS_ARE_OURS:
            assert_same_bits(ours.lut, theirs.lut)
            assert costs[0] <= costs[1]
        else:
            assert costs[0] <= costs[1] * (1 + (TOLERANCE if mode != "UNIFORM" else OTHER_STEPS))

    @pytest.mark.parametrize("dtype", [np.float16, np.float32])
    def test_even_steps_are_the_same_for_a_tensor_and_for_one_group(self, passes, accelerated, dtype):
        weight = np.arange(-8, 8).repeat(3).reshape(4, 12).astype(dtype)  # 0 is between two entries
        lut, indices = passes.palettize_weights._get_lut_and_indices(weight, "UNIFORM", 2, None)
        grouped = passes.palettize_weights.grouped_channelwise_compress(weight, "UNIFORM", 2, 0, 0)
        np.testing.assert_array_equal(grouped.indices.reshape(-1), indices)
        assert_same_bits(grouped.lut.reshape(-1), lut)

    def test_whole_numbers_keep_their_dtype(self, passes):
        codes = np.random.default_rng(0).integers(-127, 128, (32, 20)).astype(np.int32)
        arguments = codes, "KMEANS", 4, 0, 8
        theirs, ours = both_ways(lambda: passes.palettize_weights.grouped_channelwise_compress(*arguments))
        assert ours.lut.dtype == theirs.lut.dtype == np.int32
        costs = [squared_error(passes.palettize_weights.decompress(each), codes) for each in (ours, theirs)]
        assert costs[0] <= costs[1] * (1 + TOLERANCE)

    @pytest.mark.parametrize("size", [3, 7])
    def test_groups_that_do_not_divide_are_warned_of(self, passes, caplog, accelerated, size):
        with caplog.at_level(logging.WARNING):
            found = passes.palettize_weights.grouped_channelwise_compress(normal(8, 6), "KMEANS", 2, 0, size)
        assert found is None
        assert "is not divisible by channel_group_size" in caplog.text

    @pytest.mark.parametrize("dtype", [np.float16, np.float32])
    def test_pruned_weights_cost_no_more(self, passes, dtype):
        weight = normal(60, 41).astype(dtype)
        pruner = passes.prune_weights
        for call in (
            lambda: pruner.compress_by_magnitude(weight, 0.0),
            lambda: pruner.compress_by_magnitude(weight, 0.7),
            lambda: pruner.compress_by_magnitude(weight, 1.0),
            lambda: pruner.compress_by_magnitude(weight, 0.5, 4, 0),
            lambda: pruner.compress_by_magnitude(weight, 0.5, 3, 1),
            lambda: pruner.compress_by_nm_sparsity(weight, (2, 4), 1),
            lambda: pruner.compress_by_nm_sparsity(weight, (3, 5), 0),
            lambda: pruner.compress_by_threshold(weight, 0.05, 0.1),
        ):
            theirs, ours = both_ways(call)
            assert ours.shape == theirs.shape
            assert (ours.mask.dtype, ours.mask.shape) == (theirs.mask.dtype, theirs.mask.shape)
            costs = [squared_error(pruner.decompress(each), weight) for each in (ours, theirs)]
            assert costs[0] <= costs[1] * (1 + TOLERANCE) + 1e-12
            kept = [each.nonzero_data.size for each in (ours, theirs)]
            assert kept[0] <= kept[1] * 1.01 + 1  # norms in float16 have ties that are none, which go together

    def test_what_is_not_pruned_stays_coremltools_own_decision(self, passes, caplog, accelerated):
        pruner, weight = passes.prune_weights, normal(6, 5)
        with caplog.at_level(logging.WARNING):
            assert pruner.compress_by_magnitude(weight, 0.5, 4, 0) is None
            assert pruner.compress_by_nm_sparsity(weight, (1, 3), 1) is None
            assert pruner.compress_by_threshold(weight, 1e-9, 0.5) is None
        for text in ("block_size > channel / 2", "m > channel / 2", "minimum_sparsity_percentile"):
            assert text in caplog.text
