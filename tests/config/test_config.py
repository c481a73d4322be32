"""Configs: their forms, what they mean for a weight, and what they refuse."""

import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corepress import Config
from corepress.config import Rule, as_config
from corepress.config.files import parse_yaml
from corepress.config.weight_config import KEEP, WeightConfig
from corepress.specs import Palettize, Prune, Quantize, spec_to_dict

# The example of the help of `corepress compress`, with every key.
LONG_FORM = """
global: {palettize: {nbits: 4}}
op_types:
  conv:
    - prune: {threshold: 1e-3}
    - palettize: {nbits: 6, granularity: per_grouped_channel, group_size: 16}
  gather: null
weights:
  "*time_emb*": {quantize: {dtype: int8}}
  "re:.*conv_(in|out).*": null
  "*proj*":
    steps: {quantize: {dtype: int4, granularity: per_block, block_size: [0, 32]}}
    weight_threshold: 100
weight_threshold: 4096
joint_compression: true
target: ane
"""
BLOCKS = Quantize(dtype="int4", granularity="per_block", block_size=(0, 32))
GROUPED = Palettize(nbits=6, granularity="per_grouped_channel", group_size=16)


def _steps(*steps, weight_threshold=None):
    return WeightConfig(steps, weight_threshold)


def test_the_long_form():
    config = Config.from_yaml(LONG_FORM)
    assert config == Config(
        global_config=Palettize(nbits=4),
        op_types={"conv": [Prune(threshold=1e-3), GROUPED], "gather": None},
        weights=[
            ("*time_emb*", Quantize()),
            Rule("re:.*conv_(in|out).*", KEEP),
            ("*proj*", _steps(BLOCKS, weight_threshold=100)),
        ],
        weight_threshold=4096,
        joint_compression=True,
        target="ane",
    )
    assert hash(config) == hash(Config.from_yaml(LONG_FORM))


@pytest.mark.parametrize(
    ("given", "steps"),
    [
        ({"palettize": {"nbits": 4}}, [Palettize(nbits=4)]),
        ([{"palettize": {"nbits": 4}}], [Palettize(nbits=4)]),
        ({"quantize": None}, [Quantize()]),
        (Palettize(nbits=2), [Palettize(nbits=2)]),
        ([{"prune": {"target_sparsity": 1}}, Palettize(nbits=4)], [Prune(target_sparsity=1), Palettize(nbits=4)]),
        ({"global": {"quantize": {}}}, [Quantize()]),
        ({"weight_threshold": 5}, []),
    ],
)
def test_short_forms(given, steps):
    config = as_config(given)
    assert config.global_config == _steps(*steps)
    assert as_config(config) is config


def test_overrides_replace_what_the_config_says():
    config = as_config({"global": {"quantize": {}}, "weight_threshold": 5}, weight_threshold=None, target="gpu")
    assert (config.weight_threshold, config.target) == (5, "gpu")
    assert as_config(config, weight_threshold=7).weight_threshold == 7
    config = as_config(Config.from_yaml(LONG_FORM), weight_threshold=7)
    assert config.weight_threshold == 7
    assert {rule.config.weight_threshold for rule in (*config.op_types, *config.weights)} == {None}


specs = st.one_of(
    st.builds(Palettize, nbits=st.sampled_from([1, 2, 3, 4, 6, 8]), group_size=st.integers(1, 64)),
    st.builds(Quantize, dtype=st.sampled_from(["int8", "uint4"]), block_size=st.tuples(st.integers(0, 9))),
    st.builds(Prune, target_sparsity=st.floats(0, 1)),
    st.builds(Prune, n_m_ratio=st.just((2, 4)), dim=st.sampled_from([0, 1, None])),
)
configs = st.one_of(
    st.none(), specs, st.lists(specs, min_size=1, max_size=3), st.builds(WeightConfig, st.tuples(specs), st.integers(0))
)
names = st.text("abc_*?[]", min_size=1, max_size=6)


@given(
    st.builds(
        Config,
        global_config=configs,
        op_types=st.dictionaries(names, configs, max_size=3),
        weights=st.dictionaries(names, configs, max_size=3),
        weight_threshold=st.integers(0, 10**9),
        joint_compression=st.booleans(),
        target=st.sampled_from([None, "ane", "ios17"]),
    )
)
def test_dict_json_and_yaml_give_the_config_again(config):
    import yaml

    values = config.to_dict()
    assert Config.from_dict(values) == config
    assert Config.from_json(json.dumps(values)) == config
    assert Config.from_yaml(yaml.safe_dump(values, sort_keys=False)) == config


def test_a_dict_has_no_more_than_was_asked_for():
    config = Config(global_config=Quantize(), op_types={"conv": None}, weights={"x": _steps(weight_threshold=0)})
    assert config.to_dict() == {
        "global": spec_to_dict(Quantize()),
        "op_types": {"conv": None},
        "weights": {"x": {"steps": None, "weight_threshold": 0}},
    }


RULES = Config(
    global_config=Quantize(),
    op_types={"conv": Palettize(nbits=8), "linear": None},
    weights=[
        ("unet_*", Palettize(nbits=1)),
        ("unet_mid_*", Palettize(nbits=2)),
        ("re:.*_(q|k)_weight", Palettize(nbits=3)),
        ("unet_mid_k_weight", None),
        ("layer7", Palettize(nbits=4)),
    ],
)


@pytest.mark.parametrize(
    ("name", "operations", "expected"),
    [
        ("unet_a", [("a", "conv")], Palettize(nbits=1)),
        ("unet_mid_a", [("a", "conv")], Palettize(nbits=2)),
        ("unet_mid_q_weight", [("a", "conv")], Palettize(nbits=3)),
        ("unet_mid_k_weight", [("a", "conv")], None),
        ("xunet_mid_a", [("a", "conv")], Palettize(nbits=8)),
        ("UNET_A", [("a", "linear")], None),
        ("other", [("a", "matmul")], Quantize()),
        ("other", [("layer7", "linear")], Palettize(nbits=4)),
        ("unet_a", [("layer7", "linear")], Palettize(nbits=1)),
        ("other", [("layer7x", "linear")], None),
        ("other", [("a", "conv"), ("b", "conv")], Palettize(nbits=8)),
        ("unet_a", [("a", "conv"), ("b", "linear")], Palettize(nbits=1)),
        ("unused", [], Quantize()),
    ],
)
def test_names_come_before_types_and_later_rules_win(name, operations, expected):
    assert RULES.for_weight([name], operations) == (_steps(expected) if expected else KEEP,)


def test_operations_that_disagree():
    found = RULES.for_weight(["other"], [("a", "conv"), ("b", "linear"), ("c", "conv")])
    assert found == (_steps(Palettize(nbits=8)), KEEP)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=8), st.randoms(use_true_random=False))
def test_the_last_of_the_rules_that_match_decides(bits, chance: random.Random):
    choices = [1, 2, 3, 4, 6, 8]
    patterns = ["weight", "w*", "re:w.*t", "?eight", "no*", "[w]eight"]
    rules = [(patterns[chance.randrange(6)], Palettize(nbits=choices[each])) for each in bits]
    matching = [spec for pattern, spec in rules if pattern != "no*"]
    expected = _steps(matching[-1]) if matching else KEEP
    assert Config(weights=rules).for_weight(["weight"], [("op", "conv")]) == (expected,)


def test_unmatched_rules_are_told_with_what_may_have_been_meant():
    weights = dict.fromkeys(["unet_conv_in", "*", "re:x+"])
    config = Config(op_types={"cov": None, "conv": None}, weights=weights)
    assert config.unmatched(["unet_conv_in_weight", "y"], ["conv", "linear"]) == (
        "op_types 'cov'; did you mean 'conv'?",
        "weights 'unet_conv_in'; did you mean 'unet_conv_in_weight'?",
        "weights 're:x+'",
    )


WRONG = [
    ({"palettise": {"nbits": 4}}, "config: unknown step 'palettise'; .*did you mean 'palettize'"),
    ({"palettize": {"nbit": 4}}, "palettize: no option 'nbit'; .*did you mean 'nbits'"),
    ({"palettize": {"nbits": "4"}}, "palettize: nbits must be 1, 2, 3, 4, 6, 8, not '4'"),
    ({"palettize": {"nbits": True}}, "palettize: nbits must be 1, 2, 3, 4, 6, 8, not True"),
    ({"palettize": {"nbits": 5}}, "palettize: nbits must be 1, 2, 3, 4, 6, 8, not 5"),
    ({"palettize": 4}, "palettize: options must be a dict, not 4"),
    ({"prune": {"target_sparsity": "half"}}, "prune: target_sparsity must be a number from 0 to 1, not 'half'"),
    (
        {"prune": {"n_m_ratio": "2:4"}},
        "prune: n_m_ratio must be two whole numbers, 0 <= n <= m",
    ),
    ({"quantize": {"dtype": 8}}, "quantize: dtype must be 'int8', 'uint8', 'int4', 'uint4', 'int2', "),
    ({"quantize": {"block_size": "32"}}, "block_size must be a whole number or one per axis, not '32'"),
    ({"prune": {"threshold": 1}, "palettize": {"nbits": 4}}, "'prune', 'palettize' must be a list, in order"),
    ({"global": {"quantize": {}}, "wieghts": {}}, "config: unknown key 'wieghts'; .*did you mean 'weights'"),
    (
        {"global": {"quantize": {}}, "palettize": {"nbits": 4}},
        "config: 'palettize' cannot be given next to 'global'; list the steps",
    ),
    (
        {"palettize": {}, "prune": {}, "weight_threshold": 0},
        "steps 'palettize', 'prune' must be a list, in order",
    ),
    ({"palettize": {"nbits": 4}, "wieghts": {}}, "config: unknown key 'wieghts'; .*did you mean 'weights'"),
    ({"palletize": {"nbits": 4}, "target": "ane"}, "config: unknown key 'palletize'; .*did you mean 'palettize'"),
    (
        {"palettize": {"nbits": 4, "weight_threshold": 0}},
        "palettize: weight_threshold is not an option of a step; put it next to the step",
    ),
    ({"palettize": {"nbits": 4}, "weight_threshold": -1}, "config: weight_threshold must be a whole number of at"),
    ({"steps": [], "target": "ane"}, "config: 0 steps"),
    ({"weights": {"*x": {"prune": {}, "quantize": {}}}}, r"weights '\*x': steps 'prune', 'quantize' must be a list"),
    ({"weights": {"*x": {"steps": [], "quantize": {}}}}, r"weights '\*x': 'quantize' cannot be given next to 'steps'"),
    ({"weights": {"*x": {"quantize": {}, "weight_treshold": 1}}}, r"weights '\*x': .*mean 'weight_threshold'"),
    ({"weights": {"*x": {"quantise": {}, "weight_threshold": 1}}}, r"weights '\*x': .*did you mean 'quantize'"),
    ({"weights": {"*x": {"steps": {"steps": {"quantize": {}}}}}}, r"weights '\*x': unknown step 'steps'"),
    ({"weights": {"*x": {"palettize": {"nbits": 5}}}}, r"config: weights '\*x': palettize: nbits must be"),
    ({"weights": {"*x": [{"quantize": {}}, {"prun": {}}]}}, r"config: weights '\*x': unknown step 'prun'"),
    ({"weights": {"re:(": None}}, r"config: weights 're:\(': not a regular expression \(missing \)"),
    ({"weights": {"*x": []}}, r"config: weights '\*x': 0 steps; give at least one, or null"),
    ({"weights": {"*x": {"weight_threshold": 1}}}, r"weights '\*x': must have steps, or one of palettize, "),
    ({"weights": {"*x": {"steps": None, "weight_threshold": -1}}}, r"weights '\*x': weight_threshold must be a whole"),
    ({"weights": {1: None}}, "config: weights: a name must be a string, not 1"),
    ({"weights": "conv"}, "config: weights must be a dict, not 'conv'"),
    ({"op_types": {"conv": "4bit"}}, "config: op_types 'conv': a step is a dict"),
    ({"weight_threshold": -1}, "config: weight_threshold must be a whole number of at least 0, not -1"),
    ({"weight_threshold": 1.5}, "config: weight_threshold must be a whole number"),
    ({"joint_compression": 1}, "config: joint_compression must be true or false, not 1"),
    ({"target": "ios19"}, "config: target must be ios16, .*, not 'ios19'; did you mean 'ios1"),
    ([], "config: 0 steps"),
    ({}, "config: a step is a dict"),
    (None, "config: a step is a dict"),
    ("4 bits", "config: a step is a dict"),
    (4, "config: a step is a dict"),
]


@pytest.mark.parametrize(("given", "message"), WRONG, ids=[str(given) for given, _ in WRONG])
def test_what_is_wrong_is_named(given, message):
    with pytest.raises(ValueError, match=message) as caught:
        as_config(given)
    assert "\n" not in str(caught.value)


FOUR = {"palettize": {"nbits": 4}}


@pytest.mark.parametrize(
    ("short", "long"),
    [
        (FOUR | {"weight_threshold": 0}, {"global": FOUR, "weight_threshold": 0}),
        (FOUR | {"joint_compression": True}, {"global": FOUR, "joint_compression": True}),
        (FOUR | {"weights": {"*head*": None}}, {"global": FOUR, "weights": {"*head*": None}}),
        (
            FOUR | {"op_types": {"conv": None}, "target": "ane"},
            {"global": FOUR, "op_types": {"conv": None}, "target": "ane"},
        ),
        ({"steps": [FOUR], "weight_threshold": 0}, {"global": [FOUR], "weight_threshold": 0}),
        (
            {"weights": {"x": FOUR | {"weight_threshold": 9}}},
            {"weights": {"x": {"steps": FOUR, "weight_threshold": 9}}},
        ),
        (
            {"op_types": {"x": FOUR | {"weight_threshold": 9}}},
            {"op_types": {"x": {"steps": FOUR, "weight_threshold": 9}}},
        ),
        ({"global": FOUR | {"weight_threshold": 9}}, {"global": {"steps": FOUR, "weight_threshold": 9}}),
    ],
)
def test_a_single_step_may_stand_beside_other_keys(short, long):
    assert Config.from_dict(short) == Config.from_dict(long) == Config.from_json(json.dumps(short))
    assert Config.from_dict(Config.from_dict(short).to_dict()) == Config.from_dict(long)


def test_files(tmp_path):
    (tmp_path / "recipe.yaml").write_text(LONG_FORM)
    (tmp_path / "recipe.json").write_text(json.dumps(Config.from_yaml(LONG_FORM).to_dict()))
    expected = Config.from_yaml(LONG_FORM)
    assert Config.load(tmp_path / "recipe.yaml") == expected
    assert as_config(tmp_path / "recipe.json") == as_config(str(tmp_path / "recipe.yaml")) == expected


WRONG_FILES = [
    ("a.yaml", "palettize: {nbit: 4}", "a.yaml: palettize: no option 'nbit'"),
    ("a.yaml", "palettize: {nbits: 4", r"a.yaml: config: line 1: not valid YAML \(.*\)"),
    ("a.yaml", "weights:\n  a: null\n  b: null\n  a: null\n", "a.yaml: config: line 4: key 'a' occurs twice"),
    ("a.yaml", "? [1]\n: 2", "line 1: a key must be a string"),
    ("a.yaml", "!!python/object/apply:os.getcwd []", "not valid YAML"),
    ("a.yaml", "", "a.yaml: config: a step is a dict"),
    ("a.json", '{"weights": {"a": null, "a": null}}', "a.json: config: key 'a' occurs twice"),
    ("a.json", '{\n"palettize": }', r"a.json: config: line 2: not valid JSON \(Expecting value\)"),
    ("a.json", "[" * 100_000, "a.json: config: not valid JSON"),
    ("a.yaml", "[" * 5_000, "a.yaml: config: "),
    ("a.txt", "{}", "a.txt: a config file must end in .yaml, .yml, .json"),
    ("a.json", b"\xff\xfe", "a.json: not UTF-8 text"),
]


@pytest.mark.parametrize(("name", "text", "message"), WRONG_FILES)
def test_errors_name_the_file_and_the_place(tmp_path, name, text, message):
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=message) as caught:
        Config.load(tmp_path / name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["recipe.yaml", "recipe.json"])
def test_files_may_begin_with_a_byte_order_mark(tmp_path, name):
    """As editors of Windows write them."""
    config = Config.from_yaml(LONG_FORM)
    text = LONG_FORM if name.endswith("yaml") else json.dumps(config.to_dict())
    (tmp_path / name).write_text(text, encoding="utf-8-sig")
    assert Config.load(tmp_path / name) == config


def test_a_missing_file_is_named_with_a_similar_one(tmp_path):
    (tmp_path / "recipe.yaml").write_text(LONG_FORM)
    with pytest.raises(FileNotFoundError, match=r"recip.yaml: no such config file; did you mean 'recipe.yaml'\?"):
        Config.load(tmp_path / "recip.yaml")


def test_repr_is_short():
    assert repr(Config.from_yaml(LONG_FORM)) == "<Config palettize 4 bits, 5 rules>"


def test_a_function_has_no_form_as_a_dict():
    config = Config(global_config=Palettize(mode="custom", lut_function=len))
    with pytest.raises(ValueError, match="palettize: lut_function is a function"):
        config.to_dict()
    assert as_config({"palettize": {"mode": "custom", "lut_function": len}}) == config
    with pytest.raises(ValueError, match="lut_function must be a function or None, not 'len'"):
        as_config({"palettize": {"mode": "custom", "lut_function": "len"}})


def test_thresholds_of_a_call_override_those_of_all_rules():
    given = {"palettize": {"nbits": 4}, "weight_threshold": 5000}
    config = Config.from_dict({"global": given, "op_types": {"conv": given}, "weights": {"*proj*": given}})
    assert [rule.config.weight_threshold for rule in (*config.op_types, *config.weights)] == [5000, 5000]
    called = as_config(config, weight_threshold=7)
    parts = (called.global_config, *(rule.config for rule in (*called.op_types, *called.weights)))
    assert [part.weight_threshold for part in parts] == [None, None, None]
    assert [part.steps for part in parts] == [(Palettize(nbits=4),)] * 3
    assert called.weight_threshold == 7


@pytest.mark.parametrize(
    ("text", "value"), [("1e3", 1000.0), ("1E3", 1000.0), ("+1e-3", 1e-3), ("-2.e+1", -20.0), ("1.5e2", 150.0)]
)
def test_exponents_of_yaml_need_neither_point_nor_sign(text, value):
    assert parse_yaml(f"threshold: {text}") == {"threshold": value}
