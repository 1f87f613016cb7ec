"""Keras' own test of layers, on every wrapper over every kind of layer."""

import keras
import pytest
from keras.src.testing import TestCase

import keras_gbr as gbr
from support.catalogue import WRAPPERS, thinned
from support.kinds import ATTENTION, KINDS, accepts, called, example


def _each(kind, value):
    """The value for each argument of `build`, where there is more than one."""
    return {"query_shape": value, "value_shape": value} if kind in ATTENTION else value


# The harness trains on a generator and leaves `shuffle` at its default.
@pytest.mark.filterwarnings("ignore:`shuffle=True` was passed:UserWarning")
@pytest.mark.parametrize(
    ("name", "kind"),
    thinned(
        ((n, kind) for n in WRAPPERS for kind in KINDS if accepts(getattr(gbr, n), kind)),
        step=7,  # so that the wrappers meet different ones of the 25 kinds
    ),
)
def test_layers_pass_the_test_of_keras(name, kind):
    wrapper, row = getattr(gbr, name), WRAPPERS[name]
    make, shape, kernels = KINDS[kind]
    plain = make()
    expected = called(kind, plain, keras.KerasTensor((2, *shape), example(kind).dtype))
    own = row.parameters * len(kernels)
    shape = (2, *shape)
    TestCase().run_layer_test(
        # The test makes several wrappers: each needs an inner layer of its own.
        lambda **kwargs: wrapper(make(), **kwargs),
        init_kwargs=dict(row.arguments),
        input_shape=_each(kind, shape),
        input_dtype=_each(kind, str(example(kind).dtype)),
        expected_output_shape=tuple(expected.shape),
        expected_num_trainable_weights=len(plain.trainable_weights) + own,
        expected_num_non_trainable_weights=len(plain.non_trainable_weights),
        expected_num_losses=len(kernels) if name == "Regularized" else 0,
        supports_masking=plain.supports_masking,
        # The training step of the test passes one argument, so it cannot train attention.
        run_training_check=kind not in ATTENTION,
    )
