"""`compress`, `verify` and `compare` on a real package, and the dry run."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from xml.etree import ElementTree

import pytest

CONFIG = """
global: {palettize: {nbits: 4}}
op_types:
  conv: {palettize: {nbits: 6}}
weights:
  "*time_emb*": {quantize: {dtype: int8}}
  "re:.*conv_(in|out).*": null
  "*nothing*": null
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(CONFIG)
    return path


@pytest.fixture(scope="module")
def compressed(unet: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from corepress import coreml

    path = tmp_path_factory.mktemp("compressed") / "compressed.mlpackage"
    coreml.compress(unet, path, {"palettize": {"nbits": 4}})
    return path


def _files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_compress_follows_its_config(shell, unet, config, tmp_path):
    outcome = shell("compress", unet, "-o", tmp_path / "o.mlpackage", "--config", config, "--target", "ane")
    assert (outcome.status, outcome.err) == (0, "")
    assert "warning          no weight matches weights '*nothing*'" in outcome.out
    assert "warning          ane: " in outcome.out
    outcome = shell("inspect", tmp_path / "o.mlpackage", "--json")
    stored = {weight["name"]: weight["storage"] for weight in json.loads(outcome.out)["weights"]}
    assert stored["conv_in_weight"] == "plain values"
    assert stored["mid_block_resnets_0_conv1_weight"] == "palettized 6 bits"
    assert stored["mid_block_resnets_0_time_emb_proj_weight"].startswith("quantized int8")


def test_json_on_the_command_line(shell, unet, tmp_path):
    text = '{"weights": {"conv_in*": {"quantize": {}}}}'
    outcome = shell("compress", unet, "-o", tmp_path / "o.mlpackage", "--config", text, "--json")
    weights = json.loads(outcome.out)["weights"]
    assert [weight["name"] for weight in weights if weight["status"] == "compressed"] == ["conv_in_weight"]


def test_one_of_the_recipes_of_a_file(shell, unet, tmp_path):
    path = tmp_path / "recipe.json"
    recipes = {f"recipe_{bits:.2f}_bit_mixedpalette": {"conv_in": bits} for bits in (2, 4)}
    path.write_text(json.dumps({"recipes": recipes}))
    arguments = ["compress", unet, "--dry-run", "--json", "--config", path]
    outcome = shell(*arguments, "--recipe", "4")
    methods = {weight["method"] for weight in json.loads(outcome.out)["weights"]}
    assert methods == {"palettize 4 bits", None}
    outcome = shell(*arguments)
    assert outcome.status == 2
    assert "choose one by its key or its bits" in outcome.err


@pytest.mark.parametrize("verb", ["palettize --nbits 4", "quantize", "prune --target-sparsity 1", "compress"])
def test_a_dry_run_writes_nothing_and_tells_the_exact_size(shell, unet, config, tmp_path, verb):
    more = ["--config", config] if verb == "compress" else []
    before = _files(tmp_path)
    outcome = shell(*verb.split(), unet, *more, "--dry-run")
    assert (outcome.status, outcome.err) == (0, "")
    assert _files(tmp_path) == before
    planned = json.loads(shell(*verb.split(), unet, *more, "--dry-run", "--json").out)
    assert planned["exact"]
    assert f"exactly {planned['bytes_after']:,} bytes" in outcome.out
    assert "mid_block_resnets_0_conv1_weight" in outcome.out
    written = shell(*verb.split(), unet, "-o", tmp_path / "o.mlpackage", *more, "--json")
    assert json.loads(written.out)["bytes_after"] == planned["bytes_after"]


def test_a_dry_run_can_be_saved_and_be_silent(shell, unet, tmp_path):
    arguments = ["quantize", unet, "--dry-run", "--quiet", "--report", tmp_path / "plan.json"]
    assert shell(*arguments).out == ""
    assert json.loads((tmp_path / "plan.json").read_text())["compressed"] > 60


def test_strict_refuses_rules_that_mean_nothing(shell, unet, config, tmp_path):
    for more in (["-o", tmp_path / "o.mlpackage"], ["--dry-run"]):
        outcome = shell("compress", unet, "--config", config, "--strict", *more)
        assert (outcome.status, outcome.out) == (1, "")
        assert "no weight matches weights '*nothing*'" in outcome.err
    assert _files(tmp_path) == ["config.yaml"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("global: {palettise: {nbits: 4}}", "unknown step 'palettise'; known are palettize, quantize, prune; did you"),
        ("globl: {palettize: {nbits: 4}}\nweights: {}", "unknown key 'globl'"),
        ("weights: {a: null, a: null}", "line 1: key 'a' occurs twice"),
        ("palettize: [", "not valid YAML"),
    ],
)
def test_a_wrong_config_is_wrong_usage_in_one_line(shell, unet, tmp_path, text, message):
    path = tmp_path / "wrong.yaml"
    path.write_text(text)
    outcome = shell("compress", unet, "-o", tmp_path / "o.mlpackage", "--config", path)
    assert (outcome.status, outcome.out) == (2, "")
    assert "wrong.yaml" in outcome.err
    assert message in outcome.err
    assert outcome.err.count("\n") == 1
    assert _files(tmp_path) == ["wrong.yaml"]


def test_a_missing_config_is_named_with_its_neighbour(shell, unet, config):
    outcome = shell("compress", unet, "--dry-run", "--config", config.with_name("confg.yaml"))
    assert outcome.status == 2
    assert "did you mean 'config.yaml'?" in outcome.err


@pytest.mark.parametrize(
    ("line", "meant"),
    [
        ("palletize", "palettize"),
        ("compres x", "compress"),
        ("verfy a b", "verify"),
        ("compare a b --pplot x", "--plot"),
    ],
)
def test_misspelt_commands_and_options_come_with_what_may_be_meant(shell, line, meant):
    outcome = shell(*line.split())
    assert outcome.status == 2
    assert meant in outcome.err
    assert outcome.err.count("\n") == 1


def test_verify_accepts_a_sound_result(shell, unet, compressed):
    outcome = shell("verify", unet, compressed)
    assert (outcome.status, outcome.err) == (0, "")
    assert outcome.out.startswith("ok: constants: ")
    assert "conv_in_weight" in shell("verify", unet, compressed, "--verbose").out
    assert json.loads(shell("verify", unet, compressed, "--json").out)["ok"] is True
    assert shell("verify", unet, compressed, "--quiet").out == ""


def test_verify_fails_and_names_what_is_wrong(shell, unet, compressed, tmp_path):
    import shutil

    outcome = shell("verify", unet, compressed, "--min-snr-db", "100")
    assert outcome.status == 1
    assert "less than 100 dB" in outcome.out
    damaged = shutil.copytree(compressed, tmp_path / "damaged.mlpackage")
    (weights,) = damaged.rglob("weight.bin")
    with weights.open("r+b") as file:
        file.seek(64)
        file.write(struct.pack("<I", 0))
    for more in ([], ["--json"], ["--quiet"]):
        assert shell("verify", unet, damaged, *more).status == 1
    assert "wrong: " in shell("verify", unet, damaged).out
    outcome = shell("verify", tmp_path / "missing.mlpackage", compressed)
    assert (outcome.status, outcome.out) == (1, "")
    assert "no such package" in outcome.err


def test_compare_tells_how_far(shell, unet, compressed):
    outcome = shell("compare", unet, compressed)
    assert (outcome.status, outcome.err) == (0, "")
    assert "different" in outcome.out
    assert "furthest apart, in dB (--verbose shows all):" in outcome.out
    assert "palettized 4 bits" in shell("compare", unet, compressed, "--verbose").out
    values = json.loads(shell("compare", unet, compressed, "--json").out)
    assert values["note"] is None
    assert len(values["weights"]) > 200


@pytest.mark.parametrize(
    "arguments",
    [
        ["palettize", "UNET", "-o", "NEW", "--nbits", "3", "--quiet"],
        ["palettize", "UNET", "--dry-run", "--nbits", "3", "--quiet"],
        ["compare", "UNET", "COMPRESSED", "--quiet"],
        ["compare", "UNET", "UNET", "--quiet"],
    ],
    ids=["report", "plan", "comparison", "nothing differs"],
)
def test_pictures(shell, unet, compressed, tmp_path, arguments):
    paths = {"UNET": unet, "COMPRESSED": compressed, "NEW": tmp_path / "new.mlpackage"}
    picture = tmp_path / "picture.png"
    outcome = shell(*(paths.get(each, each) for each in arguments), "--plot", picture)
    assert (outcome.status, outcome.out, outcome.err) == (0, "", "")
    data = picture.read_bytes()
    assert data.startswith(b"\x89PNG")
    width, height = struct.unpack(">II", data[16:24])
    assert width > 1000
    assert height > 500
    assert len(data) > 10_000


def test_pictures_within_pages(shell, unet, tmp_path):
    drawings = []
    for name in ("picture.svg", "page.html", "again.html"):
        outcome = shell("palettize", unet, "--dry-run", "--nbits", "3", "--quiet", "--plot", tmp_path / name)
        assert (outcome.status, outcome.err) == (0, "")
        drawings.append((tmp_path / name).read_text(encoding="utf-8"))
    svg, page, again = drawings
    root = ElementTree.fromstring(svg)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert page.startswith("<!doctype html>")
    assert svg[svg.index("<svg") :] in page
    assert "would become" in page
    assert "<script" not in page
    assert "src=" not in page
    assert page == again


def test_a_picture_of_another_kind_is_refused_before_any_work(shell, unet, tmp_path):
    destination = tmp_path / "new.mlpackage"
    outcome = shell("palettize", unet, "-o", destination, "--nbits", "3", "--plot", tmp_path / "picture.jpg")
    assert outcome.status == 2
    assert "picture.jpg must end with .png, .svg or .html" in outcome.err
    assert not destination.exists()
