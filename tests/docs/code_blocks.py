"""The README and the pages of the documentation: their code blocks, and a reader who runs them."""

from __future__ import annotations

import contextlib
import doctest
import io
import json
import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from corepress import Config
from corepress.cli.main import main
from helpers.processes import TIMEOUT

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

# What a block begins with that cannot run here; everything else is run.
NOT_RUN_HERE = ("pip install", "# needs")

# Files are included in blocks with braces, ```{.python title="…"}, which formatters of code leave alone.
_FENCE = re.compile(r"^```(?:\{\.)?(\w*)(?: title=\"([^\"]+)\")?\}?$(.*?)^```$", re.DOTALL | re.MULTILINE)
# Numbers with their units, which a slow or a fresh machine may change too.
_MEASURED = re.compile(r"\d[\d.,]* ?(?:(?:min \d+ )?m?s\b|[kMG]? ?weights/s|[kMG]?B peak memory)")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: Path
    line: int
    language: str
    title: str | None
    text: str

    @property
    def place(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def is_included(self) -> bool:
        """Whether it shows a file of the repository."""
        return self.text.startswith("--8<--")

    @property
    def is_run(self) -> bool:
        return not (self.is_included or self.language == "text" or self.text.startswith(NOT_RUN_HERE))


def blocks_of(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    found = [
        Block(page, text.count("\n", 0, match.start()) + 1, match[1], match[2], match[3].removeprefix("\n"))
        for match in _FENCE.finditer(text)
    ]
    fences = len(re.findall(r"^\s*(?:```|~~~)", text, re.MULTILINE))
    assert fences == 2 * len(found), f"{page}: {fences} fences, but {len(found)} blocks were understood"
    return found


def without_measurements(text: str) -> list[str]:
    """The lines of some output, with what differs from run to run masked."""
    return [re.sub(r" +", " ", _MEASURED.sub("#", line)).strip() for line in text.strip().splitlines()]


class Reader:
    """Somebody who types what a page says, block after block, in the current folder.

    Python blocks share their names. A block with a title is the file of that name.
    """

    def __init__(self) -> None:
        self.names: dict[str, object] = {"__name__": "__main__"}

    def run(self, block: Block) -> None:
        if block.title is not None:
            Path(block.title).write_text(block.text, encoding="utf-8")
        getattr(self, f"_run_{block.language}")(block)

    def _run_python(self, block: Block) -> None:
        code = compile("\n" * block.line + block.text, block.place, "exec")
        with contextlib.redirect_stdout(io.StringIO()):
            exec(code, self.names)

    def _run_pycon(self, block: Block) -> None:
        test = doctest.DocTestParser().get_doctest(block.text, self.names, block.place, block.place, block.line)
        runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
        told = io.StringIO()
        runner.run(test, out=told.write, clear_globs=False)
        self.names.update(test.globs)
        assert runner.summarize(verbose=False).failed == 0, told.getvalue()

    def _run_sh(self, block: Block) -> None:
        for line in block.text.replace("\\\n", " ").splitlines():
            if line and not line.startswith("#"):
                self._type(line)

    def _run_console(self, block: Block) -> None:
        command, _, expected = block.text.partition("\n")
        assert command.startswith("$ "), f"{block.place}: must begin with '$ '"
        assert without_measurements(self._type(command[2:])) == without_measurements(expected), block.place

    def _type(self, line: str) -> str:
        """Run a command line and return what it printed."""
        words = shlex.split(line, comments=True)
        if words[0] != "corepress":
            path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
            finished = subprocess.run(
                ["bash", "-ec", line],
                capture_output=True,
                text=True,
                env={**os.environ, "PATH": path},
                timeout=TIMEOUT,
                check=False,
            )
            assert finished.returncode == 0, f"{line}\n{finished.stdout}{finished.stderr}"
            return finished.stdout
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = main(words[1:])
        assert (status, err.getvalue()) == (0, ""), line
        assert out.getvalue(), line
        return out.getvalue()

    def _run_yaml(self, block: Block) -> None:
        Config.from_yaml(block.text)

    def _run_json(self, block: Block) -> None:
        json.loads(block.text)
