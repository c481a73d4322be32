"""What counts as a sample."""

from __future__ import annotations

import numpy as np
import pytest
from test_features import array, describe, image, of_type

from corepress.runtime.samples import Samples, draw


def listed(source, description):
    return list(Samples("compare", source, description))


@pytest.fixture
def features():
    return describe(x=array(1, 3), mask=array(4, dtype="int32"))


def test_an_array_of_the_declared_rank_is_one_sample(features):
    given = {"x": np.zeros((1, 3)), "mask": np.zeros(4)}
    samples = Samples("compare", given, features)
    (found,) = samples
    assert found["x"] is given["x"]
    assert samples.total == 1
    assert samples.names == {"x", "mask"}


def test_one_more_axis_in_front_means_many(features):
    x, mask = np.arange(15).reshape(5, 1, 3), np.arange(20).reshape(5, 4)
    found = listed({"x": x, "mask": mask}, features)
    assert len(found) == 5
    for index, each in enumerate(found):
        np.testing.assert_array_equal(each["x"], x[index])
        np.testing.assert_array_equal(each["mask"], mask[index])


def test_rows_are_samples_where_the_batch_is_one(features):
    x = np.arange(15).reshape(5, 3)
    found = listed({"x": x, "mask": np.arange(4)}, features)
    assert [each["x"].tolist() for each in found] == [[row] for row in x.tolist()]
    assert all(each["mask"].tolist() == [0, 1, 2, 3] for each in found)


def test_a_batch_that_the_model_takes_is_one_sample():
    flexible = describe(x=array(1, 3, ranges=((1, 8), (3, 3))))
    assert [each["x"].shape for each in listed({"x": np.zeros((5, 3))}, flexible)] == [(5, 3)]
    assert [each["x"].shape for each in listed({"x": np.zeros((9, 3))}, flexible)] == [(1, 3)] * 9
    assert [each["x"].shape for each in listed({"x": np.zeros((2, 5, 3))}, flexible)] == [(5, 3)] * 2
    network = describe(takes_sequences=True, x=array(3))
    assert [each["x"].shape for each in listed({"x": np.zeros((5, 3))}, network)] == [(3,)] * 5
    assert [each["x"].shape for each in listed({"x": np.zeros((5, 1, 3))}, network)] == [(5, 1, 3)]


def test_labels_are_divided_with_the_inputs(features):
    many = {"x": np.zeros((3, 3)), "mask": np.zeros(4), "label": np.array([2, 0, 1]), "names": ["a", "b", "c"], "k": 7}
    found = listed(many, features)
    assert [(each["label"], each["names"], each["k"]) for each in found] == [(2, "a", 7), (0, "b", 7), (1, "c", 7)]
    samples = Samples("compare", many, features)
    assert samples.inputs_of(found[0]).keys() == {"x", "mask"}
    (one,) = listed({"x": np.zeros((1, 3)), "mask": np.zeros(4), "label": np.array([5])}, features)
    assert one["label"].tolist() == [5]


def test_images_numbers_and_text(image_module):
    features = describe(
        image=image(6, 4), gray=image(6, 4, "GRAYSCALE"), count=of_type("int64Type"), word=of_type("stringType")
    )
    picture = image_module.new("RGB", (6, 4))
    given = {"image": picture, "gray": np.zeros((3, 4, 6), np.uint8), "count": [1, 2, 3], "word": ["a", "b", "c"]}
    found = listed(given, features)
    assert [(each["count"], each["word"]) for each in found] == [(1, "a"), (2, "b"), (3, "c")]
    assert all(each["image"] is picture and each["gray"].shape == (4, 6) for each in found)
    several = {**given, "image": np.zeros((3, 4, 6, 3), np.uint8)}
    assert [each["image"].shape for each in listed(several, features)] == [(4, 6, 3)] * 3


def test_sequences_share_a_state(features):
    step = {"x": np.zeros((1, 3)), "mask": np.zeros(4)}
    first, second, third = listed([step, [step, step], {**step, "x": np.zeros((2, 3))}], features)[:3]
    assert isinstance(first, dict)
    assert len(second) == 2
    assert isinstance(third, dict)
    assert Samples("compare", [step, [step, step], {**step, "x": np.zeros((2, 3))}], features).total == 4
    with pytest.raises(ValueError, match="a step of a sequence has 2 samples, but must have one"):
        listed([[{**step, "x": np.zeros((2, 3))}]], features)


def test_generators_are_read_as_they_come(features):
    taken = []

    def make():
        for index in range(1000):
            taken.append(index)
            yield {"x": np.full((1, 3), index), "mask": np.zeros(4)}

    samples = Samples("compare", make(), features)
    assert samples.total is None
    assert next(iter(samples))["x"][0, 0] == 0
    assert taken == [0]


def test_files_and_folders(features, tmp_path):
    many = {"x": np.random.default_rng(0).random((4, 3)), "mask": np.arange(16).reshape(4, 4), "label": np.arange(4)}
    np.savez(tmp_path / "all.npz", **many)
    samples = Samples("compare", tmp_path / "all.npz", features)
    assert samples.total == 4
    assert len(list(samples)) == len(list(samples)) == 4
    folder = tmp_path / "folder"
    folder.mkdir()
    for index in range(3):
        np.savez(folder / f"{2 - index}.npz", x=np.full((1, 3), 2 - index), mask=np.zeros(4), label=index)
    (folder / "notes.txt").write_text("no sample")
    (folder / ".hidden.npz").write_bytes(b"")
    found = listed(str(folder), features)
    assert [each["x"][0, 0] for each in found] == [0, 1, 2]
    assert [int(each["label"]) for each in found] == [2, 1, 0]
    np.savez(folder / "9.npz", **many)
    with pytest.raises(ValueError, match=r"9.npz has 4 samples, but must have one"):
        listed(folder, features)


def test_folders_of_images_are_brought_to_the_models_size(image_module, tmp_path):
    for name, size, mode, colour in (
        ("b.png", (20, 20), "RGB", (255, 0, 0)),
        ("a.png", (4, 6), "RGBA", (0, 255, 0, 255)),
        ("c.bmp", (9, 9), "L", 7),
    ):
        image_module.new(mode, size, colour).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image")
    samples = Samples("compare", tmp_path, describe(photo=image(4, 6)))
    found = [np.asarray(each["photo"]) for each in samples]
    assert samples.total == 3
    assert [each.shape for each in found] == [(6, 4, 3)] * 3
    assert [each[0, 0].tolist() for each in found] == [[0, 255, 0], [255, 0, 0], [7, 7, 7]]
    flexible = describe(photo=image(4, 6, "GRAYSCALE", ranges=((4, 10), (4, 10))))
    assert [(each["photo"].mode, each["photo"].size) for each in Samples("compare", tmp_path, flexible)] == [
        ("L", (4, 6)), ("L", (4, 6)), ("L", (9, 9))
    ]  # fmt: skip
    half = describe(photo=image(4, 6, "GRAYSCALE_FLOAT16"))
    assert [each["photo"].mode for each in Samples("compare", tmp_path, half)] == ["F"] * 3
    with pytest.raises(ValueError, match="is a folder of images, which is for models whose only input is an image"):
        Samples("compare", tmp_path, describe(x=array(3)))
    np.savez(tmp_path / "x.npz", x=1)
    with pytest.raises(ValueError, match=r"has both \.npz files and images"):
        Samples("compare", tmp_path, describe(photo=image(4, 6)))


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        ([], ValueError, "there are no samples"),
        (iter([]), ValueError, "there are no samples"),
        (3, TypeError, "must be a path, a dict or an iterable of dicts, not int"),
        (b"x", TypeError, "not bytes"),
        ([1], TypeError, "must be dicts, or lists of dicts for sequences, not int"),
        ([[1]], TypeError, "not int"),
        ([[]], TypeError, "not an empty list"),
        (iter([1]), TypeError, "not int"),
        ("no/such/place", FileNotFoundError, "no such file or folder"),
        ({"x": np.zeros((3, 3)), "mask": np.zeros((2, 4))}, ValueError, "different numbers of samples: 3 of 'x', 2 of"),
        ({"x": np.zeros((0, 3)), "mask": np.zeros(4)}, ValueError, "there are no samples"),
    ],
)
def test_what_is_no_sample_is_refused(features, source, error, message):
    with pytest.raises(error, match=f"compare: .*{message}"):
        listed(source, features)


def test_files_that_are_no_samples_are_refused(features, tmp_path):
    for name, data in (("a.npz", b"not an archive"), ("b.npz", b"PK\x03\x04broken"), ("c.npz", b"")):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ValueError, match=f"{name} is not an .npz file"):
            listed(tmp_path / name, features)
    np.save(tmp_path / "d.npy", np.zeros(3))
    with pytest.raises(ValueError, match=r"must be an \.npz file, or a folder of these or of images"):
        listed(tmp_path / "d.npy", features)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"has no \.npz files and no images"):
        listed(tmp_path / "empty", features)
    np.savez(tmp_path / "objects.npz", x=np.array([{}], object))
    with pytest.raises(ValueError, match=r"objects\.npz is not an \.npz file"):
        listed(tmp_path / "objects.npz", features)


def test_drawn_inputs_are_always_the_same():
    features = describe(
        x=array(1, 3, dtype="float16"),
        ids=array(50, dtype="int32"),
        free=array(),
        photo=image(6, 4),
        half=image(6, 4, "GRAYSCALE_FLOAT16"),
        count=of_type("int64Type"),
        weight=of_type("doubleType"),
    )
    first, second = draw("compare", features, 2)
    (again,) = draw("compare", features, 1)
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert not np.array_equal(first["x"], second["x"])
    assert set(first["ids"].tolist()) == {0, 1}
    arguments = features.arguments("compare", first)
    assert arguments["photo"].shape == (1, 3, 4, 6)
    with pytest.raises(ValueError, match="compare: cannot draw input 'word' of kind string; pass inputs"):
        list(draw("compare", describe(word=of_type("stringType")), 1))
