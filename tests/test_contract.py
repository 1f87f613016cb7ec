"""What every public class must do: keep its configuration, and train on after loading."""

import copy
import json

import keras
import numpy as np
import pytest
from keras import layers

import keras_gbr as gbr
from support.catalogue import (
    BASES,
    CLASSES,
    CONSTRAINTS,
    MODELS,
    OTHERS,
    PENALTIES,
    REGULARIZERS,
    ROWS,
    TABLES,
    WRAPPERS,
    thinned,
)

pytestmark = pytest.mark.jax

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def test_every_public_name_is_in_the_catalogue():
    listed = [*CLASSES, *MODELS, *BASES, *OTHERS]
    assert sorted(listed) == sorted(gbr.__all__)


@pytest.mark.parametrize("part", TABLES)
def test_every_class_is_in_the_table_of_its_base(part):
    base = {
        "penalty": gbr.Penalty,
        "wrapper": (gbr.Reparametrized, gbr.Regularized),
        "regularizer": keras.regularizers.Regularizer,
        "constraint": keras.constraints.Constraint,
    }[part]
    assert all(issubclass(getattr(gbr, name), base) for name in TABLES[part])


@pytest.mark.parametrize("name", CLASSES)
def test_configuration_survives_json(name):
    original = ROWS[name].full()
    config = original.get_config()
    given = copy.deepcopy(config)
    assert type(original).from_config(config).get_config() == given
    assert config == given  # The caller's dictionary is as it was.
    serialized = json.loads(json.dumps(keras.saving.serialize_keras_object(original)))
    assert serialized["registered_name"] == f"keras_gbr>{name}"
    twin = keras.saving.deserialize_keras_object(serialized)
    assert type(twin) is type(original)
    first, second = (json.dumps(keras.saving.serialize_keras_object(o)) for o in (original, twin))
    assert first == second
    if name in WRAPPERS:
        assert twin.dtype_policy.name == original.dtype_policy.name


def model_with(name):
    """A small image classifier that uses the part `name`."""
    inputs = keras.Input((4, 4, 2))
    convolution = layers.Conv2D(
        3,
        2,
        kernel_regularizer=ROWS[name].full() if name in REGULARIZERS else None,
        kernel_constraint=ROWS[name].full() if name in CONSTRAINTS else None,
    )
    x = (ROWS[name].full() if name in WRAPPERS else convolution)(inputs)
    model = gbr.GBRModel(inputs, layers.Dense(3)(layers.Flatten(name="hidden")(x)))
    penalties = [ROWS[name].full()] if name in PENALTIES else None
    optimizer = keras.optimizers.SGD(0.1, momentum=0.9)
    model.compile(optimizer, LOSS, penalties=penalties)
    return model


@pytest.mark.parametrize("name", thinned([(name,) for name in CLASSES], step=2))
def test_saved_and_loaded_models_go_on_alike(name, tmp_path):
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((8, 4, 4, 2)).astype("float32"), rng.integers(0, 3, 8)
    model = model_with(name)
    model.fit(x, y, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(model.predict(x, verbose=0), loaded.predict(x, verbose=0))
    losses = [one.train_on_batch(x, y) for one in (model, loaded)]
    assert losses[0] == losses[1]
    for straight, resumed in zip(model.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(straight, resumed)


@pytest.mark.parametrize("name", PENALTIES)
@pytest.mark.parametrize("weight", [-1.0, float("nan"), float("inf"), "1", True, None])
def test_bad_weights_are_refused(name, weight):
    with pytest.raises(ValueError, match=r"`weight` must be a finite number >= 0.*Received"):
        getattr(gbr, name)(weight, **PENALTIES[name].required)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: gbr.Jacobian(1.0, num_projections=0), "`num_projections` must be a whole"),
        (lambda: gbr.Jacobian(1.0, num_projections=1.5), "`num_projections` must be a whole"),
        (lambda: gbr.Jacobian(1.0, of="loss"), "`of` must be one of 'output', 'probabilities'"),
        (lambda: gbr.Jacobian(1.0, seed=-1), "`seed` must be a whole number >= 0"),
        (lambda: gbr.Jacobian(1.0, name=3), "`name` must be"),
        (lambda: gbr.InputGradient(1.0, of="logits"), "`of` must be one of 'loss'"),
    ],
)
def test_bad_penalty_arguments_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
