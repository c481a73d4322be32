"""Where the files for hosts that are not Python stand: the C header, the shared library and the CMake package."""

from __future__ import annotations

import os

from . import _core

_ROOT = os.path.dirname(_core.__file__)  # where the build put them, for an editable installation too


def get_include() -> str:
    """Return the folder that holds the C header ``corepress.h``, to give a compiler as ``-I``.

    Returns
    -------
    str
        Path of the folder.
    """
    return os.path.join(_ROOT, "include")


def get_cmake_dir() -> str:
    """Return the folder to give CMake as ``corepress_DIR``, so that ``find_package(corepress)`` succeeds.

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
    """
    libraries = os.path.join(_ROOT, "lib")
    return os.path.join(libraries, next(name for name in os.listdir(libraries) if name.startswith("libcorepress.")))
