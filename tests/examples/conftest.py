import functools

import pytest

from support import scripts


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs an example with arguments; see `scripts.run`."""
    return functools.partial(scripts.run, monkeypatch=monkeypatch, capsys=capsys)
