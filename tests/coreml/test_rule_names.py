"""Rules by the names that people know: Hugging Face's, PyTorch's, a head that is tied, tables of positions."""

import json

import numpy as np
import pytest
from coreml_helpers import digest

from corepress import Config, coreml
from corepress.config.patterns import NamePatterns, readings
from corepress.engine.position_tables import is_position_table

Q, K, UP = (
    f"model_layers_{{}}_{name}_weight_to_fp16" for name in ("self_attn_q_proj", "self_attn_k_proj", "mlp_up_proj")
)
LAYERS = [name.format(layer) for layer in (0, 1, 10) for name in (Q, K, UP)]
EMBEDDING, COS, SIN = "model_embed_tokens_weight_to_fp16", "model_rotary_emb_cos_cached", "sin"
FOUR, EIGHT = {"palettize": {"nbits": 4}}, {"palettize": {"nbits": 8}}


@pytest.fixture(scope="module", params=[True, False], ids=["tied", "untied"])
def tied(request):
    return request.param


@pytest.fixture(scope="module")
def decoder(build, tied):
    """What conversion makes of a language model: an embedding, layers, rotary tables, a head."""

    def matrix(*shape):
        return (0.05 * np.random.default_rng(list(shape)).standard_normal(shape)).astype(np.float16)

    def body(mb, ids):
        def linear(name, x, outputs=64):
            return mb.linear(x=x, weight=mb.const(val=matrix(outputs, 64), name=name))

        embedding = mb.const(val=matrix(96, 64), name=EMBEDDING)
        x = mb.gather(x=embedding, indices=ids, axis=0, validate_indices=False)
        for name in LAYERS:
            x = linear(name, x)
        for name in (COS, SIN):
            x = mb.mul(x=x, y=mb.gather(x=mb.const(val=matrix(128, 64), name=name), indices=ids, axis=0))
        if tied:
            return mb.linear(x=x, weight=embedding)
        return linear("lm_head_weight_to_fp16", x, 96)

    return build(body, {"ids": ((4,), np.int32)})


def _compressed(package, tmp_path, rules, **options):
    report = coreml.compress(package, tmp_path / "out.mlpackage", {"weights": rules}, overwrite=True, **options)
    assert coreml.verify(package, tmp_path / "out.mlpackage").ok
    assert coreml.plan(package, {"weights": rules}).notes == report.notes
    return report, {record.name for record in report.weights if record.status == "compressed"}


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("model.layers.*.self_attn.*", [name for name in LAYERS if "self_attn" in name]),
        ("layers.1.*", [name for name in LAYERS if "_1_" in name]),
        (r"re:model\.layers\.\d\.mlp\..*", [UP.format(0), UP.format(1)]),
        (r"re:model\.layers\.(0|10)\.mlp", [UP.format(0), UP.format(10)]),
        (r"re:.*\.q_proj\.weight", [Q.format(layer) for layer in (0, 1, 10)]),
        ("module:model.layers.*.self_attn.*", [name for name in LAYERS if "self_attn" in name]),
        ("module:model.layers.*.self_attn", [name for name in LAYERS if "self_attn" in name]),
        (r"module:re:model\.layers\.\d+\.mlp\..*", [UP.format(layer) for layer in (0, 1, 10)]),
        ("module:model.layers.[01].mlp.up_proj", [UP.format(0), UP.format(1)]),
        ("module:model.layers.0.mlp", [UP.format(0)]),
        ("module:model.layers.1", [name for name in LAYERS if "_1_" in name]),
        ("model.layers.0", [name for name in LAYERS if "_0_" in name]),
        ("model.layers.0.self_attn.q_proj.weight", [Q.format(0)]),
        ("model.model.layers.0.mlp.up_proj", [UP.format(0)]),
        ("model.embed_tokens", [EMBEDDING]),
        ("module:embed_tokens", [EMBEDDING]),
    ],
)
def test_modules_match_their_weights(decoder, tmp_path, pattern, names):
    report, compressed = _compressed(decoder, tmp_path, {pattern: FOUR}, strict=True)
    assert compressed == set(names)
    as_it_is = bool(Config(weights={pattern: FOUR}).matched(names))
    assert len(report.notes) == (0 if as_it_is else 1)
    if not as_it_is:
        assert f"rule {pattern!r} is read as 'module:" in report.notes[0]
        assert report.notes[0] in str(report)
        listed = sorted(names, key=[*LAYERS, EMBEDDING].index)[:3]
        assert f"matches {', '.join(listed)}" in report.notes[0]
    assert coreml.Report.from_json(report.to_json()) == report


def test_the_last_rule_still_decides(decoder, tmp_path):
    rules = {"model.layers": FOUR, "model.layers.1.mlp": None, "module:re:.*k_proj": EIGHT}
    report, compressed = _compressed(decoder, tmp_path, rules)
    assert compressed == set(LAYERS) - {UP.format(1)}
    methods = {record.name: record.method for record in report.weights}
    assert {methods[K.format(layer)] for layer in (0, 1, 10)} == {"palettize 8 bits"}


@pytest.mark.parametrize("pattern", ["lm_head", "lm_head*", "module:lm_head", "re:.*lm_head.*", "lm_head.weight"])
def test_a_tied_head_is_the_embedding(decoder, tmp_path, tied, pattern):
    report, compressed = _compressed(decoder, tmp_path, {pattern: EIGHT}, strict=True)
    assert compressed == {EMBEDDING if tied else "lm_head_weight_to_fp16"}
    assert any("the head is tied to the embedding" in note for note in report.notes) == tied


def test_what_matches_nothing_is_still_reported(decoder, tmp_path):
    rules = {"model.layer.*.mlp": FOUR, "module:layers.99": FOUR, "up_proj*": FOUR, "nothing": FOUR}
    report, compressed = _compressed(decoder, tmp_path, rules)
    assert not compressed
    assert len(report.unmatched_rules) == 4
    assert report.unmatched_rules[2] == "weights 'up_proj*'; did you mean 'module:up_proj*'?"
    assert not report.notes
    with pytest.raises(ValueError, match=r"no weight matches weights 'model\.layer"):
        _compressed(decoder, tmp_path, rules, strict=True)


def test_position_tables_are_marked_and_can_be_left_out(decoder, tmp_path):
    report = coreml.compress(decoder, tmp_path / "all.mlpackage", FOUR)
    assert {record.name for record in report.weights if record.position_table} == {COS, SIN}
    assert f"position tables are compressed like weights: {COS}, {SIN}; keep_position_tables" in str(report)
    assert {each["name"] for each in json.loads(report.to_json())["weights"] if each["position_table"]} == {COS, SIN}

    kept = coreml.compress(decoder, tmp_path / "kept.mlpackage", FOUR, keep_position_tables=True, strict=True)
    reasons = {record.name: record.reason for record in kept.weights if len(record.shape) > 1 and record.reason}
    assert reasons == {COS: "position table", SIN: "position table"}
    assert "position tables are compressed" not in str(kept)
    config = {"global": FOUR, "keep_position_tables": True}
    assert Config.from_dict(Config.from_dict(config).to_dict()) == Config.from_dict(config)
    coreml.compress(decoder, tmp_path / "same.mlpackage", config)
    assert digest(tmp_path / "same.mlpackage") == digest(tmp_path / "kept.mlpackage")

    ruled = coreml.compress(decoder, tmp_path / "ruled.mlpackage", config | {"weights": {"*cos*": EIGHT}})
    assert {record.name for record in ruled.weights if record.position_table and record.reason} == {SIN}


def test_names_of_layers_are_no_position_tables():
    assert not is_position_table("rotary_proj_weight", ["linear"])
    assert not is_position_table("cosine_table", ["gather"])
    assert is_position_table("encoder_position_embeddings_weight", ["gather"])


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("abc*", []),
        ("re:abc.*", []),
        ("lm_head", ["module:lm_head"]),
        ("a.b*", ["module:a.b*", "module:a.b*.*"]),
        ("module:a", ["module:a.*"]),
        (r"re:a\.b", [r"module:re:a\.b", r"module:re:(?:a\.b)\..*"]),
        ("model.a", ["module:model.a", "module:model.a.*", "module:a", "module:a.*"]),
    ],
)
def test_readings(pattern, expected):
    assert list(readings(pattern)) == expected


@pytest.mark.parametrize("wrong", ["module:re:(", "module:re:model\\.("])
def test_regular_expressions_of_modules_are_checked(wrong):
    with pytest.raises(ValueError, match="not a regular expression"):
        NamePatterns([wrong])
