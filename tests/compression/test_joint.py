"""Joint forms of arrays: what is compressed, compressed again; against the slow versions in `corepress.reference`."""

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import corepress as cp
from corepress import PalettizedTensor, QuantizedTensor, SparseTensor, _core, reference
from corepress.arrays import axis_layout, block_layout
from corepress.compression import apply
from corepress.kernels import pack_bits, unpack_mask
from corepress.specs import Palettize, Prune, Quantize
from corepress.tensors import Support

SHAPES = [(1,), (7,), (8,), (9, 16), (12, 8, 3), (16, 6, 3, 3), (4, 70000)]
DTYPES = [np.float16, np.float32]
RNG = np.random.default_rng(17)


def _weight(shape, dtype, seed=0):
    rng = np.random.default_rng([seed, *shape])
    weight = rng.standard_normal(shape) * np.exp(rng.standard_normal((shape[0],) + (1,) * (len(shape) - 1)))
    return (0.1 * weight).astype(dtype)


def _grids(shape):
    """Every way to divide the axes into 1, 2, half as many or as many blocks as entries."""
    choices = [sorted({count for count in (1, 2, size // 2, size) if count and size % count == 0}) for size in shape]
    return list(itertools.product(*choices))


def _mask(shape, seed, share=0.5):
    return np.random.default_rng([seed, *shape]).random(shape) < share


# The parts


@pytest.mark.parametrize("nbits", [1, 2, 3, 4, 6, 8])
@pytest.mark.parametrize("shape", [(1,), (7,), (9, 16), (12, 8, 3), (3, 40, 1, 33)])
def test_look_up_of_any_grid_with_and_without_a_mask(shape, nbits):
    for grid, dtype in zip(_grids(shape), itertools.cycle([np.float16, np.float32, np.int8, np.uint8])):
        rng = np.random.default_rng([*shape, *grid, nbits])
        lut = rng.integers(-100, 100, (*grid, 2**nbits, 1)).astype(dtype)
        codes = rng.integers(0, 2**nbits, shape).astype(np.uint8)
        expected = reference.look_up_groups(codes, lut)
        tensor = PalettizedTensor(shape, pack_bits(codes, nbits), lut, nbits)
        assert tensor.dense().tobytes() == expected.tobytes()
        mask = _mask(shape, nbits)
        support = Support(shape, pack_bits(mask, 1))
        kept = PalettizedTensor((support.count,), pack_bits(codes[mask], nbits), lut, nbits, support=support)
        assert kept.dense().tobytes() == expected[mask].tobytes()


@pytest.mark.parametrize("name", ["int8", "uint8", "int4", "uint4"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1,), (7,), (9, 16), (12, 8, 3), (3, 40, 1, 33)])
def test_dequantizing_what_a_mask_keeps(shape, dtype, name):
    bits, signed = (4 if "4" in name else 8), not name.startswith("u")
    low = -(2 ** (bits - 1)) if signed else 0
    for grid in _grids(shape):
        rng = np.random.default_rng([*shape, *grid])
        codes = rng.integers(low, low + 2**bits, shape).astype(np.int8 if signed else np.uint8)
        scale = rng.standard_normal(grid).astype(dtype)
        zero_point = rng.integers(low, low + 2**bits, grid).astype(codes.dtype) if sum(grid) % 2 else None
        mask = _mask(shape, bits)
        support = Support(shape, pack_bits(mask, 1))
        data = pack_bits(codes[mask].view(np.uint8) & (2**bits - 1), bits)
        kept = QuantizedTensor((support.count,), data, scale, zero_point, name, support)
        expected = reference.dequantize_blocks(codes, scale, zero_point)
        assert kept.dense().tobytes() == expected[mask].tobytes()
        assert kept.codes().tobytes() == codes[mask].tobytes()


@pytest.mark.parametrize("nbits", [1, 2, 3, 4, 6, 8])
@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 63, 64, 65, 4095, 4096, 4097, 65535, 65537, 200003])
def test_gathering_codes(count, nbits):
    rng = np.random.default_rng([count, nbits])
    codes = rng.integers(0, 2**nbits, count).astype(np.uint8)
    for share in (0.0, 0.3, 1.0):
        mask = rng.random(count) < share
        gathered = _core.gather_codes(pack_bits(codes, nbits), nbits, pack_bits(mask, 1), count)
        assert gathered.tobytes() == pack_bits(codes[mask], nbits).tobytes()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "shape", [*SHAPES, (3, 700), (2, 2500), (257, 24), (41, 512), (41, 513), (5, 64, 3), (300, 7, 9)]
)
def test_normalizing_channels(shape, dtype):
    weight = _weight(shape, dtype)
    weight.reshape(shape[0], -1)[0] = 0
    weight.reshape(-1)[-1] = np.finfo(dtype).max
    if weight.size > 3:
        weight.reshape(-1)[-3:-1] = -0.0, np.finfo(dtype).smallest_subnormal
    for axis in range(len(shape)):
        scale, quotients = _core.normalize(weight, axis_layout(shape, axis))
        expected = reference.normalize(weight, axis)
        assert scale.tobytes() == expected[0].tobytes()
        assert quotients.tobytes() == expected[1].tobytes()
        assert np.abs(quotients).max() <= 1


@pytest.mark.parametrize("level", cp.simd_levels())
def test_same_bytes_at_every_level_and_thread_count(level):
    weight = _weight((6, 50, 700), np.float16)
    grouped = Palettize(nbits=4, granularity="per_grouped_channel", group_size=10, channel_axis=1)
    steps = [
        [Palettize(nbits=3, enable_per_channel_scale=True, channel_axis=1)],
        [Prune(target_sparsity=0.4), grouped],
        [Prune(target_sparsity=0.4), Quantize(dtype="int4", granularity="per_block", block_size=5)],
        [Quantize(), Palettize(nbits=2), Prune(target_sparsity=0.6)],
    ]
    expected = [_parts(_chain(weight, each, 1)) for each in steps]
    before = cp.simd_level()
    try:
        _core.set_simd_level(level)
        for threads in (1, 2, 5):
            assert [_parts(_chain(weight, each, threads)) for each in steps] == expected
    finally:
        _core.set_simd_level(before)


def _chain(weight, steps, num_threads=None):
    for step in steps:
        weight = apply(weight, step, num_threads=num_threads)
    return weight


def _parts(tensor):
    """All that a tensor holds, nested, as bytes."""
    if tensor is None or isinstance(tensor, (int, str, tuple)):
        return tensor
    if isinstance(tensor, np.ndarray):
        return tensor.dtype, tensor.shape, tensor.tobytes()
    return {each.name: _parts(getattr(tensor, each.name)) for each in dataclasses.fields(tensor)}


# Channels scaled before


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("channel_axis", [0, 1, -1])
@pytest.mark.parametrize("mode", ["kmeans", "uniform"])
def test_scaled_palettes_are_palettes_of_the_quotients(dtype, channel_axis, mode):
    weight = _weight((12, 8, 6), dtype)
    original = weight.copy()
    scaled = cp.palettize(weight, nbits=3, mode=mode, enable_per_channel_scale=True, channel_axis=channel_axis)
    assert weight.tobytes() == original.tobytes()
    scale, quotients = reference.normalize(weight, channel_axis)
    plain = cp.palettize(quotients, nbits=3, mode=mode)
    assert (scaled.indices.tobytes(), scaled.lut.tobytes()) == (plain.indices.tobytes(), plain.lut.tobytes())
    assert scaled.scale.dtype == dtype
    assert scaled.scale.tobytes() == scale.tobytes()
    assert scaled.dense().tobytes() == (plain.dense() * scale).tobytes()
    assert scaled.dtype == dtype
    assert scaled.nbytes == plain.nbytes + scale.nbytes
    assert "scales" in repr(scaled)


def test_scaled_palettes_with_groups_and_given_tables():
    weight = _weight((16, 12), np.float16)
    grouped = cp.palettize(
        weight, nbits=2, enable_per_channel_scale=True, granularity="per_grouped_channel", group_size=4
    )
    assert (grouped.lut.shape, grouped.scale.shape) == ((4, 1, 4, 1), (16, 1))
    given = cp.palettize(weight, lut=[-1, -0.5, 0, 0.5, 1], enable_per_channel_scale=True)
    np.testing.assert_array_equal(np.unique(given.lut), [-1, -0.5, 0, 0.5, 1])
    for tensor in (grouped, given):
        unscaled = dataclasses.replace(tensor, scale=None)
        assert tensor.dense().tobytes() == (unscaled.dense() * tensor.scale).tobytes()
        assert cp.error(weight, tensor).sse == pytest.approx(cp.error(weight, tensor.dense()).sse, rel=1e-12)


def test_scales_along_other_axes_than_the_groups():
    """As coremltools has them: groups along the output channels, scales along the input channels."""
    weight = _weight((16, 12), np.float16)
    grouped = cp.palettize(weight, nbits=2, granularity="per_grouped_channel", group_size=4)
    scale = np.linspace(0.5, 2, 12).astype(np.float16).reshape(1, 12)
    tensor = dataclasses.replace(grouped, scale=scale)
    assert tensor.dense().tobytes() == (grouped.dense() * scale).tobytes()
    assert cp.error(weight, tensor) == cp.error(weight, tensor.dense())


def test_channels_of_zeros_have_scale_one():
    weight = _weight((5, 8), np.float16)
    weight[2] = [0, -0.0] * 4
    tensor = cp.palettize(weight, nbits=4, enable_per_channel_scale=True)
    assert tensor.scale[2] == 1
    assert (np.abs(tensor.dense()[2]) <= np.abs(tensor.lut).min()).all()


def test_channels_of_very_different_size_keep_their_shape():
    rng = np.random.default_rng(4)
    weight = (rng.standard_normal((64, 256)) * np.logspace(-3, 1, 64)[:, None]).astype(np.float16)
    scaled = cp.palettize(weight, nbits=4, enable_per_channel_scale=True).dense().astype(np.float64)
    plain = cp.palettize(weight, nbits=4).dense().astype(np.float64)
    small = slice(0, 16)
    exact = weight[small].astype(np.float64)
    assert ((scaled[small] - exact) ** 2).sum() < 0.01 * ((plain[small] - exact) ** 2).sum()


def test_tables_that_would_outgrow_the_weight_are_not_folded():
    weight = _weight((700, 3, 40), np.float16)
    tensor = cp.palettize(weight, nbits=8, enable_per_channel_scale=True)
    support = SparseTensor(weight.shape, pack_bits(_mask(weight.shape, 1), 1), weight[_mask(weight.shape, 1)])
    pruned = cp.palettize(support, nbits=8, enable_per_channel_scale=True)
    for each in (tensor, pruned.values):
        unscaled = dataclasses.replace(each, scale=None)
        factors = np.broadcast_to(each.scale, weight.shape)
        factors = factors if each.support is None else factors[_mask(weight.shape, 1)]
        assert each.dense().tobytes() == (unscaled.dense() * factors).tobytes()


# Sparse tensors compressed again


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES[:-1])
@pytest.mark.parametrize("mode", ["kmeans", "uniform", "unique"])
def test_palettes_of_what_survives(shape, dtype, mode):
    weight = np.round(_weight(shape, dtype) * 20) / dtype(20)
    sparse = cp.prune(weight, target_sparsity=0.5)
    mask = unpack_mask(sparse.mask, sparse.size).reshape(shape)
    for axis, size in ((0, 1), (len(shape) - 1, 1), (0, shape[0])):
        grouping = {"granularity": "per_grouped_channel", "group_size": size, "channel_axis": axis}
        joint = cp.palettize(sparse, nbits=4 if mode != "unique" else None, mode=mode, **grouping)
        assert joint.mask is sparse.mask
        assert joint.values.shape == (sparse.nnz,)
        dense = joint.dense()
        assert not dense[~mask].any()
        lines, kept = np.moveaxis(weight, axis, 0), np.moveaxis(mask, axis, 0)
        decoded = np.moveaxis(dense, axis, 0)
        for begin in range(0, shape[axis], size):
            part = slice(begin, begin + size)
            survivors = lines[part][kept[part]]
            if survivors.size:
                alone = cp.palettize(survivors, nbits=joint.values.nbits, mode=mode)
                assert decoded[part][kept[part]].tobytes() == alone.dense().tobytes()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"dtype": "uint8", "mode": "linear", "channel_axis": 1},
        {"dtype": "int4", "granularity": "per_block", "block_size": 4},
        {"dtype": "uint4", "mode": "linear", "granularity": "per_block", "block_size": (2, 4)},
        {"granularity": "per_tensor", "scale_search": "mse"},
    ],
)
def test_quantizing_what_survives_is_quantizing_with_zeros(dtype, options):
    weight = _weight((16, 24), dtype)
    sparse = cp.prune(weight, target_sparsity=0.6)
    joint = cp.quantize(sparse, **options)
    dense = cp.quantize(sparse.dense(), **options)
    assert isinstance(joint.values, QuantizedTensor)
    assert joint.dense().tobytes() == (dense.dense() + dtype(0)).tobytes()
    assert joint.values.scale.tobytes() == dense.scale.tobytes()
    assert joint.nbytes < dense.nbytes or dense.nbits == 4
    mask = unpack_mask(sparse.mask, sparse.size).reshape(weight.shape)
    np.testing.assert_array_equal(joint.values.codes(), dense.codes()[mask])


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.floats(-65504, 65504, width=16), min_size=1, max_size=90),
    st.sampled_from([0.0, 0.3, 0.9, 1.0]),
    st.sampled_from(["palettize", "quantize"]),
    st.sampled_from([1, 2, 4, 8]),
)
def test_survivors_decode_and_zeros_stay(numbers, sparsity, verb, nbits):
    weight = np.array(numbers, np.float16)
    sparse = cp.prune(weight, target_sparsity=sparsity)
    mask = unpack_mask(sparse.mask, weight.size)
    joint = cp.palettize(sparse, nbits=nbits) if verb == "palettize" else cp.quantize(sparse, granularity="per_tensor")
    dense = joint.dense()
    assert not dense[~mask].any()
    assert dense[mask].tobytes() == joint.values.dense().tobytes()
    if verb == "palettize" and np.unique(weight[mask]).size <= 2**nbits:
        np.testing.assert_array_equal(dense[mask], weight[mask])
    error = cp.error(weight, joint)
    expected = reference.error_sums(weight, dense)
    assert error.sse == pytest.approx(expected[0], rel=1e-12)


@pytest.mark.parametrize("nbits", [1, 4, 8])
def test_nothing_survives(nbits):
    sparse = cp.prune(np.ones((4, 6), np.float16), target_sparsity=1.0)
    for joint in (
        cp.palettize(sparse, nbits=nbits),
        cp.palettize(sparse, nbits=nbits, granularity="per_grouped_channel", group_size=2),
        cp.palettize(sparse, mode="unique"),
        cp.quantize(sparse, mode="linear"),
        cp.palettize(cp.quantize(sparse), nbits=nbits),
    ):
        assert joint.nnz == 0
        assert not joint.dense().any()


# Tables and codes compressed again


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("mode", ["linear_symmetric", "linear"])
@pytest.mark.parametrize("integers", ["int8", "uint8"])
def test_tables_become_integers_with_a_scale_each(dtype, mode, integers):
    weight = _weight((12, 30), dtype)
    palette = cp.palettize(weight, nbits=4, granularity="per_grouped_channel", group_size=3)
    joint = cp.quantize(palette, dtype=integers, mode=mode)
    assert isinstance(joint.lut, QuantizedTensor)
    assert joint.lut.shape == palette.lut.shape
    assert joint.lut.scale.shape == (4, 1, 1, 1)
    for group in range(4):
        alone = cp.quantize(palette.lut[group].reshape(1, -1), dtype=integers, mode=mode)
        assert joint.lut.codes()[group].tobytes() == alone.codes().tobytes()
    expected = reference.look_up_groups(palette.codes(), joint.lut.dense())
    assert joint.dense().tobytes() == expected.tobytes()
    assert (joint.dtype, joint.indices is palette.indices) == (np.dtype(dtype), True)
    assert joint.nbytes < palette.nbytes
    one = cp.quantize(palette, dtype=integers, mode=mode, granularity="per_tensor")
    assert one.lut.scale.size == 1


@pytest.mark.parametrize("integers", ["int8", "uint8"])
@pytest.mark.parametrize("mode", ["kmeans", "uniform"])
def test_codes_become_palettes_of_integers(integers, mode):
    weight = _weight((12, 40), np.float16)
    quantized = cp.quantize(weight, dtype=integers, mode="linear")
    for grouping in ({}, {"granularity": "per_grouped_channel", "group_size": 4}):
        joint = cp.palettize(quantized, nbits=4, mode=mode, **grouping)
        assert isinstance(joint.data, PalettizedTensor)
        assert joint.data.lut.dtype == integers
        assert (joint.scale is quantized.scale, joint.zero_point is quantized.zero_point) == (True, True)
        codes = reference.look_up_groups(joint.data.codes(), joint.data.lut)
        assert joint.codes().tobytes() == codes.tobytes()
        assert joint.dense().tobytes() == reference.dequantize_blocks(codes, joint.scale, joint.zero_point).tobytes()
        # Each code takes the nearest integer of its table.
        tables = reference.block_parameters(joint.data.lut[..., 0], codes.shape).astype(int)
        distances = np.abs(tables - quantized.codes()[..., None].astype(int))
        np.testing.assert_array_equal(np.abs(codes.astype(int) - quantized.codes()), distances.min(axis=-1))
    lossless = cp.palettize(quantized, mode="unique")
    assert lossless.dense().tobytes() == quantized.dense().tobytes()


@pytest.mark.parametrize("nbits", [1, 2, 3, 4, 6, 8])
def test_even_steps_of_integers_are_those_of_coremltools(nbits):
    weight = _weight((12, 40), np.float16)
    quantized = cp.quantize(weight, dtype="int8", mode="linear")
    codes = quantized.codes().astype(np.int32)
    scale = (codes.max() - codes.min()) / (2**nbits - 1)
    table = (np.arange(2**nbits) * scale + codes.min()).astype(np.int32)
    joint = cp.palettize(quantized, nbits=nbits, mode="uniform")
    assert joint.data.lut.reshape(-1).tolist() == table.tolist()
    sparse = cp.palettize(cp.prune(quantized, target_sparsity=0.25), nbits=nbits, mode="uniform")
    kept = sparse.values.codes().astype(np.int32)
    assert set(kept.tolist()) <= set(table.tolist())


def test_many_scales_of_palettized_codes_are_not_folded():
    weight = _weight((600, 200), np.float16)
    joint = cp.palettize(cp.quantize(weight, granularity="per_block", block_size=2), nbits=8)
    assert joint.dense().tobytes() == reference.dequantize_blocks(joint.codes(), joint.scale, None).tobytes()


# Pruning what is compressed


PALETTES = [Palettize(nbits=3), Palettize(nbits=2, enable_per_channel_scale=True)]
QUANTIZED = [Quantize(mode="linear"), Quantize(dtype="uint4", granularity="per_block", block_size=4)]


@pytest.mark.parametrize(
    "steps",
    [[each] for each in PALETTES + QUANTIZED]
    + [[Palettize(nbits=3), Quantize()], [Quantize(), Palettize(nbits=3)], [Prune(threshold=0.02), Palettize(nbits=4)]],
    ids=lambda steps: ", ".join(each.description for each in steps),
)
@pytest.mark.parametrize(
    "pruning", [{"target_sparsity": 0.5}, {"threshold": 0.05}, {"n_m_ratio": (2, 4)}, {"target_sparsity": 1.0}]
)
def test_pruning_decides_on_decoded_values_and_keeps_codes(steps, pruning):
    tensor = _chain(_weight((8, 16), np.float16), steps)
    decoded = tensor.dense()
    pruned, expected = cp.prune(tensor, **pruning), cp.prune(decoded, **pruning)
    assert not isinstance(pruned.values, np.ndarray)
    assert pruned.mask.tobytes() == expected.mask.tobytes()
    assert pruned.dense().tobytes() == expected.dense().tobytes()
    if not isinstance(tensor, SparseTensor):
        mask = unpack_mask(pruned.mask, pruned.size).reshape(decoded.shape)
        assert pruned.values.codes().tobytes() == tensor.codes()[mask].tobytes()


def test_pruning_a_sparse_tensor_further():
    weight = _weight((8, 16), np.float32)
    assert _parts(cp.prune(cp.prune(weight, target_sparsity=0.3), target_sparsity=0.6)) == _parts(
        cp.prune(cp.prune(weight, target_sparsity=0.3).dense(), target_sparsity=0.6)
    )


# All of them


TRIPLES = list(itertools.permutations([Palettize(nbits=3), Quantize(mode="linear"), Prune(target_sparsity=0.5)]))


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("order", TRIPLES, ids=lambda order: ", ".join(each.verb for each in order))
def test_every_order_of_steps_gives_one_coherent_tensor(order, count):
    weight = _weight((12, 8, 3), np.float16)
    tensor = _chain(weight, order[:count])
    dense = tensor.dense()
    assert (tensor.shape, tensor.dtype) == (dense.shape, dense.dtype) == (weight.shape, np.float16)
    out = np.full(weight.shape, np.nan, np.float16)
    assert tensor.dense(out) is out
    assert out.tobytes() == dense.tobytes()
    assert tensor.bits_per_weight == pytest.approx(8 * tensor.nbytes / weight.size)
    assert cp.error(weight, tensor).sse == pytest.approx(reference.error_sums(weight, dense)[0], rel=1e-9)
    assert repr(tensor).startswith(f"<{type(tensor).__name__} ")
    with pytest.raises(dataclasses.FrozenInstanceError):
        tensor.shape = ()


def _refused():
    weight = _weight((8, 16), np.float16)
    palette, quantized, sparse = cp.palettize(weight, nbits=4), cp.quantize(weight), cp.prune(weight, threshold=0.1)
    return [
        (lambda: cp.palettize(palette, nbits=2), TypeError, "compressed further in this way"),
        (lambda: cp.quantize(quantized), TypeError, "compressed further in this way"),
        (lambda: cp.palettize(cp.palettize(sparse, nbits=4), nbits=2), TypeError, "a SparseTensor can be palettized"),
        (lambda: cp.quantize(cp.quantize(sparse)), TypeError, "compressed further in this way"),
        (lambda: cp.quantize(cp.quantize(palette)), TypeError, "compressed further in this way"),
        (lambda: cp.palettize(cp.palettize(quantized, nbits=4), nbits=2), TypeError, "compressed further in this way"),
        (lambda: cp.quantize(palette, dtype="int4"), ValueError, "a lut becomes int8, uint8, float8_e4m3fn, "),
        (lambda: cp.quantize(palette, granularity="per_block"), ValueError, "not per_block"),
        (lambda: cp.palettize(cp.quantize(weight, dtype="int4"), nbits=2), TypeError, "int8 or uint8, not int4"),
        (lambda: cp.palettize(quantized, nbits=2, enable_per_channel_scale=True), ValueError, "for weights"),
        (lambda: cp.palettize(weight, nbits=2, enable_per_channel_scale=1), ValueError, "true or false, not 1"),
        (lambda: cp.palettize(weight, nbits=2, enable_per_channel_scale=True, channel_axis=2), ValueError, "an axis"),
    ]  # fmt: skip


@pytest.mark.parametrize("case", range(12))
def test_what_has_no_form_is_refused(case):
    action, error, message = _refused()[case]
    with pytest.raises(error, match=message):
        action()


def test_nested_parts_must_fit():
    weight = _weight((8, 16), np.float16)
    sparse = cp.palettize(cp.prune(weight, target_sparsity=0.5), nbits=2)
    other = cp.palettize(cp.prune(-weight[::-1].copy(), target_sparsity=0.5), nbits=2)
    with pytest.raises(ValueError, match="this tensor's shape and mask as their support"):
        dataclasses.replace(sparse, values=other.values)
    with pytest.raises(ValueError, match="as their support"):
        dataclasses.replace(sparse, values=cp.palettize(weight.reshape(-1)[: sparse.nnz].copy(), nbits=2))
    with pytest.raises(ValueError, match="scale shape"):
        dataclasses.replace(cp.palettize(weight, nbits=2), scale=np.ones((3, 1), np.float16))
    with pytest.raises(ValueError, match="scale must be of the lut's float dtype"):
        dataclasses.replace(cp.palettize(weight, nbits=2), scale=np.ones((8, 1), np.float32))
    with pytest.raises(ValueError, match="palettized data must have this shape and hold int8"):
        dataclasses.replace(cp.quantize(weight), data=cp.palettize(weight, nbits=2))
    quantized = cp.palettize(cp.quantize(np.zeros((1, 1, 4, 1), np.float16)), nbits=1)
    with pytest.raises(ValueError, match="must hold plain codes"):
        dataclasses.replace(cp.palettize(weight, nbits=2), lut=quantized)
    with pytest.raises(ValueError, match="Support: mask must be 16 bytes"):
        Support((8, 16), np.zeros(15, np.uint8))


def test_a_list_of_tensors_gives_a_list():
    weights = [_weight((8, 16), np.float16, seed) for seed in range(3)]
    sparse = [cp.prune(each, target_sparsity=0.5) for each in weights]
    together = cp.palettize([weights[0], *sparse], nbits=2)
    assert _parts(together[0]) == _parts(cp.palettize(weights[0], nbits=2))
    assert [_parts(each) for each in together[1:]] == [_parts(cp.palettize(each, nbits=2)) for each in sparse]


def test_native_checks_name_what_is_wrong():
    lut, codes = np.zeros(4, np.float16), pack_bits(np.zeros(6, np.uint8), 2)
    layout = block_layout((6,), (1,))
    with pytest.raises(ValueError, match="out must have 6 elements, not 5"):
        _core.look_up(codes, layout, 2, lut, None, np.zeros(5, np.float16))
    with pytest.raises(ValueError, match="mask must have 1 elements"):
        _core.look_up(codes, layout, 2, lut, np.zeros(2, np.uint8), np.zeros(6, np.float16))
    with pytest.raises(TypeError, match="1, 2 or 4 bytes"):
        _core.look_up(codes, layout, 2, lut.astype(np.float64), None, np.zeros(6))
    with pytest.raises(ValueError, match="data must have 2 elements"):
        _core.gather_codes(np.zeros(3, np.uint8), 2, np.zeros(1, np.uint8), 8)


def test_a_sparse_tensor_without_elements_is_not_quantized():
    empty = cp.prune(np.zeros((3, 0), np.float16), target_sparsity=0.5)
    with pytest.raises(ValueError, match=r"quantize: weight has no elements \(shape \(3, 0\)\)"):
        cp.quantize(empty)


@pytest.mark.parametrize("axis", [0, 1])
def test_scaled_values_that_are_not_finite_are_counted_before_they_are_scaled(axis):
    sparse = cp.prune(np.float32([[1, -4, 2, 3], [4, 5, -6, 7]]), threshold=1)
    values = sparse.values.copy()
    values[:2] = [np.nan, np.inf]
    with pytest.raises(cp.NonFiniteError, match=r"palettize: 2 of 8 values are NaN or infinite \(shape \(2, 4\)\)"):
        cp.palettize(
            cp.SparseTensor(sparse.shape, sparse.mask, values),
            nbits=1,
            channel_axis=axis,
            enable_per_channel_scale=True,
        )


def test_a_list_of_arrays_and_compressed_tensors():
    rng = np.random.default_rng(5)
    array = rng.standard_normal((8, 16)).astype(np.float32)
    tables = cp.palettize(rng.standard_normal((8, 16)).astype(np.float16), nbits=4)
    found = cp.quantize([array, tables])
    for each, alone in zip(found, (array, tables), strict=True):
        assert np.array_equal(each.dense(), cp.quantize(alone).dense())
    with pytest.raises(ValueError, match="quantize: weight 0 of the list: weight has no elements"):
        cp.quantize([array[:0], tables])
