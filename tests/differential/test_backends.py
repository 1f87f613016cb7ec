"""The backends against each other: the same updates, and models that move between them."""

import contextlib
import importlib.util
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from updates import CASES

from support.catalogue import BACKENDS

HERE = pathlib.Path(__file__).parent
INSTALLED = [name for name in BACKENDS if importlib.util.find_spec(name)]

pytestmark = pytest.mark.skipif(len(INSTALLED) < 2, reason="Only one backend is installed.")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A function that runs an action of updates.py: by backend, lists of arrays for each name.

    One process for each backend does everything: starting one and compiling take most of the time.
    """
    folder = tmp_path_factory.mktemp("updates")
    paths = os.pathsep.join(map(str, (HERE.parents[1], HERE.parent)))
    with contextlib.ExitStack() as stack:
        processes = {}
        for backend in INSTALLED:
            log = stack.enter_context(open(folder / f"{backend}.log", "w"))
            processes[backend] = stack.enter_context(
                subprocess.Popen(
                    [sys.executable, HERE / "updates.py", folder],
                    env={**os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": paths},
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    text=True,
                )
            )
            # A process ends at the end of its input.
            stack.callback(processes[backend].stdin.close)

        def act(action):
            for process in processes.values():
                process.stdin.write(f"{action}\n")
                process.stdin.flush()
            results = {}
            for backend, process in processes.items():
                lines = iter(process.stdout.readline, "")
                ended = any(line == f"done: {action}\n" for line in lines)
                assert ended, (folder / f"{backend}.log").read_text()
                results[backend] = {}
                with np.load(folder / f"{backend}-{action}.npz") as arrays:
                    for key, array in arrays.items():
                        results[backend].setdefault(key.split("|")[0], []).append(array)
            return results

        yield act


def error(actual, expected):
    """The length of the difference of lists of arrays, relative to that of the expected ones."""
    difference = sum(np.sum((a - e) ** 2) for a, e in zip(actual, expected, strict=True))
    return (difference / sum(np.sum(e**2) for e in expected)) ** 0.5


def test_one_update_is_the_same(run):
    reference, *others = run("update").values()
    assert reference.keys() == CASES.keys()
    errors = {}
    for name, pairs in reference.items():
        changes = [after - before for before, after in pairs]
        for other in others:
            for (start, _), (expected, _) in zip(other[name], pairs, strict=True):
                np.testing.assert_allclose(start, expected, rtol=1e-6)
            found = error([after - before for before, after in other[name]], changes)
            errors[name] = max(errors.get(name, 0.0), found)
    # In double precision, except for batch normalisation, which Keras computes in single.
    assert {name: found for name, found in errors.items() if not found < 1e-5} == {}


def test_a_model_goes_on_training_under_another_backend(run):
    run("save")
    resumed = run("resume")
    for saved_by in INSTALLED:
        expected = resumed[saved_by][saved_by]
        for backend in INSTALLED:
            assert error(resumed[backend][saved_by], expected) < 1e-6, (saved_by, backend)
