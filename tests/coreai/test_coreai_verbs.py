"""`corepress.coreai`: what its functions do to assets that coreai-torch made, run by Core AI."""

from __future__ import annotations

import hashlib
import json
import math
import shutil

import numpy as np
import pytest

import corepress as cp
from corepress import coreai, coreml
from corepress.cli.main import main
from helpers.assets import require_coreai, save_asset

require_coreai()
import torch  # noqa: E402
from torch import nn  # noqa: E402


class Decoder(nn.Module):
    """A tied embedding and head, a block with convolutions of several kinds, in float16 but for the last."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(128, 64)
        self.up, self.down = nn.Linear(64, 256), nn.Linear(256, 64)
        self.conv = nn.Conv2d(8, 32, 3, padding=1)
        self.transposed = nn.ConvTranspose2d(32, 24, 2)

    def forward(self, tokens, image):
        x = self.embedding(tokens)
        x = x + self.down(torch.relu(self.up(x)))
        return x @ self.embedding.weight.T, self.transposed(torch.relu(self.conv(image)))


INPUTS = {
    "tokens": np.arange(6, dtype=np.int32).reshape(1, 6),
    "image": np.random.default_rng(1).standard_normal((1, 8, 9, 9)).astype(np.float32),
}
NAMES = ["embedding", "up", "down", "conv", "transposed"]
CONFIGS = {
    "palettes of 4 bits": {"palettize": {"nbits": 4}},
    "3 bits": {"palettize": {"nbits": 3}},
    "groups": {"palettize": {"nbits": 4, "granularity": "per_grouped_channel", "group_size": 8}},
    "vectors": {"palettize": {"nbits": 4, "cluster_dim": 2}},
    "scaled": {"palettize": {"nbits": 6, "enable_per_channel_scale": True}},
    "int8": {"quantize": {}},
    "uint8 linear": {"quantize": {"dtype": "uint8", "mode": "linear"}},
    "int4 blocks": {"quantize": {"dtype": "int4", "granularity": "per_block", "block_size": 8, "scale_search": "mse"}},
    "sparse": {"prune": {"target_sparsity": 0.6}},
    "2:4": {"prune": {"n_m_ratio": [2, 4]}},
    "quantized table": [{"palettize": {"nbits": 4}}, {"quantize": {"granularity": "per_tensor"}}],
    "sparse palettes": [{"prune": {"target_sparsity": 0.6}}, {"palettize": {"nbits": 4}}],
    "sparse int8": [{"prune": {"target_sparsity": 0.6}}, {"quantize": {}}],
}


@pytest.fixture(scope="module")
def asset(tmp_path_factory):
    inputs = tuple(map(torch.from_numpy, INPUTS.values()))
    path = tmp_path_factory.mktemp("assets") / "Decoder.aimodel"
    return save_asset(path, (Decoder(), inputs), input_names=list(INPUTS), output_names=["logits", "pixels"])


def digest_of(path):
    digest = hashlib.sha256()
    for each in sorted(path.rglob("*")):
        digest.update(each.name.encode() + each.read_bytes())
    return digest.hexdigest()


def outputs_of(path):
    from corepress import runtime

    return runtime.load(path).predict(INPUTS)


@pytest.mark.parametrize("name", CONFIGS)
def test_compressed_assets_compute_with_what_we_decode(asset, tmp_path, name):
    before, out = digest_of(asset), tmp_path / "out.aimodel"
    report = coreai.compress(asset, out, CONFIGS[name])
    assert report.compressed >= 4
    assert report.bytes_after < report.bytes_before == sum(each.stat().st_size for each in asset.iterdir())
    assert digest_of(asset) == before
    verification = coreai.verify(asset, out)
    assert verification.ok, verification
    found = {each.name: each for each in verification.weights}
    for record in report.weights:
        assert found[record.name].status == ("compressed" if record.status == "compressed" else "identical")
        if record.status == "compressed" and "linear" not in name:  # zero points: Core AI rounds more often
            assert found[record.name].snr_db == pytest.approx(record.snr_db, abs=0.02)
    dense = tmp_path / "dense.aimodel"
    back = coreai.decompress(out, dense)
    assert back.decompressed == report.compressed
    assert coreai.verify(out, dense).ok
    expected, given = outputs_of(dense), outputs_of(out)
    for output in expected:
        if "linear" in name:  # where zero points are multiplied later
            np.testing.assert_allclose(expected[output], given[output], atol=1e-6)
        else:
            np.testing.assert_array_equal(expected[output], given[output])


def test_one_weight_for_all_its_uses(asset, tmp_path):
    report = coreai.compress(asset, tmp_path / "out.aimodel", {"palettize": {"nbits": 4}})
    tied = [record for record in report.weights if "gather_nd" in record.consumers]
    assert len(tied) == 1
    assert "broadcasting_batch_matmul" in tied[0].consumers
    assert sum(record.shape == (128, 64) for record in report.weights) == 1
    assert tied[0].status == "compressed"


def test_rules_by_operation_and_name(asset, tmp_path):
    names = {record.shape: record.name for record in coreai.inspect(asset).weights}
    config = {
        "global": {"quantize": {}},
        "op_types": {"conv2d": {"palettize": {"nbits": 6}}},
        "weights": {names[256, 64]: None},
    }
    report = coreai.compress(asset, tmp_path / "out.aimodel", config)
    method = {record.shape: record.method for record in report.weights}
    assert method[64, 256] == "quantize int8 per_channel"
    assert method[32, 8, 3, 3] == "palettize 6 bits"
    assert method[256, 64] is None
    with pytest.raises(ValueError, match="no weight matches"):
        coreai.compress(asset, tmp_path / "b.aimodel", {"op_types": {"conv": {"quantize": {}}}}, strict=True)
    assert not (tmp_path / "b.aimodel").exists()


def test_transposed_convolutions_have_their_channels_on_axis_one(asset, tmp_path):
    coreai.compress(asset, tmp_path / "out.aimodel", {"quantize": {"dtype": "int8"}})
    from corepress.coreai.program.program import Program

    stored = {weight.shape: weight.read() for weight in Program(tmp_path / "out.aimodel").weights}
    assert stored[32, 24, 2, 2].scale.shape == (1, 24, 1, 1)
    assert stored[32, 8, 3, 3].scale.shape == (32, 1, 1, 1)


def test_same_bytes_whatever_the_threads(asset, tmp_path):
    config = {"palettize": {"nbits": 4, "granularity": "per_grouped_channel", "group_size": 8}}
    digests = set()
    for threads in (1, 3):
        coreai.compress(asset, tmp_path / f"{threads}.aimodel", config, num_threads=threads)
        digests.add(digest_of(tmp_path / f"{threads}.aimodel"))
    assert len(digests) == 1


@pytest.mark.parametrize("name", CONFIGS)
def test_plans_say_what_is_done(asset, tmp_path, name):
    plan = coreai.plan(asset, CONFIGS[name], expect_snr=True)
    report = coreai.compress(asset, tmp_path / "out.aimodel", CONFIGS[name])
    for planned, done in zip(plan.weights, report.weights, strict=True):
        assert (planned.name, planned.method, planned.reason) == (done.name, done.method, done.reason)
        assert planned.bytes_after == done.bytes_after if planned.exact else planned.bytes_after >= done.bytes_after
        if planned.expected_snr_db is not None and math.isfinite(planned.expected_snr_db):
            assert planned.expected_snr_db == pytest.approx(done.snr_db, abs=0.5)
    assert plan.exact == all(planned.exact for planned in plan.weights)
    assert plan.bytes_after == report.bytes_after if plan.exact else plan.bytes_after >= report.bytes_after
    assert json.loads(plan.to_json())["bytes_after"] == plan.bytes_after


def test_targets(asset, tmp_path):
    out = tmp_path / "out.aimodel"
    report = coreai.compress(asset, out, target_size=60_000)
    assert 50_000 < report.bytes_after <= 60_000
    assert report.predicted is not None
    assert coreai.verify(asset, out).ok
    found = coreai.allocate(asset, target_bits=3.5)
    again = coreai.compress(asset, tmp_path / "again.aimodel", found)
    assert again.bytes_after <= found.predicted.recipe.bytes
    with pytest.raises(ValueError, match="out of reach"):
        coreai.allocate(asset, target_size=1000)


def test_calibration_brings_outputs_closer(asset, tmp_path):
    rng = np.random.default_rng(0)
    mixing = rng.standard_normal((8, 8)) * np.linspace(1, 0.05, 8) ** 2

    def sample():
        image = np.einsum("ij,bjhw->bihw", mixing, rng.standard_normal((1, 8, 9, 9)))
        return {"tokens": rng.integers(0, 128, (1, 6)).astype(np.int32), "image": image.astype(np.float32)}

    statistics = coreai.calibrate(asset, [sample() for _ in range(32)], tmp_path / "s.calibration")
    test = [sample() for _ in range(8)]
    ratios = []
    for calibration in (None, tmp_path / "s.calibration"):
        out = tmp_path / "out.aimodel"
        report = coreai.compress(asset, out, {"palettize": {"nbits": 3}}, calibration=calibration, overwrite=True)
        comparison = coreai.compare(asset, out, inputs=test)
        ratios.append({output.name: output.snr_db for output in comparison.outputs}["pixels"])
    assert ratios[1] > ratios[0] + 2
    assert statistics.weights
    first = digest_of(out)
    coreai.compress(asset, out, {"palettize": {"nbits": 3}}, calibration=statistics, overwrite=True)
    assert digest_of(out) == first
    assert not any("without calibration" in note and "conv" in note for note in report.notes)


def test_verify_finds_what_changed(asset, tmp_path):
    out = tmp_path / "out.aimodel"
    coreai.compress(asset, out, {"palettize": {"nbits": 4}})
    from corepress.coreai.format.asset import Asset
    from corepress.coreai.format.asset_writer import AssetWriter
    from corepress.coreai.program.program import Program

    program = Program(out)
    bias = next(weight for weight in program.weights if len(weight.shape) == 1)
    changed = np.array(bias.read())
    changed[3] += 1
    bias.replace(changed)
    other = tmp_path / "other.aimodel"
    with AssetWriter(Asset.open(out), other) as writer:
        program.save(writer)
        writer.finish()
    verification = coreai.verify(asset, other)
    assert not verification.ok
    assert verification.all_problems == (f"{bias.name}: its values changed, although it is not compressed",)

    shutil.copytree(out, tmp_path / "hash.aimodel")
    (tmp_path / "hash.aimodel" / "main.hash").write_bytes(bytes(32))
    assert coreai.verify(asset, tmp_path / "hash.aimodel").problems == ("file main.hash is not the hash of main.mlirb",)

    assert coreai.verify(asset, out, min_snr_db=15).ok
    assert not coreai.verify(asset, out, min_snr_db=60).ok


def test_verify_compares_the_programs(asset, tmp_path):
    class Other(Decoder):
        def forward(self, tokens, image):
            logits, pixels = super().forward(tokens, image)
            return logits, pixels * 2

    inputs = tuple(map(torch.from_numpy, INPUTS.values()))
    other = tmp_path / "Other.aimodel"
    save_asset(other, (Other(), inputs), input_names=list(INPUTS), output_names=["logits", "pixels"])
    verification = coreai.verify(asset, other)
    assert any("the program differs" in problem for problem in verification.problems), verification.problems


def test_what_compare_reports(asset, tmp_path):
    out = tmp_path / "out.aimodel"
    report = coreai.compress(asset, out, {"palettize": {"nbits": 4}})
    comparison = coreai.compare(asset, out)
    done = {record.name: record for record in report.weights}
    assert {each.name for each in comparison.weights} == set(done)
    for each in comparison.weights:
        expected = done[each.name].snr_db
        assert each.snr_db == (math.inf if expected is None else pytest.approx(expected, abs=0.02))
        assert each.other_bytes == done[each.name].bytes_after
    assert not comparison.only_in_first
    assert not comparison.only_in_second


def test_what_is_left_unchanged_keeps_its_bits(asset, tmp_path):
    report = coreai.compress(asset, tmp_path / "out.aimodel", {"palettize": {"nbits": 4}}, weight_threshold=10_000)
    kept = {record.name for record in report.weights if record.status == "kept"}
    from corepress.coreai.program.program import Program

    theirs = {weight.name: weight for weight in Program(tmp_path / "out.aimodel").weights}
    for weight in Program(asset).weights:
        if weight.name in kept:
            np.testing.assert_array_equal(weight.read(), theirs[weight.name].read())
    assert {record.reason for record in report.weights if record.status == "kept"} >= {
        "small: at most 10000 elements",
        "vector, such as a bias or a norm",
    }


def test_small_weights_keep_their_precision(tmp_path):
    """Apple's tool rounds weights to four decimals before it clusters them; these lose what larger ones do."""
    ratios = []
    for deviation in (0.05, 1e-4, 2e-5):
        torch.manual_seed(0)
        layer = nn.Linear(128, 256, bias=False)
        nn.init.normal_(layer.weight, std=deviation)
        path = save_asset(tmp_path / f"{deviation}.aimodel", (layer, (torch.randn(4, 128),)), input_names=["x"])
        report = coreai.compress(path, tmp_path / "out.aimodel", {"palettize": {"nbits": 4}}, overwrite=True)
        comparison = coreai.compare(path, tmp_path / "out.aimodel", predictions=True)
        ratios.append((report.weights[0].snr_db, comparison.outputs[0].snr_db))
    for of_weight, of_output in ratios:
        assert of_weight == pytest.approx(ratios[0][0], abs=0.3)
        assert of_output == pytest.approx(ratios[0][1], abs=0.3)


def test_two_functions_share_a_weight(tmp_path):
    layer = nn.Linear(64, 128)
    path = tmp_path / "two.aimodel"
    save_asset(
        path,
        (layer, (torch.zeros(1, 64),), {"input_names": ["x"], "entrypoint_name": "main"}),
        (layer, (torch.zeros(4, 64),), {"input_names": ["x"], "entrypoint_name": "batch"}),
    )
    report = coreai.compress(path, tmp_path / "out.aimodel", {"quantize": {}})
    assert [record.shape for record in report.weights if record.status == "compressed"] == [(128, 64)]
    assert report.bytes_after < 20_000
    assert coreai.verify(path, tmp_path / "out.aimodel").ok


@pytest.mark.parametrize("broken", ["main.mlirb", "metadata.json"])
def test_damaged_assets_are_refused(asset, tmp_path, broken):
    damaged = tmp_path / "damaged.aimodel"
    shutil.copytree(asset, damaged)
    data = (damaged / broken).read_bytes()
    (damaged / broken).write_bytes(data[: len(data) // 2])
    for work in (
        lambda: coreai.inspect(damaged),
        lambda: coreai.plan(damaged, {"quantize": {}}),
        lambda: coreai.compress(damaged, tmp_path / "out.aimodel", {"quantize": {}}),
        lambda: coreai.verify(damaged, asset),
    ):
        with pytest.raises(cp.FormatError, match="damaged"):
            work()
    assert not (tmp_path / "out.aimodel").exists()
    assert not coreai.verify(asset, damaged).ok


def test_what_core_ml_is_for_is_refused_by_name(asset, tmp_path):
    with pytest.raises(cp.FormatError, match=r"corepress\.coreai is for these"):
        coreml.compress(asset, tmp_path / "out.mlpackage", {"quantize": {}})
    with pytest.raises(ValueError, match=r"must end in \.aimodel"):
        coreai.compress(asset, tmp_path / "out.mlpackage", {"quantize": {}})
    with pytest.raises(FileExistsError, match="overwrite=True"):
        coreai.compress(asset, asset.parent, {"quantize": {}}) if asset.parent.suffix else coreai.compress(
            shutil.copytree(asset, tmp_path / "a.aimodel"), asset, {"quantize": {}}
        )


def test_known_problems_of_a_target(asset, tmp_path):
    config = {"quantize": {"granularity": "per_block", "block_size": 8}}
    report = coreai.compress(asset, tmp_path / "out.aimodel", config, target="ane")
    assert any("Neural Engine" in str(warning) for warning in report.warnings)
    assert not coreai.compress(asset, tmp_path / "b.aimodel", config, target="gpu").warnings


def test_the_shell(asset, tmp_path, capsys):
    out = tmp_path / "out.aimodel"

    def run(*arguments):
        status = main(list(map(str, arguments)))
        return status, capsys.readouterr()

    status, told = run("palettize", asset, "-o", out, "--nbits", "4", "--json")
    assert status == 0
    assert json.loads(told.out)["compressed"] >= 4
    status, told = run("inspect", out, "--json")
    assert {"palettized 4 bits", "plain values"} <= {each["storage"] for each in json.loads(told.out)["weights"]}
    assert run("verify", asset, out, "--json")[0] == 0
    np.savez(tmp_path / "sample.npz", **INPUTS)
    status, told = run("compare", asset, out, "--inputs", tmp_path / "sample.npz", "--json")
    assert {each["name"] for each in json.loads(told.out)["outputs"]} == {"logits", "pixels"}
    status, told = run("predict", out, "--inputs", tmp_path / "sample.npz", "--json")
    assert json.loads(told.out)
    status, told = run("decompress", out, "-o", tmp_path / "dense.aimodel", "--json")
    assert json.loads(told.out)["decompressed"] >= 4
    status, told = run("compress", asset, "-o", tmp_path / "t.aimodel", "--target-bits", "4.5", "--json")
    assert json.loads(told.out)["predicted"]["target"] == "target_bits 4.5"
    status, told = run("quantize", asset, "--dry-run", "--json")
    assert json.loads(told.out)["weights"]
    status, told = run("palettize", asset, "--nbits", "4")
    assert status == 2
    assert "-o Decoder-4bit.aimodel" in told.err
