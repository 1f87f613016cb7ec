"""Other values of attributes, in one thread, and nothing left behind."""

import threading

import keras
import pytest
from keras import layers

from keras_gbr._keras.patching import replaced

pytestmark = pytest.mark.jax

LAYERS = {
    "a property": (lambda: layers.Dense(3), "_kernel"),
    "an attribute": (lambda: layers.DepthwiseConv2D(2), "kernel"),
}


@pytest.mark.parametrize("case", LAYERS)
def test_a_thread_reads_its_own_values(case):
    make, attribute = LAYERS[case]
    layer = make()
    layer.build((None, 4, 4, 2))
    cls, before, kernel = type(layer), dict(vars(layer)), layer.kernel
    entered, done, seen = threading.Barrier(2, timeout=10), threading.Event(), {}

    def run(name):
        with replaced(layer, {attribute: name}):
            entered.wait()
            seen[name] = layer.kernel
            if name == "first":
                done.wait(10)
        seen[name, "after"] = layer.kernel
        done.set()

    threads = [threading.Thread(target=run, args=(name,)) for name in ("first", "second")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen["first"] == "first"
    assert seen["second"] == "second"
    assert seen["first", "after"] is kernel
    assert seen["second", "after"] is kernel
    assert type(layer) is cls
    assert vars(layer) == before


def test_blocks_inside_each_other_and_several_attributes():
    layer = layers.Dense(3)
    layer.build((None, 2))
    call, kernel = layer.call, layer.kernel
    with replaced(layer, {"_kernel": 1}):
        with replaced(layer, {"_kernel": 2, "call": len}):
            assert layer.kernel == 2
            assert layer.call is len
            assert isinstance(layer, layers.Dense)
            assert layer.units == 3
            assert vars(layer)["_kernel"] is kernel
            assert layer.trainable_weights[0] is kernel
        assert layer.kernel == 1
        assert layer.call == call
    with pytest.raises(ZeroDivisionError), replaced(layer, {"_kernel": 3}):
        raise ZeroDivisionError
    assert layer.kernel is kernel
    assert type(layer) is layers.Dense


def test_the_init_subclass_of_the_class_is_not_called():
    heard = []

    class Noted(keras.layers.Layer):
        def __init_subclass__(cls, *, kind, **kwargs):
            heard.append(kind)

    class Named(Noted, kind="named"):
        rate = 1

    layer = Named()
    with replaced(layer, {"rate": 2}):
        assert layer.rate == 2
        assert type(layer).__name__ == "Named"
        layer.rate = 3
    assert layer.rate == 3
    assert heard == ["named"]
