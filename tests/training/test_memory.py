"""A step leaves nothing in memory."""

import gc
import weakref

import numpy as np
import pytest

import keras_gbr as gbr
from support import catalogue
from support.calls import number
from support.networks import batch, dense_network, logits_loss

pytestmark = pytest.mark.jax

PENALTIES = {name: row.smooth for name, row in catalogue.PENALTIES.items()} | {
    "a part": lambda at: gbr.InputGradient(0.1, fraction=0.5),
    "differences": lambda at: gbr.InputGradient(0.1, method="finite_difference"),
}


@pytest.mark.parametrize("name", PENALTIES)
def test_a_pass_is_freed_once_nothing_refers_to_it(name):
    """An eager pass holds the activations of a batch: two of them may not fit in memory."""
    model = dense_network()
    model.compile("sgd", logits_loss(), penalties=[PENALTIES[name](None)])
    x, y = batch((5,))
    gc.collect()
    gc.disable()
    try:
        forward = model.forward_pass(x.astype("float32"), y, training=True)
        loss = model.penalized_loss(0.0 * forward.y_pred[0, 0], forward)
        passed = weakref.ref(forward)
        del forward
        assert passed() is None
        assert np.isfinite(number(loss))
    finally:
        gc.enable()
