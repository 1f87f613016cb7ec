"""The backends against each other: the same updates, and models that move between them."""

import importlib.util
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from updates import CASES

HERE = pathlib.Path(__file__).parent
BACKENDS = [name for name in ("tensorflow", "jax", "torch") if importlib.util.find_spec(name)]

pytestmark = pytest.mark.skipif(len(BACKENDS) < 2, reason="There is one backend alone.")


def run(action, folder):
    """What updates.py writes, by backend: arrays, several for each name."""
    results = {}
    paths = os.pathsep.join(map(str, (HERE.parents[1], HERE.parent)))
    for backend in BACKENDS:
        done = subprocess.run(
            [sys.executable, HERE / "updates.py", action, folder],
            env={**os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": paths},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        results[backend] = {}
        with np.load(folder / f"{backend}-{action}.npz") as arrays:
            for key, array in arrays.items():
                results[backend].setdefault(key.split("|")[0], []).append(array)
    return results


def error(actual, expected):
    """The length of the difference of lists of arrays over that of what is expected."""
    difference = sum(np.sum((a - e) ** 2) for a, e in zip(actual, expected, strict=True))
    return (difference / sum(np.sum(e**2) for e in expected)) ** 0.5


def test_one_update_is_the_same(tmp_path):
    reference, *others = run("update", tmp_path).values()
    assert reference.keys() == CASES.keys()
    errors = {}
    for name, pairs in reference.items():
        changes = [after - before for before, after in pairs]
        for other in others:
            for (start, _), (expected, _) in zip(other[name], pairs, strict=True):
                np.testing.assert_allclose(start, expected, rtol=1e-6)
            found = error([after - before for before, after in other[name]], changes)
            errors[name] = max(errors.get(name, 0.0), found)
    # In double precision but for batch normalisation, which Keras computes in single.
    assert {name: found for name, found in errors.items() if not found < 1e-5} == {}


def test_a_model_goes_on_training_under_another_backend(tmp_path):
    run("save", tmp_path)
    resumed = run("resume", tmp_path)
    for saved_by in BACKENDS:
        expected = resumed[saved_by][saved_by]
        for backend in BACKENDS:
            assert error(resumed[backend][saved_by], expected) < 1e-6, (saved_by, backend)
