"""The rules of the house: imports go one way, and only backend/ and training/ know a backend."""

import ast
import pathlib

import pytest

import keras_gbr

ROOT = pathlib.Path(keras_gbr.__file__).parent
# Each module imports from rows above its own, or from its own package.
ORDER = [
    ["_checks"],
    ["maths"],
    ["_keras"],
    ["kernels"],
    ["backend"],
    ["regularizers", "constraints"],
    ["layers"],
    ["penalties"],
    ["training", "measures"],
    ["callbacks", "surgery"],
    ["plots"],
    ["__init__"],
]
RANKS = {name: rank for rank, names in enumerate(ORDER) for name in names}
FILES = sorted(ROOT.rglob("*.py"))


def part_of(path):
    """The module or package of keras_gbr that a file belongs to."""
    return path.relative_to(ROOT).with_suffix("").parts[0]


def imports(path):
    """The dotted names that a file imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_every_file_has_a_place():
    assert {part_of(path) for path in FILES} == set(RANKS)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_one_way(path):
    own = part_of(path)
    for name in imports(path):
        top, *rest = name.split(".")
        if top in ("tensorflow", "jax", "torch") or name.startswith("keras.src"):
            assert own in ("backend", "training", "_keras"), f"{path.name} imports {name}"
        if top == "keras_gbr":
            other = rest[0]
            allowed = other == own or RANKS[other] < RANKS[own]
            assert allowed, f"{own} imports {other}, which does not come before it"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_functions_stay_small(path):
    source = path.read_text()
    assert len(source.splitlines()) <= 400
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef):
            docstring = ast.get_docstring(node, clean=False) or ""
            length = node.end_lineno - node.lineno - docstring.count("\n")
            assert length <= 50, f"{node.name} has {length} lines"
