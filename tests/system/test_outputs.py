"""Where output may be written: what is in the way is named before anything is read."""

from __future__ import annotations

import os

from corepress.outputs import output_obstacle


def test_folders_of_outputs(tmp_path, monkeypatch):
    assert output_obstacle(tmp_path / "result", [], None) is None
    assert output_obstacle(tmp_path, [], None) == "is a directory"
    where = os.path.realpath(tmp_path / "none")
    assert output_obstacle(tmp_path / "none" / "result", [], None) == f"is in the folder {where}, which does not exist"
    where = os.path.realpath(tmp_path)
    expected = f"is in the folder {where}, which cannot be written to"
    for allowed in (os.R_OK, os.R_OK | os.W_OK, os.R_OK | os.X_OK):
        monkeypatch.setattr("os.access", lambda path, mode, allowed=allowed: mode & ~allowed == 0)
        assert output_obstacle(tmp_path / "result", [], None) == expected


def test_sources_and_results_are_not_written(tmp_path):
    (tmp_path / "source").mkdir()
    assert "source or inside it, which is only read" in output_obstacle(
        tmp_path / "source" / "a", [tmp_path / "source"], None
    )
    assert "result or inside it, which is the result" in output_obstacle(
        tmp_path / "result" / "a", [], tmp_path / "result"
    )
