"""Random ordinary programs: TensorFlow, JAX and PyTorch agree on logs and weights.

On another thousand: `make differential ARGS="--seeds 1000:2000 --folder FOLDER"`.
"""

import compare
import losses
import parts
import pytest
from programs import LOSSES, program

from penalties import PENALTIES
from support import catalogue

# As many programs as losses, so that each loss is in one.
SEEDS = range(len(LOSSES))
# As many as fit into a minute. `compare.py --replicas` takes a hundred.
COMPARED = range(0, len(LOSSES), 25)
REPLICATED = range(100, 101)


def test_every_loss_of_keras_is_drawn():
    names, functions = losses.losses_of_keras()
    assert names == set(losses.USES)
    assert functions == {getattr(losses.keras.losses, name)().fn.__name__ for name in names}


def test_every_part_of_the_package_is_drawn():
    assert set(PENALTIES) == set(catalogue.PENALTIES)
    assert set(parts.WRAPPERS) == set(catalogue.WRAPPERS)
    assert set(parts.REGULARIZERS) == set(catalogue.REGULARIZERS)
    assert set(parts.CONSTRAINTS) == set(catalogue.CONSTRAINTS)


def test_the_seeds_have_every_part():
    drawn = set().union(*(program(seed).parts for seed in SEEDS))
    assert {*LOSSES, *PENALTIES, *parts.WRAPPERS, *parts.REGULARIZERS, *parts.CONSTRAINTS} <= drawn


def test_a_seed_is_a_program():
    assert program(17) == program(17)
    assert len({program(seed).source for seed in range(300)}) == 300


@pytest.mark.skipif(len(compare.BACKENDS) < 2, reason="Only one backend is installed.")
def test_backends_agree(tmp_path):
    verdicts = compare.compare(tmp_path, COMPARED)
    words = compare.report(verdicts, False, sources=3)
    assert not any(verdict.failed for verdict in verdicts), words
    # Programs that are refused everywhere compare nothing.
    assert sum(verdict.refused for verdict in verdicts) <= len(verdicts) / 20, words


def test_replicas_agree(tmp_path):
    verdicts = compare.compare(tmp_path, REPLICATED, replicas=True)
    words = compare.report(verdicts, True, sources=3)
    assert not any(verdict.failed or verdict.refused for verdict in verdicts), words
