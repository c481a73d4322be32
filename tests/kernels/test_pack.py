"""Codes as one stream of bits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corepress import _core, kernels, reference
from helpers.arrays import PALETTE_BITS

SIZES = (0, 1, 7, 8, 9, 63, 64, 65, 1001)
EXAMPLES = [
    (1, [1, 0, 0, 1, 1, 0, 1, 0, 1], "59 01"),
    (2, [0, 3, 2, 1, 3], "6c 03"),
    (3, [1, 2, 3, 4, 5], "d1 58"),
    (4, [8, 7, 15], "78 0f"),
    (6, [1, 2, 63, 33, 5], "81 f0 87 05"),
    (8, [0, 255, 7], "00 ff 07"),
]


def random_codes(count: int, nbits: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, count, nbits]).integers(0, 2**nbits, count, dtype=np.uint8)


@pytest.mark.parametrize(("nbits", "codes", "packed"), EXAMPLES)
def test_bytes_of_the_format(nbits, codes, packed):
    data = np.frombuffer(bytes.fromhex(packed), np.uint8)
    assert kernels.pack_bits(np.array(codes, np.uint8), nbits).tobytes() == data.tobytes()
    assert kernels.unpack_bits(data, nbits, len(codes)).tolist() == codes
    assert reference.pack_bits(codes, nbits).tobytes() == data.tobytes()
    assert reference.unpack_bits(data, nbits, len(codes)).tolist() == codes


@pytest.mark.parametrize("bitorder", ["little", "big"])
@pytest.mark.parametrize("nbits", range(1, 9))
@pytest.mark.parametrize("count", [*SIZES, 65_537, 200_003])
def test_same_bytes_as_the_reference(simd_level, nbits, count, bitorder):
    codes = random_codes(count, nbits)
    packed = kernels.pack_bits(codes, nbits, bitorder=bitorder)
    expected = reference.pack_bits(codes, nbits, bitorder) if count < 5000 else stream_of(codes, nbits, bitorder)
    assert packed.tobytes() == expected.tobytes()
    np.testing.assert_array_equal(kernels.unpack_bits(packed, nbits, count, bitorder=bitorder), codes)
    signed = (codes.astype(np.int16) - 2 ** (nbits - 1)).astype(np.int8)
    packed = kernels.pack_bits(signed, nbits, bitorder=bitorder)
    np.testing.assert_array_equal(kernels.unpack_bits(packed, nbits, count, signed=True, bitorder=bitorder), signed)


def stream_of(codes: np.ndarray, nbits: int, bitorder: str) -> np.ndarray:
    """The same bytes by way of one array element per bit."""
    bits = np.unpackbits(codes[:, None], axis=1, bitorder=bitorder)
    return np.packbits(bits[:, :nbits] if bitorder == "little" else bits[:, -nbits:], bitorder=bitorder)


@pytest.mark.parametrize(
    ("nbits", "codes", "packed"), [(4, [0, 4, 7, 9, 15], "04 79 f0"), (3, [0, 2, 3, 4, 7], "09 ce")]
)
def test_bytes_of_neural_networks(nbits, codes, packed):
    data = bytes.fromhex(packed)
    assert kernels.pack_bits(np.array(codes, np.uint8), nbits, bitorder="big").tobytes() == data
    assert reference.pack_bits(codes, nbits, "big").tobytes() == data
    assert kernels.unpack_bits(np.frombuffer(data, np.uint8), nbits, len(codes), bitorder="big").tolist() == codes


@pytest.mark.parametrize("bitorder", ["little", "big"])
@pytest.mark.parametrize("nbits", range(1, 9))
def test_nothing_behind_the_result_is_written(simd_level, nbits, bitorder):
    for count in range(200):
        codes = random_codes(count, nbits)
        expected = stream_of(codes, nbits, bitorder)
        packed, unpacked = np.full(expected.size + 64, 0xA5, np.uint8), np.full(count + 64, 0xA5, np.uint8)
        kernels.pack_bits(codes, nbits, packed[: expected.size], bitorder=bitorder)
        kernels.unpack_bits(expected, nbits, count, unpacked[:count], bitorder=bitorder)
        assert packed.tobytes() == expected.tobytes() + bytes([0xA5]) * 64
        assert unpacked.tobytes() == codes.tobytes() + bytes([0xA5]) * 64


def test_signed_codes_are_two_complement():
    codes = np.array([-8, 7, -1, 0], np.int8)
    assert kernels.pack_bits(codes, 4).tobytes() == bytes([0x78, 0x0F])
    unpacked = kernels.unpack_bits(np.array([0x78, 0x0F], np.uint8), 4, 4, signed=True)
    assert unpacked.dtype == np.int8
    assert unpacked.tolist() == [-8, 7, -1, 0]


@pytest.mark.parametrize("threads", [1, 3])
def test_the_same_bytes_for_every_number_of_threads(threads):
    for nbits in range(1, 9):
        codes = random_codes(300_001, nbits)
        packed = kernels.pack_bits(codes, nbits, num_threads=threads)
        assert packed.tobytes() == stream_of(codes, nbits, "little").tobytes()
        np.testing.assert_array_equal(kernels.unpack_bits(packed, nbits, codes.size, num_threads=threads), codes)


def test_into_given_memory():
    weight = np.arange(12, dtype=np.float32).reshape(3, 4)
    mask = weight % 3 == 1
    packed, flags = kernels.pack_mask(mask), np.empty(12, np.bool_)
    assert kernels.unpack_mask(packed, 12, flags) is flags
    assert flags.tolist() == mask.reshape(-1).tolist()
    kept, dense = np.empty(4, np.float32), np.empty((3, 4), np.float32)
    assert kernels.encode_sparse(weight, mask, out=kept) is kept
    assert kept.tolist() == [1, 4, 7, 10]
    assert kernels.decode_sparse(kept, packed, (3, 4), out=dense) is dense
    assert dense.tolist() == (weight * mask).tolist()


@pytest.mark.parametrize("nbits", PALETTE_BITS)
@pytest.mark.parametrize("count", [size for size in SIZES if size])
def test_same_bytes_as_coremltools(coremltools_utils, nbits, count):
    codes = random_codes(count, nbits, seed=1)
    expected = coremltools_utils.pack_elements_into_bits(codes, nbits)
    assert kernels.pack_bits(codes, nbits).tobytes() == expected.tobytes()


@settings(deadline=None, derandomize=True, max_examples=60)
@given(st.data())
def test_round_trip(data):
    nbits = data.draw(st.sampled_from(PALETTE_BITS))
    codes = np.array(data.draw(st.lists(st.integers(0, 2**nbits - 1), max_size=200)), np.uint8)
    np.testing.assert_array_equal(kernels.unpack_bits(kernels.pack_bits(codes, nbits), nbits, codes.size), codes)


@pytest.mark.parametrize("nbits", PALETTE_BITS)
def test_nothing_beyond_the_output_is_touched(simd_level, nbits):
    for count in range(1, 20):
        codes = random_codes(count, nbits)
        size = (count * nbits + 7) // 8
        guarded = np.full(size + 16, 0xA5, np.uint8)
        kernels.pack_bits(codes, nbits, guarded[8:-8])
        assert (guarded[:8] == 0xA5).all()
        assert (guarded[-8:] == 0xA5).all()
        unpacked = np.full(count + 16, 0xA5, np.uint8)
        kernels.unpack_bits(guarded[8:-8], nbits, count, unpacked[8:-8])
        assert (unpacked[:8] == 0xA5).all()
        assert (unpacked[-8:] == 0xA5).all()
        np.testing.assert_array_equal(unpacked[8:-8], codes)


def test_output_is_returned():
    out = np.empty(2, np.uint8)
    assert kernels.pack_bits(np.array([1, 2, 3], np.uint8), 4, out) is out
    codes = np.empty(3, np.uint8)
    assert kernels.unpack_bits(out, 4, 3, codes) is codes
    assert codes.tolist() == [1, 2, 3]


def test_any_shape_and_stride_is_taken_in_row_major_order():
    codes = random_codes(60, 3).reshape(5, 12)
    expected = kernels.pack_bits(codes.reshape(-1), 3).tobytes()
    assert kernels.pack_bits(codes, 3).tobytes() == expected
    assert kernels.pack_bits(np.asfortranarray(codes), 3).tobytes() == expected
    wide = np.repeat(codes, 2, axis=1)
    assert kernels.pack_bits(wide[:, ::2], 3).tobytes() == expected


@pytest.mark.parametrize("count", SIZES)
def test_masks(simd_level, count):
    mask = np.random.default_rng(count).random(count) < 0.4
    packed = kernels.pack_mask(mask)
    assert packed.tobytes() == np.packbits(mask, bitorder="little").tobytes()
    unpacked = kernels.unpack_mask(packed, count)
    assert unpacked.dtype == np.bool_
    np.testing.assert_array_equal(unpacked, mask)
    assert _core.count_bits(packed, count) == mask.sum()


def test_ones_beyond_the_count_are_not_counted(simd_level):
    ones = np.full(10, 0xFF, np.uint8)
    for count in range(73, 81):
        assert _core.count_bits(ones, count) == count
