"""The scripts of bench run, and say what they should."""

from __future__ import annotations

import json
import math
import queue
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

import charts
import compare
import corepress as cp
import diffusion
import documents
import error_feedback
import history
import page
import peers
from compare_worker import digest
from corepress.benchmark.architectures import ARCHITECTURES
from corepress.benchmark.methods import METHODS
from rows import ROWS


@pytest.fixture
def tiny_alone(tiny):
    """The only model there is."""
    all_of_them = dict(ARCHITECTURES)
    ARCHITECTURES.clear()
    ARCHITECTURES["tiny"] = tiny
    yield tiny
    ARCHITECTURES.clear()
    ARCHITECTURES.update(all_of_them)  # in their order, which tables follow


def run(main, monkeypatch, *arguments: str | Path) -> None:
    monkeypatch.setattr("sys.argv", ["script", *map(str, arguments)])
    main()


def measured_peer(found: queue.SimpleQueue) -> list[dict]:
    diffusion.measure_peers("tiny", ["4bit", "int4-blocks"], ["coremltools", "NumPy"], found)
    return [vars(each) for each in found.get()]


def test_diffusion_saves_what_charts_draw(tiny_alone, tmp_path, monkeypatch, capsys):
    results = tmp_path / "results"
    results.mkdir()
    file = results / "diffusion.json"
    options = "--no-peers", "--quick", "--threads", "1", "2", "--scratch", tmp_path
    run(diffusion.main, monkeypatch, *options, "--json", file, "--date", "2026-11-27")
    printed = capsys.readouterr().out
    assert all(method.title in printed for method in METHODS.values())
    assert "np.copyto" in printed
    document = json.loads(file.read_text())
    assert document["date"] == "2026-11-27"
    assert document["machine"]["cpus"] >= 1
    assert document["machine"]["versions"]["numpy"] == np.__version__
    assert set(document["settings"]["copy_seconds_per_byte"]) == {"cp", "cp and sync"}
    ours = document["results"]["ours"]
    assert {(result["method"], result["threads"]) for result in ours} == {(key, n) for key in METHODS for n in (1, 2)}

    document["results"]["peers"] = measured_peer(queue.SimpleQueue())
    assert [peer["tool"] for peer in document["results"]["peers"]] == ["coremltools", "coremltools"]
    file.write_text(json.dumps(document))
    figures = tmp_path / "figures"
    run(charts.main, monkeypatch, "--results", results, "--output", figures)
    for name in ("models", "tools", "quality", "scaling"):
        drawn = (figures / f"benchmark-{name}.svg").read_text()
        assert METHODS["4bit"].title in drawn
        charts.draw_all(results, tmp_path / "again", [name])
        assert (tmp_path / "again" / f"benchmark-{name}.svg").read_text() == drawn  # nothing in it depends on the day


def test_table_saves_what_the_chart_of_goals_draws(script, tmp_path):
    printed = script("table.py", "--quick", "--no-peers", "--rows", "pack 4 bits", "--json", "rows.json")
    assert "pack 4 bits" in printed
    document = json.loads((tmp_path / "rows.json").read_text())
    goal = document["results"][0]
    document["results"] = [
        {**goal, "copies": False, "ratio": 90.0, "required": 60.0, "aim": 120.0},
        {**goal, "copies": True, "ratio": 3.0, "required": 2.0, "aim": 1.5},
    ]
    (tmp_path / "rows.json").write_text(json.dumps(document))
    charts.draw_all(tmp_path, tmp_path)
    drawn = (tmp_path / "benchmark-goals.svg").read_text()
    assert "missed" in drawn
    assert "measured, reached" in drawn


def test_rows_of_two_processes_are_compared_in_pairs():
    row = "pack 1 bit"
    with compare.Worker(None, 1, True) as before, compare.Worker(None, 1, True) as after:
        assert row in before.rows
        result = compare.measure(row, before, after, pairs=10, seconds=0)
    assert result.pairs == compare.FEWEST_PAIRS
    assert result.same_result
    assert result.ratio_low <= result.ratio <= result.ratio_high


def test_versions_are_added_to_a_history_and_drawn(tmp_path, monkeypatch, capsys):
    file, row = tmp_path / "history.json", "pack 1 bit"
    monkeypatch.setattr(history, "Worker", lambda revision, *options: compare.Worker(None, *options))
    quick = "--quick", "--rows", row, "--pairs", "9", "--seconds", "0", "--threads", "1", "--json", file
    run(history.main, monkeypatch, "1.0=old", "1.1=HEAD", *quick)
    run(history.main, monkeypatch, "1.0=old", "1.2=HEAD", *quick)
    document = json.loads(file.read_text())
    assert document["settings"]["base"] == "1.0"
    assert [each["version"] for each in document["results"] if each["row"] == row] == ["1.1", "1.2"]
    assert "1.0 and 1.2" in capsys.readouterr().out
    with pytest.raises(SystemExit, match=r"compares with 1.0, not with 0.9; choose another file"):
        run(history.main, monkeypatch, "0.9=old", "1.2=HEAD", *quick)
    (drawn,) = charts.draw_all(tmp_path, tmp_path, ["history"])
    assert "1.2" in drawn.read_text()


def test_every_row_has_a_topic():
    for row in ROWS:
        assert sum(holds(row) for holds in charts.TOPICS.values()) == 1, row


def test_an_unknown_revision_is_said_to_be_one():
    with pytest.raises(SystemExit, match="no such revision"):
        compare.built("no-such-revision")


@pytest.mark.parametrize(("factor", "verdict"), [(0.5, "faster"), (1.0, ""), (2.0, "slower")])
def test_only_changes_beyond_the_noise_are_called_so(factor, verdict):
    noise = np.random.default_rng(0)
    before = 1 + 0.2 * noise.random(21)
    after = factor * (1 + 0.2 * noise.random(21))
    result = compare.compared("row", before.tolist(), after.tolist(), True)
    assert result.verdict == verdict
    assert result.ratio == pytest.approx(factor, rel=0.1)


def test_the_interval_holds_the_median_as_often_as_it_says():
    noise, count = np.random.default_rng(0), 15
    held = 0
    for _ in range(2000):
        low, high = compare.median_interval(noise.lognormal(size=count))
        held += low <= 1 <= high
    assert held / 2000 >= compare.CONFIDENCE - 0.005
    assert compare.median_interval(list(range(9))) == (0, 8)
    ordered = list(range(21))
    low, high = compare.median_interval(ordered)
    assert 2 * sum(math.comb(21, rank) for rank in range(low)) / 2**21 <= 1 - compare.CONFIDENCE


def test_digests_tell_results_apart():
    weight = np.random.default_rng(0).standard_normal((64, 64)).astype(np.float16)
    first = digest(cp.palettize(weight, nbits=4))
    assert first == digest(cp.palettize(weight, nbits=4))
    assert first != digest(cp.palettize(weight, nbits=2))
    assert digest(weight) != digest(weight.astype(np.float32))


def test_tools_that_are_missing_are_named(monkeypatch, tmp_path):
    monkeypatch.setitem(peers.PACKAGES, "imaginary", ("imaginary_module", "imaginary"))
    assert peers.missing("imaginary")
    assert "imaginary" in peers.absent()
    assert "imaginary" not in documents.describe_machine(peers.index_names())["versions"]


def test_pages_show_the_kept_results_and_no_others():
    texts = [path.read_text() for path in page.PAGES]
    assert [page.filled(text) for text in texts] == texts
    assert all("<!-- table:" in text for text in texts)
    text = texts[0]
    shown = set(re.findall(r"\(images/benchmark-(\w+)\.svg\)", text))
    assert shown <= set(charts.CHARTS)
    images = page.PAGES[0].parent / "images"
    assert {path.stem.removeprefix("benchmark-") for path in images.glob("benchmark-*.svg")} == shown
    kept = [path.stem for path in page.RESULTS.glob("*.json")]
    assert all(any(name.startswith(charts.CHARTS[chart][1]) for name in kept) for chart in shown)


def test_tables_of_the_page_have_what_was_measured(tmp_path):
    goal = {"row": "pack", "against": "coremltools", "copies": False, "required": 60.0, "ratio": 12.34, "reached": "no"}
    goal |= {"seconds": 0.00123, "their_seconds": 1.5}
    reached = {**goal, "row": "prune", "reached": "yes"}
    (tmp_path / "rows.json").write_text(json.dumps({"results": [goal, reached]}))
    job = {"job": "4 bits", "seconds": 1.4, "cpu_seconds": 2.0, "copy_seconds": 1.0, "ratio": 1.4}
    job |= {"required_ratio": 1.5, "peak_megabytes": 153.2}
    (tmp_path / "package.json").write_text(json.dumps({"results": [job]}))
    ours = {"job": "8 bits", "tool": "corepress", "seconds": 0.253, "peak_megabytes": 76.9}
    theirs = {**ours, "tool": "coremltools", "seconds": 12.0}
    (tmp_path / "models.json").write_text(json.dumps({"results": [ours, theirs]}))
    places = [f"<!-- table: {name} -->\nold\n<!-- end -->\n" for name in ("missed", "package", "trained")]
    before = "text\n".join(places)
    after = page.filled(before, tmp_path)
    assert "| pack | coremltools, times as fast | 60 | 12 |" in after
    assert "prune" not in after
    assert "old" not in after
    assert "| 4 bits | 1.40 s | 2.00 s | 1.00 s | 1.40 | 1.5 | 153 MB |" in after
    assert "| 8 bits | 12 s, 77 MB | 0.25 s, 77 MB |" in after
    assert page.filled(after, tmp_path) == after
    assert "| pack | 1.2 ms | 1,500 ms | 12 |" in page.filled("<!-- table: arrays -->\n<!-- end -->", tmp_path)


@pytest.mark.parametrize(("load", "clock"), [(0.5, "seconds"), (9.0, "cpu_seconds")])
def test_a_busy_machine_has_cpu_time_shown_and_the_best_run_counts(load, clock, tmp_path):
    run = {"model": "sd15", "method": "int8", "threads": 2, "measured_weights": 10, "seconds": 3.0, "cpu_seconds": 2.0}
    document = {
        "machine": {"cpus": 2},
        "load_averages": [load] * 3,
        "settings": {"copy_seconds_per_byte": {}},
        "results": {"ours": [run], "peers": []},
    }
    faster = {**document, "results": {"ours": [{**run, "seconds": 1.0, "cpu_seconds": 1.0}], "peers": []}}
    sampled = {**document, "results": {"ours": [{**run, "measured_weights": 5, "seconds": 0.1}], "peers": []}}
    for name, each in (("", document), ("-again", faster), ("-quick", sampled)):
        (tmp_path / f"diffusion{name}.json").write_text(json.dumps(each))
    merged = charts.load(tmp_path, "diffusion")
    assert merged["clock"] == clock
    assert [result["seconds"] for result in merged["ours"]] == [1.0]


@pytest.mark.skipif(sys.platform == "win32", reason="signals are others there")
def test_calls_are_interrupted_and_waits_told(script, tmp_path):
    options = ("--quick", "--moments", "1", "--json", "waits.json", "--scratch", tmp_path)
    script("interrupts.py", *options, "--calls", "vectors of 4", "decompress")
    results = json.loads((tmp_path / "waits.json").read_text())["results"]
    ways = [each["way"] for each in results]
    assert ways[:3] == ["python", "shell", "shell"]
    assert ways[3:] == (["c"] if shutil.which("cc") else [])
    for each in results:
        assert len(each["waits"]) <= 1
        assert not each["wrong"]
    assert [path.name for path in tmp_path.iterdir()] == ["waits.json"]


def test_error_feedback_is_compared_with_a_plain_gptq(monkeypatch, tmp_path):
    pytest.importorskip("torch")
    monkeypatch.setattr(error_feedback, "LAYERS", ((24, 36, 36), (10, 50, 20)))
    run(error_feedback.main, monkeypatch, "--json", tmp_path / "lines.json")
    lines = json.loads((tmp_path / "lines.json").read_text())["results"]
    assert [line["layer"] for line in lines] == ["24x36", "10x50, blocks of 20"]
    for line in lines:
        assert line["gain_db"] > 1
        assert line["torch_gain_db"] > 1
