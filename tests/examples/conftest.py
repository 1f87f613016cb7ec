import functools

import numpy as np
import pytest

from support import scripts


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs an example with arguments; see `scripts.run`."""
    return functools.partial(scripts.run, monkeypatch=monkeypatch, capsys=capsys)


@pytest.fixture
def recipe(monkeypatch):
    """A function that imports a module of the recipes."""
    return lambda name: scripts.load(f"recipes.{name}", monkeypatch)


@pytest.fixture
def images(recipe):
    """Forty images of four classes."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (40, 6, 6, 3), dtype="uint8")
    split = pixels, rng.integers(0, 4, 40).astype("int32")
    return recipe("datasets").Images("random", 4, split, split)
