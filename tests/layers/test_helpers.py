"""What tests share is made once, however many workers ask for it at the same time."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from helpers.shared import made_once, source_digest


def test_one_of_many_makes_it(tmp_path):
    made = []

    def make(folder):
        made.append(folder)
        (folder / "file").write_text("whole")

    with ThreadPoolExecutor(8) as pool:
        folders = list(pool.map(lambda _: made_once(tmp_path / "shared", make), range(32)))
    assert set(folders) == {tmp_path / "shared"} == set(made)
    assert len(made) == 1
    assert (tmp_path / "shared/file").read_text() == "whole"


def test_what_failed_is_made_again(tmp_path):
    def fail(folder):
        (folder / "part").touch()
        raise RuntimeError("failed")

    with pytest.raises(RuntimeError, match="failed"):
        made_once(tmp_path / "shared", fail)
    made_once(tmp_path / "shared", lambda folder: (folder / "whole").touch())
    assert [path.name for path in (tmp_path / "shared").iterdir()] == ["whole"]


def test_digests_follow_what_a_function_encloses():
    def with_value(value):
        return lambda: value

    assert source_digest(with_value(1), 2) == source_digest(with_value(1), 2)
    assert len({source_digest(with_value(1), 2), source_digest(with_value(2), 2), source_digest(with_value(1), 3)}) == 3
