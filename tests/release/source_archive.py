"""Makes the source archive that a release is built from: `python tests/release/source_archive.py`, into `dist`.

The repository's address stands nowhere in the source. The variable COREPRESS_REPOSITORY, which is like
https://HOST/OWNER/NAME, gives the archive its project links, and turns the README's links, which are relative to the
repository, into absolute ones for pages that show it elsewhere. Wheels are built from the archive and inherit both.
Needs git and the package `build`.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
VARIABLE = "COREPRESS_REPOSITORY"
# The targets of Markdown links and pictures that lead into the repository: no address of its own, no place on the page.
RELATIVE = re.compile(r"(?P<picture>!?)(?P<text>\[[^\]]*\])\((?![a-z]+:|#)(?P<path>[^)\s]+)\)")


def repository() -> str:
    """Return the address that the environment gives; without a usable one the release ends here."""
    address = os.environ.get(VARIABLE, "")
    if not re.fullmatch(r"https://[^/\s]+/[^\s]*[^/\s]", address):
        sys.exit(f"{VARIABLE}={address!r}: a release needs the repository's address, like https://HOST/OWNER/NAME")
    return address


def project_version(pyproject: str) -> str:
    """Return the version that stands in the text of pyproject.toml."""
    (version,) = re.findall(r'^version = "(.*)"$', pyproject, re.MULTILINE)
    return str(version)


def with_links(pyproject: str, address: str) -> str:
    """Return the text of pyproject.toml with the project's links."""
    links = {
        "Repository": address,
        "Documentation": f"{address}/tree/v{project_version(pyproject)}/docs",
        "Changelog": f"{address}/blob/v{project_version(pyproject)}/CHANGELOG.md",
        "Issues": f"{address}/issues",
    }
    return "\n".join([pyproject.rstrip(), "", "[project.urls]", *(f'{k} = "{v}"' for k, v in links.items()), ""])


def with_absolute_links(readme: str, address: str, version: str) -> str:
    """Return the README with links that lead to this version's files from anywhere."""

    def absolute(link: re.Match[str]) -> str:
        view = "raw" if link["picture"] else "blob"
        return f"{link['picture']}{link['text']}({address}/{view}/v{version}/{link['path']})"

    return RELATIVE.sub(absolute, readme)


def prepare(folder: Path, address: str) -> None:
    """Give an exported source its address."""
    pyproject, readme = folder / "pyproject.toml", folder / "README.md"
    text = pyproject.read_text(encoding="utf-8")
    pyproject.write_text(with_links(text, address), encoding="utf-8")
    page = with_absolute_links(readme.read_text(encoding="utf-8"), address, project_version(text))
    readme.write_text(page, encoding="utf-8")


def main() -> None:
    """Export the commit that is checked out, give it its address, and pack it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=ROOT / "dist", help="folder for the archive (default: dist)")
    output = parser.parse_args().output.absolute()
    address = repository()
    with tempfile.TemporaryDirectory() as name:
        packed, folder = Path(name, "source.tar"), Path(name, "source")
        folder.mkdir()
        subprocess.run(["git", "archive", "--output", packed, "HEAD"], cwd=ROOT, check=True)
        subprocess.run(["tar", "-xf", packed, "-C", folder], check=True)
        prepare(folder, address)
        subprocess.run([sys.executable, "-m", "build", "--sdist", "--outdir", output, folder], check=True)


if __name__ == "__main__":
    main()
