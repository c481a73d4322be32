"""The stub of the native module tells its functions and their parameters, and the package says that it has types."""

from __future__ import annotations

import ast
from pathlib import Path

import corepress
from corepress import _core

PACKAGE = Path(corepress.__file__).parent


def parameters(function: ast.FunctionDef) -> list[tuple[str, str | None]]:
    """Names, and defaults as they are written."""
    arguments = function.args.args
    defaults = [None] * (len(arguments) - len(function.args.defaults)) + [*map(ast.unparse, function.args.defaults)]
    return [(argument.arg, default) for argument, default in zip(arguments, defaults, strict=True)]


def compiled(name: str) -> ast.FunctionDef:
    """What the bindings tell of a function, which is written like Python."""
    signature = getattr(_core, name).__doc__.strip().splitlines()[0]
    (function,) = ast.parse(f"def {signature}: ...").body
    assert isinstance(function, ast.FunctionDef)
    return function


def test_the_stub_has_the_functions_of_the_native_module():
    tree = ast.parse((PACKAGE / "_core.pyi").read_text(encoding="utf-8"))
    stubs = {node.name: parameters(node) for node in tree.body if isinstance(node, ast.FunctionDef)}
    public = {name: value for name, value in vars(_core).items() if callable(value) and not name.startswith("_")}
    names = {name for name, value in public.items() if not isinstance(value, type)}
    assert stubs.keys() == names
    assert stubs == {name: parameters(compiled(name)) for name in names}
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    assert classes.keys() == public.keys() - names
    for name, node in classes.items():
        methods = {each.name for each in node.body if isinstance(each, ast.FunctionDef)}
        theirs = {each for each in vars(public[name]) if not each.startswith("_") or each in ("__enter__", "__exit__")}
        assert methods - {"__init__"} == theirs, name


def test_the_package_says_that_it_has_types():
    assert (PACKAGE / "py.typed").is_file()
