"""What every public class keeps, over every kind of layer, precision and way of running."""

import json

import keras
import numpy as np
import pytest
from keras import layers

import keras_gbr as gbr

REGULARIZERS = {
    "Spectral": lambda: gbr.Spectral(0.02, "power", 3, "convolution"),
    "WEISSI": lambda: gbr.WEISSI(1e-3, 1e-2, 1e-9),
    "ShiftedL2": lambda: gbr.ShiftedL2(1e-3, 1e-2),
    "Sum": lambda: gbr.Spectral(0.1) + keras.regularizers.L1(0.01) + gbr.WEISSI(),
}
CONSTRAINTS = {"EqualNorm": lambda: gbr.EqualNorm(2.0, per_filter=False, center=False)}
WRAPPERS = {
    "ENC": lambda: gbr.ENC(layers.Conv2D(3, 2), 2.0, False, True, learnable_alpha=True),
    "ENCConv": lambda: gbr.ENCConv(layers.Conv2D(3, 2, activation="relu"), alpha=0.5),
    "ENCDense": lambda: gbr.ENCDense(layers.Dense(3, use_bias=False), center=False),
    "WeightNorm": lambda: gbr.WeightNorm(layers.Conv2D(3, 2, padding="same")),
    "WeightStandardization": lambda: gbr.WeightStandardization(layers.Dense(3)),
    "Regularized": lambda: gbr.Regularized(layers.Conv2D(3, 2), gbr.Spectral(0.1) + gbr.WEISSI()),
}
SCHEDULE = keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.5)
PENALTIES = {
    "Jacobian": lambda: gbr.Jacobian(SCHEDULE, 2, "probabilities", seed=4, name="j"),
    "InputGradient": lambda: gbr.InputGradient(
        0.1, 1, 0.5, "label_probability", "finite_difference", 0.02, fraction=0.5
    ),
    "ParameterGradient": lambda: gbr.ParameterGradient(0.2, interval=2, name="p"),
    "Adversarial": lambda: gbr.Adversarial(0.1, 0.2, 2, (-3.0, 3), at="hidden"),
}
ELSEWHERE = {"GBRModel", "GBRMixin", "GBRMonitor", "measures", "plots"} | {
    *("apply_enc", "apply_regularizer", "strip", "list_kernels", "LayerKernels"),
    *("ForwardPass", "MissingDerivativeError", "MissingSecondDerivativeError"),
}
BASES = {"Penalty", "Reparametrized"}
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def test_every_public_name_is_in_a_table():
    tables = [set(t) for t in (REGULARIZERS, CONSTRAINTS, WRAPPERS, PENALTIES, ELSEWHERE, BASES)]
    assert set(gbr.__all__) == set.union(*tables)
    assert sum(map(len, tables)) == len(gbr.__all__)


@pytest.mark.parametrize("name", [*REGULARIZERS, *CONSTRAINTS, *WRAPPERS, *PENALTIES])
def test_configuration_survives_json(name):
    original = {**REGULARIZERS, **CONSTRAINTS, **WRAPPERS, **PENALTIES}[name]()
    serialized = json.loads(json.dumps(keras.saving.serialize_keras_object(original)))
    assert serialized["registered_name"] == f"keras_gbr>{name}"
    copy = keras.saving.deserialize_keras_object(serialized)
    assert type(copy) is type(original)
    first, second = (json.dumps(keras.saving.serialize_keras_object(o)) for o in (original, copy))
    assert first == second


def model_with(name):
    """A small image classifier that uses the part `name`."""
    inputs = keras.Input((4, 4, 2))
    convolution = layers.Conv2D(
        3,
        2,
        kernel_regularizer=REGULARIZERS.get(name, lambda: None)(),
        kernel_constraint=CONSTRAINTS.get(name, lambda: None)(),
    )
    x = WRAPPERS.get(name, lambda: convolution)()(inputs)
    model = gbr.GBRModel(inputs, layers.Dense(3)(layers.Flatten(name="hidden")(x)))
    penalties = [PENALTIES[name]()] if name in PENALTIES else None
    optimizer = keras.optimizers.SGD(0.1, momentum=0.9)
    model.compile(optimizer, LOSS, penalties=penalties)
    return model


@pytest.mark.parametrize("name", [*REGULARIZERS, *CONSTRAINTS, *WRAPPERS, *PENALTIES])
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
        getattr(gbr, name)(weight, **({"epsilon": 0.1} if name == "Adversarial" else {}))


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
