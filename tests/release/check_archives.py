"""Checks a folder of archives before they are published: `python tests/release/check_archives.py dist`.

One source archive and a wheel for every Python and platform, all of the version in pyproject.toml, which is also the
tag's where a tag is released; with project links that begin with `COREPRESS_REPOSITORY`, and no relative link in what
the package's page shows. What is wrong is listed; the exit status is 1.
"""

from __future__ import annotations

import os
import re
import sys
import tarfile
import zipfile
from email import message_from_string
from email.message import Message
from fnmatch import fnmatch
from itertools import product
from pathlib import Path

from source_archive import RELATIVE, ROOT, project_version, repository

PYPROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
PLATFORMS = (
    *("*manylinux_2_28_x86_64", "*manylinux_2_28_aarch64", "*musllinux_1_2_x86_64", "*musllinux_1_2_aarch64"),
    *("macosx_11_0_arm64", "macosx_11_0_x86_64", "win_amd64"),
)
NEEDED = ("corepress/_core*", "corepress/*/*corepress.[ds]*", "corepress/include/corepress.h", "*/LICENSE")


def expected(version: str) -> list[str]:
    """Return a pattern for each archive of a release."""
    (builds,) = re.findall(r"^build = \[(.*)\]$", PYPROJECT, re.MULTILINE)
    pythons = re.findall(r'"(cp\d+t?)-\*"', builds)
    wheels = [
        f"corepress-{version}-{python.rstrip('t')}-{python}-{platform}.whl"
        for python, platform in product(pythons, PLATFORMS)
    ]
    return [f"corepress-{version}.tar.gz", *wheels]


def read(archive: Path) -> tuple[Message, list[str]]:
    """Return the metadata of an archive and the names of its files."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as opened:
            names = opened.namelist()
            (place,) = [name for name in names if re.fullmatch(r"[^/]+\.dist-info/METADATA", name)]
            text = opened.read(place).decode()
    else:
        with tarfile.open(archive) as packed:
            names = packed.getnames()
            (place,) = [name for name in names if re.fullmatch(r"[^/]+/PKG-INFO", name)]
            file = packed.extractfile(place)
            assert file is not None
            text = file.read().decode()
    return message_from_string(text), names


def problems_of(archive: Path, version: str, address: str) -> list[str]:
    """Return what is wrong with one archive."""
    metadata, names = read(archive)
    found = []
    if metadata["Version"] != version:
        found.append(f"its version is {metadata['Version']}, not {version}")
    links = [link.split(", ")[1] for link in metadata.get_all("Project-URL", [])]
    if not links or any(not link.startswith(address) for link in links):
        found.append(f"its project links are {links}, not such that begin with {address}")
    relative = [link["path"] for link in RELATIVE.finditer(metadata.get_payload())]
    if relative:
        found.append(f"its page has the relative links {relative}")
    if archive.suffix == ".whl":
        found += [f"it has no {pattern}" for pattern in NEEDED if not any(fnmatch(name, pattern) for name in names)]
    return found


def problems_in(folder: Path, version: str, address: str) -> list[str]:
    """Return what is wrong with a folder of archives."""
    archives = sorted(folder.iterdir())
    patterns = expected(version)
    found = [f"{pattern} is missing" for pattern in patterns if not any(fnmatch(a.name, pattern) for a in archives)]
    for archive in archives:
        if not any(fnmatch(archive.name, pattern) for pattern in patterns):
            found.append(f"{archive.name} is none of a release's archives")
        else:
            found += [f"{archive.name}: {problem}" for problem in problems_of(archive, version, address)]
    return found


def main() -> None:
    """Check the folder that is given."""
    (folder,) = sys.argv[1:]
    version = project_version(PYPROJECT)
    problems = problems_in(Path(folder), version, repository())
    tag = os.environ.get("GITHUB_REF_NAME", "")
    if os.environ.get("GITHUB_REF_TYPE") == "tag" and tag != f"v{version}":
        problems.append(f"the tag is {tag}, but the version is {version}")
    sys.exit("\n".join(problems) or None)


if __name__ == "__main__":
    main()
