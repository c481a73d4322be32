"""A short run of the fuzzer's check, the same each time; `tests/fuzz` has the long one."""

from random import Random

import pytest
from network_mutation import mutate_network
from network_properties import check_network
from network_seeds import make_network_seeds

PER_SEED = 6  # runs take some milliseconds each
SEEDS = 28


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("seeds")


@pytest.fixture(scope="module")
def seeds(folder):
    return make_network_seeds(folder)


def test_seeds_are_sound(seeds, folder, tmp_path):
    assert len(seeds) == SEEDS
    for choice, data in enumerate(seeds.values()):
        assert check_network(data, tmp_path, choice, folder) == ""


def test_mutations_are_the_same_each_time_and_not_all_refused(seeds, folder, tmp_path):
    runs = []
    for _ in range(2):
        rng = Random(1)
        runs.append([mutate_network(data, rng, seeds["lstm half"]) for data in seeds.values() for _ in range(10)])
    assert runs[0] == runs[1]
    told = {check_network(data, tmp_path, choice, folder) for choice, data in enumerate(runs[0][::2])}
    assert "" in told
    assert len(told) > 8


@pytest.mark.parametrize("index", range(SEEDS))
def test_damaged_networks_are_handled_soundly_or_refused(seeds, folder, tmp_path, index):
    rng, data = Random(index), list(seeds.values())[index]
    for _ in range(PER_SEED):
        damaged = mutate_network(data, rng, rng.choice(list(seeds.values())))
        check_network(damaged, tmp_path, rng.randrange(192), folder)
