"""The rules of CONTRIBUTING.md: what may import what, private names of Keras, and sizes."""

import ast
import functools
import importlib
import pathlib
import re
from collections import Counter

import keras
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
# The only files with private names of Keras: they are train steps of Keras themselves.
TRAINERS = [
    *(ROOT / f"training/{name}_trainer.py" for name in ("tensorflow", "jax", "torch")),
    ROOT / "training/tensorflow_replicas.py",
]
PRIVATE = re.compile(r"_[a-z]\w*")
# Methods of a NamedTuple, which are public in spite of their names.
NAMED_TUPLES = ("_asdict", "_fields", "_replace")
# Private names of TensorFlow and PyTorch.
OF_BACKENDS = ("_forward_cls", "_get_function", "_is_grad_func", "_registry")


def part_of(path):
    """The module or package of keras_gbr that a file belongs to."""
    return path.relative_to(ROOT).with_suffix("").parts[0]


def tree_of(path):
    return ast.parse(path.read_text())


def for_each_file(function):
    return pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))(function)


def imports(path):
    """The dotted names that a file imports."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_every_file_has_a_place():
    assert {part_of(path) for path in FILES} == set(RANKS)


@for_each_file
def test_imports_go_one_way(path):
    own = part_of(path)
    for name in imports(path):
        top, *rest = name.split(".")
        if top in ("tensorflow", "jax", "torch"):
            assert own in ("backend", "training"), f"{path.name} imports {name}"
        if top == "keras_gbr":
            other = rest[0]
            allowed = other == own or RANKS[other] < RANKS[own]
            assert allowed, f"{own} imports {other}, which does not come before it"


def definitions(tree):
    """The names that code gives to functions, classes, variables and attributes of its own."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield from [node.attr] if is_own(node.value) else []
        elif isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store):
            yield from [node.slice.value] if ast.unparse(node.value) == "vars(self)" else []


def is_own(node):
    """Whether code is `self`, `cls` or `super()`."""
    return ast.unparse(node) in ("self", "cls", "super()")


IN_THE_PACKAGE = {name for path in FILES for name in definitions(tree_of(path))}


def foreign_names(path):
    """The private names in a file that neither it nor a class that it derives from defines."""
    tree = tree_of(path)
    own, overridden = set(definitions(tree)), overridden_names(path, tree)
    names = [
        (node.attr, IN_THE_PACKAGE if is_own(node.value) else own)
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
    ]
    names += [(name, own) for name in looked_up(tree)]
    for name, known in names:
        is_public = name in (*NAMED_TUPLES, *OF_BACKENDS) or not PRIVATE.fullmatch(name)
        if not is_public and name not in known:
            yield name
    yield from overridden
    yield from (name for name in imports(path) if name.startswith("keras.src"))


def looked_up(tree):
    """The names of attributes that code gives as strings, to `getattr` or to a `__dict__`."""
    for node in ast.walk(tree):
        found = []
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called in ("getattr", "hasattr", "setattr", "delattr"):
                found = node.args[1:2]
            elif is_dict(called):
                found = node.args
                yield from (keyword.arg for keyword in node.keywords if keyword.arg)
        elif isinstance(node, ast.Subscript) and is_dict(ast.unparse(node.value)):
            found = [node.slice]
        elif isinstance(node, ast.Compare) and is_dict(ast.unparse(node.comparators[0])):
            found = [node.left]
        for each in found:
            if isinstance(each, ast.JoinedStr):  # f"_{name}"
                each = each.values[0]
                yield "_kernel" if getattr(each, "value", "") == "_" else ""
            elif isinstance(each, ast.Constant) and isinstance(each.value, str):
                yield each.value


def is_dict(code):
    return code.startswith("vars(") or ".__dict__" in code


def overridden_names(path, tree):
    """The private names that classes in a file define and that Keras defines as well."""
    if path in TRAINERS or part_of(path) == "backend":
        return []
    return [
        name
        for node in tree.body
        if isinstance(node, ast.ClassDef) and is_of_keras(path, node.name)
        for name in definitions(node)
        if PRIVATE.fullmatch(name) and any(hasattr(each, name) for each in keras_objects())
    ]


@functools.cache
def keras_objects():
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    wrapper = keras.layers.Wrapper(keras.layers.Dense(1))
    return [model, wrapper, keras.callbacks.Callback(), keras.metrics.Mean(), keras.Loss()]


def is_of_keras(path, name):
    """Whether a class derives from one of Keras, or goes before one."""
    module = ".".join(["keras_gbr", *path.relative_to(ROOT).with_suffix("").parts])
    cls = getattr(importlib.import_module(module.removesuffix(".__init__")), name)
    mixins = keras_gbr.GBRModel.__mro__
    return cls in mixins or any(base.__module__.startswith("keras.") for base in cls.__mro__)


@for_each_file
def test_private_names_of_keras_are_used_only_where_allowed(path):
    if part_of(path) != "_keras" and path not in TRAINERS:
        assert sorted(foreign_names(path)) == []


def test_the_readme_lists_the_private_names_of_keras():
    files = [path for path in FILES if part_of(path) == "_keras"]
    used = {(name, path.stem) for path in files for name in all_of(path)}
    listed = set(readme_table())
    assert used - listed == set(), "not in the README"
    assert listed - used == set(), "in the README and not used"


def readme_table():
    """The names of the first column with each of the files of the second."""
    for row in (ROOT / "_keras" / "README.md").read_text().splitlines():
        if row.count("|") > 3:
            names, files = (re.findall(r"`([\w.]+)`", cell) for cell in row.split("|")[1:3])
            yield from ((name, file) for name in names if name != "_" for file in files)


def all_of(path):
    """The private names in a file, including strings whose use is not known."""
    tree = tree_of(path)
    yield from (name.rpartition(".")[0] or name for name in foreign_names(path))
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            if node.value.startswith("keras.src."):
                yield node.value.strip(".")
            elif PRIVATE.fullmatch(node.value) and node.value not in (
                *definitions(tree),
                *NAMED_TUPLES,
            ):
                yield node.value


@pytest.mark.parametrize(
    "code",
    [
        "layer._layers",
        "self._flatten_layers()",
        'getattr(model, "_compile_loss", None)',
        'vars(layer)["_losses"]',
        "vars(new).update(_inbound_nodes=[])",
        'vars(layer).get(f"_{name}")',
        '"_tracker" in vars(layer)',
        "import keras.src.backend",
        "from keras.src import backend",
        "model._terms",
    ],
)
def test_a_private_name_is_found(code, tmp_path, monkeypatch):
    monkeypatch.setattr("test_architecture.ROOT", tmp_path)
    (tmp_path / "measures.py").write_text(code)
    assert len(list(foreign_names(tmp_path / "measures.py"))) == 1


@for_each_file
def test_files_and_functions_stay_small(path):
    source = path.read_text()
    assert len(source.splitlines()) <= 400
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef):
            docstring = ast.get_docstring(node, clean=False) or ""
            length = node.end_lineno - node.lineno - docstring.count("\n")
            assert length <= 40, f"{node.name} has {length} lines"


def test_no_helper_only_passes_on():
    """A private function with one caller that calls another one with its own arguments."""
    trees = [(path, tree_of(path)) for path in FILES]
    nodes = [node for _, tree in trees for node in ast.walk(tree)]
    uses = Counter(node.id for node in nodes if isinstance(node, ast.Name))
    uses += Counter(node.attr for node in nodes if isinstance(node, ast.Attribute))
    found = [
        f"{path.relative_to(ROOT)}: {node.name}"
        for path, tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
        and PRIVATE.fullmatch(node.name)
        and not node.decorator_list
        and uses[node.name] == 1
        and passes_on(node)
    ]
    assert found == []


def passes_on(function):
    body = function.body[1:] if ast.get_docstring(function) else function.body
    if len(body) != 1 or not isinstance(body[0], (ast.Return, ast.Expr)):
        return False
    call = body[0].value
    if not isinstance(call, ast.Call):
        return False
    given = [*call.args, *(keyword.value for keyword in call.keywords)]
    given = [each.value if isinstance(each, ast.Starred) else each for each in given]
    return all(isinstance(each, (ast.Name, ast.Constant)) for each in given)
