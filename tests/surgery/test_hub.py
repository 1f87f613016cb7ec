"""Surgery on KerasHub: the outputs of a backbone, to the last digit.

A few families by default; `KERAS_GBR_ALL_FAMILIES=1` takes all.
"""

import os

import keras
import pytest

import keras_gbr as gbr
from support.calls import assert_equal
from support.hub_families import FAMILIES, REFUSED, M, inputs_of

FEW = ["deit", "efficientnet", "gemma4", "gpt_neo_x", "llama", "qwen3", "vit"]
# Copies are made alike on every backend, and fastest under PyTorch, which traces nothing.
FEW = FEW if keras.backend.backend() == "torch" else FEW[::3]
CHOSEN = list(FAMILIES) if os.environ.get("KERAS_GBR_ALL_FAMILIES") else FEW


# Keras warns of the layers of Flux and T5 when KerasHub makes them.
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("family", CHOSEN)
def test_a_backbone_is_wrapped_and_stripped(family):
    model = FAMILIES[family]()
    if family in REFUSED:
        with pytest.raises(ValueError, match=REFUSED[family]):
            gbr.apply_enc(model)
        return
    x = inputs_of(model)
    wrapped = gbr.apply_enc(model)
    for plain, expected in ((gbr.strip(wrapped), wrapped(x)), (gbr.strip(model), model(x))):
        results = zip(keras.tree.flatten(plain(x)), keras.tree.flatten(expected), strict=True)
        for result, reference in results:
            assert_equal(result, reference)
        assert {id(v) for v in plain.variables}.isdisjoint(id(v) for v in model.variables)


def test_every_family_of_keras_hub_is_in_the_table():
    classes = [getattr(M, name) for name in dir(M) if name.endswith("Backbone")]
    # keras_hub.src.models.<family>.<module>; the bases of all families are one level up.
    places = [cls.__module__.split(".") for cls in classes]
    assert {place[3] for place in places if len(place) == 5} <= set(FAMILIES)
