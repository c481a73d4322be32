"""A short run of the fuzzers' checks, the same each time; `tests/fuzz` has the long ones."""

from random import Random

import pytest
from mutation import mutate
from properties import CONFIGS, check_compress, check_reader
from seeds import Parts, make_seeds

PER_SEED = 6  # runs take tens of milliseconds each


@pytest.fixture(scope="module")
def seed_folder(tmp_path_factory):
    return tmp_path_factory.mktemp("seeds")


@pytest.fixture(scope="module")
def seeds(seed_folder):
    return make_seeds(seed_folder)


def test_files_survive_being_joined(seeds):
    assert len(seeds) == 17
    for parts in seeds.values():
        assert Parts.split(parts.join()) == parts


def test_mutations_are_the_same_each_time(seeds):
    runs = []
    for _ in range(2):
        rng = Random(1)
        runs.append([mutate(parts, rng) for parts in seeds.values() for _ in range(20)])
    assert runs[0] == runs[1]


def test_seeds_are_sound_and_mutations_are_not_all_refused(seeds, seed_folder, tmp_path):
    for parts in seeds.values():
        assert check_compress(parts, tmp_path, 0, seed_folder / "9.mlpackage") == ""
    rng = Random(0)
    told = {check_reader(mutate(rng.choice(list(seeds.values())), rng), tmp_path) for _ in range(100)}
    assert "" in told
    assert len(told) > 8


@pytest.mark.parametrize("name", ["plain-9", "ios16-affine", "blocks", "sparse-palette", "sparse-scales", "vectors"])
def test_damaged_files_are_read_or_refused(seeds, tmp_path, name):
    rng = Random(name)
    for _ in range(3 * PER_SEED):
        check_reader(mutate(seeds[name], rng, rng.choice(list(seeds.values()))), tmp_path)


@pytest.mark.parametrize("index", range(17))  # of all seeds
def test_runs_on_damaged_packages_succeed_or_leave_nothing(seeds, seed_folder, tmp_path, index):
    rng, parts = Random(index), list(seeds.values())[index]
    for _ in range(PER_SEED):
        damaged = mutate(parts, rng, rng.choice(list(seeds.values())))
        check_compress(damaged, tmp_path, rng.randrange(2 * len(CONFIGS)), seed_folder / "9.mlpackage")
