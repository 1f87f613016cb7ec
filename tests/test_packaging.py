"""The wheel: built and installed without network, in a folder of its own."""

import os
import pathlib
import re
import subprocess
import sys
import tomllib
import zipfile

import pytest

import keras_gbr

ROOT = pathlib.Path(__file__).parent.parent


def run(*arguments, cwd, **environment):
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dist")
    run("-m", "hatchling", "build", "--target", "wheel", "--directory", folder, cwd=ROOT)
    (file,) = folder.glob("*.whl")
    return file


def test_the_wheel_holds_the_package_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert tops == {"keras_gbr", f"keras_gbr-{keras_gbr.__version__}.dist-info"}
    packed = {name for name in names if name.startswith("keras_gbr/")}
    files = (ROOT / "keras_gbr").rglob("*")
    assert packed == {
        str(file.relative_to(ROOT))
        for file in files
        if file.is_file() and "__pycache__" not in file.parts
    }


def test_an_installed_wheel_is_typed_and_tells_its_version(wheel, tmp_path):
    target = tmp_path / "installed"
    run("-m", "pip", "install", "--no-deps", "--no-index", "--target", target, wheel, cwd=tmp_path)
    program = (
        "import importlib.metadata, importlib.resources, keras_gbr\n"
        "print(keras_gbr.__file__)\n"
        "print(keras_gbr.__version__, importlib.metadata.version('keras_gbr'))\n"
        "print(importlib.resources.files('keras_gbr').joinpath('py.typed').is_file())\n"
    )
    printed = run("-c", program, cwd=tmp_path, PYTHONPATH=str(target), TF_CPP_MIN_LOG_LEVEL="3")
    file, versions, is_typed = printed.splitlines()
    assert pathlib.Path(file) == target / "keras_gbr" / "__init__.py"
    assert versions == f"{keras_gbr.__version__} {keras_gbr.__version__}"
    assert is_typed == "True"


def test_the_version_has_one_source():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["dynamic"] == ["version"]
    assert "version:" not in (ROOT / "CITATION.cff").read_text().replace("cff-version:", "")


def test_the_citation_names_what_the_format_requires():
    citation = (ROOT / "CITATION.cff").read_text()
    keys = set(re.findall(r"^([a-z-]+):", citation, re.MULTILINE))
    assert {"cff-version", "message", "title", "authors"} <= keys


def test_the_hooks_run_what_lint_runs_and_need_no_network():
    config = (ROOT / ".pre-commit-config.yaml").read_text()
    assert re.findall(r"- repo: (.*)", config) == ["local"]
    assert set(re.findall(r"language: (.*)", config)) == {"system"}
    makefile = (ROOT / "Makefile").read_text()
    commands = re.findall(r"entry: \.venv/bin/python (.*)", config)
    assert len(commands) == 3
    for command in commands:
        assert f"$(PY) {command.removesuffix(' --force-exclude')}" in makefile
