"""The examples, run from the command line or imported."""

import importlib
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "examples"


def run(name, *arguments, monkeypatch, capsys):
    """Runs an example as the command line does, in this process; returns its standard output.

    Its standard error must be empty. Pytest's settings turn warnings into errors.
    """
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
    runpy.run_path(str(FOLDER / name), run_name="__main__")
    printed = capsys.readouterr()
    assert printed.err == ""
    return printed.out


def run_process(name, *arguments, timeout=600):
    """Runs an example in a process of its own."""
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return subprocess.run(
        [sys.executable, FOLDER / name, *map(str, arguments)],
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2", "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def load(name, monkeypatch):
    """Imports an example."""
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module(name.removesuffix(".py"))


def check_refused(example, arguments, message, capsys):
    """Whether `main` of an imported example stops with a message."""
    with pytest.raises(SystemExit) as stop:
        example.main(list(map(str, arguments)))
    assert stop.value.code not in (0, None)
    assert message in f"{stop.value.code} {capsys.readouterr().err}"
