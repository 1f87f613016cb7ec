"""Gradient descent and the two flows: orders, and the example's numbers against NumPy."""

import csv

import matplotlib.image
import numpy as np
import pytest

from support.calls import tensorflow_only
from support.networks import use_float64
from support.scripts import check_refused, load

pytest.importorskip("scipy")

SCRIPT = "implicit_regularization.py"
UNITS = 3
X = np.linspace(-1, 1, 6)[:, None]
Y = np.sin(3 * X)


def loss_gradient(parameters):
    """The gradient of the mean squared error of the tanh network, by hand."""
    w, b, v = (parameters[i * UNITS : (i + 1) * UNITS] for i in range(3))
    hidden = np.tanh(X * w + b)
    errors = 2 * (hidden @ v + parameters[-1] - Y[:, 0]) / len(X)
    inner = np.outer(errors, v) * (1 - hidden**2)
    parts = [X[:, 0] @ inner, inner.sum(axis=0), errors @ hidden, [errors.sum()]]
    return np.concatenate(parts)


def modified_gradient(parameters, step):
    """The gradient of L + (h/4) ||grad L||^2: g + (h/2) H g, with H g by central differences.

    The step of 1e-5 leaves an error of about 1e-10.
    """
    gradient = loss_gradient(parameters)
    ends = [loss_gradient(parameters + sign * 1e-5 * gradient) for sign in (1, -1)]
    return gradient + step / 2 * (ends[0] - ends[1]) / 2e-5


def runge_kutta(gradient, start, time, steps=400):
    """The gradient flow by the classical method of order 4: its error is about 1e-10 here."""
    x, h = start, time / steps
    for _ in range(steps):
        a = -gradient(x)
        b = -gradient(x + h / 2 * a)
        c = -gradient(x + h / 2 * b)
        d = -gradient(x + h * c)
        x = x + h / 6 * (a + 2 * b + 2 * c + d)
    return x


@pytest.fixture
def example(monkeypatch):
    use_float64()
    return load(SCRIPT, monkeypatch)


@pytest.mark.parametrize("step", [0.0, 0.0625, 1.0])
def test_the_flow_is_that_of_the_modified_loss(example, step):
    parameters = np.random.default_rng(3).standard_normal(3 * UNITS + 1)
    velocity = example.Flow(UNITS, True, step / 4).velocity(parameters)
    np.testing.assert_allclose(velocity, -modified_gradient(parameters, step), atol=1e-8)


def test_orders_and_distances(example):
    time, steps = 2.0, (32, 64, 128)
    rows = example.measure(steps, time, seed=1, units=UNITS)
    for row in rows[1:]:
        assert row["plain_order"] == pytest.approx(1, abs=0.15)
        assert row["modified_order"] == pytest.approx(2, abs=0.15)

    start = 0.8 * np.random.default_rng(1).standard_normal(3 * UNITS + 1)
    flow = runge_kutta(loss_gradient, start, time)
    for row, number in zip(rows, steps, strict=True):
        h, end = time / number, start
        for _ in range(number):
            end = end - h * loss_gradient(end)
        modified = runge_kutta(lambda x, h=h: modified_gradient(x, h), start, time)
        assert row["plain"] == pytest.approx(np.linalg.norm(end - flow), rel=1e-5)
        assert row["modified"] == pytest.approx(np.linalg.norm(end - modified), rel=1e-4)


def test_the_penalty_leads_small_steps_along_the_path_of_large_ones(example):
    paths = example.plane_paths()
    assert {len(path) for path in paths.values()} == {13, 121}
    np.testing.assert_array_equal([path[0] for path in paths.values()], [(1.5, 2.5)] * 3)
    apart = {
        name: np.linalg.norm(paths[name][:: example.FINER] - paths["large"], axis=1)
        for name in ("small", "explicit")
    }
    # Not at the first steps, where all are close together.
    assert np.all(apart["explicit"][4:] < 0.2 * apart["small"][4:])


@tensorflow_only  # Elsewhere Keras has no full double precision.
def test_the_example_writes_a_table_and_a_figure(tmp_path, run):
    printed = run(SCRIPT, "--smoke", "--output", tmp_path / "new")
    with open(tmp_path / "new" / "implicit_regularization.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["steps"] for row in rows] == ["32", "64"]
    assert float(rows[1]["modified_order"]) == pytest.approx(2, abs=0.15)
    assert f"{float(rows[1]['modified']):.3e}" in printed
    height, width, _ = matplotlib.image.imread(
        tmp_path / "new" / "implicit_regularization.png"
    ).shape
    assert width > 1000
    assert height > 400


@tensorflow_only  # Elsewhere Keras has no full double precision.
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--steps", "32"], "two or more increasing numbers. Received: 32"),
        (["--steps", "64", "32"], "two or more increasing numbers. Received: 64 32"),
        (["--steps", "0", "1"], "must be a whole number >= 1. Received: 0"),
        (["--time", "nan"], "must be a number > 0. Received: nan"),
        (["--seed", "-1"], "must be a whole number >= 0. Received: -1"),
        (["--output", __file__], "File exists"),
    ],
)
def test_bad_arguments(example, arguments, message, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    check_refused(example, arguments, message, capsys)


def test_a_step_that_is_too_large_is_named(example):
    with pytest.raises(ArithmeticError, match=r"diverges with step 25. Take more --steps"):
        example.measure((200, 400), 5000.0)
