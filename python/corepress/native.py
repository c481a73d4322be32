"""Paths of the installed C header, shared library and CMake package."""

from __future__ import annotations

import os

from . import system
from ._core import __file__ as CORE_FILE

_ROOT = os.path.dirname(CORE_FILE)  # where the build put them, for an editable installation too


def get_include() -> str:
    """Return the folder of the C header ``corepress.h``, to pass to a compiler as ``-I``.

    Returns
    -------
    str
        Path of the folder.
    """
    return os.path.join(_ROOT, "include")


def get_cmake_dir() -> str:
    """Return the folder to pass to CMake as ``corepress_DIR``, so that ``find_package(corepress)`` succeeds.

    The target is ``corepress::corepress``.

    Returns
    -------
    str
        Path of the folder.
    """
    return os.path.join(_ROOT, "lib", "cmake", "corepress")


def get_library() -> str:
    """Return the shared library with the functions of ``corepress.h``, to link with or to load.

    Returns
    -------
    str
        Path of the file.

    Raises
    ------
    FileNotFoundError
        If the installation lacks it.
    """
    places = [os.path.join(_ROOT, folder, name) for folder in ("lib", "bin") for name in system.current.library_names]
    for path in places:
        if os.path.isfile(path):
            return path
    raise FileNotFoundError(f"get_library: no {' or '.join(places)}; reinstall corepress")
