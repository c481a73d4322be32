"""`corepress.accelerate` in coreai-opt's passes on programs of Core AI: equal forms, errors that are never larger."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from coreai_opt_helpers import linear_layers, program_of, run_python, weights_of
from dropin_helpers import TOLERANCE, normal, squared_error

import corepress

pytest.importorskip("coreai_opt")
pytest.importorskip("coreai_torch")

STANDARD_DEVIATIONS = [0.05, 1e-3, 1e-4, 2e-5]


@pytest.fixture(scope="module")
def utils():
    logging.getLogger("coreai_opt").setLevel(logging.ERROR)
    import coreai_opt.coreai_utils

    return coreai_opt.coreai_utils


@pytest.fixture(scope="module")
def program():
    """A program of one layer for each standard deviation, and its weight."""
    made = {}

    def program(deviation: float, dtype=np.float32):
        if (deviation, dtype) not in made:
            weight = normal(128, 96, seed=3, scale=deviation).astype(dtype)
            made[deviation, dtype] = program_of(*linear_layers([weight])), weight
        return made[deviation, dtype]

    return program


def both(function):
    theirs = function()
    with corepress.accelerate():
        ours = function()
    return theirs, ours


def errors(programs, weight):
    """Squared errors of both, whose weights must have the same shapes and dtypes."""
    found = [weights_of(each) for each in programs]
    assert [(each.shape, each.dtype) for each in found[0]] == [(each.shape, each.dtype) for each in found[1]]
    assert found[0][0].shape == weight.shape
    return [squared_error(each, weight) for (each,) in found]


PALETTES = {
    "4 bits": {"n_bits": 4},
    "1 bit": {"n_bits": 1},
    "8 bits": {"n_bits": 8},
    "groups of 8": {"n_bits": 4, "granularity": "per_grouped_channel", "group_size": 8},
    "groups of 1": {"n_bits": 2, "granularity": "per_channel"},
    "scaled": {"n_bits": 4, "enable_per_channel_scale": True},
    "table of int8": {"n_bits": 4, "lut_dtype": "int8"},
    "table of uint8": {"n_bits": 6, "lut_dtype": "uint8"},
}


def palettize(utils, program, *, exact, lut_dtype=None, granularity="per_tensor", **options):
    lut_dtype = None if lut_dtype is None else utils.DType(lut_dtype)
    granularity = utils.CompressionGranularity(granularity)
    return utils.palettize_weights(
        program, lut_dtype, granularity=granularity, enable_fast_kmeans_mode=not exact, num_kmeans_workers=1, **options
    )


class TestPalettes:
    @pytest.mark.parametrize("deviation", STANDARD_DEVIATIONS)
    @pytest.mark.parametrize("options", PALETTES.values(), ids=PALETTES)
    def test_errors_are_never_above_those_of_its_exact_mode(self, utils, program, deviation, options):
        source, weight = program(deviation)
        exact = palettize(utils, source, exact=True, **options)
        for mode in (True, False):
            with corepress.accelerate():
                ours = palettize(utils, source, exact=mode, **options)
            theirs, own = errors((exact, ours), weight)
            # coreai-opt rounds entries to integers afterwards, which may favour either.
            assert own <= theirs * (1 + (0.01 if "lut_dtype" in options else TOLERANCE))

    @pytest.mark.parametrize("deviation", STANDARD_DEVIATIONS[2:])
    def test_the_default_does_not_round_small_weights_away(self, utils, program, deviation):
        source, weight = program(deviation)
        theirs, ours = errors(both(lambda: palettize(utils, source, exact=False, n_bits=4)), weight)
        assert ours < 0.2 * theirs
        assert ours < 0.011 * squared_error(weight, np.zeros_like(weight))

    def test_of_float16(self, utils, program):
        source, weight = program(0.05, np.float16)
        theirs, ours = errors(both(lambda: palettize(utils, source, exact=False, n_bits=4)), weight)
        assert ours <= theirs * (1 + TOLERANCE)

    def test_of_vectors(self, utils, program):
        source, weight = program(0.05)
        theirs, ours = errors(both(lambda: palettize(utils, source, exact=True, n_bits=4, cluster_dim=2)), weight)
        assert ours <= theirs * 1.01

    def test_of_three_bits_which_coreai_opt_cannot_pack(self, utils, program):
        source, weight = program(0.05)
        with pytest.raises(RuntimeError, match="nbits=3"):
            palettize(utils, source, exact=True, n_bits=3)
        with corepress.accelerate():
            ours = palettize(utils, source, exact=True, n_bits=3)
        (found,) = weights_of(ours)
        assert len(np.unique(found)) == 8
        assert squared_error(found, weight) < 0.036 * squared_error(weight, np.zeros_like(weight))

    def test_what_is_not_finite_is_left_unchanged(self, utils):
        weight = normal(64, 48)
        weight[3, 5] = np.inf
        source = program_of(*linear_layers([weight]))
        with corepress.accelerate():
            (found,) = weights_of(palettize(utils, source, exact=False, n_bits=4))
        assert np.array_equal(found, weight)

    def test_starts_no_processes(self, utils, program, monkeypatch):
        from coreai_opt.coreai_utils._utils import palettize_utils

        monkeypatch.setattr(palettize_utils, "Pool", None)
        source, _ = program(0.05)
        with corepress.accelerate():
            utils.palettize_weights(source, None, n_bits=2)


QUANTIZED = {
    "int8": ("int8", {}),
    "int8 per tensor": ("int8", {"granularity": "per_tensor"}),
    "uint8": ("uint8", {}),
    "uint8, asymmetric": ("uint8", {"qscheme": "asymmetric"}),
    "int4 in blocks": ("int4", {"granularity": "per_block", "block_size": 32}),
    "uint4 in blocks, asymmetric": ("uint4", {"granularity": "per_block", "qscheme": "asymmetric"}),
    "int2": ("int2", {}),
    "fp8": ("fp8_e4m3fn", {}),
    "fp8 of more range": ("fp8_e5m2", {"granularity": "per_tensor"}),
}


def quantize(utils, program, dtype, granularity="per_channel", qscheme="symmetric", **options):
    kind = utils.CompressionGranularity(granularity)
    return utils.quantize_weights(program, utils.DType(dtype), utils.QScheme(qscheme), kind, **options)


@pytest.mark.parametrize("deviation", STANDARD_DEVIATIONS)
@pytest.mark.parametrize(("dtype", "options"), QUANTIZED.values(), ids=QUANTIZED)
def test_integers(utils, program, deviation, dtype, options):
    source, weight = program(deviation)
    theirs, ours = errors(both(lambda: quantize(utils, source, dtype, **options)), weight)
    # Floats of other scales are rounded otherwise, which may favour either.
    assert ours <= theirs * (1 + (TOLERANCE if "int" in dtype else 0.01))


SPARSE = {
    "half": {},
    "all": {"target_sparsity": 1.0},
    "nothing": {"target_sparsity": 0.0},
    "blocks": {"block_size": 4},
    "2 of 4": {"target_sparsity": None, "n_m_ratio": (2, 4)},
}


@pytest.mark.parametrize("deviation", STANDARD_DEVIATIONS)
@pytest.mark.parametrize("options", SPARSE.values(), ids=SPARSE)
def test_masks_are_equal(utils, program, deviation, options):
    source, _ = program(deviation)
    theirs, ours = map(weights_of, both(lambda: utils.sparsify_weights(source, **options)))
    for one, other in zip(theirs, ours, strict=True):
        assert one.dtype == other.dtype
        assert np.array_equal(one, other)


@pytest.mark.parametrize("values", [{"palettize_nbits": 4}, {"quantize_dtype": "int8"}], ids=str)
def test_compressed_values_of_masks(utils, program, values):
    source, weight = program(1e-3)
    values = {name: utils.DType(value) if name == "quantize_dtype" else value for name, value in values.items()}
    theirs, ours = errors(both(lambda: utils.sparsify_weights(source, **values)), weight)
    assert ours <= theirs * (1 + TOLERANCE)


class TestFunctions:
    """What the passes call, where programs do not reach."""

    def test_solver(self):
        from coreai_opt.deps import _kmeans1d

        values, shares = normal(300).astype(float).tolist(), np.random.default_rng(1).random(300).tolist()
        for weights in (None, shares):
            theirs, ours = both(lambda w=weights: _kmeans1d.cluster(values, 5, weights=w))
            assert type(ours) is type(theirs)
            assert ours.clusters == theirs.clusters
            assert ours.centroids == pytest.approx(theirs.centroids, rel=1e-12)
        with corepress.accelerate():
            assert len(_kmeans1d.cluster([1.0, 1.0, 2.0], 3).centroids) == 3
            with pytest.raises(AssertionError):
                _kmeans1d.cluster([], 3)

    @pytest.mark.parametrize("mode", ["UNIFORM", "UNIQUE", "CUSTOM"])
    @pytest.mark.parametrize("axis", [0, 1])
    def test_other_modes(self, utils, mode, axis):
        from coreai_opt.coreai_utils._utils.palettize_utils import _grouped_channelwise_compress

        weight = np.round(normal(12, 8), 2).astype(np.float16)
        weight = np.clip(weight, -0.05, 0.05)
        nbits = None if mode != "UNIFORM" else 3

        def own(values):
            return np.array([-0.05, 0.05], values.dtype), (values > 0).astype(np.uint8).reshape(-1)

        def call():
            from coreai_opt.coreai_utils._utils import palettize_utils

            return palettize_utils._grouped_channelwise_compress(weight, mode, nbits, axis, 4, own)

        theirs, ours = both(call)
        assert callable(_grouped_channelwise_compress)
        assert (ours.indices.shape, ours.indices.dtype) == (theirs.indices.shape, theirs.indices.dtype)
        assert (ours.lut.shape, ours.lut.dtype, ours.vector_axis) == (theirs.lut.shape, theirs.lut.dtype, None)
        if mode != "UNIFORM":
            assert np.array_equal(ours.indices, theirs.indices)

    def test_groups_that_do_not_divide_are_left_to_coreai_opt(self, utils, caplog):
        from coreai_opt.coreai_utils._utils import palettize_utils

        logging.getLogger("coreai_opt").setLevel(logging.WARNING)
        with corepress.accelerate():
            assert palettize_utils._blockwise_compress(normal(10, 8), "kmeans", 4, [4, 0]) is None
        assert "not divisible" in caplog.text
        logging.getLogger("coreai_opt").setLevel(logging.ERROR)

    def test_values_that_are_refused_are_refused(self, utils):
        from coreai_opt.coreai_utils._utils import palettize_utils, quantize_utils

        with corepress.accelerate():
            with pytest.raises(ValueError, match="Only numpy arrays"):
                palettize_utils._grouped_channelwise_compress([1.0], "KMEANS", 4, 0, 0)
            with pytest.raises(ValueError, match="Invalid nbits"):
                palettize_utils._grouped_channelwise_compress(normal(4, 4), "KMEANS", 5, 0, 0)
            with pytest.raises(ValueError, match="block size"):
                quantize_utils._compute_qparams_by_dtype(normal(4, 4), None, None, [0])

    @pytest.mark.parametrize("deviation", STANDARD_DEVIATIONS)
    def test_fp4(self, utils, deviation):
        """Scales are what the pass makes of them: powers of two."""
        import ml_dtypes
        from coreai_opt.coreai_utils._utils import quantize_utils

        weight = normal(64, 96, scale=deviation)
        kind, scheme = ml_dtypes.float4_e2m1fn, utils.QScheme.SYMMETRIC
        found = both(lambda: quantize_utils._compute_qparams_by_dtype(weight, kind, scheme, [1, 32]))
        assert [[(each.shape, each.dtype) for each in one] for one in found] == [
            [((64, 96), kind), ((64, 3), np.float32), ((64, 3), kind)]
        ] * 2
        noise = []
        for codes, scales, _ in found:
            stored = scales.astype(ml_dtypes.float8_e8m0fnu).astype(np.float32)
            noise.append(squared_error(codes.astype(np.float32) * np.repeat(stored, 32, axis=1), weight))
        assert noise[1] < 0.5 * noise[0]

    @pytest.mark.parametrize("nbits", [1, 2, 4, 6])
    @pytest.mark.parametrize("count", [1, 7, 24, 1001])
    def test_packing(self, utils, nbits, count):
        import torch
        from coreai_opt.coreai_utils._utils import graph_utils

        codes = torch.from_numpy(np.random.default_rng(nbits).integers(0, 2**nbits, count).astype(np.uint8))
        theirs, ours = both(lambda: graph_utils.pack_uintx(codes, nbits))
        assert len(ours) == (count * nbits + 7) // 8
        assert torch.equal(theirs.flatten()[: len(ours)], ours)
        assert not theirs.flatten()[len(ours) :].any()  # coreai-opt fills up whole threes of bytes
        if nbits in (2, 4):
            signed = (codes.int() - 2 ** (nbits - 1)).to(torch.int8)
            theirs, ours = both(lambda: graph_utils.pack_intx(signed, nbits))
            assert torch.equal(theirs.flatten(), ours)


RUN = """
import asyncio, sys, numpy as np
from coreai.authoring import AIModelAsset
from coreai.runtime import NDArray
async def main(path, x, out):
    asset = AIModelAsset.load(path)
    async with asset.executable() as model:
        function = model.load_function("main")
        name = next(iter(function.desc.input_names))
        outputs = await function({name: NDArray(np.load(x))})
        np.save(out, next(iter(outputs.values())).numpy())
asyncio.run(main(*sys.argv[1:]))
"""


def test_fp4_is_packed_and_runs(utils, program, tmp_path):
    """Of coreai-opt alone it is not, and Core AI's run-time ends the process."""
    source, weight = program(0.05)
    with corepress.accelerate():
        result = quantize(utils, source, "fp4_e2m1fn", "per_block")
    x = normal(2, 96, seed=9, scale=1)
    found, expected = ran(result, x, tmp_path), x @ weight.T
    assert squared_error(found, expected) < 0.02 * squared_error(expected, np.zeros_like(expected))
    assert (tmp_path / "result.aimodel" / "main.mlirb").stat().st_size < 0.9 * weight.size + 5000


@pytest.mark.parametrize(
    "options", [{"n_bits": 3}, {"n_bits": 4, "granularity": "per_grouped_channel", "group_size": 8}], ids=str
)
def test_results_run(utils, program, tmp_path, options):
    source, _ = program(0.05)
    with corepress.accelerate():
        result = palettize(utils, source, exact=False, **options)
    (weight,) = weights_of(result)
    x = normal(2, 96, seed=9, scale=1)
    assert np.allclose(ran(result, x, tmp_path), x @ weight.T, atol=1e-5)


def ran(result, x, tmp_path):
    """What a program computes by Core AI's run-time, in a process of its own."""
    result.save_asset(tmp_path / "result.aimodel")
    np.save(tmp_path / "x.npy", x)
    files = [str(tmp_path / name) for name in ("result.aimodel", "x.npy", "y.npy")]
    run = run_python(RUN, *files)
    assert run.returncode == 0, run.stderr[-2000:]
    return np.load(tmp_path / "y.npy")
