"""ONNX: ONNX Runtime computes what the model does, with and without its equal norm layers."""

import keras
import numpy as np
import onnxruntime
import pytest
from keras import layers

import keras_gbr as gbr
from support.networks import batch, logits_loss


def penalised():
    inputs = keras.Input((6, 6, 1))
    x = layers.BatchNormalization()(gbr.ENC(layers.Conv2D(4, 3))(inputs))
    outputs = gbr.ENC(layers.Dense(3))(layers.Flatten()(layers.ReLU()(x)))
    model = gbr.GBRModel(inputs, outputs)
    model.compile("sgd", logits_loss(), penalties=[gbr.Jacobian(0.1)])
    model.fit(*batch((6, 6, 1), 8), verbose=0)
    return model


def plain():
    inputs = keras.Input((6, 6, 1))
    return keras.Model(inputs, layers.Dense(3)(layers.Flatten()(layers.Conv2D(4, 3)(inputs))))


MODELS = {"plain": plain, "penalised": penalised, "stripped": lambda: gbr.strip(penalised())}


# Keras asks NumPy for a removed name, which tf2onnx needs; for a plain model too.
@pytest.mark.filterwarnings(
    "ignore:In the future `np.object`:FutureWarning:keras\\.src\\.export\\.tf2onnx_lib"
)
@pytest.mark.parametrize("kind", MODELS)
def test_onnx_computes_what_the_model_does(kind, tmp_path):
    model = MODELS[kind]()
    x = batch((6, 6, 1), 8)[0].astype("float32")
    expected = model.predict(x, verbose=0)
    path = str(tmp_path / "model.onnx")
    model.export(path, format="onnx", verbose=False)
    session = onnxruntime.InferenceSession(path)
    (outputs,) = session.run(None, {session.get_inputs()[0].name: x})
    np.testing.assert_allclose(outputs, expected, rtol=1e-5, atol=1e-6)  # single precision
