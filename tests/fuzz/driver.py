"""Runs a check on ever new packages: guided by coverage where atheris is installed, else by chance alone."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

from mutation import mutate
from seeds import Parts, make_seeds

Check = Callable[[Parts, Path, int, Path], str]


def main(check: Check) -> None:
    """Parse the command line, make seeds, and fuzz until the time is over or something is found.

    What breaks a check is kept, as ``crash-...`` by atheris, else as ``found-NUMBER``. Name such a file to run it
    again.
    """
    parser = argparse.ArgumentParser(description=check.__doc__)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1, help="of the random numbers")
    parser.add_argument("--corpus", type=Path, help="folder to keep what reached new code")
    parser.add_argument("--no-atheris", action="store_true")
    parser.add_argument("again", nargs="*", type=Path, help="inputs to run once")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "seeds").mkdir()
        seeds = list(make_seeds(folder / "seeds").values())
        sound = folder / "seeds" / "9.mlpackage"

        def one(data: bytes) -> None:
            with tempfile.TemporaryDirectory(dir=folder) as place:
                check(Parts.split(data), Path(place), len(data) + sum(data[-8:]), sound)

        if arguments.again:
            for path in arguments.again:
                one(path.read_bytes())
        elif arguments.no_atheris or not _has_atheris():
            _by_chance(one, seeds, arguments)
        else:
            _guided(one, seeds, arguments, folder)


def _has_atheris() -> bool:
    try:
        import atheris  # noqa: F401
    except ImportError:
        print("atheris is not installed: mutations by chance, not guided by coverage")
        return False
    return True


def _by_chance(one: Callable[[bytes], None], seeds: list[Parts], arguments: argparse.Namespace) -> None:
    rng, count, end = Random(arguments.seed), 0, time.monotonic() + arguments.seconds
    while time.monotonic() < end:
        data = mutate(rng.choice(seeds), rng, rng.choice(seeds)).join()
        try:
            one(data)
        except BaseException:
            Path(f"found-{count}").write_bytes(data)
            raise
        count += 1
    print(f"{count} packages, nothing found")


def _guided(one: Callable[[bytes], None], seeds: list[Parts], arguments: argparse.Namespace, folder: Path) -> None:
    import atheris

    corpus = arguments.corpus or folder / "corpus"
    corpus.mkdir(exist_ok=True)
    for index, seed in enumerate(seeds):
        (corpus / f"seed-{index}").write_bytes(seed.join())

    def mutator(data: bytes, limit: int, seed: int) -> bytes:
        rng = Random(seed)
        return mutate(Parts.split(data), rng, rng.choice(seeds)).join()[:limit]

    flags = [f"-max_total_time={arguments.seconds}", f"-seed={arguments.seed}", "-max_len=65536", "-rss_limit_mb=4096"]
    atheris.Setup([sys.argv[0], *flags, "-timeout=60", str(corpus)], one, custom_mutator=mutator)
    atheris.Fuzz()
