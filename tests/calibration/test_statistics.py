"""The file of statistics: what it keeps, what it refuses, and how two are merged."""

from __future__ import annotations

import dataclasses
import math
import os

import numpy as np
import pytest

from corepress import FormatError
from corepress.calibration.statistics import Sensitivity, Statistics, WeightStatistics, bounded
from corepress.calibration.tensor_file import TensorFile, write_tensors
from corepress.compression.matrix_view import MatrixView
from corepress.mapped_files import release_array

VIEW = MatrixView((4, 6), (0,), (1,))


def weight(rng, *, digest="d", count=10, columns=6, size=4, **changes):
    blocks = -(-columns // size)
    hessian = np.zeros((1, blocks, size, size), np.float32)
    for block in range(blocks):
        width = min(size, columns - block * size)
        x = rng.standard_normal((20, width))
        hessian[0, block, :width, :width] = x.T @ x / 20
    values = {
        "digest": digest,
        "shape": (4, 6),
        "view": VIEW,
        "count": count,
        "hessian": hessian,
        "fisher": rng.random((4, 6)).astype(np.float32),
        "sensitivities": {"[2]": Sensitivity(0.5, 0.1, 8), "[3]": Sensitivity(0.25, math.inf, 1)},
    }
    return WeightStatistics(**(values | changes))


@pytest.fixture
def statistics(rng):
    kept = [{"x": rng.random((1, 3)).astype(np.float32)}, [{"x": np.arange(3)}, {"x": np.zeros(())}]]
    return Statistics(
        weights={"a/b": weight(rng), "c": WeightStatistics("e", (3, 2), reason="no sample reached it")},
        function_name="main",
        library="test",
        sample_count=9,
        kept=kept,
        ranges={"y/1": {"histogram": np.arange(4, dtype=np.int64)}},
        notes=("a note",),
    )


def test_what_is_saved_is_loaded(statistics, tmp_path):
    statistics.save(tmp_path / "s")
    found = Statistics.load(tmp_path / "s")
    for field in ("function_name", "library", "sample_count", "notes"):
        assert getattr(found, field) == getattr(statistics, field)
    ours, theirs = statistics.weights["a/b"], found.weights["a/b"]
    assert (theirs.view, theirs.count, theirs.sensitivities) == (ours.view, ours.count, ours.sensitivities)
    np.testing.assert_array_equal(theirs.hessian, ours.hessian)
    np.testing.assert_array_equal(theirs.fisher, ours.fisher)
    assert found.unreached == {"c": "no sample reached it"}
    assert found.reached == ("a/b",)
    np.testing.assert_array_equal(found.kept[0]["x"], statistics.kept[0]["x"])
    assert [each["x"].shape for each in found.kept[1]] == [(3,), ()]
    np.testing.assert_array_equal(found.ranges["y/1"]["histogram"], np.arange(4))


def test_same_statistics_are_the_same_bytes(statistics, tmp_path):
    statistics.save(tmp_path / "a")
    Statistics.load(tmp_path / "a").save(tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_the_library_reads_the_file(statistics, tmp_path):
    from safetensors.numpy import load_file

    statistics.save(tmp_path / "s")
    arrays = load_file(tmp_path / "s")
    np.testing.assert_array_equal(arrays["hessian/a/b"], statistics.weights["a/b"].hessian)


def test_a_file_can_be_replaced_by_what_was_read_from_it(statistics, tmp_path):
    statistics.save(tmp_path / "s")
    found = Statistics.load(tmp_path / "s")
    found.save(tmp_path / "s")
    np.testing.assert_array_equal(found.weights["a/b"].hessian, statistics.weights["a/b"].hessian)


def test_every_truncation_is_told(statistics, tmp_path):
    statistics.save(tmp_path / "s")
    data = (tmp_path / "s").read_bytes()
    for size in (0, 1, 7, 8, 9, 100, len(data) // 2, len(data) - 1):
        (tmp_path / "t").write_bytes(data[:size])
        with pytest.raises(FormatError, match="t: "):
            Statistics.load(tmp_path / "t")
    (tmp_path / "t").write_bytes(data + b"x")
    with pytest.raises(FormatError):
        Statistics.load(tmp_path / "t")


def test_foreign_files_are_told(tmp_path):
    (tmp_path / "text").write_text("no statistics", encoding="utf-8")
    with pytest.raises(FormatError, match="not a safetensors file"):
        Statistics.load(tmp_path / "text")
    write_tensors(tmp_path / "other", {"w": np.zeros(3, np.float32)}, {"format": "pt"})
    with pytest.raises(FormatError, match="not one that calibration wrote"):
        Statistics.load(tmp_path / "other")
    with pytest.raises(FormatError, match="folder"):
        Statistics.load(tmp_path)
    with pytest.raises(FileNotFoundError, match="no such file"):
        Statistics.load(tmp_path / "none")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('\\"version\\": 1', '\\"version\\": 7'),
        ('\\"count\\": 10', '\\"count\\": []'),
        ('\\"row_axes\\": [0]', '\\"row_axes\\": [1]'),
        ('\\"shape\\": [4, 6]', '\\"shape\\": [4, 9]'),
        ('\\"weights\\"', '\\"wieghts\\"'),
        ('\\"kept\\": [null', '\\"kept\\": [99999'),
    ],
)
def test_damaged_descriptions_are_told(statistics, tmp_path, old, new):
    statistics.save(tmp_path / "s")
    data = (tmp_path / "s").read_bytes()
    assert old.encode() in data
    length = int.from_bytes(data[:8], "little")
    header = data[8 : 8 + length].rstrip().replace(old.encode(), new.encode())
    (tmp_path / "s").write_bytes(len(header).to_bytes(8, "little") + header + data[8 + length :])
    with pytest.raises(FormatError):
        Statistics.load(tmp_path / "s")


def test_random_damage_never_crashes(statistics, tmp_path, rng):
    statistics.save(tmp_path / "s")
    data = bytearray((tmp_path / "s").read_bytes())
    for _ in range(200):
        damaged = bytearray(data)
        for place in rng.integers(0, len(data), 3):
            damaged[place] = rng.integers(256)
        (tmp_path / "t").write_bytes(damaged)
        try:
            found = Statistics.load(tmp_path / "t")
        except FormatError:
            continue
        found.to_dict()


def test_a_file_is_written_whole_or_not(statistics, tmp_path):
    (tmp_path / "s").write_bytes(b"before")
    broken = dataclasses.replace(statistics, kept=[{"x": np.array(["text"])}])
    with pytest.raises(TypeError):
        broken.save(tmp_path / "s")
    assert (tmp_path / "s").read_bytes() == b"before"
    assert os.listdir(tmp_path) == ["s"]


def test_merging_means_all_samples_together(rng):
    vectors = rng.standard_normal((30, 6)).astype(np.float32)
    squares = rng.random(12)

    def of(part, given):
        hessian = np.array([[part.T @ part / len(part)]], np.float32)
        sensitivities = {"k": Sensitivity.of(given)}
        return Statistics(
            {"w": WeightStatistics("d", (4, 6), VIEW, len(part), hessian, None, sensitivities)}, sample_count=len(part)
        )

    merged = of(vectors[:10], squares[:5]).merge(of(vectors[10:], squares[5:]))
    expected = of(vectors, squares)
    ours, theirs = merged.weights["w"], expected.weights["w"]
    assert ours.count == theirs.count == merged.sample_count == 30
    np.testing.assert_allclose(ours.hessian, theirs.hessian, rtol=1e-5, atol=1e-6)
    assert ours.sensitivities["k"].mean == pytest.approx(theirs.sensitivities["k"].mean)
    assert ours.sensitivities["k"].standard_error == pytest.approx(theirs.sensitivities["k"].standard_error)


def test_merging_takes_what_either_has(rng):
    one = Statistics({"w": weight(rng), "v": WeightStatistics("e", (2, 2), reason="other function")}, "f")
    other = Statistics({"w": WeightStatistics("d", (4, 6), reason="other"), "v": weight(rng, digest="e")}, "g")
    merged = one.merge(other)
    assert set(merged.reached) == {"w", "v"}
    assert merged.function_name is None


def test_other_models_are_not_merged(rng):
    one = Statistics({"w": weight(rng)})
    with pytest.raises(ValueError, match="different models: 'w' differ"):
        one.merge(Statistics({"w": weight(rng, digest="other")}))
    with pytest.raises(ValueError, match="no weight in common"):
        one.merge(Statistics({"v": weight(rng)}))


def test_the_diagonal_is_that_of_each_element(rng):
    known = weight(rng)
    found = known.diagonal()
    assert found.shape == (4, 6)
    columns = [*np.diag(known.hessian[0, 0]), *np.diag(known.hessian[0, 1])[:2]]
    np.testing.assert_array_equal(found, [columns] * 4)
    with pytest.raises(ValueError, match="no second moments"):
        WeightStatistics("d", (4, 6), reason="none").diagonal()


def test_few_samples_are_kept():
    samples = [{"x": np.zeros(1 << 20, np.uint8)} for _ in range(100)]
    assert len(bounded(samples)) == 64
    assert len(bounded([{"x": np.zeros(1)}] * 1000)) == 256


def test_arrays_are_mapped_and_aligned(tmp_path):
    arrays = {"a": np.arange(3, dtype=np.uint8), "b": np.arange(5, dtype=np.float64), "c": np.zeros((0, 4), np.float32)}
    write_tensors(tmp_path / "t", arrays, {})
    file = TensorFile(tmp_path / "t")
    for name, array in arrays.items():
        found = file.read(name)
        np.testing.assert_array_equal(found, array)
        assert found.flags.aligned
    assert not file.read("b").flags.writeable
    release_array(file.read("b"))
    release_array(np.zeros(3))
    np.testing.assert_array_equal(file.read("b"), arrays["b"])
    with pytest.raises(FormatError, match="no array 'z'"):
        file.read("z")
