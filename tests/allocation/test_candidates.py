"""Candidates by name, by bits and as short forms; what a target's set has is what its lint has no warning of."""

import pytest

from corepress.config.candidates import (
    CANDIDATE_SETS,
    DEFAULT_CANDIDATES,
    UNCHANGED,
    candidate_key,
    candidate_of,
    parse_candidates,
)
from corepress.coreml.target_rules import PackageLint
from corepress.engine.targets import Encoding
from corepress.specs import Palettize, Prune, Quantize


def test_keys_are_short_forms_and_back():
    steps = (Prune(target_sparsity=0.5), Palettize(nbits=4, granularity="per_grouped_channel", group_size=16))
    key = candidate_key(steps)
    assert key == (
        '[{"prune":{"target_sparsity":0.5}},'
        '{"palettize":{"granularity":"per_grouped_channel","group_size":16,"nbits":4}}]'
    )
    for each in (steps, *DEFAULT_CANDIDATES, *(each for found in CANDIDATE_SETS.values() for each in found)):
        assert candidate_of(candidate_key(each)) == each
    assert candidate_key(UNCHANGED) == "[]"


def test_all_ways_to_name_candidates():
    given = [2, 16, None, {"quantize": {"dtype": "int8"}}, [{"prune": {"target_sparsity": 0.5}}, Palettize(nbits=4)], 2]
    assert parse_candidates(given) == (
        (Palettize(nbits=2),),
        UNCHANGED,
        (Quantize(),),
        (Prune(target_sparsity=0.5), Palettize(nbits=4)),
    )
    assert parse_candidates("gpu") is CANDIDATE_SETS["gpu"]
    assert parse_candidates(None) == (*DEFAULT_CANDIDATES, UNCHANGED)
    assert parse_candidates(None, "ane") is CANDIDATE_SETS["ane"]
    assert parse_candidates(None, "ios18") is CANDIDATE_SETS["default"]


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ("gpus", ValueError, "no set 'gpus'; there are default, ane, gpu, groups, sparse; did you mean 'gpu'"),
        ([], ValueError, "none are given"),
        ([5], ValueError, "bits must be 1, 2, 3, 4, 6, 8, 16, 32, not 5"),
        ([4, {"palettise": {}}], ValueError, "number 2: unknown step 'palettise'"),
        ([{"palettize": {"nbits": 4}, "weight_threshold": 9}], ValueError, "weight_threshold is for all candidates"),
        ({"palettize": {"nbits": 4}}, TypeError, "must be a list"),
        (4, TypeError, "must be a list"),
        ([Palettize(mode="custom", lut_function=print)], ValueError, "a function, which has no form"),
    ],
)
def test_what_is_wrong_is_said(given, error, message):
    with pytest.raises(error, match=message.replace("(", r"\(")):
        parse_candidates(given)


@pytest.mark.parametrize("target", ["ane", "gpu"])
def test_sets_of_targets_have_no_known_problems(target):
    lint = PackageLint(target)
    for number, steps in enumerate(CANDIDATE_SETS[target]):
        if steps:
            lint.check(str(number), Encoding(steps, 2, 0))
    assert lint.warnings(map(str, range(99))) == ()
